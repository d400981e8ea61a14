"""The optimizer of a config's `optim` section, one optax transformation for the labels of `Method.param_labels`."""

from typing import Any

import optax

from diffrep_jax.errors import UserError, unknown

OPTIMIZERS = {"radam": optax.radam, "adam": optax.adam}


def build(config: Any, method: Any) -> optax.GradientTransformation:
    """`config.name` at the constant rate `config.lr` for parameters labelled "train"; "frozen" ones stay.

    optax.radam is PyTorch's RAdam, which DBAE uses, to 1e-9.
    """
    if config.name not in OPTIMIZERS:
        raise unknown("optimizer", config.name, OPTIMIZERS, "config.optim.name")
    if not config.lr > 0:
        raise UserError(f"config.optim.lr {config.lr} must be above 0.")
    if not 0 <= config.ema_decay < 1:
        raise UserError(f"config.optim.ema_decay {config.ema_decay} is outside [0, 1).")
    transforms = {"train": OPTIMIZERS[config.name](config.lr), "frozen": optax.set_to_zero()}
    return optax.multi_transform(transforms, method.param_labels)
