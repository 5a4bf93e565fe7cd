"""Simulated predictions of a cascade's previous stage, for synthetic samples.

The second stage of nnU-Net's cascade learns from a case and a coarser network's segmentation of it.
A synthetic sample only has its own labels, which are exact. So they are resampled to the coarse
spacing, given errors there, and resampled back, before the sample enters a sample bank. They are
still a better prior than real predictions, so this must be requested explicitly.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import LabelArray
from gansynth.runtime.errors import DataFault
from gansynth_nnunet.config import CASCADE

PREVIOUS = "previous_stage"
"""Name of the arrays in a bank's extras: (D, H, W), 0 where no label is predicted."""
P_DROP = 0.3  # probability that a label loses one of its components
P_MERGE = 0.1  # probability that one of its components gets another label
LARGEST = 0.5  # share of a label's voxels above which a component is neither lost nor relabelled
SHIFT = 1.0  # largest shift of a whole border, out or in, in coarse voxels
WOBBLE = 0.5  # standard deviation of the additional shift along a border, in coarse voxels
SMOOTH = 3.0  # length over which that shift varies, in coarse voxels


@dataclass(frozen=True)
class PreviousStage:
    """Simulates the first stage of a cascade."""

    labels: tuple[int, ...]  # that nnU-Net predicts, without background and ignore label
    spacing: tuple[float, ...]  # of the second stage, mm
    coarse: tuple[float, ...]
    configuration: Any  # nnU-Net's own object for the first stage, which resamples

    @classmethod
    def of(
        cls, plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any]
    ) -> PreviousStage | None:
        """Return the previous stage of a configuration; None if it has none."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager = PlansManager(dict(plans))
        config = manager.get_configuration(configuration)
        if config.previous_stage_name is None:
            return None
        before = manager.get_configuration(config.previous_stage_name)
        labels = manager.get_label_manager(dict(dataset_json)).foreground_labels
        return cls(
            tuple(int(label) for label in labels),
            tuple(float(s) for s in config.spacing),
            tuple(float(s) for s in before.spacing),
            before,
        )

    def predict(self, labels: LabelArray) -> npt.NDArray[np.uint8 | np.uint16]:
        """Simulate the first stage's prediction from labels int16 (D, H, W); deterministic.

        As in nnU-Net's own predictions there is no -1, and neither ignore label nor region.
        """
        kind = np.uint8 if len(self.labels) < 255 else np.uint16
        rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(labels).tobytes()))
        known_labels = np.where(np.isin(labels, self.labels), labels, 0).astype(np.int16)
        present = [int(label) for label in np.unique(known_labels) if label]
        if not present:
            return np.zeros(labels.shape, kind)
        coarse = self._to_coarse(known_labels)
        for label in present:
            confuse(coarse, label, present, rng)
        scores = np.stack([border_scores(coarse == label, rng) for label in present])
        fine = self._to_fine(scores, labels.shape)  # (labels, D, H, W)
        best = np.array(present, kind)[fine.argmax(0)]
        return np.where(fine.max(0) > 0, best, 0).astype(kind)

    def _to_coarse(self, labels: LabelArray) -> LabelArray:
        shape = [
            max(1, round(n * fine / coarse))
            for n, fine, coarse in zip(labels.shape, self.spacing, self.coarse, strict=True)
        ]
        resample = self.configuration.resampling_fn_seg
        coarse_labels: LabelArray = np.array(
            resample(labels[None], shape, self.spacing, self.coarse)[0]
        )
        return coarse_labels

    def _to_fine(self, scores: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
        resample = self.configuration.resampling_fn_probabilities
        return np.asarray(resample(scores, list(shape), self.coarse, self.spacing))


def confuse(
    labels: LabelArray, label: int, present: Sequence[int], rng: np.random.Generator
) -> None:
    """Randomly remove a component of a label, or give it another label; in place.

    A component that makes up most of the label is kept.
    """
    from scipy import ndimage

    lose, mistake = rng.random(2) < (P_DROP, P_MERGE)
    if not (lose or mistake):
        return
    components, n = ndimage.label(labels == label)
    sizes = np.bincount(components.ravel(), minlength=n + 1)[1:]
    small = 1 + np.flatnonzero(sizes <= LARGEST * sizes.sum())
    others = [0] if lose else [value for value in present if value != label]
    if small.size and others:
        labels[components == rng.choice(small)] = rng.choice(others)


def border_scores(mask: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a network-like confidence that each voxel is inside, with an uncertain border.

    Distance in voxels to a border that was shifted as a whole and locally; positive inside.
    """
    from scipy import ndimage

    if not mask.any():
        return np.full(mask.shape, -1.0, np.float32)
    inside, outside = (ndimage.distance_transform_edt(m) for m in (mask, ~mask))
    distance = np.where(mask, inside - 0.5, 0.5 - outside)
    wobble = ndimage.gaussian_filter(rng.standard_normal(mask.shape), SMOOTH, mode="nearest")
    wobble *= WOBBLE / max(float(wobble.std()), 1e-6)
    moved = distance + rng.uniform(-SHIFT, SHIFT) + wobble.clip(-2 * WOBBLE, 2 * WOBBLE)
    return np.asarray(moved, np.float32)


def refusal(configuration: str) -> str:
    """Return why synthetic samples need consent to enter a cascade's second stage, and a hint."""
    return (
        f"configuration {configuration!r}: {CASCADE}; expected 3d_fullres, 3d_lowres or 2d. To do "
        "it all the same: --set cascade=degraded (GANSYNTH_CASCADE=1 for nnUNetv2_train)"
    )


def check_predictions(folder: Path, cases: Sequence[str], stage: str) -> None:
    """Refuse to start if the previous stage lacks predictions of cases."""
    there = {file.stem for file in folder.glob("*") if file.suffix in (".b2nd", ".npy", ".npz")}
    absent = [case for case in cases if case not in there]
    if absent:
        raise DataFault(
            f"{folder}: {len(absent)} of {len(cases)} cases have no prediction of {stage}, "
            f"{absent[0]} first; expected one for each. Train {stage} in every fold with the same "
            "trainer: gansynth augment --target nnunet -c " + stage
        )
