"""The questions to a method as jitted functions: one compilation a method, a sampler and a shape.

Noise goes by an image's number, so that a result does not depend on the batch it was computed in.
"""

import functools

import jax
import jax.numpy as jnp

from diffrep_jax.methods.base import AutoEncoder, Method, Mixture, Unconditional
from diffrep_jax.samplers.driver import Noise, Stepper, normal_noise
from diffrep_jax.types import Array, Keys, PyTree

# Folded into an image's key; no step of decoding has these numbers, nor its start (driver.START).
GENERATION, ENCODING = 2**31 - 1, 2**31 - 2


def _image_keys(seed: Array, numbers: Array) -> Keys:
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(numbers)


@functools.partial(jax.jit, static_argnums=0)
def encode(method: AutoEncoder, variables: PyTree, images: Array, noise: Array | None) -> Array:
    return method.encode(variables, images, noise)


@functools.partial(jax.jit, static_argnums=0)
def encode_sample(method: AutoEncoder, variables: PyTree, images: Array, numbers: Array, *, seed: Array) -> Array:
    keys = jax.vmap(lambda key: jax.random.fold_in(key, ENCODING))(_image_keys(seed, numbers))
    noise = jax.vmap(lambda key: jax.random.normal(key, (method.latent_dim,)))(keys)
    return method.encode(variables, images, noise)


@functools.partial(jax.jit, static_argnums=0)
def endpoint(method: AutoEncoder, variables: PyTree, z: Array, numbers: Array, *, seed: Array) -> Array:
    return method.endpoint(variables, z, _image_keys(seed, numbers))


@functools.partial(jax.jit, static_argnums=0, static_argnames="stepper")
def decode(
    method: AutoEncoder,
    variables: PyTree,
    z: Array | Mixture,
    xT: Array,
    start: Array,
    draws: tuple[Array, Array | None],
    *,
    how: tuple[Array, PyTree],
    stepper: Stepper,
) -> Array:
    """`draws`: (image numbers, noise or None to draw it); `how`: (seed, the stepper's plan)."""
    (numbers, noise), (seed, plan) = draws, how
    drawn: Noise = normal_noise(_image_keys(seed, numbers), xT.shape)
    if noise is not None:
        drawn = lambda i: noise[:, jnp.minimum(i, noise.shape[1] - 1)]  # noqa: E731 (what a start draws is the last)
    return method.decode(variables, z, xT, start, stepper, plan, drawn)


@functools.partial(jax.jit, static_argnums=0, static_argnames="stepper")
def decode_sample(
    method: AutoEncoder,
    variables: PyTree,
    z: Array,
    xT: Array,
    numbers: Array,
    *,
    how: tuple[Array, PyTree],
    stepper: Stepper,
) -> Array:
    seed, plan = how
    noise = normal_noise(_image_keys(seed, numbers), xT.shape)
    return method.decode_sample(variables, z, xT, stepper, plan, noise)


@functools.partial(jax.jit, static_argnums=0, static_argnames="stepper")
def generate(
    method: Unconditional, variables: PyTree, numbers: Array, *, how: tuple[Array, PyTree], stepper: Stepper
) -> Array:
    # Not the noise of decoding: a prior's code and the image made of it have the same number.
    seed, plan = how
    keys = jax.vmap(lambda key: jax.random.fold_in(key, GENERATION))(_image_keys(seed, numbers))
    xT = method.endpoint(keys)
    return method.generate(variables, xT, stepper, plan, normal_noise(keys, xT.shape))


@functools.partial(jax.jit, static_argnums=0, static_argnames="stepper")
def invert(
    method: AutoEncoder, variables: PyTree, images: Array, z: Array, xT: Array, *, plan: PyTree, stepper: Stepper
) -> Array:
    return method.invert(variables, images, z, xT, stepper, plan)


@functools.partial(jax.jit, static_argnums=0)
def denoise(method: AutoEncoder, variables: PyTree, xt: Array, t: Array, z: Array | None, xT: Array) -> Array:
    return (method.denoiser_without_code(variables, xT) if z is None else method.denoiser(variables, z, xT))(xt, t)


@functools.partial(jax.jit, static_argnums=0)
def candidate_errors(method: Method, variables: PyTree, images: Array, numbers: Array, *, seed: Array) -> PyTree:
    return method.candidate_errors(variables, images, _image_keys(seed, numbers))
