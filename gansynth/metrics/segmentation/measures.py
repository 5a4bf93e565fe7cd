"""Segmentation metrics of one case: overlap, surfaces, lesions. Rules: docs/measures.md.

Each measure's unit, better direction and margin; regions of label maps; the measures of a case.
Surfaces are those of MONAI and of Nikolov et al. (2018, arXiv:1809.04430), counted by voxels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from math import hypot
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import bounding_box, mask_of
from gansynth.core.schema import Mask
from gansynth.data.connected_components import LabelComponents
from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean


class Measure(NamedTuple):
    """A measure in ``share`` (0 to 1) or another unit; ``margin`` counts as equal."""

    unit: str
    better: Literal["higher", "lower"]
    says: str
    margin: float | None = None  # a difference that counts as none

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest possible value."""
        return (0.0, 1.0 if self.unit == "share" else math.inf)


FOREGROUND = "foreground"  # region of all labels above background
DICE_MARGIN = 0.005  # half a point of Dice
ALARM_VOXELS = 4  # voxels of a predicted lesion that is an alarm

SEGMENTATION: Mapping[str, Measure] = {
    "dice": Measure(
        "share",
        "higher",
        "Twice the voxels that truth and prediction share, over the sum of both.",
        DICE_MARGIN,
    ),
    "hd95": Measure(
        "mm",
        "lower",
        "95th percentile of the distances between both surfaces, the larger of the two directions.",
    ),
    "nsd": Measure(
        "share",
        "higher",
        "Share of both surfaces that lies within a tolerance of the other one.",
        DICE_MARGIN,
    ),
    "lesion_sensitivity": Measure(
        "share", "higher", "Share of the true lesions that the prediction overlaps."
    ),
    "lesion_precision": Measure(
        "share", "higher", "Share of the predicted lesions that a true one overlaps."
    ),
    "false_alarms": Measure(
        "share",
        "lower",
        f"Share of the cases without a lesion where one of at least {ALARM_VOXELS} voxels is "
        "predicted.",
    ),
    "false_positive_volume": Measure(
        "voxels", "lower", "Voxels of a case's predicted lesions that no true one overlaps."
    ),
    "false_positives": Measure(
        "lesions", "lower", "Number of predicted lesions that no true one overlaps."
    ),
}
"""Of label maps; each is taken of each region: ``dice/WT``."""
LESIONS = ("lesion_sensitivity", "lesion_precision", "false_alarms", "false_positive_volume")
"""They stand beside the primary measure wherever a gain is told."""

SIZES: Mapping[str, tuple[float, float]] = {
    "1-99": (1, 100),
    "100-999": (100, 1000),
    "1000+": (1000, math.inf),
}
"""Bins of lesions by their voxels: least, and first beyond. They are fixed, for thirds of training
lesions differ between draws, folds and data sets, whose rows could not stand beside each other."""
BY_SIZE: Mapping[str, str] = {
    "lesion_sensitivity": "true lesions of the size",
    "lesion_precision": "predicted lesions of the size",
}
"""Measures that are also taken of each bin, as ``lesion_sensitivity@1-99/foreground``."""


def of_size(name: str, size: str) -> str:
    """The key of a measure of ``BY_SIZE`` for a bin of ``SIZES``."""
    return f"{name}@{size}/{FOREGROUND}"


OF_SIZES = frozenset([of_size(name, size) for name in BY_SIZE for size in SIZES])
"""All of them: they are shown in a table of their own."""

AT_ALARMS: Mapping[str, str] = {f"{name}@alarms/foreground": name for name in ("dice", *LESIONS)}
"""Keys of the measures at equal false alarms."""
DICE_AT_ALARMS = next(iter(AT_ALARMS))
"""It stands before all others."""

DETECTION: Mapping[str, Measure] = {
    "sensitivity": Measure(
        "share",
        "higher",
        "Share of the lesions' boxes that are hit where all images have so many false positives.",
    ),
    "froc": Measure(
        "share", "higher", "Mean sensitivity over the numbers of false positives per image.", 0.01
    ),
    "fp_per_image": Measure(
        "per image", "lower", "False positives per image among detections of some confidence."
    ),
    "map50": Measure(
        "share", "higher", "Mean over classes of the average precision at an overlap of 0.5."
    ),
}
"""Of detections; ``sensitivity`` is taken at numbers of false positives: ``sensitivity@FP=1``."""

MEASURES: Mapping[str, Measure] = {**SEGMENTATION, **DETECTION}
COSTS = {
    "dice@alarms": "points of Dice at equal false alarms",
    "dice": "points of Dice",
    "lesion_precision": "points of lesion precision",
    "false_alarms": "alarms per 100 lesion-free cases",
}
"""What a gain may cost, in hundredths. Measures of detections are at equal false positives."""
NO_CASE = "no lesion-free case is judged"


def measure_of(key: str) -> Measure:
    """The measure of a key, ``dice/WT`` or ``sensitivity@FP=1``; UsageFault: unknown."""
    name = re.split("[/@]", key, maxsplit=1)[0]
    if name not in MEASURES:
        raise UsageFault(
            "metrics.measure-unknown",
            f"{key}: no measure, expected one of {', '.join(MEASURES)}."
            f"{did_you_mean(name, MEASURES)}",
        )
    return MEASURES[name]


def told_first(key: str) -> list[str]:
    """Keys of what is told before all other measures, where ``key`` is the primary one."""
    own = [beside("dice", key)] if key in AT_ALARMS else []
    lesions = [beside(name, key) for name in LESIONS]
    return list(dict.fromkeys([DICE_AT_ALARMS, key, *own, *lesions]))


def beside(name: str, key: str) -> str:
    """The key of a measure of another one's region."""
    region = key.partition("/")[2]
    return f"{name}/{region}" if region else name


def cost_words(changes: Mapping[str, tuple[float, float | None] | None]) -> str:
    """Say the changes of measures among ``COSTS``, and their standard errors if known."""
    words = []
    for name, unit in COSTS.items():
        change, error = changes.get(name) or (None, None)
        if change is not None:
            uncertainty = f" (standard error {100 * error:.1f})" if error is not None else ""
            words.append(f"{100 * change:+.1f} {unit}{uncertainty}")
        elif name == "false_alarms" and name in changes:
            words.append(NO_CASE)
    return ", ".join(words)


def check_asked(requested: Sequence[str], measures: Mapping[str, Measure] = SEGMENTATION) -> None:
    """Refuse unknown measures. Raises UsageFault: naming the first."""
    for name in requested:
        if name not in measures:
            raise UsageFault(
                "metrics.measure-not-among-measured",
                f"measure {name!r}: not among {', '.join(measures)}, expected one of them."
                f"{did_you_mean(name, measures)}",
            )


# -- regions ---------------------------------------------------------------------------------------


Regions = tuple[tuple[str, tuple[int, ...]], ...]
"""Names, and the label values that each is the union of."""
Scores = Mapping[str, Mapping[str, Any]]
"""Region -> ``dice`` (None for none), and numbers of voxels ``truth``, ``predicted``, ``both``."""
Array = npt.NDArray[Any]


def read_regions(text: str, labels: Collection[int], *, expected: str = "") -> Regions:
    """Read ``WT:1+2+4,TC:1+4,ET:4``; ``expected``: describes the values in messages.

    Raises UsageFault: a syntax error, a duplicate name, or a value that is not a label.
    """
    parts = []
    for part in map(str.strip, text.split(",")):
        if part:
            name, _, formula = map(str.strip, part.partition(":"))
            parts.append((part, name, formula))
    return _regions(parts, labels, f"--set regions={text}", expected)


def regions_of(formulas: Mapping[str, str], labels: Collection[int]) -> Regions:
    """Regions by name and formula, ``{"WT": "1+2+4"}``; as ``read_regions``."""
    parts = [(f"{name}:{formula}", name, formula) for name, formula in formulas.items()]
    return _regions(parts, labels, "regions", "")


def _regions(
    parts: Iterable[tuple[str, str, str]], labels: Collection[int], where: str, expected: str
) -> Regions:
    """Regions of (text, name, formula)."""
    regions: dict[str, tuple[int, ...]] = {}
    expected = expected or f"values among {', '.join(map(str, sorted(labels)))}"
    for part, name, formula in parts:
        if not name or name == FOREGROUND or name.isdigit() or name in regions:
            raise UsageFault(
                "metrics.region-name-wrong",
                f"{where}: {part!r} has the name {name!r}; expected names of your own, each once, "
                f"and neither {FOREGROUND!r} nor a number",
            )
        numbers = [label.strip() for label in formula.split("+")]
        if not all(n.isdecimal() and int(n) in labels for n in numbers):
            raise UsageFault(
                "metrics.region-labels-wrong",
                f"{where}: {part!r} has the labels {formula!r}; expected {expected} with + between "
                "them, as in WT:1+2",
            )
        regions[name] = tuple(sorted({int(n) for n in numbers}))
    return tuple(regions.items())


def with_labels(regions: Regions, labels: Iterable[int]) -> Regions:
    """All measured regions: the foreground, every label by its value, then regions."""
    values = tuple(labels)
    each = [(str(value), (value,)) for value in values]
    return ((FOREGROUND, values), *each, *regions)


def without_ignored(predicted: Array, truth: Array, ignore: int | None) -> tuple[Array, Array]:
    """Set both maps to background where the truth has the ignore label."""
    if ignore is None:
        return predicted, truth
    unknown = truth == ignore
    return np.where(unknown, 0, predicted), np.where(unknown, 0, truth)


def dice(
    predicted: Array, truth: Array, regions: Regions, ignore: int | None = None
) -> dict[str, dict[str, Any]]:
    """Dice of every region on one case, None where the truth has none; without ``ignore``."""
    predicted, truth = without_ignored(predicted, truth, ignore)
    return {
        name: scored(mask_of(predicted, labels), mask_of(truth, labels)) for name, labels in regions
    }


def scored(predicted: Mask, truth: Mask) -> dict[str, Any]:
    """``dice`` of two masks, None where the truth is empty, and numbers of voxels."""
    both, sizes = int((predicted & truth).sum()), (int(truth.sum()), int(predicted.sum()))
    score = 2 * both / sum(sizes) if sizes[0] else None
    return {"dice": score, "truth": sizes[0], "predicted": sizes[1], "both": both}


def mean_dice(cases: Sequence[Scores]) -> dict[str, float | None]:
    """Mean of every region over the cases that have one; None where none has."""
    means: dict[str, float | None] = {}
    for name in cases[0] if cases else ():
        scores = [case[name]["dice"] for case in cases if case[name]["dice"] is not None]
        means[name] = sum(scores) / len(scores) if scores else None
    return means


# -- one case --------------------------------------------------------------------------------------


Distances = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int64]
PERCENTILE = 95
ROUNDING = 1e-4
"""Share by which a distance may exceed the tolerance: headers keep spacings as float32."""


class MeasureOptions(TypedDict, total=False):
    """Measurement options; see ``measure_case``."""

    measures: Sequence[str]
    tolerance_mm: float
    overlap: float
    ignore: int | None
    by_size: bool


def measure_case(
    predicted: Array,
    truth: Array,
    spacing: Sequence[float],
    regions: Regions,
    *,
    measures: Sequence[str] = tuple(SEGMENTATION),
    tolerance_mm: float = 1.0,
    overlap: float = 0.0,
    ignore: int | None = None,
    by_size: bool = False,
) -> dict[str, float | None]:
    """Measure one case (D, H, W) or (H, W), spacing in mm: ``dice/WT`` and so on.

    ``overlap``: share of a lesion that the other map has to cover; 0 for one voxel. Voxels where
    the truth is ``ignore`` do not count. ``by_size``: measure the foreground's ``OF_SIZES``, too.
    None where the truth has none of the region (``lesion_precision``: the prediction;
    ``false_alarms``: where the truth has some). For a region without prediction, ``hd95`` is the
    case's diagonal. Raises UsageFault: an invalid value. DataFault: maps of different shapes.
    """
    check_asked(measures)
    _check(predicted, truth, spacing, tolerance_mm, overlap)
    # An axis of one voxel has no surface: such a case has fewer dimensions.
    axes = [axis for axis, n in enumerate(truth.shape) if n > 1] or [0]
    mm = tuple(float(spacing[axis]) for axis in axes)
    shape = tuple([truth.shape[axis] for axis in axes])
    diagonal = hypot(*[n * s for n, s in zip(shape, mm, strict=True)])
    predicted, truth = without_ignored(predicted.reshape(shape), truth.reshape(shape), ignore)
    box = _box(predicted, truth, regions)
    predicted, truth = predicted[box], truth[box]
    values: dict[str, float | None] = {}
    for name, labels in regions:
        both = _RegionPair(mask_of(predicted, labels), mask_of(truth, labels), mm)
        numbers = dict(both.measured(measures, tolerance_mm, overlap, diagonal))
        values |= {f"{measure}/{name}": value for measure, value in numbers.items()}
        if by_size and name == FOREGROUND:
            values |= both.by_size([each for each in measures if each in BY_SIZE], overlap)
    return values


def _check(
    predicted: Array, truth: Array, spacing: Sequence[float], tolerance: float, overlap: float
) -> None:
    if predicted.shape != truth.shape:
        raise DataFault(
            "metrics.label-map-shapes-differ",
            f"predicted labels have shape {predicted.shape}, true ones {truth.shape}, expected "
            "equal; predict on the grid of the truth",
        )
    if len(spacing) != truth.ndim or not all(0 < s < np.inf for s in spacing):
        raise UsageFault(
            "metrics.spacing-not-positive",
            f"spacing {tuple(spacing)}: expected {truth.ndim} positive numbers of mm, one for each "
            "axis of the label maps",
        )
    if not 0 <= tolerance < np.inf:
        raise UsageFault(
            "metrics.tolerance-negative",
            f"tolerance_mm {tolerance}: expected a distance in mm, 0 or more",
        )
    if not 0 <= overlap <= 1:
        raise UsageFault(
            "metrics.overlap-not-a-share",
            f"overlap {overlap}: expected a share of a lesion's voxels from 0 to 1",
        )


def _box(predicted: Array, truth: Array, regions: Regions) -> tuple[slice, ...]:
    """Bounding box of all regions in either map; the rest changes no metric."""
    labels = sorted({value for _, values in regions for value in values})
    there = mask_of(predicted, labels) | mask_of(truth, labels)
    return bounding_box(there) if there.any() else (slice(0, 1),) * there.ndim


class _RegionPair:
    """One region in both maps."""

    def __init__(self, predicted: Mask, truth: Mask, spacing: Sequence[float]) -> None:
        self.predicted, self.truth, self.spacing = predicted, truth, spacing
        self.there, self.predicted_any = bool(truth.any()), bool(predicted.any())

    def measured(
        self, measures: Sequence[str], tolerance: float, overlap: float, diagonal: float
    ) -> Iterator[tuple[str, float | None]]:
        """Yield name and value of each measure in order."""
        predicted = cache(lambda: _lesions(self.predicted, self.truth, overlap))
        values: dict[str, Callable[[], float | None]] = {
            "dice": lambda: scored(self.predicted, self.truth)["dice"],
            "hd95": lambda: self.hd95(diagonal) if self.there else None,
            "nsd": lambda: self.nsd(tolerance) if self.there else None,
            "lesion_sensitivity": lambda: _share(_lesions(self.truth, self.predicted, overlap)),
            "lesion_precision": lambda: _share(predicted()),
            "false_alarms": lambda: (
                None if self.there else float(max(predicted()[0], default=0) >= ALARM_VOXELS)
            ),
            "false_positive_volume": lambda: float(predicted()[0][~predicted()[1]].sum()),
            "false_positives": lambda: float((~predicted()[1]).sum()),
        }
        for name in measures:
            yield name, values[name]()

    def by_size(self, measures: Sequence[str], overlap: float) -> dict[str, float | None]:
        """``OF_SIZES`` of some measures: a lesion counts by its own voxels, true or predicted."""
        sides = {
            "lesion_sensitivity": (self.truth, self.predicted),
            "lesion_precision": (self.predicted, self.truth),
        }
        values: dict[str, float | None] = {}
        for name in measures:
            sizes, covered = _lesions(*sides[name], overlap)
            for size, (least, beyond) in SIZES.items():
                inside = (sizes >= least) & (sizes < beyond)
                values[of_size(name, size)] = _share((sizes[inside], covered[inside]))
        return values

    @cached_property
    def distances(self) -> tuple[Distances, Distances]:
        """Distances in mm of surface voxels: prediction to truth, and truth to prediction."""
        from scipy.spatial import KDTree

        ours, theirs = _surface(self.predicted, self.spacing), _surface(self.truth, self.spacing)
        to_truth, to_prediction = KDTree(theirs).query(ours)[0], KDTree(ours).query(theirs)[0]
        return np.asarray(to_truth), np.asarray(to_prediction)

    def hd95(self, diagonal: float) -> float:
        """The larger of both directions' percentiles."""
        if not self.predicted_any:
            return diagonal
        return max(float(np.percentile(distances, PERCENTILE)) for distances in self.distances)

    def nsd(self, tolerance: float) -> float:
        """Share of all surface voxels within the tolerance of the other surface."""
        if not self.predicted_any:
            return 0.0
        near = [distances <= tolerance * (1 + ROUNDING) for distances in self.distances]
        return float(np.concatenate(near).mean())


def _surface(mask: Mask, spacing: Sequence[float]) -> Distances:
    """Positions (N, axes) in mm of voxels with a face neighbour outside the mask."""
    from scipy.ndimage import binary_erosion

    places = np.argwhere(mask & ~binary_erosion(mask))
    return np.asarray(places * np.array(spacing), np.float64)


def _lesions(lesions: Mask, mask: Mask, overlap: float) -> tuple[Sizes, Mask]:
    """Voxels of a mask's connected components, and whether another mask covers them."""
    parts = LabelComponents.of(lesions)
    covered = np.bincount(parts.numbered[mask], minlength=len(parts.sizes) + 1)[parts.numbers]
    return parts.sizes, (covered > 0) & (covered >= overlap * parts.sizes)


def _share(lesions: tuple[Sizes, Mask]) -> float | None:
    return float(lesions[1].mean()) if lesions[1].size else None
