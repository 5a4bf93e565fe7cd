"""Where two sites differ, measured before anything is trained: look, anatomy, numbers.

A host that is trained at one site loses at another for reasons that ask for different cures. Grey
values, noise and sharpness are look, which histograms, augmentation or a translation can match.
Sizes, places and the sign of a label's contrast are not: no unpaired method can know that what is
bright here is dark there, or that another hospital draws its outlines wider.

Every measure is one number of a case, and the mean over a subject's cases is compared between the
sites' subjects: the share of pairs in which the other site has more (area under the ROC curve), and
Mann and Whitney's p, corrected for all measures (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gansynth.core.body_mask import shown_body
from gansynth.core.geometry import bounding_box, distance_within, mask_of
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Mask, Schema
from gansynth.imaging.body_box import BodyBox
from gansynth.imaging.lesion_grain import FAR, NEAR
from gansynth.metrics.comparison import Floats, Image
from gansynth.metrics.statistics import holm

Part = Literal["look", "anatomy", "numbers"]
Measures = Mapping[str, float]
"""Name -> number of a case; NaN where it does not show it."""

SUBJECTS, CASES = 48, 6
"""Subjects of a site that are looked at, at most, and cases of each."""
FEWEST = 5  # subjects of each site below which nothing is told
LEVEL = 0.05  # of p after correction
CLEAR = 0.7  # share of pairs, or 1 minus it, from which a difference is worth a line
CELLS = 12  # along each axis of a body's box, in which its outline is compared
OUTLINE = "outline of the body"
OTHER_BODY = 0.6  # correlation of the sites' mean outlines below which bodies are others
APART = 4  # voxels apart whose differences those of neighbours are compared with
EVEN_STEPS = 1.5  # an axis with voxels longer than this, in the finest ones, shows no detail
TURNED = 0.1  # least contrast at both sites, in deviations of the body, of which the sign counts
ENOUGH = 8  # voxels of a label, and of its surroundings, of which a contrast is measured

SAY = {
    "grey values": "match histograms, or vary grey values more",
    "noise and detail": "vary noise and blur, or resample to the same voxels",
    "field of view": "crop or pad to the same field",
    "body": "another part of the body, or another posture: hardly data for one model",
    "size": "another population, or outlines drawn by another rule: label cases of it",
    "place": "another population or posture: label cases of it",
    "contrast": "a translation might carry it over (examples/gansynth_translate)",
    "turned contrast": "it turns over, which nothing unpaired can know: label cases of it",
    "number": "another mix of patients: draw cases in its proportion",
}
"""Kind of a measure -> what a difference of it asks for."""
PARTS: Mapping[Part, Sequence[str]] = {
    "look": ("grey values", "noise and detail", "contrast", "field of view"),
    "anatomy": ("body", "size", "place", "turned contrast"),
    "numbers": ("number",),
}
"""What kinds of measures tell of."""


@dataclass(frozen=True)
class Difference:
    """One measure at both sites.

    Attributes:
        name: of the measure, e.g. ``FLAIR level``.
        kind: a key of ``SAY``.
        here, there: median, 25th and 75th percentile over subjects.
        more: share of pairs of subjects in which the other site has more; .5 where equal.
        p: corrected for the number of measures; None with too few subjects.
    """

    name: str
    kind: str
    here: tuple[float, float, float]
    there: tuple[float, float, float]
    more: float
    p: float | None

    @property
    def part(self) -> Part:
        """What it tells of."""
        return next(part for part, kinds in PARTS.items() if self.kind in kinds)

    @property
    def shown(self) -> bool:
        """Whether the sites differ in it: beyond chance, and by enough to matter."""
        return self.p is not None and self.p < LEVEL and abs(self.more - 0.5) >= CLEAR - 0.5


class SiteMeasures:
    """Measures of one site's cases, taken one case at a time.

    Args:
        schema: of the cases.
        labelled: labels that both sites have, name -> value.
    """

    def __init__(self, schema: Schema, labelled: Mapping[str, int]) -> None:
        self.schema = schema
        self.labelled = labelled
        self.rows: dict[str, list[Measures]] = {}
        self.outlines: dict[str, list[Floats]] = {}

    def add(self, case: Image, subject: str) -> None:
        """Measure a case, image (C, D, H, W) or (C, H, W), of a subject."""
        body = shown_body(case.image, case.labels)
        row = dict(_of_look(case.image, body, self.schema))
        if case.labels is not None:
            row |= _of_labels(case.image, case.labels, body, self.schema, self.labelled)
        self.rows.setdefault(subject, []).append(row)
        self.outlines.setdefault(subject, []).append(_outline(body))

    def table(self) -> dict[str, Measures]:
        """Return each subject's means."""
        found: dict[str, Measures] = {}
        for subject, rows in self.rows.items():
            found[subject] = {
                name: _mean([row.get(name, np.nan) for row in rows]) for name in rows[0]
            }
        return found

    def outline(self, subject: str) -> Floats:
        """Return the mean outline of a subject's bodies, (values,)."""
        return np.asarray(np.mean(self.outlines[subject], axis=0), np.float64).ravel()


def chosen_cases(subject_of: Mapping[str, str]) -> list[str]:
    """Return the cases of a site that are looked at: ``CASES`` each of ``SUBJECTS`` subjects.

    They are spread over each subject's cases in the order of their names, since the first slices of
    a patient are all alike.
    """
    cases: dict[str, list[str]] = {}
    for case in sorted(subject_of):
        cases.setdefault(subject_of[case], []).append(case)
    found = []
    for subject in _spread(list(cases), SUBJECTS):
        found += _spread(cases[subject], CASES)
    return found


def compared(here: SiteMeasures, there: SiteMeasures) -> list[Difference]:
    """Compare all measures of two sites, clearest differences first."""
    own, other = list(here.table().values()), list(there.table().values())
    names = dict.fromkeys([name for row in (*own, *other) for name in row])
    all_of_them = [_difference(name, own, other) for name in names]
    all_of_them.append(_of_outlines(here, there))
    found = [one for one in all_of_them if one is not None]
    corrected = holm([one.p for one in found])
    differences = [replace(one, p=p) for one, p in zip(found, corrected, strict=True)]
    return sorted(differences, key=lambda one: (1.0 if one.p is None else one.p, one.name))


def verdict(differences: Sequence[Difference], *, labelled: bool) -> str:
    """Say in a sentence where the gap comes from, as far as that can be measured."""
    shown = [one for one in differences if one.shown]
    if all(one.p is None for one in differences):
        return f"fewer than {FEWEST} subjects of a site: nothing is told"
    unknown = "" if labelled else "; without labels there, nothing is known of what is labelled"
    if any(one.kind == "body" for one in shown):
        return f"{SAY['body']}{unknown}"
    turned = [one.name for one in shown if one.kind == "turned contrast"]
    if turned:
        return f"{' and '.join(turned)} turns over: no unpaired method can know that; label cases"
    anatomy = [one for one in shown if one.part == "anatomy"]
    look = [one for one in shown if one.part == "look"]
    if anatomy and look:
        return f"look and anatomy differ: a translation closes a part of the gap at most{unknown}"
    if anatomy:
        return f"anatomy differs, look hardly: a translation has nothing to change{unknown}"
    if look:
        return (
            "look differs, and nothing else that is measured: match it the simplest way first"
            f"{unknown}"
        )
    return f"nothing that is measured differs: there may be no gap to close{unknown}"


# -- measures of a case ----------------------------------------------------------------------------


def _of_look(image: FloatArray, body: Mask, schema: Schema) -> Iterable[tuple[str, float]]:
    """Yield measures of an image (C, ...) alone."""
    for channel, name in zip(image, schema.channels, strict=True):
        low, median, high = np.quantile(channel[body], (0.16, 0.5, 0.84))
        spread = max(float(high - low) / 2, 1e-6)
        yield f"{name} level", float(median)
        yield f"{name} spread", spread
        yield f"{name} skew", float((high + low - 2 * median) / (2 * spread))
        noise, detail = _grain(channel, body, schema)
        yield f"{name} noise", noise / spread
        yield f"{name} detail", detail
    for axis, length, mm in zip(schema.axes, body.shape, schema.spacing, strict=True):
        yield f"field of view of axis {axis}", length * mm
    yield "share of the body in the image", float(body.mean())


def _grain(channel: FloatArray, body: Mask, schema: Schema) -> tuple[float, float]:
    """Return the noise's deviation, and neighbours' differences over those ``APART``.

    Along the finest axes. Noise is what second differences show (Immerkaer 1996), by their median,
    which edges hardly change.
    """
    finest = min(schema.spacing)
    second, near, far = [], [], []
    for axis, mm in enumerate(schema.spacing):
        if mm > EVEN_STEPS * finest:
            continue
        values, inside = np.moveaxis(channel, axis, 0), np.moveaxis(body, axis, 0)
        three = inside[2:] & inside[1:-1] & inside[:-2]
        second.append(np.abs(values[2:] - 2 * values[1:-1] + values[:-2])[three])
        two = inside[1:] & inside[:-1]
        near.append(np.abs(values[1:] - values[:-1])[two])
        apart = inside[APART:] & inside[:-APART]
        far.append(np.abs(values[APART:] - values[:-APART])[apart])
    if not all(sum(map(len, found)) for found in (second, near, far)):
        return float("nan"), float("nan")
    noise = 1.4826 * np.median(np.concatenate(second)) / np.sqrt(6)
    further = max(float(np.concatenate(far).mean()), 1e-6)
    return float(noise), float(np.concatenate(near).mean()) / further


def _of_labels(
    image: FloatArray,
    labels: LabelArray,
    body: Mask,
    schema: Schema,
    labelled: Mapping[str, int],
) -> dict[str, float]:
    """Return measures of what is labelled; of a label that a case lacks, that it lacks it."""
    found = {}
    frame = BodyBox.of(body)
    free = body & ~mask_of(labels, schema.foreground) & (labels != OUTSIDE)
    spreads = [_spread_of(channel[body]) for channel in image]
    for name, value in labelled.items():
        mask = labels == value
        found[f"cases with {name}"] = float(mask.any())
        places = [f"place of {name} along {axis}" for axis in schema.axes]
        contrasts = [f"contrast of {name} in {channel}" for channel in schema.channels]
        found |= dict.fromkeys([f"size of {name}", *places, *contrasts], float("nan"))
        if not mask.any():
            continue
        found[f"size of {name}"] = float(mask.sum() * np.prod(schema.spacing))
        centre = frame.relative(np.argwhere(mask).astype(np.float64)).mean(axis=0)
        found |= dict(zip(places, centre.tolist(), strict=True))
        box = bounding_box(mask, margin=int(FAR) + 1)
        away = distance_within(mask[box], (1.0,) * mask.ndim, FAR)
        around = (away > NEAR) & (away <= FAR) & free[box]
        if min(mask.sum(), around.sum()) < ENOUGH:
            continue
        for title, channel, spread in zip(contrasts, image, spreads, strict=True):
            difference = channel[mask].mean() - channel[box][around].mean()
            found[title] = float(difference / spread)
    return found


def _outline(body: Mask) -> Floats:
    """Return the share of a body in each of ``CELLS`` along each axis of its box."""
    from scipy.ndimage import zoom

    held = body[bounding_box(body)].astype(np.float32)
    factors = [CELLS / length for length in held.shape]
    return np.asarray(zoom(held, factors, order=1, grid_mode=True, mode="nearest"), np.float64)


# -- comparing -------------------------------------------------------------------------------------


def _difference(
    name: str, here: Iterable[Measures], there: Iterable[Measures]
) -> Difference | None:
    """Compare a measure; None where a site does not show it, or nobody differs in it."""
    from scipy.stats import mannwhitneyu

    own, other = _values(name, here), _values(name, there)
    if not (len(own) and len(other)) or np.ptp(np.concatenate([own, other])) == 0:
        return None
    told = min(len(own), len(other)) >= FEWEST
    statistic, chance = mannwhitneyu(other, own)
    more = float(statistic) / (len(own) * len(other))
    kind = _kind(name, float(np.median(own)), float(np.median(other)))
    p = float(chance) if told else None
    return Difference(name, kind, _quartiles(own), _quartiles(other), more, p)


def _of_outlines(here: SiteMeasures, there: SiteMeasures) -> Difference | None:
    """Compare bodies along the direction in which all people's outlines differ most.

    It is found without the sites. How like one site's mean outline people are would not do: those
    whom the mean is of are more like it by chance.
    """
    sides = [np.stack([site.outline(name) for name in site.rows]) for site in (here, there)]
    every = np.concatenate(sides)
    _, _, directions = np.linalg.svd(every - every.mean(axis=0), full_matrices=False)
    scores = ((every - every.mean(axis=0)) @ directions[0]).round(6).tolist()
    rows = [{OUTLINE: score} for score in scores]
    found = _difference(OUTLINE, rows[: len(sides[0])], rows[len(sides[0]) :])
    alike = _correlation(sides[0].mean(axis=0), sides[1].mean(axis=0))
    return replace(found, kind="body") if found is not None and alike < OTHER_BODY else found


def _kind(name: str, here: float, there: float) -> str:
    """Return the key of ``SAY`` that a measure belongs to."""
    if name.startswith("contrast of"):
        turned = here * there < 0 and min(abs(here), abs(there)) >= TURNED
        return "turned contrast" if turned else "contrast"
    starts = {"size of": "size", "place of": "place", "cases with": "number"}
    starts |= dict.fromkeys(("outline of", "field of", "share of"), "field of view")
    for start, kind in starts.items():
        if name.startswith(start):
            return kind
    return "noise and detail" if name.endswith((" noise", " detail")) else "grey values"


def _values(name: str, table: Iterable[Measures]) -> Floats:
    values = np.array([row.get(name, np.nan) for row in table], np.float64)
    return values[np.isfinite(values)]


def _quartiles(values: Floats) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return middle, low, high


def _spread(names: Sequence[str], most: int) -> list[str]:
    """Return at most so many of them, evenly spread."""
    if len(names) <= most:
        return list(names)
    return [names[int(place)] for place in np.linspace(0, len(names) - 1, most).round()]


def _spread_of(values: FloatArray) -> float:
    low, high = np.quantile(values, (0.16, 0.84))
    return max(float(high - low) / 2, 1e-6)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _correlation(one: Floats, other: Floats) -> float:
    one, other = one.ravel() - one.mean(), other.ravel() - other.mean()
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / size if size else float("nan")
