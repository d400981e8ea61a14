"""What a training run carries from step to step, and how it is made on a mesh."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import AbstractMesh, Mesh

from diffrep_jax.methods.base import Method, example_batch
from diffrep_jax.methods.parameters import averaged, overlay, shapes, trained
from diffrep_jax.sharding import mesh_of, placed, state_shardings
from diffrep_jax.train.joined import relayout
from diffrep_jax.types import Array, PyTree


@struct.dataclass
class TrainState:
    """Everything that a checkpoint holds. `ema` averages the parameters and the buffers measured with them.

    Frozen parameters are in `params` alone; the heads of a loss are in `opt_state` too, and not in `ema`.
    """

    step: Array  # int32, the number of updates made
    params: PyTree
    batch_stats: PyTree
    ema: PyTree  # {"params": ..., "batch_stats": ...}
    opt_state: PyTree  # None in an imported run, until it is trained

    def parts(self) -> dict[str, PyTree]:
        """What a checkpoint holds, by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def variables(self) -> PyTree:
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def averaged(self) -> PyTree:
        """The averaged variables, and the parameters without an average as they are."""
        return self.ema | {"params": overlay(self.params, self.ema["params"])}


def _from_variables(method: Method, variables: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    state = imported_state(method, variables, 0)
    return dataclasses.replace(state, opt_state=optimizer.init(trained(method, state.params)))


def imported_state(method: Method, variables: PyTree, step: int) -> TrainState:
    """The state of a run whose averaged weights alone are known: they are the raw ones too, without an optimizer."""
    copy = jax.tree.map(jnp.copy, variables | {"params": averaged(method, variables["params"])})
    return TrainState(jnp.asarray(step, jnp.int32), variables["params"], variables["batch_stats"], copy, None)


def abstract_state(method: Method, optimizer: optax.GradientTransformation, mesh: Mesh | AbstractMesh) -> TrainState:
    """Shapes, types and shardings of a whole state: nothing is computed."""
    variables = shapes(method)
    return placed(jax.eval_shape(lambda v: _from_variables(method, v, optimizer), variables), mesh)


def create_state(
    method: Method,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    seed: int,
    networks: PyTree = None,
    statistics: Mapping[str, np.ndarray] | None = None,
) -> TrainState:
    """A fresh state; the same values for a seed on any backend and mesh.

    `networks` take the places of fresh ones; `statistics` are the data's, for the method's buffers.
    """
    variables = method.init(jax.random.key(seed), example_batch(method))
    variables |= {"params": overlay(variables["params"], networks or {})}
    variables = method.with_statistics(variables, statistics or {})
    variables = jax.device_put(variables, state_shardings(mesh, variables))
    shardings = state_shardings(mesh, jax.eval_shape(lambda v: _from_variables(method, v, optimizer), variables))
    return jax.jit(lambda v: _from_variables(method, v, optimizer), out_shardings=shardings)(variables)


def laid_out_as(state: TrainState, template: TrainState) -> TrainState:
    """The state with its optimizer's in the layout and on the devices that `template` says (`joined.relayout`)."""
    if state.opt_state is None or jax.tree.structure(state.opt_state) == jax.tree.structure(template.opt_state):
        return state
    shardings = jax.tree.map(lambda leaf: leaf.sharding, template.opt_state)
    convert = jax.jit(lambda opt_state: relayout(opt_state, template.opt_state), out_shardings=shardings)
    return dataclasses.replace(state, opt_state=convert(state.opt_state))


def with_fresh_optimizer(method: Method, state: TrainState, optimizer: optax.GradientTransformation) -> TrainState:
    """The state with the optimizer's start instead of what it had."""
    params = trained(method, state.params)
    shapes = jax.eval_shape(optimizer.init, params)
    init = jax.jit(optimizer.init, out_shardings=state_shardings(mesh_of(params), shapes))
    return dataclasses.replace(state, opt_state=init(params))
