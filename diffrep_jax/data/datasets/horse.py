"""LSUN horse (Yu et al. 2015): 2,000,340 images (the DiffAE project's LMDB keys: 256-%07d)."""

from diffrep_jax.data.datasets._published_images import PublishedImages


class Horse(PublishedImages):
    """Trained on whole, as published: "test" is the training images too, fit for previews, not for claims."""

    usual_names = ("horse.lmdb", "horse256.lmdb", "horse128.lmdb", "horse64.lmdb")
    key_digits = 7
    published = 2_000_340
    ranges = {"all": (0, 2_000_340), "train": (0, 2_000_340), "test": (0, 2_000_340)}


Dataset = Horse
