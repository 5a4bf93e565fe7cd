"""Lesions of samples beside real subjects': how many, how visible in their boxes, and their look.

``counts``: a lesion is a connected component of the foreground, of any size, or a box. ``lesions``:
a generator that ignores boxes has as much contrast in the boxes of another sample. ``appearance``:
a halo is what is brighter or darker outside of the mask than farther off; an artefact at the edge
is steeper, a smear flatter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import organ_mask, shown_body
from gansynth.core.geometry import bounding_box
from gansynth.core.schema import (
    Boxes,
    Case,
    FloatArray,
    LabelArray,
    Mask,
    Sample,
    Schema,
    content_hash,
)
from gansynth.data.connected_components import LabelComponents, parts
from gansynth.imaging.box_contrast import LesionContrast, Numbers, contrasts, roc_area, spread
from gansynth.metrics.comparison import (
    LEVEL,
    Comparison,
    Estimate,
    Floats,
    Image,
    Metric,
    Quantity,
    drawn_anew,
    median_estimate,
    numbered,
)
from gansynth.metrics.distances import by_band
from gansynth.metrics.segmentation.measures import SIZES
from gansynth.runtime.errors import DataFault

# -- numbers of lesions ----------------------------------------------------------------------------


SHARE, MEAN = "share", "mean"
COUNTED = {
    SHARE: ("images with a {}", "share of images with any {}"),
    MEAN: ("{}s per image", "mean number of {}s in an image"),
    **{
        size: (f"{{}}s of {size} voxels per image", f"mean number of {{}}s of {size} voxels")
        for size in SIZES
    },
}
LESION, PART = "lesion", "labelled part"
"""What is counted: lesions, or parts of label maps that no real image lacks, such as organs."""


class CountMetric(Metric):
    """Share of images with a lesion, and mean number of lesions, all and of each size, beside
    real subjects'."""

    name = "counts"
    title = "Number of lesions"

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> Floats:
        """Lesions of each image, and those of each bin of ``SIZES``: (N, 1 + bins)."""
        every: list[Image] = [*comparison.samples, *comparison.real]
        if all(image.labels is not None for image in every):
            values, maps = comparison.schema.foreground, [image.labels for image in images]
            masks = [np.isin(labels, values) for labels in maps if labels is not None]
            return np.array([_counted(LabelComponents.of(mask).sizes) for mask in masks])
        if all(image.boxes is not None for image in every):
            return np.array([_counted(_volumes(image.boxes)) for image in images if image.boxes])
        raise DataFault(
            "metrics.counts-without-labels-or-boxes",
            "counts: samples or real cases have neither label maps nor boxes, expected either in "
            "all of them; leave it out",
        )

    def compute(self, samples: Floats, real: Floats, schema: Schema) -> Mapping[str, float]:
        """Share and means; the real ones are beside them in ``Estimate.real``."""
        means = dict(zip((MEAN, *SIZES), samples.mean(0).tolist(), strict=True))
        return {SHARE: float((samples[:, 0] > 0).mean()), **means}

    def quantity(self, name: str) -> Quantity:
        return Quantity(COUNTED[name][1], "real", 0.0, 1.0 if name == SHARE else math.inf)

    def figures(self, comparison: Comparison) -> list[Estimate]:
        """The share first. Shares of 0 and 1 have exact intervals (Clopper & Pearson 1934)."""
        counts, real = self.prepared(comparison)
        organs = (
            all(image.labels is not None for image in comparison.real) and (real[:, 0] > 0).all()
        )
        word = PART if organs else LESION
        every = [self.compute(side, real, comparison.schema) for side in (counts, real)]
        found = []
        for figure in super().figures(comparison):
            # Halves give the intervals; the numbers themselves are those of all images.
            value, theirs = [numbers[figure.name] for numbers in every]
            figure = replace(figure, value=value, real=theirs, difference=value - theirs)
            if figure.name == SHARE and value in (0, 1):
                low, high = _exact(value, len(counts))
                figure = replace(figure, low=low, high=high)
            if figure.name == SHARE and theirs in (0, 1):
                low, high = _exact(theirs, len(set(comparison.people)))
                figure = replace(figure, real_low=low, real_high=high)
            name, what = [text.format(word) for text in COUNTED[figure.name]]
            found.append(replace(figure, name=name, what=what, title=f"Number of {word}s"))
        return found


def _counted(voxels: npt.NDArray[Any]) -> list[float]:
    """Return how many lesions of these sizes there are, all and in each bin of ``SIZES``."""
    bins = [((voxels >= least) & (voxels < beyond)).sum() for least, beyond in SIZES.values()]
    return [float(number) for number in (len(voxels), *bins)]


def _volumes(boxes: Boxes) -> Numbers:
    """Return the voxels that each box covers: (N,)."""
    low, high = np.hsplit(np.asarray(boxes.coords, np.float64), 2)
    return np.asarray(np.maximum((high - low).prod(1), 1))


def _exact(share: float, number: int) -> tuple[float, float]:
    """95 % interval of a share of 0 or 1 of a number."""
    edge = (LEVEL / 2) ** (1 / number)
    return (edge, 1.0) if share else (0.0, 1 - edge)


# -- lesions in boxes ------------------------------------------------------------------------------


SIDED = 10  # real boxes of a class needed to know whether it is brighter or darker than its rim
RESAMPLED = 2000  # bootstrap samples of the interval


class BoxContrastMetric(Metric):
    """``lesions``: contrast of boxes against their rims, own and shuffled ones."""

    name = "lesions"
    needs = frozenset({"boxes", "pairs"})

    def compute(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """Contrast is 0 to 1, or negative where a class has the opposite sign.

        The difference has a 95 % bootstrap interval over images, for real ones over subjects. NaN
        where fewer than two images have boxes.
        """
        rng = np.random.default_rng(0)
        once = {(case.id, content_hash(case.image)): case for case in real}
        contrast = LesionContrast.fit(once.values(), schema.box_classes, rng=rng)
        sides = {
            "samples": [(s.image, s.boxes, str(i)) for i, s in enumerate(samples)],
            "real": [(c.image, c.boxes, c.subject) for c in once.values()],
        }
        numbers: dict[str, float] = {}
        for side, items in sides.items():
            listed = [(i, b, who) for i, b, who in items if b is not None and len(b.labels)]
            numbers |= _contrasts_of(side, listed, contrast, rng)
        return numbers


def _contrasts_of(
    side: str,
    images: Sequence[tuple[FloatArray, Boxes, str]],
    contrast: LesionContrast,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Named numbers of one side: contrast in an image's own boxes, and in another image's."""
    order = rng.permutation(len(images))
    partner = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    own, others, owners = [], [], []
    for index, (image, boxes, owner) in enumerate(images if len(images) > 1 else ()):
        body = organ_mask(image)
        both = [
            _signed(contrasts(image, listed, body=body), listed, contrast)
            for listed in (boxes, images[partner[index]][1])
        ]
        if all(len(values) for values in both):
            own.append(both[0])
            others.append(both[1])
            owners.append(owner)
    matched = np.array([values.mean() for values in own])
    shuffled = np.array([values.mean() for values in others])
    low, high = _interval(matched - shuffled, owners, rng)
    area = roc_area(np.concatenate(own), np.concatenate(others)) if own else math.nan
    return {
        f"{side}": _mean(matched),
        f"{side} shuffled": _mean(shuffled),
        f"{side} difference": _mean(matched - shuffled),
        f"{side} difference low": low,
        f"{side} difference high": high,
        f"{side} told apart": area,
    }


def _signed(measured: Numbers, boxes: Boxes, contrast: LesionContrast) -> Numbers:
    """Signed contrasts (M,) of boxes with a rim, from raw contrasts (N, C)."""
    classes, out = list(contrast.classes.values()), []
    for row, label in zip(measured, boxes.labels.tolist(), strict=True):
        of_class = classes[label] if 0 <= label < len(classes) else None
        sided = of_class is not None and of_class.boxes >= SIDED
        out.append(of_class.of(row[None])[0] if of_class and sided else np.abs(row).max())
    values = np.array(out, np.float64)
    return values[np.isfinite(values)]


def _interval(values: Numbers, of: Sequence[str], rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the mean, resampling whole subjects; NaN for fewer than two."""
    people = {who: number for number, who in enumerate(dict.fromkeys(of))}
    if len(people) < 2:
        return float("nan"), float("nan")
    owner = np.array([people[who] for who in of])
    sums = np.bincount(owner, weights=values)
    counts = np.bincount(owner)
    drawn = rng.integers(len(people), size=(RESAMPLED, len(people)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, RANGE)
    return float(low), float(high)


# -- the look of lesions ---------------------------------------------------------------------------


GRAIN = 4  # bands of frequency inside a lesion
PLACES = ("edge", "rim", "contrast", "halo", *[f"grain {band}" for band in range(1, GRAIN + 1)])
"""Figures of a lesion: gradients at its edge and the steepest in the rim around, then its look."""
LOOK = PLACES.index("contrast")
REACH = 6  # width of the rim around a lesion, in voxels of the finest axis
NEAR, FAR = slice(1, 3), slice(4, REACH + 1)
"""Shells of a voxel just outside the mask, and those that are its surroundings."""
FACES = 12  # fewest pairs of voxels for a gradient, and fewest voxels for a mean of a shell
SMALLEST_LESION = 8  # smallest component of the foreground, in voxels, that is a lesion
GRAINY = 32  # fewest voxels of a lesion for its spectrum
RANGE = (0.025, 0.975)  # quantiles of the real lesions' figures that bound the range
LOOKS = {
    "edge": "difference of voxels on both sides of the mask's edge, per mm, in deviations of the "
    "body: larger, the edge is cut out; smaller, it is smeared",
    "contrast": "mean of lesions minus that of their surroundings, 4 to 6 voxels off, in "
    "deviations of the body",
    "halo": "mean of the 2 voxels just outside the mask minus that of the surroundings, in "
    "deviations of the body",
    "grain": "power inside lesions over real, band {} of 4 (4: finest)",
}


class Appearance(Metric):
    """``appearance``: edge, contrast, halo and grain of lesions; the range is real subjects'."""

    name = "appearance"
    title = "Lesions"
    needs = frozenset({"labels"})
    least = 8

    def compute(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """Medians by channel and place, of samples and of real lesions, and shares in range.

        Where a sample has its real case beside it, only new voxels count. ``in range`` is the share
        of lesions' gradients between the real ones' 2.5 and 97.5 percentile, ``real in range`` that
        of real ones against other subjects.
        """
        beside = [real[n] if n < len(real) else None for n in range(len(samples))]
        once = {(case.id, content_hash(case.image)): case for case in real}.values()
        mine, _, classes = lesions_of(samples, beside, schema)
        theirs, who, _ = lesions_of(list(once), (), schema, classes)
        return numbers_of(mine, theirs, [list(once)[n].subject for n in who], schema)

    def figures(self, comparison: Comparison) -> list[Estimate]:
        """Medians over lesions, and the range of real subjects' medians, each without its own."""
        self.check(comparison)
        schema = comparison.schema
        mine, owner, classes = lesions_of(comparison.samples, comparison.beside, schema)
        theirs, who, _ = lesions_of(comparison.real, (), schema, classes)
        own = [comparison.drawn_of[n] for n in owner]
        of = [comparison.people[n] for n in who]
        images = min(len(set(own)), len(set(of)))
        rng = comparison.rng("appearance")
        figures = []
        for channel, name in enumerate(schema.channels):
            for at, place in enumerate(PLACES):
                word, _, band = place.partition(" ")
                if word not in LOOKS:
                    continue
                sides = (mine[:, channel, at], own), (theirs[:, channel, at], of)
                what = LOOKS[word].format(band)
                figure = Estimate(self.name, f"{name} {place}", self.title, what, "real", None)
                numbers = _beside(*sides, ratio=word == "grain", rng=rng)
                figures.append(replace(figure, images=images, **numbers))  # type: ignore[arg-type]
        return figures


Figures = tuple[Numbers, Sequence[str]]  # a figure of each lesion, and its subject


def _beside(
    mine: Figures, theirs: Figures, *, ratio: bool, rng: np.random.Generator
) -> dict[str, float | None]:
    """Numbers of an ``Estimate``: medians of lesions; the range is of the subjects' medians."""
    (values, own), (real, of) = _finite(*mine), _finite(*theirs)
    people = np.array(of, object)
    each = np.array([np.median(real[people == person]) for person in dict.fromkeys(of)])
    if not len(values) or len(each) < 2:
        return {"value": None}
    # A subject is compared with the others, as samples are with all.
    unit, others = 1.0, each
    if ratio:
        unit = float(np.median(each))
        others = each / [np.median(np.delete(each, n)) for n in range(len(each))]
    low, high = np.quantile(others, RANGE, method="weibull")
    middle = float(np.median(each))
    owner, drawn = numbered(own), []
    for _ in range(500):
        median = np.median(np.repeat(values, drawn_anew(owner, rng)))
        drawn.append((median / unit, (median - np.median(rng.choice(each, len(each)))) / unit))
    ends = [median_estimate(column) for column in np.array(drawn).T]
    value = float(np.median(values))
    return {
        "value": value / unit,
        "low": ends[0][0],
        "high": ends[0][1],
        "real": middle / unit,
        "real_low": float(low),
        "real_high": float(high),
        "difference": (value - middle) / unit,
        "difference_low": ends[1][0],
        "difference_high": ends[1][1],
    }


def _finite(values: Numbers, of: Sequence[str]) -> tuple[Numbers, list[str]]:
    kept = np.isfinite(values)
    return values[kept], [name for name, keep in zip(of, kept, strict=True) if keep]


def lesions_of(
    images: Sequence[Image],
    beside: Sequence[Case | None],
    schema: Schema,
    classes: Sequence[int] = (),
) -> tuple[Numbers, list[int], Sequence[int]]:
    """Figures (N, C, places) of all lesions, the number of each one's image, and their classes.

    ``beside``: the real case of each sample, or nothing. ``classes``: label values of lesions; if
    none, those that are new to the cases beside, or the foreground.
    """
    cases = (*beside, *[None] * len(images))
    new = [new_voxels(*pair) for pair in zip(images, cases, strict=False)]
    if not classes:
        seen = {
            int(value)
            for image, mask in zip(images, new, strict=True)
            if image.labels is not None and mask is not None
            for value in np.unique(image.labels[mask])
        }
        classes = sorted(seen) or schema.foreground
    rows, who = [np.zeros((0, len(schema.channels), len(PLACES)))], []
    for number, (image, mask) in enumerate(zip(images, new, strict=True)):
        rows.append(profiles(image.image, image.labels, mask, schema, classes))
        who += [number] * len(rows[-1])
    return np.concatenate(rows), who, classes


def numbers_of(
    drawn: Numbers, real: Numbers, of: Sequence[str], schema: Schema
) -> dict[str, float]:
    """Compute named numbers from figures (N, C, places) of samples and (M, C, places) of real."""
    subjects = np.array(of, object)
    others = np.full(real.shape, np.nan)
    for subject in dict.fromkeys(of):
        same = subjects == subject
        others[same] = within_range(real[same], real[~same])
    inside = within_range(drawn, real)
    numbers = {
        "in range": _mean(inside[..., :LOOK]),
        "real in range": _mean(others[..., :LOOK]),
        "lesions": float(len(drawn)),
        "real lesions": float(len(real)),
    }
    for channel, name in enumerate(schema.channels):
        for at, place in enumerate(PLACES):
            numbers |= {
                f"{name} {place} in range": _mean(inside[:, channel, at]),
                f"{name} {place}": _median(drawn[:, channel, at]),
                f"{name} {place} real": _median(real[:, channel, at]),
            }
    return numbers


def within_range(values: Numbers, of: Numbers) -> Numbers:
    """1 where a value (N, C, P) lies in the range of (M, C, P), 0 where not, else NaN."""
    out = np.full(values.shape, np.nan)
    for place in np.ndindex(values.shape[1:]):
        reference = of[(slice(None), *place)]
        reference = reference[np.isfinite(reference)]
        if reference.size:
            # Weibull quantiles hold a further real value with the stated probability, even if few.
            low, high = np.quantile(reference, RANGE, method="weibull")
            column = values[(slice(None), *place)]
            within = ((column >= low) & (column <= high)).astype(np.float64)
            out[(slice(None), *place)] = np.where(np.isfinite(column), within, np.nan)
    return out


def new_voxels(sample: Image, beside: Case | None) -> Mask | None:
    """Mask of a sample's foreground that is new to the case beside it; None if unknown."""
    about = sample.provenance if isinstance(sample, Sample) else {}
    if sample.labels is None or beside is None or beside.labels is None or "lesions" not in about:
        return None
    if dict(about["lesions"]).get("where") == "own":  # foreground generated again in its place
        return None
    if beside.id != about.get("case") or beside.labels.shape != sample.labels.shape:
        return None
    return np.asarray((sample.labels > 0) & (sample.labels != beside.labels))


def profiles(
    image: FloatArray,
    labels: LabelArray | None,
    new: Mask | None,
    schema: Schema,
    classes: Sequence[int] = (),
) -> Numbers:
    """Figures of the lesions in an image: (N, C, places), NaN if undefined.

    A gradient is the mean difference of voxels on both sides of a surface, per mm. Of the surfaces
    one to six voxels out, the steepest counts. Another lesion's voxels, and the body's border, are
    excluded. All are over the deviation of the body around lesions, and powers over its square.
    ``image``: float32 (C, D, H, W) or (C, H, W). ``labels``: int16; each connected component of
    ``classes``, or of the foreground, is a lesion. ``new``: the lesions' voxels.
    """
    from scipy.ndimage import binary_erosion

    empty = np.zeros((0, len(image), len(PLACES)))
    if labels is None or not (labels > 0).any():
        return empty
    held = np.isin(labels, classes) if len(classes) else labels > 0
    body = shown_body(image, labels)
    # Only tissue around lesions: inserted lesions and their size must not influence the scale.
    around = body & ~held if (body & ~held).any() else body
    scales = np.array([max(spread(channel[around]), 1e-6) for channel in image])[:, None]
    # A voxel at the body's border is partly outside.
    body = binary_erosion(body, border_value=1) | held
    lesions = np.asarray(held if new is None else new, np.int16)
    rows = []
    for part in parts(lesions, schema, (1,), least=SMALLEST_LESION):
        lesion = part.whole() > 0
        window = bounding_box(lesion, margin=REACH + 2)
        usable = (body & (~held | lesion))[window]
        cut = image[(slice(None), *window)] / scales.reshape(-1, *[1] * lesion.ndim)
        rows.append(_profile(cut, lesion[window], usable, schema.spacing))
    return np.stack(rows) if rows else empty


def _profile(
    image: FloatArray, lesion: Mask, usable: Mask, spacing: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Figures of one lesion: (C, places)."""
    from scipy.ndimage import distance_transform_edt

    away = distance_transform_edt(~lesion, sampling=spacing)
    # Shell 0 is the lesion. Other shells end half-way between voxels, so that none lies on one.
    ends = (np.arange(REACH + 1) + 0.5) * min(spacing)
    shell = np.where(lesion, 0, np.maximum(np.searchsorted(ends, away), 1))
    gradients = _gradients(image, shell, usable, spacing)
    rim = gradients[1 : REACH + 1]
    finite = np.isfinite(rim).any(axis=0)
    steepest = np.where(finite, np.nanmax(np.where(finite, rim, 0.0), axis=0), np.nan)
    inside = _shell_mean(image, shell, usable, slice(0, 1))
    near, far = [_shell_mean(image, shell, usable, part) for part in (NEAR, FAR)]
    look = [gradients[0], steepest, inside - far, near - far]
    return np.column_stack([*look, _grain(image, lesion, spacing)])


def _gradients(
    image: FloatArray, shell: npt.NDArray[np.intp], usable: Mask, spacing: Sequence[float]
) -> Numbers:
    """Mean absolute difference per mm across the end of each shell, (shells, C)."""
    shells = REACH + 2
    sums, counts = np.zeros((shells, len(image))), np.zeros(shells)
    for axis, mm in enumerate(spacing):
        before = (slice(None),) * axis
        here, there = (*before, slice(None, -1)), (*before, slice(1, None))
        across = (shell[here] != shell[there]) & usable[here] & usable[there]
        at = np.minimum(shell[here], shell[there])[across]
        counts += np.bincount(at, minlength=shells)
        steps = np.abs(np.diff(image, axis=axis + 1))[:, across] / mm
        for channel, values in enumerate(steps):
            sums[:, channel] += np.bincount(at, values, minlength=shells)
    enough = (counts >= FACES)[:, None]
    return np.where(enough, sums / np.maximum(counts, 1)[:, None], np.nan)


def _shell_mean(
    image: FloatArray, shell: npt.NDArray[np.intp], usable: Mask, part: slice
) -> Numbers:
    """Mean of each channel over shells, (C,); NaN with too few voxels outside a lesion."""
    where = usable & (shell >= part.start) & (shell < part.stop)
    if where.sum() < (FACES if part.start else 1):
        return np.full(len(image), np.nan)
    return np.asarray(image[:, where].mean(axis=1, dtype=np.float64))


def _grain(image: FloatArray, lesion: Mask, spacing: Sequence[float]) -> Numbers:
    """Power inside a lesion by band of frequency, (C, bands); NaN in a small one.

    The lesion's mask, with a soft edge, is the window. White noise has its variance in each band.
    """
    from scipy.ndimage import distance_transform_edt

    if lesion.sum() < GRAINY:
        return np.full((len(image), GRAIN), np.nan)
    # The array's border is an edge as well.
    depth = distance_transform_edt(np.pad(lesion, 1), sampling=spacing)
    inner = (slice(1, -1),) * lesion.ndim
    window = np.clip(depth[inner] / (2 * min(spacing)), 0, 1)
    axes = tuple(range(1, image.ndim))
    means = (image * window).sum(axes, keepdims=True) / window.sum()
    power = np.abs(np.fft.fftn((image - means) * window, axes=axes)) ** 2
    return by_band(power / (window**2).sum(), spacing, GRAIN)


def _mean(values: Numbers) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _median(values: Numbers) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")
