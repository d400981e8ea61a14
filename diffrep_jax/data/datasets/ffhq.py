"""FFHQ (Karras et al. 2019): 70,000 faces (the DiffAE project's LMDB keys: 256-%05d)."""

from diffrep_jax.data.datasets._published_images import PublishedImages


class FFHQ(PublishedImages):
    """DBAE trains on "all"; DiffAE holds out the first 10,000 images as "test"."""

    usual_names = ("ffhq.lmdb", "ffhq256.lmdb", "ffhq128.lmdb", "ffhq64.lmdb", "images1024x1024", "thumbnails128x128")
    key_digits = 5
    published = 70_000
    ranges = {"all": (0, 70_000), "train": (10_000, 70_000), "test": (0, 10_000)}


Dataset = FFHQ
