"""Who may import whom, what a light import loads, and the house rules that can be read off the source."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from diffrep_jax import discovery

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "diffrep_jax"
SOURCES = sorted(path for folder in ("diffrep_jax", "launch", "configs") for path in (ROOT / folder).rglob("*.py"))

LEAVES = ("types", "errors", "paths", "whole", "discovery", "fields", "forms", "pixels")
# What each part of the package may import from the others; all may import themselves and the LEAVES.
MAY_IMPORT = {
    "__init__": ("api",),
    **dict.fromkeys(LEAVES, ()),
    "config": (),
    "command": (),
    "hosts": ("peers",),
    "peers": (),
    "sharding": (),
    "processes": (),
    "samplers": (),
    "models": (),
    "metrics": (),
    "readout": (),
    "data": (),
    "port": (),
    "methods": ("models", "processes", "samplers"),
    # All but the first for a run's weights alone, which may be an export.
    "runs": ("methods.base", "methods.parameters", "sharding", "port.own", "port.files"),
    "inference": ("methods.base", "methods.noise_coded", "samplers", "readout", "runs", "sharding"),
    "train": (
        "methods.base",
        "methods.parameters",
        "data",
        "runs",
        "sharding",
        "hosts",
        "peers",
    ),  # launch hands tasks over
    "report": ("runs",),  # its files, not its networks
    "tasks": (
        "methods.base",
        "methods.parameters",
        "samplers.recipe",
        "inference",
        "data",
        "metrics",
        "readout",
        "runs",
        "report",
        "port",
        "sharding",
        "hosts",
        "train.state",  # what an imported checkpoint is made of
        "train.cost",  # what a plan is made of, and the next three
        "train.devices",
        "train.slices",
        "train.settings",
    ),
    "sections": ("data", "methods.base", "samplers.recipe", "tasks.base", "train.settings"),
    "api": ("inference",),
}
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS, MOST_UNTYPED = 400, 60, 8, 5


def relative(path):
    return path.relative_to(ROOT).as_posix()


def syntax(path):
    return ast.parse(path.read_text(), relative(path))


def imports(tree):
    """The full dotted names that a module imports, anywhere in it: [(name, line)]."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def inside(name, parents):
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def part_of(path):
    """The folder or the module of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


PACKAGE_SOURCES = [path for path in SOURCES if path.is_relative_to(PACKAGE)]


# --- layers


@pytest.mark.parametrize("path", PACKAGE_SOURCES, ids=relative)
def test_parts_import_only_what_they_may(path):
    part = part_of(path)
    assert part in MAY_IMPORT, f"{part} is new: say in MAY_IMPORT what it may import"
    allowed = {part, *LEAVES, *MAY_IMPORT[part]}
    for name, line in imports(syntax(path)):
        if name.partition(".")[0] in ("launch", "configs", "tests", "benchmarks"):
            pytest.fail(f"{relative(path)}:{line} imports {name}, which is not part of the package")
        if name.startswith("diffrep_jax."):
            target = name.removeprefix("diffrep_jax.")
            assert inside(target, allowed), f"{relative(path)}:{line}: {part} may not import {target}"


SHARED = ("base", "ssl", "parameters", "networks")  # what methods have in common


def test_a_method_extends_at_most_one_other():
    for path in (PACKAGE / "methods").glob("*.py"):
        names = {name.split(".")[2] for name, _ in imports(syntax(path)) if name.startswith("diffrep_jax.methods.")}
        assert len(names - {*SHARED, path.stem}) <= 1, f"{relative(path)} imports {names}"
        assert path.stem not in SHARED or names <= {"base"}


def test_configs_import_the_config_reader_alone():
    for path in (ROOT / "configs").glob("*.py"):
        for name, line in imports(syntax(path)):
            known = ("diffrep_jax.config", "diffrep_jax.sections", "ml_collections", "configs")
            assert inside(name, known) or name.partition(".")[0] in sys.stdlib_module_names, f"{relative(path)}:{line}"


def test_torch_is_imported_in_port_alone_and_there_lazily():
    for path in SOURCES:
        tree = syntax(path)
        torch = [line for name, line in imports(tree) if inside(name, ("torch", "torchvision", "safetensors"))]
        assert not torch or part_of(path) == "port", f"{relative(path)}:{torch} imports torch"
        body = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert not any(inside(name, ("torch", "safetensors")) for name, _ in imports(body)), relative(path)


def attributes(tree):
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
    }


@pytest.mark.parametrize("part", ["processes", "samplers", "models", "methods", "metrics"])
def test_mathematics_is_pure(part):
    """Compilation, placement and files are the business of train, tasks, inference and launch."""
    impure = {"jit", "pmap", "device_put", "open", "write_text", "write_bytes", "savez", "print"}
    for path in (PACKAGE / part).rglob("*.py"):
        assert not attributes(syntax(path)) & impure, relative(path)


def test_the_driver_is_the_only_loop_over_time():
    loops = {"scan", "fori_loop", "while_loop"}
    with_loops = {path.name for path in (PACKAGE / "samplers").glob("*.py") if attributes(syntax(path)) & loops}
    assert with_loops == {"driver.py"}


# --- light imports


def python(*arguments):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light():
    """No JAX, and the time that `import` alone takes; the best of three, on machines that are busy."""
    code = (
        "import sys, time; start = time.perf_counter(); import diffrep_jax; print(time.perf_counter() - start);"
        "assert not {'jax', 'flax', 'numpy', 'torch'} & set(sys.modules), 'loads too much';"
        "assert 'load' in diffrep_jax.__all__ and diffrep_jax.__version__"
    )
    assert min(float(python("-c", code)) for _ in range(3)) < 3


def test_help_is_light():
    code = """
import runpy, sys, time
start = time.perf_counter()
sys.argv = ["launch/main.py", "--help"]
try:
    runpy.run_path("launch/main.py", run_name="__main__")
except SystemExit as stop:
    assert not stop.code
print(time.perf_counter() - start)
assert not {"jax", "flax", "numpy", "torch"} & set(sys.modules), "loads too much"
"""
    outputs = [python("-c", code) for _ in range(3)]
    assert all(flag in outputs[0] for flag in ("--config", "--workdir", "--task", "--data_dir"))
    assert min(float(output.splitlines()[-1]) for output in outputs) < 3


def test_unknown_attributes_of_the_package_are_refused():
    import diffrep_jax

    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = diffrep_jax.laod


CORE = """
import builtins, importlib, pkgutil, sys

real, allowed = builtins.__import__, {"diffrep_jax", "jax", "flax", "optax", "numpy", *sys.stdlib_module_names}

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__") or ""
    if importer.startswith("diffrep_jax") and level == 0 and name.partition(".")[0] not in allowed:
        raise ImportError(f"{importer} imports {name}")
    return real(name, globals, locals, fromlist, level)

builtins.__import__ = guarded
for part in ("models", "processes", "samplers"):
    package = importlib.import_module(f"diffrep_jax.{part}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"diffrep_jax.{part}.{module.name}")
import diffrep_jax.train.step
print(*sorted({name.split(".")[1] for name in sys.modules if name.startswith("diffrep_jax.")}))
"""


def test_networks_samplers_and_the_step_need_jax_flax_optax_and_numpy_alone():
    parts = set(python("-c", CORE).split())
    needed = {*LEAVES, "sharding", "methods", "models", "processes", "samplers", "train"}
    assert parts == needed - {"whole"}  # they write no file


# --- rules of the source


def dotted(node):
    """`a.b.c` of a chain of attributes, else ''."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_config_value_has_a_hidden_default(path):
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            owner = dotted(node.func.value).split(".")
            assert not {"cfg", "config"} & set(owner), f"{relative(path)}:{node.lineno}: a default for a missing field"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_files_first_docstring_line_is_its_caption(path):
    text = path.read_text()
    if text.strip() or path.name != "__init__.py":
        docstring = ast.get_docstring(ast.parse(text), clean=False)
        assert docstring, f"{relative(path)} has no docstring"
        caption = docstring.splitlines()[0]
        assert len(caption) > 20 and not caption.startswith((" ", "TODO")), caption


def test_what_is_known_by_name_has_its_symbol():
    for package, symbol in (
        ("methods", "Method"),
        ("samplers", "Sampler"),
        ("tasks", "Task"),
        ("data.datasets", "Dataset"),
    ):
        names = discovery.names(f"diffrep_jax.{package}", symbol)
        assert names, package
        for name in names:
            assert hasattr(import_module(f"diffrep_jax.{package}.{name}"), symbol), f"{package}.{name}"


def test_a_file_is_one_more_of_its_kind_unless_it_begins_with_an_underscore(tmp_path, monkeypatch):
    package = tmp_path / "kinds"
    package.mkdir()
    for name, text in (("one", "Kind = 1\n"), ("_two", "Kind = 2\n"), ("three", "kind = 3\n"), ("four", " Kind = 4\n")):
        (package / f"{name}.py").write_text(text)
    monkeypatch.setattr(discovery, "__file__", str(tmp_path / "discovery.py"))
    discovery.names.cache_clear()
    assert discovery.names("diffrep_jax.kinds", "Kind") == ("one",)


def test_files_and_functions_can_be_read_in_one_go():
    for path in [*SOURCES, *sorted((ROOT / "tests").glob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]:
        assert path.read_text().count("\n") <= LONGEST_FILE, f"{relative(path)} is too long"
    for path in SOURCES:
        for node in ast.walk(syntax(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                place = f"{relative(path)}:{node.lineno} {node.name}"
                assert (node.end_lineno or 0) - node.lineno + 1 <= LONGEST_FUNCTION, f"{place} is too long"
                arguments = node.args
                named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                extra = [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
                assert len(named) + len(extra) <= MOST_PARAMETERS, f"{place} has too many parameters"


def test_methods_and_configs_have_types():
    untyped = [
        f"{relative(path)}: {line.strip()}"
        for path in PACKAGE_SOURCES
        for line in path.read_text().splitlines()
        if "method: Any" in line or "config: Any" in line
    ]
    assert len(untyped) <= MOST_UNTYPED, untyped
