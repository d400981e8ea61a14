"""CelebA (Liu et al. 2015): 202,599 aligned 178x218 faces, as the DiffAE project's LMDB (keys None-%07d)."""

from diffrep_jax.data.datasets._lmdb_images import LmdbImages


class CelebA(LmdbImages):
    """The authors' partition, in the files' order. An LMDB of square images is taken as cropped already."""

    file_names = ("celeba.lmdb", "celeba128.lmdb", "celeba64.lmdb")
    published = 202_599
    ranges = {"train": (0, 162_770), "validation": (162_770, 182_637), "test": (182_637, 202_599)}
    crop = (57, 25, 128, 128)


Dataset = CelebA
