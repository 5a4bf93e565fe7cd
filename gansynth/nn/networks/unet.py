"""A U-Net that generates images from label maps, with noise at every resolution.

Ronneberger et al. 2015; in 3D: Cicek et al. 2016; as a generator: Isola et al. 2017. Noise with a
learnt scale per channel: Karras et al. 2019 (StyleGAN, sec. 2), for texture that label maps do not
determine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gansynth.nn.networks.blocks import (
    Activation,
    Blocks,
    ConvLayer,
    ConvUnit,
    Down,
    Narrow,
    Norm,
    ResidualBlock,
    Skip,
    activated,
    activation,
    channels_last,
    conv,
    downsampling,
    normalisation,
    shrunk,
)
from gansynth.nn.networks.recompute import recomputed
from gansynth.nn.networks.resize import TransposedConv, Up, enlarge


@dataclass(frozen=True)
class UNetStyle:
    """Architecture of a U-Net."""

    norm: Norm = "instance"  # normalisation after each convolution but the first and the last two
    down: Down = "strided"
    up: Up = "trilinear"
    blocks: Blocks = "plain"
    double: bool = False  # one more convolution per level, or one more block if levels are residual
    activation: Activation = "leaky_relu"
    skip: Skip = "add"  # `add` features of the encoder to the decoder's, or `concat` them
    # place where the decoder reduces channels to those of the finer level. `before` upsampling
    # (kernel 1, cheap), `after` it (kernel 3, as in MM-GAN), or `none`: after the skip connection
    # (as in the 3D U-Net; needs `concat`).
    narrow: Narrow = "before"
    head: bool = True
    # begin and end at full resolution. False strides at once and ends in a transposed convolution,
    # as in pix2pix: cheaper, but without fine texture.
    stem: bool = True
    spectral: bool = False
    noise: bool = True
    # share of features dropped in the coarsest levels of the decoder, also when sampling (the only
    # noise of pix2pix)
    dropout: float = 0.0
    checkpointing: bool = False  # keep each level's inputs only, and recompute the rest


PLAIN = UNetStyle()

DROPPED = 3  # most levels of the decoder with dropout, from the coarsest (pix2pix: three)


class NoiseInjection(nn.Module):
    """Adds noise with a learnt scale per channel."""

    def __init__(self, ndim: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, channels, *[1] * ndim), 0.2))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Add ``noise`` (B, 1, ...) to ``x`` (B, C, ...)."""
        added: Tensor = _Noisy.apply(x, self.scale, noise.to(x.dtype))  # type: ignore[no-untyped-call]
        return added


class _Noisy(torch.autograd.Function):
    """As ``addcmul``, by matrices where channels are last, as after a CPU's convolution in bf16.

    There ``addcmul`` of one value for all channels of a voxel is slow.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        ctx.save_for_backward(noise)
        factors, rows = scale.to(x.dtype), _rows(x)
        if rows is None:
            return torch.addcmul(x, factors, noise)
        made = torch.empty_like(x)
        torch.addmm(rows, noise.reshape(-1, 1), factors.reshape(1, -1), out=_rows(made))
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (noise,), (gradient,) = ctx.saved_tensors, gradients
        rows = _rows(gradient)
        if rows is None:
            scale = (gradient * noise).sum([0, *range(2, noise.ndim)], dtype=torch.float32)
        else:
            scale = (noise.reshape(1, -1).float() @ rows.float())[0]
        return gradient, scale.view(1, -1, *[1] * (noise.ndim - 2)), None


def _rows(x: Tensor) -> Tensor | None:
    """Return a view (voxels, C) of (B, C, ...) whose channels are last in memory, or None."""
    last = x.movedim(1, -1)
    return last.view(-1, x.shape[1]) if last.is_contiguous() else None


class UNetGenerator(nn.Module):
    """Generates (B, out_channels, ...) from (B, in_channels, ...), without random numbers."""

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        width: int,
        strides: Sequence[tuple[int, ...]],
        output: Literal["linear", "tanh"] = "linear",
        max_width: int = 256,
        style: UNetStyle = PLAIN,
    ) -> None:
        super().__init__()
        self.ndim, self.output, self.style = ndim, output, style
        self._cubic: dict[Any, Tensor] = {}  # weights of `enlarge`, by sizes and device
        # Without a stem the finest level is half the image's resolution.
        self.outer = None if style.stem or not strides else tuple(strides[0])
        self.strides = [tuple(s) for s in (strides if self.outer is None else strides[1:])]
        self.widths = [min(width * 2**i, max_width) for i in range(len(self.strides) + 1)]
        self.act = activation(style.activation)
        self.stem = self._stem(in_channels, width)
        self.down = nn.ModuleList([self._downward(i) for i in range(len(self.strides))])
        self.middle = ConvUnit(
            ndim, self.widths[-1], style.norm, style.activation, spectral=style.spectral
        )
        self._build_upward(width)
        self.head = self._conv(width, width, 3) if style.head else None
        self.grain = NoiseInjection(ndim, width) if style.noise else None
        self.image = (
            self._conv(width, out_channels, 1)
            if self.outer is None
            else TransposedConv(ndim, width, out_channels, self.outer, spectral=style.spectral)
        )
        self.refine_down = nn.ModuleList([self._refine(w) for w in self.widths[:-1]])
        self.refine_middle = self._refine(self.widths[-1])
        self.refine_up = nn.ModuleList([self._refine(w) for w in self.widths[:-1]])

    # -- building --------------------------------------------------------------------------------

    def _conv(self, cin: int, cout: int, kernel: int) -> nn.Module:
        return conv(self.ndim, cin, cout, kernel, spectral=self.style.spectral)

    def _stem(self, cin: int, width: int) -> nn.Module:
        if self.outer is None:
            return self._conv(cin, width, 3)
        style = self.style
        return downsampling(style.down, self.ndim, cin, width, self.outer, spectral=style.spectral)

    def _downward(self, i: int) -> nn.Module:
        style, (cin, cout) = self.style, self.widths[i : i + 2]
        return ConvLayer(
            downsampling(
                style.down, self.ndim, cin, cout, self.strides[i], spectral=style.spectral
            ),
            normalisation(style.norm, self.ndim, cout),
            activation(style.activation),
        )

    def _build_upward(self, width: int) -> None:
        style, widths = self.style, self.widths
        # By default reduced before upsampling and added to the skip, not concatenated: the costly
        # convolution at the finer level has a third of the channels.
        self.narrow = nn.ModuleList([self._narrowing(i) for i in range(len(self.strides))])
        joined = [(2 if style.skip == "concat" else 1) * w for w in widths[:-1]]
        if style.narrow == "none":
            joined = [w + wider for w, wider in pairwise(widths)]
        self.up = nn.ModuleList()
        for cin, w in zip(joined, widths[:-1], strict=True):
            self.up.append(self._conv(cin, w, 3))
        self.norm = nn.ModuleList([normalisation(style.norm, self.ndim, w) for w in widths[:-1]])
        self.noise = nn.ModuleList([NoiseInjection(self.ndim, w) for w in widths if style.noise])

    def _narrowing(self, i: int) -> nn.Module:
        style, (cout, cin) = self.style, self.widths[i : i + 2]
        if style.up == "transposed":
            return TransposedConv(self.ndim, cin, cout, self.strides[i], spectral=style.spectral)
        if style.narrow == "none":
            return nn.Identity()
        return self._conv(cin, cout, 1 if style.narrow == "before" else 3)

    def _refine(self, width: int) -> nn.Sequential:
        style = self.style
        block = ResidualBlock if style.blocks == "residual" else ConvUnit
        count = (style.blocks == "residual") + style.double
        blocks = nn.Sequential()
        for _ in range(count):
            blocks.append(
                block(self.ndim, width, style.norm, style.activation, spectral=style.spectral)
            )
        return blocks

    def channel_axes(self) -> tuple[str, dict[str, int]]:
        """Return the weight with the condition on axis 1, and the axes of the image's channels."""
        convolutions = (nn.Conv2d, nn.Conv3d)
        layers = self.stem.named_modules()
        [first, *_] = [name for name, layer in layers if isinstance(layer, convolutions)]
        image = "image" if self.outer is None else "image.conv"
        axes = {f"{image}.weight": 0 if self.outer is None else 1, f"{image}.bias": 0}
        return f"stem.{first}.weight" if first else "stem.weight", axes

    # -- noise -----------------------------------------------------------------------------------

    def level_shapes(self, size: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the spatial shapes of the levels, finest first."""
        shapes = [tuple(size if self.outer is None else shrunk(size, self.outer))]
        for stride in self.strides:
            shapes.append(tuple(shrunk(shapes[-1], stride)))
        return shapes

    def latent_shapes(self, size: Sequence[int]) -> list[tuple[int, ...]]:
        """Return shapes (channels, ...) of standard normal numbers: of noise, then of dropout."""
        shapes = self.level_shapes(size)
        drop = [(self.widths[i], *shapes[i]) for i in self._dropped]
        noisy = [*shapes, shapes[0]] if self.style.noise else []  # of each level, then of the head
        return [(1, *shape) for shape in noisy] + drop

    @property
    def _dropped(self) -> range:
        """Return the levels with dropout in the decoder; the finest only if it is the only one."""
        count = len(self.strides) if self.style.dropout else 0
        return range(max(min(1, count - 1), count - DROPPED, 0), count)

    def latents_of(self, level: int | None, latents: Sequence[Tensor]) -> list[Tensor]:
        """Return the latents of one level of the decoder; ``level`` None: of the head."""
        noise = len(self.widths) + 1 if self.style.noise else 0
        if level is None:
            return [latents[noise - 1]] if noise else []
        level_latents = [latents[level]] if noise else []
        if level in self._dropped:
            level_latents.append(latents[noise + level - self._dropped.start])
        return level_latents

    # -- drawing ---------------------------------------------------------------------------------

    def forward(self, condition: Tensor, latents: Sequence[Tensor]) -> Tensor:
        """Generate images of a condition; latents are normal, of ``latent_shapes``."""
        deepest = len(self.strides)
        x = self._run(self.enter, self.encoder(0), condition)
        skips = [x]
        for i in range(deepest):
            x = self._run(partial(self.descend, i), self.encoder(i + 1), x)
            skips.append(x)
        x = self._run(self.bottom, self.bottom_parts, x, *self.latents_of(deepest, latents))
        for i in reversed(range(deepest)):
            level_latents = self.latents_of(i, latents)
            x = self._run(partial(self.ascend, i), self.decoder(i), x, skips[i], *level_latents)
        last = [*self.last, self.image]
        x = self._run(self.finish, last, x, *self.latents_of(None, latents))
        return _cropped(x, condition.shape[2:])

    def _run(
        self, level: Callable[..., Tensor], modules: Sequence[nn.Module], *inputs: Tensor
    ) -> Tensor:
        if self.style.checkpointing and self.training:
            return recomputed(level, *inputs, modules=modules)
        return level(*inputs)

    def encoder(self, i: int) -> list[nn.Module]:
        """Return the modules of the encoder's level ``i``, in order."""
        first = self.stem if i == 0 else self.down[i - 1]
        return [first, *self.refine_down[i : i + 1]]

    def decoder(self, i: int) -> list[nn.Module]:
        """Return the modules of the decoder's level ``i``, in order."""
        return [self.narrow[i], self.up[i], self.norm[i], self.refine_up[i]]

    @property
    def bottom_parts(self) -> list[nn.Module]:
        """Return the modules of the coarsest level of the decoder, in order."""
        return [self.middle, self.refine_middle]

    @property
    def last(self) -> list[nn.Module]:
        """Return the modules between the decoder's finest level and the image."""
        return [] if self.head is None else [self.head]

    # -- its parts, each local in space but for normalisation --------------------------------------

    def enter(self, condition: Tensor) -> Tensor:
        """Compute features of the finest level."""
        x = self.act(self.stem(channels_last(condition)))
        return self._refined(self.refine_down, 0, x)

    def descend(self, i: int, x: Tensor) -> Tensor:
        """Compute features of level ``i + 1`` from those of level ``i``."""
        return self._refined(self.refine_down, i + 1, self.down[i](x))

    def bottom(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Compute the coarsest level of the decoder from that of the encoder."""
        x = self.refine_middle(self.middle(x))
        return x if noise is None else self.noise[-1](x, noise)

    def ascend(self, i: int, x: Tensor, skip: Tensor, *latents: Tensor) -> Tensor:
        """Compute level ``i`` of the decoder from level ``i + 1`` and the encoder's level ``i``."""
        x = self.join(self.widen(i, x, skip.shape[2:]), skip)
        return self.refine(i, x, list(latents))

    def widen(self, i: int, x: Tensor, size: Sequence[int]) -> Tensor:
        """Bring features of level ``i + 1`` to the channels and the size of level ``i``."""
        if self.style.up != "transposed":
            if self.style.narrow == "after":
                widened: Tensor = self.narrow[i](enlarge(x, size, self.style.up, self._cubic))
                return widened
            return enlarge(self.narrow[i](x), size, self.style.up, self._cubic)
        return _cropped(self.narrow[i](x), size)

    def join(self, x: Tensor, skip: Tensor) -> Tensor:
        """Join upsampled features with the encoder's."""
        return torch.cat((x, skip), 1) if self.style.skip == "concat" else x + skip

    def refine(self, i: int, x: Tensor, latents: list[Tensor]) -> Tensor:
        """Compute level ``i`` of the decoder from joined features."""
        x = self.up[i](x)
        if self.style.noise:
            x = self.noise[i](x, latents[0])
        x = self.refine_up[i](activated(x, self.norm[i], self.act))
        return self._drop(x, latents[-1]) if i in self._dropped else x

    def finish(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Compute the image from the decoder's finest level."""
        return self.paint(self.prepare(x, noise))

    def prepare(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Compute the features of the image from the decoder's finest level."""
        if self.head is not None:
            x = self.head(x)
        if self.grain is not None:
            # New noise one convolution before the image: texture as fine as a voxel.
            x = self.grain(x, noise)
        made: Tensor = x if self.head is None else self.act(x)
        return made

    def paint(self, x: Tensor) -> Tensor:
        """Compute the image; of even size if its resolution is twice the finest level's."""
        image: Tensor = self.image(x).float()
        return torch.tanh(image) if self.output == "tanh" else image

    def _refined(self, by: nn.ModuleList, i: int, x: Tensor) -> Tensor:
        # The coarsest level is refined in the middle.
        return by[i](x) if i < len(by) else x

    def _drop(self, x: Tensor, normal: Tensor) -> Tensor:
        share = self.style.dropout
        mask = normal > NormalDist().inv_cdf(share)
        return x * mask.to(x.dtype) / (1 - share)


def _cropped(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return the first voxels of each axis; the gradient of a crop that cuts nothing is a copy."""
    for axis, length in enumerate(size, start=2):
        if x.shape[axis] > length:
            x = x.narrow(axis, 0, length)
    return x
