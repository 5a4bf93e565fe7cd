"""DeepMedic's network: a path at full resolution, and paths of larger context at lower resolution.

Kamnitsas et al. 2017, Medical Image Analysis 36:61-78, with the residual connections of Kamnitsas
et al. 2016 (BrainLes). Blocks are in the order of He et al. 2016: normalisation, activation,
dropout, convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansynth_deepmedic.engine.configs import ConfigFile, ModelConfig

Kernel = tuple[int, int, int]
PADDINGS: Mapping[str | None, str] = {
    **dict.fromkeys((None, "none", "valid", "VALID"), "valid"),
    **dict.fromkeys(("mirror", "MIRROR"), "mirror"),
    **dict.fromkeys(("zero", "ZERO", "SAME"), "zero"),
}
"""Values of a layer's padding in configurations -> the kind of padding."""


def default_model(classes: int, channels: int) -> ModelConfig:
    """Return DeepMedic's example network (``deepMedic``): 8 layers, two subsampled paths."""
    features, cube, voxel = [30, 30, 40, 40, 40, 40, 50, 50], [3, 3, 3], [1, 1, 1]
    values = {
        "numberOfOutputClasses": classes,
        "numberOfInputChannels": channels,
        "numberFMsPerLayerNormal": features,
        "kernelDimPerLayerNormal": [cube] * 8,
        "layersWithResidualConnNormal": [4, 6, 8],
        "useSubsampledPathway": True,
        "subsampleFactor": [cube, [5, 5, 5]],
        "numberFMsPerLayerFC": [250, 250],
        "kernelDimPerLayerFC": [cube, voxel, voxel],
        "layersWithResidualConnFC": [2],
        "padTypePerLayerFC": ["mirror", None, None],
        "segmentsDimTrain": [37, 37, 37],
        "segmentsDimVal": [17, 17, 17],
        "segmentsDimInference": [45, 45, 45],
    }
    return ConfigFile(None, values).parse(ModelConfig)


class RollingNorm(nn.Module):
    """Batch normalisation; inference uses the mean statistics of the last batches."""

    means: Tensor
    variances: Tensor
    at: Tensor

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("means", torch.zeros(length, channels))
        self.register_buffer("variances", torch.ones(length, channels))
        self.register_buffer("at", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, X, Y, Z)."""
        if not self.training:
            mean, variance = self.means.mean(dim=0), self.variances.mean(dim=0)
            return F.batch_norm(x, mean, variance, self.weight, self.bias)
        mean, variance = self.means.new_zeros(2, self.means.shape[1])
        x_normal = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0)
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            row = self.at % len(self.means)
            self.means[row] = mean
            # torch gives the unbiased variance, which DeepMedic does not keep.
            self.variances[row] = variance * ((count - 1) / count)
            self.at += 1
        return x_normal


class Bias(nn.Module):
    """Adds a constant to each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) of the same shape."""
        return x + self.bias[:, None, None, None]


class Dropout(nn.Module):
    """DeepMedic's dropout: no scaling in training, scaling in inference."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) of the same shape."""
        if self.rate < 1e-3:
            return x
        if self.training:
            return F.dropout(x, self.rate) * (1 - self.rate)
        return x * (1 - self.rate)


class Convolution(nn.Module):
    """A convolution without a bias.

    Args:
        kernel: odd numbers of voxels.
        initial: see ``ModelConfig``.
    """

    def __init__(
        self, channels: tuple[int, int], kernel: Kernel, initial: tuple[str, float], padding: str
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels[1], channels[0], *kernel))
        self.margins = tuple((n - 1) // 2 for n in kernel)
        self.padding = padding
        nn.init.normal_(self.weight, std=deviation(initial, channels[0], kernel))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) to (B, C', X', Y', Z')."""
        if self.padding == "mirror":
            x = mirrored(x, self.margins)
        return F.conv3d(x, self.weight, padding=self.margins if self.padding == "zero" else 0)


class Path(nn.Module):
    """A sequence of blocks with residual connections over two of them.

    Args:
        residual: numbers of blocks, from 1. The input of the previous block is added to their
            output. Missing channels count as zeros.
    """

    def __init__(self, blocks: Sequence[nn.Module], residual: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.residual = frozenset(number - 1 for number in residual)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z) to (B, C', X', Y', Z')."""
        before = x
        for number, block in enumerate(self.blocks):
            out = block(x)
            if number in self.residual:
                earlier = cropped(before, out.shape[2:])[:, : out.shape[1]]
                missing = out.shape[1] - earlier.shape[1]
                out = out + F.pad(earlier, (0, 0, 0, 0, 0, 0, 0, missing))
            before, x = x, out
        return x


class DualPath(nn.Module):
    """The whole network."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        values = model.values
        self.factors = model.factors  # subsampling of each path beside the normal one
        # As the normal path has them, unless the file says so.
        low_residual = values.get("layersWithResidualConnSubsampled")
        low_residual = model.residual if low_residual is None else low_residual
        dropout, low_dropout = map(values.get, ("dropoutRatesNormal", "dropoutRatesSubsampled"))
        self.normal = Path(
            _convolutions(model, model.features, model.kernels, dropout), model.residual
        )
        self.low = nn.ModuleList(
            Path(_convolutions(model, features, kernels, low_dropout), low_residual)
            for features, kernels in zip(model.low, model.low_kernels, strict=True)
        )
        joined = model.features[-1] + sum(features[-1] for features in model.low)
        self.head = Path(_head(model, joined), model.fc_residual)
        self.bias = Bias(model.classes)

    def forward(self, normal: Tensor, low: Sequence[Tensor] = ()) -> Tensor:
        """Return the logits of voxels whose receptive field lies in the segment.

        Args:
            normal: segments (B, C, X, Y, Z).
            low: for each subsampled path the contexts of the segments (B, C, X', Y', Z').

        Returns:
            (B, classes, X', Y', Z'), smaller than the segments by ``ModelConfig.unpredicted``.
        """
        x = self.normal(normal)
        features = [x]
        for path, factor, part in zip(self.low, self.factors, low, strict=True):
            features.append(repeated(path(part), factor, x.shape[2:]))
        logits: Tensor = self.bias(self.head(torch.cat(features, dim=1)))
        return logits

    def convolved(self) -> list[nn.Parameter]:
        """Return the weights of all convolutions, which L1 and L2 regularise."""
        return [
            parameter
            for module in self.modules()
            if isinstance(module, Convolution)
            for parameter in module.parameters()
        ]


def _convolutions(
    model: ModelConfig,
    features: Sequence[int],
    kernels: Sequence[Kernel],
    dropout: Sequence[float] | None,
) -> list[nn.Module]:
    """Build the blocks of a path from the image; the first one does not normalise."""
    blocks: list[nn.Module] = []
    channels = model.channels
    for number, (count, kernel) in enumerate(zip(features, kernels, strict=True)):
        first = number == 0
        blocks.append(
            nn.Sequential(
                Bias(channels) if first or not model.rolling else _norm(channels, model),
                _activation("linear" if first else model.activation, channels),
                Dropout(dropout[number] if dropout else 0.0),
                Convolution((channels, count), kernel, model.initial, "valid"),
            )
        )
        channels = count
    return blocks


def _head(model: ModelConfig, channels: int) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    pads = model.values.get("padTypePerLayerFC") or [None] * len(model.fc_kernels)
    for number, count in enumerate((*model.fc, model.classes)):
        kernel = model.fc_kernels[number]
        blocks.append(
            nn.Sequential(
                _norm(channels, model) if model.rolling else Bias(channels),
                _activation(model.activation, channels),
                Dropout(model.dropout[number] if model.dropout else 0.0),
                Convolution((channels, count), kernel, model.initial, PADDINGS[pads[number]]),
            )
        )
        channels = count
    return blocks


def _norm(channels: int, model: ModelConfig) -> RollingNorm:
    return RollingNorm(channels, model.rolling)


def _activation(name: str, channels: int) -> nn.Module:
    if name == "prelu":
        return nn.PReLU(channels, init=0.01)
    activations = {"linear": nn.Identity, "relu": nn.ReLU, "elu": nn.ELU, "selu": nn.SELU}
    made: nn.Module = activations[name]()
    return made


def deviation(initial: tuple[str, float], channels: int, kernel: Kernel) -> float:
    """Return the standard deviation of initial weights; ``fanIn`` 2 is He et al. 2015."""
    kind, number = initial
    return number if kind == "normal" else math.sqrt(number / (channels * math.prod(kernel)))


def mirrored(x: Tensor, margins: Sequence[int]) -> Tensor:
    """Pad (B, C, X, Y, Z) by mirroring, outermost voxels included."""
    if max(margins) <= 1:
        sides = [margin for margin in reversed(margins) for _ in range(2)]
        return F.pad(x, sides, mode="replicate") if any(margins) else x
    for axis, margin in enumerate(margins, start=2):
        if margin:
            ends = x.narrow(axis, 0, margin), x.narrow(axis, x.shape[axis] - margin, margin)
            x = torch.cat((ends[0].flip(axis), x, ends[1].flip(axis)), dim=axis)
    return x


def cropped(x: Tensor, size: Sequence[int]) -> Tensor:
    """Crop the centre of (B, C, X, Y, Z), for an even size towards the beginning."""
    for axis, count in enumerate(size, start=2):
        start = (x.shape[axis] - 1) // 2 - (count - 1) // 2
        x = x.narrow(axis, start, count)
    return x


def repeated(x: Tensor, factor: Sequence[int], size: Sequence[int]) -> Tensor:
    """Repeat each voxel of (B, C, X, Y, Z) by a factor, and crop the end to a size."""
    for axis, (times, count) in enumerate(zip(factor, size, strict=True), start=2):
        x = x.repeat_interleave(times, dim=axis).narrow(axis, 0, count)
    return x
