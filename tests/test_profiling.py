"""The profile of some steps, and the share of the devices' peak."""

import json
import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax import sharding
from diffrep_jax.errors import UserError
from diffrep_jax.fields import construct
from diffrep_jax.methods.base import build
from diffrep_jax.train import cost, devices, monitor, optimizer
from diffrep_jax.train.monitor import Monitor
from diffrep_jax.train.settings import Settings
from diffrep_jax.train.state import abstract_state
from diffrep_jax.train.step import make_train_step, trace_step
from tests.test_monitor import Clock, Value
from tests.tiny import start, tiny_config

H100 = "NVIDIA H100 80GB HBM3"


def traces(run):
    return sorted(run.glob("profile/plugins/profile/*/*.xplane.pb"))


def steps_of(trace):
    """The numbers of the steps in a trace, by JAX's own reader."""
    planes = jax.profiler.ProfileData.from_file(str(trace)).planes
    events = (event for plane in planes for line in plane.lines for event in line.events)
    return {dict(event.stats)["step_num"] for event in events if event.name == "train"}


def test_the_steps_that_are_asked_for_are_profiled(tmp_path):
    start(tiny_config(total_steps=5, profile_steps=(2, 3)), tmp_path)
    (trace,) = traces(tmp_path)
    assert steps_of(trace) == {2, 3}


@pytest.mark.parametrize(("steps", "count"), [((3, 9), 1), ((6, 9), 0)], ids=["the training ends first", "never"])
def test_a_profile_ends_with_the_training(tmp_path, steps, count):
    start(tiny_config(total_steps=4, profile_steps=steps), tmp_path)
    assert len(traces(tmp_path)) == count


@pytest.mark.parametrize("steps", [(3,), (3, 2), (1, 2, 3), (0, 4), ("a", "b")])
def test_profiles_that_make_no_sense_are_refused(steps):
    with pytest.raises(UserError, match="config.train.profile_steps"):
        construct(Settings, {"profile_steps": steps}, "config.train")


def test_the_share_of_the_peak_is_that_of_the_steps_since_the_last_line(monkeypatch, caplog):
    """Steps of half a second that would take 0.1 and 0.3 s at the peak."""
    clock, rows = Clock(), {}
    monkeypatch.setattr(monitor, "time", clock)
    settings = SimpleNamespace(total_steps=4, log_every=2, batch_size=32, max_minutes=0)
    writer = SimpleNamespace(scalars=lambda step, metrics: rows.update({step: metrics}))
    with caplog.at_level(logging.INFO), Monitor(settings, 0, writer) as watch:
        for step, at_peak in ((1, 0.1), (2, 0.1), (3, 0.1), (4, 0.3)):
            clock.now += 0.5
            watch.record(step, {"loss": Value(clock, clock.now), "grad_norm": Value(clock, clock.now)}, at_peak)
    assert rows[2]["mfu"] == pytest.approx(0.2) and rows[4]["mfu"] == pytest.approx(0.4)
    assert "MFU 20%" in caplog.text and "MFU 40%" in caplog.text


def mesh_of(kind, size):
    return SimpleNamespace(devices=np.array([SimpleNamespace(device_kind=kind)] * size), size=size)


def test_a_matmul_at_the_peak_takes_its_multiplications_over_that_of_all_devices():
    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    traced = jax.jit(lambda a: a @ a).trace(x)
    assert cost.seconds_at_peak(traced, mesh_of(H100, 4), "bfloat16") == pytest.approx(2 * 64**3 / (4 * 989e12))
    assert cost.seconds_at_peak(traced, mesh_of("a processor", 4), "bfloat16") == 0


def test_a_training_tells_its_mfu_where_xla_counts_no_flops(tmp_path, monkeypatch):
    """As on GPUs and TPUs, whose programs have no cost before they are compiled."""
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda lowered: None)
    monkeypatch.setattr(devices, "of_kind", lambda kind: devices.named("H100", ""))
    start(tiny_config(total_steps=4, log_every=2), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any(0 < row.get("mfu", 0) < 1 for row in rows)


def test_a_step_in_parts_costs_what_it_does_at_once():
    config = tiny_config()
    method = build(config.method)
    optim, mesh = optimizer.build(config.optim, method), sharding.make_mesh()
    state = abstract_state(method, optim, mesh)
    image = jax.ShapeDtypeStruct((4, config.data.image_size, config.data.image_size, config.data.channels), jnp.uint8)

    def seconds(parts):
        step = make_train_step(method, optim, ema_decay=0.9, seed=0, microbatches=parts)
        return cost.seconds_at_peak(trace_step(step, state, {"image": image}, mesh), mesh_of(H100, 1), "float32")

    assert seconds(2) == pytest.approx(seconds(1), rel=0.01)
