"""The official checkpoints of DiffAE (github.com/phizaz/diffae): `last.ckpt` of its auto-encoders, DDIMs, latent priors
and classifiers.

They are Lightning's. `state_dict` has `model.` and the averaged `ema_model.`, in which the prior's file keeps the
auto-encoder and, as `latent_net.`, the prior; then the mean and the deviation of the codes. No file next to it says the
networks' shape, so `infer` reads it from the tensors: two residual blocks a level and attention at 16 px, as all of its
networks have them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.port import parts
from diffrep_jax.port.engine import DENSE, NORM, POINTWISE_1D, Rule, Table
from diffrep_jax.port.files import Contents, Tensors
from diffrep_jax.port.parts import flat
from diffrep_jax.port.unet import HALF_UNET, count, ends, half_unet_fields, rules, unet_fields

Shapes = Mapping[str, Sequence[int]]

PARTS = {"model.": ""}
UNDETERMINED: tuple[str, ...] = ()
BLOCKS, ATTENTION = 2, 16  # residual blocks a level; the image size with attention
LAYERS = 64  # more than any prior has

RULES = (
    *ends("", "unet", time="time_embed.time_embed"),
    *rules("", "unet", POINTWISE_1D),
    Rule("{block}.cond_emb_layers.1", "unet/{block}/code", DENSE),
    *HALF_UNET,
    # A prior's file has it as well as the auto-encoder.
    Rule("latent_net.time_embed.0", None, DENSE),
    Rule("latent_net.time_embed.2", None, DENSE),
    Rule("latent_net.layers.{layer}.linear", None, DENSE),
    Rule("latent_net.layers.{layer}.linear_emb", None, DENSE),
    Rule("latent_net.layers.{layer}.cond_layers.1", None, DENSE),
    Rule("latent_net.layers.{layer}.norm", None, NORM),
)


def table(method: Mapping[str, Any]) -> Table:
    """The rules for a config's `method` section."""
    size = method["image_size"]
    layers = {"layer": {str(i): str(i) for i in range(LAYERS)}}
    return Table(RULES, unet_fields(size, method["unet"]) | half_unet_fields(size, method["encoder"]) | layers)


def check(method: Mapping[str, Any], shapes: Shapes, source: str) -> None:
    """Raise a UserError where `source` is no auto-encoder of DiffAE; the table's own check compares the shapes."""
    infer("diffae", shapes, source)


def unused(method: Mapping[str, Any], tensors: Tensors) -> dict[str, np.ndarray]:
    """Official names without a use here: none that an auto-encoder alone has."""
    return {}


# What the tensors say


def infer(method: str, shapes: Shapes, source: str) -> dict[str, Any]:
    """The fields of a config's `method` section that the tensors say; UserError where they are of another method.

    They say neither dropout nor dtype, and the image size only by the attention of a level.
    """
    try:
        return METHODS[method].infer(shapes)
    except (LookupError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{source} is not {METHODS[method].what} of DiffAE: looked for {error} among {len(shapes)} names, such as "
            f"{next(iter(shapes), 'none')}.{_hint(shapes)}"
        ) from None


def _hint(shapes: Shapes) -> str:
    for name, network in METHODS.items():
        try:
            network.infer(shapes)
            return f" It is {network.what}; use a config of {name}."
        except (LookupError, ValueError, ZeroDivisionError):
            continue
    return ""


def _infer_autoencoder(shapes: Shapes) -> dict[str, Any]:
    unet = _infer_unet(shapes, "time_embed.time_embed.0.weight")
    width, latent_dim = unet["unet"]["width"], shapes["input_blocks.1.0.cond_emb_layers.1.weight"][1]
    return unet | {"latent_dim": latent_dim, "encoder": {"width": width} | _infer_levels(shapes, "encoder.", width)}


def _infer_ddim(shapes: Shapes) -> dict[str, Any]:
    return _infer_unet(shapes, "time_embed.0.weight")


def _infer_prior(shapes: Shapes) -> dict[str, Any]:
    """By the names after `latent_net.`"""
    width, channels = shapes["layers.0.linear.weight"]
    mlp = {"width": width, "layers": count(shapes, "layers"), "time_width": shapes["time_embed.0.weight"][1]}
    return {"channels": channels, "mlp": mlp}


def _infer_unet(shapes: Shapes, time: str) -> dict[str, Any]:
    emb_width, width = shapes[time]
    levels = _infer_levels(shapes, "", width)
    unet = {"width": width, "emb_width": emb_width, "heads": 1, "head_dim": -1} | levels
    first = [f"input_blocks.{n * (BLOCKS + 1) + 1}.1.qkv.weight" for n in range(len(levels["mult"]))]
    sizes = [ATTENTION * 2**level for level, name in enumerate(first) if name in shapes]
    return ({"image_size": sizes[0]} if sizes else {}) | {"channels": shapes["out.2.weight"][0], "unet": unet}


def _infer_levels(shapes: Shapes, prefix: str, width: int) -> dict[str, Any]:
    numbers = range(1, count(shapes, f"{prefix}input_blocks"), BLOCKS + 1)
    widths = [shapes[f"{prefix}input_blocks.{n}.0.in_layers.2.weight"][0] for n in numbers]
    return {"mult": tuple(w // width for w in widths), "blocks": BLOCKS, "attention": (ATTENTION,)}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of a method: its part of a `state_dict`, in `parts.PARTS`' way, its name, and what its shapes say."""

    part: str
    what: str
    infer: Callable[[Shapes], dict[str, Any]]


METHODS = {
    "diffae": Network("model.", "an auto-encoder", _infer_autoencoder),
    "ddpm": Network("model.", "a plain DDIM", _infer_ddim),
    "latent_prior": Network("model.latent_net.", "a latent prior", _infer_prior),
}


def network_in(method: str, contents: Contents) -> Network | None:
    """The network of a config's method that a checkpoint of DiffAE holds; None for another one's checkpoint.

    A plain state dict is one of DiffAE's for its own method alone: nothing in it says where it is from.
    """
    if method not in METHODS:
        return None
    network = METHODS[method]
    first, _, prior = network.part.partition(".")
    names = flat(contents)
    if any(name.startswith((f"{first}.", f"ema_{first}.")) for name in names):
        return network
    if prior and any(name.startswith(prior) for name in names):  # what is left of the names without `ema_model.`
        return dataclasses.replace(network, part=prior)
    return network if method == "diffae" else None


def last_ckpt(
    method: Mapping[str, Any], networks: Mapping[str, Tensors], variables: Mapping[str, Any], step: int
) -> dict[str, Any]:
    """The dict of a last.ckpt with the tensors of `networks`, by method, as `model.` and `ema_model.`.

    method, variables: of the run that is exported; a prior's mean and deviation of the codes go with it. UserError for
    a method, or a network, that DiffAE has not.
    """
    name = method["name"]
    if name not in METHODS:
        raise UserError(f"DiffAE has no {name}: its checkpoints are those of {', '.join(METHODS)}; leave layout out.")
    said = infer(name, {key: value.shape for key, value in networks[name].items()}, f"This run of {name}")
    unet = said.get("unet", {})
    for field in ("blocks", *unet) if unet else ():  # with other blocks, levels are read wrongly too
        if (own := method["unet"].get(field, value := unet[field])) != value:
            raise UserError(f"DiffAE has no network with config.method.unet.{field}={own}: its file means {value}.")
    state_dict = {
        start + METHODS[other].part + key: value
        for other, tensors in networks.items()
        for start in ("", parts.AVERAGE)
        for key, value in tensors.items()
    }
    codes = variables.get("batch_stats", {}).get("codes", {})
    both = {"conds_mean": "mean", "conds_std": "std"}
    statistics = {theirs: np.asarray(codes[ours])[None] for theirs, ours in both.items() if ours in codes}
    return {"epoch": 0, "global_step": step, "state_dict": state_dict | statistics}


# What is in the files besides networks


@dataclasses.dataclass(frozen=True)
class Classifier:
    """logits = (z - mean) / std @ kernel + bias: of the 40 attributes of CelebA, in the order of its file."""

    kernel: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def classifier(contents: Contents, source: str) -> Classifier:
    """That of a classifier's `last.ckpt`, as trained: its average still holds much of the start.

    Raises UserError where `source` is another file.
    """
    tensors = flat(contents)
    try:
        weight, bias = tensors["classifier.weight"], tensors["classifier.bias"]
        both = code_statistics(contents)
        return Classifier(weight.T, bias, both["mean"], both["std"])
    except KeyError as error:
        raise UserError(
            f"{source} is no classifier of DiffAE: {error.args[0]} is not there; it holds {', '.join(contents.parts)}."
        ) from None


def latents(contents: Contents, source: str) -> dict[str, np.ndarray] | None:
    """{"codes" [n, d], "mean", "std" [d]}, float32, of `latent.pkl`, the codes of the training images; None elsewhere.

    UserError where they do not fit together.
    """
    tensors = flat(contents)
    if "conds" not in tensors:
        return None
    arrays = {"codes": tensors["conds"]} | code_statistics(contents)
    codes = arrays["codes"]
    fits = codes.ndim == 2 and len(arrays) == 3 and all(x.shape == codes.shape[1:] for x in list(arrays.values())[1:])
    if not fits:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in tensors.items())
        raise UserError(f"{source} holds {shapes}, not conds (n, d) with conds_mean and conds_std (d,); get it again.")
    return {name: np.asarray(x, np.float32) for name, x in arrays.items()}


def code_statistics(contents: Contents) -> dict[str, np.ndarray]:
    """{"mean", "std"} [d] of the codes, of a prior's or a classifier's `last.ckpt` or of `latent.pkl`; {} elsewhere."""
    tensors = flat(contents)
    names = {"mean": "conds_mean", "std": "conds_std"}
    return {ours: tensors[name].reshape(-1) for ours, name in names.items() if name in tensors}
