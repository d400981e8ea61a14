"""The sections of a config and the dataclasses that own them: defaults for new ones, completion of earlier ones."""

from collections.abc import Collection, Iterable
from typing import Annotated, Any

from ml_collections import ConfigDict

from diffrep_jax import data
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import LARGEST, Within, check_value, completed, construct, defaults, refuse_unknown, shown
from diffrep_jax.methods import base as methods
from diffrep_jax.samplers.recipe import Sampling
from diffrep_jax.tasks import base as tasks
from diffrep_jax.train import settings as train
from diffrep_jax.types import Config

OWNERS = {
    "data": data.Settings,
    "train": train.Settings,
    "mesh": train.Mesh,
    "runtime": train.Runtime,
    "sampling": Sampling,
}
NAMES = ("seed", "method", "data", "optim", "train", "mesh", "runtime", "sampling", "tasks")


def new(**sections: dict[str, Any]) -> dict[str, Any]:
    """{section: its values} of all sections but `method` and `optim`, from the defaults and what is given."""
    values = {name: defaults(owner) | sections.pop(name, {}) for name, owner in OWNERS.items()}
    values["tasks"] = tasks.sections()
    return {"seed": 0} | values | sections


def complete(config: Config) -> Config:
    """The config, as an earlier version wrote it, with all fields that there are; locked.

    Raises UserError, by name, for what is unknown.
    """
    refuse_unknown(list(config), NAMES, "config")
    for name in ("method", "optim", *OWNERS, "tasks"):
        if name in config and not isinstance(config[name], ConfigDict):
            raise UserError(f"config.{name} is {shown(config[name])}; make it a section of fields.")
        if name not in config and name in ("method", "optim"):
            raise UserError(f"config lacks the section {name}; add it, as configs/_shared.py's configs have it.")
    if "name" not in config.method:
        raise UserError("config.method lacks name, the method's; add it to the config.")
    cls = methods.method_class(config.method.name)
    with config.unlocked():
        for name, owner in OWNERS.items():
            _complete(config, name, defaults(owner), f"config.{name}")
        _complete(config, "tasks", {}, "config.tasks", tasks.names())
        for name, section in tasks.sections().items():
            _complete(config.tasks, name, section, f"config.tasks.{name}")
        for name, value in (defaults(cls) | completed(cls, dict(config.method))).items():
            if name not in config.method:
                config.method[name] = value
            elif hasattr(value, "items"):
                config.method[name].update({field: v for field, v in value.items() if field not in config.method[name]})
        if "seed" not in config:
            config.seed = 0
    config.lock()
    return config


def _complete(parent: Any, name: str, values: dict[str, Any], place: str, known: Collection[str] = ()) -> None:
    """Add to a section, made if it is not there, the values that it lacks; refuse what is not `known`."""
    if name not in parent:
        parent[name] = ConfigDict()
    section = parent[name]
    refuse_unknown(dict(section), known or values, place)
    for field, value in values.items():
        if field not in section:
            section[field] = value


def check(config: Config, checked: Iterable[str] = ()) -> None:
    """Raise UserError for values that no section's owner takes; of the sections of tasks, those of `checked`."""
    for name, owner in OWNERS.items():
        construct(owner, config[name], f"config.{name}")
    check_value(config.seed, Annotated[int, Within(0, LARGEST)], "config.seed")
    train.check_optim(config.optim)
    for name in checked:
        task = tasks.build(name, config.tasks[name], {})
        if getattr(task, "every_steps", 0) and hasattr(task, "split"):  # else it is refused where it is opened
            splits = data.splits(getattr(task, "dataset", "") or config.data.name)
            if task.split not in splits:
                raise unknown("split", task.split, splits, f"config.tasks.{name}.split")
