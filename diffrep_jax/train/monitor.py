"""What a run says while it trains: a line a log interval, a bar on a terminal, a stop where the loss is not finite."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

from tqdm import tqdm

from diffrep_jax.errors import UserError
from diffrep_jax.hosts import is_first
from diffrep_jax.train.settings import Settings
from diffrep_jax.train.writer import Writer

log = logging.getLogger(__name__)

SHORTEST = 1e-6  # seconds


class Metric(Protocol):
    """A number that is being computed: a jax.Array."""

    def is_ready(self) -> bool: ...

    def __float__(self) -> float: ...


class Monitor:
    """Reads metrics one step late, stops on a loss that is not finite, logs lines, shows a bar on a terminal."""

    def __init__(self, settings: Settings, start: int, writer: Writer, devices: int = 1):
        self._settings, self._writer, self._devices = settings, writer, devices
        self._pending: tuple[int, Mapping[str, Metric], float | None] | None = None
        self._at_peak = 0.0  # seconds that the steps since `_logged` would take at the devices' peak
        self._step = self._logged = start
        self._began = time.perf_counter()
        self._paused = 0.0
        self._since = self._clock()  # when the step `_logged` had ended
        # disable=None hides the bar where stderr is not a terminal
        self._bar = tqdm(
            total=settings.total_steps,
            initial=start,
            unit="step",
            disable=None if is_first() else True,
            leave=False,
        )

    def out_of_time(self) -> bool:
        """Whether `train.max_minutes` (0: no limit) have passed since the first step, hooks included."""
        minutes = (time.perf_counter() - self._began) / 60
        return 0 < self._settings.max_minutes <= minutes

    def _clock(self) -> float:
        """Seconds of training time: it stands still in `paused`."""
        return time.perf_counter() - self._paused

    def record(self, step: int, metrics: Mapping[str, Metric], at_peak: float = 0.0) -> None:
        """Take the metrics of a step that was just dispatched; look at those of the step before.

        at_peak: the seconds that the step would take at the devices' peak; 0: not known.
        """
        # On a CPU the call may return when the step is done; otherwise it ends while its metrics are waited for.
        ended = self._clock() if all(value.is_ready() for value in metrics.values()) else None
        self.check()
        self._pending = (step, metrics, ended)
        self._at_peak += at_peak

    def check(self) -> None:
        """Read what is pending; raises UserError where it is not finite."""
        if self._pending is None:
            return
        (step, arrays, ended), self._pending = self._pending, None
        metrics = {name: float(value) for name, value in arrays.items()}
        ended = self._clock() if ended is None else ended
        for name in ("loss", "grad_norm"):
            if not math.isfinite(metrics[name]):
                raise UserError(
                    f"{name} is {metrics[name]} at step {step}; nothing after the last checkpoint was saved. "
                    "Lower config.optim.lr (or use config.method.dtype=float32) and start again to go on from it."
                )
        self._step = step
        self._bar.update(1)
        if step % self._settings.log_every == 0 or step == self._settings.total_steps:
            self._log(metrics, ended)

    def _log(self, metrics: dict[str, float], ended: float) -> None:
        ended = max(ended, self._since + SHORTEST)  # a step seen to be over before the one that it waited for
        seconds = (ended - self._since) / (self._step - self._logged)
        speed = self._settings.batch_size / seconds
        each = {"images_per_second": speed, "images_per_second_per_device": speed / self._devices}
        if self._at_peak:
            each["mfu"] = self._at_peak / (ended - self._since)
        self._writer.scalars(self._step, metrics | each)
        losses = "  ".join(f"{name} {value:.5f}" for name, value in metrics.items() if name != "grad_norm")
        a_device = f" ({speed / self._devices:.1f} a device)" if self._devices > 1 else ""
        mfu = f"  MFU {each['mfu']:.0%}" if "mfu" in each else ""
        eta = tqdm.format_interval((self._settings.total_steps - self._step) * seconds)
        log.info(
            "step %d/%d  %s  %.1f images/s%s%s  ETA %s",
            self._step,
            self._settings.total_steps,
            losses,
            speed,
            a_device,
            mfu,
            eta,
        )
        self._logged, self._since, self._at_peak = self._step, ended, 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside this context does not count as training time."""
        began = time.perf_counter()
        yield
        self._paused += time.perf_counter() - began

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.close()
        if kind is None:
            self.check()
