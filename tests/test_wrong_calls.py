"""Wrong calls from Python: one line that names the argument, its value and the remedy; what means the same is taken."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffrep_jax
from configs import latent_prior_digits
from diffrep_jax.errors import UserError
from diffrep_jax.inference import edit
from diffrep_jax.inference.encoded import Encoded
from diffrep_jax.inference.model import Model
from diffrep_jax.methods.base import Unconditional, build
from diffrep_jax.readout.head import Head
from diffrep_jax.samplers.recipe import Sampling
from diffrep_jax.sharding import make_mesh
from tests.coded_models import opened, small_config

Z, X = np.zeros((2, 8), np.float32), np.zeros((2, 8, 8, 1), np.float32)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
ONES = np.ones(8)
HEAD = Head(("ink", "slant"), np.ones((8, 2)), np.zeros(2), "mse", "digits", "probe", ONES, ONES, ONES)


def wrong(value) -> Any:
    """A value of a type that a checker would refuse."""
    return value


def prior_of(fingerprint):
    """A prior of codes [8], with random weights."""
    config = latent_prior_digits.get_config().unlock()
    config.data.channels = 8
    config.method.mlp.update(width=8, layers=2)
    method = build(config.method)
    variables = method.init(jax.random.key(0), {"image": np.zeros((1, 1, 1, 8))})
    return Model(
        method, method.with_statistics(variables, {"fingerprint": fingerprint}), make_mesh(), Sampling(steps=1)
    )


@pytest.fixture(scope="module")
def ae(tiny_model):
    return tiny_model


@pytest.fixture(scope="module")
def prior(ae):
    return prior_of(ae.fingerprint())


CALLS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda ae: ae.decode(Z, how="euler"), "how is 'euler'; give a Sampling, or .* sampler='euler'"),
    (lambda ae: ae.decode(Z, how={"steps": 1}), "how is {'steps': 1}; give a Sampling"),
    (lambda ae: ae.decode(Z, steps=2.0), r"sampling.steps 2.0 is no whole number"),
    (lambda ae: ae.decode(Z, steps=True), r"sampling.steps True is no whole number"),
    (lambda ae: ae.decode("z.npz"), "z is 'z.npz'; give an array"),
    (lambda ae: ae.decode(None), "z is None; give an array"),
    (lambda ae: ae.decode([[1.0], [1.0, 2.0]]), "z is a list of rows that differ in shape"),
    (lambda ae: ae.decode(Z + 0j), "z is a ndarray of complex64"),
    (lambda ae: ae.decode(ae), "z is a Model; give an array"),
    (lambda ae: ae.decode(Z * np.nan), r"z of image 0 of 2 .* not finite: give finite"),
    (lambda ae: ae.decode(Z, np.full_like(X, np.inf)), r"x_T of image 0 of 2 .* not finite: give finite"),
    (lambda ae: ae.decode(Z, PIXELS.astype(int)), "x_T has dtype int64; give uint8, or floats"),
    (lambda ae: ae.decode(Z, numbers=1.5), "numbers 1.5 is no whole number"),
    (lambda ae: ae.decode(Z, numbers=-1), "numbers -1 is no whole number"),
    (lambda ae: ae.decode(Z, numbers=2**31), "numbers 2147483648 is no whole number"),
    (lambda ae: ae.decode(Z, numbers=[0.5, 1.5]), r"numbers \[0.5, 1.5\] are no whole numbers"),
    (lambda ae: ae.decode(Encoded(Z, X), stochastic_code=X), "stochastic_code is given, and encoded has one"),
    (lambda ae: opened(small_config("ddpm")).decode(Encoded(Z[:, :0], X), stochastic_code=X), "encoded has one"),
    (lambda ae: ae.endpoint(Z, seed=1.5), "seed 1.5 is no whole number"),
    (lambda ae: ae.endpoint(Z, seed="x"), "seed 'x' is no whole number"),
    (lambda ae: ae.encode("me.jpg"), "images is 'me.jpg'; give an array"),
    (lambda ae: ae.encode([X[0], X[0, :4]]), "images is a list of rows that differ in shape"),
    (lambda ae: ae.denoise(X, np.zeros(3), Z, X), r"t has the shape \(3,\); this model takes \[2\]"),
    (lambda ae: ae.denoise(X, np.zeros((2, 1)), Z, X), r"t has the shape \(2, 1\)"),
    (lambda ae: ae.denoise(X, "half", Z, X), "t is a ndarray of <U4"),
    (lambda ae: ae.denoise(None, 0.5, Z, X), "x_t is None"),
    (lambda ae: ae.denoise(X, 0.5, 3.0, X), r"z has the shape \(\)"),
    (lambda ae: ae.interpolate(X[0], X[1], 2.5), "points 2.5 is no whole number"),
    (lambda ae: ae.interpolate(X[0], X[1], "3"), "points '3' is no whole number"),
    (lambda ae: ae.interpolate(X[:1], X[1], 2), r"image has the shape \(1, 8, 8, 1\); this model takes \[8, 8, 1\]"),
    (lambda ae: ae.interpolate(Encoded(Z[:1, :4]), Encoded(Z[1:]), 2), r"z has the shape \(1, 4\)"),
    (lambda ae: ae.counterfactual(X[0], X[1], blocks=0), "blocks is 0; use .* such as .0, 1."),
    (lambda ae: ae.counterfactual(X[0], X[1], blocks=(0,)), r"blocks is \(0,\); use"),
    (lambda ae: ae.counterfactual(X[0], X[1], blocks=(0.0, 1.0)), "blocks 0.0 is no whole number"),
    (lambda ae: ae.counterfactual(X[0], X[1], blocks=(0, 1), out_of=8.0), "out_of 8.0 is no whole number"),
    (lambda ae: ae.generate(2.0), "n 2.0 is no whole number"),
    (lambda ae: ae.generate(-1), "n -1 is no whole number"),
    (lambda ae: ae.generate("3"), "n '3' is no whole number"),
    (lambda ae: ae.generate(1, prior="runs/prior"), "prior is 'runs/prior', no model; .* diffrep_jax.load"),
    (lambda ae: ae.generate(1, prior=ae), "prior is a DBAE run, no prior"),
    (lambda ae: ae.generate(1, prior=prior_of(np.ones(8))), "prior was trained on another auto-encoder's codes"),
    (lambda ae: prior_of(Z[0]).generate(1, prior=ae), "prior is of no use: a LatentPrior starts from noise"),
    (lambda ae: prior_of(Z[0]).encode(X), "LatentPrior run makes the codes of an auto-encoder.*as its prior"),
    (lambda ae: prior_of(Z[0]).denoise(X, 0.5, None, X), "LatentPrior run makes the codes"),
    (lambda ae: edit.move(Encoded(Z), np.ones(3), 0.3), r"direction has the shape \(3,\); this model takes \[8\]"),
    (lambda ae: edit.move(Encoded(Z), ONES, wrong("0.3")), "scale is '0.3'; give a number"),
    (lambda ae: edit.move(Encoded(Z), ONES, True), "scale is True; give a number"),
    (lambda ae: edit.move(Encoded(Z), ONES, wrong([0.3, 0.6])), r"scale is \[0.3, 0.6\]; give a number"),
    (lambda ae: edit.move(wrong(Z), ONES, 0.3), "ndarray is no encoded image; give what Model.encoded"),
    (lambda ae: HEAD.only("nope"), "Unknown attribute 'nope' in the head of digits. Known: ink, slant"),
    (lambda ae: HEAD.logits(Z[:, :3]), r"z has the shape \(2, 3\); this head reads \[n, 8\]"),
    (lambda ae: diffrep_jax.load(None), "None names no file or folder"),
    (lambda ae: diffrep_jax.load(b"runs/x"), "b'runs/x' names no file or folder"),
    (lambda ae: diffrep_jax.load("pretrained/dbae_digits", config={}), "config is {}, no config"),
    (lambda ae: diffrep_jax.load_heads(None, ae), "None names no file or folder"),
    (lambda ae: diffrep_jax.load_heads("pretrained/dbae_digits", "x"), "model is 'x', no model"),
    (lambda ae: diffrep_jax.load_heads("nowhere/x", ae), "There is no folder nowhere/x"),
]


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[message for _, message in CALLS])
def test_a_wrong_call_is_one_line(ae, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(ae)
    assert "\n" not in str(error.value)


def test_new_images_are_of_the_priors_codes(ae, prior):
    codes = prior.generate(2, numbers=3)
    np.testing.assert_array_equal(ae.generate(2, prior=prior, numbers=3), ae.decode_generated(codes, numbers=3))


def test_numpys_whole_numbers_are_taken_as_pythons(ae):
    one, other = np.int64(1), np.array(3)
    np.testing.assert_array_equal(ae.decode(Z, steps=one, numbers=other), ae.decode(Z, steps=1, numbers=3))
    np.testing.assert_array_equal(ae.endpoint(Z, seed=one), ae.endpoint(Z, seed=1))
    numbers: dict[str, Any] = {"steps": np.int32(4), "order": np.int64(2), "eta": np.float32(0), "seed": np.uint8(7)}
    taken = Sampling(**numbers)
    assert taken == Sampling(steps=4, order=2, seed=7)
    assert all(type(value) in (int, float, str, bool) for value in dataclasses.asdict(taken).values())


def test_jaxs_numbers_are_taken_as_numpys(ae):
    """Halves and quarters, which bfloat16 has."""
    halves = (PIXELS // 64).astype(np.float32) / 4 - 0.5
    brain: Any = jnp.asarray(halves, jnp.bfloat16)
    np.testing.assert_array_equal(ae.encode(brain), ae.encode(halves))
    np.testing.assert_array_equal(ae.decode(Z, brain), ae.decode(Z, halves))
    scale: Any = jnp.float32(0.5)
    np.testing.assert_array_equal(edit.move(Encoded(Z), ONES, scale).z, edit.move(Encoded(Z), ONES, 0.5).z)


def test_what_is_given_as_uint8_is_scaled_as_images_are(ae):
    """As x_T and as x_t: the model cannot tell them from floats."""
    floats = PIXELS / np.float32(127.5) - 1
    np.testing.assert_array_equal(ae.decode(Z, PIXELS), ae.decode(Z, floats))
    np.testing.assert_array_equal(ae.denoise(PIXELS, 0.5, Z, PIXELS), ae.denoise(floats, 0.5, Z, floats))


def test_a_stochastic_code_is_used_wherever_it_is_given(ae):
    code = np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)
    how = Sampling(sampler="exponential", grid="uniform_lambda", steps=2)
    images = [ae.decode(given, how=how, stochastic_code=code) for given in (Z, Encoded(Z))]
    images.append(ae.decode(Encoded(Z, code), how=how))
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


def test_a_ddpm_denoises_without_a_code():
    """D(x_t, t) = (x_t - c eps_hat) / b by its own network, x_T being of no use to it."""
    ddpm = opened(small_config("ddpm"))
    assert isinstance(ddpm.method, Unconditional)
    a, b, c = (float(value) for value in ddpm.method.process.coefficients(np.float64(400)))
    eps_hat = ddpm.method.predict(ddpm.variables, jnp.asarray(X + 0.5), jnp.full(2, 400.0))
    assert a == 0
    for xT in (X, X + 1):
        np.testing.assert_allclose(ddpm.denoise(X + 0.5, 400, None, xT), (X + 0.5 - c * eps_hat) / b, atol=1e-4)
