"""A plain PyTorch training step of DBAE on a CPU, timed for `benchmarks.pair`; needs torch and NumPy alone.

python -m benchmarks.torch_step --method='{...}' prints one line of JSON; `method` is that section of a config.
"""

import argparse
import copy
import json
import math
import os
import resource
import time
from collections.abc import Mapping
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]
from torch.nn.attention import SDPBackend, sdpa_kernel  # pyright: ignore[reportMissingImports]
from torch.utils.flop_counter import FlopCounterMode  # pyright: ignore[reportMissingImports]

from benchmarks.torch_networks import Generator, HalfUNet, UNet
from diffrep_jax.train import heap

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class DBAE(nn.Module):
    """The three networks and the loss; deterministic encoder, VP bridge, Karras preconditioning."""

    def __init__(self, method: Mapping[str, Any]):
        super().__init__()
        size, channels, latent_dim = (method[name] for name in ("image_size", "channels", "latent_dim"))
        self.unet = UNet(size, channels, latent_dim, **method["unet"])
        self.encoder = HalfUNet(size, channels, latent_dim, **method["encoder"])
        self.generator = Generator(size, channels, latent_dim, method["generator"]["width"])
        self.s0, self.sT = method["sigma_data"], method["sigma_data_end"]

    def forward(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """weight |D - x_0|^2, the mean over images and pixels."""
        z = self.encoder(x0)
        xT = self.generator(z)
        a, b, c = (k[:, None, None, None] for k in vp_bridge(t))
        variance = a**2 * self.sT**2 + b**2 * self.s0**2 + c**2
        c_skip = b * self.s0**2 / variance
        c_out = torch.sqrt((a**2 * self.sT**2 * self.s0**2 + self.s0**2 * c**2) / variance)
        xt = a * xT + b * x0 + c * eps
        denoised = c_skip * xt + c_out * self.unet(xt / torch.sqrt(variance), 250 * torch.log(t), xT, z)
        return ((denoised - x0) ** 2 / c_out**2).mean()


def vp_bridge(t: Tensor, beta_min: float = 0.1, beta_d: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """(a, b, c) of x_t = a x_T + b x_0 + c eps, up to T = 1."""
    end = math.sinh((beta_min + beta_d / 2) / 2)
    a = torch.sinh(t * (beta_min + beta_d * t / 2) / 2) / end
    b = torch.sinh((1 - t) * (beta_min + beta_d * (1 + t) / 2) / 2) / end
    return a, b, torch.sqrt(2 * end * a * b)


class Step:
    """Draws, loss, backward pass, RAdam and the average of the weights, on one batch of random pixels."""

    def __init__(self, method: Mapping[str, Any], batch_size: int, layout: str):
        torch.manual_seed(0)
        self.model = DBAE(method).to(memory_format=LAYOUTS[layout])
        self.average = copy.deepcopy(self.model)
        self.optimizer = torch.optim.RAdam(self.model.parameters(), lr=1e-4, foreach=True)
        shape = (batch_size, method["channels"], method["image_size"], method["image_size"])
        self.batch = torch.randint(0, 256, shape, dtype=torch.uint8).to(memory_format=LAYOUTS[layout])

    def loss(self) -> Tensor:
        x0 = self.batch.float() / 127.5 - 1
        t = torch.rand(len(x0)).clamp(1e-4, 1 - 1e-6)
        return self.model(x0, t, torch.randn_like(x0))

    def __call__(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1e-4)
        return loss.item()

    def flops(self) -> int:
        """Of convolutions and matmuls, forward and backward."""
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self.loss().backward()
        return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_step")
    parser.add_argument("--method", type=json.loads, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--warm_up", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="contiguous")
    parser.add_argument("--heap", choices=("usual", "kept"), default="usual", help="kept: as `train/heap.py` sets it")
    flags = parser.parse_args()
    if flags.heap == "kept":
        heap.keep()
    torch.set_num_threads(flags.threads)
    step = Step(flags.method, flags.batch, flags.layout)
    parameters = sum(p.numel() for p in step.model.parameters())
    flops = step.flops()
    for _ in range(flags.warm_up):
        step()
    seconds, used = [], resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(flags.repeats):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    after = resource.getrusage(resource.RUSAGE_SELF)
    row = {
        "all_seconds": seconds,
        "user": (after.ru_utime - used.ru_utime) / flags.repeats,
        "system": (after.ru_stime - used.ru_stime) / flags.repeats,
        "parameters": parameters,
        "gflop_per_image": flops / flags.batch / 1e9,
        "version": torch.__version__,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
