"""Worst cases: their choice, and pictures of the errors of a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import FloatArray, LabelArray
from gansynth.core.source import CaseSource
from gansynth.report.numbers import known
from gansynth.report.png import enlarged, png_bytes, radiological, rgb, scaled
from gansynth.runtime.errors import DataFault, GansynthError
from gansynth_benchmark.report.study import Entry, ReportData
from gansynth_benchmark.study import JOBS, BenchmarkStudy
from gansynth_benchmark.worker import PREDICTIONS

TRUTH, PREDICTED = "#56b4e9", "#e69f00"
"""Sky blue and orange: safe for all kinds of colour vision (Okabe and Ito 2008)."""
EDGE = 480  # approximate pixels along the longer side of a picture
WINDOW = 1.0, 99.5  # percentiles of the image that are shown black and white

MOST_CASES = 6  # that are shown
LINE, DASH = 3, 8  # width of an outline and length of a dash, in pixels

Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class WorstCase:
    """A test case with a bad score by the primary measure.

    Attributes:
        reference: score of the case under the control of the same draw and seed; None for the
            control itself.
    """

    run: Entry
    case: str
    score: float
    reference: float | None = None

    @property
    def lost(self) -> float:
        """Absolute difference to the control; 0 for the control."""
        return 0.0 if self.reference is None else abs(self.score - self.reference)


@dataclass(frozen=True)
class Overlay:
    """A picture of such a case, as PNG."""

    worst: WorstCase
    png: bytes


def worst_cases(document: Mapping[str, Any]) -> list[WorstCase]:
    """Choose the worst test cases by the primary measure.

    Returns:
        The control's worst case, then each arm's case with the greatest loss, sorted by loss. The
        second worst cases follow, and so on. A loss is against the control of the same draw and
        seed. No case appears twice for an arm.
    """
    study = ReportData(document)
    lowest = [
        WorstCase(run, case, score)
        for run in study.done(study.control)
        for case, value in study.scores(run).items()
        for score in known([value])
    ]
    lowest.sort(key=lambda worst: study.show.better(worst.score))
    queues = [_losses(study, arm.key) for arm in study.others]
    queues = sorted(filter(None, queues), key=lambda queue: -queue[0].lost)
    turns = zip_longest(_once(lowest), *queues)
    return [worst for turn in turns for worst in turn if worst is not None][:MOST_CASES]


def _losses(study: ReportData, arm: str) -> list[WorstCase]:
    """Return an arm's cases that are worse than under the control, greatest loss first."""
    losses = []
    pairs = [pair for n in study.sizes for pair in study.pairs(arm, n)]
    for control, run in pairs:
        references = study.scores(control)
        for case, value in study.scores(run).items():
            both = known([value, references.get(case)])
            if len(both) == 2 and study.show.better(both[0] - both[1]) < 0:
                losses.append(WorstCase(run, case, *both))
    return _once(sorted(losses, key=lambda worst: -worst.lost))


def _once(cases: list[WorstCase]) -> list[WorstCase]:
    """Return each case once, in order."""
    return list({worst.case: worst for worst in reversed(cases)}.values())[::-1]


# -- pictures ------------------------------------------------------------------------------------


def overlay_png(
    image: npt.NDArray[np.floating[Any]],
    truth: Labels,
    predicted: Labels,
    *,
    channel: int = 0,
    oriented: bool = False,
) -> bytes:
    """Draw outlines of truth and prediction on the slice with the largest disagreement.

    The truth's outline is solid and sky blue, the prediction's dashed and orange. Ties go to the
    slice with the most foreground.

    Args:
        image: (C, D, H, W), or (C, H, W).
        truth: (D, H, W), or (H, W); values below 1 are background.
        oriented: whether it is known which way arrays run (``Space.oriented``).

    Returns:
        A PNG file, about 480 pixels along its longer side.
    """
    shape = image.shape[1:]
    if truth.shape != shape or predicted.shape != shape or len(shape) not in (2, 3):
        raise DataFault(
            "benchmark.overlay-shapes-differ",
            f"overlay: image {image.shape}, truth {truth.shape} and prediction {predicted.shape}: "
            "expected (C, D, H, W) with (D, H, W), or (C, H, W) with (H, W)",
        )
    if not 0 <= channel < len(image):
        raise DataFault(
            "benchmark.overlay-channel-unknown",
            f"overlay: channel {channel}, expected one below {len(image)}",
        )
    plane = np.nan_to_num(image[channel].astype(np.float64))
    low, high = np.percentile(plane, WINDOW)
    inside = [np.maximum(labels, 0) for labels in (truth, predicted)]
    if len(shape) == 3:
        cut = _telling_slice(*inside)
        plane, inside = plane[cut], [labels[cut] for labels in inside]
    grey, _ = scaled(plane[None], [(float(low), max(float(high), float(low) + 1e-9))], 8)
    picture = np.repeat(enlarged(grey[0], EDGE)[0][..., None], 3, axis=2)
    large = [enlarged(labels, EDGE)[0] for labels in inside]
    for labels in large:  # a dark rim keeps outlines apart from bright tissue
        picture[_outlines(labels, LINE + 2)] //= 2
    rows, columns = np.indices(picture.shape[:2]) // DASH
    picture[_outlines(large[0], LINE)] = rgb(TRUTH)
    picture[_outlines(large[1], LINE) & ((rows + columns) % 2 == 0)] = rgb(PREDICTED)
    return png_bytes(radiological(picture, None) if oriented else picture)


def _telling_slice(truth: Labels, predicted: Labels) -> int:
    """Return the index along D with the most differing voxels; ties go to the most foreground."""
    differ = (truth != predicted).sum(axis=(1, 2))
    foreground = ((truth > 0) | (predicted > 0)).sum(axis=(1, 2))
    return int(np.lexsort((foreground, differ))[-1])


def _outlines(labels: Labels, width: int) -> npt.NDArray[np.bool_]:
    """Return the outlines of labels, ``width`` pixels wide, also at the picture's edge."""
    from scipy.ndimage import maximum_filter, minimum_filter

    most = maximum_filter(labels, width + 1, mode="constant")
    return np.asarray(most != minimum_filter(labels, width + 1, mode="constant"))


def overlays_of(document: Mapping[str, Any], study: BenchmarkStudy) -> list[Overlay]:
    """Return pictures of the worst cases for a report; cases without files are left out.

    They are patient images and appear in the user's own report only.
    """
    overlays = []
    for worst in worst_cases(document):
        run = worst.run
        home = study.folder / JOBS / run["key"] / PREDICTIONS
        by_subject = run.get("by") == "subject"
        files = {
            case: home / name
            for case, name in run.get("predictions", {}).items()
            if (document["subjects"][case] if by_subject else case) == worst.case
        }
        each = [_shown(study.source, case, file) for case, file in files.items()]
        parts = [part for part in each if part is not None]
        if parts:
            picture = overlay_png(*_together(parts), oriented=study.source.space.oriented)
            overlays.append(Overlay(worst, picture))
    return overlays


Shown = tuple[FloatArray, LabelArray, LabelArray]
"""Image, truth and prediction of a case on one grid."""


def _together(parts: Sequence[Shown]) -> Shown:
    """Return one part unchanged; stack several slices as (C, D, H, W), padded to the largest."""
    if len(parts) == 1:
        return parts[0]
    shape = np.max([truth.shape for _, truth, _ in parts], axis=0)

    def padded(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        each = [
            np.pad(
                array,
                [(0, 0)] * (array.ndim - 2)
                + [(0, int(n - m)) for n, m in zip(shape, array.shape[-2:], strict=True)],
            )
            for array in arrays
        ]
        return np.stack(each, axis=-3)

    image, truth, predicted = map(padded, zip(*parts, strict=True))
    return image, truth, predicted


def _shown(source: CaseSource, case: str, file: Path) -> Shown | None:
    """Return image, truth and prediction on the grid of a case's files; None if unreadable."""
    try:
        files = source.files(case)
        if files is None or files.arrays is None or files.read is None:
            return None
        image, truth = files.arrays()
        return None if truth is None else (image, truth, files.read(file))
    except GansynthError:
        return None
