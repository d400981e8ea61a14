"""The official DDPM, PDAE and DiTi through their rule tables, held to numbers measured with PyTorch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax import forms
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.latent_mlp import LatentMLP
from diffrep_jax.port import ddpm, diti, latent_prior, pdae
from diffrep_jax.samplers import Sampling, driver, sample
from diffrep_jax.samplers.drift import Problem
from tests import golden, stepwise

pytestmark = pytest.mark.usefixtures("traced_for_cpu")
EXPECTED = golden.numbers("diti_tiny")
X0 = np.tanh(golden.normal("dx0", 2, 64, 64, 3))
EPS = golden.normal("deps", 2, 64, 64, 3)
T = jnp.asarray(EXPECTED["t"], jnp.float32)

NETWORK = {"image_size": 64, "channels": 3, "dtype": "float32", "remat": False}
UNET = {"width": 32, "mult": (1, 2, 4), "blocks": 1, "attention": (32, 16), "head_dim": -1, "heads": 4, "dropout": 0.0}
CELEBA_ENCODER = {"widths": (64, 128, 128, 128), "attention": (16,), "heads": 4}
FFHQ_ENCODER = {"widths": (64, 128, 256, 256, 256), "attention": (16,), "heads": 4}
PLAN = {"k": 64, "stages": (50, 100, 300, 500, 1000), "k_per_stage": (), "dims_per_stage": (10, 25, 327, 100, 50)}
SECTIONS = {
    "ddpm": NETWORK | {"name": "ddpm", "unet": UNET},
    "pdae": NETWORK | {"name": "pdae", "latent_dim": 512, "unet": UNET, "encoder": CELEBA_ENCODER},
}
SECTIONS["diti"] = SECTIONS["pdae"] | {"name": "diti", "mode": "base"} | PLAN


def error(ours, expected):
    """||ours - expected|| / ||expected||"""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(ours - expected) / np.linalg.norm(expected)


def every_second(images):
    return np.asarray(images)[:, ::2, ::2]


def shapes_of(method):
    image = jax.ShapeDtypeStruct((1, method.image_size, method.image_size, method.channels), jnp.float32)
    return jax.eval_shape(lambda: method.init(jax.random.key(0), {"image": image}))


def official(part, seed=""):
    """A part's tensors, by the names that they have in the part."""
    return golden.state_dict(golden.manifest(f"diti_tiny.{part}"), seed or f"{part}.")


def autoencoder_tensors():
    return {f"{part}.{name}": x for part in ("encoder", "decoder") for name, x in official(part).items()}


@pytest.fixture(scope="module", autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module")
def variables():
    return pdae.table(SECTIONS["pdae"]).to_variables(autoencoder_tensors(), shapes_of(build(SECTIONS["pdae"])), "x.pt")


# --- names, shapes and refusals


def test_round_trip_is_bitwise(variables):
    tensors = autoencoder_tensors()
    back = diti.table(SECTIONS["diti"]).to_official(variables)
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)


def test_foreign_files_and_other_sizes_are_refused():
    shapes = {name: x.shape for name, x in autoencoder_tensors().items()}
    pdae.check(SECTIONS["pdae"], shapes, "x.pt")
    ddpm.check(SECTIONS["ddpm"], golden.manifest("diti_tiny.ddpm"), "x.pt")
    with pytest.raises(UserError, match="x.pt has latent_dim=512, but config.method.latent_dim is 64"):
        pdae.check(SECTIONS["pdae"] | {"latent_dim": 64}, shapes, "x.pt")
    with pytest.raises(UserError, match="x.pt is not a state dict of PDAE or DiTi"):
        pdae.check(SECTIONS["pdae"], {"conv1.weight": (3, 3)}, "x.pt")
    with pytest.raises(UserError, match="x.pt is not the state dict of a DDPM"):
        ddpm.check(SECTIONS["ddpm"], shapes, "x.pt")


def test_another_network_is_refused_with_the_names():
    section = SECTIONS["ddpm"] | {"unet": UNET | {"blocks": 2}}
    with pytest.raises(UserError, match="x.pt does not fit the model.*missing for the model"):
        ddpm.table(section).check(golden.manifest("diti_tiny.ddpm"), shapes_of(build(section)), "x.pt")


# --- activations


def noisy():
    b, c = (np.sqrt(k)[:, None, None, None] for k in (EXPECTED["alphas_cumprod"][EXPECTED["t"]],) for k in (k, 1 - k))
    return b * X0 + c * EPS


def test_code(variables):
    assert error(jax.jit(build(SECTIONS["pdae"]).encode)(variables, X0), EXPECTED["z"]) < 1e-5


@pytest.mark.slow
def test_noise_and_shift(variables):
    method = build(SECTIONS["pdae"])

    @jax.jit
    def predict(x):
        eps, emb, skips = method._frozen(variables, x, T)
        return eps, method._estimate(variables, emb, skips, EXPECTED["z"])

    eps, shift = predict(noisy())
    assert error(every_second(eps), EXPECTED["eps_pred"]) < 1e-5
    assert error(every_second(shift), EXPECTED["shift"]) < 1e-5


@pytest.mark.slow
def test_plain_ddpm():
    method = build(SECTIONS["ddpm"])
    variables = ddpm.table(SECTIONS["ddpm"]).to_variables(official("ddpm"), shapes_of(method), "x.pt")
    assert error(every_second(jax.jit(method.predict)(variables, noisy(), T)), EXPECTED["ddpm_eps"]) < 1e-5


def test_ffhq_encoder():
    section = SECTIONS["pdae"] | {"image_size": 128, "encoder": FFHQ_ENCODER}
    method = build(section)
    template = {"params": {"encoder": shapes_of(method)["params"]["encoder"]}}
    tensors = {f"encoder.{name}": x for name, x in official("ffhq_encoder", "ffhqenc.").items()}
    variables = pdae.table(section).to_variables(tensors, template, "x.pt")
    z = jax.jit(method.encode)(variables, np.tanh(golden.normal("fx0", 1, 128, 128, 3)))
    assert error(z, EXPECTED["ffhq_z"]) < 1e-5


def test_latent_mlp():
    section = {"channels": 512, "mlp": {"width": 256, "layers": 4, "time_width": 64}}
    network = LatentMLP(**section["mlp"])
    template = jax.eval_shape(lambda: initialize(network, jax.random.key(0), EXPECTED["z"], T))
    template = {"params": {"mlp": template["params"]}}
    tensors = official("latent")
    latent_prior.check(section, {name: x.shape for name, x in tensors.items()}, "x.pt")
    table = latent_prior.table(section)
    variables = table.to_variables(tensors, template, "x.pt")
    assert error(network.apply({"params": variables["params"]["mlp"]}, EXPECTED["z"], T), EXPECTED["latent_eps"]) < 1e-5
    back = table.to_official(variables)
    back |= latent_prior.unused(section, back)
    assert back.keys() == tensors.keys()
    shared = {name for name in tensors if ".linear_emb." in name}  # filled by its own name there, one weight in truth
    assert shared and all(np.array_equal(back[name], tensors[name]) for name in tensors.keys() - shared)
    for name in shared:
        np.testing.assert_array_equal(back[name], tensors[name.replace("linear_emb", "cond_layers.1")])


def test_other_latent_priors_are_refused():
    shapes = golden.manifest("diti_tiny.latent")
    section = {"channels": 64, "mlp": {"width": 256, "layers": 4, "time_width": 64}}
    with pytest.raises(UserError, match="x.pt is for codes of 512 dimensions, but config.method.channels is 64"):
        latent_prior.check(section, shapes, "x.pt")
    with pytest.raises(UserError, match="x.pt is not the state dict of a latent prior"):
        latent_prior.check(section, golden.manifest("diti_tiny.ddpm"), "x.pt")


# --- the plan of DiTi, and the coefficients


def test_masks():
    method = build(SECTIONS["diti"])
    np.testing.assert_array_equal(method.block_ends, EXPECTED["mask_end_dim"])
    # of every step: 1,000 / 64 = 15.6 steps a block
    t = jnp.arange(1000.0)
    prefix, block = np.asarray(method.prefix_mask(t)), np.asarray(method.block_mask(t))
    ends = EXPECTED["mask_end_dim"][(np.arange(1000) / 1000 * 64).astype(int)]
    np.testing.assert_array_equal(prefix.sum(1), ends)
    assert (np.diff(prefix, axis=1) <= 0).all()  # ones, then zeros
    sizes = EXPECTED["segment_dims"][(np.arange(1000) / 1000 * 64).astype(int)]
    np.testing.assert_array_equal(block.sum(1), sizes)
    np.testing.assert_array_equal((prefix * block), block)
    assert (block[np.arange(1000), ends - 1] == 1).all()


def test_blocks_by_stage():
    plan = {"k": 4, "stages": (100, 1000), "k_per_stage": (2, 2), "dims_per_stage": (12, 500)}
    method = build(SECTIONS["diti"] | plan)
    np.testing.assert_array_equal(np.flatnonzero(np.diff(method.block_of_step)) + 1, [50, 100, 550])
    np.testing.assert_array_equal(method.block_ends, [6, 12, 262, 512])


@pytest.mark.parametrize(
    "change, says",
    [
        ({"mode": "stopgrad"}, "Unknown mode 'stopgrad'.*Did you mean 'stop_grad'"),
        ({"k": 0}, "config.method.k is 0; use a whole number from 1 on"),
        ({"stages": (50, 900)}, "stages=.*must increase and end at 1000"),
        ({"dims_per_stage": (1, 2, 3, 4, 5)}, "dims_per_stage=.*512"),
        ({"k_per_stage": (1, 2)}, "k_per_stage=.*64"),
        ({"k": 2}, "leave a block or a stage without time-steps"),
    ],
)
def test_plans_that_do_not_add_up_are_refused(change, says):
    with pytest.raises(UserError, match=says):
        build(SECTIONS["diti"] | change)


def test_coefficients_at_every_step():
    method, t = build(SECTIONS["pdae"]), jnp.arange(1000.0)
    assert error(method.shift_coefficient(t), EXPECTED["shift_coef"]) < 1e-6
    assert error(method.weight(t), EXPECTED["pdae_weight"]) < 1e-6


# --- training


@functools.cache
def gradients():
    """{mode: (loss, gradients)}; of the mode pdae the loss alone, as no test asks for more.

    One program: the modes differ in what passes to the encoder, and share the rest.
    """
    methods = {"pdae": build(SECTIONS["pdae"])}
    methods |= {mode: build(SECTIONS["diti"] | {"mode": mode}) for mode in ("base", "stop_grad", "dual")}
    template = shapes_of(methods["pdae"])
    variables = pdae.table(SECTIONS["pdae"]).to_variables(autoencoder_tensors(), template, "x.pt")

    @jax.jit
    def run(params):
        losses = {
            mode: lambda params, method=method: method.loss_at({"params": params}, X0, T, EPS).mean()
            for mode, method in methods.items()
        }
        results = {mode: jax.value_and_grad(loss)(params) for mode, loss in losses.items() if mode != "pdae"}
        return results | {"pdae": (losses["pdae"](params), None)}

    with forms.plain():  # compiles sooner than that for CPUs, which the other tests have
        return jax.device_get(run(variables["params"]))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["base", "stop_grad", "dual", "pdae"])
def test_losses(mode):
    name = "loss_pdae" if mode == "pdae" else f"loss_diti_{mode}"
    assert float(gradients()[mode][0]) == pytest.approx(float(EXPECTED[name]), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["base", "stop_grad"])
def test_every_gradient_norm_of_the_encoder(mode):
    ours = pdae.table(SECTIONS["pdae"]).to_official({"params": {"encoder": gradients()[mode][1]["encoder"]}})
    names = list(golden.manifest("diti_tiny.encoder"))
    norms = [np.linalg.norm(ours[f"encoder.{name}"].astype(np.float64)) for name in names]
    np.testing.assert_allclose(norms, EXPECTED[f"enc_grad_norm_{mode}"], rtol=1e-4)


@pytest.mark.slow
def test_dual_is_base_plus_stop_grad():
    both = jax.tree.map(np.add, gradients()["base"][1], gradients()["stop_grad"][1])
    for ours, expected in zip(jax.tree.leaves(gradients()["dual"][1]), jax.tree.leaves(both), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5 * float(np.abs(expected).max() + 1e-9))


@pytest.mark.slow
def test_the_base_gets_no_gradient():
    grads = gradients()["base"][1]
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads["unet"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads["gradient_estimator"]["code"]))


def test_stop_grad_gives_earlier_dimensions_exactly_nothing():
    method = build(SECTIONS["diti"] | {"mode": "stop_grad"})
    z = jnp.asarray(EXPECTED["z"])
    (code,), pull = jax.vjp(lambda z: method.training_codes(z, T), z)
    (grad,) = pull([jnp.ones_like(code)])
    np.testing.assert_array_equal(code, z * method.prefix_mask(T))
    np.testing.assert_array_equal(grad, method.block_mask(T))
    assert grad[0, : EXPECTED["mask_end_dim"][1]].tolist() == [0] * 4  # t = 37 is in block 2, the dimensions 4 and 5


# --- both samplers, both ways

# Float32 alone makes a decoded image uncertain by more than 1e-4: the formulas of the official code, step by step in
# float64, are 1.5e-4 off its float32 numbers, as are ours. Encoding divides by c = 0.01 at its first step and decoding
# by b = 0.006; each multiplies what was rounded off.
DECODED = 3e-4


CASES = {"shift_ddim8": ("pdae", "ddim_linspace", 8), "guided_ddim10": ("diti", "ddim_range", 10)}


@pytest.fixture(scope="module", params=CASES)
def ddim(request, variables):
    """(prefix of the golden names, nodes up, nodes down, the code, run(x, nodes, shift_from, code_from)).

    Below the time `shift_from` G is left out, below `code_from` it gets z = 0: as arguments of one compiled program.
    """
    prefix = request.param
    name, grid, steps = CASES[prefix]
    method, how = build(SECTIONS[name]), Sampling(grid=grid, steps=steps)
    stepper = how.stepper()

    @jax.jit
    def denoise(variables, x, t, shift_from, code_from):
        z = jnp.where(t >= code_from, EXPECTED["z"], 0)
        return jnp.clip(method.mixed_denoiser(variables, [z], [1.0], shift_from)(x, t), -1, 1)

    def run(x, nodes, shift_from=-1.0, code_from=-1.0):
        plan = driver.plan(stepper, method.process, nodes)
        denoised = lambda x, t: denoise(variables, x, t, np.float32(shift_from), np.float32(code_from))  # noqa: E731
        with stepwise.in_python():
            return sample(stepper, Problem(denoised, x), jnp.asarray(x), plan)

    up, down = (how.nodes(method.process, upward) for upward in (True, False))
    return prefix, up, down, run(X0, up), run


@pytest.mark.slow
def test_encoding(ddim):
    prefix, _, _, code, _ = ddim
    assert error(every_second(code), EXPECTED[f"{prefix}_encode"]) < 1e-4


@pytest.mark.slow
def test_decoding(ddim):
    prefix, _, down, code, run = ddim
    assert error(every_second(run(code, down)), EXPECTED[f"{prefix}_decode"]) < DECODED


@pytest.mark.slow
def test_decoding_without_the_last_shifts(ddim):
    """The official stop_percent 0.3 stops the guidance below the step int(0.3 N).

    PDAE leaves G out of the rest of the way; DiTi's code means to, and gives it z = 0 instead.
    """
    prefix, up, down, code, run = ddim
    if prefix == "shift_ddim8":
        out = run(code, down, shift_from=up[1 + int(0.3 * 8)])
    else:
        out = run(code, down, code_from=down[9 - int(0.3 * 10)])
    assert error(every_second(out), EXPECTED[f"{prefix}_decode_stop0.3"]) < DECODED


@pytest.mark.slow
def test_interpolated_trajectory(variables):
    method = build(SECTIONS["pdae"])
    how, z = Sampling(grid="ddim_linspace", steps=8), EXPECTED["z"]
    stepper = how.stepper()
    down, up = (how.plan(method.process, upward) for upward in (False, True))

    @jax.jit
    def mixed(variables, x, t):
        return jnp.clip(method.mixed_denoiser(variables, [z[:1], z[1:]], [0.6, 0.4])(x, t), -1, 1)

    with stepwise.in_python():
        by_steps = stepwise.with_compiled_denoiser(method)
        code = by_steps.invert(variables, jnp.asarray(X0[:1]), z[:1], X0[:1], stepper, up)
        image = sample(stepper, Problem(functools.partial(mixed, variables), X0[:1]), code, down)
    assert error(every_second(image), EXPECTED["traj_interp_a0.4"]) < DECODED


def test_the_masked_denoiser_sees_the_block_of_its_time_alone(variables):
    base = build(SECTIONS["diti"])
    z = jnp.asarray(EXPECTED["z"])
    t = jnp.asarray([37.0, 642.0])
    np.testing.assert_array_equal(base.code_at(z, t), z * base.prefix_mask(t))
    np.testing.assert_array_equal(dataclasses.replace(base, mode="stop_grad").code_at(z, t), base.code_at(z, t))
    assert (np.asarray(base.code_at(z, t)) == np.asarray(z))[:, :6].all()
    assert not np.asarray(base.code_at(z, t))[0, 6:].any()
