"""Put a few held-out images next to the weights of a run, as PNG files in RUN/examples: for notebooks and the web page.

python -m benchmarks.examples --run=pretrained/dbae_emoji --images=84,94,12 --data_dir=.

The images are as the model takes them, at its size; without --images the first 16 of the split "test".
"""

import argparse
import pathlib
import shutil
import sys

from PIL import Image

from benchmarks.command import one_line
from diffrep_jax import data
from diffrep_jax.errors import UserError
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import EXAMPLES, writing
from diffrep_jax.tasks.base import open_dataset


def write(run: pathlib.Path, numbers: list[int], data_dir: pathlib.Path | None) -> list[pathlib.Path]:
    """The files, in place of those that are there: 00.png, 01.png, ... in the order of `numbers`."""
    dataset: data.ImageDataset = open_dataset(run_config.load(run), "test", data_dir)
    if wrong := [number for number in numbers if not 0 <= number < len(dataset)]:
        raise UserError(f"--images={wrong[0]}: split 'test' has {len(dataset)} images, from 0 on.")
    images = [dataset[number]["image"] for number in numbers or range(min(16, len(dataset)))]
    folder = run / EXAMPLES
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    paths = [folder / f"{i:02d}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        with writing(path) as file:
            Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, format="PNG")
    return paths


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.examples", description=__doc__)
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--images", default="", help="their numbers in the split test, such as 84,94")
    parser.add_argument("--data_dir", type=pathlib.Path)
    flags = parser.parse_args(argv)
    numbers = [number for number in flags.images.split(",") if number]
    if wrong := [number for number in numbers if not number.isdecimal()]:
        raise UserError(f"--images={flags.images}: '{wrong[0]}' is no number; write them as in 84,94.")
    for path in write(flags.run, list(map(int, numbers)), flags.data_dir):
        print(path)


if __name__ == "__main__":
    with one_line():
        main(sys.argv[1:])
