"""Install the wheel into an empty environment, and use it from an empty folder: `make test-wheel`, some minutes.

python -m tests.installed [--python=python3.12]

Trains digits by the installed command, reconstructs, pushes to a small server that speaks as the Hugging Face Hub does,
and opens what is there by `hf://` from Python. Nothing of the checkout is on the path.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tests.hub_server import serving
from tests.tiny import ROOT

LOADED = """
import pathlib, sys
import numpy as np
import diffrep_jax
assert pathlib.Path(sys.prefix) in pathlib.Path(diffrep_jax.__file__).parents, diffrep_jax.__file__
model = diffrep_jax.load("hf://me/digits")
images = np.load("run/reconstruct/arrays.npz")["images"]
z = model.encode(images)
again = model.decode(z, model.endpoint(z), steps=2)
assert again.shape == images.shape and np.isfinite(again).all()
print("opened", z.shape, "from hf://me/digits")
"""


def run(*command: str | pathlib.Path, **settings) -> None:
    print("$", *command, flush=True)
    subprocess.run(list(map(str, command)), check=True, **settings)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.installed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="that makes the environment")
    flags = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, serving() as (hub, address):
        place = pathlib.Path(folder)
        # A copy: setuptools would put into the wheel what earlier builds have left in build/.
        for name in ("diffrep_jax", "launch", "configs"):
            shutil.copytree(ROOT / name, place / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, place / "source")
        run(
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            place / "dist",
            place / "source",
        )
        (wheel,) = (place / "dist").glob("*.whl")
        run(flags.python, "-m", "venv", place / "empty")
        bin = place / "empty" / "bin"
        run(bin / "python", "-m", "pip", "install", "--quiet", f"{wheel}[hub]")
        (place / "work").mkdir()
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        hub_variables = {"HF_ENDPOINT": address, "HF_TOKEN": "hf_right", "HF_HOME": str(place / "cache")}
        here = {"cwd": place / "work", "env": kept | hub_variables}
        command = bin / "diffrep-jax"
        run(command, "--config=dbae_digits", "--workdir=run", "--config.train.total_steps=4", **here)
        run(command, "--workdir=run", "--task=reconstruct", "--config.tasks.reconstruct.num_images=8", **here)
        run(command, "--workdir=run", "--task=export", "--config.tasks.export.push=me/digits", **here)
        assert list(hub.repositories) == ["me/digits"], hub.repositories
        run(bin / "python", "-c", LOADED, **here)


if __name__ == "__main__":
    main(sys.argv[1:])
