"""LSUN bedroom (Yu et al. 2015): 3,033,042 images (the DiffAE project's LMDB keys: 256-%07d)."""

from diffrep_jax.data.datasets._published_images import PublishedImages


class Bedroom(PublishedImages):
    """Trained on whole, as published: "test" is the training images too, fit for previews, not for claims."""

    usual_names = ("bedroom.lmdb", "bedroom256.lmdb", "bedroom128.lmdb", "bedroom64.lmdb", "bedroom_train_lmdb")
    key_digits = 7
    published = 3_033_042
    ranges = {"all": (0, 3_033_042), "train": (0, 3_033_042), "test": (0, 3_033_042)}


Dataset = Bedroom
