"""The mesh and who holds what: batches are split over data x fsdp, parameters over fsdp (ZeRO-3 by GSPMD)."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from diffrep_jax.errors import UserError
from diffrep_jax.types import PyTree

AXES = ("data", "fsdp")
MIN_SHARDED = 1024  # elements; splitting smaller leaves costs more in messages than it saves in memory


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of the devices (default: all), data x fsdp; one of the two may be -1, "what is left".

    Raises UserError where the sizes do not make up the number of devices.
    """
    grid = np.asarray(jax.devices() if devices is None else devices)
    sizes = [data, fsdp]
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = max(grid.size // max(-data * fsdp, 1), 1)
    if min(sizes) < 1 or math.prod(sizes) != grid.size:
        raise UserError(
            f"mesh data={data} x fsdp={fsdp} does not make up the {grid.size} device(s) here; "
            f"choose a config.mesh.fsdp that divides {grid.size} and config.mesh.data=-1."
        )
    return Mesh(grid.reshape(sizes), AXES)


def is_one_cpu(mesh: Mesh) -> bool:
    """Whether a single CPU device does all the work: what saves time there alone is decided by this."""
    return mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def parameter_spec(mesh: Mesh | AbstractMesh, shape: tuple[int, ...]) -> PartitionSpec:
    """The fsdp rule: the largest axis that divides by the fsdp size is split, small leaves are not."""
    fsdp = mesh.shape["fsdp"]
    axes = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not axes or math.prod(shape) < MIN_SHARDED:
        return PartitionSpec()
    largest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * largest, "fsdp")


def state_shardings(mesh: Mesh | AbstractMesh, shapes: PyTree) -> PyTree:
    """The fsdp rule for every leaf of a tree of arrays or ShapeDtypeStructs."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, parameter_spec(mesh, leaf.shape)), shapes)


def check_divides(batch_size: int, mesh: Mesh, field: str) -> None:
    """Raise UserError, naming the config's field, unless devices divide a batch."""
    if batch_size % mesh.size:
        raise UserError(
            f"config.{field}={batch_size} does not divide by the mesh of {mesh.size} devices "
            f"({dict(mesh.shape)}); choose a multiple of {mesh.size}."
        )


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's slice of the global batch, arrays in dicts -> global arrays, split over all devices."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda value: jax.make_array_from_process_local_data(sharding, value), batch)


def mesh_of(tree: PyTree) -> Mesh:
    """The mesh that the arrays of a tree lie on."""
    return jax.tree.leaves(tree)[0].sharding.mesh


def placed(shapes: PyTree, mesh: Mesh | AbstractMesh) -> PyTree:
    """Shapes and types with the shardings of the fsdp rule: what a checkpoint is restored to."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_shardings(mesh, shapes),
    )
