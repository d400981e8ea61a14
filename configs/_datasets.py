"""One table of the data sets: at which size they are trained on, which split, how `--task=prepare` stores them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DataSet:
    """image_size: pixels a side; split: what is trained on; prepared: the size that is stored, 0: as they are."""

    image_size: int
    split: str
    prepared: int = 256


DATASETS = {
    "digits": DataSet(16, "train"),
    "celeba": DataSet(64, "train", prepared=0),  # 178 x 218; they are cropped when they are read
    "celebahq": DataSet(128, "all"),
    "ffhq": DataSet(128, "all"),
    "bedroom": DataSet(128, "all"),
    "horse": DataSet(128, "all"),
    "emoji": DataSet(64, "train", prepared=0),  # as they are
    "fashion": DataSet(32, "train"),
    "folder": DataSet(128, "train"),
    "codes": DataSet(1, "train"),
}
