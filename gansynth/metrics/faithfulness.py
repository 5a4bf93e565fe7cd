"""Faithfulness: does a sample show what its label says?

A small segmenter trained on the fold's real cases predicts the labels of samples. Its Dice is
compared with that on real held-out cases, and with that for another sample's label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.core.generator import Batch, Stage
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Schema
from gansynth.metrics.encoder import descend
from gansynth.nn.networks.blocks import strides_for
from gansynth.runtime.devices import autocast, native_bf16, seeded
from gansynth.runtime.files import write_bytes_atomic
from gansynth.runtime.progress import Reporter
from gansynth.training.half_precision import exact_on_short_axes
from gansynth.training.loop import Batches


@dataclass(frozen=True)
class EvaluationSegmenterOptions:
    """Options of the small U-Net, for two cores; ``lr`` decays to 0 (polynomial, power 0.9)."""

    steps: int = 400
    batch_size: int = 2
    width: int = 12
    levels: int = 4
    lr: float = 3e-3
    seed: int = 0


class EvaluationSegmenter:
    """A trained segmenter; ``net``: (B, C, ...) -> (B, K, ...) logits of ``values``."""

    def __init__(self, net: nn.Module, values: Sequence[int], device: torch.device) -> None:
        self.net = net.eval()
        self.values = tuple(values)
        self.device = device

    @torch.no_grad()
    def predict(self, image: FloatArray) -> LabelArray:
        """Labels int16 (D, H, W) or (H, W) of one image (C, ...)."""
        chosen = self._logits(image).argmax(1)[0].cpu().numpy()
        predicted: LabelArray = np.array(self.values, np.int16)[chosen]
        return predicted

    def save(self, path: Path) -> None:
        """Write its weights as safetensors, for ``load_segmenter``."""
        from safetensors.torch import save as to_bytes

        # Tensors that modules share are named once.
        tensors = {**dict(self.net.named_parameters()), **dict(self.net.named_buffers())}
        write_bytes_atomic(path, to_bytes({k: v.contiguous() for k, v in tensors.items()}))

    @torch.no_grad()
    def shares(self, image: FloatArray) -> FloatArray:
        """Softmax probability of each of ``values`` in each voxel: float32 (K, ...)."""
        shares: FloatArray = self._logits(image).float().softmax(1)[0].cpu().numpy()
        return shares

    @property
    def last_layer(self) -> nn.Module:
        """The layer that maps features to logits."""
        inner: Any = self.net
        layer: nn.Module = inner.net.decoder.seg_layers[-1]
        return layer

    def _logits(self, image: FloatArray) -> Tensor:
        with autocast(self.device, native_bf16(self.device)):
            logits: Tensor = self.net(torch.tensor(image)[None].to(self.device))
        return logits


def train_segmenter(
    batches: Batches,
    schema: Schema,
    size: Sequence[int],
    options: EvaluationSegmenterOptions,
    *,
    device: torch.device | None = None,
    reporter: Reporter | None = None,
) -> EvaluationSegmenter:
    """Train the segmenter on real cases, with flips and intensity augmentation."""
    device = device or torch.device("cpu")
    values = tuple(v for v in schema.label_values if v != OUTSIDE)
    with seeded(options.seed):
        net = _unet(schema, size, len(values), options).to(device)
    bf16 = native_bf16(device)

    def loss(step: int) -> Tensor:
        rng = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        image, target = _augment(batches(step, Stage(), range(options.batch_size)), values, rng)
        with autocast(device, bf16):
            logits = net(image.to(device))
        return _dice_and_entropy(logits.float(), target.to(device), len(values))

    def rate(step: int) -> float:
        return options.lr * float((1 - step / options.steps) ** 0.9)

    with exact_on_short_axes([net]):
        descend(net.parameters(), loss, rate, options.steps, reporter, "segmenter")
    return EvaluationSegmenter(net, values, device)


def load_segmenter(
    path: Path,
    schema: Schema,
    size: Sequence[int],
    options: EvaluationSegmenterOptions,
    device: torch.device | None = None,
) -> EvaluationSegmenter:
    """Load a saved segmenter. Raises ValueError: the weights are of another network."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    device = device or torch.device("cpu")
    values = tuple(v for v in schema.label_values if v != OUTSIDE)
    with torch.random.fork_rng(devices=[]):
        net = _unet(schema, size, len(values), options)
    try:
        load_model(net, str(path))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error
    return EvaluationSegmenter(net.to(device), values, device)


def _unet(
    schema: Schema, size: Sequence[int], classes: int, options: EvaluationSegmenterOptions
) -> nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    ndim = schema.ndim
    strides = [(1,) * ndim, *strides_for(size, schema.spacing, options.levels)]
    levels = len(strides)
    net: nn.Module = PlainConvUNet(
        input_channels=len(schema.channels),
        n_stages=levels,
        features_per_stage=[options.width * 2**i for i in range(levels)],
        conv_op=nn.Conv3d if ndim == 3 else nn.Conv2d,
        kernel_sizes=3,
        strides=strides,
        n_conv_per_stage=1,
        num_classes=classes,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d if ndim == 3 else nn.InstanceNorm2d,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return _PaddedNetwork(net, [math.prod(axis) for axis in zip(*strides, strict=True)])


class _PaddedNetwork(nn.Module):
    """A network whose strides must divide the size, padded to accept any size."""

    def __init__(self, net: nn.Module, divisors: Sequence[int]) -> None:
        super().__init__()
        self.net = net
        self.divisors = tuple(divisors)

    def forward(self, image: Tensor) -> Tensor:
        size = image.shape[2:]
        after = [-n % d for n, d in zip(size, self.divisors, strict=True)]
        pads = [p for n in reversed(after) for p in (0, n)]
        logits: Tensor = self.net(F.pad(image, pads, mode="replicate") if any(after) else image)
        for axis, n in enumerate(size, 2):
            logits = logits.narrow(axis, 0, n)
        return logits


def _augment(batch: Batch, values: Sequence[int], rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random flips, contrast, brightness and noise; target indices (B, ...) into ``values``."""
    assert batch.labels is not None
    image, labels = batch.image, batch.labels
    axes = [a for a in range(2, image.ndim) if float(torch.rand((), generator=rng)) < 0.5]
    image, labels = image.flip(axes), labels.flip([a - 1 for a in axes])
    shape = (*image.shape[:2], *[1] * (image.ndim - 2))
    contrast = 1 + 0.2 * (torch.rand(shape, generator=rng) - 0.5)
    brightness = 0.4 * (torch.rand(shape, generator=rng) - 0.5)
    noise = 0.1 * float(torch.rand((), generator=rng)) * torch.randn(image.shape, generator=rng)
    target = torch.zeros_like(labels)
    for index, value in enumerate(values):
        target[labels == value] = index
    return image * contrast + brightness + noise, target


def _dice_and_entropy(logits: Tensor, target: Tensor, classes: int) -> Tensor:
    entropy = F.cross_entropy(logits, target)
    share = logits.softmax(1)[:, 1:]
    truth = torch.stack([target == c for c in range(1, classes)], 1).float()
    axes = (0, *range(2, logits.ndim))
    overlap = 2 * (share * truth).sum(axes) + 1
    return entropy + 1 - (overlap / (share.sum(axes) + truth.sum(axes) + 1)).mean()


def mean_dice(predicted: LabelArray, truth: LabelArray, classes: Sequence[int]) -> float:
    """Mean Dice over the classes present in either; NaN if none is."""
    scores = [dice for dice in dice_by_label(predicted, truth, classes) if not math.isnan(dice)]
    return float(np.mean(scores)) if scores else float("nan")


def dice_by_label(predicted: LabelArray, truth: LabelArray, values: Sequence[int]) -> list[float]:
    """Dice of each label; NaN where neither map has it."""
    scores = []
    for value in values:
        a, b = predicted == value, truth == value
        total = int(a.sum()) + int(b.sum())
        scores.append(2 * int((a & b).sum()) / total if total else float("nan"))
    return scores
