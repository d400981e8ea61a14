"""Distances between images: MSE, PSNR and SSIM, per image, on pixels in [0, 1], computed in float64."""

import numpy as np

from diffrep_jax.errors import check_finite


def mse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The mean squared difference of each image: [n, h, w, c] x 2 -> [n]."""
    x, y = _pair(x, y)
    return ((x - y) ** 2).mean((1, 2, 3))


def psnr(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """10 log10(1 / MSE) of each image, in dB; infinite for equal images."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(mse(x, y))


def ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Structural similarity of each image (Wang et al. 2004): [n, h, w, c] x 2 in [0, 1] -> [n].

    An 11 x 11 Gaussian window of sigma 1.5, zero padding, population variances, data range 1, the mean over pixels
    and channels: DBAE's protocol, with the window over h and w.
    """
    return _ssim(x, y, (1, 2))


def ssim_official(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What DBAE's script printed for its table 2: the same window, but over w and the channels, as the script hands
    [n, h, w, c] to a function that reads [n, c, h, w]. Only to compare with that table."""
    return _ssim(x, y, (2, 3))


def _ssim(x: np.ndarray, y: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    x, y = _pair(x, y)
    mean_x, mean_y = _window(x, axes), _window(y, axes)
    var_x = _window(x * x, axes) - mean_x**2
    var_y = _window(y * y, axes) - mean_y**2
    cov = _window(x * y, axes) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    values = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return values.mean((1, 2, 3))


def _pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In float64; NotFinite where an image is not."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    for images, what in ((x, "Original image"), (y, "Image")):
        check_finite(images, what)
    return x, y


def _window(x: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """The Gaussian mean around each value along two axes, zeros outside."""
    from scipy.ndimage import correlate1d

    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    for axis in axes:
        x = correlate1d(x, taps, axis=axis, mode="constant")
    return x
