"""DDPM on scikit-learn's 1,797 scanned digits, 16 x 16.

Paper:    none; 1,500 images train, 297 of mostly other writers are held out.
Command:  python launch/main.py --config=configs/ddpm_digits.py --workdir=runs/ddpm
Measured: samples are clean digits with eta = 1 (--task=sample); training takes five minutes on two CPU cores.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._gaussian import digits_config


def get_config(variant: str = "") -> ConfigDict:
    return digits_config("ddpm", variant, steps=3000)
