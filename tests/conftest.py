"""Fixtures of all tests, and the marker gpu."""

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory):
    """One compilation a program, as users have it, but nothing left from earlier sessions."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


@pytest.fixture
def x64():
    """Float64 inside the test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def pytest_collection_modifyitems(items):
    if jax.default_backend() == "cpu":
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, compile_cache):
    """The folder of a tiny DBAE trained for four steps on digits."""
    from diffrep_jax.methods.base import build
    from diffrep_jax.runs.layout import Run
    from diffrep_jax.train.loop import train
    from tests.tiny import tiny_config

    workdir = tmp_path_factory.mktemp("tiny run")
    config = tiny_config()
    train(build(config.method), Run.at(workdir, config), None)
    return workdir


@pytest.fixture(scope="session")
def tiny_model(tiny_run):
    """The model of that run, opened once."""
    from diffrep_jax.inference.open import open_run

    return open_run(tiny_run)
