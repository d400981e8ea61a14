"""A DBAE that compiles in seconds: 8 x 8 digits, dropout and flips on, one thread."""

import pathlib
import subprocess
import sys

from ml_collections import ConfigDict

from configs import dbae_digits

ROOT = pathlib.Path(__file__).resolve().parent.parent


def tiny_config(**train) -> ConfigDict:
    """The digits config, made small; `train` replaces fields of the train section."""
    config = dbae_digits.get_config()
    config.unlock()
    config.data.update(image_size=8, flip=True)
    config.method.update(latent_dim=8)
    config.method.unet.update(width=8, mult=(1,), attention=(), dropout=0.1)
    config.method.encoder.update(width=8, mult=(1, 2), attention=())
    config.method.generator.update(width=2)
    config.train.update(total_steps=4, batch_size=8, checkpoint_every=100, log_every=1, max_minutes=0.0)
    config.train.update(train)
    config.sampling.update(sampler="heun", steps=2)
    config.tasks.reconstruct.update(every_steps=0, num_images=10, batch_size=8, grid_images=4)
    config.tasks.interpolate.update(every_steps=0, points=3)
    config.tasks.evaluate.update(every_steps=0, num_images=10, batch_size=8)
    config.tasks.evaluate.update(disentanglement_images=0, dci_images=0)
    return config.lock()


def start(config: ConfigDict, workdir, hooks=(), method=None):
    """Train a config in a folder; the state."""
    from diffrep_jax.methods.base import build
    from diffrep_jax.runs.layout import Run
    from diffrep_jax.train.loop import train

    return train(method or build(config.method), Run.at(workdir, config), None, hooks)


def run_python(code: str, *, devices: int = 1, timeout: int = 300, flags: str = "") -> str:
    """Run code in a fresh interpreter with so many host devices, XLA with more `flags`; its standard output."""
    import os

    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {flags}",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
