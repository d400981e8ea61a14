"""Images a second of training, sampling and encoding, and their share of the device's peak. Needs no data.

python -m benchmarks.throughput --config=configs/dbae_celeba.py --batch=8 --what=train --config.method.dtype=float32
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.command import append, configured, one_line

if TYPE_CHECKING:  # JAX is loaded once its memory is set up
    import numpy as np
    from jax.sharding import Mesh
    from ml_collections import ConfigDict

    from diffrep_jax.methods.base import Method

WARM_UP = 3  # calls before the clock: the allocator grows, and a CPU's first two steps are slower


def measure(config: ConfigDict, what: str, batch_size: int, repeats: int) -> dict[str, Any]:
    """Compile and time one kind of work on random images; the median of `repeats` calls after a warm-up."""
    import jax
    import numpy as np

    from diffrep_jax.forms import plain
    from diffrep_jax.methods.base import build
    from diffrep_jax.methods.parameters import shapes
    from diffrep_jax.sharding import make_mesh

    mesh = make_mesh(**config.mesh)
    method = build(config.method)
    device = mesh.devices.flat[0]
    call, compile_seconds, memory = WORK[what](config, method, mesh, batch_size)
    with plain():  # the model's: a CPU's convolutions multiply less
        flops = model_flops(config, what, batch_size)
    for _ in range(WARM_UP):
        call()
    seconds, before = [], os.times()
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    after = os.times()
    median = float(np.median(seconds))
    peak, source = peak_flops(device, method.dtype)
    return {
        "config": config.data.name,
        "what": what,
        "batch": batch_size,
        "dtype": method.dtype,
        "device": f"{mesh.size} x {device.device_kind}",
        "jax": jax.__version__,
        "seconds": median,
        "seconds_min_max": [min(seconds), max(seconds)],
        "all_seconds": seconds,
        "user": (after.user - before.user) / repeats,
        "system": (after.system - before.system) / repeats,
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(method)["params"])),
        "images_per_second": batch_size / median,
        "compile_seconds": compile_seconds,
        "gflop_per_image": flops / batch_size / 1e9,
        "tflop_per_second": flops / median / 1e12,
        "share_of_peak": flops / median / (peak * mesh.size),
        "peak_tflop_per_second": peak * mesh.size / 1e12,
        "peak_source": source,
        "peak_memory_gib": peak_memory(device, memory) / 2**30,
    }


def _train(config: ConfigDict, method: Method, mesh: Mesh, batch_size: int) -> tuple[Callable[[], None], float, Any]:
    import jax

    from diffrep_jax import sharding
    from diffrep_jax.fields import construct
    from diffrep_jax.train import joined, optimizer
    from diffrep_jax.train.settings import Settings
    from diffrep_jax.train.state import create_state
    from diffrep_jax.train.step import compile_step, make_train_step

    settings = construct(Settings, dict(config.train) | {"batch_size": batch_size}, "config.train")
    sharding.check_divides(settings.microbatch, mesh, "train.batch_size (or train.microbatch_size)")
    elementwise = joined.elementwise(mesh)
    optim = optimizer.build(config.optim, method, elementwise)
    step = make_train_step(
        method,
        optim,
        ema_decay=config.optim.ema_decay,
        seed=0,
        microbatches=batch_size // settings.microbatch,
        elementwise=elementwise,
    )
    batch = sharding.put_batch({"image": _examples(method, batch_size)}, mesh)
    state, before = create_state(method, optim, mesh, 0), None
    began = time.perf_counter()
    compiled = compile_step(step, state, batch, mesh)
    compile_seconds = time.perf_counter() - began

    def call() -> None:
        """A step is dispatched while the one before it computes, as in a training."""
        nonlocal state, before
        state, metrics = compiled(state, batch)
        jax.block_until_ready(before)
        before = metrics

    return call, compile_seconds, compiled.memory_analysis()


def _inference(work: Callable[[Any, int], Callable[[], Any]]) -> Any:
    def prepare(
        config: ConfigDict, method: Method, mesh: Mesh, batch_size: int
    ) -> tuple[Callable[[], None], float, Any]:
        import jax

        from diffrep_jax.inference.model import Model
        from diffrep_jax.inference.open import recipe
        from diffrep_jax.methods.base import example_batch
        from diffrep_jax.sharding import state_shardings

        variables = method.init(jax.random.key(0), example_batch(method))
        variables = jax.device_put(variables, state_shardings(mesh, variables))
        call = work(Model(method, variables, mesh, recipe(config)), batch_size)
        began = time.perf_counter()
        call()
        first = time.perf_counter() - began
        began = time.perf_counter()
        call()
        return call, first - (time.perf_counter() - began), None

    return prepare


def _sample(model: Any, batch_size: int) -> Callable[[], Any]:
    """Decoding of codes by the config's recipe, or generation where the method has none."""
    import numpy as np

    from diffrep_jax.methods.base import AutoEncoder

    if not isinstance(model.method, AutoEncoder):
        return lambda: model.generate(batch_size)
    z = np.random.default_rng(0).standard_normal((batch_size, model.method.latent_dim), np.float32)
    xT = model.endpoint(z)
    return lambda: model.decode(z, xT)


def _encode(model: Any, batch_size: int) -> Callable[[], Any]:
    images = _images(model.method, batch_size)
    return lambda: model.encode(images)


WORK = {"train": _train, "sample": _inference(_sample), "encode": _inference(_encode)}


def _images(method: Method, batch_size: int) -> np.ndarray:
    import numpy as np

    shape = (batch_size, method.image_size, method.image_size, method.channels)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def _examples(method: Method, batch_size: int) -> np.ndarray:
    """What a loader gives: pixels, or codes where the method is of these."""
    import numpy as np

    images = _images(method, batch_size)
    if not getattr(method, "makes_images", True):
        return images
    return np.rint((images + 1) * 127.5).astype(np.uint8)


def model_flops(config: ConfigDict, what: str, batch_size: int) -> float:
    """FLOPs of the work as `train.flops` counts them, without what remat does twice."""
    import jax
    import jax.numpy as jnp

    from diffrep_jax.inference.open import recipe
    from diffrep_jax.methods.base import AutoEncoder, build, example_batch
    from diffrep_jax.train.flops import flops
    from diffrep_jax.train.step import example_keys

    method: Any = build(config.method)
    if any(field.name == "remat" for field in dataclasses.fields(method)):
        method = dataclasses.replace(method, remat=False)
    variables = jax.eval_shape(lambda: method.init(jax.random.key(0), example_batch(method)))
    image = jax.ShapeDtypeStruct((batch_size, method.image_size, method.image_size, method.channels), jnp.float32)

    def cost(function: Callable[..., Any], *arguments: Any) -> float:
        return flops(jax.make_jaxpr(function)(*arguments))

    def loss(params: Any, batch_stats: Any, x0: Any) -> Any:
        keys = example_keys(0, jnp.zeros((), jnp.int32), batch_size)
        value, _, buffers = method.loss({"params": params, "batch_stats": batch_stats}, {"image": x0}, keys, True)
        return value, buffers

    if what == "train":
        return cost(jax.grad(loss, has_aux=True), variables["params"], variables["batch_stats"], image)
    if what == "encode":
        return cost(method.encode, variables, image)
    evaluations = recipe(config).nfe(method.process)
    t = jnp.full((), 0.5)
    if not isinstance(method, AutoEncoder):
        return evaluations * cost(lambda v, x: method.denoiser(v)(x, t), variables, image)
    z = jax.ShapeDtypeStruct((batch_size, method.latent_dim), jnp.float32)
    return evaluations * cost(lambda v, x, z: method.denoiser(v, z, x)(x, t), variables, image, z)


def peak_flops(device: Any, dtype: str) -> tuple[float, str]:
    """(FLOP/s of one device, where the number comes from)."""
    from diffrep_jax.train import devices

    known = devices.of_kind(device.device_kind)
    if dtype == "bfloat16" and known is not None:
        return known.bfloat16, "data sheet, dense bf16"
    size = 2048 if device.platform == "cpu" else 8192
    return devices.measured_peak(device, dtype, size), f"measured, {size} x {size} {dtype} matmul"


def peak_memory(device: Any, analysis: Any) -> float:
    """Bytes in use at the peak: the device's own count, else XLA's plan, else the process's."""
    statistics = device.memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"]
    if analysis is not None and analysis.temp_size_in_bytes:
        return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def table(row: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    cells = {
        "config": row["config"],
        "what": row["what"],
        "batch": row["batch"],
        "dtype": row["dtype"],
        "device": row["device"],
        "images/s": f"{row['images_per_second']:.2f}",
        "s/call": f"{row['seconds']:.3f}",
        "compile s": f"{row['compile_seconds']:.1f}",
        "GFLOP/image": f"{row['gflop_per_image']:.1f}",
        "TFLOP/s": f"{row['tflop_per_second']:.3f}",
        "of peak": f"{100 * row['share_of_peak']:.0f} %",
        "memory GiB": f"{row['peak_memory_gib']:.1f}",
    }
    return "\n".join(
        f"| {' | '.join(str(v) for v in line)} |" for line in (cells.keys(), ["---"] * len(cells), cells.values())
    )


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", required=True, help="e.g. configs/dbae_ffhq.py")
    parser.add_argument("--batch", type=int, help="images a call (default: the config's)")
    parser.add_argument("--what", choices=sorted(WORK), default="train")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="also append the result to this file, one object a line")
    flags, rest = parser.parse_known_args(argv)
    config = configured(flags.config, rest)
    batch = flags.batch or (config.train if flags.what == "train" else config.tasks.reconstruct).batch_size
    row = measure(config, flags.what, batch, flags.repeats)
    print(json.dumps(row))
    print(table(row))
    append(flags.json, row)


if __name__ == "__main__":
    with one_line():
        main(sys.argv[1:])
