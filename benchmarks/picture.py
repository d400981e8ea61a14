"""The README's picture, from the small weights in pretrained/: nothing is trained, a minute on two cores.

python -m benchmarks.picture --out=docs/images/digits.png

Rows: held-out digits; the endpoint x_T that is made of their 64 numbers; the images that come back; the way from the
first to the second; one attribute moved in steps, by the direction of a linear head; one block of a DiTi's code after
another exchanged between two images.
"""

import argparse
import pathlib

import numpy as np

import diffrep_jax
from diffrep_jax.data import open_dataset
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.inference.edit import move
from diffrep_jax.readout.head import Head, from_arrays
from diffrep_jax.tasks._pictures import labelled_grid, save_png

PRETRAINED = pathlib.Path(__file__).parents[1] / "pretrained"
SHOWN = (3, 4, 5, 7, 9, 11, 12, 14)  # of the test split
EXCHANGED = (3, 4)  # of these
STEPS = np.linspace(-0.12, 0.12, len(SHOWN))  # times sqrt(d): of a move


def head(name: str, attribute: str) -> Head:
    """The probe's head of one attribute."""
    path = PRETRAINED / name / "probe" / "attributes_digits.npz"
    with np.load(path) as arrays:
        return from_arrays(arrays, str(path)).only(attribute)


def rows() -> dict[str, np.ndarray]:
    """{what is seen: uint8 images [8, 16, 16, 1]}"""
    digits = open_dataset("digits", split="test", image_size=16, channels=1)
    images = np.stack([digits[i]["image"] for i in SHOWN])
    dbae, diti = (diffrep_jax.load(PRETRAINED / name) for name in ("dbae_digits", "diti_digits"))
    z = dbae.encode(images)
    xT = dbae.endpoint(z)
    direction = head("dbae_digits", "slant").direction(normalised=False)
    moved = np.concatenate([move(dbae.encoded(images[:1]), direction, float(step)).z for step in STEPS])
    first, second = (diti.encoded(images[i : i + 1], invert_steps=50) for i in EXCHANGED)
    exchanged = [diti.counterfactual(first, second, (block, 1), points=2)[1:] for block in range(len(SHOWN))]
    return {
        "digits": images,
        "x_T": to_uint8(np.clip(xT, -1, 1)),
        "back from 64 numbers": to_uint8(dbae.decode(z, xT)),
        "from one to another": to_uint8(dbae.interpolate(images[0], images[1], len(SHOWN))),
        "slant": to_uint8(dbae.decode(moved, dbae.endpoint(moved))),
        "DiTi: block i exchanged": to_uint8(np.concatenate(exchanged)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.picture", description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/images/digits.png"))
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    save_png(out, labelled_grid(rows()))
    print(out)


if __name__ == "__main__":
    main()
