"""uint8 -> [-1, 1] in compiled code: the same bits as by NumPy, whatever surrounds it."""

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax.data import transforms
from diffrep_jax.pixels import to_float

LEVELS = np.arange(256, dtype=np.uint8)


def test_every_level_is_numpys_bit_for_bit():
    expected = transforms.to_float(LEVELS)
    assert (expected[0], expected[255], expected.dtype) == (-1, 1, np.float32)
    for function in (to_float, jax.jit(to_float), jax.jit(jax.vmap(to_float))):
        np.testing.assert_array_equal(np.asarray(function(LEVELS)).view(np.uint32), expected.view(np.uint32))
    # Inside a larger kernel too: a product with the inverse, or one rounding in place of two, would show here.
    doubled = jax.jit(lambda x: (to_float(x) * 2, jnp.sin(to_float(x)).sum()))(np.tile(LEVELS, 9))[0]
    np.testing.assert_array_equal(doubled, np.tile(2 * expected, 9))


def test_other_types_stay_as_they_are():
    for values in (jnp.linspace(-3, 3, 7), jnp.arange(4), jnp.zeros(2, bool), jnp.ones(3, jnp.bfloat16)):
        assert to_float(values) is values
