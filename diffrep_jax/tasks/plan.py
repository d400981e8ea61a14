"""How long a config trains on given devices, whether it fits and with which settings: known before one pays for them.

No accelerator is needed. FLOPs are XLA's count. Memory is an estimate (`train.liveness`); for "cpu", and for TPUs where
that is asked for, the compiler says.
"""

import dataclasses
import logging
import time
from typing import Annotated, Any, ClassVar

import jax
from jax.sharding import Mesh

from diffrep_jax.errors import UserError
from diffrep_jax.fields import Count, NotNegative, Within, construct
from diffrep_jax.methods.base import Method, build
from diffrep_jax.runs.layout import Run
from diffrep_jax.train import cost, devices, slices
from diffrep_jax.train.settings import Settings
from diffrep_jax.types import Config

log = logging.getLogger(__name__)

USABLE = 0.9  # of a device's memory; the rest is the driver's, the program's, and lost between buffers
DAY = 24 * 3600.0
SHORTEST = 2e-3  # seconds that a step takes whatever is in it, roughly


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to train, and what it needs of each device.

    Attributes:
      fsdp: devices that parameters, averages and optimizer are split over; remat: residual blocks are recomputed.
      state_bytes: what stays; largest: the most images that a device can compute at a time, 0: the state does not fit.
    """

    fsdp: int
    remat: bool
    state_bytes: int
    largest: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """Attributes:
    device: a name of `train.devices`, or "cpu" for this machine; devices: how many of them.
    mfu: the part of the peak that training is taken to reach; `python -m benchmarks.throughput` measures it (0.24 on an
      H200, CelebA64 with all networks in bfloat16).
    price: of a device for an hour, 0: unknown.
    compile: for TPUs, by libtpu (pip install libtpu), which needs none: their memory, and a rehearsal of a pod.
    """

    needs_run: ClassVar[bool] = False

    device: str = "H100"
    devices: Count = 1
    mfu: Annotated[float, Within(0, 1, above=True)] = 0.2
    price: NotNegative = 0.0
    compile: bool = False

    def __post_init__(self) -> None:
        if self.device.lower() != "cpu":
            devices.named(self.device, "config.tasks.plan.device")
        if self.compile and self.device.lower() not in slices.DIMENSIONS:
            raise UserError(
                f"config.tasks.plan.compile=True is for {', '.join(slices.DIMENSIONS)}, and tasks.plan.device is "
                f"{self.device}; leave it out: for cpu the step is compiled anyway, for others where they are."
            )

    def run(self, model: None, run: Run) -> dict[str, float]:
        config, method = run.config, build(run.config.method)
        settings = construct(Settings, config.train, "config.train")
        fsdp = self._fsdp(config, settings)
        mesh = slices.mesh(self.device.lower(), self.devices, self.devices // fsdp, fsdp) if self.compile else None
        cpu = self.device.lower() == "cpu"
        device = devices.this_cpu(method.dtype) if cpu else devices.named(self.device, "config.tasks.plan.device")
        log.info("Tracing the training step; a minute for large networks ...")
        at_a_time = settings.microbatch // self.devices
        platform = "cuda" if device.fused else device.platform
        costs = {remat: cost.step_cost(form, config, platform) for remat, form in forms(method).items()}
        remat = getattr(method, "remat", False)
        if cpu or mesh is not None:
            log.info("Compiling it; minutes for large networks ...")
            compiled = (
                cost.compiled_temporaries(method, config, at_a_time)
                if mesh is None
                else self._compiled(mesh, method, config, settings)
            )
            part = compiled / costs[remat].temporaries(at_a_time)
            costs = {again: step.scaled(part) for again, step in costs.items()}
        temporaries = costs[remat].temporaries(at_a_time)
        state = self._state_bytes(method, config, fsdp)
        room = USABLE * device.memory
        ways = [
            self._way(method, config, n, again, step, room)
            for n in sorted({fsdp, self.devices})
            for again, step in costs.items()
        ]
        flops = min(step.flops for step in costs.values())  # the model's, not what remat does twice
        seconds = (
            flops * settings.batch_size * settings.total_steps / (device.peak(method.dtype) * self.mfu * self.devices)
        )
        numbers: dict[str, Any] = {
            "parameters": cost.count(method),
            "flops_per_image": flops,
            "peak_flops": device.peak(method.dtype),
            "memory_bytes": device.memory,
            "state_bytes": state,
            "temporary_bytes": round(temporaries),
            "fused_attention": costs[remat].fused,
            "fits": bool(state + temporaries <= room),
            "images_per_second": settings.batch_size * settings.total_steps / seconds,
            "days": seconds / DAY,
            "price": self.price * self.devices * seconds / 3600,
        }
        run.write_numbers(
            "plan", numbers | {"plan": dataclasses.asdict(self), "ways": [dataclasses.asdict(way) for way in ways]}
        )
        self._tell(numbers, ways, settings, method.dtype)
        return numbers

    def _fsdp(self, config: Config, settings: Settings) -> int:
        """How many devices the config splits the state over, of those of the plan."""
        data, fsdp = config.mesh.data, config.mesh.fsdp
        fsdp = self.devices // max(data, 1) if fsdp == -1 else fsdp
        if fsdp < 1 or self.devices % fsdp or data not in (-1, self.devices // fsdp):
            raise UserError(
                f"config.mesh data={data} x fsdp={config.mesh.fsdp} does not make up the {self.devices} devices of "
                "config.tasks.plan.devices; set --config.mesh.data=-1 and a --config.mesh.fsdp that divides them."
            )
        if settings.microbatch % self.devices:
            raise UserError(
                f"{settings.microbatch} images at a time (train.batch_size, train.microbatch_size) do not divide by "
                f"tasks.plan.devices={self.devices}; choose a multiple."
            )
        return fsdp

    def _compiled(self, mesh: Mesh, method: Method, config: Config, settings: Settings) -> int:
        """Bytes of intermediate values of a TPU, by its compiler."""
        began = time.perf_counter()
        microbatches = settings.batch_size // settings.microbatch
        try:
            temporaries = cost.compiled_temporaries_on(mesh, method, config, settings.microbatch, microbatches)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(
                f"The compiler of {self.device} finds no room: {str(error).splitlines()[0]} Raise "
                "--config.mesh.fsdp, or set --config.train.microbatch_size to less."
            ) from None
        where = slices.topology(self.device.lower(), mesh.size)
        log.info("Compiled for %s in %.0f s.", where, time.perf_counter() - began)
        return temporaries

    def _state_bytes(self, method: Method, config: Config, fsdp: int) -> int:
        return cost.total_bytes(cost.state_shapes(method, config, self.devices // fsdp, fsdp))

    def _way(self, method: Method, config: Config, fsdp: int, remat: bool, step: cost.Cost, room: float) -> Way:
        state = self._state_bytes(method, config, fsdp)
        return Way(fsdp, remat, state, step.images_within(room - state))

    def _tell(self, numbers: dict[str, Any], ways: list[Way], settings: Settings, dtype: str) -> None:
        """The plan in words."""
        gib, speed = 2.0**30, numbers["images_per_second"]
        log.info(
            "%.1f million parameters, %.1f GFLOP an image and step.",
            numbers["parameters"] / 1e6,
            numbers["flops_per_image"] / 1e9,
        )
        log.info(
            "%d x %s: %s images/s, %s steps of %d images in %.3g days, at %g of %.3g TFLOP/s (%s)%s.",
            self.devices,
            self.device,
            f"{speed:,.0f}" if speed > 100 else f"{speed:.3g}",
            f"{settings.total_steps:,d}",
            settings.batch_size,
            numbers["days"],
            self.mfu,
            numbers["peak_flops"] / 1e12,
            dtype,
            f", for {numbers['price']:,.0f}" if self.price else "",
        )
        if numbers["days"] * DAY / settings.total_steps < SHORTEST:
            log.info("That is below %g ms a step: launching it, not its FLOPs, will decide.", 1000 * SHORTEST)
        need = (numbers["state_bytes"] + numbers["temporary_bytes"]) / gib
        log.info(
            "Memory of a device: %.1f GiB of state and %.1f GiB to compute %d images at a time; it has %.1f GiB: %s.",
            numbers["state_bytes"] / gib,
            numbers["temporary_bytes"] / gib,
            settings.microbatch // self.devices,
            numbers["memory_bytes"] / gib,
            "it fits" if numbers["fits"] else f"{need:.1f} GiB do not fit",
        )
        log.info("The most images that all devices together can compute at a time:")
        for way in ways:
            flags = f"--config.mesh.fsdp={way.fsdp} --config.method.remat={way.remat}"
            most = f"{way.largest * self.devices:,d}" if way.largest else "none: the state does not fit"
            if way.largest == cost.LARGEST:
                most = "as many as you like"
            log.info("  %-55s %s", flags, most)
        if numbers["fused_attention"]:
            log.info("Attention is counted as cuDNN's, without a weight for each pair of tokens, wherever that fits.")
        if self.device.lower() != "cpu" and not self.compile:
            log.info("Memory is estimated, not compiled: try a few steps before you pay for many.")
        if not numbers["fits"]:
            log.info("Set --config.train.microbatch_size to a divisor of %d that fits.", settings.batch_size)


def forms(method: Method) -> dict[bool, Method]:
    """{whether blocks are recomputed: the method so}, of one form where it has no say in that."""
    if not any(field.name == "remat" for field in dataclasses.fields(method)):  # type: ignore[arg-type]
        return {False: method}
    return {remat: dataclasses.replace(method, remat=remat) for remat in (False, True)}  # type: ignore[type-var]


Task = Plan
