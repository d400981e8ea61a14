"""The official checkpoints of DiffAE through their rules: files, names, shapes and initial values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.port import diffae, files, latent_prior, parts
from tests import golden
from tests.diffae_official import EXPECTED, RULES, SECTIONS, lightning, loaded, template_of, tensors_of
from tests.torch_files import write

# --- files, names and shapes


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


def test_whose_checkpoint_it_is():
    whole = {name: files.Contents({"state_dict": lightning(name)}) for name in ("diffae", "latent_prior")}
    plain = files.Contents({"": tensors_of("diffae")})
    prior = files.Contents({"": {f"latent_net.{n}": x for n, x in tensors_of("latent_prior").items()}})
    of_pdae = files.Contents({"denoise_fn": tensors_of("ddpm"), "ema_denoise_fn": tensors_of("ddpm")})
    assert diffae.network_in("latent_prior", whole["latent_prior"]).part == "model.latent_net."
    assert diffae.network_in("ddpm", whole["diffae"]).part == "model."
    assert diffae.network_in("diffae", plain).part == diffae.network_in("diffae", whole["diffae"]).part == "model."
    assert diffae.network_in("ddpm", plain) is diffae.network_in("ddpm", of_pdae) is None
    assert diffae.network_in("dbae", whole["diffae"]) is None
    part = diffae.network_in("latent_prior", prior).part
    assert parts.choose(prior, {part: ""}, "ema", "x.pt")[0] == tensors_of("latent_prior")


def test_an_export_has_the_layout_of_lightning():
    nested = parts.nest(tensors_of("diffae"), diffae.PARTS, 7)
    assert nested["global_step"] == 7
    contents = files.Contents({"state_dict": nested["state_dict"]}, 7)
    assert parts.choose(contents, diffae.PARTS, "ema", "x.ckpt")[0] == tensors_of("diffae")
    assert len(nested["state_dict"]) == 2 * len(tensors_of("diffae"))


@pytest.mark.parametrize("name", SECTIONS)
def test_each_network_goes_out_as_a_last_ckpt_and_comes_back(name):
    """The averaged half of the official file's names, a prior's with its auto-encoder and the codes' statistics."""
    _, variables = loaded(name)
    if name == "latent_prior":
        codes = {"mean": EXPECTED["latent_mean"], "std": EXPECTED["latent_std"]}
        variables = variables | {"batch_stats": {"codes": codes}}
    networks = {other: tensors_of(other) for other in {name, *(["diffae"] if name == "latent_prior" else [])}}
    nested = diffae.last_ckpt(SECTIONS[name], networks, variables, 7)
    contents = files.Contents({"state_dict": nested["state_dict"]}, nested["global_step"])
    for other, tensors in networks.items():
        back, _ = parts.choose(contents, {diffae.METHODS[other].part: ""}, "ema", "last.ckpt")
        assert tensors.keys() <= back.keys() and all(np.array_equal(back[n], x) for n, x in tensors.items())
    if name in ("diffae", "latent_prior"):
        official = lightning(name)
        assert nested["state_dict"].keys() == official.keys() - {"x_T"}
        assert all(nested["state_dict"][n].shape == x.shape for n, x in official.items() if n != "x_T")


def test_what_diffae_has_not_is_not_written_in_its_layout():
    with pytest.raises(UserError, match="DiffAE has no pdae: its checkpoints are those of diffae, ddpm, latent_prior"):
        diffae.last_ckpt({"name": "pdae"}, {}, {}, 7)
    section = SECTIONS["ddpm"] | {"unet": SECTIONS["ddpm"]["unet"] | {"heads": 4}}
    with pytest.raises(UserError, match="no network with config.method.unet.heads=4: its file means 1"):
        diffae.last_ckpt(section, {"ddpm": tensors_of("ddpm")}, {}, 7)
    section = SECTIONS["ddpm"] | {"unet": SECTIONS["ddpm"]["unet"] | {"blocks": 1, "mult": (1, 2)}}
    with pytest.raises(UserError, match="no network with config.method.unet.blocks=1: its file means 2"):
        diffae.last_ckpt(section, {"ddpm": tensors_of("ddpm")}, {}, 7)


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
