"""The mesh: training on eight devices is training on one, fsdp divides the parameters, bad meshes are refused."""

import jax
import numpy as np
import pytest

from diffrep_jax import sharding
from diffrep_jax.errors import UserError
from tests.tiny import run_python

DEVICES = """
import jax, numpy as np
from diffrep_jax.methods.base import build
from diffrep_jax import sharding
from diffrep_jax.train import optimizer
from diffrep_jax.train.state import create_state
from diffrep_jax.train.step import compile_step, make_train_step
from tests.test_train import Linear
from tests.tiny import tiny_config
config = tiny_config(batch_size=16)
config.unlock(); config.method.unet.width = 32

def train(method, fsdp):
    mesh = sharding.make_mesh(fsdp=fsdp)
    optim = optimizer.build(config.optim, method)
    state = create_state(method, optim, mesh, 0)
    shape = (16, method.image_size, method.image_size, 1)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    batch = sharding.put_batch({"image": images}, mesh)
    step = make_train_step(method, optim, ema_decay=0.9, seed=0, microbatches=2)
    compiled, losses = compile_step(step, state, batch, mesh), []
    for _ in range(3):
        state, metrics = compiled(state, batch)
        losses.append(float(metrics["loss"]))
    leaves = jax.tree.leaves(state.params)
    share = max(sum(s.data.nbytes for leaf in leaves for s in leaf.addressable_shards if s.device == d)
                for d in jax.devices()) / sum(leaf.nbytes for leaf in leaves)
    print(type(method).__name__, fsdp, share, *losses)

for fsdp in FSDP:
    train(Linear(image_size=16), fsdp)
train(build(config.method), FSDP[-1])
"""


@pytest.mark.slow
def test_eight_devices_train_as_one_and_fsdp_divides_the_parameters():
    """A method of one matrix on every mesh, DBAE where both the batch and the parameters are divided."""
    runs = {}
    for devices, fsdp in ((1, (1,)), (8, (1, 4))):
        for line in run_python(DEVICES.replace("FSDP", str(fsdp)), devices=devices).splitlines():
            if line.startswith(("Linear", "DBAE")):
                method, count, share, *losses = line.split()
                runs[method, devices, int(count)] = float(share), np.array(losses, float)
    assert len(runs) == 5
    for (method, _, fsdp), (share, losses) in runs.items():
        np.testing.assert_allclose(losses, runs[method, 1, 1][1], rtol=2e-4)
        assert share == 1 if fsdp == 1 else share < 0.25 * 1.1  # small leaves stay whole
        assert np.ptp(losses) > 0


def test_fsdp_rule_splits_the_largest_axis_that_divides():
    # the rule reads sizes only, so one device stands for four in an abstract mesh
    mesh = jax.sharding.AbstractMesh((2, 4), ("data", "fsdp"))
    assert sharding.parameter_spec(mesh, (3, 3, 64, 128)) == jax.sharding.PartitionSpec(None, None, None, "fsdp")
    assert sharding.parameter_spec(mesh, (4096, 30)) == jax.sharding.PartitionSpec("fsdp")
    assert sharding.parameter_spec(mesh, (7, 1001)) == jax.sharding.PartitionSpec()  # nothing divides
    assert sharding.parameter_spec(mesh, (64,)) == jax.sharding.PartitionSpec()  # small


def test_a_batch_that_devices_cannot_share_is_refused():
    mesh = jax.sharding.AbstractMesh((4, 1), ("data", "fsdp"))
    sharding.check_divides(8, mesh, "train.batch_size")
    with pytest.raises(UserError, match="config.train.batch_size=6 does not divide by the mesh of 4"):
        sharding.check_divides(6, mesh, "train.batch_size")


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="fsdp=64 does not make up"):
        sharding.make_mesh(fsdp=64)
