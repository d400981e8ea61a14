"""Self-supervised losses: closed forms, scikit-learn and PyTorch; a section that does not fit is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import cosine_similarity, paired_cosine_distances

from diffrep_jax.errors import UserError
from diffrep_jax.methods import base as methods
from diffrep_jax.methods.ssl import negative_cosine, nt_xent, self_supervised
from tests.ssl_toy import SIMCLR, SIMSIAM, normal

# --- SimCLR's loss


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_of_orthogonal_pairs(temperature):
    """Each has its twin at similarity 1 and 2n - 2 others at 0."""
    n = 5
    pairs = 3.0 * np.eye(n, 8, dtype=np.float32)
    expected = np.log(1 + (2 * n - 2) * np.exp(-1 / temperature))
    # float32 holds the logits, up to 10, to 1e-6
    assert nt_xent(pairs, 7.0 * pairs, temperature) == pytest.approx(expected, rel=1e-5, abs=2e-6)


def test_nt_xent_cannot_tell_equal_images_apart():
    same = np.tile(normal(1, 8), (4, 1))
    assert nt_xent(same, same, 0.5) == pytest.approx(np.log(7), rel=1e-5)


def test_nt_xent_is_the_log_loss_of_finding_the_twin():
    """Against scikit-learn: cosine similarities, a softmax over all others, the twin as the class."""
    p1, p2 = normal(6, 10), normal(6, 10)
    scores = cosine_similarity(np.concatenate([p1, p2])) / 0.5
    np.fill_diagonal(scores, -np.inf)
    twins = np.roll(np.arange(12), 6)
    expected = log_loss(twins, softmax(scores, axis=1), labels=range(12))
    assert nt_xent(p1, p2, 0.5) == pytest.approx(expected, rel=1e-5)
    assert nt_xent(p2, p1, 0.5) == pytest.approx(expected, rel=1e-5)


def test_rows_of_zeros_have_finite_gradients():
    zeros = jnp.zeros((3, 4))
    for gradient in (jax.grad(nt_xent)(zeros, zeros, 0.5), jax.grad(negative_cosine)(zeros, zeros)):
        assert np.isfinite(gradient).all()


# --- SimSiam's loss


def test_negative_cosine_against_scikit_learn():
    a, b = normal(6, 10), normal(6, 10)
    assert negative_cosine(a, b) == pytest.approx(np.mean(paired_cosine_distances(a, b)) - 1, rel=1e-5)
    assert negative_cosine(a, 2 * a) == pytest.approx(-1, rel=1e-5)


def test_no_gradient_passes_through_the_target():
    a, b = normal(6, 10), normal(6, 10)
    np.testing.assert_array_equal(jax.grad(negative_cosine, argnums=1)(a, b), 0)
    assert np.abs(jax.grad(negative_cosine, argnums=0)(a, b)).min() > 0


def test_a_predictor_that_is_constant_leaves_the_codes_without_gradient():
    """Then the only way from the loss to the codes is through the targets."""
    loss = self_supervised(SIMSIAM)
    heads = loss.init(jax.random.key(0), 10)
    heads["predictor"] = heads["predictor"] | {"layer1": jax.tree.map(jnp.zeros_like, heads["predictor"]["layer1"])}
    heads["predictor"]["layer1"]["bias"] = jnp.ones(12)
    value, grads = jax.value_and_grad(loss.compare, argnums=(1, 2))(heads, normal(6, 10), normal(6, 10))
    assert abs(value) > 1e-3
    for grad in grads:
        np.testing.assert_array_equal(grad, 0)


# --- the networks, against PyTorch


def torch_head(layers, params, torch):
    """The layers, "bn" for a batch norm and "relu", with our values in them."""
    modules, number = [], -1
    for layer in layers:
        if layer == "relu":
            modules.append(torch.nn.ReLU())
            continue
        number += layer == "linear"
        ours = params[f"{'layer' if layer == 'linear' else 'norm'}{number}"]
        weight = np.asarray(ours["kernel"]).T if layer == "linear" else np.asarray(ours["scale"])
        module = torch.nn.Linear(*weight.shape[::-1]) if layer == "linear" else torch.nn.BatchNorm1d(len(weight))
        state = {"weight": torch.tensor(weight), "bias": torch.tensor(np.asarray(ours["bias"]))}
        module.load_state_dict(state, strict=False)
        modules.append(module)
    assert {f"{kind}{i}" for kind in ("layer", "norm") for i in range(3)} & params.keys() == params.keys()
    return torch.nn.Sequential(*modules)


@pytest.mark.torch
@pytest.mark.parametrize("section", [SIMCLR, SIMSIAM], ids=["simclr", "simsiam"])
def test_value_and_gradient_are_those_of_pytorch(section):
    torch = pytest.importorskip("torch")
    loss = self_supervised(section)
    heads = jax.tree.map(lambda leaf: leaf + 0.1 * normal(*leaf.shape), loss.init(jax.random.key(1), 10))
    z = [normal(6, 10), normal(6, 10)]
    value, grads = jax.value_and_grad(loss.compare, argnums=(1, 2))(heads, *z)
    z = [torch.tensor(x, requires_grad=True) for x in z]
    if section is SIMCLR:
        f = torch_head(("linear", "relu", "linear"), heads["projector"], torch)
        p = torch.nn.functional.normalize(torch.cat([f(x) for x in z]), dim=1)
        scores = (p @ p.T / 0.5).masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf)
        expected = torch.nn.functional.cross_entropy(scores, torch.arange(12).roll(6))
    else:
        f = torch_head(("linear", "bn", "relu") * 2 + ("linear", "bn"), heads["projector"], torch)
        h = torch_head(("linear", "bn", "relu", "linear"), heads["predictor"], torch)
        p = [f(x) for x in z]
        similarity = torch.nn.functional.cosine_similarity
        expected = -sum(similarity(h(p[i]), p[1 - i].detach()).mean() for i in range(2)) / 2
    expected.backward()
    assert value == pytest.approx(float(expected.detach()), rel=1e-4)
    for ours, theirs in zip(grads, z, strict=True):
        np.testing.assert_allclose(ours, theirs.grad, rtol=1e-3, atol=1e-5)


# --- the section


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "simcrl"}, "Unknown kind 'simcrl' in config.method.ssl.kind.*Did you mean 'simclr'"),
        ({"bottleneck": 3}, "Unknown field 'bottleneck' in config.method.ssl"),
        ({"main_weight": -1.0}, "config.method.ssl.main_weight is -1.0; use a number from 0 on"),
        ({"weight": -1.0}, "config.method.ssl.weight is -1.0; use a number from 0 on"),
        ({"batch_size": 1}, "config.method.ssl.batch_size is 1; use a whole number from 2 on"),
        ({"start_step": -1}, "config.method.ssl.start_step is -1; use a whole number from 0 on"),
        ({"out": 0}, "config.method.ssl.out is 0; use a whole number from 1 on"),
        ({"temperature": 0.0}, "config.method.ssl.temperature is 0.0; use a number above 0"),
        ({"jitter": 1.5}, "config.method.ssl.jitter is 1.5; use a number from 0 on, up to 1"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(UserError, match=message):
        self_supervised(SIMCLR | change)
    with pytest.raises(UserError, match="config.method.ssl lacks weight"):
        self_supervised({name: value for name, value in SIMCLR.items() if name != "weight"})


def test_it_is_no_method():
    assert "ssl" not in methods.names()
