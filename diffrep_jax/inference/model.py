"""A method with its weights on a mesh: the one object that tasks, `diffrep_jax.load`, notebooks and benchmarks hold.

NumPy arrays in and out, of any length: inputs are padded to a multiple of the mesh and split over it. Images go in as
uint8 or as floats in [-1, 1], [n, h, w, c], and come out as float32 in [-1, 1].
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import shown, whole
from diffrep_jax.inference import compiled, edit
from diffrep_jax.inference.arrays import Numbers, check_answer, numbered, pixels, shaped
from diffrep_jax.inference.encoded import Encoded
from diffrep_jax.methods.base import AutoEncoder, Method, Mixture, Unconditional, refuse_maker_of_codes
from diffrep_jax.methods.noise_coded import NoiseCoded
from diffrep_jax.runs.weights import same_network
from diffrep_jax.samplers.recipe import Sampling
from diffrep_jax.sharding import batch_sharding, replicated
from diffrep_jax.types import PyTree


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained method; `sampling` is its run's recipe, which `how` replaces and keywords change by single fields.

    Shapes and ranges that do not fit raise UserError, and so do questions that the method has no answer to.
    """

    method: Method
    variables: PyTree
    mesh: Mesh
    sampling: Sampling

    # What the method says of itself

    @property
    def image_size(self) -> int:
        return self.method.image_size

    @property
    def channels(self) -> int:
        return self.method.channels

    @property
    def latent_dim(self) -> int:
        return self.auto_encoder.latent_dim

    @property
    def auto_encoder(self) -> AutoEncoder:
        """The method; UserError where it has no codes."""
        if not isinstance(self.method, AutoEncoder):
            refuse_maker_of_codes(type(self.method))
            raise UserError(
                f"A {type(self.method).__name__} run has no codes; give the --workdir of an auto-encoder, such as "
                "PDAE. A DDPM's images come back from their x_T alone, with invert_steps above 0."
            )
        return self.method

    @property
    def noise_coded(self) -> "Model":
        """The model; for a DDPM the auto-encoder without z that it is, whose images come back from their x_T alone."""
        if isinstance(self.method, Unconditional) and self.method.makes_images:
            return dataclasses.replace(self, method=NoiseCoded(self.method))
        return self

    # Images to codes

    def encode(
        self,
        images: np.ndarray,
        noise: np.ndarray | None = None,
        how: Sampling | None = None,
        numbers: Numbers = 0,
        **changes: Any,
    ) -> np.ndarray:
        """The codes z [n, d]. A stochastic encoder answers its mean, or where the recipe says encode="sample" mu +
        sigma noise, by seed and number of an image; `noise` [n, d] replaces what is drawn, also where nothing is.

        Raises UserError for a sample of a deterministic encoder.
        """
        how, method = self.recipe(how, changes), self.auto_encoder
        self._check_encode(how)
        images = self._images(images)
        if noise is not None:
            noise = shaped("noise", noise, (len(images), method.latent_dim))
        elif how.encode == "sample":
            rows = numbered(numbers, len(images))
            return self._run(compiled.encode_sample, len(images), images, rows, seed=how.seed)
        return self._run(compiled.encode, len(images), images, noise)

    def _check_encode(self, how: Sampling) -> None:
        if how.encode == "sample" and not self.auto_encoder.encodes_noise:
            raise UserError(
                f"sampling.encode=sample is of no use: the encoder of this {type(self.method).__name__} is "
                "deterministic; leave it at mean."
            )

    def endpoint(self, z: np.ndarray, numbers: Numbers = 0, seed: int | None = None) -> np.ndarray:
        """x_T [n, h, w, c], where decoding starts; `seed` where the method draws it, by default the recipe's."""
        z = self._codes(z)
        seed = self.sampling.seed if seed is None else whole(seed, "seed")
        return self._run(compiled.endpoint, len(z), z, numbered(numbers, len(z)), seed=seed)

    def invert(
        self,
        images: np.ndarray,
        z: np.ndarray | None = None,
        how: Sampling | None = None,
        numbers: Numbers = 0,
        **changes: Any,
    ) -> np.ndarray:
        """The stochastic code [n, h, w, c]: what `decode` needs besides z to give the images back; z None: their codes.
        Of a reversible sampler it is [n, h, w, 2 c], which gives them back exactly.

        For the Gaussian family it is the inferred x_T; for a bridge, what the state next to x_T has besides x_T. The
        recipe's grid upward, `steps` of it, by its sampler if that runs upward, else by order 1 of the exponential one.
        """
        how, method = self.recipe(how, changes), self.auto_encoder
        how = how.inverted(how.steps)
        images = self._images(images)
        z = self.encode(images, how=how, numbers=numbers) if z is None else self._codes(z, len(images))
        xT = self.endpoint(z, numbers, how.seed)
        plan, stepper = how.plan(method.process, upward=True), how.stepper()
        state = self._run(compiled.invert, len(images), images, z, xT, plan=plan, stepper=stepper)
        return state if stepper.reversible else state - self._a_at(how.nodes(method.process, upward=True)[-1]) * xT

    def encoded(
        self, images: np.ndarray, invert_steps: int = 0, how: Sampling | None = None, numbers: Numbers = 0
    ) -> Encoded:
        """z, with `invert_steps` above 0 also the stochastic code that so many steps upward reach.

        A DDPM's z is empty: it needs the latter.
        """
        how = self.recipe(how, {})
        if invert_steps and self.noise_coded is not self:
            return self.noise_coded.encoded(images, invert_steps, how, numbers)
        z = self.encode(images, how=how, numbers=numbers)
        if invert_steps == 0:
            return Encoded(z)
        self.check_encoded(invert_steps, how)
        return Encoded(z, self.invert(images, z, how, numbers, steps=invert_steps))

    def check_encoded(self, invert_steps: int = 0, how: Sampling | None = None) -> None:
        """Raise UserError where `encoded` has no answer, whatever the images."""
        how, model = how or self.sampling, self.noise_coded if invert_steps else self
        model._check_encode(how)
        if invert_steps:
            how.check_inverted(invert_steps)

    # Codes to images

    def decode(
        self,
        encoded: np.ndarray | Encoded,
        x_T: np.ndarray | None = None,
        how: Sampling | None = None,
        stochastic_code: np.ndarray | None = None,
        noise: np.ndarray | None = None,
        numbers: Numbers = 0,
        **changes: Any,
    ) -> np.ndarray:
        """Images from codes; x_T None: their own endpoint. With a stochastic code an image comes back as it was.

        `noise` [n, steps, h, w, c] replaces what is drawn from the recipe's seed; with noise to start with that is
        the last of steps + 1.
        """
        how = self.recipe(how, changes)
        if isinstance(encoded, Encoded) and encoded.stochastic_code is not None and self.noise_coded is not self:
            return self.noise_coded.decode(encoded, x_T, how, stochastic_code, noise, numbers)
        method = self.auto_encoder
        code = mixture = None
        if isinstance(encoded, Encoded):
            if stochastic_code is not None and encoded.stochastic_code is not None:
                raise UserError("stochastic_code is given, and encoded has one; leave one out.")
            stochastic_code = encoded.stochastic_code if stochastic_code is None else stochastic_code
            encoded, mixture = encoded.z, encoded.mixture
        z, coded = self._codes(encoded), stochastic_code is not None
        if mixture is not None:
            self.check_mixes("an Encoded with a mixture")
            code = Mixture(*(np.asarray(values, np.float32) for values in mixture))
        how = how.returning() if coded else how
        nodes, stepper = how.nodes(method.process, coded=coded), how.stepper()
        xT = self.endpoint(z, numbers, how.seed) if x_T is None else self._like_images("x_T", x_T, len(z))
        start = xT
        if stochastic_code is not None:
            shape = (len(z), *xT.shape[1:-1], (1 + stepper.reversible) * self.channels)
            start = shaped("stochastic_code", stochastic_code, shape)
            start = start if stepper.reversible else self._a_at(nodes[0]) * xT + start
        if noise is not None:
            draws = len(nodes) - 1 + (how.start != "mean")
            noise = shaped("noise", noise, (len(z), draws, *xT.shape[1:]))
        recipe = {"how": (how.seed, how.plan(method.process, coded=coded)), "stepper": stepper}
        draws = (numbered(numbers, len(z)), noise)
        return self._run(compiled.decode, len(z), z if code is None else code, xT, start, draws, **recipe)

    def decode_generated(self, z: np.ndarray, how: Sampling | None = None, numbers: Numbers = 0) -> np.ndarray:
        """Images from codes that a prior has made, which no image has."""
        how, z = self.recipe(how, {}), self._codes(z)
        rows, xT = numbered(numbers, len(z)), self.endpoint(z, numbers, how.seed)
        recipe = {"how": (how.seed, how.plan(self.auto_encoder.process)), "stepper": how.stepper()}
        return self._run(compiled.decode_sample, len(z), z, xT, rows, **recipe)

    def generate(
        self,
        n: int,
        how: Sampling | None = None,
        prior: "Model | None" = None,
        numbers: Numbers = 0,
        **changes: Any,
    ) -> np.ndarray:
        """n new images; of a prior, n new codes [n, d]. An auto-encoder needs the `prior` of its codes.

        Image i depends on the seed and on its number alone. The prior is sampled by its own run's recipe; that of
        another auto-encoder is refused.
        """
        how, n = self.recipe(how, changes), whole(n, "n", 1)
        if isinstance(self.method, AutoEncoder):
            if prior is None:
                raise UserError(
                    "An auto-encoder needs codes to start from: give the prior of its codes, a trained run."
                )
            if not self.check_prior(prior, "prior").knows_its_data(prior.variables):
                raise UserError(
                    "prior was imported without the mean and std of its codes; --task=sample takes those of the folder "
                    "encode, or import it from a file that has them."
                )
            return self.decode_generated(prior.generate(n, numbers=numbers), how, numbers)
        if prior is not None:
            raise UserError(f"prior is of no use: a {type(self.method).__name__} starts from noise; leave it out.")
        recipe = {"how": (how.seed, how.plan(self.method.process)), "stepper": how.stepper()}
        return self._run(compiled.generate, n, numbered(numbers, n), **recipe)

    def denoise(self, x_t: np.ndarray, t: float | np.ndarray, z: np.ndarray | None, x_T: np.ndarray) -> np.ndarray:
        """D(x_t, t), unclipped; t a number or one for each image [n], in the process's [t_data, t_max].

        z None: without a code, of a DDPM, and for PDAE and DiTi the frozen one's.
        """
        if z is None and self.noise_coded is not self:
            return self.noise_coded.denoise(x_t, t, None, x_T)
        _ = self.auto_encoder
        xt = self._like_images("x_t", x_t, None)
        n = len(xt)
        z, xT = None if z is None else self._codes(z, n), self._like_images("x_T", x_T, n)
        times = shaped("t", np.full(n, t) if np.ndim(t) == 0 else t, (n,))
        low, high = self.method.process.t_data, self.method.process.t_max
        if not (times.min() >= low and times.max() <= high):
            raise UserError(f"t {times.min():g} to {times.max():g} is outside the process's [{low:g}, {high:g}].")
        return self._run(compiled.denoise, n, xt, times, z, xT)

    # Edits of two images

    def interpolate(
        self,
        first: np.ndarray | Encoded,
        second: np.ndarray | Encoded,
        points: int = 11,
        trajectory: bool = False,
        **changes: Any,
    ) -> np.ndarray:
        """Images [points, h, w, c] on the way between two, each [h, w, c] or encoded; one noise for all of them.

        trajectory: mix what the two codes do at each step, not the codes (PDAE, DiTi).
        """
        if trajectory:
            self.check_mixes("trajectory=True")
        way = (edit.along_trajectories if trajectory else edit.interpolate)(self._one(first), self._one(second), points)
        return self.decode(way, numbers=np.zeros(points, np.int32), **changes)

    def counterfactual(
        self,
        first: np.ndarray | Encoded,
        second: np.ndarray | Encoded,
        blocks: tuple[int, int],
        points: int = 5,
        out_of: int = 0,
        **changes: Any,
    ) -> np.ndarray:
        """What the first image would be with (first block, number of blocks) of the second's code, at `points`.

        out_of: how many equal blocks z has, for methods without blocks of their own; 0: the method's blocks.
        """
        ends = edit.block_ends(self.auto_encoder.block_ends, whole(out_of, "out_of"), "out_of")
        if np.shape(blocks) != (2,):
            raise UserError(f"blocks is {shown(blocks)}; use (first block, number of blocks), such as (0, 1).")
        dimensions = edit.block_dimensions(ends, *(whole(number, "blocks") for number in blocks))
        way = edit.interpolate(self._one(first), self._one(second), points, dimensions)
        return self.decode(way, numbers=np.zeros(points, np.int32), **changes)

    # Which network it is

    def fingerprint(self, batch_size: int = 1) -> np.ndarray:
        """The code of one fixed picture of noise, [d]: it tells networks apart, whatever file they came from."""
        shape = (batch_size, self.image_size, self.image_size, self.channels)
        picture = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        return self.encode(picture, encode="mean")[0]

    def check_prior(self, prior: "Model", place: str) -> Unconditional:
        """The prior's method; UserError, naming `place`, where a model is no prior, or that of another auto-encoder."""
        if not isinstance(prior, Model):
            raise UserError(f"{place} is {shown(prior)}, no model; open the run with diffrep_jax.load.")
        method = self.prior_method(prior.method, place)
        theirs = np.asarray(method.statistics(prior.variables)["fingerprint"])
        if theirs.any() and not same_network(theirs, self.fingerprint()):
            raise UserError(
                f"{place} was trained on another auto-encoder's codes, or this one was trained since: encode again and "
                "train a new prior on that."
            )
        return method

    def prior_method(self, method: Method, place: str) -> Unconditional:
        """The method, which makes codes as this model takes them; UserError, naming `place`, where it does not."""
        if not isinstance(method, Unconditional) or method.makes_images:
            raise UserError(f"{place} is a {type(method).__name__} run, no prior; give one of latent_prior.")
        if method.channels != self.latent_dim:
            raise UserError(
                f"{place} makes codes of {method.channels} dimensions, this model takes {self.latent_dim}; give its "
                "own prior."
            )
        return method

    def candidate_errors(self, images: np.ndarray, seed: int = 0, first: int = 0) -> dict[str, np.ndarray]:
        """`Method.candidate_errors`: {field: errors [n, values]}."""
        images = self._images(images)
        rows, seed = numbered(first, len(images)), whole(seed, "seed")
        return self._run(compiled.candidate_errors, len(images), images, rows, seed=seed)

    def check_mixes(self, place: str) -> None:
        """Raise UserError, naming `place`, where a denoiser cannot mix what two codes do."""
        if not self.auto_encoder.mixes:
            raise UserError(
                f"{place} mixes the gradients of two codes, as PDAE and DiTi have them; {type(self.method).__name__} "
                "has none: interpolate its codes."
            )

    # How it is done

    def recipe(self, how: Sampling | None, changes: dict[str, Any]) -> Sampling:
        """The run's recipe, or `how`, with single fields changed; UserError for one that there is not."""
        if not isinstance(how, Sampling | None):
            raise UserError(f"how is {shown(how)}; give a Sampling, or single fields, such as sampler='euler'.")
        known = [field.name for field in dataclasses.fields(Sampling)]
        for name in changes:
            if name not in known:
                raise unknown("field of the recipe", name, known)
        return dataclasses.replace(how or self.sampling, **changes)

    def _a_at(self, t: float) -> np.float32:
        """a of the process, from float64."""
        return np.float32(self.method.process.coefficients(np.asarray(t, np.float64))[0])

    def _one(self, image: np.ndarray | Encoded) -> Encoded:
        if isinstance(image, Encoded):
            if len(image) != 1:
                raise UserError(f"{len(image)} codes where one image is meant; take one row, encoded[i:i + 1].")
            return dataclasses.replace(image, z=self.noise_coded._codes(image.z, 1))
        shape = (self.image_size, self.image_size, self.channels)
        return self.encoded(pixels("image", image, shape)[None])

    def _images(self, images: np.ndarray) -> np.ndarray:
        """Checked and in [-1, 1]."""
        return pixels("images", images, (None, self.image_size, self.image_size, self.channels))

    def _codes(self, z: Any, n: int | None = None) -> np.ndarray:
        return shaped("z", z, (n, self.latent_dim))

    def _like_images(self, name: str, array: Any, n: int | None) -> np.ndarray:
        """Checked, of any range; what is uint8 in [-1, 1]."""
        return pixels(name, array, (n, self.image_size, self.image_size, self.channels), bounded=False)

    def _run(self, function: Callable[..., Any], n: int, *arrays: Any, **static: Any) -> Any:
        """Call with every array padded along its first axis and split over the mesh; cut the result to n."""
        missing = -n % self.mesh.size
        sharding = batch_sharding(self.mesh)

        def put(x: Any) -> Any:
            x = np.asarray(x)
            return jax.device_put(np.concatenate([x, np.repeat(x[:1], missing, axis=0)]), sharding)

        def get(x: jax.Array) -> np.ndarray:
            if not x.is_fully_addressable:  # several processes: each gets all of it
                x = jax.device_put(x, replicated(self.mesh))
            return np.asarray(x)[:n]

        answer = jax.tree.map(get, function(self.method, self.variables, *jax.tree.map(put, arrays), **static))
        check_answer(function.__name__, answer)
        return answer
