"""The parts of the parameters that a state treats differently, by the labels of `Method.param_labels`.

Frozen ones are in `params` alone, so that nothing is averaged, kept or computed for them; those with a label of their
own, the heads of a loss, are trained and not averaged. A tree of parameters is nested dicts; a part of it has the same
paths and fewer of them.
"""

from collections.abc import Callable

import jax

from diffrep_jax.methods.base import Method, example_batch
from diffrep_jax.types import PyTree


def shapes(method: Method) -> PyTree:
    """The shapes and types of a method's variables; nothing is computed."""
    return jax.eval_shape(lambda: method.init(jax.random.key(0), example_batch(method)))


def trained(method: Method, params: PyTree) -> PyTree:
    """The part that an optimizer changes: all that is not "frozen"."""
    return _labelled(params, method.param_labels(params), lambda label: label != "frozen")


def averaged(method: Method, params: PyTree) -> PyTree:
    """The part that has an average: "train"."""
    return _labelled(params, method.param_labels(params), lambda label: label == "train")


def used(method: Method, params: PyTree) -> PyTree:
    """The part that a trained model consists of: all but the heads of a loss."""
    return _labelled(params, method.param_labels(params), lambda label: label in ("train", "frozen"))


def _labelled(params: PyTree, labels: PyTree, wanted: Callable[[str], bool]) -> PyTree:
    if not isinstance(params, dict):
        return params
    kept = {name: value for name, value in params.items() if any(map(wanted, jax.tree.leaves(labels[name])))}
    return {name: _labelled(value, labels[name], wanted) for name, value in kept.items()}


def part(params: PyTree, like: PyTree) -> PyTree:
    """The leaves of `params` at the paths of `like`."""
    if not isinstance(like, dict):
        return params
    return {name: part(params[name], value) for name, value in like.items()}


def overlay(params: PyTree, over: PyTree) -> PyTree:
    """`params` with the leaves of the part `over` in their places."""
    if not isinstance(params, dict):
        return over
    return {name: overlay(value, over[name]) if name in over else value for name, value in params.items()}
