"""JAX's coordination service in a process of its own, which outlives the first process of a run for a moment.

Where that process is killed, JAX ends all others at once with a dump of their stacks, because the service ends with it.
With the service here they stay long enough to see who is missing, to say so in one line and to leave.

python launch/coordinator.py ADDRESS PROCESSES OPTIONS   (OPTIONS: a JSON object for JAX's service)
Serves until a line comes on its standard input; where that ends without one, until all have left or LINGER is over.
"""

import json
import pathlib
import socket
import subprocess
import sys
import time

LINGER = 60.0  # seconds that the others have to notice
FREE_WITHIN = 90.0  # seconds that a port may still be in use, by a run that has just been killed


class Service:
    """What `jax.distributed` holds on to in the first process: it starts the service and ends it."""

    def __init__(self, address: str, processes: int, **options: object):
        self._process = subprocess.Popen(
            [sys.executable, __file__, address, str(processes), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # what interrupts or kills the run's process group leaves it alone
        )
        if not self._process.stdout or self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"nothing can be served at {address}, the port is in use or not of this host")

    def shutdown(self) -> None:
        """End the service, now."""
        if self._process.poll() is None:
            self._process.communicate("end\n")


def listening(address: str) -> bool:
    """Whether something serves a port of this machine; two services could share it, and none would be complete."""
    with socket.socket(socket.AF_INET) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0


def connections(address: str) -> int:
    """How many connections the port has; 1 where the system does not say."""
    port, count = f":{int(address.rpartition(':')[2]):04X}", 0
    try:
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in pathlib.Path(table).read_text().splitlines()[1:]:
                local, _, state = line.split()[1:4]
                count += local.endswith(port) and state == "01"
    except OSError:
        return 1
    return count


def main(address: str, processes: str, options: str) -> None:
    from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue]

    waited = time.monotonic()
    while listening(address):
        if time.monotonic() - waited > FREE_WITHIN:
            sys.exit(1)
        time.sleep(0.5)
    service = _jax.get_distributed_runtime_service(address, int(processes), **json.loads(options))
    print("ready", flush=True)
    if not sys.stdin.readline():
        began = time.monotonic()
        while connections(address) and time.monotonic() - began < LINGER:
            time.sleep(0.5)
    service.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
