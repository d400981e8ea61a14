"""The benchmark's PyTorch networks compute what ours do on the same weights. PyTorch may be in another Python's
environment: DIFFREP_TORCH_PYTHON names that."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from diffrep_jax.models.encoder import HalfUNet
from diffrep_jax.models.generator import Generator
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.unet import UNet
from tests.networks import KEY, normal, random_values
from tests.tiny import ROOT

LEVELS = {"width": 8, "mult": (1, 2), "blocks": 1, "attention": (8,)}
Z = normal(2, 12, seed=2)
IMAGES = normal(2, 16, 16, 1)
# Ours, the inputs of both, and the arguments of PyTorch's
NETWORKS = {
    "UNet": (
        UNet(1, **LEVELS, head_dim=4, dropout=0.1),
        (IMAGES, normal(2, seed=3), normal(2, 16, 16, 1, seed=4), Z),
        {"size": 16, "channels": 1, "latent_dim": 12, **LEVELS, "head_dim": 4, "dropout": 0.1},
    ),
    "HalfUNet": (HalfUNet(12, **LEVELS), (IMAGES,), {"size": 16, "channels": 1, "features": 12, **LEVELS}),
    "Generator": (Generator(64, 3, 2), (Z,), {"size": 64, "channels": 3, "latent_dim": 12, "width": 2}),
}


def torch_weights(params, buffers):
    """{PyTorch's name: array} of a tree of ours: its layers have the same names."""
    weights = {}
    for name, value in params.items():
        held = buffers.get(name, {})
        if any(isinstance(x, dict) for x in value.values()):
            inner = torch_weights(value, held)
        elif "u" in held:
            inner = spectral(value["kernel"], held)
        else:
            inner = layer(value) | {f"running_{key}": array for key, array in held.items()}
        weights |= {f"{name}.{key}": array for key, array in inner.items()}
    return weights


def layer(values):
    """A convolution, a linear layer or a norm."""
    order = {"kernel": {2: (1, 0), 4: (3, 2, 0, 1)}}
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    return {names[k]: np.transpose(v, order.get(k, {}).get(np.ndim(v))) for k, v in values.items()}


def spectral(kernel, held):
    """A kernel under a spectral norm; where the generator starts, [z, h, w, out] of a transposed convolution."""
    first = kernel.shape[0] == Z.shape[1]
    order = (0, 3, 1, 2) if first else (3, 2, 0, 1)
    v = held["v"] if first else np.transpose(np.reshape(held["v"], kernel.shape[:3]), (2, 0, 1)).ravel()
    norm = "parametrizations.weight"
    return {f"{norm}.original": np.transpose(kernel, order), f"{norm}.0._u": held["u"], f"{norm}.0._v": v}


def ours(name):
    """(the output in evaluation, the parameters, the buffers), no layer silent."""
    module, inputs, _ = NETWORKS[name]
    more = {"train": False} if name == "Generator" else {}
    variables = initialize(module, KEY, *inputs, **more)
    variables |= {"params": random_values(variables["params"])}
    if more:  # singular vectors and statistics that are worth comparing
        trained = jax.jit(lambda variables: module.apply(variables, *inputs, train=True, mutable=["batch_stats"])[1])
        for _ in range(20):
            variables |= trained(variables)
    output = jax.jit(lambda variables: module.apply(variables, *inputs, **more))(variables)
    return output, variables["params"], variables.get("batch_stats", {})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{network: (our output, PyTorch's)}."""
    python = os.environ.get("DIFFREP_TORCH_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import torch"], capture_output=True).returncode:
        pytest.skip("needs PyTorch")
    source, target = (tmp_path_factory.mktemp("yardstick") / name for name in ("in.npz", "out.npz"))
    arrays, outputs = {}, {}
    for name, (_, inputs, _) in NETWORKS.items():
        outputs[name], params, buffers = ours(name)
        arrays |= {f"{name}/{key}": np.asarray(value) for key, value in torch_weights(params, buffers).items()}
        arrays |= {f"{name} inputs/{number}": np.asarray(value) for number, value in enumerate(inputs)}
    arguments = json.dumps({name: arguments for name, (_, _, arguments) in NETWORKS.items()})
    np.savez(source, arguments=arguments, **arrays)
    subprocess.run([python, "-m", "tests.yardstick", source, target], cwd=ROOT, check=True)
    with np.load(target) as file:
        return {name: (outputs[name], file[name]) for name in NETWORKS}


@pytest.mark.torch
@pytest.mark.parametrize("name", NETWORKS)
def test_the_yardstick_computes_what_ours_does(name, results):
    ours, theirs = results[name]
    assert float(np.std(theirs)) > 0.01
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5 * float(np.abs(ours).max()))
