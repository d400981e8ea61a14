"""Frozen parameters in a state: they are in `params` alone, so that nothing is averaged, kept or computed for them.

A tree of parameters is nested dicts; a part of it has the same paths and fewer of them.
"""

from typing import Any

import jax

from diffrep_jax.types import PyTree


def trained(method: Any, params: PyTree) -> PyTree:
    """The part of the parameters that `Method.param_labels` does not call "frozen"; all of them for most methods."""
    return _without_frozen(params, method.param_labels(params))


def _without_frozen(params: PyTree, labels: PyTree) -> PyTree:
    if not isinstance(params, dict):
        return params
    kept = {name: value for name, value in params.items() if set(jax.tree.leaves(labels[name])) != {"frozen"}}
    return {name: _without_frozen(value, labels[name]) for name, value in kept.items()}


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
