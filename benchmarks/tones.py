"""How well a linear classifier tells the six skin tones of emoji apart from a code, and from principal components.

python -m benchmarks.tones --weights=pretrained/dbae_emoji --data_dir=DIR

Six classes: the yellow of an emoji without a tone, and Unicode's five. Pictures without a person, and those of two
persons of different tones, are left out. Multinomial logistic regression on standardised codes of the train split; its
penalty is picked by five folds of that split, contiguous, so that an emoji's tones are together; accuracy on the test
split, whose emoji are not in train in any tone.
"""

import argparse
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

import diffrep_jax
from benchmarks.command import one_line
from benchmarks.components import Components
from diffrep_jax.data import ImageDataset, open_dataset

SUFFIX = " skin"
ROW = "skin tone: accuracy of six classes"  # of the card
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C
FOLDS = 5
BATCH = 64
Encode = Callable[[np.ndarray], np.ndarray]


def has_tones(names: Sequence[str]) -> bool:
    """Whether attributes of these names are skin tones."""
    return any(name.endswith(SUFFIX) for name in names)


def tones(attributes: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the pictures with exactly one skin tone, the number of each one's)."""
    shown = attributes[:, [i for i, name in enumerate(names) if name.endswith(SUFFIX)]]
    rows = np.flatnonzero(shown.sum(1) == 1)
    return rows, shown[rows].argmax(1)


def accuracy(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """Of a linear classifier; train, test: (codes [n, d], classes [n])."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(model, {"logisticregression__C": PENALTIES}, cv=KFold(FOLDS))
    codes, classes = test
    return float((search.fit(*train).predict(codes) == classes).mean())


def measured(encode: Encode, splits: Sequence[ImageDataset]) -> float:
    """The accuracy for codes that `encode` makes of uint8 images; splits: train and test, with attributes."""
    parts = []
    for split in splits:
        examples = [split[i] for i in range(len(split))]
        rows, classes = tones(np.stack([example["attributes"] for example in examples]), split.attribute_names)
        images = np.stack([examples[row]["image"] for row in rows])
        codes = [encode(images[first : first + BATCH]) for first in range(0, len(images), BATCH)]
        parts.append((np.concatenate(codes), classes))
    return accuracy(*parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.tones", description=__doc__)
    parser.add_argument("--weights", default="pretrained/dbae_emoji")
    parser.add_argument("--data_dir", type=pathlib.Path)
    flags = parser.parse_args()
    model = diffrep_jax.load(flags.weights)
    shape = {"image_size": model.image_size, "channels": model.channels, "attributes": True}
    splits = [open_dataset("emoji", split=name, data_dir=flags.data_dir, **shape) for name in ("train", "test")]
    images = np.stack([splits[0][i]["image"] for i in range(len(splits[0]))])
    components = Components(images / 255.0, model.latent_dim)
    for name, encode in (("code", model.encode), ("principal components", components.encode)):
        print(f"{model.latent_dim} numbers, {name}: accuracy of the skin tone {measured(encode, splits):.4f}")


if __name__ == "__main__":
    with one_line():
        main()
