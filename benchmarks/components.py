"""Principal components of images in the place of a code: what a probe and a picture of as many numbers give."""

import numpy as np

from diffrep_jax.samplers import Sampling


class Components:
    """The first d principal components of images as codes; takes the place of a model in a probe."""

    sampling = Sampling()

    def __init__(self, images: np.ndarray, dimensions: int):
        """images: float [n, h, w, c]."""
        self.image_size, self.channels, self.latent_dim = images.shape[1], images.shape[3], dimensions
        flat = images.reshape(len(images), -1).astype(np.float64)
        self._mean = flat.mean(0)
        values, vectors = np.linalg.eigh(np.cov(flat.T))
        self._directions = vectors[:, ::-1][:, :dimensions]
        self._scale = np.sqrt(np.maximum(values[::-1][:dimensions], 1e-12))

    def encode(self, images: np.ndarray, numbers: int = 0) -> np.ndarray:
        flat = images.reshape(len(images), -1) / 255.0
        return ((flat - self._mean) @ self._directions / self._scale).astype(np.float32)

    def decode(self, codes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return np.clip((codes * self._scale) @ self._directions.T + self._mean, 0, 1).reshape(len(codes), *shape)

    def fingerprint(self, batch_size: int = 1) -> np.ndarray:
        return self._scale.astype(np.float32)
