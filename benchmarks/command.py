"""What the commands of the benchmarks share: a config with overrides, rows in a file, one line where input is wrong."""

import contextlib
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from diffrep_jax import config as configs
from diffrep_jax.errors import UserError
from launch import runtime
from launch.main import split_overrides


def configured(file: str, overrides: list[str]) -> ConfigDict:
    """The config of a file with `--config.NAME=VALUE`; sets JAX up, with the section `runtime`. Before JAX is used."""
    runtime.set_up()
    from diffrep_jax import sections

    config: Any = sections.complete(configs.load_file(file))
    configs.override(config, split_overrides(overrides))
    from diffrep_jax.fields import construct
    from diffrep_jax.train.settings import Runtime

    runtime.apply(construct(Runtime, config.runtime, "config.runtime"))
    return config


def append(path: pathlib.Path | None, row: dict[str, Any]) -> None:
    """A line of JSON more, where there is a path."""
    if path:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Wrong input ends the process with one line and exit code 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
