"""The golden networks of DiffAE, their inputs, and the variables that the rules make of their official tensors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax.methods.base import build
from diffrep_jax.port import ddpm, diffae, files, latent_prior
from tests import golden

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


def noisy():
    alpha_bar = EXPECTED["alphas_cumprod"][EXPECTED["t"]]
    b, c = (np.sqrt(k).astype(np.float32)[:, None, None, None] for k in (alpha_bar, 1 - alpha_bar))
    return b * X0 + c * EPS


def classifier_file():
    tensors = official("classifier")
    return files.Contents(
        {"state_dict": tensors | {name: EXPECTED[name][None] for name in ("conds_mean", "conds_std")}}
    )


def lightning(name, **extra):
    """The `state_dict` of an official last.ckpt: what is not the average is zero."""
    networks = {"model.": {n: 0 * x for n, x in tensors_of("diffae").items()}, "ema_model.": tensors_of("diffae")}
    if name == "latent_prior":
        prior = {f"latent_net.{n}": x for n, x in tensors_of("latent_prior").items()}
        networks = {part: network | prior for part, network in networks.items()}
        extra |= {"conds_mean": EXPECTED["latent_mean"][None], "conds_std": EXPECTED["latent_std"][None]}
    flat = {part + n: x for part, network in networks.items() for n, x in network.items()}
    return {"x_T": np.zeros((32, 3, 64, 64), np.float32)} | flat | extra
