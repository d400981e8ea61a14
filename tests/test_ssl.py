"""Self-supervised losses: closed forms and PyTorch; when they begin, what they train, and what they leave alone."""

import dataclasses
import functools
import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import cosine_similarity, paired_cosine_distances

from configs import pdae_digits
from diffrep_jax import config as configs
from diffrep_jax import data
from diffrep_jax.errors import UserError
from diffrep_jax.methods import base as methods
from diffrep_jax.methods.base import build
from diffrep_jax.methods.ssl import negative_cosine, nt_xent, self_supervised
from diffrep_jax.tasks import base as tasks
from diffrep_jax.train import checkpoint, frozen, init_from, optimizer, sharding
from diffrep_jax.train.loop import train
from diffrep_jax.train.state import abstract_state, create_state
from diffrep_jax.train.step import example_keys, make_train_step
from tests.tiny import run_python

COMMON = {
    "weight": 0.5,
    "main_weight": 1.0,
    "start_step": 0,
    "batch_size": 8,
    "augment": True,
    "jitter": 1.0,
    "hidden": 12,
}
SIMCLR = {"kind": "simclr", "temperature": 0.5, "out": 6, "encoder_decay": 0.0} | COMMON
SIMSIAM = {"kind": "simsiam", "bottleneck": 5, "encoder_decay": 0.0} | COMMON
RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


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
        ({"main_weight": -1.0}, "config.method.ssl.main_weight=-1.0 must be at least 0"),
        ({"weight": -1.0}, "config.method.ssl.weight=-1.0 must be at least 0"),
        ({"batch_size": 1}, "config.method.ssl.batch_size=1 must be at least 2"),
        ({"start_step": -1}, "config.method.ssl.start_step=-1"),
        ({"out": 0}, "config.method.ssl.out=0 must be at least 1"),
        ({"temperature": 0.0}, "config.method.ssl.temperature=0.0 must be above 0"),
        ({"jitter": 1.5}, r"config.method.ssl.jitter=1.5 is outside \[0, 1\]"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(UserError, match=message):
        self_supervised(SIMCLR | change)
    with pytest.raises(UserError, match="config.method.ssl lacks weight"):
        self_supervised({name: value for name, value in SIMCLR.items() if name != "weight"})


def test_it_is_no_method():
    assert "ssl" not in methods.names()


# --- the step, on a method of one matrix


@dataclasses.dataclass(frozen=True)
class Toy:
    """The mean of |x E D - x|^2 with an encoder E, and a self-supervised loss on x E; the decoder D is a number."""

    section: methods.FrozenDict = methods.FrozenDict()
    image_size: int = 4
    channels: int = 1

    @property
    def ssl(self):
        return self_supervised(self.section)

    def init(self, rng, batch):
        params = {"encoder": {"w": jax.random.normal(rng, (16, 16)) / 4}, "decoder": {"w": jnp.ones(())}}
        heads = {"ssl": self.ssl.init(rng, 16)} if self.ssl else {}
        return {"params": params | heads, "batch_stats": {}}

    def encode(self, variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["encoder"]["w"]

    def loss(self, variables, batch, keys, train):
        x = batch["image"]
        z = self.encode(variables, x) * variables["params"]["decoder"]["w"]
        loss = ((z - x.reshape(len(x), -1)) ** 2).mean()
        return loss, {"loss": loss}, {}

    def view_loss(self, variables, views):
        params = variables["params"]
        return self.ssl.loss(params["ssl"], params["encoder"], *(self.encode(variables, x) for x in views.values()))

    def param_labels(self, params):
        return {k: jax.tree.map(lambda _, k=k: "ssl" if k == "ssl" else "train", v) for k, v in params.items()}


BATCH = {"image": np.tanh(normal(8, 4, 4, 1))}
VIEWS = {"views": {"view1": np.tanh(normal(6, 4, 4, 1)), "view2": np.tanh(normal(6, 4, 4, 1))}}


def step_of(section, views=True, **options):
    """(the state before, after, metrics) of one step of gradient descent, with the heads at a rate of their own."""
    return _step_of(methods.freeze(section), views, **options)


@functools.cache
def _step_of(section, views, microbatches=1, heads_lr=0.1):
    method = Toy(section)
    optim = optax.multi_transform({"train": optax.sgd(0.1), "ssl": optax.sgd(heads_lr)}, method.param_labels)
    state = create_state(method, optim, sharding.make_mesh(), 0)
    step = make_train_step(method, optim, ema_decay=0.9, seed=0, microbatches=microbatches)
    return state, *jax.jit(step)(state, BATCH | (VIEWS if views else {}))


def moved(before, after, name):
    return [a - b for a, b in zip(*(jax.tree.leaves(s.params[name]) for s in (after, before)), strict=True)]


@pytest.mark.parametrize("section", [SIMCLR, SIMSIAM], ids=["simclr", "simsiam"])
def test_the_whole_batch_of_views_counts_once_whatever_the_microbatches(section):
    _, whole, metrics = step_of(section)
    _, parts, parts_metrics = step_of(section, microbatches=4)
    assert parts_metrics["loss_ssl"] == pytest.approx(float(metrics["loss_ssl"]), rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), parts.params, whole.params)


def test_the_weight_scales_what_is_added_and_the_loss_is_told_without_it():
    _, plain, plain_metrics = step_of(SIMCLR, views=False)
    _, one, metrics = step_of(SIMCLR)
    _, two, _ = step_of(SIMCLR | {"weight": 1.0})
    added, twice = (s.params["encoder"]["w"] - plain.params["encoder"]["w"] for s in (one, two))
    assert np.abs(added).max() > 1e-4
    np.testing.assert_allclose(twice, 2 * added, atol=1e-6)
    assert metrics["loss"] == plain_metrics["loss"] and "loss_ssl" not in plain_metrics
    assert 0 < metrics["loss_ssl"] < 2 * np.log(11) + 2


def test_the_encoder_alone_decays_and_only_with_views():
    """PyTorch's Adam adds decay times the parameter to the gradient; so does this, and to no other parameter."""
    decay = {"encoder_decay": 0.25}
    before, without, _ = step_of(SIMCLR)
    _, with_decay, metrics = step_of(SIMCLR | decay)
    difference = with_decay.params["encoder"]["w"] - without.params["encoder"]["w"]
    np.testing.assert_allclose(difference, -0.1 * 0.25 * before.params["encoder"]["w"], atol=1e-6)
    for name in ("decoder", "ssl"):
        jax.tree.map(np.testing.assert_array_equal, with_decay.params[name], without.params[name])
    plain, decayed = (step_of(SIMCLR | more, views=False)[1].params for more in ({}, decay))
    jax.tree.map(np.testing.assert_array_equal, decayed, plain)


def test_the_heads_have_a_rate_of_their_own():
    slow, fast = (step_of(SIMSIAM, heads_lr=lr) for lr in (0.125, 0.25))
    jax.tree.map(np.testing.assert_array_equal, fast[1].params["encoder"], slow[1].params["encoder"])
    for a, b in zip(moved(*fast[:2], "ssl"), moved(*slow[:2], "ssl"), strict=True):
        np.testing.assert_allclose(a, 2 * b, atol=1e-6)
    assert any(np.abs(leaf).max() > 1e-4 for leaf in moved(*slow[:2], "ssl"))


def test_heads_are_not_averaged_nor_part_of_the_model():
    state, after, _ = step_of(SIMSIAM)
    assert set(state.params) == {"encoder", "decoder", "ssl"} and set(after.ema["params"]) == {"encoder", "decoder"}
    assert set(after.averaged["params"]) == {"encoder", "decoder", "ssl"}
    assert set(frozen.used(Toy(methods.freeze(SIMSIAM)), after.params)) == {"encoder", "decoder"}


def test_the_heads_optimizer_is_the_configs():
    config = configs.ConfigDict({"name": "adam", "lr": 0.1, "ema_decay": 0.9, "ssl": {"name": "sgd", "lr": 0.5}})
    method = Toy(methods.freeze(SIMCLR))
    params = method.init(jax.random.key(0), {})["params"]
    optim = optimizer.build(config, method)
    state = optim.init(params)
    ones = jax.tree.map(jnp.ones_like, params)
    for expected in (-0.5, -0.5 * 1.9, -0.5 * 2.71):  # momentum 0.9
        updates, state = optim.update(ones, state, params)
        jax.tree.map(
            lambda leaf, expected=expected: np.testing.assert_allclose(leaf, expected, rtol=1e-6), updates["ssl"]
        )
        np.testing.assert_allclose(updates["encoder"]["w"], -0.1, rtol=1e-4)  # 1 - 0.999 in float32
    del config.ssl
    with pytest.raises(UserError, match="config.optim lacks the section 'ssl'"):
        optimizer.build(config, method).init(params)
    config.ssl = {"name": "sdg", "lr": 0.5}
    with pytest.raises(UserError, match="Unknown optimizer 'sdg' in config.optim.ssl.name"):
        optimizer.build(config, method)


def test_views_that_devices_cannot_share_are_refused():
    mesh = jax.sharding.AbstractMesh((4, 1), ("data", "fsdp"))
    sharding.check_views(8, mesh)
    with pytest.raises(
        UserError, match="batch of 6 views does not divide by the mesh of 4.*config.method.ssl.batch_size"
    ):
        sharding.check_views(6, mesh)


# --- training


def tiny(module, variant="", **train_settings):
    """A digits config made small: 8 x 8 images, a code of 8."""
    config = module.get_config(variant).unlock()
    config.data.update(image_size=8, flip=True)
    config.method.unet.update(width=8, mult=(1,), attention=())
    if "encoder" in config.method:
        config.method.update(latent_dim=8)
        config.method.encoder.update(widths=(8, 8), attention=())
    if variant:
        config.method.ssl.update(start_step=2, batch_size=6, hidden=8, weight=0.5)
    config.train.update(total_steps=5, batch_size=8, log_every=1, checkpoint_every=100)
    config.train.update(train_settings)
    return config.lock()


def run(config, folder, **train_settings):
    """Trained as the command does, but on a base as it was drawn, which a user could not."""
    config = config.copy_and_resolve_references().unlock()
    config.train.update(train_settings)
    with mock.patch.object(init_from, "networks_of", lambda *_: {}):
        return train(build(config.method), config.lock(), folder, None)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, state) of five steps, three of them with views."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(tiny(pdae_digits, "ssl=simclr"), folder)


def test_the_loss_begins_at_its_step_and_falls_into_the_log(whole):
    told = [("loss_ssl" in line, line["step"]) for line in lines(whole[0])]
    assert told == [(False, 1), (False, 2), (True, 3), (True, 4), (True, 5)]
    assert all(np.isfinite(list(line.values())).all() for line in lines(whole[0]))


def test_a_run_that_stops_and_goes_on_is_bitwise_the_same(whole, tmp_path):
    """Stopped before the views begin, and among them."""
    for steps in (1, 4, 5):
        state = run(tiny(pdae_digits, "ssl=simclr"), tmp_path, total_steps=steps)
    assert jax.tree.structure(state) == jax.tree.structure(whole[1])
    jax.tree.map(np.testing.assert_array_equal, state, whole[1])
    for ours, theirs in zip(lines(tmp_path), lines(whole[0]), strict=True):
        speed = {"images_per_second": 0, "time": 0}
        assert ours | speed == theirs | speed


def test_before_the_start_nothing_is_different(tmp_path):
    """Up to the last bit, which depends on how XLA joins the operations of two programs."""
    plain = run(tiny(pdae_digits), tmp_path / "plain", total_steps=2)
    ssl = run(tiny(pdae_digits, "ssl=simclr"), tmp_path / "ssl", total_steps=2)
    assert set(ssl.params) - set(plain.params) == {"ssl"}
    same = {name: ssl.params[name] for name in plain.params}
    for ours, theirs in ((same, plain.params), (ssl.ema, plain.ema)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), ours, theirs)
    method = build(tiny(pdae_digits, "ssl=simclr").method)
    start = method.init(jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 1))})["params"]
    jax.tree.map(np.testing.assert_array_equal, ssl.params["ssl"], start["ssl"])


def test_afterwards_encoder_and_heads_have_moved_and_the_base_has_not(whole):
    folder, state = whole
    method = build(configs.load_run(folder).method)
    start = method.init(jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 1))})["params"]
    jax.tree.map(np.testing.assert_array_equal, state.params["unet"], start["unet"])
    for name in ("encoder", "ssl"):
        pairs = zip(*map(jax.tree.leaves, (start[name], state.params[name])), strict=True)
        assert any(np.any(a != b) for a, b in pairs), name


def test_without_weight_there_are_no_heads_and_no_second_loader(tmp_path, monkeypatch):
    config = tiny(pdae_digits, "ssl=simsiam", total_steps=1).unlock()
    config.method.ssl.weight = 0.0
    method = build(config.method)
    assert method.views is None
    state = abstract_state(method, optimizer.build(config.optim, method), sharding.make_mesh())
    assert set(state.params) == {"unet", "gradient_estimator", "encoder"}
    monkeypatch.setattr(data, "view_batches", None)  # not to be called
    run(config.lock(), tmp_path)
    assert "loss_ssl" not in lines(tmp_path)[0]


def test_without_main_weight_the_own_loss_is_told_and_counts_nothing():
    config = tiny(pdae_digits, "ssl=simclr").unlock()
    values, images = {}, np.tanh(normal(4, 8, 8, 1))
    for main_weight in (1.0, 0.5, 0.0):
        config.method.ssl.main_weight = main_weight
        method = build(config.method)
        variables = method.init(jax.random.key(0), {"image": images})
        out = jax.jit(method.loss, static_argnums=3)(variables, {"image": images}, example_keys(0, 0, 4), True)
        values[main_weight] = float(out[0]), float(out[1]["loss"])
    loss = values[1.0][1]
    assert loss > 0
    assert values == {1.0: (loss, loss), 0.5: (pytest.approx(loss / 2), loss), 0.0: (0.0, loss)}


def test_an_exported_run_comes_back_with_its_heads_and_the_official_file_is_without(whole, tmp_path, monkeypatch):
    from diffrep_jax.port import files

    written = {}
    monkeypatch.setattr(files, "write_torch", lambda path, content: written.update(content))
    config = configs.load_run(whole[0])
    method, mesh = build(config.method), sharding.make_mesh()
    variables = checkpoint.load_variables(whole[0], method, mesh)
    tasks.build("export", config.tasks.export, {}).run(method, variables, config, whole[0])
    assert written and not any("projector" in name for name in written)
    (exported,) = (whole[0] / "export").glob("*.safetensors")
    task = tasks.build("import", config.tasks["import"], {"checkpoint": exported})
    task.run(method, None, configs.load_run(whole[0]), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.load_variables(tmp_path, method, mesh), variables)


DEVICES = """
import jax, numpy as np
from diffrep_jax import config as configs
from diffrep_jax.methods.base import freeze
from diffrep_jax.train import optimizer, sharding
from diffrep_jax.train.state import create_state
from diffrep_jax.train.step import compile_step, make_train_step
from tests.test_ssl import SIMCLR, SIMSIAM, Toy
random = np.random.default_rng(0)
config = configs.ConfigDict({"name": "sgd", "lr": 0.1, "ema_decay": 0.9, "ssl": {"name": "sgd", "lr": 0.1}})
for section in (SIMCLR, SIMSIAM):
    method = Toy(freeze(section | {"hidden": 128}))
    mesh = sharding.make_mesh(fsdp=FSDP)
    optim = optimizer.build(config, method)
    state = create_state(method, optim, mesh, 0)
    draw = lambda: np.tanh(random.standard_normal((16, 4, 4, 1))).astype(np.float32)
    batch = sharding.put_batch({"image": draw(), "views": {"view1": draw(), "view2": draw()}}, mesh)
    compiled = compile_step(make_train_step(method, optim, ema_decay=0.9, seed=0, microbatches=2), state, batch, mesh)
    for _ in range(3):
        state, metrics = compiled(state, batch)
        norms = [float(np.linalg.norm(leaf)) for leaf in jax.tree.leaves(state.params)]
        print("told", float(metrics["loss"]), float(metrics["loss_ssl"]), float(metrics["grad_norm"]), sum(norms))
"""


@pytest.mark.slow
def test_eight_devices_compare_as_one():
    outputs = {}
    for devices, fsdp in ((1, 1), (8, 2)):
        output = run_python(DEVICES.replace("FSDP", str(fsdp)), devices=devices)
        told = [line.split()[1:] for line in output.splitlines() if line.startswith("told")]
        outputs[devices] = np.array(told, float)
    assert outputs[1].shape == (6, 4)
    np.testing.assert_allclose(outputs[8], outputs[1], rtol=1e-5)
    assert np.ptp(outputs[1][:3, 1]) > 1e-4  # three different steps
