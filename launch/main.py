"""The one command: trains a config, or runs a task on a trained run.

python launch/main.py --config=configs/dbae_ffhq.py --workdir=runs/ffhq --data_dir=/data
python launch/main.py --workdir=runs/ffhq --task=reconstruct --config.sampling.steps=20
"""

import argparse
import contextlib
import io
import logging
import os
import pathlib
import sys
from typing import Any, NoReturn

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from diffrep_jax import discovery  # noqa: E402
from diffrep_jax.errors import UserError, unknown  # noqa: E402
from diffrep_jax.paths import expanded, is_address  # noqa: E402

DEFAULT_CONFIG = ROOT / "configs" / "dbae_digits.py"


def tasks() -> list[str]:
    """What `--task` may be."""
    return ["train", *discovery.names("diffrep_jax.tasks", "Task")]


class _Parser(argparse.ArgumentParser):
    """With the errors of a user as one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help.")


class _Typed(argparse.Action):
    """A flag's value; a path with ~ and environment variables put in, which a shell leaves after `=`."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        full = values if self.dest == "task" else expanded(values, str(option_string))
        full = config_file(full) if self.dest == "config" else full
        address = self.dest == "data_dir" and is_address(full)
        setattr(namespace, self.dest, pathlib.Path(full) if self.metavar == "PATH" and not address else full)


def config_file(text: str) -> str:
    """FILE[:VARIANT]; a file that is not there is one of this installation, by its path or its bare name."""
    file, colon, variant = text.partition(":")
    named = ROOT / "configs" / f"{file}.py"
    places = (pathlib.Path(file), ROOT / file, named)
    bare = pathlib.Path(file).name == file and not file.endswith(".py") and not places[0].exists()
    missing = named if bare else places[0]
    return f"{next((place for place in places if place.is_file()), missing)}{colon}{variant}"


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """The flags, and the overrides `--config.a.b=value` (or `--config.a.b value`) as {"a.b": "value"}."""
    parser = _Parser(
        prog="launch/main.py",
        description="Train a config, or run a task on a trained run.",
        epilog="Any value of the config is set by --config.SECTION.FIELD=VALUE, e.g. --config.optim.lr=2e-4.",
        allow_abbrev=False,
    )
    for name, metavar, text in (
        ("config", "FILE[:VARIANT]", "e.g. configs/dbae_celeba.py:bridge=ve"),
        ("workdir", "FOLDER", "the run's folder, also gs://... (default: runs/<config>)"),
        ("task", "TASK", f"one of {', '.join(tasks())} (default: train)"),
        ("data_dir", "PATH", "where the images are, also gs://... (default: $DIFFREP_DATA)"),
        ("checkpoint", "PATH", "what --task=import reads"),
        ("weights_dir", "PATH", "weight files of --task=evaluate (default: fetched once)"),
        ("images", "PATH", "photos of yours for a task, in place of the split; a file, folder or archive"),
    ):
        parser.add_argument(f"--{name}", action=_Typed, metavar=metavar, help=text)
    parser.add_argument("--force-unlock", action="store_true", help="train although another process seems to do so")
    parser.add_argument("--multihost", action="store_true", help="join the other hosts of a cluster or TPU pod")
    flags, rest = parser.parse_known_args(argv)
    flags.task = "train" if flags.task is None else flags.task
    return flags, split_overrides(rest)


def split_overrides(arguments: list[str]) -> dict[str, str]:
    """`["--config.a.b=1", "--config.c", "2"]` -> {"a.b": "1", "c": "2"}; UserError for anything else."""
    overrides, rest = {}, arguments[::-1]
    while rest:
        name, equals, value = rest.pop().partition("=")
        if not name.startswith("--config."):
            raise UserError(f"Unknown argument '{name}'; see --help.")
        if not equals and not rest:
            raise UserError(f"{name} lacks a value; write {name}=VALUE.")
        overrides[name.removeprefix("--config.")] = value if equals else rest.pop()  # the last one of a field holds
    return overrides


def main(argv: list[str]) -> None:
    flags, overrides = parse(argv)
    from launch import runtime

    runtime.show_log("%(asctime)s  %(message)s")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may have bytes that are no text
    if flags.task not in tasks():
        raise unknown("task", flags.task, tasks(), "--task")

    if flags.multihost and flags.task == "import":
        raise UserError("--task=import works in one process; leave out --multihost.")
    runtime.set_up(flags.multihost)  # before anything that uses JAX

    from diffrep_jax import config as configs
    from diffrep_jax import hosts, sections
    from diffrep_jax.data import limits, located
    from diffrep_jax.fields import construct
    from diffrep_jax.inference.open import recipe
    from diffrep_jax.methods.base import build
    from diffrep_jax.runs.layout import Run
    from diffrep_jax.tasks import base
    from diffrep_jax.train.settings import Runtime

    for name in base.PATHS if flags.task == "train" else ():
        if name != "data_dir" and getattr(flags, name) is not None:
            takers = " or ".join(base.takers(name))
            raise UserError(f"--{name} is of no use to --task=train; add --task={takers}.")
    if isinstance(flags.data_dir, pathlib.Path) and not os.path.exists(flags.data_dir):
        raise UserError(f"--data_dir {flags.data_dir} does not exist; name the folder or file of the data.")
    if flags.images is not None and hosts.is_first() and not os.path.exists(flags.images):  # who does the task
        raise UserError(f"--images {flags.images} does not exist; name a photo, or a folder or archive of them.")
    config, workdir = _config_and_workdir(flags)
    configs.override(config, overrides)
    runtime.apply(construct(Runtime, config.runtime, "config.runtime"))
    changed = {name.split(".")[1] for name in overrides if name.startswith("tasks.")}
    sections.check(config, changed if flags.config is None else base.names())
    limits.use(limits.Limits(config.data.max_pixels, config.data.max_bytes))
    method = build(config.method)
    recipe(config).plan(method.process)  # refuses what does not go together
    _check_same_model(config, workdir, method, overrides)
    if flags.multihost and not hosts.is_first():
        logging.getLogger().setLevel(logging.WARNING)  # one process speaks for all
    if isinstance(flags.data_dir, str):  # an address: copied once all else is right
        flags.data_dir = located(flags.data_dir)
    run = Run.at(workdir, config)
    if flags.task == "train":
        _train(method, run, flags)
    else:
        _run_task(flags, run)


def _config_and_workdir(flags: argparse.Namespace) -> tuple:
    """The config named, or the one next to the checkpoint, or the run's; the folder named, or runs/<config file>."""
    from diffrep_jax import config as configs
    from diffrep_jax import sections
    from diffrep_jax.runs import config as run_config
    from diffrep_jax.tasks.base import task_class

    spec = flags.config
    if spec is None:
        if flags.checkpoint is not None and flags.workdir is not None and run_config.is_run(flags.checkpoint.parent):
            return sections.complete(run_config.load(flags.checkpoint.parent)), flags.workdir
        if flags.workdir is not None and run_config.is_run(flags.workdir):
            return sections.complete(run_config.load(flags.workdir)), flags.workdir
        if flags.task != "train" and not task_class(flags.task).needs_run:
            raise UserError(f"--task={flags.task} needs a config; add --config=configs/FILE.py, or a run's --workdir.")
        if flags.task != "train" and flags.workdir is not None:
            return run_config.load(flags.workdir), flags.workdir  # refuses, and says why
        spec = str(DEFAULT_CONFIG)
    workdir = flags.workdir or str(pathlib.Path("runs") / pathlib.Path(spec.partition(":")[0]).stem)
    return sections.complete(configs.load_file(spec)), workdir


def _check_same_model(config, workdir: str, method, overrides: dict[str, str]) -> None:
    """Refuse a config whose model or data are not those of the run; data that were named on the command line may be."""
    from diffrep_jax import data, sections
    from diffrep_jax.runs import config as run_config

    if not run_config.is_run(workdir):
        return
    changeable = {f"data.{name}" for name in data.Settings.changeable}
    changeable |= {f"method.{name}" for name in method.changeable}
    changeable |= {name for name in overrides if name.startswith("data.")} - {"data.image_size", "data.channels"}
    run_config.check_same_model(config, sections.complete(run_config.load(workdir)), workdir, changeable)


def _train(method, run, flags: argparse.Namespace) -> None:
    from diffrep_jax.train.loop import train
    from launch.hooks import task_hooks

    hooks = task_hooks(method, run, flags.data_dir)
    state = train(method, run, flags.data_dir, hooks, flags.force_unlock)
    logging.info("Trained to step %d; the run is in %s.", int(state.step), run.folder)


def _run_task(flags: argparse.Namespace, run) -> None:
    from diffrep_jax import hosts
    from diffrep_jax.inference.open import open_run
    from diffrep_jax.methods.base import method_class, refuse_maker_of_codes
    from diffrep_jax.tasks import base

    paths = {name: getattr(flags, name) for name in base.PATHS}
    task = base.build(flags.task, run.config.tasks[flags.task], paths)
    if task.needs_run and hasattr(task, "data_dir"):
        refuse_maker_of_codes(method_class(run.config.method.name))
    if flags.task not in base.SHARED and not hosts.is_first():
        return
    with contextlib.nullcontext() if flags.task in base.SHARED else hosts.alone():
        task.run(open_run(run.folder, config=run.config) if task.needs_run else None, run)


def _flag(argv: list[str], name: str) -> str | None:
    """The value of --name, as typed; None where it is not there."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        flag, equals, value = argument.partition("=")
        if flag == f"--{name}":
            return value if equals else following
    return None


def run(argv: list[str]) -> None:
    """`main`, with the mistakes of a user, and what the machine refuses, as one line and exit code 2."""
    from launch.failures import explained

    try:
        main(argv)
    except Exception as error:
        line = explained(error, _flag(argv, "workdir"), _flag(argv, "task") or "train")
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        trains = (_flag(argv, "task") or "train") == "train"
        then = "; the same command goes on from the last checkpoint." if trains else "."
        print(f"Interrupted{then}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    from diffrep_jax.train import stop
    from launch.failures import quiet
    from launch.runtime import together

    stop.watch("what was complete stays")
    quiet()
    if "--multihost" in sys.argv:
        together(run, sys.argv[1:])
    else:
        run(sys.argv[1:])
