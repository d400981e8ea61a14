"""Every config and variant builds; overrides are typed; config.json comes back equal; mistakes are named."""

import contextlib
import dataclasses
import functools
import itertools
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import _dbae, _diffae, _gaussian
from diffrep_jax import config as configs
from diffrep_jax import forms
from diffrep_jax.errors import UserError
from diffrep_jax.methods import parameters
from diffrep_jax.methods.base import build
from diffrep_jax.methods.ssl import self_supervised
from diffrep_jax.port import diffae
from diffrep_jax.tasks import base as tasks
from tests import golden

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("_"))
CHOICES = {
    "dbae": _dbae.VARIANTS,
    "diffae": _diffae.VARIANTS,
    "latent": {},
} | _gaussian.VARIANTS  # by the first part of a file's name


def variants(choices):
    """Every combination as it is written behind a config's name: "bridge=vp,encoder=stochastic".

    `ssl` adds a loss and leaves all else alone, so its values are combined with the others' defaults only.
    """
    found = []
    for values in itertools.product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        others = [value == choices[name][0] for name, value in chosen.items() if name != "ssl"]
        if all(others) or "ssl" not in chosen or chosen["ssl"] == "none":
            found.append(",".join(f"{name}={value}" for name, value in chosen.items()))
    return found


CASES = [(p, v) for p in FILES for v in dict.fromkeys(["", *variants(CHOICES[p.stem.partition("_")[0]])])]
# To trace these networks takes long, and a variant changes the same as in the files for CelebA and digits.
SIZED = ("dbae_emoji", "ddpm_emoji", "diti_emoji")  # with size=64|32
SMALL = {*SIZED, "dbae_fashion", "diti_fashion"}
AT_128 = {f"{method}_{data}" for method in ("pdae", "diti") for data in ("ffhq", "bedroom", "horse")} | {"dbae_ffhq256"}
CASES = [(p, v) for p, v in CASES if not v or p.stem not in AT_128 | SMALL]
CASES += [(FOLDER / f"{name}.py", "size=32") for name in (*SIZED, "dbae_folder")]
CASES += [(FOLDER / "diti_emoji.py", "size=32,stages=balanced"), (FOLDER / "dbae_emoji.py", "size=32,bridge=ve")]
OWN = {"digits", "emoji", "fashion", "ffhq256"}  # after no published recipe
PUBLISHED_STEPS = {  # training steps where the papers say them
    "dbae_ffhq": 1_020_000,
    "dbae_celeba": 1_020_000,
    "dbae_celeba:encoder=stochastic": 980_000,
}


def load(spec):
    """A config of the folder, by its name without `.py`."""
    name, colon, variant = spec.partition(":")
    return configs.load_file(f"{FOLDER / name}.py{colon}{variant}")


@pytest.fixture
def digits():
    return load("dbae_digits")


@contextlib.contextmanager
def raises(*parts):
    """Expects a UserError whose text has all of `parts`."""
    with pytest.raises(UserError) as error:
        yield
    assert all(part in str(error.value) for part in parts), error.value


# --- the files


@functools.cache
def traced_loss(method):
    """The shapes of init's variables and of one training loss, without computing them; once for equal methods."""
    size, channels = method.image_size, method.channels
    batch = {"image": jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)}
    variables = parameters.shapes(method)

    def loss(variables, batch):
        return method.loss(variables, batch, jax.random.split(jax.random.key(0), 2), train=True)

    return variables, *jax.eval_shape(loss, variables, batch)


def shallow(method):
    """With the first two levels of its networks alone, which are traced in a tenth of the time."""
    fields = {}
    for name in {"unet", "encoder"} & {field.name for field in dataclasses.fields(method)}:
        network = getattr(method, name)
        few = {"mult": network["mult"][:2], "blocks": 1} if "mult" in network else {"widths": network["widths"][:2]}
        fields[name] = {**network, **few}
    return dataclasses.replace(method, **fields)


def test_there_are_configs():
    assert {"dbae_digits", "dbae_ffhq", "dbae_celeba", "diti_digits", "pdae_celeba"} <= {path.stem for path in FILES}
    assert len(variants(_dbae.VARIANTS)) == 8
    assert variants(_gaussian.VARIANTS["ddpm"]) == [""]


@pytest.mark.parametrize("path, variant", CASES, ids=lambda part: getattr(part, "stem", part))
def test_every_config_and_variant_builds(path, variant):
    config = configs.load_file(f"{path}:{variant}")
    assert config.is_locked
    method = build(config.method)
    if variant:  # its networks are those of the file's default, which is traced as it is
        size = f":size={config.data.image_size}" if "size=" in variant else ""
        default = configs.load_file(f"{path}{size}").method
        assert all(config.method[name] == default[name] for name in {"unet", "encoder", "generator"} & set(default))
        method = shallow(method)
    if method.views:
        check_ssl(config, method, variant)
        method = dataclasses.replace(method, ssl={})
    with forms.plain() if variant else forms.tracing_for("cpu"):
        variables, loss, metrics, buffers = traced_loss(method)
    assert loss.shape == () and loss.dtype == jnp.float32
    assert all(value.shape == () for value in metrics.values())
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), buffers, variables["batch_stats"])
    assert all(jax.tree.leaves(same))
    chosen = dict(part.split("=") for part in variant.split(",") if part)
    for field in chosen.keys() & {"bridge", "mode"}:
        assert config.method[field] == getattr(method, field) == chosen[field]
    if "encoder" in chosen:
        stochastic = chosen["encoder"] == "stochastic"
        assert config.method.stochastic_encoder == stochastic
        out = variables["params"]["encoder"]["out"]["bias"]
        assert out.shape == (method.latent_dim * (2 if stochastic else 1),)
    if "stages" in chosen:
        sizes = np.diff(method.block_ends, prepend=0)
        assert (len(set(sizes)) == 1) == (chosen["stages"] == "balanced")
        assert (sizes >= 0).all() and sizes.sum() == method.latent_dim


def check_ssl(config, method, variant):
    """The section is what the variant's name says, and its loss can be computed."""
    section = config.method.ssl
    assert (f"ssl={section.kind}" in variant, "without_aug" in variant) == (True, not section.augment)
    assert (config.optim.ssl.name, section.weight, section.encoder_decay) == ("sgd", 0.01, 1e-6)
    size, digits = method.image_size, config.data.name == "digits"
    views = {"simclr": 512, "simsiam": 128}[section.kind]  # the files'
    assert (section.start_step, section.batch_size) == ((0, 64) if digits else (200_000, views))
    if not digits:  # on two GPUs, as images of one / 32
        assert config.optim.ssl.lr == pytest.approx({"simclr": 1e-3, "simsiam": 1e-4}[section.kind] * views / 2 / 32)
        assert (config.optim.ssl.decay_to, config.optim.ssl.weight_decay) == (0.1, 1e-6)
    view = jax.ShapeDtypeStruct((4, size, size, method.channels), jnp.float32)
    encoder = parameters.shapes(dataclasses.replace(method, ssl={}))["params"]["encoder"]
    heads = jax.eval_shape(lambda: self_supervised(method.ssl).init(jax.random.key(0), method.latent_dim))
    variables = {"params": {"encoder": encoder, "ssl": heads}}
    loss, metrics = jax.eval_shape(method.view_loss, variables, {"view1": view, "view2": view})
    assert loss.shape == metrics["loss_ssl"].shape == () and loss.dtype == jnp.float32


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_section_of_a_config_fits_what_it_configures(path):
    config = load(path.stem)
    assert (config.method.image_size, config.method.channels) == (config.data.image_size, config.data.channels)
    dataset = import_module(f"diffrep_jax.data.datasets.{config.data.name}").Dataset
    assert config.data.split in dataset.splits
    for name in tasks.names():
        assert name in config.tasks, f"{path.name} has no tasks.{name}"
    for name, settings in config.tasks.items():
        task = tasks.build(name, settings, {})
        assert not hasattr(task, "split") or task.split in dataset.splits
    with pytest.raises((AttributeError, KeyError)):
        config.optim.learning_rate = 1.0
    with pytest.raises((AttributeError, KeyError)):
        config.method.unet.widht = 1


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p.stem.startswith("dbae") and p.stem.partition("_")[2] not in OWN],
    ids=lambda path: path.stem,
)
def test_the_published_recipe_is_in_the_configs(path):
    config = load(path.stem)
    assert (config.optim.name, config.optim.lr, config.optim.ema_decay) == ("radam", 1e-4, 0.9999)
    assert config.train.batch_size == 256
    assert config.data.flip is True
    method = config.method
    assert (method.latent_dim, method.unet.dropout, method.sigma_data, method.cov_xy) == (512, 0.1, 0.5, 0.0)
    assert (method.sigma_data_end, method.bridge, method.stochastic_encoder) == (0.5, "vp", False)
    assert config.data.image_size == (64 if path.stem == "dbae_celeba" else 128)
    widths = {64: (64, (1, 2, 4, 8), (1, 2, 4, 8, 8)), 128: (128, (1, 1, 2, 3, 4), (1, 1, 2, 3, 4, 4))}
    width, unet, encoder = widths[config.data.image_size]
    assert (method.unet.width, method.unet.mult, method.unet.blocks) == (width, unet, 2)
    assert (method.encoder.width, method.encoder.mult, method.encoder.blocks) == (width, encoder, 2)
    assert (sorted(method.unet.attention), method.unet.head_dim) == ([8, 16, 32], 64)
    assert (method.encoder.attention, method.generator.width) == ((16,), 64)


@pytest.mark.parametrize("name, lr", [("ddpm", 1e-4), ("pdae", 2e-4), ("diti", 2e-4)])
def test_the_published_recipe_of_the_gaussian_family_is_in_the_configs(name, lr):
    config = load(f"{name}_celeba")
    assert (config.optim.name, config.optim.lr, config.optim.ema_decay) == ("adam", lr, 0.9999)
    assert config.train.batch_size == 128
    assert abs(config.train.total_steps * 128 - 38e6) < 128
    if name != "ddpm":
        assert (config.method.latent_dim, config.method.encoder.widths) == (512, (64, 128, 128, 128))


@pytest.mark.parametrize(
    "name, template, batch_size, images",
    [
        ("celeba", "celeba64d2c_autoenc", 128, 72e6),
        ("ffhq", "ffhq128_autoenc_130M", 128, 130e6),
        ("ffhq256", "ffhq256_autoenc", 64, 200e6),
        ("bedroom", "ffhq128_autoenc_130M", 128, 120e6),
        ("horse", "ffhq128_autoenc_130M", 128, 130e6),
    ],
)
def test_the_published_recipe_of_diffae_is_in_the_configs(name, template, batch_size, images):
    """The networks are those that the tensors of the released checkpoints say."""
    config = load(f"diffae_{name}")
    optim = {"name": "adam", "lr": 1e-4, "ema_decay": 0.9999, "clip_norm": 1.0}
    assert config.optim.to_dict() == optim
    assert (config.train.batch_size, config.data.flip, config.data.split) == (batch_size, True, "all")
    assert abs(config.train.total_steps * batch_size - images) < batch_size
    said = diffae.infer("diffae", golden.manifest(f"diffae_{template}"), template)
    said["unet"]["dropout"] = 0.1
    method = config.method.to_dict()
    assert {field: method[field] for field in said} == said


@pytest.mark.parametrize(
    "name, layers, batch_size, codes, optim",
    [
        ("celeba", 10, 512, 301e6, {"name": "adamw", "weight_decay": 0.01}),
        ("ffhq", 10, 256, 101e6, {"name": "adamw", "weight_decay": 0.01}),
        ("bedroom", 20, 2048, 2001e6, {"name": "adam"}),
        ("horse", 20, 2048, 2001e6, {"name": "adam"}),
    ],
)
def test_the_published_recipe_of_the_latent_prior_is_in_the_configs(name, layers, batch_size, codes, optim):
    config = load(f"latent_prior_{name}")
    assert config.optim.to_dict() == optim | {"lr": 1e-4, "ema_decay": 0.9999, "clip_norm": 1.0}
    assert (config.train.batch_size, config.data.flip) == (batch_size, False)
    assert abs(config.train.total_steps * batch_size - codes) < batch_size
    assert config.method.mlp.to_dict() == {"width": 2048, "layers": layers, "time_width": 64}
    assert (config.method.channels, config.method.beta) == (512, 0.008)


@pytest.mark.parametrize("spec, steps", PUBLISHED_STEPS.items())
def test_the_published_numbers_of_steps_are_in_the_configs(spec, steps):
    assert load(spec).train.total_steps == steps


# --- variants


def test_variants_take_the_first_value_unless_told():
    choices = {"bridge": ("vp", "ve"), "encoder": ("deterministic", "stochastic")}
    parse = configs.parse_variant
    assert parse("", choices) == {"bridge": "vp", "encoder": "deterministic"}
    assert parse("encoder=stochastic", choices) == {"bridge": "vp", "encoder": "stochastic"}
    assert parse("encoder=stochastic,bridge=ve", choices) == {"bridge": "ve", "encoder": "stochastic"}


@pytest.mark.parametrize(
    "variant, parts",
    [
        ("brigde=ve", ["'brigde'", "Did you mean 'bridge'", "encoder"]),
        ("bridge=vee", ["'vee'", "bridge", "Did you mean 've'", "vp_simple"]),
        ("bridge", ["bridge", "vp_simple"]),
        ("ve", ["'ve'", "bridge, encoder"]),
        ("bridge=vp,bridge=ve", ["'bridge=vp,bridge=ve'", "bridge twice", "leave one out"]),
        ("bridge=ve,", ["'bridge=ve,'", "a comma too many"]),
        (",", ["','", "a comma too many"]),
    ],
)
def test_wrong_variants_are_named_with_the_remedy(variant, parts):
    with raises(*parts):
        load(f"dbae_digits:{variant}")


@pytest.mark.parametrize("name", ["diffae_digits", "latent_prior_digits"])
def test_a_config_without_variants_says_so(name):
    with raises("Unknown variant 'bridge=ve'", "this config has none", "leave ':bridge=ve' out"):
        load(f"{name}:bridge=ve")


# --- overrides


@pytest.mark.parametrize(
    "field, text, value",
    [
        ("optim.lr", "2e-4", 2e-4),
        ("optim.lr", "1", 1.0),
        ("train.total_steps", "7", 7),
        ("train.microbatch_size", "-1", -1),
        ("data.flip", "true", True),
        ("data.flip", "True", True),
        ("tasks.interpolate.gif", "false", False),
        ("method.unet.mult", "(1, 2, 4)", (1, 2, 4)),
        ("method.unet.mult", "1,2,4", (1, 2, 4)),
        ("method.unet.mult", "3", (3,)),
        ("tasks.evaluate.rows", "{'steps': 3}", ({"steps": 3},)),
        ("method.unet.attention", "()", ()),
        ("method.encoder.attention", "[4]", (4,)),
        ("tasks.interpolate.first", "17", "17"),
        ("tasks.interpolate.first", "a=b.png", "a=b.png"),
        ("method.bridge", "ve", "ve"),
        ("tasks.evaluate.without", "lpips,fid", ("lpips", "fid")),
        ("tasks.evaluate.without", "fid, lpips,", ("fid", "lpips")),
        ("tasks.evaluate.generated", "some/samples.npz", ("some/samples.npz",)),
        ("seed", "3", 3),
    ],
)
def test_overrides_are_read_as_the_type_that_they_replace(digits, field, text, value):
    configs.override(digits, {field: text})
    for part in field.split("."):
        digits = digits[part]
    assert digits == value and type(digits) is type(value)


def test_the_image_size_and_channels_are_set_in_one_place(digits):
    configs.override(digits, {"data.image_size": "32", "method.channels": "3"})
    assert (digits.method.image_size, digits.data.channels) == (32, 3)


@pytest.mark.parametrize(
    "field, text, parts",
    [
        ("optim.lrr", "1", ["'lrr'", "config.optim", "Did you mean 'lr'"]),
        ("optm.lr", "1", ["'optm'", "Did you mean 'optim'"]),
        ("method.unet.widht", "1", ["'widht'", "config.method.unet", "Did you mean 'width'"]),
        ("method.unet", "1", ["config.method.unet is a section", "width", "mult"]),
        ("optim.lr.value", "1", ["config.optim.lr is a value"]),
        ("optim.lr", "fast", ["config.optim.lr=fast", "float"]),
        ("optim.lr", "True", ["config.optim.lr=True", "float"]),
        ("train.total_steps", "1.5", ["config.train.total_steps=1.5", "int"]),
        ("train.total_steps", "True", ["config.train.total_steps=True", "int"]),
        ("train.total_steps", "", ["config.train.total_steps=", "int"]),
        ("data.flip", "1", ["config.data.flip=1", "bool"]),
        ("data.flip", "yes", ["config.data.flip=yes", "bool"]),
        ("method.unet.mult", "(1, 2", ["config.method.unet.mult=(1, 2", "tuple"]),
        ("method.unet.mult", "a,b", ["config.method.unet.mult=a,b", "tuple"]),
        ("method.unet.mult", "True", ["config.method.unet.mult=True", "tuple"]),
    ],
)
def test_wrong_overrides_are_named_with_the_remedy(digits, field, text, parts):
    before = digits.to_dict()
    with raises(*parts):
        configs.override(digits, {field: text})
    assert digits.to_dict() == before


# --- files


def test_missing_and_useless_config_files_are_named(tmp_path):
    with raises("No config file", "dbae_digitz.py", "Did you mean", "dbae_digits.py"):
        configs.load_file(str(FOLDER / "dbae_digitz.py"))
    with raises("No config file", "nowhere"):
        configs.load_file(str(tmp_path / "nowhere" / "x.py"))
    with raises("No config file", "is a folder", "name a file"):
        configs.load_file(str(tmp_path))
    with raises("No config file", "configs/dbae_digits.py"):
        configs.load_file(str(tmp_path / "x.py"))
    (tmp_path / "empty.py").write_text("x = 1\n")
    with raises("empty.py", "get_config"):
        configs.load_file(str(tmp_path / "empty.py"))
    (tmp_path / "notes.txt").write_text("hello")
    with raises("notes.txt", "Python"):
        configs.load_file(str(tmp_path / "notes.txt"))
