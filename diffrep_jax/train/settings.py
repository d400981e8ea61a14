"""The config's sections `train`, `optim`, `mesh` and `runtime`: how long, how much at a time, by which steps, where."""

import dataclasses
import re
from typing import Annotated

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import Count, Natural, NotNegative, PathText, Positive, Within, check, shown
from diffrep_jax.train import loggers
from diffrep_jax.types import Config

OPTIMIZERS = ("radam", "adam", "adamw", "sgd")
DECAYING = ("adamw", "sgd")  # those that take a weight_decay


@dataclasses.dataclass(frozen=True)
class Settings:
    """The section `train`.

    Attributes:
      total_steps: updates to make; max_minutes: stop earlier, saved; 0: no limit.
      init_from: the run whose networks this one starts with, "" for none.
      batch_size: images a step, of all devices; microbatch_size: a divisor that is computed at a time, -1: all.
      log_every, checkpoint_every: steps.
      keep_last: how many checkpoints stay, at least 1; keep_every: and all of these steps, 0: no others.
      loggers: "tensorboard", "wandb"; () for metrics.jsonl alone, which is always written.
      profile_steps: the first and the last step of a profile, such as (10, 13); () for none.
    """

    total_steps: Count = 100_000
    max_minutes: NotNegative = 0.0
    init_from: PathText = ""
    batch_size: Annotated[int, Within(1, 2**20)] = 64
    microbatch_size: Annotated[int, Within(1, also=(-1,))] = -1
    log_every: Count = 100
    checkpoint_every: Count = 5000
    keep_last: Count = 2
    keep_every: Natural = 100_000
    loggers: tuple[str, ...] = ("tensorboard",)
    profile_steps: tuple[Count, ...] = ()

    def __post_init__(self):
        check(Settings, vars(self), "config.train")
        loggers.check(self.loggers)
        if self.profile_steps and (len(self.profile_steps) != 2 or self.profile_steps[0] > self.profile_steps[1]):
            raise UserError(
                f"config.train.profile_steps is {tuple(self.profile_steps)}; use the first and the last step, such as "
                "(10, 13), or () for no profile."
            )
        if self.batch_size % self.microbatch:
            raise UserError(
                f"train.batch_size {self.batch_size} does not divide by train.microbatch_size {self.microbatch_size}; "
                "choose a divisor (-1: no micro-batches)."
            )

    @property
    def microbatch(self) -> int:
        """How many images are computed at a time."""
        return self.batch_size if self.microbatch_size == -1 else self.microbatch_size


@dataclasses.dataclass(frozen=True)
class Mesh:
    """The section `mesh`: data x fsdp devices; one of the two may be -1, "what is left"."""

    data: Annotated[int, Within(1, also=(-1,))] = -1
    fsdp: Annotated[int, Within(1, also=(-1,))] = 1


@dataclasses.dataclass(frozen=True)
class Runtime:
    """The section `runtime`: what a process says to XLA as it starts; launch.runtime.apply does it.

    Attributes:
      memory_fraction: of a GPU's memory that is taken at the start; 0: JAX's own choice, three quarters.
      xla_flags: such as "--xla_gpu_enable_triton_gemm=false", after those of XLA_FLAGS.
      fused_attention: by cuDNN, on NVIDIA's GPUs where it fits (`models.attention`).
    """

    memory_fraction: Annotated[float, Within(0, 1)] = 0.0
    xla_flags: tuple[str, ...] = ()
    fused_attention: bool = True

    def __post_init__(self):
        check(Runtime, vars(self), "config.runtime")
        for flag in self.xla_flags:
            if not re.fullmatch(r"--xla_\w+(=[^\s\"']*)?", flag):
                raise UserError(f"config.runtime.xla_flags: {shown(flag)} is no flag; write --xla_NAME=VALUE.")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How the parameters of one label are trained: the section `optim`, and the sections in it, named by label.

    Attributes:
      name: of OPTIMIZERS; lr: the rate, constant unless
      warmup_steps: lead up to it, or it falls along half a cosine over decay_steps, to the part decay_to of it.
      clip_norm: gradients of a larger norm, over all trained parameters, are scaled to it; 0: none are.
      weight_decay: adamw's own, which it needs; of sgd part of the gradient.
    """

    name: str
    lr: Positive
    clip_norm: NotNegative = 0.0
    weight_decay: NotNegative = 0.0
    warmup_steps: Natural = 0
    decay_steps: Natural = 0
    decay_to: NotNegative = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optim(Optimizer):
    """The section `optim` but for the sections in it; ema_decay: of the average of the parameters."""

    ema_decay: Annotated[float, Within(0, 1, below=True)]


def check_optim(config: Config) -> None:
    """Raise UserError where the section `optim`, or one in it, is not what these dataclasses say."""
    place, values = "config.optim", dict(config.items())
    labels = {name: section for name, section in values.items() if hasattr(section, "items")}
    check(Optim, {name: value for name, value in values.items() if name not in labels}, place)
    for label, section in labels.items():
        check(Optimizer, dict(section), f"{place}.{label}")
    for where, section in {place: values, **{f"{place}.{label}": labels[label] for label in labels}}.items():
        if section["name"] not in OPTIMIZERS:
            raise unknown("optimizer", section["name"], OPTIMIZERS, f"{where}.name")
        if section["name"] == "adamw" and "weight_decay" not in section:
            raise UserError(f"{where}.name=adamw needs {where}.weight_decay, a number from 0 on; add it to the config.")
        if section["name"] not in DECAYING and dict(section).get("weight_decay"):
            raise UserError(
                f"{where}.weight_decay={section['weight_decay']:g} is of no use to {where}.name={section['name']}; "
                "leave it at 0, or take adamw."
            )
