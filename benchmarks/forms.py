"""Each layer's forms against each other, bytes against floats, and every convolution of a config in bfloat16.

python -m benchmarks.forms --config=configs/dbae_celeba.py --batch=64 --json=forms.jsonl
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.command import append, configured, one_line
from diffrep_jax.errors import UserError

TOLERANCE = 0.03  # of a bfloat16 convolution and its gradients, of the norm


def layers(batch: int, size: int, width: int) -> dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]]:
    """{layer: (it, the shapes of its arguments)} at a U-Net's first level, and where it has attention."""
    from diffrep_jax.models.attention import attention
    from diffrep_jax.models.convolution import conv, upsample_conv
    from diffrep_jax.models.normalization import group_norm

    half, small = size // 2, max(size // 8, 1)
    image, deep = (batch, size, size, width), (batch, small, small, 8 * width)
    norm = functools.partial(group_norm, groups=min(32, width), silu=True)
    return {
        "attention": (attention, [(batch, half * half, max(2 * width // 64, 1), min(2 * width, 64))] * 3),
        "group norm": (norm, [image, (batch, width), (batch, width)]),
        "convolution 1 x 1": (conv, [image, (1, 1, width, 2 * width)]),
        "convolution of a small map": (conv, [deep, (3, 3, 8 * width, 8 * width)]),
        "convolution of an upsampled map": (upsample_conv, [(batch, half, half, 2 * width), (3, 3, 2 * width, width)]),
    }


def compare_forms(batch: int, size: int, width: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Milliseconds of value and gradient in bfloat16 of each layer's forms: plain, and those of CPUs and NVIDIA."""
    import jax
    import jax.numpy as jnp

    from diffrep_jax.forms import plain, tracing_for
    from diffrep_jax.models.attention import fused_is_here

    contexts: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {"plain": plain}
    contexts["cpu"] = functools.partial(tracing_for, "cpu")
    has_cuda = {"group norm"} | ({"attention"} if fused_is_here() else set())
    for name, (layer, shapes) in layers(batch, size, width).items():
        more = {"cuda": functools.partial(tracing_for, "cuda")} if name in has_cuda else {}
        for form, context in (contexts | more).items():

            def loss(*arrays: Any, layer: Callable[..., Any] = layer) -> Any:
                return (layer(*arrays).astype(jnp.float32) ** 2).mean()

            arrays = [jax.random.normal(jax.random.key(i), s).astype(jnp.bfloat16) for i, s in enumerate(shapes)]
            arrays = [x.astype(jnp.float32) if name == "group norm" and x.ndim == 2 else x for x in arrays]
            with context():
                compiled = jax.jit(jax.value_and_grad(loss, tuple(range(len(arrays))))).lower(*arrays).compile()
            yield {"what": name, "form": form, "ms": _milliseconds(compiled, arrays, repeats)}


def compare_draws(batch: int, size: int, width: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Milliseconds of dropout by a byte and by 32 bits an element, and of a batch on its way as bytes and as floats."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from diffrep_jax.models.layers import dropout

    def by_words(x: Any, rate: float, keys: Any) -> Any:
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
        return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)

    x, keys = jnp.ones((batch, size, size, width), jnp.bfloat16), jax.random.split(jax.random.key(0), batch)
    for form, function in (("8 bits", dropout), ("32 bits", by_words)):
        compiled = jax.jit(function, static_argnums=1).lower(x, 0.1, keys).compile()
        yield {"what": "dropout", "form": form, "ms": _milliseconds(compiled, [x, keys], repeats)}
    for dtype in ("uint8", "float32"):
        images = np.zeros((batch, size, size, 3), dtype)
        yield {"what": "a batch to the device", "form": dtype, "ms": _milliseconds(jax.device_put, [images], repeats)}


def _milliseconds(function: Callable[..., Any], arguments: list[Any], repeats: int) -> float:
    """The median."""
    import jax
    import numpy as np

    times = []
    for _ in range(2 + repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times[2:]))


def convolutions(method: Any, batch: int) -> list[tuple[Any, ...]]:
    """The distinct ones of a method's loss, forward: (the image's shape, the kernel's, strides, padding)."""
    import jax
    import jax.numpy as jnp

    from diffrep_jax.forms import plain
    from diffrep_jax.methods.parameters import shapes
    from diffrep_jax.train.step import example_keys

    image = jax.ShapeDtypeStruct((batch, method.image_size, method.image_size, method.channels), jnp.float32)
    keys = jax.eval_shape(lambda: example_keys(0, jnp.zeros((), jnp.int32), batch))
    with plain():
        jaxpr = jax.make_jaxpr(lambda v, x, k: method.loss(v, {"image": x}, k, True))(shapes(method), image, keys)
    return sorted(set(_convolutions(jaxpr.jaxpr)))


def _convolutions(jaxpr: Any) -> Iterator[tuple[Any, ...]]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            shapes = tuple(tuple(v.aval.shape) for v in equation.invars)
            yield (*shapes, equation.params["window_strides"], equation.params["padding"])
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _convolutions(inner)


def try_convolutions(method: Any, batch: int) -> Iterator[dict[str, Any]]:
    """Each convolution and its two gradients in bfloat16: the largest error of the three next to float32."""
    import jax
    import jax.numpy as jnp

    for image, kernel, strides, padding in convolutions(method, batch):

        def both(x: Any, k: Any, strides: Any = strides, padding: Any = padding) -> Any:
            def conv(x: Any, k: Any) -> Any:
                layout = ("NHWC", "HWIO", "NHWC")
                return jax.lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=layout)

            out, pull = jax.vjp(conv, x, k)
            return (out, *pull(jnp.cos(jnp.arange(out.size)).reshape(out.shape).astype(out.dtype)))

        x, k = (jax.random.normal(jax.random.key(i), s).astype(jnp.bfloat16) for i, s in enumerate((image, kernel)))
        with jax.default_matmul_precision("highest"):
            exact = jax.jit(both)(x.astype(jnp.float32), k.astype(jnp.float32))
        pairs = zip(jax.jit(both)(x, k), exact, strict=True)
        error = max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs)
        yield {"what": "bfloat16 convolution", "form": f"{image} {kernel}", "error": error, "ok": error < TOLERANCE}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forms", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", required=True, help="e.g. configs/dbae_celeba.py")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=pathlib.Path, help="also append the rows to this file, one object a line")
    flags, rest = parser.parse_known_args(argv)
    config = configured(flags.config, rest)
    if "unet" not in config.method:
        raise UserError(f"--config={flags.config} has no U-Net; give the config of a method for images.")
    from diffrep_jax.methods.base import build

    method: Any = build(config.method)
    sizes = (flags.batch, config.data.image_size, config.method.unet.width, flags.repeats)
    wrong = []
    for rows in (compare_forms(*sizes), compare_draws(*sizes), try_convolutions(method, min(flags.batch, 8))):
        for row in rows:
            figure = f"{row['ms']:.3f} ms" if "ms" in row else f"error {row['error']:.2%}"
            print(f"| {row['what']} | {row['form']} | {figure} |", flush=True)
            wrong += [] if row.get("ok", True) else [row["form"]]
            append(flags.json, {"config": config.data.name} | row)
    if wrong:
        raise UserError(f"bfloat16 is more than {TOLERANCE:.0%} off for {'; '.join(wrong)}.")


if __name__ == "__main__":
    with one_line():
        main(sys.argv[1:])
