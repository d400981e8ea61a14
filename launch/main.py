"""The one command: trains a config, or runs a task on a trained run.

python launch/main.py --config=configs/dbae_ffhq.py --workdir=runs/ffhq --data_dir=/data
python launch/main.py --workdir=runs/ffhq --task=reconstruct --config.tasks.reconstruct.steps=20
"""

import argparse
import logging
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from diffrep_jax.errors import UserError  # noqa: E402

DEFAULT_CONFIG = ROOT / "configs" / "dbae_digits.py"


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """The flags, and the overrides `--config.a.b=value` (or `--config.a.b value`) as {"a.b": "value"}."""
    parser = argparse.ArgumentParser(
        prog="launch/main.py",
        description="Train a config, or run a task on a trained run.",
        epilog="Any value of the config is set by --config.SECTION.FIELD=VALUE, e.g. --config.optim.lr=2e-4.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE[:VARIANT]", help="e.g. configs/dbae_celeba.py:bridge=ve")
    parser.add_argument("--workdir", type=pathlib.Path, help="the run's folder (default: runs/<config>)")
    parser.add_argument("--task", default="train", help="train, or a file of diffrep_jax/tasks (default: train)")
    parser.add_argument("--data_dir", type=pathlib.Path, help="where the images are (default: $DIFFREP_DATA)")
    parser.add_argument("--checkpoint", type=pathlib.Path, metavar="FILE", help="what --task=import reads")
    parser.add_argument(
        "--weights_dir",
        type=pathlib.Path,
        metavar="DIR",
        help="weight files of --task=evaluate (default: fetched once)",
    )
    parser.add_argument(
        "--images", type=pathlib.Path, metavar="PATH", help="images for import to measure, or manipulate to change"
    )
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

    from diffrep_jax.train import runtime

    runtime.set_up(flags.multihost)  # before anything that uses JAX

    from diffrep_jax import config as configs
    from diffrep_jax.methods.base import build
    from diffrep_jax.tasks import base as tasks

    if flags.task not in (known := [*tasks.names(), "train"]):
        raise configs.unknown("task", flags.task, known, "--task")
    config, workdir = _config_and_workdir(flags)
    configs.override(config, overrides)
    configs.check_same_model(config, workdir, overrides)
    method = build(config.method)

    if flags.multihost and not runtime.is_first():
        logging.getLogger().setLevel(logging.WARNING)  # one process speaks for all
    if flags.task == "train":
        for flag, task in (("checkpoint", "import"), ("images", "import or manipulate"), ("weights_dir", "evaluate")):
            if getattr(flags, flag) is not None:
                raise UserError(f"--{flag} is of no use to --task=train; add --task={task}.")
        _train(method, config, workdir, flags.data_dir)
    else:
        _run_task(flags, method, config, workdir)


def _config_and_workdir(flags: argparse.Namespace) -> tuple:
    """The config named, or the one beside the checkpoint, or the run's own; the folder named, or runs/<config file>."""
    from diffrep_jax import config as configs
    from diffrep_jax.tasks.base import task_class

    spec = flags.config
    if spec is None:
        if flags.checkpoint is not None and flags.workdir is not None and configs.is_run(flags.checkpoint.parent):
            return configs.load_run(flags.checkpoint.parent), flags.workdir
        if flags.workdir is not None and configs.is_run(flags.workdir):
            return configs.load_run(flags.workdir), flags.workdir
        if flags.task != "train" and not task_class(flags.task).needs_run:
            raise UserError(f"--task={flags.task} needs a config; add --config=configs/FILE.py, or a run's --workdir.")
        if flags.task != "train" and flags.workdir is not None:
            return configs.load_run(flags.workdir), flags.workdir  # refuses, and says why
        spec = str(DEFAULT_CONFIG)
    workdir = flags.workdir or pathlib.Path("runs") / pathlib.Path(spec.partition(":")[0]).stem
    return configs.load_file(spec), workdir


def _train(method, config, workdir: pathlib.Path, data_dir: pathlib.Path | None) -> None:
    from diffrep_jax.train.loop import train
    from launch.hooks import task_hooks

    state = train(method, config, workdir, data_dir, task_hooks(method, config, workdir, data_dir))
    logging.info("Trained to step %d; the run is in %s.", int(state.step), workdir)


def _run_task(flags: argparse.Namespace, method, config, workdir: pathlib.Path) -> None:
    from diffrep_jax.tasks import base

    if flags.task not in config.tasks:
        raise UserError(
            f"The config in {workdir} has no section tasks.{flags.task}: an earlier version wrote it. Add "
            "--config=FILE, the config file that the run began with."
        )
    task = base.build(flags.task, config.tasks[flags.task], {path: getattr(flags, path) for path in base.PATHS})
    task.run(method, _trained(method, workdir) if task.needs_run else None, config, workdir)


def _trained(method, workdir: pathlib.Path):
    """The averaged variables of the run, on this machine's devices."""
    import jax

    from diffrep_jax.train.checkpoint import load_variables
    from diffrep_jax.train.sharding import make_mesh

    return load_variables(workdir, method, make_mesh(devices=jax.local_devices()))


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
    run(sys.argv[1:])
