"""What a training step takes, known before it is run or compiled: FLOPs, the bytes of its state and of its values."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from diffrep_jax.forms import estimating, platform_of, tracing_for
from diffrep_jax.methods.base import Method, example_batch
from diffrep_jax.methods.parameters import shapes, trained
from diffrep_jax.sharding import AXES, batch_sharding
from diffrep_jax.train import devices, optimizer
from diffrep_jax.train.flops import flops
from diffrep_jax.train.joined import LEAF_BY_LEAF
from diffrep_jax.train.liveness import calls, temporary_bytes
from diffrep_jax.train.state import TrainState, abstract_state
from diffrep_jax.train.step import compile_step, make_train_step, without_collector
from diffrep_jax.types import Config, PyTree

SIZES = (32, 64)  # images a device that are traced; between and beyond them memory is taken to go in a straight line


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a step on one device.

    Attributes:
      flops: of an image, as `train.flops` counts them.
      at_sizes: bytes of intermediate values at SIZES images, estimated by `train.liveness`.
      least: bytes that they have at any number of images, those of the gradient.
      fused: attention, of a layer at least, is counted as cuDNN's: without [tokens, tokens].
    """

    flops: float
    at_sizes: tuple[int, int]
    least: int
    fused: bool = False

    def temporaries(self, images: float) -> float:
        """Bytes of intermediate values where so many images are computed at a time."""
        slope = (self.at_sizes[1] - self.at_sizes[0]) / (SIZES[1] - SIZES[0])
        return max(self.at_sizes[0] + slope * (images - SIZES[0]), self.least)

    def scaled(self, part: float) -> "Cost":
        """With so many times the bytes."""
        small, large = self.at_sizes
        return dataclasses.replace(
            self, at_sizes=(round(small * part), round(large * part)), least=round(self.least * part)
        )

    def images_within(self, room: float) -> int:
        """The most images at a time whose intermediate values fit into so many bytes; 0 where none do."""
        if self.temporaries(1) > room:
            return 0
        slope = (self.at_sizes[1] - self.at_sizes[0]) / (SIZES[1] - SIZES[0])
        return max(1, math.floor((room - self.at_sizes[0]) / slope + SIZES[0])) if slope > 0 else LARGEST


LARGEST = 2**20  # images at a time: more than anybody trains with


def step_cost(method: Method, config: Config, platform: str) -> Cost:
    """The cost of the step in the form that it has on a platform; traced, not compiled.

    "cuda": NVIDIA's GPUs that have cuDNN's attention, which is counted where training would take it; "gpu": others.
    The FLOPs are those of the plain form: a CPU's convolutions multiply less.
    """
    small, large = (_traced(method, config, platform, images) for images in SIZES)
    plain = _traced(method, config, "any", SIZES[0]) if platform in ("cpu", "cuda") else small
    operations = flops(plain.jaxpr)
    state = total_bytes(state_shapes(method, config, 1, 1))
    # The new state takes the place of the old one, which is donated.
    small_bytes, large_bytes = (temporary_bytes(traced.jaxpr.jaxpr) - state for traced in (small, large))
    gradient = total_bytes(trained(method, shapes(method)["params"]))
    fused = platform == "cuda" and calls(small.jaxpr.jaxpr, "ffi_call")
    return Cost(operations / SIZES[0], (small_bytes, large_bytes), gradient, fused)


def seconds_at_peak(traced: Any, mesh: Mesh, dtype: str) -> float:
    """What a step, traced for all devices of a mesh, would take at their peak; 0 for devices whose peak is not known.

    This over the step's time is its model FLOPs utilisation (MFU), but that remat's second pass counts as work.
    """
    known = devices.of_kind(mesh.devices.flat[0].device_kind)
    if known is None:
        return 0.0
    return flops(traced.jaxpr) / (mesh.size * known.peak(dtype))


def _traced(method: Method, config: Config, platform: str, images: int) -> Any:
    step, state, batch = on_one_device(method, config, images)
    with tracing_for(platform), estimating(), without_collector():
        return jax.jit(step).trace(state, batch)


def on_one_device(method: Method, config: Config, images: int) -> tuple[Any, TrainState, dict[str, Any]]:
    """(the step, its state's shapes, its batch's shapes), all images at once."""
    optim = optimizer.build(config.optim, method, LEAF_BY_LEAF)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state_shapes(method, config, 1, 1))
    shape = example_batch(method)["image"].shape[1:]
    dtype = jnp.uint8 if getattr(method, "makes_images", True) else jnp.float32
    step = make_train_step(method, optim, ema_decay=config.optim.ema_decay, seed=0)
    return step, state, {"image": jax.ShapeDtypeStruct((images, *shape), dtype)}


def state_shapes(method: Method, config: Config, data: int, fsdp: int) -> TrainState:
    """Shapes and shardings of the state on a mesh of data x fsdp devices, which need not exist."""
    mesh = AbstractMesh((data, fsdp), AXES)
    return abstract_state(method, optimizer.build(config.optim, method, LEAF_BY_LEAF), mesh)


def total_bytes(tree: PyTree) -> int:
    """Of a tree of arrays or shapes; a device's share where they have shardings."""
    return sum(_share(leaf) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _share(leaf: Any) -> int:
    sharding = getattr(leaf, "sharding", None)
    return math.prod(leaf.shape if sharding is None else sharding.shard_shape(leaf.shape))


def count(method: Method) -> int:
    """Parameters, frozen ones included."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(method)["params"]))


def compiled_temporaries(method: Method, config: Config, images: int) -> int:
    """Bytes of intermediate values of a step as the compiler of the device at hand plans them; it compiles."""
    step, state, batch = on_one_device(method, config, images)
    with tracing_for(platform_of(jax.devices()[0])), without_collector():
        lowered = jax.jit(step, donate_argnums=0).lower(state, batch)
    analysis: Any = lowered.compile().memory_analysis()
    return analysis.temp_size_in_bytes


def compiled_temporaries_on(mesh: Mesh, method: Method, config: Config, images: int, microbatches: int) -> int:
    """The same of a device of a mesh that need not be here, `images` at a time on all of it together."""
    optim = optimizer.build(config.optim, method, LEAF_BY_LEAF)
    step = make_train_step(method, optim, ema_decay=config.optim.ema_decay, seed=0, microbatches=microbatches)
    one = on_one_device(method, config, images * microbatches)[2]
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh)) for name, x in one.items()}
    analysis: Any = compile_step(step, abstract_state(method, optim, mesh), batch, mesh).memory_analysis()
    return analysis.temp_size_in_bytes
