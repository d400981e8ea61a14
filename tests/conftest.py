"""Fixtures of all tests, and the marker gpu."""

import os

import jax
import pytest

from diffrep_jax import forms

# Files that take longest, the longest first: begun early, so that no worker is left alone with one at the end.
LONGEST = (
    "port_dbae",
    "port_pdae",
    "evaluate",
    "devices",
    "train",
    "diffae",
    "cli",
    "run_config",
    "editing_tasks",
    "tasks",
)


@pytest.fixture(scope="session", autouse=True)
def compilation(tmp_path_factory):
    """One compilation a program and session, also in processes that tests start, and a quick one: most take seconds.

    Nothing is left from earlier sessions.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder  # one for all workers
    settings = {"jax_compilation_cache_dir": str(folder / "xla"), "jax_disable_most_optimizations": True}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in (settings | {"jax_persistent_cache_min_compile_time_secs": 0.2}).items():
            jax.config.update(name, value)
            environment.setenv(name.upper(), str(value))
        yield


def _optimized(compilation):
    """Programs as users have them: for tests of speed and memory, and of different programs' equal bits."""
    with pytest.MonkeyPatch.context() as environment:
        jax.config.update("jax_disable_most_optimizations", False)
        environment.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "False")
        yield
    jax.config.update("jax_disable_most_optimizations", True)


optimized = pytest.fixture(_optimized, name="optimized")
optimized_file = pytest.fixture(_optimized, scope="module", name="optimized_file")


@pytest.fixture(scope="module")
def traced_for_cpu():
    """Networks are traced in the form for CPUs alone, in half the time; the forms have tests of their own."""
    with forms.tracing_for("cpu"):
        yield


@pytest.fixture(scope="module")
def traced_plainly():
    """Networks are traced in the form for any platform, which compiles soonest."""
    with forms.plain():
        yield


def _cudnn():
    """Attention is traced as on a machine with a new NVIDIA GPU; nothing can run it here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffrep_jax.models.attention._gpus_have_it", lambda: True)
        patch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
        yield


cudnn = pytest.fixture(_cudnn, name="cudnn")
cudnn_file = pytest.fixture(_cudnn, scope="module", name="cudnn_file")


@pytest.fixture
def x64():
    """Float64 inside the test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # pytest-xdist would begin with the files of most tests


def pytest_collection_modifyitems(items):
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    if jax.default_backend() == "cpu":
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, compilation):
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
