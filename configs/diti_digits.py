"""DiTi on scikit-learn's 1,797 scanned digits, 16 x 16.

Paper:    none; 1,500 images train, 297 of mostly other writers are held out.
Command:  python launch/main.py --config=configs/diti_digits.py --workdir=runs/diti --config.train.init_from=runs/ddpm
Measured: codes of 16 numbers, on two CPU cores. Probe: average precision 0.940 over the 10 classes, r 0.946 over the 4
          measures; the same encoder as it was drawn (one step at lr 1e-12): 0.796 and 0.734. In --task=counterfactual's
          picture block 1 of 8, steps 125 to 249, turns the 6 into the 3.
Variants: mode=base|stop_grad|dual, stages=unbalanced|balanced, ssl=none|simclr|simclr_without_aug|simsiam.
"""

from ml_collections import ConfigDict

from configs._gaussian import digits_config


def get_config(variant: str = "") -> ConfigDict:
    return digits_config("diti", variant, steps=3000)
