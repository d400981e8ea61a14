"""DiffAE, its plain DDIM, prior and classifier, held to numbers measured with PyTorch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.inference.edit import slerp
from diffrep_jax.methods.base import build
from diffrep_jax.port import diffae, latent_prior
from diffrep_jax.processes.bridge import VPBridge
from diffrep_jax.samplers.drift import Problem
from diffrep_jax.samplers.grids import GRIDS
from diffrep_jax.samplers.recipe import Sampling
from tests import golden
from tests.diffae_official import (
    EPS,
    EXPECTED,
    RANDOM_END,
    SECTIONS,
    X0,
    T,
    classifier_file,
    error,
    every_second,
    loaded,
    noisy,
    tensors_of,
)

pytestmark = pytest.mark.usefixtures("traced_plainly")


@pytest.fixture(scope="module", autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


@functools.cache
def compiled(name):
    """(the method, its variables), its network compiled once for all of these tests."""
    method, variables = loaded(name)
    fast = dataclasses.replace(method)
    object.__setattr__(fast, "predict", jax.jit(method.predict))
    return fast, variables


# --- activations


def test_processes():
    t = jnp.arange(1000.0)
    assert error(build(SECTIONS["diffae"]).process.alpha_bar(t), EXPECTED["alphas_cumprod"]) < 1e-6
    assert error(build(SECTIONS["latent_prior"]).process.alpha_bar(t), EXPECTED["latent_alphas_cumprod"]) < 1e-6


@pytest.mark.slow
def test_code_and_noise():
    method, variables = compiled("diffae")
    z = jax.jit(method.encode)(variables, X0)
    assert error(z, EXPECTED["z"]) < 1e-5
    assert error(every_second(method.predict(variables, noisy(), T, z)), EXPECTED["eps_pred"]) < 1e-5


@pytest.mark.slow
def test_plain_ddim():
    method, variables = compiled("ddpm")
    assert error(every_second(method.predict(variables, noisy(), T)), EXPECTED["ddpm_eps"]) < 1e-5


def test_latent_prior():
    method, variables = loaded("latent_prior")
    code, eps = (golden.normal(name, 2, 512).reshape(2, 1, 1, 512) for name in ("ae_lat_x0", "ae_lat_eps"))
    b, c = (
        np.sqrt(k[EXPECTED["t"]]).astype(np.float32).reshape(2, 1, 1, 1)
        for k in (EXPECTED["latent_alphas_cumprod"], 1 - EXPECTED["latent_alphas_cumprod"])
    )
    assert error(method.predict(variables, b * code + c * eps, T)[:, 0, 0], EXPECTED["latent_eps"]) < 1e-5
    assert error(method.loss_at(variables, code, T, eps), EXPECTED["latent_loss_l1"]) < 1e-5


# --- gradients


def assert_gradient_norms(official_grads, prefix=""):
    expected = golden.gradient_norms("diffae_tiny")
    for name, grad in official_grads.items():
        assert np.linalg.norm(grad.astype(np.float64)) == pytest.approx(expected[prefix + name], rel=1e-3), name


@pytest.mark.slow
def test_the_loss_and_every_gradient_norm():
    method, variables = loaded("diffae")

    def mean_loss(params):
        losses = method.loss_at({"params": params}, X0, T, EPS)
        return losses.mean(), losses

    grads, losses = jax.jit(jax.grad(mean_loss, has_aux=True))(variables["params"])
    assert error(losses, EXPECTED["loss"]) < 1e-5
    ours = diffae.table(SECTIONS["diffae"]).to_official({"params": grads})
    assert len(ours) == len(tensors_of("diffae"))
    assert_gradient_norms(ours)


def test_every_gradient_norm_of_the_prior():
    method, variables = loaded("latent_prior")
    code, eps = (golden.normal(name, 2, 512).reshape(2, 1, 1, 512) for name in ("ae_lat_x0", "ae_lat_eps"))
    loss = lambda params: method.loss_at(variables | {"params": params}, code, T, eps).mean()  # noqa: E731
    grads = latent_prior.table(SECTIONS["latent_prior"]).to_official({"params": jax.grad(loss)(variables["params"])})
    assert_gradient_norms(
        {name.replace("cond_layers.1", "linear_emb"): grad for name, grad in grads.items()}, "latent_net."
    )


# --- the respaced process


def recipe(steps):
    return Sampling(sampler="exponential", grid="ddim_space", steps=steps)


@pytest.mark.parametrize("steps", [10, 20, 100])
def test_respaced_steps(steps):
    process, official = build(SECTIONS["diffae"]).process, EXPECTED[f"timesteps_T{steps}"]
    np.testing.assert_array_equal(recipe(steps).nodes(process), [*official[::-1], -1])
    np.testing.assert_array_equal(recipe(steps).nodes(process, upward=True), [*official, 1000])
    assert recipe(steps).nfe(process) == recipe(steps).nfe(process, upward=True) == steps


def test_respaced_betas():
    """alpha_bar at the chosen steps is that of all of them, and each step's own beta follows."""
    process = build(SECTIONS["diffae"]).process
    alpha_bar = process.alpha_bar(recipe(20).nodes(process)[::-1])
    np.testing.assert_allclose(alpha_bar[1:], EXPECTED["alphas_cumprod_T20"], rtol=1e-12)
    np.testing.assert_allclose(1 - alpha_bar[1:] / alpha_bar[:-1], EXPECTED["betas_T20"], rtol=1e-9)


def test_diffaes_strides_are_the_smallest_and_other_numbers_are_refused():
    process = build(SECTIONS["diffae"]).process
    for count in (2, 3, 30, 40, 250, 334, 500, 1000):
        down = GRIDS["ddim_space"](process, count).down()
        stride = int(down[0] - down[1]) if count > 1 else 1000
        assert down[-1] == -1 and len(down) == count + 1 and len(range(0, 1000, stride)) == count
        assert stride == 1 or len(range(0, 1000, stride - 1)) > count
    with pytest.raises(UserError, match="steps 60 is no number .* nearest are 59 and 63"):
        GRIDS["ddim_space"](process, 60)
    for count in (1, 80, 300):
        with pytest.raises(UserError, match=f"steps {count} is no number"):
            GRIDS["ddim_space"](process, count)
    with pytest.raises(UserError, match="use grid=karras"):
        GRIDS["ddim_space"](VPBridge(), 10)


# --- samples


def ddim(name, x, steps, z=None, upward=False):
    """All states of DDIM from x on; D is clipped but for the prior's."""
    method, variables = compiled(name)
    denoise = method.denoiser(variables, z, x) if name == "diffae" else method.denoiser(variables)
    bound = (lambda x: x) if name == "latent_prior" else (lambda x: jnp.clip(x, -1, 1))
    problem = Problem(lambda x, t: bound(denoise(x, t)), jnp.asarray(x))
    stepper, states = recipe(steps).stepper(), [jnp.asarray(x)]
    plan = jax.tree.map(jnp.float32, recipe(steps).plan(method.process, upward).rows)
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], plan) for i in range(steps)]
    carry = stepper.init(problem, states[0], rows[0], None)
    for row in rows:
        carry = stepper.step(problem, carry, row, None)
        states.append(stepper.image(carry))
    return states


def norms(states):
    return np.sqrt((np.asarray(states, np.float64)[1:] ** 2).sum((2, 3, 4)))


def rendered(states):
    return every_second((states[-1] + 1) / 2)


@pytest.mark.slow
def test_stochastic_codes_and_back():
    up = ddim("diffae", X0, 10, EXPECTED["z"], upward=True)
    assert error(up[-1], EXPECTED["x_T_full"]) < 1e-4
    assert error(norms(up), EXPECTED["encode_norms"]) < 1e-4
    down = ddim("diffae", EXPECTED["x_T_full"], 10, EXPECTED["z"])
    assert error(every_second(down[-1]), EXPECTED["decode"]) < 1e-4
    assert error(norms(down), EXPECTED["decode_norms"]) < 1e-4
    assert len(up) - 1 == EXPECTED["nfe_encode"] and len(down) - 1 == EXPECTED["nfe_decode"]


@pytest.mark.slow
def test_twenty_steps():
    """The code of an image upward; then a random x_T, and the third of ten points between two images."""
    z, ends = EXPECTED["z"], np.split(EXPECTED["x_T_full"], 2)
    assert error(every_second(ddim("diffae", X0, 20, z, upward=True)[-1])[:1], EXPECTED["encode_T20"]) < 1e-4
    points = np.concatenate([slerp(*ends, float(alpha)) for alpha in EXPECTED["interp_alpha"]])
    assert error(points[:, ::8, ::8], EXPECTED["interp_x_T"]) < 1e-5
    between = z[:1] + EXPECTED["interp_alpha"][3] * (z[1:] - z[:1])
    assert error(between, EXPECTED["interp_z"]) < 1e-5
    images = rendered(
        ddim("diffae", np.concatenate([RANDOM_END[:1], points[3:4]]), 20, np.concatenate([z[:1], between]))
    )
    assert error(images[:1], EXPECTED["render_T20"]) < 1e-4
    assert error(images[1:], EXPECTED["interp_render_3"]) < 1e-4


@pytest.mark.slow
def test_samples_of_the_plain_ddim():
    assert error(every_second(ddim("ddpm", RANDOM_END, 10)[-1])[:1], EXPECTED["ddpm_sample_T10"]) < 1e-4


def test_samples_of_the_prior_are_not_clipped():
    noise = golden.normal("ae_lat_noise", 2, 512).reshape(2, 1, 1, 512)
    codes = ddim("latent_prior", noise, 20)[-1][:, 0, 0]
    assert error(codes, EXPECTED["latent_sample_T20"]) < 1e-4 and float(abs(codes).max()) > 100
    z = codes * EXPECTED["latent_std"] + EXPECTED["latent_mean"]
    assert error(z, EXPECTED["latent_sample_T20_z"]) < 1e-4


@pytest.mark.slow
def test_a_sampled_code_and_a_moved_one():
    head = diffae.classifier(classifier_file(), "x.ckpt")
    moved = moved_codes(head, 0.3)[:1].astype(np.float32)
    codes = np.concatenate([EXPECTED["latent_sample_T20_z"][:1], moved])
    ends = np.concatenate([RANDOM_END[:1], EXPECTED["x_T_full"][:1]])
    states = ddim("diffae", ends, 10, codes)
    assert error(every_second(states[-1])[:1], EXPECTED["uncond"]) < 1e-4
    assert error(rendered(states)[1:], EXPECTED["manip_render_0.3"]) < 1e-4


# --- the classifier


def test_classifier():
    head, z = diffae.classifier(classifier_file(), "x.ckpt"), EXPECTED["z"]
    normalised = (z - head.mean) / head.std
    assert error(normalised, EXPECTED["z_norm"]) < 1e-5
    logits = normalised @ head.kernel + head.bias
    assert error(logits, EXPECTED["logits"]) < 1e-5
    signs = np.sign(golden.normal("ae_labels", 2, 40))
    assert np.logaddexp(0, -signs * logits).mean() == pytest.approx(float(EXPECTED["cls_loss"]), rel=1e-5)


def moved_codes(head, scale, row=33):
    direction = head.kernel[:, row] / np.linalg.norm(head.kernel[:, row])
    return EXPECTED["z"] + scale * np.sqrt(512) * direction * head.std


@pytest.mark.parametrize("scale", [0.3, -0.3])
def test_moved_codes(scale):
    head = diffae.classifier(classifier_file(), "x.ckpt")
    assert error(moved_codes(head, scale), EXPECTED[f"manip_z_{scale}"]) < 1e-5
