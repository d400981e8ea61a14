"""Slices of TPUs that are not here: libtpu, their compiler, compiles for them on any machine."""

import importlib.util
import os

from jax.experimental import topologies
from jax.sharding import Mesh

from diffrep_jax.errors import UserError
from diffrep_jax.sharding import make_mesh

DIMENSIONS = {"v5e": 2, "v5p": 3, "v6e": 2}  # of a slice's chips; libtpu gives a v4 chip's two cores as two devices
ALONE = {  # what libtpu looks for on a host that has TPUs; of which type does not matter
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def topology(device: str, count: int) -> str:
    """ "v5e" and 16 -> "v5e:4x4": a power of two of chips, as near to a square or a cube as there is.

    Raises UserError for other numbers.
    """
    if count & (count - 1):
        raise UserError(
            f"config.tasks.plan.devices={count} is no slice of TPUs that can be compiled for; use a power of two."
        )
    sides = [1] * DIMENSIONS[device]
    for _ in range(max(count, 4).bit_length() - 1):
        sides[sides.index(min(sides))] *= 2
    return f"{device}:{'x'.join(map(str, sorted(sides, reverse=len(sides) == 3)))}"


def mesh(device: str, count: int, data: int, fsdp: int) -> Mesh:
    """A mesh of data x fsdp devices that nobody needs to have; it compiles, and runs nothing.

    device: of DIMENSIONS. Raises UserError where libtpu is not installed.
    """
    name = topology(device, count)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("config.tasks.plan.compile=True needs the compiler of TPUs; run pip install libtpu.")
    for variable, value in ALONE.items():
        os.environ.setdefault(variable, value)
    described = topologies.get_topology_desc(platform="tpu", topology_name=name)
    return make_mesh(data, fsdp, described.devices[:count])
