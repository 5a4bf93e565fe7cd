"""Sources that read parts of cases, and a cache of whole ones, up to a number of bytes."""

from __future__ import annotations

import logging
import os
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gansynth.core.case_pool import PlacedCase
from gansynth.core.foreground import ForegroundIndex
from gansynth.core.schema import Boxes, Case, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Space, cut_boxes


class PatchSource(CaseSource):
    """A source of cases that may be too large, or too many, to be held in memory."""

    @abstractmethod
    def train_bytes(self) -> int:
        """Bytes of images and labels of all training cases, as ``load`` returns them."""

    @abstractmethod
    def outline(self, case_id: str) -> ForegroundIndex:
        """Shape of a case and where its foreground lies, without reading its image."""

    @abstractmethod
    def load_part(self, case_id: str, box: Sequence[slice]) -> Case:
        """What ``load`` returns, cut to a slice (within the case) per spatial axis."""


def part_boxes(boxes: Boxes, box: Sequence[slice]) -> Boxes:
    """The parts of boxes that lie within a box, in its voxels."""
    return cut_boxes(boxes, [s.start for s in box], [s.stop - s.start for s in box])


def cut_case(case: Case, box: Sequence[slice]) -> Case:
    """The voxels of a case within a box: views of its arrays, and its boxes cut."""
    image = case.image[(slice(None), *box)]
    labels = None if case.labels is None else case.labels[tuple(box)]
    boxes = None if case.boxes is None else part_boxes(case.boxes, box)
    return replace(case, image=image, labels=labels, boxes=boxes)


log = logging.getLogger("gansynth")
READ_AGAIN = 256  # evicted cases that are read again, after which the user is warned


@dataclass(frozen=True)
class _CachedCase:
    """A case in memory; its labels are counted once, when a place is first drawn."""

    case: Case

    @property
    def nbytes(self) -> int:
        labels = self.case.labels
        return self.case.image.nbytes + (0 if labels is None else labels.nbytes)

    @cached_property
    def outline(self) -> ForegroundIndex:
        return ForegroundIndex.of(self.case)


class CaseCache:
    """Keeps the most recently used cases of a source in memory; threads may share it."""

    def __init__(self, source: CaseSource, max_bytes: int = 2 << 30) -> None:
        self.source = source
        self.max_bytes = max_bytes
        self._cases: OrderedDict[str, _CachedCase] = OrderedDict()
        self._bytes = 0
        self._gone: set[str] = set()
        self._again = 0
        self._locked = os.getpid(), threading.Lock()

    def __call__(self, case_id: str) -> Case:
        """Return a case, read from the source if it is not in memory."""
        return self._get(case_id).case

    def place(self, case_id: str, space: Space, rng: np.random.Generator) -> PlacedCase:
        """Draw a place in a case; of sources larger than the cache, only that part is read."""
        if self._in_parts is not None and space.cuts:
            outline = self._in_parts.outline(case_id)
            origin = space.place(outline, rng)
            box, placement = space.part(outline.shape, origin)
            part = self._in_parts.load_part(case_id, box)
            return PlacedCase(part, placement, outline.shape, origin)
        held = self._get(case_id)
        origin = space.place(held.outline if space.cuts else held.case, rng)
        return PlacedCase(held.case, origin, held.case.image.shape[1:], origin)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.source.name

    @property
    def schema(self) -> Schema:
        """Schema of the cases."""
        return self.source.schema

    @property
    def ids(self) -> tuple[str, ...]:
        """The training cases, sorted."""
        return self.source.train_ids

    def still_to_come(self) -> int:
        """Estimate the bytes by which the cache will grow until all training cases are read."""
        held = [case.nbytes for case in self._cases.values()]
        if self._in_parts is not None or not held:
            return 0
        absent = len(set(self.source.train_ids) - set(self._cases))
        return max(0, min(absent * sum(held) // len(held), self.max_bytes - self._bytes))

    @cached_property
    def _in_parts(self) -> PatchSource | None:
        """The source, if it reads parts and its cases do not all fit."""
        source = self.source
        if isinstance(source, PatchSource) and source.train_bytes() > self.max_bytes:
            return source
        return None

    def _get(self, case_id: str) -> _CachedCase:
        if self._locked[0] != os.getpid():  # forked, perhaps while another thread held it
            self._locked = os.getpid(), threading.Lock()
        with self._locked[1]:
            if case_id in self._cases:
                self._cases.move_to_end(case_id)
                return self._cases[case_id]
            self._tell_if_again(case_id)
            held = self._cases[case_id] = _CachedCase(self.source.load(case_id))
            self._bytes += held.nbytes
            while self._bytes > self.max_bytes and len(self._cases) > 1:
                name, gone = self._cases.popitem(last=False)
                self._gone.add(name)
                self._bytes -= gone.nbytes
            return held

    def _tell_if_again(self, case_id: str) -> None:
        """Warn once of cases (of slices: whole volumes) that are read repeatedly."""
        self._again += case_id in self._gone
        if self._again == READ_AGAIN:
            self._again += 1
            name = f"{self.source.request.kind}:{self.source.request.where}"
            log.warning(
                "%s: its cases take more than the %.3g GB of memory there is for them, so they are "
                "read again and again, which takes time; a file of them is read in parts: gansynth "
                "cache %s -o FILE.h5, then --data h5:FILE.h5",
                *(self.source.name, self.max_bytes / 1e9, name),
            )

    def __getstate__(self) -> dict[str, Any]:
        """State for a spawned worker: the source, without cached cases."""
        return {"source": self.source, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]
