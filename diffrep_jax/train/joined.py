"""Elementwise work on parameter trees: leaf by leaf, or with the small leaves joined where one CPU device works.

Most leaves of a network are biases and norms. On a CPU, elementwise work on each of them costs more to compile and to
load from the compile cache than to run, so there they become one vector. On a mesh that splits leaves, joining them
would gather each one first: a collective a leaf.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from diffrep_jax.sharding import is_one_cpu
from diffrep_jax.types import PyTree

SMALL = 2**17  # elements


class Elementwise(Protocol):
    """How a training step does its elementwise work; whatever the choice, the numbers are the same."""

    def map(self, function: Callable[..., Any], *trees: PyTree) -> PyTree:
        """`jax.tree.map` of an elementwise function."""
        ...

    def grouped(self, tree: PyTree) -> PyTree:
        """The same elements in as many arrays as are good to reduce one by one."""
        ...

    def transformation(self, inner: optax.GradientTransformation) -> optax.GradientTransformation:
        """An elementwise optimizer. The layout of its state may be the form's own, see `relayout`."""
        ...


class LeafByLeaf:
    """Each leaf by itself."""

    def map(self, function: Callable[..., Any], *trees: PyTree) -> PyTree:
        return jax.tree.map(function, *trees)

    def grouped(self, tree: PyTree) -> PyTree:
        return tree

    def transformation(self, inner: optax.GradientTransformation) -> optax.GradientTransformation:
        return inner


class SmallJoined:
    """All leaves of less than SMALL elements as one vector; trees are nested dicts."""

    def map(self, function: Callable[..., Any], *trees: PyTree) -> PyTree:
        return split(jax.tree.map(function, *map(join, trees)), trees[0])

    def grouped(self, tree: PyTree) -> PyTree:
        return join(tree)

    def transformation(self, inner: optax.GradientTransformation) -> optax.GradientTransformation:
        def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
            joined: Any
            joined, state = inner.update(join(updates), state, None if params is None else join(params))
            return split(joined, updates), state

        return optax.GradientTransformation(lambda params: inner.init(join(params)), update)


LEAF_BY_LEAF, SMALL_JOINED = LeafByLeaf(), SmallJoined()


def elementwise(mesh: Mesh) -> Elementwise:
    """The choice for a mesh."""
    return SMALL_JOINED if is_one_cpu(mesh) else LEAF_BY_LEAF


def other(form: Elementwise) -> Elementwise:
    """The form whose checkpoints have another layout of the optimizer's state."""
    return LEAF_BY_LEAF if form is SMALL_JOINED else SMALL_JOINED


def join(tree: PyTree) -> dict[str, Any]:
    """{"large": the large leaves, "small": all others as one vector}."""
    leaves = jax.tree.leaves(tree)
    small = [leaf.ravel() for leaf in leaves if leaf.size < SMALL]
    return {
        "large": [leaf for leaf in leaves if leaf.size >= SMALL],
        "small": jnp.concatenate(small) if small else None,
    }


def split(joined: dict[str, Any], like: PyTree) -> PyTree:
    """Undo `join`; `like` has the wanted structure and shapes."""
    leaves, structure = jax.tree.flatten(like)
    large, offset, out = iter(joined["large"]), 0, []
    for leaf in leaves:
        if leaf.size >= SMALL:
            out.append(next(large))
        else:
            out.append(joined["small"][offset : offset + leaf.size].reshape(leaf.shape))
            offset += leaf.size
    return jax.tree.unflatten(structure, out)


def relayout(state: PyTree, like: PyTree) -> PyTree:
    """An optimizer's state of either form in the layout of `like`, its state in the other."""

    def convert(value: PyTree, wanted: PyTree) -> PyTree:
        if _is_joined(value) and not _is_joined(wanted):
            return split(value, wanted)
        return join(value) if _is_joined(wanted) and not _is_joined(value) else value

    return jax.tree.map(convert, state, like, is_leaf=_is_tree)


def _is_tree(value: Any) -> bool:
    """Whether this is a tree like the parameters', and not optax's dict of the states of several optimizers."""
    return isinstance(value, dict) and not any(isinstance(item, optax.MaskedState) for item in value.values())


def _is_joined(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"large", "small"}
