"""The config's sections `train` and `mesh`: how long, how much at a time, what is kept, on which devices."""

import dataclasses

from diffrep_jax.errors import UserError
from diffrep_jax.fields import check_numbers
from diffrep_jax.train import loggers


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
    """

    total_steps: int = 100_000
    max_minutes: float = 0.0
    init_from: str = ""
    batch_size: int = 64
    microbatch_size: int = -1
    log_every: int = 100
    checkpoint_every: int = 5000
    keep_last: int = 2
    keep_every: int = 100_000
    loggers: tuple[str, ...] = ("tensorboard",)

    def __post_init__(self):
        loggers.check(self.loggers)
        least = {"total_steps": 1, "max_minutes": 0, "batch_size": 1, "log_every": 1, "checkpoint_every": 1}
        check_numbers(self, "config.train", least | {"keep_last": 1, "keep_every": 0})
        if self.microbatch_size != -1:
            check_numbers(self, "config.train", {"microbatch_size": 1})
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

    data: int = -1
    fsdp: int = 1
