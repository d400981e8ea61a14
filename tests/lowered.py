"""A lowered program as a list of its operations, and what must not be among them."""

import dataclasses
import re

from jax.extend.mlir import ir

HEAD = "UNet.up/conv_out/"  # the U-Net's last layer
CASTS = ("stablehlo.convert", "stablehlo.add", "stablehlo.broadcast_in_dim")


@dataclasses.dataclass
class Operation:
    """scope: as `jax.named_scope` and Flax say it; takes, gives: (type, shape) of each array; near: of its neighbours,
    those that make its arguments and those that use its results."""

    name: str
    scope: str
    takes: list[tuple[str, tuple[int, ...]]]
    gives: list[tuple[str, tuple[int, ...]]]
    body: list[str]
    near: list["Operation"] = dataclasses.field(default_factory=list, repr=False)


def operations(lowered) -> list[Operation]:
    """All of them, those of functions that are called and of branches too."""
    made, walked = {}, []

    def visit(op):
        op = op.operation
        scope = re.match(r'loc\("([^"]*)"', str(op.location))
        arrays = [[_array(value.type) for value in values] for values in (op.operands, op.results)]
        body = [inner.operation.name for region in op.regions for block in region for inner in block]
        operation = Operation(op.name, scope.group(1) if scope else "", *arrays, body)
        walked.append(operation)
        for value in op.operands:
            if maker := made.get(hash(getattr(value.owner, "operation", value.owner))):
                operation.near.append(maker)
                maker.near.append(operation)
        made[hash(op)] = operation
        return ir.WalkResult.ADVANCE

    module = lowered.compiler_ir("stablehlo")
    with module.context:
        module.operation.walk(visit)
    return walked


def arguments(lowered) -> list[tuple[str, tuple[int, ...], bool]]:
    """(type, shape, whether a result takes its place) of each argument of the program."""
    module = lowered.compiler_ir("stablehlo")
    with module.context:
        main = next(op for op in module.body.operations if op.operation.attributes["sym_name"].value == "main")
        attributes = main.operation.attributes["arg_attrs"]
        return [
            (*_array(value.type), "tf.aliasing_output" in given)
            for value, given in zip(main.regions[0].blocks[0].arguments, attributes, strict=True)
        ]


def _array(kind) -> tuple[str, tuple[int, ...]]:
    if not isinstance(kind, ir.RankedTensorType):
        return str(kind), ()
    return str(kind.element_type), tuple(kind.shape)


def inside(ops, network):
    """The operations of a network, forward and backward."""
    return [op for op in ops if f"jvp({network})" in op.scope]


def convolutions(ops):
    return [op for op in ops if op.name == "stablehlo.convolution"]


def float32_convolutions(ops):
    """In the torso, that is all of the U-Net but its last layer."""
    return [op for op in convolutions(inside(ops, "UNet")) if HEAD not in op.scope and op.takes[0][0] != "bf16"]


def narrow_sums(ops):
    """Over more than four elements in less than float32."""
    sums = [op for op in ops if op.name == "stablehlo.reduce" and "stablehlo.add" in op.body]
    return [op for op in sums if op.takes[0][0] == "bf16" and _size(op.takes[0][1]) > 4 * _size(op.gives[0][1])]


def _size(shape):
    size = 1
    for length in shape:
        size *= length
    return size


def square_arrays(ops, t, network):
    """Arrays [b, heads, t, t] of weights of attention; no other axes may have this size."""
    return [op for op in inside(ops, network) if any(len(s) > 3 and s.count(t) > 1 for _, s in op.gives)]


def indexed(ops):
    return [op for op in ops if re.fullmatch(r"stablehlo\.(\w*gather|\w*scatter|dynamic_\w*slice)", op.name)]


def joined(ops):
    """Concatenations of something else than what networks compute, and than random keys."""
    joins = [op for op in ops if op.name == "stablehlo.concatenate" and op.takes[0][0] != "ui32"]
    return [op for op in joins if "jvp(" not in op.scope]


def transposed_around_convolutions(ops):
    """Convolutions whose arguments come from a transposition, or whose result goes into one, casts and biases aside."""
    return [op for op in convolutions(ops) if _reaches_transposition(op, op, 4)]


def _reaches_transposition(op, came_from, steps):
    for other in op.near:
        if other is came_from:
            continue
        if other.name == "stablehlo.transpose" or (
            other.name in CASTS and steps and _reaches_transposition(other, op, steps - 1)
        ):
            return True
    return False
