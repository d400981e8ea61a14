"""TODO"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config


def get_config(variant: str = "") -> ConfigDict:
    return dbae_config(variant, "horse", image_size=128, total_steps=1020000, split="all")
