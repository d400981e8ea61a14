"""Accelerators by the names that people use: dense peaks and memory, from the makers' data sheets."""

import dataclasses
import os
import time
from typing import Any

import jax
import jax.numpy as jnp

from diffrep_jax.errors import unknown


@dataclasses.dataclass(frozen=True)
class Device:
    """platform: as JAX calls it; bfloat16, float32: multiply-adds as two, FLOP/s at the precision that JAX takes by
    default (float32 on GPUs is TF32 where they have it, on TPUs one pass of bfloat16); memory: bytes; kinds: how JAX
    names it (`device.device_kind`); fused: it has cuDNN's attention."""

    platform: str
    bfloat16: float
    float32: float
    memory: float
    kinds: tuple[str, ...]
    fused: bool = False

    def peak(self, dtype: str) -> float:
        """FLOP/s for networks that compute in "float32" or "bfloat16"."""
        return self.float32 if dtype == "float32" else self.bfloat16


DEVICES = {
    "H200": Device("gpu", 989e12, 494e12, 141e9, ("NVIDIA H200",), True),
    "H100": Device("gpu", 989e12, 494e12, 80e9, ("NVIDIA H100 80GB HBM3",), True),
    "A100": Device("gpu", 312e12, 156e12, 80e9, ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"), True),
    "A100-40GB": Device("gpu", 312e12, 156e12, 40e9, ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"), True),
    "L40S": Device("gpu", 362e12, 183e12, 48e9, ("NVIDIA L40S",), True),
    "L4": Device("gpu", 121e12, 60e12, 24e9, ("NVIDIA L4",), True),
    "T4": Device("gpu", 8.1e12, 8.1e12, 16e9, ("Tesla T4",)),  # its 65 are of float16; bfloat16 it has not
    "v4": Device("tpu", 275e12, 275e12, 32e9, ("TPU v4",)),
    "v5e": Device("tpu", 197e12, 197e12, 16e9, ("TPU v5 lite", "TPU v5e")),
    "v5p": Device("tpu", 459e12, 459e12, 95e9, ("TPU v5p", "TPU v5")),
    "v6e": Device("tpu", 918e12, 918e12, 32e9, ("TPU v6 lite", "TPU v6e")),
}


def named(name: str, place: str) -> Device:
    """The device of this name, whatever its case; UserError naming the config's field for others."""
    for known, device in DEVICES.items():
        if known.lower() == name.lower():
            return device
    raise unknown("device", name, [*DEVICES, "cpu"], place)


def of_kind(kind: str) -> Device | None:
    """The device that JAX calls so, if it is in the table."""
    return next((device for device in DEVICES.values() if kind in device.kinds), None)


def this_cpu(dtype: str) -> Device:
    """The machine's own processor, its peak measured in a second or so."""
    peak = measured_peak(jax.devices("cpu")[0], dtype, 2048)
    return Device("cpu", peak, peak, this_machine_memory(), ("cpu",))


def this_machine_memory() -> int:
    """Bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measured_peak(device: Any, dtype: str, size: int) -> float:
    """FLOP/s of the best of five products of two size x size matrices."""
    x = jax.device_put(jnp.ones((size, size), dtype), device)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(x))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(product(x))
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times)
