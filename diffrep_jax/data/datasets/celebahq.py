"""CelebA-HQ (Karras et al. 2018): 30,000 faces (the DiffAE project's LMDB keys: 256-%05d)."""

from diffrep_jax.data.datasets._published_images import PublishedImages


class CelebAHQ(PublishedImages):
    """Nothing is held out, each split is the whole: papers train on it, or test models of FFHQ on it."""

    usual_names = (
        "celebahq.lmdb",
        "celebahq256.lmdb",
        "celebahq128.lmdb",
        "celebahq64.lmdb",
        "CelebA-HQ-img",
        "celeba_hq",
    )
    key_digits = 5
    attribute_files = ("CelebAMask-HQ-attribute-anno.txt", "CelebAMask-HQ-attribute-anno.csv")
    number_of_attributes = 40
    published = 30_000
    ranges = {"all": (0, 30_000), "train": (0, 30_000), "test": (0, 30_000)}


Dataset = CelebAHQ
