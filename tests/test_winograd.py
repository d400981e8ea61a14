"""Winograd's convolution against XLA's: the same function in float64, its rounding in float32, its choice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax import forms
from diffrep_jax.models import winograd
from diffrep_jax.models.convolution import conv

SHAPES = [(2, 8, 12, 3, 5), (1, 4, 4, 2, 1), (3, 16, 4, 1, 4)]


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def examples(b, h, w, inputs, outputs, dtype=np.float64):
    """x, kernel, and a gradient of the result."""
    shapes = (b, h, w, inputs), (3, 3, inputs, outputs), (b, h, w, outputs)
    return [jnp.asarray(draw(*shape), dtype) for shape in shapes]


def plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def all_of(function, x, kernel, dy):
    """The value and both gradients."""
    y, pull = jax.vjp(function, x, kernel)
    return y, *pull(dy)


def assert_close(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(jnp.abs(b).max()))


@pytest.fixture
def few_rows(monkeypatch):
    monkeypatch.setattr(winograd, "_IN_CACHE", 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loop", [False, True])
def test_it_is_the_convolution_with_its_gradients(shape, loop, x64, request):
    """Also where the rows are worked on one tile after the other."""
    if loop:
        request.getfixturevalue("few_rows")
    arguments = examples(*shape)
    ours = jax.jit(functools.partial(all_of, winograd.conv))(*arguments)
    assert_close(ours, all_of(plain, *arguments), 1e-12)


def test_a_pixel_is_the_sum_over_its_window(x64):
    x, kernel, _ = examples(1, 8, 8, 2, 3)
    window = np.asarray(x)[0, 3:6, 4:7]
    np.testing.assert_allclose(
        jax.jit(winograd.conv)(x, kernel)[0, 4, 5], np.einsum("hwi,hwio->o", window, kernel), rtol=1e-12
    )


def test_it_maps_over_images_and_kernels(few_rows, x64):
    stacked = [jnp.stack([array, 2 - array]) for array in examples(2, 8, 4, 3, 2)]
    forms_here = (functools.partial(all_of, form) for form in (winograd.conv, plain))
    ours, theirs = (jax.jit(jax.vmap(form))(*stacked) for form in forms_here)
    assert_close(ours, theirs, 1e-12)


def test_in_float32_it_rounds_a_few_times_as_much_as_the_convolution(x64):
    """Root mean square of the result and of each gradient: 2.3, 2.2 and 1.4 times as much as measured."""
    exact = examples(2, 16, 16, 64, 64)
    rounded = [array.astype(np.float32) for array in exact]
    exact = all_of(plain, *(array.astype(np.float64) for array in rounded))
    ours, theirs = (jax.jit(functools.partial(all_of, form))(*rounded) for form in (winograd.conv, plain))
    for a, b, c in zip(ours, theirs, exact, strict=True):
        ours_off, theirs_off = (float(jnp.sqrt(((x - c) ** 2).mean() / (c**2).mean())) for x in (a, b))
        assert ours_off < 10 * theirs_off and ours_off < 2e-6


# --- the choice


def uses_it(x_shape, kernel_shape, dtype="float32", platform="cpu", stride=1):
    """Whether `conv` is traced as this form: no convolution is left then."""
    arguments = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x_shape, kernel_shape))
    with forms.tracing_for(platform):
        return "conv_general_dilated" not in str(
            jax.jit(functools.partial(conv, stride=stride)).trace(*arguments).jaxpr
        )


def test_wide_convolutions_of_enough_pixels_take_it_on_a_cpu():
    assert uses_it((8, 8, 8, 512), (3, 3, 512, 512))
    assert uses_it((1, 64, 64, 64), (3, 3, 64, 64))


@pytest.mark.parametrize(
    ("x", "kernel", "how"),
    [
        ((8, 64, 64, 64), (3, 3, 64, 64), {"dtype": "bfloat16"}),
        ((8, 64, 64, 64), (3, 3, 64, 64), {"platform": "tpu"}),
        ((8, 64, 64, 64), (3, 3, 64, 64), {"platform": "any"}),
        ((8, 64, 64, 64), (3, 3, 64, 64), {"stride": 2}),
        ((8, 64, 64, 64), (5, 5, 64, 64), {}),
        ((8, 64, 64, 64), (3, 3, 64, 3), {}),
        ((8, 30, 30, 64), (3, 3, 64, 64), {}),
        ((4, 8, 8, 512), (3, 3, 512, 512), {}),
    ],
)
def test_others_do_not(x, kernel, how):
    assert not uses_it(x, kernel, **how)


def test_the_plain_form_has_a_forward_mode_derivative():
    x, kernel, _ = examples(1, 32, 16, 64, 64, dtype=np.float32)
    with forms.plain():
        y, dy = jax.jvp(conv, (x, kernel), (x, kernel))
    np.testing.assert_allclose(dy, 2 * y, rtol=1e-5)  # of degree two together: Euler
