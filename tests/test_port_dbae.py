"""The official DBAE through its rule table, held to numbers measured with PyTorch (`tests/golden/`)."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffrep_jax
from configs import dbae_celeba, dbae_ffhq
from diffrep_jax import forms
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.port import dbae, files
from diffrep_jax.runs.layout import Run
from diffrep_jax.samplers import Sampling
from diffrep_jax.tasks import base
from tests import golden, stepwise

CASES = {"det": "dbae_celeba64_det_vp", "sto": "dbae_celeba64_sto_vp"}
LARGE = "dbae_ffhq128_sto_vp"

X0 = np.tanh(golden.normal("x0", 2, 64, 64, 3))
EPS = golden.normal("eps", 2, 64, 64, 3)
CODE_NOISE = golden.normal("znoise", 2, 512)
CHURN_NOISE = np.stack([golden.normal(f"churn_{i}", 2, 64, 64, 3) for i in range(4)])


def configuration(kind):
    """The config of a case, in float32 and without dropout."""
    if kind == "large":
        config = dbae_ffhq.get_config("encoder=stochastic")
    else:
        config = dbae_celeba.get_config("encoder=stochastic" if kind == "sto" else "")
    config.method.dtype = "float32"
    config.method.unet.dropout = 0.0
    return config


def section(kind):
    """Its `method` section."""
    return configuration(kind).method


def shapes_of(method):
    image = jax.ShapeDtypeStruct((1, method.image_size, method.image_size, method.channels), jnp.float32)
    return jax.eval_shape(lambda: method.init(jax.random.key(0), {"image": image}))


def error(ours, expected):
    """||ours - expected|| / ||expected||"""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(ours - expected) / np.linalg.norm(expected)


def every_fourth(images):
    return images[:, ::4, ::4]


# Names and shapes


@pytest.mark.parametrize(("kind", "name"), [*CASES.items(), ("large", LARGE)])
def test_all_names_and_shapes_match(kind, name):
    shapes = golden.manifest(name)
    matching = dbae.table(section(kind)).check(shapes, shapes_of(build(section(kind))), name)
    assert len(matching.targets) + len(matching.ignored) == len(shapes)
    assert {n for n in matching.ignored if not n.endswith("num_batches_tracked")} == {
        n for n in shapes if n.startswith("decoder.feat_256.") and not n.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize(("kind", "name"), [*CASES.items(), ("large", LARGE)])
def test_the_shapes_tell_the_config(kind, name):
    inferred, config = dbae.infer(golden.manifest(name)), section(kind)
    for field in ("image_size", "channels", "latent_dim", "stochastic_encoder"):
        assert inferred[field] == config[field]
    assert inferred["unet"] | {"head_dim": 64, "dropout": 0.0} == dict(config.unet)
    assert inferred["encoder"] == dict(config.encoder)
    assert inferred["generator"] | {"norm_images": 32} == dict(config.generator)
    dbae.check(config, golden.manifest(name), name)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sto", "stochastic_encoder=False, but config.method.stochastic_encoder is True"),
        ("large", "image_size=64, but config.method.image_size is 128"),
    ],
)
def test_a_mismatch_names_both(kind, message):
    with pytest.raises(UserError, match=message):
        dbae.check(section(kind), golden.manifest(CASES["det"]), "x.pt")


def test_a_foreign_state_dict_is_refused():
    with pytest.raises(UserError, match="Not an official DBAE.*conv1.weight"):
        dbae.infer({"conv1.weight": (3, 3)})


def test_an_image_size_without_official_checkpoints_is_refused():
    with pytest.raises(UserError, match="28 px"):
        dbae.table(dict(section("det")) | {"image_size": 28})


def test_a_missing_block_is_named():
    shapes = {n: s for n, s in golden.manifest(CASES["det"]).items() if not n.startswith("output_blocks.4.1.")}
    shapes["output_blocks.4.3.weight"] = (1,)
    with pytest.raises(UserError, match=r"output_blocks\.4\.3\.weight.*params/unet/up2_attention1/qkv/kernel"):
        dbae.table(section("det")).check(shapes, shapes_of(build(section("det"))), "x.pt")


# Values, by way of the task import and `diffrep_jax.load`


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """(kind, the model, the official tensors, the golden numbers)."""
    kind, folder = request.param, tmp_path_factory.mktemp("golden")
    official = golden.state_dict(golden.manifest(CASES[kind]))
    path = folder / "ema_0.9999_1020000.safetensors"
    files.write_safetensors(path, official)
    config = configuration(kind)
    with jax.default_matmul_precision("highest"), forms.plain():  # compiles soonest
        task = base.build("import", config.tasks["import"], {"checkpoint": path})
        task.run(None, Run.at(folder / "run", config))
        path.unlink()
        yield kind, diffrep_jax.load(folder / "run"), official, golden.numbers(CASES[kind])
    shutil.rmtree(folder)


@pytest.fixture
def parts(case):
    """(method, variables) of the model."""
    return case[1].method, case[1].variables


def test_round_trip_is_bitwise(case, parts):
    official, fields = case[2], section(case[0])
    back = dbae.table(fields).to_official(parts[1])
    back |= dbae.unused(fields, back)
    assert {n: (x.shape, x.dtype) for n, x in back.items()} == {n: (x.shape, x.dtype) for n, x in official.items()}
    different = [name for name in official if not np.array_equal(back[name], official[name])]
    assert all(name.startswith("decoder.feat_256.") for name in different)


def test_code_and_endpoint(case, parts):
    kind, ae, _, expected = case
    method, variables = parts
    features = jax.jit(method._encoder.apply)({"params": variables["params"]["encoder"]}, X0)
    assert error(features, expected["encoder_out"]) < 1e-5
    assert error(ae.encode(X0, CODE_NOISE if kind == "sto" else None), expected["z"]) < 1e-5
    assert error(ae.endpoint(expected["z"]), expected["x_T_full"]) < 1e-5


@pytest.mark.slow
def test_raw_and_denoised(case, parts):
    _, ae, _, expected = case
    method = parts[0]
    xT, z = expected["x_T_full"], expected["z"]
    xt = 0.7 * X0 + 0.3 * xT + 0.2 * EPS
    for i, t in enumerate(expected["t"]):
        denoised = ae.denoise(xt, t, z, xT)
        c_skip, c_out, _ = method.preconditioning.scalings(*method.process.coefficients(jnp.float32(t)))
        assert error(every_fourth(denoised), expected[f"denoised_{i}"]) < 1e-5
        assert error(every_fourth((denoised - c_skip * xt) / c_out), expected[f"raw_{i}"]) < 1e-4


# Without churn the first step starts at x_T and t = T - 1e-4, where the official drift, in float32, takes differences
# of nearly equal numbers: there it is 2.8e-4 off what the same formulas give in float64, from pixel to pixel, and its
# samples are 0.8e-4 to 1.4e-4 off ours, which are exact.
SAMPLES = [
    ("det", "euler", 0.0, 2e-4),
    ("det", "heun", 0.0, 2e-4),
    ("det", "heun", 0.33, 1e-4),
    ("sto", "euler", 0.0, 2e-4),
]


@pytest.mark.slow
def test_samples(case):
    """With the stochastic encoder's network as one program, with the other's step by step."""
    kind, ae, _, expected = case
    by_steps = dataclasses.replace(ae, method=stepwise.with_compiled_denoiser(ae.method))
    nodes = Sampling(steps=4).nodes(ae.method.process)
    np.testing.assert_allclose(nodes, expected["sigmas"], rtol=2e-6)
    for sampler, ratio, tolerance in [rest for case_kind, *rest in SAMPLES if case_kind == kind]:
        how = Sampling(sampler, "karras", 4, ratio)
        assert how.nfe(ae.method.process) == expected[f"nfe_{sampler}_churn{ratio}"]
        given = (expected["z"], expected["x_T_full"], how)
        if kind == "sto":
            out = ae.decode(*given, noise=CHURN_NOISE.swapaxes(0, 1))
        else:
            with stepwise.in_python():
                out = by_steps.decode(*given, noise=CHURN_NOISE.swapaxes(0, 1))
        assert error(every_fourth(out), expected[f"sample_{sampler}_churn{ratio}"]) < tolerance, (sampler, ratio)


# Training: batch statistics, one power iteration, no dropout


@pytest.fixture(scope="module")
def trained(case):
    """(|D - x_0|^2 and the weighted one per image, new buffers, gradients) at the golden times.

    Once in the form for CPUs, once in that for any platform.
    """
    method, variables = case[1].method, case[1].variables

    def loss(params, batch_stats, t):
        variables = {"params": params, "batch_stats": batch_stats}
        weighted, mse, new = method.loss_at(variables, X0, t, EPS, CODE_NOISE, train=True)
        return weighted.mean(), (mse, weighted, new)

    t = jnp.asarray(case[3]["train_t"], jnp.float32)
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    with forms.tracing_for("cpu") if case[0] == "det" else forms.plain():
        grads, (mse, weighted, new) = gradient(variables["params"], variables["batch_stats"], t)
    return mse, weighted, new, grads


@pytest.mark.slow
def test_losses_of_each_image(case, trained):
    expected = case[3]
    assert error(trained[0], expected["train_xs_mse"]) < 1e-5
    assert error(trained[1], expected["train_mse"]) < 1e-5


@pytest.mark.slow
def test_every_gradient_norm(case, trained):
    kind = case[0]
    grads = dbae.table(section(kind)).to_official({"params": trained[3]})
    norms = golden.gradient_norms(CASES[kind])
    assert grads.keys() == {name for name, norm in norms.items() if norm is not None}
    off = {name: abs(np.linalg.norm(grads[name].astype(np.float64)) / norms[name] - 1) for name in grads}
    assert max(off.values()) < 1e-4, max(off, key=off.__getitem__)


@pytest.mark.slow
def test_buffers_after_the_step(case, trained):
    kind = case[0]
    buffers = dbae.table(section(kind)).to_official({"batch_stats": trained[2]})
    for name in [name for name in case[3] if name.startswith("after/")]:
        assert error(buffers[name.removeprefix("after/")], case[3][name]) < 1e-5, name
