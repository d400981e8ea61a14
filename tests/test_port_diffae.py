"""The official DiffAE through its rule tables, held to numbers measured with PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax import samplers
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.port import ddpm, diffae, files, latent_prior, parts
from diffrep_jax.samplers.drift import Problem
from diffrep_jax.samplers.driver import sample
from diffrep_jax.samplers.respacing import strided_steps
from tests import golden
from tests.torch_files import write

EXPECTED = golden.numbers("diffae_tiny")
X0 = np.tanh(golden.normal("ae_x0", 2, 64, 64, 3))
EPS = golden.normal("ae_eps", 2, 64, 64, 3)
RANDOM_END = np.float32(0.6) * golden.normal("ae_xT", 2, 64, 64, 3)
T = jnp.asarray(EXPECTED["t"], jnp.float32)

IMAGES = {"image_size": 64, "channels": 3, "dtype": "float32", "remat": False}
UNET = {
    "width": 64,
    "mult": (1, 1, 2),
    "blocks": 2,
    "attention": (16,),
    "head_dim": -1,
    "heads": 1,
    "emb_width": 512,
    "dropout": 0.1,
}
ENCODER = {"width": 64, "mult": (1, 1, 2, 2), "blocks": 2, "attention": (16,)}
SECTIONS = {
    "diffae": IMAGES | {"name": "diffae", "latent_dim": 512, "unet": UNET, "encoder": ENCODER},
    "ddpm": IMAGES | {"name": "ddpm", "unet": UNET},
    "latent_prior": {
        "name": "latent_prior",
        "image_size": 1,
        "channels": 512,
        "beta": 0.008,
        "dtype": "float32",
        "mlp": {"width": 192, "layers": 5, "time_width": 64},
    },
}
RULES = {"diffae": diffae, "ddpm": ddpm, "latent_prior": latent_prior}


def error(ours, expected):
    """||ours - expected|| / ||expected||"""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(ours - expected) / np.linalg.norm(expected)


def every_second(images):
    return np.asarray(images)[:, ::2, ::2]


def template_of(method):
    image = jax.ShapeDtypeStruct((1, method.image_size, method.image_size, method.channels), jnp.float32)
    return jax.eval_shape(lambda: method.init(jax.random.key(0), {"image": image}))


@functools.cache
def official(case, seed="diffae."):
    return golden.state_dict(golden.manifest(f"diffae_tiny.{case}"), seed)


@functools.cache
def tensors_of(name):
    """The tensors of a method by the names of its rules; of a prior's twin names the second is in force."""
    if name == "latent_prior":
        tensors = {n.removeprefix("latent_net."): x for n, x in official("latent").items()}
        return tensors | {n.replace("cond_layers.1", "linear_emb"): x for n, x in tensors.items() if "cond_layers" in n}
    return official("autoenc") if name == "diffae" else official("ddpm", "diffae.ddpm.")


@functools.cache
def loaded(name):
    """(the method, its variables)."""
    method = build(SECTIONS[name])
    return method, RULES[name].table(SECTIONS[name]).to_variables(tensors_of(name), template_of(method), "x.ckpt")


@pytest.fixture(scope="module", autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


# --- files, names and shapes


def lightning(name, **extra):
    """The `state_dict` of an official last.ckpt: what is not the average is zero."""
    networks = {"model.": {n: 0 * x for n, x in tensors_of("diffae").items()}, "ema_model.": tensors_of("diffae")}
    if name == "latent_prior":
        prior = {f"latent_net.{n}": x for n, x in tensors_of("latent_prior").items()}
        networks = {part: network | prior for part, network in networks.items()}
        extra |= {"conds_mean": EXPECTED["latent_mean"][None], "conds_std": EXPECTED["latent_std"][None]}
    flat = {part + n: x for part, network in networks.items() for n, x in network.items()}
    return {"x_T": np.zeros((32, 3, 64, 64), np.float32)} | flat | extra


@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
@pytest.mark.parametrize("name", ["diffae", "latent_prior"])
def test_last_ckpt_gives_each_method_its_network(tmp_path, kind, name):
    """A prior's file also holds the auto-encoder, and serves both."""
    path, state_dict = tmp_path / f"last.{kind}", lightning(name)
    if kind == "ckpt":
        write(path, {"global_step": 562500, "state_dict": state_dict, "callbacks": {}, "hyper_parameters": {"T": 1000}})
    else:
        files.write_safetensors(path, state_dict)
    contents = files.read_parts(path)
    assert contents.step == (562500 if kind == "ckpt" else None)
    for wanted in {"diffae", name}:
        tensors, chosen = parts.choose(contents, {diffae.METHODS[wanted].part: ""}, "ema", "last.ckpt")
        assert chosen == [f"ema_{diffae.METHODS[wanted].part}"]
        shapes = {n: x.shape for n, x in tensors.items()}
        method, expected = loaded(wanted)
        RULES[wanted].check(SECTIONS[wanted], shapes, "last.ckpt")
        variables = RULES[wanted].table(SECTIONS[wanted]).to_variables(tensors, template_of(method), "last.ckpt")
        jax.tree.map(np.testing.assert_array_equal, variables, expected)
    statistics = diffae.code_statistics(contents)
    if name == "diffae":
        assert statistics == {}
        live = parts.choose(contents, diffae.PARTS, "live", "last.ckpt")[0]
        assert live.keys() == tensors.keys() and not any(x.any() for x in live.values())
    else:
        np.testing.assert_array_equal(statistics["mean"], EXPECTED["latent_mean"])
        np.testing.assert_array_equal(statistics["std"], EXPECTED["latent_std"])


@pytest.mark.parametrize("name", SECTIONS)
def test_what_goes_in_comes_out(name):
    _, variables = loaded(name)
    back = RULES[name].table(SECTIONS[name]).to_official(variables)
    back |= RULES[name].unused(SECTIONS[name], back)
    assert back.keys() == tensors_of(name).keys()
    assert all(np.array_equal(back[n], x) for n, x in tensors_of(name).items())


def test_an_export_has_the_layout_of_lightning():
    nested = parts.nest(tensors_of("diffae"), diffae.PARTS, 7)
    assert nested["global_step"] == 7
    contents = files.Contents({"state_dict": nested["state_dict"]}, 7)
    assert parts.choose(contents, diffae.PARTS, "ema", "x.ckpt")[0] == tensors_of("diffae")
    assert len(nested["state_dict"]) == 2 * len(tensors_of("diffae"))


@pytest.mark.parametrize("name", SECTIONS)
def test_the_tensors_say_the_shape(name):
    said = diffae.infer(name, {n: x.shape for n, x in tensors_of(name).items()}, "x.ckpt")
    section = SECTIONS[name]
    assert said == {
        field: {key: section[field][key] for key in value} if isinstance(value, dict) else section[field]
        for field, value in said.items()
    }
    unsaid = {"name", "dtype", "remat", "beta", *(("image_size",) if name == "latent_prior" else ())}
    assert said.keys() == section.keys() - unsaid


# template -> (method, image size, U-Net's width and levels, encoder's levels, parameters, entries of the state dict)
WIDE, WIDER = ((1, 1, 2, 3, 4), (1, 1, 2, 3, 4, 4)), ((1, 1, 2, 2, 4, 4), (1, 1, 2, 2, 4, 4, 4))
PUBLISHED = {
    "celeba64d2c_autoenc": ("diffae", 64, 64, ((1, 2, 4, 8), (1, 2, 4, 8, 8)), 90_839_235, 506),
    "ffhq128_autoenc_130M": ("diffae", 128, 128, WIDE, 128_545_155, 608),
    "ffhq256_autoenc": ("diffae", 256, 128, WIDER, 168_492_291, 706),
    "ffhq128_ddpm_130M": ("ddpm", 128, 128, WIDE, 98_618_499, 432),
}


@pytest.mark.parametrize("template", PUBLISHED)
def test_the_published_networks_are_built_from_their_tensors(template):
    name, size, width, (mult, encoder_mult), parameters, entries = PUBLISHED[template]
    shapes = golden.manifest(f"diffae_{template}")
    assert len(shapes) == entries
    said = diffae.infer(name, shapes, "x.ckpt")
    assert (said["image_size"], said["channels"], said["unet"]["width"]) == (size, 3, width)
    assert said["unet"]["mult"] == mult
    assert name == "ddpm" or (said["encoder"]["mult"] == encoder_mult and said["latent_dim"] == 512)
    section = {"name": name, "dtype": "float32", "remat": False} | said
    section["unet"] = said["unet"] | {"dropout": 0.1}
    variables = template_of(build(section))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == parameters
    RULES[name].table(section).check(shapes, variables, "x.ckpt")


def test_the_published_prior_is_built_from_its_tensors():
    shapes = golden.manifest("diffae_ffhq128_autoenc_latent.latent_net")
    shapes = {name.removeprefix("latent_net."): shape for name, shape in shapes.items()}
    said = diffae.infer("latent_prior", shapes, "x.ckpt")
    assert said == {"channels": 512, "mlp": {"width": 2048, "layers": 10, "time_width": 64}}
    variables = template_of(build(SECTIONS["latent_prior"] | said))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 54_109_696
    latent_prior.table(said).check(shapes, variables, "x.ckpt")


def test_files_of_other_methods_are_refused_by_name():
    shapes = {name: {n: x.shape for n, x in tensors_of(name).items()} for name in SECTIONS}
    with pytest.raises(UserError, match="x.ckpt is not an auto-encoder of DiffAE.*a plain DDIM; use a config of ddpm"):
        diffae.check(SECTIONS["diffae"], shapes["ddpm"], "x.ckpt")
    with pytest.raises(UserError, match="x.ckpt is not a plain DDIM of DiffAE.*use a config of diffae"):
        diffae.infer("ddpm", shapes["diffae"], "x.ckpt")
    with pytest.raises(UserError, match="x.ckpt is not a latent prior of DiffAE: looked for 'layers.0.linear.weight'"):
        diffae.infer("latent_prior", {"a.b": (3, 3)}, "x.ckpt")
    with pytest.raises(UserError, match="x.ckpt lacks ema_model.latent_net.; it holds state_dict, model., ema_model."):
        contents = files.Contents({"state_dict": lightning("diffae")})
        parts.choose(contents, {"model.": "", "model.latent_net.": ""}, "ema", "x.ckpt")


# --- activations


def noisy():
    alpha_bar = EXPECTED["alphas_cumprod"][EXPECTED["t"]]
    b, c = (np.sqrt(k).astype(np.float32)[:, None, None, None] for k in (alpha_bar, 1 - alpha_bar))
    return b * X0 + c * EPS


def test_processes():
    t = jnp.arange(1000.0)
    assert error(build(SECTIONS["diffae"]).process.alpha_bar(t), EXPECTED["alphas_cumprod"]) < 1e-6
    assert error(build(SECTIONS["latent_prior"]).process.alpha_bar(t), EXPECTED["latent_alphas_cumprod"]) < 1e-6


@pytest.mark.slow
def test_code_noise_and_loss():
    method, variables = loaded("diffae")
    z = jax.jit(method.encode)(variables, X0)
    assert error(z, EXPECTED["z"]) < 1e-5
    assert error(every_second(jax.jit(method.predict)(variables, noisy(), T, z)), EXPECTED["eps_pred"]) < 1e-5
    assert error(jax.jit(method.loss_at)(variables, X0, T, EPS), EXPECTED["loss"]) < 1e-5


@pytest.mark.slow
def test_plain_ddim():
    method, variables = loaded("ddpm")
    assert error(every_second(jax.jit(method.predict)(variables, noisy(), T)), EXPECTED["ddpm_eps"]) < 1e-5


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
def test_every_gradient_norm():
    method, variables = loaded("diffae")
    grads = jax.jit(jax.grad(lambda params: method.loss_at({"params": params}, X0, T, EPS).mean()))(variables["params"])
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


@pytest.mark.parametrize("steps", [10, 20, 100])
def test_respaced_steps(steps):
    np.testing.assert_array_equal(strided_steps(1000, steps), EXPECTED[f"timesteps_T{steps}"])


def test_respaced_betas():
    alpha_bar = EXPECTED["alphas_cumprod"][strided_steps(1000, 20)]
    np.testing.assert_allclose(alpha_bar, EXPECTED["alphas_cumprod_T20"], rtol=1e-12)
    np.testing.assert_allclose(1 - alpha_bar / np.append(1, alpha_bar[:-1]), EXPECTED["betas_T20"], rtol=1e-9)


def test_strides_are_the_smallest_and_other_counts_are_refused():
    for count in (2, 3, 30, 40, 250, 334, 500, 1000):
        steps = strided_steps(1000, count)
        stride = int(steps[1])
        assert len(steps) == count and len(range(0, 1000, stride)) == count
        assert stride == 1 or len(range(0, 1000, stride - 1)) > count
    with pytest.raises(UserError, match="steps 60 is no number .* nearest are 59 and 63"):
        strided_steps(1000, 60)
    for count in (0, 1, 80, 300, 1001):
        with pytest.raises(UserError, match=f"steps {count} is no number"):
            strided_steps(1000, count)


# --- samples


def nodes_of(process, steps, upward=False):
    """The steps, and above all of them the noise alone, or below them x_0."""
    kept = strided_steps(process.steps, steps).astype(np.float64)
    return np.append(kept, process.t_noise) if upward else np.append(kept[::-1], process.t_data)


def ddim(method, denoiser, x, steps, upward=False, path=False, clip=True):
    clipped = (lambda x, t: jnp.clip(denoiser(x, t), -1, 1)) if clip else denoiser
    nodes = nodes_of(method.process, steps, upward)
    return sample(samplers.build("exponential"), Problem(method.process, clipped, x), x, nodes, None, path)


@functools.cache
def decoder(steps, upward=False, path=False):
    """(x, z) -> the other end."""
    method, variables = loaded("diffae")
    return jax.jit(lambda x, z: ddim(method, method.denoiser(variables, z, x), x, steps, upward, path))


def norms(path):
    return np.sqrt((np.asarray(path, np.float64)[1:] ** 2).sum((2, 3, 4)))


@pytest.mark.slow
def test_stochastic_codes_and_back():
    xT, path = decoder(10, upward=True, path=True)(X0, EXPECTED["z"])
    assert error(xT, EXPECTED["x_T_full"]) < 1e-4
    assert error(norms(path), EXPECTED["encode_norms"]) < 1e-4
    x0, path = decoder(10, path=True)(EXPECTED["x_T_full"], EXPECTED["z"])
    assert error(every_second(x0), EXPECTED["decode"]) < 1e-4
    assert error(norms(path), EXPECTED["decode_norms"]) < 1e-4
    assert len(path) - 1 == EXPECTED["nfe_encode"] == EXPECTED["nfe_decode"] and float(abs(x0).max()) <= 1


@pytest.mark.slow
def test_twenty_steps():
    z = EXPECTED["z"]
    assert error(every_second(decoder(20, upward=True)(X0[:1], z[:1])), EXPECTED["encode_T20"]) < 1e-4
    rendered = (decoder(20)(RANDOM_END[:1], z[:1]) + 1) / 2
    assert error(every_second(rendered), EXPECTED["render_T20"]) < 1e-4
    from diffrep_jax.encoded import slerp

    ends = EXPECTED["x_T_full"][:1], EXPECTED["x_T_full"][1:]
    points = np.concatenate([slerp(*ends, float(alpha)) for alpha in EXPECTED["interp_alpha"]])
    assert error(points[:, ::8, ::8], EXPECTED["interp_x_T"]) < 1e-5
    between = z[:1] + EXPECTED["interp_alpha"][3] * (z[1:] - z[:1])
    assert error(between, EXPECTED["interp_z"]) < 1e-5
    assert error(every_second((decoder(20)(points[3:4], between) + 1) / 2), EXPECTED["interp_render_3"]) < 1e-4


@pytest.mark.slow
def test_samples_of_the_plain_ddim():
    method, variables = loaded("ddpm")
    out = jax.jit(lambda x: ddim(method, method.denoiser(variables), x, 10))(RANDOM_END[:1])
    assert error(every_second(out), EXPECTED["ddpm_sample_T10"]) < 1e-4


@pytest.mark.slow
def test_samples_of_the_prior_are_not_clipped():
    method, variables = loaded("latent_prior")
    noise = golden.normal("ae_lat_noise", 2, 512).reshape(2, 1, 1, 512)
    codes = ddim(method, method.denoiser(variables), noise, 20, clip=False)[:, 0, 0]
    assert error(codes, EXPECTED["latent_sample_T20"]) < 1e-4 and float(abs(codes).max()) > 100
    z = codes * EXPECTED["latent_std"] + EXPECTED["latent_mean"]
    assert error(z, EXPECTED["latent_sample_T20_z"]) < 1e-4
    assert error(every_second(decoder(10)(RANDOM_END[:1], z[:1])), EXPECTED["uncond"]) < 1e-4


# --- the classifier


def classifier_file():
    tensors = official("classifier")
    return files.Contents(
        {"state_dict": tensors | {name: EXPECTED[name][None] for name in ("conds_mean", "conds_std")}}
    )


def test_classifier():
    head, z = diffae.classifier(classifier_file(), "x.ckpt"), EXPECTED["z"]
    normalised = (z - head.mean) / head.std
    assert error(normalised, EXPECTED["z_norm"]) < 1e-5
    logits = normalised @ head.kernel + head.bias
    assert error(logits, EXPECTED["logits"]) < 1e-5
    signs = np.sign(golden.normal("ae_labels", 2, 40))
    assert np.logaddexp(0, -signs * logits).mean() == pytest.approx(float(EXPECTED["cls_loss"]), rel=1e-5)


@pytest.mark.slow
def test_manipulation():
    head, z = diffae.classifier(classifier_file(), "x.ckpt"), EXPECTED["z"]
    direction = head.kernel[:, 33] / np.linalg.norm(head.kernel[:, 33])
    for scale in (0.3, -0.3):
        moved = z + scale * np.sqrt(512) * direction * head.std
        assert error(moved, EXPECTED[f"manip_z_{scale}"]) < 1e-5
    moved = z[:1] + 0.3 * np.sqrt(512) * direction * head.std
    rendered = (decoder(10)(EXPECTED["x_T_full"][:1], moved.astype(np.float32)) + 1) / 2
    assert error(every_second(rendered), EXPECTED["manip_render_0.3"]) < 1e-4


def test_other_files_hold_no_classifier():
    with pytest.raises(UserError, match="x.ckpt is no classifier of DiffAE: classifier.weight is not there"):
        diffae.classifier(files.Contents({"state_dict": lightning("diffae")}), "x.ckpt")


# --- initialisation


@pytest.mark.slow
def test_initial_values():
    """Zero where the official code has zero modules, else the bounds of PyTorch, and of Kaiming in the prior."""
    method = build(SECTIONS["diffae"])
    variables = method.init(jax.random.key(1), {"image": jnp.zeros((1, 64, 64, 3))})
    tensors = diffae.table(SECTIONS["diffae"]).to_official(variables)
    for name, x in tensors.items():
        module, _, leaf = name.rpartition(".")
        if module.endswith(("out_layers.3", "proj_out")) or module == "out.2":
            assert not x.any(), name
        elif f"{module}.weight" in tensors and tensors[f"{module}.weight"].ndim > 1:
            bound = np.prod(tensors[f"{module}.weight"].shape[1:]) ** -0.5
            assert abs(x).max() <= bound * (1 + 1e-6), name
            assert leaf == "bias" or x.std() == pytest.approx(bound / 3**0.5, rel=0.1), name
        else:  # the norms
            assert (x == (leaf == "weight")).all(), name
    assert not np.any(jax.jit(method.predict)(variables, noisy()[:1], T[:1], np.ones((1, 512), np.float32)))


def test_initial_values_of_the_prior():
    variables = build(SECTIONS["latent_prior"]).init(jax.random.key(1), {"image": jnp.zeros((1, 1, 1, 512))})
    tensors = latent_prior.table(SECTIONS["latent_prior"]).to_official(variables)
    hidden = [f"layers.{i}.{part}.weight" for i in range(4) for part in ("linear", "cond_layers.1")]
    for name, x in tensors.items():
        if x.ndim > 1:
            std = (2 / x.shape[1]) ** 0.5 if name in hidden else (3 * x.shape[1]) ** -0.5
            assert x.std() == pytest.approx(std, rel=0.03), name
            assert (abs(x).max() > 3 * std) == (name in hidden), name
        elif name.endswith("bias") and "norm" not in name:
            fan_in = tensors[name.replace("bias", "weight")].shape[1]
            assert abs(x).max() <= fan_in**-0.5 * (1 + 1e-6), name
