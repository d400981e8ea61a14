"""A disk that is full, at many sizes, while a training or a task writes: one line, and nothing complete is lost.

For root the disk is a file system of memory of that size. For others it is a limit on the size of single files, which a
process meets at the same calls, as another error.
"""

import contextlib
import hashlib
import os
import pathlib
import random
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence

from tests.several import Host
from tests.soak.damage import newest
from tests.soak.runs import Place, complain, digest, step_of

PAGE = 4096
ROOMY = 1 << 28
UNSAVED = 4  # steps: a save of every second one may be under way, and its failure is said at the next
TASKS = {"reconstruct": "*", "encode": "*.npz", "export": "*.safetensors"}  # and the files that are compared


class Disk:
    """A folder, and how much fits into it: `size` bytes of a mounted file system, or of each file."""

    def __init__(self, folder: pathlib.Path, mounted: bool):
        self.folder, self.mounted, self.size = folder, mounted, ROOMY

    def resize(self, size: int) -> None:
        self.size = size
        if self.mounted:
            subprocess.run(["mount", "-o", f"remount,size={size}", self.folder], check=True)

    def hold(self, host: Host) -> Host:
        """Set the limit of a process that has just been started."""
        if not self.mounted and self.size < ROOMY:
            hard = resource.prlimit(host.process.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(host.process.pid, resource.RLIMIT_FSIZE, (self.size, hard))
        return host

    def used(self, folder: pathlib.Path) -> int:
        """The bytes that a folder takes of the disk, or that its largest file has."""
        files = [path for path in folder.rglob("*") if not path.is_dir()]
        if not self.mounted:
            return max(path.stat().st_size for path in files)
        return sum(-(-path.stat().st_size // PAGE) * PAGE for path in files)


@contextlib.contextmanager
def a_disk(place: Place) -> Iterator[Disk]:
    folder = pathlib.Path(tempfile.mkdtemp(dir=place.root))
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", folder], capture_output=True
        ).returncode
    )
    try:
        yield Disk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)


def full(place: Place, sizes: int, of_each_task: int, rng: random.Random) -> dict[str, float]:
    """Train, and do tasks, on a disk that is made larger after each time that it was full, and at last large enough."""
    done = {"full while training": 0, "full in a task": 0, "not full": 0, "wrong exit codes": 0, "not one line": 0}
    done |= {"checkpoints lost": 0, "runs that differ": 0, "tasks that differ": 0}
    with a_disk(place) as disk:
        done["tmpfs"] = int(disk.mounted)
        _train(place, disk, sizes, rng, done)
        for task in TASKS if of_each_task else ():
            _do(place, disk, task, of_each_task, rng, done)
    return done


def _train(place: Place, disk: Disk, sizes: int, rng: random.Random, done: dict[str, float]) -> None:
    wanted, run = place.whole("whole"), disk.folder / "run"
    most = disk.used(place.root / "whole")
    for size in _growing(0, most, sizes, rng):
        disk.resize(size)
        host = disk.hold(Host(*place.arguments("whole"), f"--workdir={run}", **place.environment))
        done["full while training"] += _refused(host, f"{size} bytes", done)
        kept = newest(run) if (run / "checkpoints").is_dir() else 0
        if (kept or 0) < step_of(host) - UNSAVED:
            done["checkpoints lost"] += 1
            complain(host, f"{size} bytes: the newest whole checkpoint is of step {kept}")
    disk.resize(ROOMY)
    host = Host(*place.arguments("whole"), f"--workdir={run}", **place.environment)
    if host.code() or digest(run, place.steps) != wanted:
        done["runs that differ"] += 1
        complain(host, "with room enough")
    shutil.rmtree(run)


def _do(place: Place, disk: Disk, task: str, sizes: int, rng: random.Random, done: dict[str, float]) -> None:
    whole, run = place.autoencoder(), disk.folder / "autoencoder"
    shutil.copytree(whole, run)
    with_task = place.fresh("with task", of=whole.name)
    code = _task(place, task, with_task).code()
    assert code == 0, task
    before = disk.used(run) if disk.mounted else 0
    for size in _growing(before, disk.used(with_task) if disk.mounted else disk.used(with_task / task), sizes, rng):
        disk.resize(size)
        host = disk.hold(_task(place, task, run))
        done["full in a task"] += _refused(host, f"--task={task}, {size - before} bytes more", done)
    disk.resize(ROOMY)
    host = _task(place, task, run)
    if host.code() or _content(run / task, TASKS[task]) != _content(with_task / task, TASKS[task]):
        done["tasks that differ"] += 1
        complain(host, f"--task={task} with room enough")
    shutil.rmtree(run)


def _task(place: Place, task: str, run: pathlib.Path) -> Host:
    return Host(f"--task={task}", f"--workdir={run}", f"--data_dir={place.images()}", **place.environment)


def _growing(least: int, most: int, count: int, rng: random.Random) -> Sequence[int]:
    """Random sizes in (least, most), growing, in whole pages."""
    sizes = [least + int((most - least) * (i + rng.random()) / count) for i in range(count)]
    return [max(size // PAGE, 1) * PAGE for size in sizes]


def _refused(host: Host, where: str, done: dict[str, float]) -> bool:
    """Whether it ended by the one line that it should."""
    code = host.code()
    said = [line for line in host.output.splitlines() if not re.match(r"\d\d:\d\d:\d\d  ", line)]
    done["not full"] += code == 0
    done["wrong exit codes"] += code not in (0, 2)
    one = len(said) == 1 and said[0].startswith("error: ")
    done["not one line"] += code != 0 and not one
    if code not in (0, 2) or (code and not one):
        complain(host, f"exit code {code}, {where}")
    return code == 2 and one


def _content(folder: pathlib.Path, pattern: str) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }
