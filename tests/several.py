"""Several processes of one run on this machine, as the hosts of a cluster start them."""

import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

from tests.tiny import ROOT


class Host:
    """A process of `launch/main.py` whose output is read as it comes."""

    def __init__(self, *arguments: object, **environment: str):
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "launch" / "main.py", *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"} | environment,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(line for line in self.lines if not line.startswith("[Gloo]"))

    def until(self, text: str, seconds: float = 600) -> None:
        """Wait for a line with this text."""
        end = time.monotonic() + seconds
        while not any(text in line for line in self.lines):
            assert self.process.poll() is None and time.monotonic() < end, f"no '{text}' in:\n{self.output}"
            time.sleep(0.02)

    def code(self, seconds: float = 600) -> int:
        """Its exit code, once it has ended."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.output}") from None
        time.sleep(0.1)  # the last lines
        return code


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def hosts(count: int, *arguments: object, each: dict[int, list[str]] | None = None, **environment: str) -> list[Host]:
    """`count` processes of one command; `each`: more arguments of single ones."""
    cluster = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": str(count)}
    more = each or {}
    return [
        Host(*arguments, "--multihost", *more.get(i, []), **cluster, JAX_PROCESS_ID=str(i), **environment)
        for i in range(count)
    ]


def metrics(folder: pathlib.Path) -> list[dict[str, float]]:
    """The curves of a run without what its clock says."""
    import json

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "time" and "per_second" not in k} for line in lines]
