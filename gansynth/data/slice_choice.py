"""Choose the slices of a volume, and their classes, by its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case
from gansynth.core.source import CaseSource
from gansynth.data.cache import PatchSource
from gansynth.data.grid import ORIENTATION
from gansynth.data.slice_options import AXIS, SIDES, SliceOptions
from gansynth.runtime.errors import DataFault, UsageFault

WITHOUT, WITH = "without", "with"
NEITHER = -1  # number of a slice of too little foreground to be of a class

Numbers = npt.NDArray[np.int64]


class SliceChoice:
    """The slices that ``slices:`` takes of each volume, cached, and their classes."""

    def __init__(
        self, inner: CaseSource, options: SliceOptions, volume: Callable[[str], Case]
    ) -> None:
        self._inner = inner
        self._options = options
        self._axis = AXIS[options.plane]
        self._volume = volume
        self._indices: dict[str, list[int]] = {}
        self._counts: dict[str, Numbers] = {}
        self._refuse_contradictions()

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        if self._options.classes is None:
            return ()
        if self._options.classes == "foreground":
            return (WITHOUT, WITH)
        schema = self._inner.schema
        names = {value: name for name, value in schema.labels.items()}
        foreground = tuple(names[value] for value in schema.foreground)
        return foreground if self._options.foreground == WITH else (WITHOUT, *foreground)

    def indices(self, case: str) -> list[int]:
        """Indices along the array's axis of the requested slices, increasing."""
        if case not in self._indices:
            options = self._options
            length = self._inner.shape(case)[self._axis]
            chosen: Iterable[int] = range(length)
            if options.slices is not None:
                chosen = options.slices.of(length)
            if options.count_from == SIDES[options.plane][1]:
                chosen = sorted(length - 1 - number for number in chosen)
            if options.foreground != "any":
                shows, target = self.shows(case), int(options.foreground == WITH)
                chosen = [i for i in chosen if shows[i] == target]
            elif options.classes is not None:
                shows = self.shows(case)
                chosen = [i for i in chosen if shows[i] != NEITHER]
            self._indices[case] = list(chosen)
        return self._indices[case]

    def label_class(self, case: str, index: int) -> int | None:
        """Number of a slice's class; None without classes, or if it has none."""
        if not self.classes:
            return None
        shows = int(self.shows(case)[index])
        if shows < 1:
            return self.classes.index(WITHOUT) if shows == 0 and WITHOUT in self.classes else None
        if self._options.classes == "foreground":
            return self.classes.index(WITH)
        largest = int(self.counts(case)[:, index].argmax())
        return largest + len(self.classes) - len(self._inner.schema.foreground)

    def shows(self, case: str) -> Numbers:
        """Of each slice of a volume: 1 with foreground, 0 without, ``NEITHER``."""
        total = self.counts(case).sum(axis=0)
        shows = np.where(total >= self._options.min_foreground, 1, NEITHER)
        return np.where(total == 0, 0, shows)

    def counts(self, case: str) -> Numbers:
        """Voxels of each foreground label in each slice: (V, slices); DataFault: no labels."""
        if case not in self._counts:
            self._counts[case] = self._counted(case)
        return self._counts[case]

    def _counted(self, case: str) -> Numbers:
        values = self._inner.schema.foreground
        counts = np.zeros((len(values), self._inner.shape(case)[self._axis]), np.int64)
        if self._axis == 0 and isinstance(self._inner, PatchSource):
            planes = self._inner.outline(case).planes  # which has them without the image
            if planes is not None:
                for value, row in zip(planes.values, planes.counts, strict=True):
                    counts[[v == value for v in values]] = row
                return counts
        labels = self._volume(case).labels
        if labels is None:
            raise DataFault(
                f"{self._inner.name}: case {case!r} has no labels, expected them with --read "
                f"{self._asks}; leave that out, and choose slices by number: --read slices=40-110"
            )
        across = tuple(axis for axis in range(3) if axis != self._axis)
        for number, value in enumerate(values):
            counts[number] = (labels == value).sum(axis=across)
        return counts

    # -- what does not go together ---------------------------------------------------------------

    @property
    def _asks(self) -> str:
        """The option that needs labels of slices; empty if none does."""
        if self._options.foreground != "any":
            return f"foreground={self._options.foreground}"
        return "" if self._options.classes is None else f"classes={self._options.classes}"

    def _refuse_side(self) -> None:
        """Refuse to count from a side that the plane does not have, or that is unknown."""
        side, plane = self._options.count_from, self._options.plane
        if side == "array":
            return
        if side not in SIDES[plane]:
            raise UsageFault(
                f"--read count_from={side}: no side of {plane} slices, expected "
                f"{' or '.join(SIDES[plane])}"
            )
        if self._inner.host.get("orientation") != ORIENTATION:
            raise UsageFault(
                f"--read count_from={side}: {self._inner.name} does not say which way its arrays "
                "run, expected volumes as their files hold them (nifti:, msd:). "
                "Or count as the arrays run: --read count_from=array"
            )

    def _refuse_contradictions(self) -> None:
        self._refuse_side()
        options = self._options
        by_what, only = options.classes, options.foreground
        if (by_what == "foreground" and only != "any") or (by_what and only == WITHOUT):
            raise UsageFault(
                f"--read classes={by_what}: with --read foreground={only} all slices are of one "
                "class, expected several; leave one of the two out"
            )
