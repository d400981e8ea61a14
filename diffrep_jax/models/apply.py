"""Networks as functions of their parameters: a module called with what `initialize` has drawn for it."""

from typing import Any

from flax import linen as nn

from diffrep_jax.types import PyTree


def apply(module: nn.Module, params: PyTree, *args: Any, method: str | None = None) -> Any:
    """The module's output for these parameters, or that of another of its methods; it has no other variables."""
    return module.apply({"params": params}, *args, method=method)
