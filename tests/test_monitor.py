"""Images a second of every logged step, by a clock of the test's own."""

import logging
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from diffrep_jax.train import monitor
from diffrep_jax.train.monitor import Monitor

SECONDS, IMAGES = 0.5, 32  # a step


class Clock:
    now = 100.0

    def perf_counter(self):
        return self.now


class Value:
    """A metric of a step that ends at `end`: ready from then on, and whoever reads it waits until then."""

    def __init__(self, clock, end):
        self._clock, self._end = clock, end

    def is_ready(self):
        return self._clock.now >= self._end

    def __float__(self):
        self._clock.now = max(self._clock.now, self._end)
        return 1.0


class Rows(dict):
    def scalars(self, step, metrics):
        self[step] = metrics["images_per_second"]


@pytest.mark.parametrize("waits", [True, False], ids=["dispatch waits", "dispatch returns"])
@pytest.mark.parametrize("log_every", [1, 2, 5])
def test_every_logged_step_has_the_speed_of_its_interval(monkeypatch, waits, log_every):
    """Also the first and the last one, and the one after a pause of ten seconds."""
    clock, rows = Clock(), Rows()
    monkeypatch.setattr(monitor, "time", clock)
    settings = ConfigDict({"total_steps": 7, "log_every": log_every, "batch_size": IMAGES, "max_minutes": 0})
    end = clock.now
    with Monitor(settings, 0, rows) as watch:
        for step in range(1, 8):
            end = max(end, clock.now) + SECONDS
            if waits:
                clock.now = end
            watch.record(step, {"loss": Value(clock, end), "grad_norm": Value(clock, end)})
            if step in (3, 7):
                watch.check()
                with watch.paused():
                    clock.now += 10
    assert rows == {step: pytest.approx(IMAGES / SECONDS) for step in sorted({*range(log_every, 8, log_every), 7})}


def test_the_speed_of_several_devices_is_also_that_of_each(monkeypatch, caplog):
    clock, rows = Clock(), {}
    monkeypatch.setattr(monitor, "time", clock)
    settings = ConfigDict({"total_steps": 1, "log_every": 1, "batch_size": IMAGES, "max_minutes": 0})
    writer = SimpleNamespace(scalars=lambda step, metrics: rows.update(metrics))
    with caplog.at_level(logging.INFO), Monitor(settings, 0, writer, devices=4) as watch:
        clock.now += SECONDS
        watch.record(1, {"loss": Value(clock, clock.now), "grad_norm": Value(clock, clock.now)})
    assert rows["images_per_second"] == pytest.approx(64) and rows["images_per_second_per_device"] == pytest.approx(16)
    assert "64.0 images/s (16.0 a device)" in caplog.text


def test_no_step_takes_less_than_no_time(monkeypatch):
    """A step may be over when the one before has not been read: the clock goes on meanwhile."""
    clock, rows = Clock(), Rows()
    monkeypatch.setattr(monitor, "time", clock)
    settings = ConfigDict({"total_steps": 2, "log_every": 1, "batch_size": IMAGES, "max_minutes": 0})

    class Slow(Value):
        def __float__(self):
            clock.now += 0.1
            return super().__float__()

    with Monitor(settings, 0, rows) as watch:
        watch.record(1, {"loss": Slow(clock, clock.now + SECONDS), "grad_norm": Value(clock, clock.now)})
        clock.now += SECONDS
        watch.record(2, {"loss": Value(clock, clock.now), "grad_norm": Value(clock, clock.now)})
    assert all(speed > 0 for speed in rows.values()) and rows[1] == pytest.approx(IMAGES / (SECONDS + 0.1))
