"""CelebA-HQ (Karras et al. 2018): 30,000 faces, as the DiffAE project's LMDB (keys 256-%05d)."""

from diffrep_jax.data.datasets._lmdb_images import LmdbImages


class CelebAHQ(LmdbImages):
    """Nothing is held out, each split is the whole: papers train on it, or test models of FFHQ on it."""

    file_names = ("celebahq.lmdb", "celebahq256.lmdb", "celebahq128.lmdb", "celebahq64.lmdb")
    published = 30_000
    ranges = {"all": (0, 30_000), "train": (0, 30_000), "test": (0, 30_000)}


Dataset = CelebAHQ
