"""The training step and loop: resume is exact, micro-batches and devices change nothing, bad losses stop the run."""

import dataclasses
import json
import pathlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffrep_jax import config as configs
from diffrep_jax import sharding
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import Base, build
from diffrep_jax.models import layers
from diffrep_jax.runs import checkpoint, provenance
from diffrep_jax.train import optimizer
from diffrep_jax.train.settings import Settings
from diffrep_jax.train.state import abstract_state, create_state
from diffrep_jax.train.step import ema_decay_at, example_keys, make_train_step
from tests.tiny import start, tiny_config

GOLDEN = pathlib.Path(__file__).parent / "golden"


@dataclasses.dataclass(frozen=True)
class Linear(Base):
    """A method without batch norm: mean |dropout(x) W - x|^2 plus noise drawn per example."""

    image_size: int = 4
    channels: int = 1

    def init(self, rng, batch):
        n = self.image_size**2
        return {"params": {"w": jax.random.normal(rng, (n, n)) / n, "fixed": jnp.ones(3)}, "batch_stats": {}}

    def loss(self, variables, batch, keys, train):
        x = batch["image"].reshape(batch["image"].shape[0], -1)
        noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
        h = layers.dropout(x + 0.1 * noise, 0.3, keys) @ variables["params"]["w"]
        loss = ((h - x) ** 2).mean() + 0 * variables["params"]["fixed"].sum()
        return loss, {"loss": loss, "mse": loss}, {}

    def param_labels(self, params):
        return {name: "frozen" if name == "fixed" else "train" for name in params}


def linear_step(microbatches, batch, ema_decay=0.9, lr=0.1):
    method = Linear()
    optim = optax.multi_transform({"train": optax.sgd(lr), "frozen": optax.set_to_zero()}, method.param_labels)
    state = create_state(method, optim, sharding.make_mesh(), 0)
    step = make_train_step(method, optim, ema_decay=ema_decay, seed=3, microbatches=microbatches)
    return state, *jax.jit(step)(state, {"image": batch})


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(-1, 1, (8, 4, 4, 1)).astype(np.float32)


def test_radam_meets_the_golden_trajectory(x64):
    golden = np.load(GOLDEN / "bridge.npz")
    grads, params = golden["radam_lr1e-2_grads"], golden["radam_lr1e-2_params"]
    method = Linear()
    config = configs.ConfigDict({"name": "radam", "lr": 1e-2, "ema_decay": 0.9})
    optim = optimizer.build(config, method)
    current = {"w": jnp.asarray(params[0]), "fixed": jnp.ones(3)}
    state = optim.init(current)
    for grad, expected in zip(grads, params[1:], strict=True):
        updates, state = optim.update({"w": jnp.asarray(grad), "fixed": jnp.ones(3)}, state, current)
        current = optax.apply_updates(current, updates)
        assert np.linalg.norm(current["w"] - expected) < 1e-9 * np.linalg.norm(expected)
    np.testing.assert_array_equal(current["fixed"], np.ones(3))  # frozen


@pytest.mark.parametrize("microbatches", [2, 4, 8])
def test_microbatches_give_the_step_of_the_whole_batch(microbatches, images):
    _, whole, whole_metrics = linear_step(1, images)
    _, parts, parts_metrics = linear_step(microbatches, images)
    np.testing.assert_allclose(parts.params["w"], whole.params["w"], rtol=1e-6, atol=1e-7)
    assert parts_metrics["loss"] == pytest.approx(float(whole_metrics["loss"]), rel=1e-6)


def test_the_step_is_gradient_descent_with_an_average(images):
    """Against a finite difference of the loss and the definition of an exponential average."""
    before, after, _ = linear_step(1, images, lr=0.5)
    method, keys = Linear(), example_keys(3, jnp.zeros((), jnp.int32), 8)
    direction = np.random.default_rng(1).standard_normal(before.params["w"].shape).astype(np.float32)

    def loss(amount):
        params = before.params | {"w": before.params["w"] + amount * direction}
        return float(method.loss({"params": params, "batch_stats": {}}, {"image": images}, keys, True)[0])

    slope = (loss(1e-2) - loss(-1e-2)) / 2e-2
    moved = np.sum((after.params["w"] - before.params["w"]) * direction)
    assert moved == pytest.approx(-0.5 * slope, rel=1e-3)
    np.testing.assert_allclose(  # the first decay is 1/10
        after.ema["params"]["w"], 0.1 * before.params["w"] + 0.9 * after.params["w"], rtol=1e-5, atol=1e-8
    )
    assert int(after.step) == 1


def test_the_average_forgets_its_start_and_ends_at_the_decay():
    """After n updates of a constant 1, starting from 0, what is missing is the product of the decays."""
    decays = [float(ema_decay_at(jnp.asarray(n), 0.9999)) for n in range(300)]
    assert np.prod(decays) < 1e-8  # a constant 0.9999 would have kept 97 % of the start
    assert float(ema_decay_at(jnp.asarray(10**6), 0.9999)) == pytest.approx(0.9999)
    assert float(ema_decay_at(jnp.asarray(50), 0.5)) == 0.5
    assert all(a <= b for a, b in zip(decays, decays[1:], strict=False))


def test_keys_differ_by_seed_step_and_example():
    zero = jnp.zeros((), jnp.int32)
    keys = [example_keys(0, zero, 4), example_keys(1, zero, 4), example_keys(0, zero + 1, 4)]
    drawn = np.asarray([jax.vmap(lambda k: jax.random.uniform(k))(k) for k in keys]).ravel()
    assert len(set(drawn.tolist())) == 12
    np.testing.assert_array_equal(  # an example's key does not depend on the batch size
        jax.random.key_data(example_keys(0, zero, 6))[:4], jax.random.key_data(keys[0])
    )


@pytest.mark.slow
def test_resumed_training_is_bitwise_the_uninterrupted_one(tmp_path):
    """5 steps against 2 + resume + 3, with dropout, flips and an epoch boundary inside."""
    whole = start(tiny_config(total_steps=5), tmp_path / "whole")
    start(tiny_config(total_steps=2), tmp_path / "parts")
    resumed = start(tiny_config(total_steps=5), tmp_path / "parts")
    for path, leaf in jax.tree.leaves_with_path(whole):
        twin = resumed
        for key in path:
            twin = (
                getattr(twin, key.name) if hasattr(key, "name") else twin[getattr(key, "key", getattr(key, "idx", 0))]
            )
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(twin), err_msg=jax.tree_util.keystr(path))
    lines = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    starts = provenance.starts(tmp_path / "parts")
    assert [start["from_step"] for start in starts] == [0, 2]
    assert starts[0]["began"] <= lines[0]["time"] <= starts[1]["began"] <= lines[2]["time"]


def test_nan_loss_stops_with_a_message_and_keeps_the_last_good_checkpoint(tmp_path):
    config = tiny_config(total_steps=2, checkpoint_every=1)
    method = build(config.method)
    start(config, tmp_path)

    @dataclasses.dataclass(frozen=True)
    class Broken:
        inner: object = method
        image_size: int = method.image_size
        channels: int = method.channels

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def loss(self, variables, batch, keys, train):
            loss, metrics, stats = self.inner.loss(variables, batch, keys, train)
            return loss * jnp.nan, metrics | {"loss": loss * jnp.nan}, stats

    with pytest.raises(UserError, match="loss is nan at step 3.*Lower config.optim.lr"):
        start(tiny_config(total_steps=6, checkpoint_every=1), tmp_path, method=Broken())
    with checkpoint.opened(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 2


def test_sigterm_saves_and_leaves(tmp_path):
    class Terminate:
        def check(self):
            pass

        def due(self, step):
            return step == 2

        def missed(self, step):
            return False

        def __call__(self, step, state, writer):
            signal.raise_signal(signal.SIGTERM)

    config = tiny_config(total_steps=50)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        start(config, tmp_path, [Terminate()])
    assert stop.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    with checkpoint.opened(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 2


def test_max_minutes_ends_a_run_early(tmp_path):
    config = tiny_config(total_steps=1000, max_minutes=1e-6)
    state = start(config, tmp_path)
    assert int(state.step) == 1
    with checkpoint.opened(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1


def test_abstract_state_is_the_real_ones_shape():
    method = build(tiny_config().method)
    optim = optimizer.build(tiny_config().optim, method)
    mesh = sharding.make_mesh()
    real, abstract = create_state(method, optim, mesh, 0), abstract_state(method, optim, mesh)
    assert jax.tree.structure(real) == jax.tree.structure(abstract)
    for a, b in zip(jax.tree.leaves(real), jax.tree.leaves(abstract), strict=True):
        assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)


@pytest.mark.parametrize(
    ("batch", "microbatch", "message"),
    [
        (10, 4, "batch_size 10 does not divide by train.microbatch_size 4"),
        (0, 1, "config.train.batch_size is 0; use a whole number from 1 on"),
        (4, 0, "config.train.microbatch_size is 0; use a whole number from 1 on"),
    ],
)
def test_batches_that_do_not_divide_are_refused(batch, microbatch, message):
    with pytest.raises(UserError, match=message):
        Settings(batch_size=batch, microbatch_size=microbatch)


@pytest.mark.parametrize(
    ("field", "value"),
    [("keep_last", 0), ("keep_last", -1), ("log_every", 0), ("checkpoint_every", -5), ("max_minutes", float("nan"))],
)
def test_training_settings_that_make_no_sense_are_refused(field, value):
    with pytest.raises(UserError, match=f"config.train.{field} is {value}"):
        Settings(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("name", "radm", "Did you mean 'radam'"), ("lr", 0.0, "lr is 0.0"), ("ema_decay", 1.0, "ema_decay is 1.0")],
)
def test_bad_optimizer_settings_are_refused(field, value, message):
    config = tiny_config().optim.unlock()
    config[field] = value
    with pytest.raises(UserError, match=message):
        optimizer.build(config, Linear())


@pytest.mark.usefixtures("optimized")
def test_pixels_and_their_floats_train_alike(images):
    """Bit for bit, in the batch and in its micro-batches."""
    pixels = np.random.default_rng(5).integers(0, 256, images.shape, np.uint8)
    floats = pixels / np.float32(127.5) - np.float32(1)
    for microbatches in (1, 4):
        (_, bytes_, _), (_, floats_, _) = (linear_step(microbatches, batch) for batch in (pixels, floats))
        jax.tree.map(np.testing.assert_array_equal, bytes_, floats_)
