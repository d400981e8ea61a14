"""A linear head on codes, with what it needs to be used rightly: of which network, from which data, on which scale."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError, unknown

KINDS = ("bce", "mse")  # of what an image has or lacks, and of measures


@dataclasses.dataclass(frozen=True)
class Head:
    """logits = z @ kernel + bias for codes z as the auto-encoder gives them.

    Attributes:
      names: of the k attributes; kernel [d, k], 0 where a mask leaves a dimension out; bias [k].
      kind: "bce" or "mse"; dataset: what it was trained on; trained_by: the task.
      mean, std: of the training codes, [d]; fingerprint: the network's (`Model.fingerprint`), [d].
      trained_on: for each name, what tells the images and the labels that it has learned from others; () if not known.
    """

    names: tuple[str, ...]
    kernel: np.ndarray
    bias: np.ndarray
    kind: str
    dataset: str
    trained_by: str
    mean: np.ndarray
    std: np.ndarray
    fingerprint: np.ndarray
    trained_on: tuple[str, ...] = ()

    def logits(self, z: np.ndarray) -> np.ndarray:
        """[n, d] -> [n, k]"""
        if np.shape(z)[1:] != self.kernel.shape[:1]:
            raise UserError(f"z has the shape {np.shape(z)}; this head reads [n, {len(self.kernel)}].")
        return z @ self.kernel + self.bias

    def only(self, name: str) -> "Head":
        """The head of one attribute."""
        if name not in self.names:
            raise unknown("attribute", name, self.names, f"the head of {self.dataset}")
        i = self.names.index(name)
        column = slice(i, i + 1)
        kernel, bias = self.kernel[:, column], self.bias[column]
        return dataclasses.replace(self, names=(name,), kernel=kernel, bias=bias, trained_on=self.trained_on[column])

    def direction(self, normalised: bool) -> np.ndarray:
        """The way in which the attributes grow in the space of z, [d], for `inference.edit.move`.

        w / |w| of the head on z as it is (DBAE), or `normalised` that of the head on (z - mean) / std, times std, which
        is a unit step in normalised space (DiffAE, DiTi); of several attributes the sum of theirs, 0 of one that reads
        nothing.
        """
        weights, scale = self._weights(normalised)
        norms = np.linalg.norm(weights, axis=0)
        return (weights / np.where(norms > 0, norms, 1)).sum(1) * scale

    def to_boundary(self, z: np.ndarray, normalised: bool, shares: np.ndarray | float = 1) -> np.ndarray:
        """The smallest step of each code [n, d] behind which all logits are 0, [n, d], for `inference.edit.step`.

        Smallest in the space of z as it is, or `normalised` in that of (z - mean) / std; `shares` [k]: how much of the
        way to its boundary each attribute goes.
        """
        weights, scale = self._weights(normalised)
        return -(shares * self.logits(z)) @ np.linalg.pinv(weights) * scale

    def _weights(self, normalised: bool) -> tuple[np.ndarray, np.ndarray]:
        """(Weights [d, k] in the space of the step, its unit in that of z [d])."""
        scale = self.std if normalised else np.ones_like(self.std)
        return self.kernel * scale[:, None], scale

    def arrays(self) -> dict[str, np.ndarray]:
        """For an .npz."""
        return {name: np.asarray(value) for name, value in vars(self).items()}


def signed(heads: Mapping[str, Head], signs: Mapping[str, int]) -> Head:
    """One head of several on the same codes; the logits of a name whose sign is -1 are turned round.

    It decides ("bce") where all of them do.
    """
    first, order = next(iter(heads.values())), np.array(list(signs.values()))
    return dataclasses.replace(
        first,
        names=tuple(f"-{name}" if sign < 0 else name for name, sign in signs.items()),
        kind="mse" if any(head.kind == "mse" for head in heads.values()) else "bce",
        kernel=np.concatenate([heads[name].kernel for name in signs], axis=1) * order,
        bias=np.concatenate([heads[name].bias for name in signs]) * order,
        trained_on=tuple(text for name in signs for text in heads[name].trained_on),
    )


def from_arrays(arrays: Mapping[str, Any], source: str) -> Head:
    """Undoes `Head.arrays`; UserError, naming `source`, for another file or an earlier version's."""
    fields = [field.name for field in dataclasses.fields(Head) if field.name != "trained_on"]
    if missing := [name for name in fields if name not in arrays]:
        raise UserError(f"{source} has no {', '.join(missing)}: an earlier version wrote it; run --task=probe again.")
    values: dict[str, Any] = {name: np.asarray(arrays[name]) for name in fields}
    values |= {name: str(arrays[name]) for name in ("kind", "dataset", "trained_by")}
    values["names"] = tuple(map(str, arrays["names"]))
    values["trained_on"] = tuple(map(str, arrays.get("trained_on", ())))
    d, k = len(values["mean"].ravel()), len(values["names"])
    shapes = {"kernel": (d, k), "bias": (k,), "mean": (d,), "std": (d,), "fingerprint": (d,)}
    for name, shape in shapes.items():
        array = values[name]
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UserError(
                f"{source} is no head: its {name} is not {list(shape)} finite numbers; run --task=probe again."
            )
    return Head(**values)
