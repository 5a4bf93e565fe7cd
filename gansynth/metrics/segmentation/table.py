"""Properties of each measure: unit, better direction, definition, equivalence margin."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from gansynth.runtime.errors import UsageFault, did_you_mean


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


DICE_MARGIN = 0.005  # half a point of Dice
LEAST = 4  # voxels of a predicted lesion that is an alarm, as in hard-cases

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
        f"Share of the cases without a lesion where one of at least {LEAST} voxels is predicted.",
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

AT_ALARMS: Mapping[str, str] = {
    f"{name}@alarms/foreground": name
    for name in ("dice", "lesion_sensitivity", "lesion_precision", "false_positives")
}
"""Keys of a plan's measures at equal false alarms."""

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
            f"{key}: no measure, expected one of {', '.join(MEASURES)}."
            f"{did_you_mean(name, MEASURES)}"
        )
    return MEASURES[name]


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
            told = f" (standard error {100 * error:.1f})" if error is not None else ""
            words.append(f"{100 * change:+.1f} {unit}{told}")
        elif name == "false_alarms" and name in changes:
            words.append(NO_CASE)
    return ", ".join(words)


def check_asked(requested: Sequence[str], measures: Mapping[str, Measure] = SEGMENTATION) -> None:
    """Refuse unknown measures. Raises UsageFault: naming the first."""
    for name in requested:
        if name not in measures:
            raise UsageFault(
                f"measure {name!r}: not among {', '.join(measures)}, expected one of them."
                f"{did_you_mean(name, measures)}"
            )
