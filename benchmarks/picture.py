"""The README's pictures, from the small weights in pretrained/: nothing is trained, a minute each on two cores.

python -m benchmarks.picture --of=emoji --out=docs/images/emoji.png
python -m benchmarks.picture --of=digits --out=docs/images/digits.png

Rows: held-out images; the endpoint x_T that is made of their numbers; the images that come back; the way from the first
to the second; attributes moved in steps, by the directions of linear heads; with digits, one block of a DiTi's code
after another exchanged between two images.
"""

import argparse
import pathlib

import numpy as np

import diffrep_jax
from diffrep_jax.data import open_dataset
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.inference.edit import move
from diffrep_jax.inference.model import Model
from diffrep_jax.readout.head import Head, from_arrays, signed
from diffrep_jax.tasks._pictures import labelled_grid, save_png

PRETRAINED = pathlib.Path(__file__).parents[1] / "pretrained"
SHOWN = (3, 4, 5, 7, 9, 11, 12, 14)  # of the test split
EXCHANGED = (3, 4)  # of these
EMOJI = (5, 2, 3, 4, 0, 8, 12, 15)  # of the examples next to the weights
DOCTOR, WHEELCHAIR = 0, 1
STEPS = np.linspace(-0.12, 0.12, len(SHOWN))  # times sqrt(d): of a move


def head(name: str, dataset: str, signs: dict[str, int]) -> Head:
    """The probe's heads of some attributes, -1 turned round."""
    path = PRETRAINED / name / "probe" / f"attributes_{dataset}.npz"
    with np.load(path) as arrays:
        every = from_arrays(arrays, str(path))
    return signed({attribute: every.only(attribute) for attribute in signs}, signs)


def moved(model: Model, image: np.ndarray, direction: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The image with its code moved by each of the steps, uint8 [n, h, w, c]."""
    z = np.concatenate([move(model.encoded(image[None]), direction, float(step)).z for step in steps])
    return to_uint8(model.decode(z, model.endpoint(z)))


def back_and_between(model: Model, images: np.ndarray) -> dict[str, np.ndarray]:
    z = model.encode(images)
    xT = model.endpoint(z)
    return {
        "x_T": to_uint8(np.clip(xT, -1, 1)),
        f"back from {z.shape[1]} numbers": to_uint8(model.decode(z, xT)),
        "from one to another": to_uint8(model.interpolate(images[0], images[1], len(images))),
    }


def emoji() -> dict[str, np.ndarray]:
    """{what is seen: uint8 images [8, 32, 32, 3]}"""
    folder, model = PRETRAINED / "dbae_emoji" / "examples", diffrep_jax.load(PRETRAINED / "dbae_emoji")
    files = open_dataset("folder", split="all", data_dir=folder, image_size=32, channels=3)
    images = np.stack([files[i]["image"] for i in EMOJI])
    darker, man = ({"dark skin": 1, "light skin": -1, "yellow skin": -1}, {"man": 1, "woman": -1})
    rows = {"emoji": images, **back_and_between(model, images)}
    for name, who, signs, far in (("skin tone", DOCTOR, darker, 0.5), ("woman to man", WHEELCHAIR, man, 0.35)):
        direction = head("dbae_emoji", "emoji", signs).direction(normalised=True)
        rows[name] = moved(model, files[who]["image"], direction, np.linspace(0, far, len(images)))
    return rows


def digits() -> dict[str, np.ndarray]:
    """{what is seen: uint8 images [8, 16, 16, 1]}"""
    test = open_dataset("digits", split="test", image_size=16, channels=1)
    images = np.stack([test[i]["image"] for i in SHOWN])
    dbae, diti = (diffrep_jax.load(PRETRAINED / name) for name in ("dbae_digits", "diti_digits"))
    direction = head("dbae_digits", "digits", {"slant": 1}).direction(normalised=False)
    first, second = (diti.encoded(images[i : i + 1], invert_steps=50) for i in EXCHANGED)
    exchanged = [diti.counterfactual(first, second, (block, 1), points=2)[1:] for block in range(len(SHOWN))]
    return {
        "digits": images,
        **back_and_between(dbae, images),
        "slant": moved(dbae, images[0], direction, STEPS),
        "DiTi: block i exchanged": to_uint8(np.concatenate(exchanged)),
    }


PICTURES = {"emoji": emoji, "digits": digits}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.picture", description=__doc__)
    parser.add_argument("--of", choices=PICTURES, default="emoji")
    parser.add_argument("--out", type=pathlib.Path, help="default: docs/images/OF.png")
    flags = parser.parse_args()
    out = flags.out or pathlib.Path("docs/images") / f"{flags.of}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    save_png(out, labelled_grid(PICTURES[flags.of]()))
    print(out)


if __name__ == "__main__":
    main()
