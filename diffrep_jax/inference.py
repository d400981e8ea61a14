"""The questions to a trained auto-encoder, jitted: encode, endpoint, decode, denoise, on numpy arrays of any length.

One compilation a shape; inputs are padded to a multiple of the mesh and split over it. Tasks and the Python interface
ask through here. Noise goes by an image's number, so a result does not depend on the batch it was computed in.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from diffrep_jax import samplers
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import AutoEncoder
from diffrep_jax.samplers.driver import Noise, Stepper, normal_noise
from diffrep_jax.train.sharding import batch_sharding, replicated
from diffrep_jax.types import Array, Keys, PyTree

GENERATION = 2**31 - 1  # folded into an image's key; no step of decoding has this number


@dataclasses.dataclass(frozen=True)
class Inference:
    """A method with its variables on a mesh. Images are float32 in [-1, 1], results numpy float32."""

    method: Any
    variables: PyTree
    mesh: Mesh

    def encode(self, images: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """[n, h, w, c] -> z [n, d]; `noise` [n, d] for a stochastic encoder."""
        self.need_codes()
        return self._run(_encode, len(images), images, noise)

    def endpoint(self, z: np.ndarray, seed: int = 0, first: int = 0) -> np.ndarray:
        """z [n, d] -> x_T [n, h, w, c]; `first` is the number of the first image, for its noise."""
        return self._run(functools.partial(_endpoint, seed=seed), len(z), z, np.arange(first, first + len(z)))

    def decode(
        self,
        z: np.ndarray,
        xT: np.ndarray,
        *,
        sampler: str,
        grid: str,
        steps: int,
        churn_step_ratio: float = 0.0,
        eta: float = 0.0,
        seed: int = 0,
        first: int = 0,
        noise: np.ndarray | None = None,
        stochastic_code: np.ndarray | None = None,
        sampled: bool = False,
    ) -> np.ndarray:
        """(z, x_T) -> images in [-1, 1]. `noise` [n, steps, h, w, c] takes the place of what is drawn from `seed`.

        stochastic_code: what `invert` found, [n, h, w, c]. sampled: the codes are samples of a prior, no images' codes.
        """
        stepper = samplers.build(sampler, churn_step_ratio, eta)
        nodes = jnp.asarray(samplers.grid(grid, self.method.process, steps), jnp.float32)
        run = functools.partial(_decode, stepper=stepper, nodes=nodes, seed=seed, sampled=sampled)
        return self._run(run, len(z), z, xT, np.arange(first, first + len(z)), noise, stochastic_code)

    def generate(
        self,
        n: int,
        *,
        sampler: str,
        grid: str,
        steps: int,
        churn_step_ratio: float = 0.0,
        eta: float = 0.0,
        seed: int = 0,
        first: int = 0,
    ) -> np.ndarray:
        """n samples [n, h, w, c] of a method without a code; `first` is the number of the first, for its noise."""
        stepper = samplers.build(sampler, churn_step_ratio, eta)
        nodes = jnp.asarray(samplers.grid(grid, self.method.process, steps), jnp.float32)
        run = functools.partial(_generate, stepper=stepper, nodes=nodes, seed=seed)
        return self._run(run, n, np.arange(first, first + n))

    def invert(
        self, images: np.ndarray, z: np.ndarray, xT: np.ndarray, *, sampler: str, grid: str, steps: int
    ) -> np.ndarray:
        """[n, h, w, c] -> the stochastic code of the images, by the grid's way up (`AutoEncoder.invert`)."""
        nodes = jnp.asarray(samplers.grid(grid, self.method.process, steps, encoding=True), jnp.float32)
        run = functools.partial(_invert, stepper=samplers.build(sampler), nodes=nodes)
        return self._run(run, len(images), images, z, xT)

    def denoise(self, xt: np.ndarray, t: np.ndarray, z: np.ndarray, xT: np.ndarray) -> np.ndarray:
        """D(x_t, t), unclipped, for one time an image: t [n]."""
        return self._run(_denoise, len(xt), xt, t, z, xT)

    def evidence(self, images: np.ndarray, seed: int = 0, first: int = 0) -> dict[str, np.ndarray]:
        """`Method.evidence`: {field: errors [n, values]}."""
        numbers = np.arange(first, first + len(images))
        return self._run(functools.partial(_evidence, seed=seed), len(images), images, numbers)

    def need_codes(self) -> None:
        """Raise UserError unless the method is an auto-encoder."""
        if not isinstance(self.method, AutoEncoder):
            name = type(self.method).__name__
            raise UserError(f"A {name} run has no codes; give the --workdir of an auto-encoder, such as PDAE.")

    def _run(self, function: Any, n: int, *arrays: Any) -> Any:
        """Call with every array padded along its first axis and split over the mesh; cut the result to n."""
        missing = -n % self.mesh.size
        sharding = batch_sharding(self.mesh)

        def put(x: Any) -> Any:
            x = np.asarray(x)
            return jax.device_put(np.concatenate([x, np.repeat(x[:1], missing, axis=0)]), sharding)

        out = function(self.method, self.variables, *jax.tree.map(put, arrays))

        def get(x: jax.Array) -> np.ndarray:
            if not x.is_fully_addressable:  # several processes: each gets all of it
                x = jax.device_put(x, replicated(self.mesh))
            return np.asarray(x)[:n]

        return jax.tree.map(get, out)


def _image_keys(seed: Array, numbers: Array) -> Keys:
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(numbers)


@functools.partial(jax.jit, static_argnums=0)
def _encode(method: Any, variables: PyTree, images: Array, noise: Array | None) -> Array:
    return method.encode(variables, images, noise)


@functools.partial(jax.jit, static_argnums=0)
def _endpoint(method: Any, variables: PyTree, z: Array, numbers: Array, *, seed: Array) -> Array:
    return method.endpoint(variables, z, _image_keys(seed, numbers))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("stepper", "sampled"))
def _decode(
    method: Any,
    variables: PyTree,
    z: Array,
    xT: Array,
    numbers: Array,
    noise: Array | None,
    stochastic_code: Array | None,
    *,
    seed: Array,
    stepper: Stepper,
    nodes: Array,
    sampled: bool,
) -> Array:
    drawn: Noise = normal_noise(_image_keys(seed, numbers), xT.shape) if noise is None else lambda i: noise[:, i]
    return method.decode(variables, z, xT, stepper, nodes, drawn, stochastic_code=stochastic_code, sampled=sampled)


@functools.partial(jax.jit, static_argnums=0, static_argnames="stepper")
def _generate(method: Any, variables: PyTree, numbers: Array, *, seed: Array, stepper: Stepper, nodes: Array) -> Array:
    # Not the noise of decoding: a prior's code and the image made of it have the same number.
    keys = jax.vmap(lambda key: jax.random.fold_in(key, GENERATION))(_image_keys(seed, numbers))
    xT = method.endpoint(keys)
    return method.generate(variables, xT, stepper, nodes, normal_noise(keys, xT.shape))


@functools.partial(jax.jit, static_argnums=0, static_argnames="stepper")
def _invert(
    method: Any, variables: PyTree, images: Array, z: Array, xT: Array, *, stepper: Stepper, nodes: Array
) -> Array:
    return method.invert(variables, images, z, xT, stepper, nodes)


@functools.partial(jax.jit, static_argnums=0)
def _denoise(method: Any, variables: PyTree, xt: Array, t: Array, z: Array, xT: Array) -> Array:
    return method.denoiser(variables, z, xT)(xt, t)


@functools.partial(jax.jit, static_argnums=0)
def _evidence(method: Any, variables: PyTree, images: Array, numbers: Array, *, seed: Array) -> PyTree:
    return method.evidence(variables, images, _image_keys(seed, numbers))
