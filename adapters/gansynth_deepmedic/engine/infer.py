"""Prediction of whole volumes segment by segment, and comparison with the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gansynth.metrics.segmentation.regions import Regions, Scores, dice, mean_dice
from gansynth.runtime.devices import autocast
from gansynth.runtime.files import disk_errors
from gansynth_deepmedic.engine.configs import ListedCase, TrainConfig, Triple
from gansynth_deepmedic.engine.cutting import SegmentCutter, prepared
from gansynth_deepmedic.engine.geometry import (
    SegmentGeometry,
    corner_mean,
    high_segment,
    low_context,
    padded,
    padding,
    tiles,
)
from gansynth_deepmedic.engine.network import DualPath
from gansynth_deepmedic.insertion import MISSING, HostCase, LoadedCase
from gansynth_deepmedic.subepochs import Read, read_case

PREDICTIONS = "predictions"
RULE = (
    "Dice = 2 both / (truth + predicted), in voxels of the whole volume; predictions outside "
    "the region of interest do not count. A label that the truth of a case lacks has no Dice "
    "(null), whatever was predicted. The mean is over the cases with a Dice"
)


@dataclass(frozen=True)
class Predictor:
    """Applies a network to whole volumes."""

    network: DualPath  # on its device
    geometry: SegmentGeometry  # of the tiles (segmentsDimInference)
    cutting: SegmentCutter  # padding and normalisation of volumes
    device: torch.device  # of the network
    bf16: bool = False  # whether it computes in bfloat16
    batch: int = 10  # segments at once

    def labels(self, case: LoadedCase) -> npt.NDArray[np.int16]:
        """Return the likeliest label of every voxel (X, Y, Z), 0 outside the region of interest.

        Without padding, the rim stays 0, because its receptive field leaves the volume.
        """
        ready, whole = self.ready(case)
        likeliest = torch.zeros(ready.image.shape[1:], dtype=torch.int16, device=self.device)
        for start, logits in self.segments(ready):
            likeliest[self.geometry.predicted(start)] = logits.argmax(dim=0).short()
        labels = likeliest.cpu().numpy()[whole]
        return labels if case.roi is None else np.where(case.roi > 0, labels, 0).astype(np.int16)

    def ready(self, case: LoadedCase) -> tuple[LoadedCase, tuple[slice, ...]]:
        """Return a padded case, at least as large as a segment, and the volume's slices in it."""
        ready = prepared(case, self.geometry, self.cutting)
        margin = self.geometry.margin if self.cutting.pad else ((0, 0),) * 3
        shape = case.labels.shape
        whole = tuple(slice(low, low + n) for (low, _), n in zip(margin, shape, strict=True))
        missing = padding(ready.labels.shape, self.geometry, pad=False)
        if any(after for _, after in missing):
            image = np.asarray(padded(ready.image, missing), np.float32)
            labels = np.asarray(padded(ready.labels, missing), np.int16)
            roi = None if ready.roi is None else np.pad(ready.roi, missing)
            ready = LoadedCase(image, labels, roi, None, ready.case)
        return ready, whole

    def segments(self, case: LoadedCase) -> Iterator[tuple[Triple, Tensor]]:
        """Yield first voxel and logits (classes, X, Y, Z) of every segment of a prepared case.

        Segments are predicted in order, ``batch`` at once.
        """
        starts = tiles(case.labels.shape, self.geometry, case.roi)
        outside = corner_mean(case.image)
        self.network.eval()
        for first in range(0, len(starts), self.batch):
            chunk = starts[first : first + self.batch]
            high = np.stack([high_segment(case.image, start, self.geometry) for start in chunk])
            low = [
                np.stack(
                    [low_context(case.image, at, factor, self.geometry, outside) for at in chunk]
                )
                for factor in self.geometry.factors
            ]
            with torch.inference_mode(), autocast(self.device, self.bf16):
                logits = self.network(
                    placed(high, self.device), [placed(part, self.device) for part in low]
                )
            yield from zip(chunk, logits.float(), strict=True)


def placed(array: npt.NDArray[np.float32] | Tensor, device: torch.device) -> Tensor:
    """Move segments (B, C, X, Y, Z) to a device, in the layout of fastest convolutions."""
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(array)
    return tensor.to(device, memory_format=torch.channels_last_3d, non_blocking=True)


def held_cases(config: TrainConfig) -> tuple[HostCase, ...]:
    """Return the validation cases of a configuration; their ids name their predictions."""
    names = list(config.predictions) or [f"case_{n}" for n in range(len(config.validation))]
    cases: list[HostCase] = []
    for name, listed in zip(names, config.validation, strict=True):
        stem = Path(name).name.removesuffix(".gz").removesuffix(".nii")
        if any(stem == case.id for case in cases):
            stem = f"{stem}_{listed.line}"
        cases.append(host_case(listed, stem))
    return tuple(cases)


def host_case(listed: ListedCase, name: str) -> HostCase:
    """Return a listed case for reading; the orientation of its files is not used."""
    return HostCase(
        name,
        tuple(MISSING if file is None else str(file) for file in listed.channels),
        MISSING if listed.labels is None else str(listed.labels),
        None if listed.roi is None else str(listed.roi),
        shape=(),
        stored=(),
        units=(),
    )


def read_held(held: HostCase, read: Read) -> LoadedCase:
    """Read a validation case; missing labels are 0."""
    if held.labels != MISSING:
        return read_case(held, read)
    shape = read(next(file for file in held.channels if file != MISSING)).shape

    def without(file: str) -> npt.NDArray[Any]:
        return np.zeros(shape, np.int16) if file == MISSING else read(file)

    return read_case(held, without)


def validate(
    predictor: Predictor,
    cases: Sequence[HostCase],
    read: Read,
    regions: Regions,
    folder: Path | None,
) -> dict[str, Any]:
    """Segment whole cases, and compare them with the truth if there is one.

    Returns:
        A JSON document: ``rule``, ``regions``, ``mean`` and ``cases``; None means no Dice.

    Raises:
        DataFault: a case cannot be used.
        EnvironmentFault: the disk refuses.
    """
    entries: list[dict[str, Any]] = []
    scores: list[Scores] = []
    for held in cases:
        case = read_held(held, read)
        predicted = predictor.labels(case)
        image = next(file for file in held.channels if file != MISSING)
        entry: dict[str, Any] = {"name": held.id, "image": image}
        if folder is not None:
            entry["prediction"] = _write(folder / f"{held.id}.nii.gz", predicted, image).name
        if held.labels != MISSING:
            scores.append(dice(predicted, case.labels, regions))
            entry |= {"labels": held.labels, **_scores(scores[-1])}
        entries.append(entry)
    return {
        "rule": RULE,
        "regions": {name: list(labels) for name, labels in regions},
        "mean": mean_dice(scores),
        "cases": entries,
    }


def _scores(scores: Scores) -> dict[str, Any]:
    """Return the Dice of every region of a case, and its counts of voxels."""
    return {
        "dice": {name: score["dice"] for name, score in scores.items()},
        "voxels": {
            name: {key: n for key, n in score.items() if key != "dice"}
            for name, score in scores.items()
        },
    }


def _write(path: Path, labels: npt.NDArray[np.int16], image: str) -> Path:
    from gansynth_deepmedic.layout import write_volume

    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, labels, image)
    return path


class Confusion:
    """Confusion matrix of labels on segments, summed over batches."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)

    def add_labels(self, truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
        """Count voxels by true and predicted label, without unlabelled ones."""
        classes, labelled = len(self.counts), truth >= 0
        pairs = truth[labelled].astype(np.int64) * classes + predicted[labelled]
        self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def accuracy(self) -> float:
        """Return the share of correct voxels; NaN without voxels."""
        total = int(self.counts.sum())
        return float(np.trace(self.counts)) / total if total else math.nan

    def dice(self) -> dict[str, float]:
        """Return the Dice of every label but 0 over all voxels; NaN for an absent one."""
        both, truth = np.diag(self.counts), self.counts.sum(axis=1)
        sizes = truth + self.counts.sum(axis=0)
        return {
            str(label): float(2 * both[label] / sizes[label]) if truth[label] else math.nan
            for label in range(1, len(self.counts))
        }
