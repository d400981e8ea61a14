"""CelebA (Liu et al. 2015): 202,599 aligned 178x218 faces (the DiffAE project's LMDB keys: None-%07d)."""

from diffrep_jax.data.datasets._published_images import PublishedImages


class CelebA(PublishedImages):
    """The authors' partition, in the files' order. An LMDB of square images is taken as cropped already."""

    usual_names = (
        "celeba.lmdb",
        "celeba128.lmdb",
        "celeba64.lmdb",
        "img_align_celeba",
        "img_align_celeba_png",
        "Img",
        "img_align_celeba.zip",
        "celeb_a",
    )
    key_digits = 7
    published = 202_599
    ranges = {"all": (0, 202_599), "train": (0, 162_770), "validation": (162_770, 182_637), "test": (182_637, 202_599)}
    attribute_files = (
        *("list_attr_celeba.txt", "Anno/list_attr_celeba.txt"),
        *("list_attr_celeba.csv", "Anno/list_attr_celeba.csv"),  # Kaggle's
    )
    number_of_attributes = 40
    crop = (57, 25, 128, 128)


Dataset = CelebA
