"""Softmax attention: on a CPU with a gradient that recomputes the weights, on NVIDIA's GPUs cuDNN's, else JAX's.

The first two keep no [t, t] array and have no forward-mode derivative.
"""

import functools
import os

import jax
import jax.numpy as jnp
from jax import lax

from diffrep_jax.forms import by_platform, is_estimate
from diffrep_jax.types import Array

SWITCH = "DIFFREP_FUSED_ATTENTION"  # environment variable; 0: never cuDNN's
ESTIMATED = "attention by cuDNN"  # the name of a call that is traced only


def attention(q: Array, k: Array, v: Array) -> Array:
    """softmax(q k^T / sqrt(dim)) v for [b, t, heads, dim]; products accumulate and softmax runs in float32."""
    cuda = None
    if fits_fused(q) and os.environ.get(SWITCH, "1") != "0":
        cuda = estimated if is_estimate() else fused if fused_is_here() else None
    return by_platform(q, k, v, cpu=recomputing, cuda=cuda, elsewhere=jax.nn.dot_product_attention)


def fused(q: Array, k: Array, v: Array) -> Array:
    """The form for NVIDIA's GPUs."""
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


@jax.custom_vjp
def estimated(q: Array, k: Array, v: Array) -> Array:
    """What `fused` reads and writes, to be traced where cuDNN is not; it computes nothing."""
    return _estimated_forward(q, k, v)[0]


def _estimated_forward(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
    b, t, heads, _ = q.shape
    log_total = jax.ShapeDtypeStruct((b, heads, t), jnp.float32)
    out, log_total = jax.ffi.ffi_call(ESTIMATED, (jax.ShapeDtypeStruct(v.shape, v.dtype), log_total))(q, k, v)
    return out, (q, k, v, out, log_total)


def _estimated_backward(saved: tuple[Array, ...], dout: Array) -> tuple[Array, Array, Array]:
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in saved[:3]]
    dq, dk, dv = jax.ffi.ffi_call(ESTIMATED, shapes)(*saved, dout)
    return dq, dk, dv


estimated.defvjp(_estimated_forward, _estimated_backward)


def fits_fused(q: Array) -> bool:
    """Whether cuDNN has this type, head size and (in JAX's call, for the gradient) number of tokens on all its GPUs."""
    _, t, _, dim = q.shape
    return q.dtype in (jnp.bfloat16, jnp.float16) and dim % 8 == 0 and dim <= 128 and t % 2 == 0


def fused_is_here() -> bool:
    """Whether this process has NVIDIA's GPUs, with cuDNN's attention all of them (Ampere and later), and wants it."""
    return os.environ.get(SWITCH, "1") != "0" and _gpus_have_it()


@functools.cache
def _gpus_have_it() -> bool:
    try:
        gpus = jax.devices("cuda")
    except RuntimeError:  # none here
        return False
    return all(float(gpu.compute_capability) >= 8 for gpu in gpus)


def recomputing(q: Array, k: Array, v: Array) -> Array:
    """The form for a CPU."""
    b, t, heads, dim = q.shape
    q, k, v = (x.swapaxes(1, 2).reshape(b * heads, t, dim) for x in (q * dim**-0.5, k, v))
    return _attend(q, k, v).reshape(b, heads, t, dim).swapaxes(1, 2)


def _product(a: Array, b: Array, axis_a: int, axis_b: int) -> Array:
    """Batched over the first axis, contracted over the named ones, float32 (or wider) out."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((0,), (0,))), preferred_element_type=wide)


@jax.custom_vjp
def _attend(q: Array, k: Array, v: Array) -> Array:
    return _attend_forward(q, k, v)[0]


def _attend_forward(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
    logits = _product(q, k, 2, 2)
    top = logits.max(-1, keepdims=True)
    weights = jnp.exp(logits - top)
    total = weights.sum(-1, keepdims=True)
    out = (_product(weights.astype(v.dtype), v, 2, 1) / total).astype(v.dtype)
    return out, (q, k, v, out, top + jnp.log(total))


def _attend_backward(saved: tuple[Array, ...], dout: Array) -> tuple[Array, Array, Array]:
    q, k, v, out, log_total = saved
    # Rows are keys here: dk and dv are plain products.
    weights = jnp.exp(_product(k, q, 2, 2) - log_total.swapaxes(1, 2))
    dv = _product(weights.astype(v.dtype), dout, 2, 1)
    delta = (dout.astype(weights.dtype) * out).sum(-1)[:, None]
    dlogits = (weights * (_product(v, dout, 2, 2) - delta)).astype(q.dtype)
    # The barriers keep XLA from turning this back into a product that reads dlogits against its layout.
    dq = lax.optimization_barrier(_product(lax.optimization_barrier(k.swapaxes(1, 2)), dlogits, 2, 1))
    dk = _product(dlogits, q, 2, 1)
    return dq.swapaxes(1, 2).astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


_attend.defvjp(_attend_forward, _attend_backward)
