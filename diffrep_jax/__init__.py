"""diffrep_jax: image representations with diffusion models, in JAX. `load(run)` opens a trained auto-encoder."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    # Lazily, so that `import diffrep_jax` does not wait for JAX and Orbax.
    if name == "load":
        from diffrep_jax.api import load

        return load
    raise AttributeError(f"module 'diffrep_jax' has no attribute '{name}'")
