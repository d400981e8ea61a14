"""3 x 3 convolutions with a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3), a form for CPUs.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). Tiles of 6 x 6 pixels, four apart along each
axis, are evaluated at six points an axis, and so is the kernel. There a convolution is one matrix product over the
channels for each of the 36 pairs of points, and the transposed maps give both gradients. The points 0, +-3/4, +-3/2 and
infinity round less than the paper's 0, +-1, +-2: in float32, 5 times a plain convolution's error.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffrep_jax.types import Array, Image

_TILE = 4  # pixels of the result that a tile gives along an axis
_FINITE = (0, 0.75, -0.75, 1.5, -1.5)
_POINTS = len(_FINITE) + 1
_IN_CACHE = 5 * 2**19  # numbers, before and after the product, that are worked on at a time
_LEAST_CHANNELS = 64
_LEAST_TILES = 32


def pays(x: Image, kernel: Array) -> bool:
    """Whether this form is faster than XLA's convolution (measured on two cores), for a 3 x 3 kernel and stride 1."""
    b, h, w, _ = x.shape
    tiles = b * h * w // _TILE**2
    wide = min(kernel.shape[2:]) >= _LEAST_CHANNELS
    return wide and tiles >= _LEAST_TILES and h % _TILE == w % _TILE == 0 and x.dtype in (jnp.float32, jnp.float64)


@jax.custom_vjp
def conv(x: Image, kernel: Array) -> Image:
    """[b, h, w, in] with a kernel [3, 3, in, out] and zero padding 1 -> [b, h, w, out]; h and w divide by 4."""
    return _forward(x, kernel)[0]


def _forward(x: Image, kernel: Array) -> tuple[Image, tuple[Image, Array]]:
    padded, evaluated = _padded(x), _kernel_in(kernel)
    rows = _rows_at_a_time(x, kernel)

    def some_rows(i: Array | int, y: Image) -> Image:
        part = _tiles_in(lax.dynamic_slice_in_dim(padded, i * rows, rows + 2, axis=1))
        return lax.dynamic_update_slice_in_dim(y, _tiles_out(_product(part, evaluated, 1)), i * rows, axis=1)

    return _loop(x.shape[1] // rows, some_rows, jnp.zeros((*x.shape[:3], kernel.shape[3]), x.dtype)), (x, kernel)


def _backward(saved: tuple[Image, Array], dy: Image) -> tuple[Image, Array]:
    x, kernel = saved
    padded, evaluated = _padded(x), _kernel_in(kernel)
    rows = _rows_at_a_time(x, kernel)

    def some_rows(i: Array | int, sums: tuple[Image, Array]) -> tuple[Image, Array]:
        dx, d_kernel = sums
        part = _tiles_in(lax.dynamic_slice_in_dim(padded, i * rows, rows + 2, axis=1))
        d_out = _tiles_out_transposed(lax.dynamic_slice_in_dim(dy, i * rows, rows, axis=1))
        d_part = _tiles_in_transposed(_product(d_out, evaluated, 2))
        before = lax.dynamic_slice_in_dim(dx, i * rows, rows + 2, axis=1)
        dx = lax.dynamic_update_slice_in_dim(dx, before + d_part, i * rows, axis=1)
        return dx, d_kernel + _over_tiles(part, d_out)

    zeros = jnp.zeros_like(padded), jnp.zeros_like(evaluated)
    dx, d_kernel = _loop(x.shape[1] // rows, some_rows, zeros)
    return dx[:, 1:-1, 1:-1], _kernel_in_transposed(d_kernel)


conv.defvjp(_forward, _backward)


def _rows_at_a_time(x: Image, kernel: Array) -> int:
    """Of the result's rows, in all images: as many as stay in the cache. The batch stays whole, it may be sharded."""
    b, h, w, _ = x.shape
    a_row = b * (w // _TILE) * _POINTS**2 * sum(kernel.shape[2:])
    most = max(1, _IN_CACHE // a_row)
    tiles = h // _TILE
    return _TILE * max(n for n in range(1, tiles + 1) if tiles % n == 0 and n <= most)


def _loop(steps, body, start):
    return lax.fori_loop(0, steps, body, start) if steps > 1 else body(0, start)


def _padded(x: Image) -> Image:
    return lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


# --- at the points, the columns' first: tiles are [6, 6, b, rows, columns, channels], kernels [6, 6, in, out]


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Toom and Cook's: of the tile's pixels [6, 6], the kernel's taps [6, 3] and the result's pixels [4, 6]."""
    others = [[p for p in _FINITE if p != point] for point in _FINITE]
    pixels = [[*np.poly(other)[::-1], 0] for other in others] + [np.poly(_FINITE)[::-1]]
    scales = [math.prod(point - p for p in other) for point, other in zip(_FINITE, others, strict=True)]
    taps = [[point**i / scale for i in range(3)] for point, scale in zip(_FINITE, scales, strict=True)]
    result = [[point**i for i in range(_TILE)] for point in _FINITE]
    return np.array(pixels), np.array([*taps, [0, 0, 1]]), np.array([*result, [0, 0, 0, 1]]).T


_PIXELS, _TAPS, _RESULT = _matrices()


def _sums(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
    """The matrix times the list, without its zeros."""
    lines = []
    for row in matrix:
        used = [(float(value), part) for value, part in zip(row, parts, strict=True) if value]
        terms = [part if value == 1 else part * value for value, part in used]
        lines.append(sum(terms[1:], terms[0]))
    return lines


def _stack(parts: Sequence[Array], axis: int = 0) -> Array:
    """Computed once: what reads it does not compute it again."""
    return lax.optimization_barrier(jnp.stack(parts, axis))


def _tiles_in(x: Image) -> Array:
    """[b, 4 n + 2, 4 m + 2, c] -> [6, 6, b, n, m, c]."""
    height, width = (size - 2 for size in x.shape[1:3])
    x = _stack(_sums(_PIXELS, [x[:, k : k + height : _TILE] for k in range(_POINTS)]))
    return _stack(_sums(_PIXELS, [x[:, :, :, k : k + width : _TILE] for k in range(_POINTS)]))


def _tiles_in_transposed(tiles: Array) -> Image:
    tiles = _overlapping(_sums(_PIXELS.T, list(tiles)), 3)
    return _overlapping(_sums(_PIXELS.T, list(tiles)), 1)


def _overlapping(parts: Sequence[Array], axis: int) -> Array:
    """Six arrays of tile pixels, n tiles along an axis -> their sum where they lie, 4 n + 2 pixels along it."""
    n = parts[0].shape[axis]

    def padded(part: Array, before: int) -> Array:
        pads = [(0, 0)] * part.ndim
        pads[axis] = (before, 1 - before)
        return jnp.pad(part, pads)

    lines = [padded(part, 0) for part in parts[:_TILE]]
    for k, part in enumerate(parts[_TILE:]):
        lines[k] += padded(part, 1)
    whole = jnp.stack(lines, axis + 1)
    whole = whole.reshape(*whole.shape[:axis], _TILE * (n + 1), *whole.shape[axis + 2 :])
    return lax.optimization_barrier(lax.slice_in_dim(whole, 0, _TILE * n + 2, axis=axis))


def _tiles_out(tiles: Array) -> Image:
    """[6, 6, b, n, m, c] -> [b, 4 n, 4 m, c]."""
    _, _, b, n, m, c = tiles.shape
    x = _stack(_sums(_RESULT, list(tiles)), 4)
    return jnp.stack(_sums(_RESULT, list(x)), 2).reshape(b, _TILE * n, _TILE * m, c)


def _tiles_out_transposed(x: Image) -> Array:
    b, height, width, c = x.shape
    x = x.reshape(b, height // _TILE, _TILE, width // _TILE, _TILE, c)
    x = _stack(_sums(_RESULT.T, [x[:, :, i] for i in range(_TILE)]))
    return _stack(_sums(_RESULT.T, [x[..., j, :] for j in range(_TILE)]))


def _kernel_in(kernel: Array) -> Array:
    kernel = _stack(_sums(_TAPS, list(kernel)))
    return _stack(_sums(_TAPS, [kernel[:, j] for j in range(3)]))


def _kernel_in_transposed(kernel: Array) -> Array:
    kernel = _stack(_sums(_TAPS.T, list(kernel)), 1)
    return jnp.stack(_sums(_TAPS.T, list(kernel)))


def _product(tiles: Array, kernel: Array, contracted: int) -> Array:
    """At each pair of points, the tiles times the kernel [in, out] (its axis 1) or its transpose (axis 2)."""
    flat = tiles.reshape(_POINTS**2, -1, tiles.shape[-1])
    kernels = kernel.reshape(_POINTS**2, *kernel.shape[2:])
    y = lax.dot_general(flat, kernels, (((2,), (contracted,)), ((0,), (0,))))
    return lax.optimization_barrier(y).reshape(*tiles.shape[:-1], y.shape[-1])


def _over_tiles(tiles: Array, d_out: Array) -> Array:
    """At each pair of points, the kernel's gradient."""
    a, b = (x.reshape(_POINTS**2, -1, x.shape[-1]) for x in (tiles, d_out))
    return lax.dot_general(a, b, (((1,), (1,)), ((0,), (0,)))).reshape(_POINTS, _POINTS, a.shape[-1], b.shape[-1])
