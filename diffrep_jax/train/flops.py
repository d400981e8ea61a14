"""The floating-point operations of a traced computation, the same on any platform and before anything is lowered.

Those of convolutions and matrix products, a multiply-add as two; nothing elementwise, some percent of a network's.
(XLA's own analysis of a program that is not compiled yet exists for CPUs alone.)
"""

import math
from typing import Any

from diffrep_jax.train.liveness import bodies


def flops(jaxpr: Any) -> float:
    """Of a jaxpr (`jax.jit(f).trace(...).jaxpr`), of all devices together.

    Counted as PyTorch's FlopCounterMode does: a convolution's products with its padding too; cuDNN's attention by its
    two products, and in the gradient by four, without those that it makes again. The body of a `scan` counts for each
    of its turns, that of a `while_loop` once, and of a `cond` the larger branch.
    """
    return float(sum(_of(equation) for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns))


def _of(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        return 2 * _size(equation.outvars[0]) * math.prod(_shape(equation.invars[0])[axis] for axis in contracted)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    if name.startswith("dot_product_attention"):
        (b, t, heads, dim), s = _shape(equation.invars[0]), _shape(equation.invars[1])[1]
        return (8 if "bwd" in name else 4) * b * heads * t * s * dim
    inside = [flops(body) for body in bodies(parameters.values())]
    if name == "cond":
        return max(inside)
    return sum(inside) * (parameters["length"] if name == "scan" else 1)


def _of_convolution(equation: Any) -> float:
    _, inputs, *window = equation.params["dimension_numbers"].rhs_spec
    kernel = _shape(equation.invars[1])
    products = math.prod(kernel[axis] for axis in (inputs, *window))
    return 2 * _size(equation.outvars[0]) * products / math.prod(equation.params["lhs_dilation"])


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _size(variable: Any) -> int:
    return math.prod(_shape(variable))
