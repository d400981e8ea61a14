"""A method of one matrix with a self-supervised loss, and the sections that the tests of such losses share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax.methods import base as methods
from diffrep_jax.methods.ssl import self_supervised

COMMON = {
    "weight": 0.5,
    "main_weight": 1.0,
    "start_step": 0,
    "batch_size": 8,
    "augment": True,
    "jitter": 1.0,
    "hidden": 12,
}
SIMCLR = {"kind": "simclr", "temperature": 0.5, "out": 6, "encoder_decay": 0.0} | COMMON
SIMSIAM = {"kind": "simsiam", "bottleneck": 5, "encoder_decay": 0.0} | COMMON
RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Toy(methods.Base):
    """The mean of |x E D - x|^2 with an encoder E, and a self-supervised loss on x E; the decoder D is a number."""

    section: methods.FrozenDict = methods.FrozenDict()
    image_size: int = 4
    channels: int = 1

    @property
    def ssl(self):
        return self_supervised(self.section)

    def init(self, rng, batch):
        params = {"encoder": {"w": jax.random.normal(rng, (16, 16)) / 4}, "decoder": {"w": jnp.ones(())}}
        heads = {"ssl": self.ssl.init(rng, 16)} if self.ssl else {}
        return {"params": params | heads, "batch_stats": {}}

    def encode(self, variables, x):
        return x.reshape(len(x), -1) @ variables["params"]["encoder"]["w"]

    def loss(self, variables, batch, keys, train):
        x = batch["image"]
        z = self.encode(variables, x) * variables["params"]["decoder"]["w"]
        loss = ((z - x.reshape(len(x), -1)) ** 2).mean()
        return loss, {"loss": loss}, {}

    def view_loss(self, variables, views):
        params = variables["params"]
        return self.ssl.loss(params["ssl"], params["encoder"], *(self.encode(variables, x) for x in views.values()))

    def param_labels(self, params):
        return {k: jax.tree.map(lambda _, k=k: "ssl" if k == "ssl" else "train", v) for k, v in params.items()}
