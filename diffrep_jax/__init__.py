"""diffrep_jax: image representations with diffusion models, in JAX. `load(run)` opens a trained auto-encoder."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load", "load_heads"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    # Lazily, so that `import diffrep_jax` does not wait for JAX and Orbax.
    if name in __all__:
        from diffrep_jax import api

        return getattr(api, name)
    raise AttributeError(f"module 'diffrep_jax' has no attribute '{name}'")
