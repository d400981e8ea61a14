"""Tasks in tests: run on a model that is open already, or on a run's folder, with a few settings changed."""

import contextlib
import dataclasses

import pytest

from diffrep_jax.inference.model import Model
from diffrep_jax.inference.open import open_run, recipe
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import _codes, base
from tests.tiny import tiny_config

BATCH = 4  # images at a time, where a test asks for no other size: one compilation serves many tests


def run_task(name, trained, out, paths=None, sampling=None, **settings):
    """(The numbers that the task returns, its folder.)

    trained: the tiny run's model, or the folder of any run; out: where it writes; sampling, settings: fields of the
    config's section of that name, and of the task's.
    """
    config = tiny_config() if isinstance(trained, Model) else run_config.load(trained)
    with config.unlocked():
        decodes = "invert_steps" in config.tasks[name]
        config.tasks[name].update({"batch_size": BATCH} if decodes else {})
        config.tasks[name].update({"encode_batch_size": BATCH} if "encode_batch_size" in config.tasks[name] else {})
        config.tasks[name].update(settings)
        config.sampling.update(sampling or {})
    task = base.build(name, config.tasks[name], paths or {})
    if isinstance(trained, Model):
        model = dataclasses.replace(trained, sampling=recipe(config))
    else:
        model = open_run(trained, config=config)
    return task.run(model, Run.at(out, config)), out / name


def kept(folder):
    """The folder, made a run's by its config alone: codes are kept in it."""
    folder.mkdir(exist_ok=True)
    run_config.save(tiny_config(), folder)
    return folder


@contextlib.contextmanager
def killed_at_the_third_part(monkeypatch):
    """Inside, an encoding dies when it has written two parts of its codes."""
    plain, saved = _codes.write_arrays, []

    def die_at_the_third(path, **arrays):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(path)
        plain(path, **arrays)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_codes, "write_arrays", die_at_the_third)
        yield
