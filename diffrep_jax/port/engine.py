"""Foreign checkpoints as tables: ordered rules from an official name to a path in our variables and a layout change.

A rule maps an official *module* to one of ours; its kind says the same of the module's leaves:

    Rule("{block}.in_layers.2", "unet/{block}/conv_in", CONV)       with {block}: input_blocks.1.0 <-> down0_block0
      input_blocks.1.0.in_layers.2.weight [O, I, H, W]  <->  params/unet/down0_block0/conv_in/kernel [H, W, I, O]

A `{field}` stands for the entries of a one-to-one table that the model's configuration implies, so that every rule
reads in both directions. Matching is strict: a name or a leaf without a partner is an error that lists all of them.
"""

import dataclasses
import functools
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.types import PyTree

Tensors = Mapping[str, np.ndarray]
Path = tuple[str, ...]  # (collection, module, ..., leaf)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A named, invertible change of layout; both functions are pure permutations or reshapes of the values."""

    name: str
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_official: Callable[[np.ndarray], np.ndarray]


def transposed(name: str, *axes: int) -> Layout:
    """Our array is the official one with its axes in this order."""
    return Layout(name, lambda x: x.transpose(axes), lambda x: x.transpose(np.argsort(axes)))


IDENTITY = Layout("identity", lambda x: x, lambda x: x)
LINEAR = transposed("[out, in] -> [in, out]", 1, 0)
CONV2D = transposed("OIHW -> HWIO", 2, 3, 1, 0)
CONV1D = Layout("OI1 -> 11IO", lambda x: x.transpose(2, 1, 0)[None], lambda x: x[0].transpose(2, 1, 0))
CONV1X1_DENSE = Layout("OI11 -> IO", lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])
TRANSPOSED_CONV = transposed("IOHW -> IHWO", 0, 2, 3, 1)


def flat_kernel(size: int) -> Layout:
    """A vector over a kernel's inputs: flattened as (in, h, w) there, as (h, w, in) here."""
    return Layout(
        f"(I {size} {size}) -> ({size} {size} I)",
        lambda x: x.reshape(-1, size, size).transpose(1, 2, 0).reshape(-1),
        lambda x: x.reshape(size, size, -1).transpose(2, 0, 1).reshape(-1),
    )


def flattened_dense(size: int) -> Layout:
    """A linear layer on a flattened image: of (in, h, w) there, of (h, w, in) here."""
    return Layout(
        f"O(I {size} {size}) -> ({size} {size} I)O",
        lambda x: x.reshape(len(x), -1, size, size).transpose(2, 3, 1, 0).reshape(-1, len(x)),
        lambda x: x.reshape(size, size, -1, x.shape[-1]).transpose(3, 2, 0, 1).reshape(x.shape[-1], -1),
    )


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Where a leaf of an official module goes: collection and name; no collection: it has no use here."""

    collection: str
    name: str
    layout: Layout = IDENTITY


Kind = Mapping[str, Leaf]  # the official leaves of a module

_UNUSED = Leaf("", "")
_BIAS = {"bias": Leaf("params", "bias")}
NORM: Kind = {"weight": Leaf("params", "scale")} | _BIAS
DENSE: Kind = {"weight": Leaf("params", "kernel", LINEAR)} | _BIAS
CONV: Kind = {"weight": Leaf("params", "kernel", CONV2D)} | _BIAS
POINTWISE_1D: Kind = {"weight": Leaf("params", "kernel", CONV1D)} | _BIAS
POINTWISE_DENSE: Kind = {"weight": Leaf("params", "kernel", CONV1X1_DENSE)} | _BIAS
BATCH_NORM: Kind = NORM | {
    "running_mean": Leaf("batch_stats", "mean"),
    "running_var": Leaf("batch_stats", "var"),
    "num_batches_tracked": _UNUSED,
}


def dense_of_image(size: int) -> Kind:
    """A linear layer on a flattened image of this size."""
    return {"weight": Leaf("params", "kernel", flattened_dense(size))} | _BIAS


def spectral(kernel: Layout, v: Layout) -> Kind:
    """A kernel under spectral norm, without a bias: the weight before the division, u [out] and v [inputs]."""
    return {
        "weight_orig": Leaf("params", "kernel", kernel),
        "weight_u": Leaf("batch_stats", "u"),
        "weight_v": Leaf("batch_stats", "v", v),
    }


def spectral_conv(size: int) -> Kind:
    return spectral(CONV2D, flat_kernel(size))


# A transposed convolution's matrix is [out, (in, h, w)] on both sides.
SPECTRAL_TRANSPOSED_CONV: Kind = spectral(TRANSPOSED_CONV, IDENTITY)


@dataclasses.dataclass(frozen=True)
class Rule:
    """Official module -> our module, both with `{fields}`; no path: expected in the file, of no use here."""

    official: str
    path: str | None
    kind: Kind


@dataclasses.dataclass(frozen=True)
class Target:
    """Where one official name goes."""

    path: Path
    layout: Layout


@dataclasses.dataclass(frozen=True)
class Matching:
    """All names of a file against all leaves of a model; `ignored` names are expected and of no use."""

    targets: Mapping[str, Target]
    ignored: Sequence[str]
    unmatched_names: Sequence[str]
    unmatched_leaves: Sequence[str]

    def check(self, source: str) -> None:
        """Raise one UserError that lists what has no partner, on both sides."""
        problems = []
        if self.unmatched_names:
            problems.append(f"unknown in the file: {_list(self.unmatched_names)}")
        if self.unmatched_leaves:
            problems.append(f"missing for the model: {_list(self.unmatched_leaves)}")
        if problems:
            raise UserError(f"{source} does not fit the model; {'; '.join(problems)}. Is the config the file's?")


class Table:
    """The ordered rules of one source for one model configuration; `fields`: {field: {official: ours}}.

    absent: {our leaf, as in "batch_stats/codes/mean": the value that it gets}, for leaves that no official file has.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        fields: Mapping[str, Mapping[str, str]],
        absent: Mapping[str, float] = types.MappingProxyType({}),
    ):
        self._rules = rules
        self._fields = fields
        self._absent = {tuple(path.split("/")): value for path, value in absent.items()}
        self._backward = {field: _inverse(field, entries) for field, entries in fields.items()}

    def target(self, name: str) -> Target | None:
        """Where an official name goes, None where it has no use here; KeyError where no rule knows it."""
        module, _, leaf = name.rpartition(".")
        for rule in self._rules:
            fields = _match(rule.official, module, self._fields)
            if fields is None or leaf not in rule.kind:
                continue
            target = rule.kind[leaf]
            if rule.path is None or not target.collection:
                return None
            return Target((target.collection, *rule.path.format(**fields).split("/"), target.name), target.layout)
        raise KeyError(name)

    def name(self, path: Path) -> tuple[str, Layout]:
        """The official name of one of our leaves and its layout; KeyError where no rule makes this leaf."""
        collection, *modules, leaf = path
        for rule in self._rules:
            fields = None if rule.path is None else _match(rule.path, "/".join(modules), self._backward)
            if fields is None:
                continue
            for official, target in rule.kind.items():
                if (target.collection, target.name) == (collection, leaf):
                    return f"{rule.official.format(**fields)}.{official}", target.layout
        raise KeyError("/".join(path))

    def match(self, names: Iterable[str], template: PyTree) -> Matching:
        """Pair official names with the leaves of `template`, which may be shapes only."""
        waiting = {path: "/".join(path) for path, _ in _leaves(template) if path not in self._absent}
        targets, ignored, unmatched = {}, [], []
        for name in names:
            try:
                target = self.target(name)
            except KeyError:
                unmatched.append(name)
                continue
            if target is None:
                ignored.append(name)
            elif waiting.pop(target.path, None) is None:
                unmatched.append(name)
            else:
                targets[name] = target
        return Matching(targets, ignored, unmatched, list(waiting.values()))

    def check(self, shapes: Mapping[str, Sequence[int]], template: PyTree, source: str) -> Matching:
        """The matching of names and leaves; raises UserError, naming `source`, where names or shapes differ."""
        matching = self.match(shapes, template)
        matching.check(source)
        ours = {path: tuple(leaf.shape) for path, leaf in _leaves(template)}
        wrong = []
        for name, target in matching.targets.items():
            try:
                shape = target.layout.to_ours(np.broadcast_to(np.float32(0), shapes[name])).shape
            except (ValueError, IndexError):  # not even the number of axes fits
                shape = None
            if shape != ours[target.path]:
                wrong.append(f"{name} {list(shapes[name])} for {'/'.join(target.path)} {list(ours[target.path])}")
        if wrong:
            raise UserError(f"{source} has other shapes than the model: {_list(wrong)}. Is the config the file's?")
        return matching

    def to_variables(self, tensors: Tensors, template: PyTree, source: str) -> PyTree:
        """Official tensors -> variables with the structure and types of `template`, as NumPy copies.

        Raises UserError, naming `source`, where names or shapes differ.
        """
        matching = self.check({name: value.shape for name, value in tensors.items()}, template, source)
        origin = {target.path: (tensors[name], target.layout) for name, target in matching.targets.items()}

        def convert(path: Path, leaf: Any) -> np.ndarray:
            if path in self._absent:
                return np.full(leaf.shape, self._absent[path], leaf.dtype)
            value, layout = origin[path]
            return np.array(layout.to_ours(value), leaf.dtype, order="C")

        leaves = [convert(path, leaf) for path, leaf in _leaves(template)]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def to_official(self, variables: PyTree) -> dict[str, np.ndarray]:
        """Variables, or any part of their tree, such as gradients -> official tensors, without the ignored names.

        Raises KeyError for a leaf that no rule makes.
        """
        out = {}
        for path, leaf in _leaves(variables):
            if path in self._absent:
                continue
            name, layout = self.name(path)
            out[name] = np.ascontiguousarray(layout.to_official(np.asarray(leaf)))
        return out


def _match(template: str, text: str, fields: Mapping[str, Mapping[str, str]]) -> dict[str, str] | None:
    """The translated fields where `text` is an instance of `template`, else None."""
    matched = _pattern(template).fullmatch(text)
    if matched is None:
        return None
    values = matched.groupdict()
    if any(value not in fields[field] for field, value in values.items()):
        return None
    return {field: fields[field][value] for field, value in values.items()}


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """`{field}` as a named group, the rest literally."""
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(f"(?P<{part}>.+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))


def _inverse(field: str, entries: Mapping[str, str]) -> dict[str, str]:
    inverse = {ours: official for official, ours in entries.items()}
    if len(inverse) < len(entries):
        raise ValueError(f"the entries of field {field} are not one to one")
    return inverse


def _leaves(tree: PyTree) -> list[tuple[Path, Any]]:
    """(path, leaf) of nested dicts, in the order of jax.tree."""
    return [(tuple(str(k.key) for k in path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def _list(items: Sequence[str], shown: int = 12) -> str:
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return f"{len(items)} ({', '.join(items[:shown])}{more})"
