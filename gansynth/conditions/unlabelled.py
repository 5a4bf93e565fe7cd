"""``--unlabelled SOURCE``: lesion-free scans that lesions are drawn into, besides training cases.

That they are lesion-free is the user's word. A source may have label maps, drawn by hand or by a
network: cases with a lesion in theirs, or a place that is to be ignored, are left out. With
``--self-train`` a share of the samples are these scans with the labels of their maps. Intensities
are brought to those of training cases, where the two differ by more than training cases do among
themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from gansynth.conditions.condition_source import (
    ConditionSource,
    check_spacing,
    check_whole,
    named,
    open_other,
)
from gansynth.conditions.location_prior import some
from gansynth.core.body_mask import shown_body
from gansynth.core.geometry import Matrix, mask_of
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Case, FloatArray, LabelArray, Schema
from gansynth.core.source import CaseHeader, CaseSource, WrappedSource
from gansynth.runtime.errors import DataFault, UsageFault, describe_error

RANKS = np.array([0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
"""Ranks in a body whose intensities are compared (Nyul et al. 2000) ..."""
WIDTH = slice(1, -1)  # ... and those whose distance is the width of its intensities
NEAR = 0.05  # share of that width by which the two sides may differ in any case
COMPARED = 32  # cases of each side that are compared
CELLS = 64  # an axis of twice as many voxels is looked at in steps of two, and so on


def open_unlabelled(
    request: SampleRequest, source: CaseSource, lesions: Collection[int]
) -> tuple[UnlabelledSource, ...]:
    """Open the sources of ``--unlabelled`` beside the source of the training cases.

    Args:
        lesions: label values of lesions in the source.
    """
    words = describe_error("--label-source", "--unlabelled")
    with words, describe_error("--read ", "--unlabelled-read "):
        found = []
        for asked in request.unlabelled:
            base = open_other(asked, source, like=True)
            check_whole(base, source)
            check_spacing(base, source)
            scans = UnlabelledSource(
                _Scans(base, source.schema), source, lesions, vouched=request.lesion_free
            )
            if not (scans.train_ids or request.self_train):
                raise DataFault(
                    "conditions.no-lesion-free-case",
                    f"{named(base)}: each of its {len(scans.left_out)} cases has a lesion in its "
                    "label map, expected lesion-free ones; name another source",
                )
            found.append(scans)
        return tuple(found)


class _Scans(ConditionSource):
    """Cases of another source; those without labels are wholly background."""

    def _check_classes(self, schema: Schema) -> None:
        """Classes of whole cases mean nothing of scans without labels."""

    def _labels(self, case: Case) -> LabelArray:
        if case.labels is None:
            return np.zeros(case.image.shape[1:], np.int16)
        return super()._labels(case)


class UnlabelledSource(WrappedSource):
    """Lesion-free cases of another source, in the intensities of training cases.

    Their records, which the guard compares, are those of the cases as they are read.

    Attributes:
        has_maps: whether it has label maps.
        vouched: whether the user says that it shows no lesion.
        left_out: cases with a lesion in their label maps.
    """

    def __init__(
        self,
        base: ConditionSource,
        own: CaseSource,
        lesions: Collection[int],
        *,
        vouched: bool = False,
    ) -> None:
        super().__init__(base)
        self.vouched = vouched
        self.base: ConditionSource = base
        self.own, self.lesions = own, tuple(lesions)
        self.has_maps = bool(base.base.schema.foreground)

    @cached_property
    def left_out(self) -> frozenset[str]:
        """Read all label maps, once."""
        if not self.has_maps:
            return frozenset()
        return frozenset(case for case in self.base.train_ids if self._may_show_lesion(case))

    def _may_show_lesion(self, case_id: str) -> bool:
        labels = self.base.load(case_id).labels
        shown = (*self.lesions, *[v for v in (self.schema.ignore,) if v is not None])
        return labels is not None and bool(mask_of(labels, shown).any())

    @property
    def train_ids(self) -> tuple[str, ...]:
        """Cases without a lesion."""
        return tuple(case for case in self.base.train_ids if case not in self.left_out)

    def header(self, case_id: str) -> CaseHeader:
        """Header of a case, which has no class."""
        return replace(self.base.header(case_id), label_class=None)

    def load(self, case_id: str) -> Case:
        """Read one case; its intensities are those of training cases."""
        case = self.base.load(case_id)
        return replace(case, image=self.alignment.applied(case.image), label_class=None)

    @cached_property
    def alignment(self) -> IntensityAlignment:
        """How intensities become those of training cases; found when it is first read."""
        scans = map(self.base.load, some(self.train_ids, COMPARED))  # one after the other
        own = map(self.own.load, some(self.own.train_ids, COMPARED))
        lesions = self.lesions
        return IntensityAlignment.of(_levels(scans, lesions), _levels(own, lesions))

    @cached_property
    def marked(self) -> MarkedSource:
        """All of the scans, with the labels of their maps."""
        if not self.has_maps:
            where = f"{self.request.kind}:{self.request.where}"
            raise UsageFault(
                "conditions.scans-without-label-maps",
                f"--unlabelled {where}: has no label maps, expected those of a first training for "
                "--self-train; make them with gansynth predict RESULT IMAGES --sure 0.9 -o DIR, "
                "and have them read (--unlabelled-read masks=DIR; of volumes, label=...)",
            )
        return MarkedSource(self)

    def __str__(self) -> str:
        """Return in words what there is, and how intensities were before and are after."""
        people = {self.header(case_id).subject for case_id in self.train_ids}
        if self.has_maps:
            lesions = f"{len(self.left_out)} with a lesion left out"
        else:
            why = "by --lesion-free" if self.vouched else "for they have no label maps"
            lesions = f"taken as free of lesions, {why}"
        channels = self.alignment.describe(self.schema.channels)
        where = f"{self.request.kind}:{self.request.where}"
        counted = f"{len(self.train_ids)} scan(s) of {len(people)} subject(s), {lesions}"
        return f"--unlabelled {where}: {counted}; {channels}"


class MarkedSource(UnlabelledSource):
    """Scans with the labels that their maps hold, for ``--self-train``."""

    def __init__(self, scans: UnlabelledSource) -> None:
        super().__init__(scans.base, scans.own, scans.lesions)
        self._with_lesion = len(scans.left_out)
        if scans.train_ids:  # by one estimate, so that a scan is the same in both
            self.alignment = scans.alignment

    @property
    def train_ids(self) -> tuple[str, ...]:
        """All cases: one without a lesion teaches, too."""
        return self.base.train_ids

    def __str__(self) -> str:
        """Return in words what there is."""
        return (
            f"--self-train: {len(self.train_ids)} scan(s) as samples, with the labels of their "
            f"maps; {self._with_lesion} with a lesion or an unsure place"
        )


@dataclass(frozen=True)
class IntensityAlignment:
    """Intensities of scans and of training cases, each channel's at ``RANKS`` of their bodies.

    Attributes:
        before, after: float64 (C, ranks) of scans and of training cases, their medians.
        outside: float64 (2, C), of voxels beyond a body that have one value: of scans, of training
            cases.
        differ: bool (C,), channels that differ by more than training cases do among themselves.
    """

    before: Matrix
    after: Matrix
    outside: Matrix
    differ: tuple[bool, ...]

    @classmethod
    def of(cls, scans: tuple[Matrix, Matrix], own: tuple[Matrix, Matrix]) -> IntensityAlignment:
        """Compare the levels of two sets of cases, see ``_levels``."""
        (scan_levels, scan_outside), (own_levels, own_outside) = scans, own
        before, after = np.median(scan_levels, axis=0), np.median(own_levels, axis=0)
        outside = np.stack([np.median(scan_outside, axis=0), np.median(own_outside, axis=0)])
        width = after[:, WIDTH][:, -1] - after[:, WIDTH][:, 0]
        usual = np.maximum(np.abs(own_levels - after).max(axis=2).max(axis=0), NEAR * width)
        differ = np.abs(before - after).max(axis=1) > usual
        return cls(before, after, outside, tuple(differ.tolist()))

    def applied(self, image: FloatArray) -> FloatArray:
        """Return an image (C, D, H, W) or (C, H, W) in the intensities of training cases."""
        if not any(self.differ):
            return image
        out = image.copy()
        for channel in np.flatnonzero(self.differ).tolist():
            values = image[channel]
            out[channel] = self._mapped(values, channel)
            # What is beyond a masked body lies anywhere in the range of intensities.
            beyond = values == _outside(values)
            out[channel][beyond] = self.outside[1, channel]
        return out

    def _mapped(self, values: FloatArray, channel: int) -> FloatArray:
        before, after = self.before[channel], self.after[channel]
        ends = [0, -1]
        rises = (after[-1] - after[0]) / max(before[-1] - before[0], 1e-6)
        inner = np.interp(values, before, after)
        low, high = before[ends]
        beyond = np.minimum(values - low, 0) + np.maximum(values - high, 0)
        return np.asarray(inner + rises * beyond, np.float32)

    def describe(self, channels: Iterable[str]) -> str:
        """Return in words how each channel was, and is."""
        texts = []
        for number, name in enumerate(channels):
            before, after = _spelt(self.before[number]), _spelt(self.after[number])
            done = "brought to theirs" if self.differ[number] else "alike, left as they are"
            texts.append(f"{name} {before} (5, 50, 95 % of bodies), training cases {after}: {done}")
        return "; ".join(texts)


def _spelt(levels: Matrix) -> str:
    """Return a channel's values at 5, 50 and 95 % of bodies, as text."""
    return "/".join(f"{value:.3g}" for value in levels[[1, 4, 7]])


def _levels(cases: Iterable[Case], lesions: Collection[int]) -> tuple[Matrix, Matrix]:
    """Return intensities in bodies (N, C, ranks), and the value outside them (N, C)."""
    inside, outside = [], []
    for case in cases:
        steps = [slice(None, None, max(1, n // CELLS)) for n in case.image.shape[1:]]
        image = case.image[(slice(None), *steps)]
        body = shown_body(image, None if case.labels is None else case.labels[tuple(steps)])
        if case.labels is not None and lesions:
            bare = body & ~mask_of(case.labels[tuple(steps)], tuple(lesions))
            body = bare if bare.any() else body
        inside.append(np.quantile(image[:, body], RANKS, axis=1).T)
        outside.append([_outside(channel) for channel in image])
    return np.stack(inside), np.array(outside, np.float64)


def _outside(channel: FloatArray) -> float:
    """Return the value of the corners of an image, as of air or of what was masked."""
    corners = channel[np.ix_(*[[0, -1]] * channel.ndim)]
    values, counts = np.unique(corners, return_counts=True)
    return float(values[counts.argmax()])
