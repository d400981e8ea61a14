"""DBAE's networks in plain PyTorch, of the shapes of `diffrep_jax/models`: the yardstick of `benchmarks.pair`.

On the same weights they compute what ours do (`tests/test_yardstick.py`). Modules have the names of ours, and the
arguments are those of a config's `method.unet`, `.encoder` and `.generator`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]
from torch.nn.utils.parametrizations import spectral_norm  # pyright: ignore[reportMissingImports]


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


def conv(channels: int, features: int, size: int = 3, zero: bool = False) -> nn.Conv2d:
    layer = nn.Conv2d(channels, features, size, padding=size // 2)
    if zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer


def resampled(x: Tensor, resample: str) -> Tensor:
    if resample == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2, mode="nearest") if resample == "up" else x


class ResBlock(nn.Module):
    def __init__(self, channels: int, features: int, emb: int, dropout: float, resample: str = ""):
        super().__init__()
        self.resample = resample
        self.norm_in, self.conv_in = group_norm(channels), conv(channels, features)
        self.emb = nn.Linear(emb, 2 * features)
        self.norm_out, self.dropout = group_norm(features), nn.Dropout(dropout)
        self.conv_out = conv(features, features, zero=True)
        self.skip = conv(channels, features, 1) if channels != features else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv_in(resampled(F.silu(self.norm_in(x)), self.resample))
        scale, shift = self.emb(F.silu(emb))[:, :, None, None].chunk(2, 1)
        h = self.conv_out(self.dropout(F.silu(self.norm_out(h) * (1 + scale) + shift)))
        return self.skip(resampled(x, self.resample)) + h


class EncoderBlock(nn.Module):
    def __init__(self, channels: int, features: int, resample: str = ""):
        super().__init__()
        self.resample = resample
        self.norm, self.conv = group_norm(channels), conv(channels, features)
        self.skip = conv(channels, features, 1) if channels != features else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(resampled(F.silu(self.norm(x)), self.resample))
        return self.skip(resampled(x, self.resample)) + h


class Attention(nn.Module):
    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads, self.norm = heads, group_norm(channels)
        self.qkv, self.proj = conv(channels, 3 * channels, 1), conv(channels, channels, 1, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, self.heads, 3, c // self.heads, h * w).transpose(-1, -2)
        q, k, v = (part.contiguous() for part in qkv.unbind(2))
        out = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.proj(out.reshape(b, c, h, w))


class UNet(nn.Module):
    def __init__(self, size: int, channels: int, latent_dim: int, **levels: Any):
        super().__init__()
        self.width, mult = levels["width"], levels["mult"]
        blocks, head_dim, dropout = levels["blocks"], levels["head_dim"], levels["dropout"]
        emb, h = 4 * self.width, self.width * mult[0]
        self.time_in, self.time_out, self.code = (nn.Linear(n, emb) for n in (self.width, emb, latent_dim))
        self.conv_in = conv(2 * channels, h)
        self.way_down: list[tuple[str, str]] = []
        self.way_up: list[tuple[str, str, str]] = []

        def block(name: str, channels: int, features: int, resample: str = "") -> str:
            self.add_module(name, ResBlock(channels, features, emb, dropout, resample))
            return name

        def attend(name: str, channels: int, always: bool = False) -> str:
            if not always and size not in levels["attention"]:
                return ""
            self.add_module(name, Attention(channels, max(1, channels // head_dim)))
            return name

        skips = [h]
        for level, multiple in enumerate(mult):
            if level:
                size //= 2
                self.way_down.append((block(f"down{level}_resample", h, h, "down"), ""))
                skips.append(h)
            for i in range(blocks):
                name = block(f"down{level}_block{i}", h, self.width * multiple)
                h = self.width * multiple
                self.way_down.append((name, attend(f"down{level}_attention{i}", h)))
                skips.append(h)
        block("middle_block0", h, h)
        attend("middle_attention", h, always=True)
        block("middle_block1", h, h)
        for level, multiple in reversed(list(enumerate(mult))):
            for i in range(blocks + 1):
                name = block(f"up{level}_block{i}", h + skips.pop(), self.width * multiple)
                h = self.width * multiple
                attention = attend(f"up{level}_attention{i}", h)
                last = level and i == blocks
                self.way_up.append((name, attention, block(f"up{level}_resample", h, h, "up") if last else ""))
            size *= 2
        self.norm_out, self.conv_out = group_norm(h), conv(h, channels, zero=True)

    def forward(self, x: Tensor, t: Tensor, xT: Tensor, z: Tensor) -> Tensor:
        emb = self.time_out(F.silu(self.time_in(time_embedding(t, self.width)))) + self.code(z)
        h = self.conv_in(torch.cat([x, xT], 1))
        skips = [h]
        for block, attend in self.way_down:
            h = self.get_submodule(block)(h, emb)
            h = self.get_submodule(attend)(h) if attend else h
            skips.append(h)
        h = self.middle_block1(self.middle_attention(self.middle_block0(h, emb)), emb)
        for block, attend, resample in self.way_up:
            h = self.get_submodule(block)(torch.cat([h, skips.pop()], 1), emb)
            h = self.get_submodule(attend)(h) if attend else h
            h = self.get_submodule(resample)(h, emb) if resample else h
        return self.conv_out(F.silu(self.norm_out(h)))


def time_embedding(t: Tensor, width: int) -> Tensor:
    half = width // 2
    angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
    return torch.cat([angles.cos(), angles.sin()], 1)


class HalfUNet(nn.Module):
    def __init__(self, size: int, channels: int, features: int, **levels: Any):
        super().__init__()
        width, mult = levels["width"], levels["mult"]
        h = width * mult[0]
        self.conv_in, self.way = conv(channels, h), []

        def add(name: str, module: nn.Module) -> None:
            self.add_module(name, module)
            self.way.append(name)

        for level, multiple in enumerate(mult):
            if level:
                size //= 2
                add(f"down{level}_resample", EncoderBlock(h, h, "down"))
            for i in range(levels["blocks"]):
                add(f"down{level}_block{i}", EncoderBlock(h, width * multiple))
                h = width * multiple
                if size in levels["attention"]:
                    add(f"down{level}_attention{i}", Attention(h, 1))
        add("middle_block0", EncoderBlock(h, h))
        add("middle_attention", Attention(h, 1))
        add("middle_block1", EncoderBlock(h, h))
        self.norm_out, self.out = group_norm(h), nn.Linear(h, features)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for name in self.way:
            h = self.get_submodule(name)(h)
        return self.out(F.silu(self.norm_out(h)).mean((2, 3)))


class UpBlock(nn.Module):
    def __init__(self, channels: int, features: int):
        super().__init__()
        self.conv = spectral_norm(nn.Conv2d(channels, 2 * features, 3, padding=1, bias=False))
        self.norm = nn.BatchNorm2d(2 * features)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.norm(self.conv(resampled(x, "up"))), 1)


class SkipExcitation(nn.Module):
    def __init__(self, channels: int, features: int, base: int):
        super().__init__()
        self.base = base
        self.squeeze = spectral_norm(nn.Conv2d(channels, features, base, bias=False))
        self.excite = spectral_norm(nn.Conv2d(features, features, 1, bias=False))

    def forward(self, small: Tensor) -> Tensor:
        return self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(small, self.base)))).sigmoid()


MULTIPLES = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5}  # channels by nominal size, in widths
EXCITED = {64: 4, 128: 8, 256: 16}  # features at the key are scaled by those at the value


class Generator(nn.Module):
    """For image sizes that are powers of two."""

    def __init__(self, size: int, channels: int, latent_dim: int, width: int):
        super().__init__()
        widths = {at: max(1, int(multiple * width)) for at, multiple in MULTIPLES.items()}
        first = 2 * widths[4]
        self.init_conv = spectral_norm(nn.ConvTranspose2d(latent_dim, first, 4, bias=False))
        self.init_norm = nn.BatchNorm2d(first)
        self.sizes: Sequence[int] = [8 * 2**k for k in range(int(math.log2(size)) - 2)]
        for at in self.sizes:
            self.add_module(f"up{at}", UpBlock(widths[at // 2], widths[at]))
            if at in EXCITED:
                self.add_module(f"excite{at}", SkipExcitation(widths[EXCITED[at]], widths[at], 4))
        self.to_image = spectral_norm(nn.Conv2d(widths[size], channels, 1, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        features = {4: F.glu(self.init_norm(self.init_conv(z[:, :, None, None])), 1)}
        for at in self.sizes:
            h = self.get_submodule(f"up{at}")(features[at // 2])
            features[at] = h * self.get_submodule(f"excite{at}")(features[EXCITED[at]]) if at in EXCITED else h
        return self.to_image(features[self.sizes[-1]])
