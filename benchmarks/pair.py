"""A training step of DBAE on this machine's CPU: ours and plain PyTorch's, in turns, each in a process of its own.

python -m benchmarks.pair                                              # PyTorch is in this environment
python -m benchmarks.pair --torch_python=OTHER/bin/python --turns=4     # it is in another one
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.command import one_line
from diffrep_jax import config as configs
from diffrep_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
Row = dict[str, Any]


def ours(flags: argparse.Namespace) -> Row:
    """The row of `benchmarks.throughput`."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "row.json"
        command = [sys.executable, "-m", "benchmarks.throughput", f"--config={flags.config}", f"--json={path}"]
        command += [f"--batch={flags.batch}", f"--repeats={flags.repeats}", "--config.method.dtype=float32"]
        _run(command)
        return json.loads(path.read_text())


def torchs(flags: argparse.Namespace) -> Row:
    """The row of `benchmarks.torch_step`."""
    method = configs.load_file(flags.config).method.to_json()
    command = [flags.torch_python, "-m", "benchmarks.torch_step", f"--method={method}", f"--batch={flags.batch}"]
    command += [f"--repeats={flags.repeats}", f"--layout={flags.torch_layout}", f"--heap={flags.torch_heap}"]
    return json.loads(_run(command).splitlines()[-1])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"{command[0]} does not run: {error.strerror}.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"{' '.join(command[:3])} ended with code {done.returncode}: {last}.")
    return done.stdout


def _check_torch(python: str) -> None:
    try:
        _run([python, "-c", "import torch"])
    except UserError as error:
        raise UserError(f"{error} Install the extra [parity], or name a Python with torch by --torch_python.") from None


def check_same(mine: Row, theirs: Row) -> None:
    """Two networks of different sizes are no pair."""
    if mine["parameters"] != theirs["parameters"]:
        raise UserError(
            f"{mine['parameters']:,} parameters here and {theirs['parameters']:,} in benchmarks/torch_networks.py; "
            "give both the same networks."
        )


def table(turns: list[tuple[Row, Row]]) -> str:
    """One line a step, the ratio of the medians with that of each turn."""
    ratios = [statistics.median(a["all_seconds"]) / statistics.median(b["all_seconds"]) for a, b in turns]
    sides = {"diffrep_jax": [a for a, _ in turns], "PyTorch": [b for _, b in turns]}
    lines = ["| | median s | min s | user CPU s | system CPU s | to PyTorch (each turn) |", "|---" * 6 + "|"]
    middle = {name: statistics.median(s for row in rows for s in row["all_seconds"]) for name, rows in sides.items()}
    for name, rows in sides.items():
        least = min(s for row in rows for s in row["all_seconds"])
        user, system = (statistics.median(row[kind] for row in rows) for kind in ("user", "system"))
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        last = "1" if name == "PyTorch" else f"**{middle[name] / middle['PyTorch']:.2f}** ({each})"
        lines.append(f"| {name} | {middle[name]:.2f} | {least:.2f} | {user:.2f} | {system:.2f} | {last} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pair", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", default="configs/dbae_celeba.py", help="of a DBAE (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="images a step (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="ours, PyTorch, ours, ... so many of each (default: 3)")
    parser.add_argument("--repeats", type=int, default=5, help="steps a turn, after a warm-up (default: 5)")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python with torch (default: this one)")
    parser.add_argument("--torch_layout", choices=("contiguous", "channels_last"), default="contiguous")
    parser.add_argument("--torch_heap", choices=("usual", "kept"), default="usual", help="kept: glibc set as for ours")
    flags = parser.parse_args(argv)
    _check_torch(flags.torch_python)  # before ours has taken minutes
    turns = []
    for turn in range(flags.turns):
        turns.append((ours(flags), torchs(flags)))
        check_same(*turns[-1])
        print(f"turn {turn + 1}: {json.dumps(turns[-1])}", file=sys.stderr, flush=True)
    mine, theirs = turns[0]
    print(f"{os.cpu_count()} cores; jax {mine['jax']}, PyTorch {theirs['version']}; {mine['parameters']:,} parameters;")
    print(f"PyTorch: {flags.torch_layout}, heap {flags.torch_heap}; batch {flags.batch}, float32\n\n{table(turns)}")


if __name__ == "__main__":
    with one_line():
        main(sys.argv[1:])
