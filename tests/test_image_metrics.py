"""MSE, PSNR and SSIM against hand-computed values and a window that is moved pixel by pixel."""

import math

import numpy as np
import pytest

from diffrep_jax.metrics.image import mse, psnr, ssim, ssim_official

RANDOM = np.random.default_rng(0)
SMOOTH = np.stack(np.meshgrid(np.linspace(0, 1, 14), np.linspace(0, 1, 13)), axis=-1)[None]  # [1, 13, 14, 2]
NOISY = np.clip(SMOOTH + 0.1 * RANDOM.standard_normal(SMOOTH.shape), 0, 1)


def test_mse_and_psnr_are_one_number_an_image():
    black, white, grey = np.zeros((1, 4, 5, 3)), np.ones((1, 4, 5, 3)), np.full((1, 4, 5, 3), 0.1)
    x, y = np.concatenate([black, black, white]), np.concatenate([white, grey, white])
    np.testing.assert_allclose(mse(x, y), [1, 0.01, 0], rtol=1e-12)
    np.testing.assert_allclose(psnr(x, y), [0, 20, math.inf], rtol=1e-12)
    one_pixel = black.copy()
    one_pixel[0, 2, 3, 1] = 0.5
    np.testing.assert_allclose(mse(one_pixel, black), [0.25 / 60])


def test_mse_of_float32_pictures_is_computed_in_float64():
    x = np.full((1, 64, 64, 3), 0.1, np.float32)
    y = np.full((1, 64, 64, 3), 0.1 + 1e-4, np.float32)
    difference = float(y[0, 0, 0, 0]) - float(x[0, 0, 0, 0])
    np.testing.assert_allclose(mse(x, y), [difference**2], rtol=1e-12)


def ssim_by_hand(x, y):
    """One channel [h, w]: at each pixel the weighted moments of the window around it; zeros outside the image."""
    weights = np.array([[math.exp(-(i * i + j * j) / 4.5) for j in range(-5, 6)] for i in range(-5, 6)])
    weights /= weights.sum()
    x, y = np.pad(x, 5), np.pad(y, 5)
    total = 0.0
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            u, v = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mean_u, mean_v = (weights * u).sum(), (weights * v).sum()
            var_u, var_v = (weights * (u - mean_u) ** 2).sum(), (weights * (v - mean_v) ** 2).sum()
            cov = (weights * (u - mean_u) * (v - mean_v)).sum()
            luminance = (2 * mean_u * mean_v + 1e-4) / (mean_u**2 + mean_v**2 + 1e-4)
            total += luminance * (2 * cov + 9e-4) / (var_u + var_v + 9e-4)
    return total / ((x.shape[0] - 10) * (x.shape[1] - 10))


def test_ssim_is_the_mean_over_windows_and_channels():
    x = np.concatenate([SMOOTH, RANDOM.random(SMOOTH.shape)])
    y = np.concatenate([NOISY, RANDOM.random(SMOOTH.shape)])
    expected = [[ssim_by_hand(x[n, :, :, c], y[n, :, :, c]) for c in range(2)] for n in range(2)]
    np.testing.assert_allclose(ssim(x, y), np.mean(expected, axis=1), rtol=1e-10)


def test_ssim_is_one_for_equal_images_symmetric_and_low_for_unlike_ones():
    np.testing.assert_allclose(ssim(NOISY, NOISY), [1], rtol=1e-12)
    np.testing.assert_allclose(ssim(SMOOTH, NOISY), ssim(NOISY, SMOOTH), rtol=1e-12)
    assert ssim(SMOOTH, NOISY) < ssim(SMOOTH, 0.5 * (SMOOTH + NOISY)) < 1
    checkers = np.indices((16, 16)).sum(0)[None, :, :, None] % 2.0
    assert ssim(checkers, 1 - checkers) < -0.5
    # Black against white: nothing but the stabilising constants is left, c1 / (1 + c1) away from the border.
    black, white = np.zeros((1, 40, 40, 1)), np.ones((1, 40, 40, 1))
    assert 0 < ssim(black, white)[0] < 1.1e-4


def test_psnr_and_ssim_are_those_of_scikit_image():
    """SSIM of images in a black frame as wide as half the window: scikit-image leaves that frame out of its mean."""
    library = pytest.importorskip("skimage.metrics")
    x, y = RANDOM.random((2, 17, 23, 3)), RANDOM.random((2, 17, 23, 3))
    y[1] = np.clip(x[1] + 0.05 * y[1], 0, 1)
    for i in range(2):
        framed = [np.pad(image[i], ((5, 5), (5, 5), (0, 0))) for image in (x, y)]
        expected = library.structural_similarity(
            *framed, data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        np.testing.assert_allclose(ssim(x, y)[i], expected, atol=1e-10)
        expected = library.peak_signal_noise_ratio(x[i], y[i], data_range=1)
        np.testing.assert_allclose(psnr(x, y)[i], expected, rtol=1e-12)


def test_one_image_and_constant_images():
    grey, darker = np.full((1, 12, 12, 3), 0.5), np.full((1, 12, 12, 3), 0.3)
    np.testing.assert_allclose(ssim(grey, grey), [1], rtol=1e-12)
    # Without structure only the luminance is left where the window sees no border: the sum over n x n pixels is a
    # parabola in n, with that value as its leading coefficient.
    sums = [n**2 * ssim(np.full((1, n, n, 1), 0.5), np.full((1, n, n, 1), 0.3))[0] for n in (20, 21, 22)]
    luminance = (2 * 0.15 + 1e-4) / (0.25 + 0.09 + 1e-4)
    assert (sums[0] - 2 * sums[1] + sums[2]) / 2 == pytest.approx(luminance, rel=1e-9)
    assert ssim(grey, darker).shape == psnr(grey, darker).shape == mse(grey, darker).shape == (1,)


def test_ssim_official_is_the_window_over_width_and_channels_step_by_step():
    """What the script computes on [n, h, w, c]: each row of pixels is a channel, w x c the picture."""
    x, y = RANDOM.random((1, 4, 13, 3)), RANDOM.random((1, 4, 13, 3))
    expected = np.mean([ssim_by_hand(x[0, row], y[0, row]) for row in range(4)])
    np.testing.assert_allclose(ssim_official(x, y), [expected], rtol=1e-10)
    plain = np.mean([ssim_by_hand(x[0, :, :, c], y[0, :, :, c]) for c in range(3)])
    np.testing.assert_allclose(ssim(x, y), [plain], rtol=1e-10)
    assert abs(plain - expected) > 1e-3
