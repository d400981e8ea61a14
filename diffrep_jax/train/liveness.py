"""The most bytes that a traced computation holds at a time, estimated without a compiler.

Equations run in the order of the trace. A value lives from its equation to its last use. Elementwise values that need
no more bytes to make than to keep are taken as fused into elementwise users and sums, as XLA does: they have no bytes
of their own, and keep alive what they are made of; products and convolutions read from memory. What a backend adds
for itself (layouts, im2col, concurrency) is not counted: XLA's own figure on a CPU was 2.1 to 2.2 times as much for
the configs of the digits (`memory_analysis()`, jax 0.10.2).
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

from jax.extend.core import Literal

# Calls whose body runs in place; other equations with a body (loops, branches) need its bytes on top of their own.
CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint"}
FUSED = set(
    "abs add add_any and broadcast_in_dim ceil clamp convert_element_type copy cos div eq erf erf_inv exp exp2 "
    "expand_dims expm1 floor ge gt integer_pow iota is_finite le log log1p logistic lt max min mul ne neg not "
    "optimization_barrier or pad pow reduce_precision reshape rev round rsqrt select_n shift_left "
    "shift_right_logical sign sin slice sqrt square squeeze stop_gradient sub tanh transpose xor".split()
)

READERS = {
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "reduce_and",
    "reduce_or",
    "argmax",
    "argmin",
}  # fuse what they read


@dataclasses.dataclass(eq=False)
class _Value:
    """size: bytes; roots: the values with bytes of their own that it is made of, itself alone if it has some."""

    size: int
    roots: tuple["_Value", ...] = ()
    last: int = -1  # the equation of its last use


@dataclasses.dataclass(frozen=True)
class _Equation:
    name: str
    inputs: list[_Value]
    outputs: list[_Value]
    inner: int  # bytes of a loop's body


def temporary_bytes(jaxpr: Any) -> int:
    """The peak of a jaxpr (`jax.jit(f).trace(...).jaxpr.jaxpr`) without its arguments: intermediate values and results.

    Results count in full: an argument that is donated to one saves its bytes besides.
    """
    inputs = {variable: _Value(_bytes(variable)) for variable in (*jaxpr.invars, *jaxpr.constvars)}
    environment: dict[Any, _Value] = dict(inputs)
    equations = list(_equations(jaxpr, environment))
    results = {environment[v] for v in jaxpr.outvars if not isinstance(v, Literal)}
    for value in inputs.values():
        value.roots = (value,)
    _find_roots(equations, results)
    _find_last_uses(equations, results)
    return _peak(equations, set(inputs.values()))


def _equations(jaxpr: Any, environment: dict[Any, _Value]) -> Iterator[_Equation]:
    """The equations in their order, calls replaced by their bodies."""
    for equation in jaxpr.eqns:
        name, found = equation.primitive.name, list(bodies(equation.params.values()))
        inputs = [v for v in equation.invars if not isinstance(v, Literal)]
        if name in CALLS and found:
            body = found[0]
            inside = {v: _Value(_bytes(v)) for v in body.constvars}
            for variable, given in zip(body.invars, equation.invars, strict=True):
                inside[variable] = _constant(given) if isinstance(given, Literal) else environment[given]
            yield from _equations(body, inside)
            for variable, result in zip(equation.outvars, body.outvars, strict=True):
                environment[variable] = _constant(result) if isinstance(result, Literal) else inside[result]
            continue
        outputs = [_Value(_bytes(v)) for v in equation.outvars]
        environment.update(zip(equation.outvars, outputs, strict=True))
        inner = max((temporary_bytes(body) for body in found), default=0)
        yield _Equation(name, [environment[v] for v in inputs], outputs, inner)


def bodies(parameters: Iterable[Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for parameter in parameters:
        for candidate in parameter if isinstance(parameter, list | tuple) else (parameter,):
            jaxpr = getattr(candidate, "jaxpr", candidate)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


def calls(jaxpr: Any, name: str) -> bool:
    """Whether an equation of a jaxpr or of a body in it has this name."""
    equations = jaxpr.eqns
    return any(
        e.primitive.name == name or any(calls(body, name) for body in bodies(e.params.values())) for e in equations
    )


def _find_roots(equations: list[_Equation], results: set[_Value]) -> None:
    read = {value for e in equations if e.name not in FUSED and e.name not in READERS for value in e.inputs}
    stored = results | read
    for equation in equations:
        roots = _roots(equation)
        cheap = equation.name in FUSED
        for output in equation.outputs:
            fused = cheap and output not in stored and sum(root.size for root in roots) <= output.size
            output.roots = roots if fused else (output,)


def _roots(equation: _Equation) -> tuple[_Value, ...]:
    return tuple(dict.fromkeys(root for value in equation.inputs for root in value.roots))


def _find_last_uses(equations: list[_Equation], results: set[_Value]) -> None:
    for number, equation in enumerate(equations):
        for root in _roots(equation):
            root.last = number
    for result in results:
        for root in result.roots:
            root.last = len(equations)


def _peak(equations: list[_Equation], given: set[_Value]) -> int:
    held = peak = 0
    for number, equation in enumerate(equations):
        made = [value for value in equation.outputs if value.roots == (value,)]
        held += sum(value.size for value in made)
        peak = max(peak, held + equation.inner)
        held -= sum(value.size for value in made if value.last < 0)
        held -= sum(root.size for root in _roots(equation) if root.last == number and root not in given)
    return peak


def _constant(literal: Any) -> _Value:
    value = _Value(0)
    value.roots = (value,)
    return value


def _bytes(variable: Any) -> int:
    """Of an array; 0 for tokens and the like. Random keys count as their two words."""
    shape = getattr(variable.aval, "shape", None)
    if shape is None:
        return 0
    return math.prod(shape) * getattr(variable.aval.dtype, "itemsize", 8)
