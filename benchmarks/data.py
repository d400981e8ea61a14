"""Images a second from an LMDB of JPEGs to training batches, against PyTorch's DataLoader; start-up; memory.

python -m benchmarks.data                                  # all; needs some 3 GiB in the temporary folder
python -m benchmarks.data --torch_python=OTHER/bin/python   # PyTorch, lmdb and Pillow are in another environment
python -m benchmarks.data --what=memory
"""

import argparse
import importlib.util
import io
import itertools
import json
import logging
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.process_tree import cpu_seconds, private_bytes
from diffrep_jax.data import Loading, open_dataset, train_batches

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPES = ((128, 128), (256, 128), (256, 256))  # of the JPEGs, of the batches
ENTRIES = (1_000, 10_000, 100_000)
THROUGHPUT_ENTRIES = 2_000
DISTINCT = 500  # photographs in an LMDB; its entries repeat them
BATCH = 64
KINDS = (("thread", "threads"), ("process", "processes"))


def write_lmdb(folder: pathlib.Path, size: int, count: int) -> pathlib.Path:
    """`count` JPEGs of quality 95, squares cut at random out of scikit-learn's two photographs; written once."""
    import lmdb
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    path = folder / f"{size}px-{count}.lmdb"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    values = []
    for i in range(min(count, DISTINCT)):
        photograph, side = photographs[i % 2], int(rng.integers(256, 420))
        left, top = int(rng.integers(photograph.width - side)), int(rng.integers(photograph.height - side))
        square = photograph.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        square.save(buffer, "JPEG", quality=95)
        values.append(buffer.getvalue())
    with lmdb.open(str(path), map_size=1 << 36) as environment, environment.begin(write=True) as txn:
        for i in range(count):
            txn.put(f"{size}-{i:07d}".encode(), values[i % len(values)])
        txn.put(b"length", str(count).encode())
    return path


def batches(path: pathlib.Path, size: int, workers: int, kind: str = "thread", batch: int = BATCH) -> Iterator[Any]:
    dataset = open_dataset("folder", split="all", image_size=size, channels=3, data_dir=path)
    loading = Loading(seed=0, batch_size=batch, start_step=0, workers=workers, worker_kind=kind)
    return train_batches(dataset, loading, flip=True)


def ours(path: pathlib.Path, size: int, workers: int, kind: str, number: int) -> tuple[float, float]:
    """Wall and CPU seconds for `number` batches, after a warm-up."""
    stream = batches(path, size, workers, kind)
    for _ in range(4 * workers):
        next(stream)
    began, cpu_began = time.perf_counter(), cpu_seconds()
    for _ in range(number):
        next(stream)
    return time.perf_counter() - began, cpu_seconds() - cpu_began


def torchs(python: str, path: pathlib.Path, prefix: int, count: int, size: int, workers: int, number: int) -> Any:
    """The same of PyTorch's loader, `benchmarks/torch_loader.py`, in a process of its own."""
    settings = {"path": path, "prefix": prefix, "count": count, "size": size, "batch": BATCH}
    settings |= {"workers": workers, "batches": number}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    command = [python, "-m", "benchmarks.torch_loader", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


def throughput(folder: pathlib.Path, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Loaders take turns, so that a busy moment of the machine meets all; medians of the rounds."""
    rows = []
    for jpeg_size, size in SHAPES:
        path = write_lmdb(folder, jpeg_size, THROUGHPUT_ENTRIES)
        number = max(4, flags.images * 128 * 128 // (jpeg_size**2 * BATCH))
        loaders: dict[str, Any] = {
            f"diffrep_jax, {flags.workers} {names}": (ours, path, size, flags.workers, kind, number)
            for kind, names in KINDS
        }
        if flags.torch_python:
            torch_flags = (flags.torch_python, path, jpeg_size, THROUGHPUT_ENTRIES, size, flags.workers, number)
            loaders[f"PyTorch DataLoader, {flags.workers} workers"] = torchs, *torch_flags
        rounds = [{name: work(*arguments) for name, (work, *arguments) in loaders.items()} for _ in range(flags.rounds)]
        images = number * BATCH
        wall = {name: [images / seconds[name][0] for seconds in rounds] for name in loaders}
        rate = {name: statistics.median(values) for name, values in wall.items()}
        core = {name: statistics.median(images / seconds[name][1] for seconds in rounds) for name in loaders}
        slow = next((name for name in loaders if name.startswith("PyTorch")), None)
        rows += [
            {
                "JPEG": f"{jpeg_size} px",
                "batch": f"{BATCH} x {size} px",
                "loader": name,
                "images/s": f"{rate[name]:.0f} ({min(wall[name]):.0f} to {max(wall[name]):.0f})",
                "to PyTorch": f"{rate[name] / rate[slow]:.2f}" if slow else "",
                "images/s of CPU time": f"{core[name]:.0f}",
                "to PyTorch's": f"{core[name] / core[slow]:.2f}" if slow else "",
            }
            for name in loaders
        ]
    return rows


START = """
import sys, time
began = time.perf_counter()
from diffrep_jax.data import Loading, open_dataset, train_batches
dataset = open_dataset("folder", split="all", image_size=128, channels=3, data_dir=sys.argv[1])
opened = time.perf_counter()
next(train_batches(dataset, Loading(seed=0, batch_size=64, start_step=0, workers=2), flip=True))
print(opened - began, time.perf_counter() - began)
"""


def entries(folder: pathlib.Path, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Cost against the number of entries: CPU time of an image in the calling thread; start of a fresh process."""
    rows = []
    paths = {count: write_lmdb(folder, 128, count) for count in ENTRIES}
    cost: dict[int, list[float]] = {count: [] for count in ENTRIES}
    for _ in range(flags.rounds):
        for count, path in paths.items():
            stream = batches(path, 128, workers=0)
            next(stream)
            began = time.process_time()
            for _ in range(flags.images // BATCH // 4):
                next(stream)
            cost[count].append((time.process_time() - began) / (flags.images // BATCH // 4 * BATCH))
    for count, path in paths.items():
        starts = []
        for _ in range(flags.rounds):
            done = subprocess.run(
                [sys.executable, "-c", START, path], cwd=ROOT, capture_output=True, text=True, check=True
            )
            starts.append([float(value) for value in done.stdout.split()])
        opened, first = (statistics.median(column) for column in zip(*starts, strict=True))
        rows.append(
            {
                "entries": f"{count:,}",
                "CPU ms/image": f"{1e3 * statistics.median(cost[count]):.3f}",
                "imported and opened, s": f"{opened:.2f}",
                "first batch, s": f"{first:.2f}",
            }
        )
    return rows


def memory(folder: pathlib.Path, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Private memory while 10,000 batches of 16 images of 64 pixels go by."""
    path = write_lmdb(folder, 64, 1_000)
    marks = (100, 1_000, 2_500, 5_000, 7_500, 10_000)
    rows = []
    for kind, names in KINDS:
        stream = enumerate(batches(path, 64, flags.workers, kind, batch=16), start=1)
        used = {done: private_bytes() / 2**20 for done, _ in itertools.islice(stream, marks[-1]) if done in marks}
        rows.append({"MiB after so many batches": f"{flags.workers} {names}"})
        rows[-1] |= {f"{done:,}": f"{mebibytes:.1f}" for done, mebibytes in used.items()}
        del stream
    return rows


WORK = {"throughput": throughput, "entries": entries, "memory": memory}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: list[str]) -> None:
    here = sys.executable if importlib.util.find_spec("torch") else None
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--what", choices=sorted(WORK), help="default: all, one after the other")
    parser.add_argument("--workers", type=int, default=2, help="threads or processes that decode (default: 2)")
    parser.add_argument("--images", type=int, default=6400, help="of 128 px a measurement, fewer of larger ones")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: 5)")
    parser.add_argument("--torch_python", default=here, help="a Python with torch, lmdb and Pillow (default: this one)")
    flags = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    decoder = "simplejpeg" if importlib.util.find_spec("simplejpeg") else "Pillow"
    print(
        f"{os.cpu_count()} cores; diffrep_jax decodes with {decoder}; torch: {flags.torch_python or 'not installed'}\n"
    )
    for what in [flags.what] if flags.what else WORK:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{what}\n\n{table(WORK[what](pathlib.Path(folder), flags))}\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
