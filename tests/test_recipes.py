"""The recipes of the configs: the published values of training and sampling, and that optimizers are PyTorch's."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from diffrep_jax import config as configs
from diffrep_jax.inference.open import recipe
from diffrep_jax.processes.bridge import VPBridge
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.samplers import Sampling
from diffrep_jax.train import optimizer

ROOT = pathlib.Path(__file__).parents[1]
FACES = {"name": "adamw", "lr": 1e-4, "clip_norm": 1.0, "weight_decay": 0.01}
LSUN = {"name": "adam", "lr": 1e-4, "clip_norm": 1.0}
RADAM, DIFFAE = {"name": "radam", "lr": 1e-4}, {"name": "adam", "lr": 1e-4, "clip_norm": 1.0}


def adam(lr):
    return {"name": "adam", "lr": lr}


# config -> (the optimizer, images or codes a step, steps); DiffAE's and the priors' steps are samples // batch
PUBLISHED = {
    "dbae_celeba": (RADAM, 256, 1_020_000),
    "dbae_celeba:encoder=stochastic": (RADAM, 256, 980_000),
    "dbae_ffhq": (RADAM, 256, 1_020_000),
    "diffae_celeba": (DIFFAE, 128, 562_500),
    "diffae_ffhq": (DIFFAE, 128, 1_015_625),
    "diffae_ffhq256": (DIFFAE, 64, 3_125_000),
    "diffae_bedroom": (DIFFAE, 128, 937_500),
    "diffae_horse": (DIFFAE, 128, 1_015_625),
    "pdae_celeba": (adam(2e-4), 128, 296_875),
    "pdae_ffhq": (adam(1e-4), 128, 500_000),
    "pdae_bedroom": (adam(5e-5), 128, 546_875),
    "diti_celeba": (adam(2e-4), 128, 296_875),
    "diti_ffhq": (adam(1e-4), 128, 500_000),
    "diti_bedroom": (adam(5e-5), 128, 546_875),
    "latent_prior_celeba": (FACES, 512, 301_000_000 // 512),
    "latent_prior_ffhq": (FACES, 256, 101_000_000 // 256),
    "latent_prior_bedroom": (LSUN, 2048, 2_001_000_000 // 2048),
    "latent_prior_horse": (LSUN, 2048, 2_001_000_000 // 2048),
}


def config_of(name):
    path, _, variant = name.partition(":")
    return configs.load_file(f"configs/{path}.py:{variant}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_recipe(name):
    config = config_of(name)
    settings, batch, steps = PUBLISHED[name]
    assert config.optim.to_dict() == settings | {"ema_decay": 0.9999} | ({"ssl": {}} if "ssl" in config.optim else {})
    assert (config.train.batch_size, config.train.total_steps) == (batch, steps)
    codes = name.startswith("latent_prior")
    assert config.data.flip != codes
    assert codes or config.method.unet.dropout == 0.1
    if name.startswith("dbae"):
        assert config.method.generator.norm_images == 32  # batch norm's statistics are a micro-batch's


@pytest.mark.parametrize(("name", "evaluations"), [("celeba", 10), ("ffhq", 10), ("emoji:size=32", 5), ("fashion", 5)])
def test_dbaes_are_decoded_in_ten_evaluations_or_five_with_fresh_noise(name, evaluations):
    how = recipe(config_of(f"dbae_{name}"))
    assert how.nfe(VPBridge()) == evaluations and (how.grid, how.eta) == ("uniform_lambda", 1)


ENCODED = ("diffae_ffhq", "diffae_digits", "pdae_ffhq", "diti_celeba", "diti_digits", "diti_emoji:size=32")


@pytest.mark.parametrize("name", [*ENCODED, "ddpm_ffhq", "latent_prior_ffhq"])
def test_gaussian_models_are_decoded_in_20_evaluations_of_order_2_and_encoded_in_20(name):
    config = config_of(name)
    how = recipe(config)
    assert how == Sampling(grid="uniform_lambda", order=2, steps=20) and how.nfe(DiscreteVP()) == 20
    for task in ("interpolate", "counterfactual", "manipulate") if name in ENCODED else ():
        assert config.tasks[task].invert_steps == 20


# The beginning of a config's name -> (the file that tells the official code's recipe, what it says, the recipe)
OF_DDIM = {"grid": "ddim_range", "order": "1", "steps": "100"}, Sampling(grid="ddim_range", steps=100)
DECODED = {
    "dbae": ("_dbae.py", {"sampler": "heun", "grid": "karras", "eta": "0", "steps": "40"}, Sampling("heun")),
    "diffae": ("_diffae.py", {"grid": "ddim_space", "order": "1"}, Sampling(grid="ddim_space", steps=20)),
    "pdae": ("_gaussian.py", *OF_DDIM),
    "diti": ("_gaussian.py", *OF_DDIM),
    "latent": ("_latent_prior.py", OF_DDIM[0] | {"grid": "ddim_linspace"}, Sampling(grid="ddim_linspace", steps=100)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_recipe_of_sampling_is_what_the_documents_say_of_it(name):
    file, values, expected = DECODED[name.split("_")[0]]
    said = " ".join(f"{field}={value}" for field, value in values.items())
    for path in (f"configs/{file}", "docs/samplers.md"):
        assert f"`{said}`" in " ".join((ROOT / path).read_text().split())
    config = config_of(name)
    configs.override(config, {f"sampling.{field}": value for field, value in values.items()})
    assert recipe(config) == expected


def test_priors_take_the_codes_of_all_images_that_their_auto_encoder_was_trained_on():
    splits = {name: config_of(f"latent_prior_{name}").data.split for name in ("celeba", "ffhq", "bedroom", "horse")}
    assert splits == {"celeba": "train", "ffhq": "all", "bedroom": "all", "horse": "all"}
    assert config_of("diffae_celeba").data.split == config_of("dbae_ffhq").data.split == "all"


@pytest.mark.parametrize("kind, lr", [("simclr", 8e-3), ("simsiam", 2e-4)])
def test_self_supervised_heads_have_sgd_with_decay_and_half_a_cosine_to_a_tenth(kind, lr):
    config = config_of(f"diti_celeba:ssl={kind}")
    steps = config.train.total_steps
    assert config.optim.ssl.to_dict() == {
        "name": "sgd",
        "lr": lr,
        "weight_decay": 1e-6,
        "decay_steps": steps,
        "decay_to": 0.1,
    }
    assert (config.method.ssl.encoder_decay, config.method.ssl.start_step) == (1e-6, 200_000)


class Method:
    def param_labels(self, params):
        return {name: "train" for name in params}


OURS = {
    "DiffAE's": DIFFAE | {"lr": 1e-2},
    "a prior's of faces": FACES | {"lr": 1e-2, "weight_decay": 0.3},
    "PDAE's": adam(1e-2),
    "SimSiam's": {"name": "sgd", "lr": 1e-2, "weight_decay": 0.3, "decay_steps": 10, "decay_to": 0.1},
}


@pytest.mark.torch
@pytest.mark.parametrize("name", OURS)
def test_twelve_steps_are_pytorchs(name):
    """Gradients of norms around 2, so that some are clipped at 1 and some are not."""
    torch = pytest.importorskip("torch")
    settings, random = OURS[name], np.random.default_rng(0)
    start = random.normal(size=5).astype(np.float32)
    grads = (random.normal(size=(12, 5)) * np.geomspace(0.1, 3, 12)[:, None]).astype(np.float32)
    theirs = torch.nn.Parameter(torch.tensor(start))
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings["name"]]
    more = {"momentum": 0.9} if settings["name"] == "sgd" else {}
    more |= {"weight_decay": settings["weight_decay"]} if "weight_decay" in settings else {}
    optim = make([theirs], lr=settings["lr"], **more)
    schedule = None
    if "decay_steps" in settings:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 10, eta_min=0.1 * settings["lr"])

    ours = optimizer.build(ConfigDict(settings | {"ema_decay": 0.9}), Method())
    params = {"a": jnp.asarray(start)}
    state, update = ours.init(params), jax.jit(ours.update)
    for i, grad in enumerate(grads[: 10 if schedule else 12]):
        theirs.grad = torch.tensor(grad)
        if settings.get("clip_norm"):
            torch.nn.utils.clip_grad_norm_([theirs], settings["clip_norm"])
        optim.step()
        if schedule:
            schedule.step()
        updates, state = update({"a": jnp.asarray(grad)}, state, params)
        params = {"a": params["a"] + updates["a"]}
        np.testing.assert_allclose(params["a"], theirs.detach().numpy(), rtol=1e-5, atol=1e-6, err_msg=str(i))
