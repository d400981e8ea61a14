"""A prior that clips, PDAE's and DiTi's, and one that does not, DiffAE's: for a network that says eps = 0."""

import jax
import numpy as np
import pytest

from configs import latent_prior_digits, latent_prior_ffhq, pdae_ffhq
from diffrep_jax.methods.base import build, example_batch
from diffrep_jax.samplers import Sampling


@pytest.mark.parametrize("clipped", [False, True])
def test_what_is_clipped(clipped):
    """With eps_hat = 0 a DDIM step gives D = z_t / b, and z_0 is z_T / b at the first step; clipped, sign-like."""
    config = latent_prior_digits.get_config().unlock()
    config.method.update(clipped=clipped)
    config.method.mlp.update(width=8, layers=2)
    method = build(config.method)
    shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), example_batch(method)))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    variables["batch_stats"]["codes"]["std"] = np.ones(64, np.float32)
    zT = method.endpoint(jax.random.split(jax.random.key(1), 50))
    assert (np.abs(zT).max() <= 1) == clipped
    how = Sampling(grid="ddim_range", steps=10)
    z = method.generate(variables, zT, how.stepper(), how.plan(method.process))
    first = 0.992 ** (901 / 2)  # sqrt(alpha_bar) at step 900
    if not clipped:
        np.testing.assert_allclose(z, np.asarray(zT)[:, 0, 0] / first, rtol=1e-3)
    else:
        assert np.abs(z).max() <= 1 and (np.sign(z) == np.sign(np.asarray(zT)[:, 0, 0])).all()


def test_priors_of_ffhq_are_trained_on_the_codes_of_all_images():
    assert latent_prior_ffhq.get_config().data.split == pdae_ffhq.get_config().tasks.encode.split == "all"
