"""The one command: trains a config, or runs a task on a trained run.

python launch/main.py --config=configs/dbae_ffhq.py --workdir=runs/ffhq --data_dir=/data
python launch/main.py --workdir=runs/ffhq --task=reconstruct --config.sampling.steps=20
"""

import argparse
import contextlib
import logging
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from diffrep_jax import discovery  # noqa: E402
from diffrep_jax.errors import UserError, unknown  # noqa: E402

DEFAULT_CONFIG = ROOT / "configs" / "dbae_digits.py"


def tasks() -> list[str]:
    """What `--task` may be."""
    return ["train", *discovery.names("diffrep_jax.tasks", "Task")]


def expanded(text: str) -> str:
    """A path as typed, with ~ and environment variables put in: a shell leaves those after `=` to the program."""
    return os.path.expanduser(os.path.expandvars(text))


def path(text: str) -> pathlib.Path:
    return pathlib.Path(expanded(text))


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """The flags, and the overrides `--config.a.b=value` (or `--config.a.b value`) as {"a.b": "value"}."""
    parser = argparse.ArgumentParser(
        prog="launch/main.py",
        description="Train a config, or run a task on a trained run.",
        epilog="Any value of the config is set by --config.SECTION.FIELD=VALUE, e.g. --config.optim.lr=2e-4.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", type=expanded, metavar="FILE[:VARIANT]", help="e.g. configs/dbae_celeba.py:bridge=ve"
    )
    parser.add_argument("--workdir", help="the run's folder, also gs://... (default: runs/<config>)")
    parser.add_argument("--task", default="train", metavar="TASK", help=f"one of {', '.join(tasks())} (default: train)")
    parser.add_argument("--data_dir", type=path, help="where the images are (default: $DIFFREP_DATA)")
    parser.add_argument("--checkpoint", type=path, metavar="FILE", help="what --task=import reads")
    parser.add_argument(
        "--weights_dir", type=path, metavar="DIR", help="weight files of --task=evaluate (default: fetched once)"
    )
    parser.add_argument(
        "--images", type=path, metavar="PATH", help="images for import to measure, or manipulate to change"
    )
    parser.add_argument("--force-unlock", action="store_true", help="train although another process seems to do so")
    parser.add_argument("--multihost", action="store_true", help="join the other hosts of a cluster or TPU pod")
    flags, rest = parser.parse_known_args(argv)
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
        overrides[name.removeprefix("--config.")] = value if equals else rest.pop()
    return overrides


def main(argv: list[str]) -> None:
    flags, overrides = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    for library in ("absl", "jax", "orbax"):
        logging.getLogger(library).setLevel(logging.WARNING)
    if flags.task not in tasks():
        raise unknown("task", flags.task, tasks(), "--task")

    if flags.multihost and flags.task == "import":
        raise UserError("--task=import works in one process; leave out --multihost.")

    from launch import runtime

    runtime.set_up(flags.multihost)  # before anything that uses JAX

    from diffrep_jax import config as configs
    from diffrep_jax import hosts, sections
    from diffrep_jax.methods.base import build
    from diffrep_jax.runs.layout import Run
    from diffrep_jax.tasks import base

    for name in base.PATHS if flags.task == "train" else ():
        if name != "data_dir" and getattr(flags, name) is not None:
            takers = " or ".join(base.takers(name))
            raise UserError(f"--{name} is of no use to --task=train; add --task={takers}.")
    config, workdir = _config_and_workdir(flags)
    configs.override(config, overrides)
    sections.check(config)
    method = build(config.method)
    _check_same_model(config, workdir, method, overrides)
    if flags.multihost and not hosts.is_first():
        logging.getLogger().setLevel(logging.WARNING)  # one process speaks for all
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
    return configs.load_file(spec), workdir


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
    from diffrep_jax.tasks import base

    paths = {name: getattr(flags, name) for name in base.PATHS}
    task = base.build(flags.task, run.config.tasks[flags.task], paths)
    if flags.task not in base.SHARED and not hosts.is_first():
        return
    with contextlib.nullcontext() if flags.task in base.SHARED else hosts.alone():
        task.run(open_run(run.folder, config=run.config) if task.needs_run else None, run)


def run(argv: list[str]) -> None:
    """`main`, with the mistakes of a user as one line and exit code 2."""
    try:
        main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    if "--multihost" in sys.argv:
        from launch.runtime import together

        together(run, sys.argv[1:])
    else:
        run(sys.argv[1:])
