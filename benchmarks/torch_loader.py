"""A plain PyTorch DataLoader over an LMDB of JPEGs, for `benchmarks.data`; needs torch, lmdb and Pillow alone.

python -m benchmarks.torch_loader prints one line of JSON: wall and CPU seconds of the batches, after a warm-up.
"""

import argparse
import io
import json
import random
import time

import lmdb
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from PIL import Image

from benchmarks.process_tree import cpu_seconds


class Images(torch.utils.data.Dataset):
    """Decode, resize, flip, to float in [-1, 1], channels first: what the official datasets do for each image."""

    def __init__(self, path: str, prefix: str, count: int, size: int):
        self.path, self.prefix, self.count, self.size = path, prefix, count, size
        self.txn = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.txn is None:  # in the worker
            env = lmdb.open(self.path, readonly=True, lock=False, readahead=False, meminit=False)
            self.txn = env.begin()
        entry = bytes(self.txn.get(f"{self.prefix}-{index:07d}".encode()) or b"")
        image = Image.open(io.BytesIO(entry)).convert("RGB")
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.float().div(127.5).sub(1)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in (("path", str), ("prefix", str), ("count", int), ("size", int), ("batch", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    for name in ("workers", "batches"):
        parser.add_argument(f"--{name}", type=int, required=True)
    flags = parser.parse_args()
    images = Images(flags.path, flags.prefix, flags.count, flags.size)
    loader = torch.utils.data.DataLoader(
        images, flags.batch, shuffle=True, num_workers=flags.workers, drop_last=True, persistent_workers=True
    )

    def endless():
        while True:
            yield from loader

    batches = endless()
    for _ in range(4 * flags.workers):
        next(batches)
    began, cpu_began = time.perf_counter(), cpu_seconds()
    for _ in range(flags.batches):
        next(batches)
    print(json.dumps([time.perf_counter() - began, cpu_seconds() - cpu_began]))


if __name__ == "__main__":
    main()
