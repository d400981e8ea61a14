"""LPIPS and Inception's features with generated weights: the values of the official PyTorch code, and laws."""

import jax
import numpy as np
import pytest

from diffrep_jax.metrics import inception, lpips
from tests import golden, perceptual

GOLDEN = golden.numbers("perceptual")  # by the packages lpips 0.1.4 and pytorch-fid 0.3.0


@pytest.fixture(scope="module")
def features():
    params = inception.weights(perceptual.inception_state())
    compiled = jax.jit(inception.features)
    return lambda images: np.asarray(compiled(params, images))


@pytest.fixture(scope="module")
def distance():
    params = lpips.weights(*perceptual.lpips_states())
    compiled = jax.jit(lpips.distance)
    return lambda x, y: np.asarray(compiled(params, x, y))


@pytest.mark.parametrize("shape", [(3, 40, 48, 3), (1, 330, 310, 3)])
def test_inception_has_the_features_of_pytorch_fid(features, shape):
    """Smaller and larger than the network's 299 pixels."""
    expected = GOLDEN[f"inception_{shape[1]}"]
    got = features(perceptual.images("inception", *shape))
    assert got.shape == (shape[0], inception.FEATURES)
    np.testing.assert_allclose(got, expected, atol=1e-4 * expected.std())
    if shape[0] > 1:  # the images differ by far more than that
        assert expected.std(0).mean() > 0.1 * expected.std()


@pytest.mark.parametrize("shape", [(3, 64, 64, 3), (2, 31, 45, 3)])
def test_lpips_is_that_of_the_package(distance, shape):
    x, y = (perceptual.images(name, *shape) for name in "xy")
    np.testing.assert_allclose(distance(x, y), GOLDEN[f"lpips_{shape[1]}"], rtol=1e-5)


def test_lpips_is_a_distance_that_grows(distance):
    x = 0.5 * perceptual.images("x", 2, 48, 40, 3)
    noise = 0.5 * perceptual.images("y", 2, 48, 40, 3)
    assert distance(x, x).max() < 1e-14  # the square of float32's rounding of unit vectors
    np.testing.assert_allclose(distance(x, x + noise), distance(x + noise, x), rtol=1e-6)
    near, far = distance(x, x + 0.1 * noise), distance(x, x + noise)
    assert np.all(0 < near) and np.all(near < 0.5 * far)
    np.testing.assert_allclose(distance(x[::-1], (x + noise)[::-1]), far[::-1], rtol=1e-5)  # image by image


def test_grey_images_are_repeated(distance):
    x, y = (perceptual.images(name, 2, 48, 40, 1) for name in "xy")
    colour = [np.repeat(image, 3, axis=-1) for image in (x, y)]
    np.testing.assert_allclose(distance(x, y), distance(*colour), rtol=1e-6)


def test_a_smaller_image_leaves_nothing_to_measure(distance):
    size = lpips.SMALLEST - 1  # with SMALLEST the package is met, see above
    assert not np.isfinite(distance(*(perceptual.images(name, 1, size, size, 3) for name in "xy")))[0]


def test_a_batch_norm_is_folded_into_its_convolution():
    """Scaling what goes in and the running statistics alike leaves what comes out."""
    state = perceptual.inception_state()
    name = "Mixed_6b.branch7x7_2"
    scaled = state | {
        f"{name}.conv.weight": 3 * state[f"{name}.conv.weight"],
        f"{name}.bn.running_mean": 3 * state[f"{name}.bn.running_mean"],
        f"{name}.bn.running_var": 9 * (state[f"{name}.bn.running_var"] + 1e-3) - 1e-3,
    }
    one, other = (inception.weights(tensors)[name] for tensors in (state, scaled))
    np.testing.assert_allclose(one["kernel"], other["kernel"], rtol=1e-5)
    np.testing.assert_allclose(one["shift"], other["shift"], rtol=1e-4, atol=1e-6)


@pytest.mark.torch
class TestOfficialCode:
    """The golden values anew, where the packages are installed: pip install '.[parity]'."""

    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")
        self.torchvision = pytest.importorskip("torchvision")

    def tensors(self, state):
        return {name: self.torch.from_numpy(value) for name, value in state.items()}

    def nchw(self, images):
        return self.torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    def test_inception(self, features, monkeypatch):
        official = pytest.importorskip("pytorch_fid.inception")
        network = self.torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
        state = network.state_dict()
        own = self.tensors(perceptual.inception_state())
        left = {name for name in state if name not in own}
        assert all(name.startswith("fc.") or name.endswith("num_batches_tracked") for name in left)
        monkeypatch.setattr(official, "load_state_dict_from_url", lambda *a, **k: state | own)
        network = official.InceptionV3([3]).eval()
        for shape in ((3, 40, 48, 3), (1, 330, 310, 3), (1, 299, 299, 3)):
            images = perceptual.images("inception", *shape)
            with self.torch.no_grad():
                expected = network((self.nchw(images) + 1) / 2)[0][:, :, 0, 0].numpy()
            np.testing.assert_allclose(features(images), expected, atol=1e-4 * expected.std())
            if f"inception_{shape[1]}" in GOLDEN:
                np.testing.assert_allclose(GOLDEN[f"inception_{shape[1]}"], expected, atol=1e-4 * expected.std())

    def test_lpips(self, distance, monkeypatch):
        official = pytest.importorskip("lpips")
        networks = pytest.importorskip("lpips.pretrained_networks")
        alexnet, heads = map(self.tensors, perceptual.lpips_states())
        network = self.torchvision.models.alexnet()
        assert {n for n in network.state_dict() if n.startswith("features")} == set(alexnet)
        network.load_state_dict(alexnet, strict=False)
        monkeypatch.setattr(networks.tv, "alexnet", lambda pretrained: network)
        official = official.LPIPS(pretrained=False, pnet_rand=True, verbose=False).eval()
        assert not official.load_state_dict(heads, strict=False).unexpected_keys
        for shape in ((3, 64, 64, 3), (2, 31, 45, 3)):
            x, y = (perceptual.images(name, *shape) for name in "xy")
            with self.torch.no_grad():
                expected = official(self.nchw(x), self.nchw(y)).numpy().reshape(-1)
            np.testing.assert_allclose(distance(x, y), expected, rtol=1e-5)
            np.testing.assert_allclose(GOLDEN[f"lpips_{shape[1]}"], expected, rtol=1e-5)
