"""Filter ``contrast``: lesions differ from their rims as much as real ones do.

It is the measure of ``gansynth.imaging.box_contrast`` for label maps instead of boxes. It compares
the distribution of voxels in a component with that around it, in the channel that shows the class
best.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from gansynth.core.case_pool import body_of
from gansynth.core.filter import (
    Filter,
    FilterOptions,
    FilterRequest,
    FilterResult,
    FilterTrainingData,
)
from gansynth.core.schema import Case, FloatArray, LabelArray, Mask, Sample, Schema
from gansynth.data.connected_components import LesionPart, parts
from gansynth.imaging.box_contrast import (
    FEW_BOXES,
    FEW_VOXELS,
    LEAST_ROC_AREA,
    NOTICED,
    PLACES,
    ClassContrast,
    Numbers,
    class_contrast,
    gap,
    spread,
)
from gansynth.sampling.filters.fitted import drawn, labelled


class ContrastOptions(FilterOptions):
    """Which components are measured, and the contrast they need."""

    quantile: float = Field(
        0.05, ge=0, lt=1, description="share of real components that would be rejected at factor 1"
    )
    factor: float = Field(
        0.8, gt=0, le=1, description="least contrast, as a share of real components' at quantile"
    )
    rim: int = Field(2, ge=1, description="width of the rim around a component, in voxels")
    least_voxels: int = Field(
        8, ge=FEW_VOXELS, description="voxels below which a component is not checked"
    )
    few: int = Field(FEW_BOXES, ge=2, description="real components below which a class is skipped")
    crops: int = Field(200, ge=1, description="real crops that are measured")
    classes: tuple[str, ...] | None = Field(
        None, description="names of the labels that are checked; none takes all"
    )
    seed: int = Field(0, ge=0, description="seeds crops, and places without lesion")


class ContrastFilter(Filter):
    """Reject samples with a lesion that hardly differs from its surroundings.

    A class is not checked if it has few real components (below 20). Nor is it if they differ from
    their rims no more than other places in the body. If a lesion was put into a real image, it
    alone is checked.
    """

    name = "contrast"
    Options = ContrastOptions
    options: ContrastOptions
    _schema: Schema
    _known: Mapping[int, ClassContrast]

    def learn(self, learning: FilterTrainingData, folder: Path) -> Mapping[str, Any]:
        """Measure real lesions, and places of their shape without a lesion."""
        labelled(self.name, learning)
        schema, values = learning.schema, self._wanted(learning.schema)
        rng = np.random.default_rng(self.options.seed)
        done: set[tuple[str, int, int]] = set()  # crops may show a lesion again
        rows_of: dict[int, list[Numbers]] = {value: [] for value in values}
        elsewhere: dict[int, list[Numbers]] = {value: [] for value in values}
        ids = sorted({*learning.train_ids, *learning.calibration_ids})
        with learning.reporter.task(self.options.crops, "contrast of real lesions") as bar:
            for case in drawn(learning, ids, self.options.crops, self.options.seed):
                assert case.labels is not None, "cases without labels are refused above"
                body = _body(case.image, case.labels)
                for value, part in self._pieces(case.labels, schema, values):
                    key = (case.id, value, part.voxels)
                    if key in done:
                        continue
                    done.add(key)
                    rows_of[value] += _row(
                        case.image, case.labels, part, value, body, self.options.rim
                    )
                    moved = _elsewhere(part, case.labels, body, rng)
                    if moved is not None:
                        rows = _row(case.image, case.labels, moved, value, body, self.options.rim)
                        elsewhere[value] += rows
                bar.advance(1)
        names, classes = {value: name for name, value in schema.labels.items()}, {}
        for value, rows in rows_of.items():
            if not rows:
                continue
            contrast = class_contrast(rows, elsewhere[value])
            at = float(np.quantile(contrast.of(np.stack(rows)), self.options.quantile))
            least, area = at - (1 - self.options.factor) * abs(at), contrast.told_apart
            checked = contrast.boxes >= self.options.few and (
                area is None or area >= LEAST_ROC_AREA
            )
            facts = asdict(contrast)
            facts.update(least=round(least, 4), judged=checked)
            classes[names[value]] = facts
        return {"classes": classes}

    def load(self, state: Mapping[str, Any], folder: Path, schema: Schema, device: str) -> None:
        known: dict[int, ClassContrast] = {}
        for name, facts in state["classes"].items():
            fields = dict(facts)
            if fields.pop("judged"):
                known[schema.labels[name]] = ClassContrast(**fields)
        self._schema, self._known = schema, known

    def judge(self, sample: Sample, request: FilterRequest) -> FilterResult:
        """Measure a sample's lesions; the weakest one counts."""
        labels, lesion = sample.labels, request.condition.lesion
        if labels is None or not self._known:
            return FilterResult()
        body = _body(sample.image, labels)
        worst: tuple[float, float, int, ClassContrast] | None = None
        for value, part in self._pieces(labels, self._schema, tuple(self._known)):
            if lesion is not None and not (lesion[part.box] > 0)[part.mask].any():
                continue
            reference = self._known[value]
            for row in _row(sample.image, labels, part, value, body, self.options.rim):
                contrast = float(reference.of(row[None])[0])
                if worst is None or contrast - reference.least < worst[0]:
                    worst = (contrast - reference.least, contrast, value, reference)
        if worst is None:
            return FilterResult()
        over, contrast, value, reference = worst
        if over >= 0:
            return FilterResult(found=contrast)
        names = {number: name for name, number in self._schema.labels.items()}
        way = {1: ", brighter than its rim", -1: ", darker than its rim", 0: ""}[reference.sign]
        return FilterResult(
            f"too little lesion contrast of label {names[value]!r}: {contrast:.2f}, expected at "
            f"least {reference.least:.2f}{way}",
            contrast,
        )

    def _wanted(self, schema: Schema) -> tuple[int, ...]:
        from gansynth.runtime.errors import UsageFault, did_you_mean

        if self.options.classes is None:
            return schema.foreground
        values = {name: value for name, value in schema.labels.items() if value > 0}
        for name in self.options.classes:
            if name not in values:
                raise UsageFault(
                    "sampling.filter-class-unknown",
                    f"--filter {self.name}: classes: {name!r} is no foreground label, expected "
                    f"some of {', '.join(values)}.{did_you_mean(name, values)}",
                )
        return tuple(values[name] for name in self.options.classes)

    def _pieces(
        self, labels: LabelArray, schema: Schema, values: Sequence[int]
    ) -> Iterator[tuple[int, LesionPart]]:
        for value in values:
            for part in parts(labels, schema, (value,), least=self.options.least_voxels):
                if (part.labels == value).sum() >= self.options.least_voxels:
                    yield value, part


def _body(image: FloatArray, labels: LabelArray) -> Mask:
    return body_of(Case("", "", image, labels))


def _row(
    image: FloatArray, labels: LabelArray, part: LesionPart, value: int, body: Mask, rim: int
) -> list[Numbers]:
    """Return the contrast of a component in each channel, (C,); nothing if it has no rim."""
    from scipy.ndimage import binary_dilation, generate_binary_structure

    window, at = [], []  # the box and its rim in the image, and the box in that window
    for place, length in zip(part.box, part.shape, strict=True):
        first, end = max(0, place.start - rim), min(length, place.stop + rim)
        window.append(slice(first, end))
        at.append(slice(place.start - first, place.stop - first))
    piece = np.zeros([w.stop - w.start for w in window], np.int16)
    piece[*at] = part.labels
    inside = piece == value
    ball = generate_binary_structure(piece.ndim, 1)
    ring = binary_dilation(piece > 0, ball, iterations=rim) & (piece <= 0) & body[*window]
    ring &= labels[*window] != value
    if inside.sum() < FEW_VOXELS or ring.sum() < FEW_VOXELS:
        return []
    noticed = [NOTICED * spread(channel[body]) for channel in image]
    cut = image[:, *window]
    return [np.array([gap(c[inside], c[ring], n) for c, n in zip(cut, noticed, strict=True)])]


def _elsewhere(
    part: LesionPart, labels: LabelArray, body: Mask, rng: np.random.Generator
) -> LesionPart | None:
    """Move the component to body with hardly any foreground; None if no place is found soon."""
    free = np.argwhere(body)
    size = np.array([s.stop - s.start for s in part.box])
    last = np.array(part.shape) - size
    mask = part.mask
    for _ in range(PLACES if len(free) else 0):
        corner = free[int(rng.integers(len(free)))] - size // 2
        if (corner < 0).any() or (corner > last).any():
            continue
        box = tuple(slice(int(c), int(c + n)) for c, n in zip(corner, size, strict=True))
        within, taken = body[box][mask].mean(), (labels[box][mask] > 0).mean()
        if within >= 0.8 and taken <= 0.1:
            return replace(part, box=box)
    return None
