"""Faithfulness: does a sample show what its label says?

A small segmenter trained on the fold's real cases predicts the labels of samples. Its Dice is
compared with that on real held-out cases, and with that for another sample's label.

By label, as MM-GAN's figure 7 (Sun et al. 2020): each of two segmenters is trained on half of the
training subjects and tested on the other half. A sample based on a subject's labels is evaluated by
the segmenter that was not trained on it. Shuffled labels show the Dice due to position alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.core.generator import Batch, Stage
from gansynth.core.schema import OUTSIDE, Boxes, Case, FloatArray, LabelArray, Schema
from gansynth.metrics.comparison import (
    Comparison,
    Floats,
    Image,
    drawn_anew,
    median_estimate,
    numbered,
)
from gansynth.metrics.features import descend
from gansynth.nn.networks.blocks import strides_for
from gansynth.runtime.devices import autocast, native_bf16, pick_device, seeded
from gansynth.runtime.errors import DataFault
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
        tensors = dict(self.net.named_parameters()) | dict(self.net.named_buffers())
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


# -- by label, with two segmenters -----------------------------------------------------------------

DRAWN = 1000  # bootstrap samples of subjects
POOR = 0.3  # Dice in real subjects below which a segmenter is too poor for an evaluation
CLOSE = 0.9
"""Ratio to real Dice of faithful samples: its lower limit, or its value if the interval holds 1."""

Cut = Callable[[str, np.random.Generator], Case]  # (case id, random numbers) -> a crop of that case


@dataclass(frozen=True)
class FoldSegmenters:
    """Segmenters, and the subjects each was trained on."""

    segmenters: Sequence[EvaluationSegmenter]
    trained_on: Sequence[frozenset[str]]
    schema: Schema

    def unseen(self, person: str) -> list[EvaluationSegmenter]:
        """Segmenters not trained on a subject: one for a training subject, both for others."""
        pairs = zip(self.segmenters, self.trained_on, strict=True)
        return [segmenter for segmenter, subjects in pairs if person not in subjects]


def labelled_schema(schema: Schema) -> Schema:
    """The schema of the predicted maps; boxes are filled in where there are no labels."""
    if schema.foreground or not schema.box_classes:
        return schema
    labels = {"background": 0}
    for number, name in enumerate(schema.box_classes, 1):
        labels[name] = number
    return replace(schema, labels=labels)


def map_of(image: Image, schema: Schema) -> LabelArray | None:
    """An image's label map, or its boxes filled in; None if it has neither."""
    if image.labels is not None and schema.foreground:
        return image.labels
    if image.boxes is None or not schema.box_classes:
        return None
    return filled(image.boxes, image.image.shape[1:])


def filled(boxes: Boxes, size: Sequence[int]) -> LabelArray:
    """Boxes as a map: class number plus 1 in each, the smallest on top."""
    axes, label_map = len(size), np.zeros(size, np.int16)
    volumes = np.prod(boxes.coords[:, axes:] - boxes.coords[:, :axes], axis=1)
    for n in np.argsort(-volumes):
        low, high = boxes.coords[n, :axes], boxes.coords[n, axes:]
        ends = zip(np.maximum(0, np.floor(low)), np.ceil(high), strict=True)
        inside = [slice(int(first), int(last)) for first, last in ends]
        label_map[tuple(inside)] = boxes.labels[n] + 1
    return label_map


def train_fold_segmenters(
    ids: Sequence[str],
    people: Mapping[str, str],
    cut: Cut,
    comparison: Comparison,
    options: EvaluationSegmenterOptions,
) -> FoldSegmenters:
    """Train a segmenter on each half of the subjects. DataFault: there is only one."""
    names = sorted({people[i] for i in ids})
    if len(names) < 2:
        raise DataFault(
            "metrics.training-cases-of-one-subject",
            f"faithfulness: all {len(ids)} training case(s) are of one subject, expected at least "
            "two: a segmenter is tested on subjects it was not trained on",
        )
    order = comparison.rng("judges").permutation(len(names))
    first = frozenset(names[n] for n in order[: len(names) // 2])
    halves, segmenters = (first, frozenset(names) - first), []
    schema = labelled_schema(comparison.schema)
    for number, half in enumerate(halves):
        batches = Crops(
            [i for i in ids if people[i] in half], cut, comparison.schema, comparison.seed
        )
        segmenters.append(
            train_segmenter(
                batches,
                schema,
                comparison.real[0].image.shape[1:],
                replace(options, seed=comparison.seed + number),
                device=pick_device(comparison.device),
                reporter=comparison.reporter,
            )
        )
    return FoldSegmenters(segmenters, halves, schema)


class Crops:
    """Crops with label maps, keyed by step."""

    def __init__(self, ids: Sequence[str], cut: Cut, schema: Schema, seed: int) -> None:
        self.ids, self.cut, self.schema, self.seed = ids, cut, schema, seed

    def __call__(self, step: int, stage: Stage, which: range) -> Batch:
        """Return the crops of a step with these numbers."""
        images, maps = [], []
        for number in which:
            rng = np.random.default_rng(np.random.SeedSequence((self.seed, step, number)))
            case = self.cut(self.ids[int(rng.integers(len(self.ids)))], rng)
            labels = map_of(case, self.schema)
            if labels is None:
                raise DataFault(
                    "metrics.case-without-labels",
                    f"case {case.id!r}: has no labels, expected some of every case",
                )
            images.append(case.image)
            maps.append(labels.astype(np.int64))
        return Batch(torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(maps)))


@dataclass(frozen=True)
class RecoveredLabels:
    """Dice of each image and label, (N, labels), NaN where undefined, and the images' owners."""

    dice: Floats
    owners: Sequence[str]

    def drawn(self, rng: np.random.Generator) -> Floats:
        """Bootstrap means by label over subjects: (DRAWN, labels)."""
        owner = numbered(self.owners)
        people, finite = int(owner.max()) + 1, np.isfinite(self.dice)
        sums = np.zeros((people, self.dice.shape[1]))
        counts = np.zeros_like(sums)
        np.add.at(sums, owner, np.where(finite, self.dice, 0))
        np.add.at(counts, owner, finite)
        each = np.arange(people)
        weights = np.stack([drawn_anew(each, rng) for _ in range(DRAWN)])
        total = weights @ counts
        return np.asarray(np.where(total > 0, weights @ sums / np.maximum(total, 1), np.nan))

    def means(self) -> Floats:
        """Means by label; NaN for a label that no image has."""
        return _mean_of_known(self.dice, 0)


def recover(judges: FoldSegmenters, comparison: Comparison) -> dict[str, Any]:
    """Dice of segmenters on samples and real subjects, label by label, for the report."""
    values = judges.schema.foreground
    names = [n for n, v in judges.schema.labels.items() if v in values]
    real, _ = _recovered(judges, comparison.real, comparison.people, comparison.schema)
    mine, shuffled = _recovered(judges, comparison.samples, comparison.drawn_of, comparison.schema)
    rng = comparison.rng("recovery")
    drawn = {"real": real.drawn(rng), "synthetic": mine.drawn(rng)}
    means = {"real": real.means(), "synthetic": mine.means(), "shuffled": shuffled.means()}
    rows = []
    for n, name in enumerate(names):
        row: dict[str, Any] = {"label": name}
        row.update(
            _row({k: v[n] for k, v in means.items()}, {k: v[:, n] for k, v in drawn.items()})
        )
        row["samples"] = int(np.isfinite(mine.dice[:, n]).sum())
        row["real_cases"] = int(np.isfinite(real.dice[:, n]).sum())
        rows.append(row)
    over_labels = {}
    for side, dice in means.items():
        over_labels[side] = float(np.nanmean(dice)) if np.isfinite(dice).any() else float("nan")
    whole: dict[str, Any] = {"label": "mean"}
    whole.update(_row(over_labels, {k: _mean_of_known(v, 1) for k, v in drawn.items()}))
    whole |= {"samples": len(comparison.samples), "real_cases": len(comparison.real)}
    return {"labels": rows, "mean": whole, "finding": _finding(whole)}


def real_dice(
    judges: FoldSegmenters, images: Sequence[Image], people: Sequence[str], schema: Schema
) -> float | None:
    """Return the mean Dice over labels in real images of subjects that a segmenter has not seen."""
    means = _recovered(judges, images, people, schema)[0].means()
    return _known(float(_mean_of_known(means, 0)))


def _recovered(
    judges: FoldSegmenters, images: Sequence[Image], owners: Sequence[str], schema: Schema
) -> tuple[RecoveredLabels, RecoveredLabels]:
    """Dice with an image's own map, and mean Dice with those of up to eight others."""
    values, truths = judges.schema.foreground, [map_of(image, schema) for image in images]
    matched, others = [], []
    for n, (image, owner, truth) in enumerate(zip(images, owners, truths, strict=True)):
        predicted = [judge.predict(image.image) for judge in judges.unseen(owner)]
        wrong = [truths[(n + 1 + k) % len(truths)] for k in range(min(8, len(truths) - 1))]
        matched.append(_means(predicted, [truth], values))
        others.append(_means(predicted, wrong, values))
    return RecoveredLabels(np.array(matched), owners), RecoveredLabels(np.array(others), owners)


def _means(
    predicted: Sequence[LabelArray], truths: Sequence[LabelArray | None], values: Sequence[int]
) -> Floats:
    """Mean Dice of each label over all predictions and maps; NaN where undefined."""
    rows = [dice_by_label(p, t, values) for p in predicted for t in truths if t is not None]
    return _mean_of_known(np.array(rows).reshape(-1, len(values)), 0)


def _mean_of_known(values: Floats, axis: int) -> Floats:
    """Mean of the finite values along an axis; NaN if there are none."""
    finite = np.isfinite(values)
    counts, total = finite.sum(axis), np.where(finite, values, 0).sum(axis)
    return np.asarray(np.where(counts > 0, total / np.maximum(counts, 1), np.nan))


def _row(means: Mapping[str, float], drawn: Mapping[str, Floats]) -> dict[str, float | None]:
    """Means with intervals, and the ratio of synthetic to real with its own."""
    ratio = means["synthetic"] / max(means["real"], 1e-9)
    ratios = drawn["synthetic"] / np.maximum(drawn["real"], 1e-9)
    row: dict[str, float | None] = {"shuffled": _known(means["shuffled"]), "ratio": _known(ratio)}
    for name in ("real", "synthetic"):
        row[name] = _known(means[name])
    for name, rows in (*drawn.items(), ("ratio", ratios)):
        finite = rows[np.isfinite(rows)]
        low, high = map(_known, median_estimate(finite)) if finite.size else (None, None)
        row |= {f"{name}_low": low, f"{name}_high": high}
    return row


def _known(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


def _finding(row: Mapping[str, Any]) -> str:
    """``faithful``, ``partly``, ``no more than shuffled labels`` or ``unclear``."""
    real, mine, shuffled = row["real"], row["synthetic"], row["shuffled"]
    if real is None or mine is None or real < POOR:
        return "unclear"
    if shuffled is not None and row["synthetic_low"] <= shuffled:
        return "no more than shuffled labels"
    faithful = row["ratio_low"] >= CLOSE or (row["ratio"] >= CLOSE and row["ratio_high"] >= 1)
    return "faithful" if faithful else "partly"
