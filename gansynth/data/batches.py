"""Real cases for training: cached, drawn by seed and step, cut in the generator's space."""

from __future__ import annotations

import logging
import os
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth.core.case_pool import PlacedCase, TrainingCases
from gansynth.core.case_store import Arrays
from gansynth.core.foreground import ForegroundIndex
from gansynth.core.lineage import CaseRecord
from gansynth.core.requests.data import CacheRequest
from gansynth.core.schema import Boxes, Case, LabelArray, Schema, known_labels
from gansynth.core.source import (
    CaseHeader,
    CaseSource,
    DecodedCase,
    case_content,
    case_record,
    store_as_read,
)
from gansynth.core.space import Space, cut_boxes
from gansynth.data.context_maps import ContextMaps
from gansynth.runtime.errors import DataFault
from gansynth.runtime.machine import cache_memory

if TYPE_CHECKING:
    from torch import Tensor

    from gansynth.core.generator import Batch, Stage


# -- sources that read parts of cases, and a cache of whole ones, up to a number of bytes ----------


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
    ignore: int | None

    @property
    def nbytes(self) -> int:
        labels = self.case.labels
        return self.case.image.nbytes + (0 if labels is None else labels.nbytes)

    @cached_property
    def outline(self) -> ForegroundIndex:
        return ForegroundIndex.of(self.case, self.ignore)


def _arrays_of(case: Case) -> Arrays:
    arrays: dict[str, npt.NDArray[Any]] = {"image": case.image}
    if case.labels is not None:
        arrays["labels"] = case.labels
    if case.boxes is not None:
        arrays |= {"coords": case.boxes.coords, "box_labels": case.boxes.labels}
    return arrays


def _case_of(case_id: str, header: CaseHeader, arrays: Arrays) -> Case:
    boxes = Boxes(arrays["coords"], arrays["box_labels"]) if "coords" in arrays else None
    labels = arrays.get("labels")
    return Case(case_id, header.subject, arrays["image"], labels, boxes, header.label_class)


class CaseCache:
    """Keeps the most recently used cases of a source in memory; threads may share it.

    One that did not fit is mapped from a file beside the cases when it is needed again.

    Args:
        max_bytes: of cases in memory; None for ``cache_memory``.
    """

    def __init__(self, source: CaseSource, max_bytes: int | None = None) -> None:
        self.source = source
        self.max_bytes = cache_memory() if max_bytes is None else max_bytes
        self._cases: OrderedDict[str, _CachedCase] = OrderedDict()
        self._bytes = 0
        self._contents: dict[str, str] = {}
        self._maps: dict[str, _CachedCase] = {}
        self._gone: set[str] = set()
        self._again = 0
        self._locked = os.getpid(), threading.Lock()

    def __call__(self, case_id: str) -> Case:
        """Return a case, read from the source if it is not in memory."""
        return self._get(case_id).case

    def decode(self, case_id: str) -> DecodedCase:
        """Decode a case, and keep it as ``load`` returns it: so it is read once for both."""
        decoded = self.source.decode(case_id)
        with self._lock:
            if case_id not in self._cases:
                self._keep(case_id, decoded.prepare())
        return decoded

    def content(self, case_id: str) -> str:
        """Return the hash of what a case's files hold; the case is kept for use."""
        if case_id not in self._contents:
            self._contents[case_id] = case_content(self.source, case_id, self.decode)
        return self._contents[case_id]

    def record(self, case_id: str) -> CaseRecord:
        """Return a case's lineage record; the case is kept for use."""
        record = case_record(self.source, case_id, self.decode)
        self._contents[case_id] = record.sha256
        return record

    def part(self, case_id: str, box: Sequence[slice]) -> Case:
        """Return the voxels of a case in a box, of sources larger than the cache read alone."""
        if self._in_parts is not None:
            return self._in_parts.load_part(case_id, box)
        return cut_case(self._get(case_id).case, box)

    def place(self, case_id: str, space: Space, rng: np.random.Generator) -> PlacedCase:
        """Draw a place in a case; of sources larger than the cache, only that part is read."""
        if self._in_parts is not None and space.cuts:
            outline = self._in_parts.outline(case_id)
            origin = space.place(outline, rng)
            box, placement = space.part(outline.shape, origin)
            part = self.part(case_id, box)
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
        with self._lock:
            if case_id in self._cases:
                self._cases.move_to_end(case_id)
                return self._cases[case_id]
            if case_id in self._gone:
                mapped = self._maps.get(case_id) or self._mapped(case_id)
                if mapped is not None:
                    return mapped
                self._tell_if_again()
            # What it has no room beside goes before it is read, not after.
            self._make_room(min([held.nbytes for held in self._cases.values()], default=0))
            return self._keep(case_id, self.source.load(case_id))

    def _mapped(self, case_id: str) -> _CachedCase | None:
        """Return a case whose arrays are maps of files, which take no memory of this process."""
        store = store_as_read(self.source, case_id)
        if store is None:
            return None
        arrays = store.mapped("loaded", lambda: _arrays_of(self.source.load(case_id)))
        if arrays is None:
            return None
        case = _case_of(case_id, self.source.header(case_id), arrays)
        self._maps[case_id] = _CachedCase(case, self.source.schema.ignore)
        return self._maps[case_id]

    @property
    def _lock(self) -> threading.Lock:
        if self._locked[0] != os.getpid():  # forked, perhaps while another thread held it
            self._locked = os.getpid(), threading.Lock()
        return self._locked[1]

    def _keep(self, case_id: str, case: Case) -> _CachedCase:
        held = _CachedCase(case, self.source.schema.ignore)
        self._make_room(held.nbytes)
        self._cases[case_id] = held
        self._bytes += held.nbytes
        return held

    def _make_room(self, size: int) -> None:
        """Let go of the cases that were not used for longest."""
        while self._cases and self._bytes + size > self.max_bytes:
            name, gone = self._cases.popitem(last=False)
            self._gone.add(name)
            self._bytes -= gone.nbytes

    def _tell_if_again(self) -> None:
        """Warn once of cases (of slices: whole volumes) that are read repeatedly."""
        self._again += 1
        if self._again == READ_AGAIN:
            self._again += 1
            log.warning(
                "%s: its cases take more than the %.3g GB of memory there is for them, so they are "
                "read again and again, which takes time; a file of them is read in parts: %s, then "
                "--data h5:cases.h5",
                self.source.name,
                self.max_bytes / 1e9,
                self.source.request.command(CacheRequest, out="cases.h5"),
            )

    def __getstate__(self) -> dict[str, Any]:
        """State for a spawned worker: the source, without cached cases."""
        return {"source": self.source, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


# -- batches ---------------------------------------------------------------------------------------


RequestedMaps = Callable[
    [Case, PlacedCase, np.random.SeedSequence], tuple[LabelArray, LabelArray | None]
]
"""(case in the generator's space, where it was cut, seed) -> edited label map, and context."""
MOST_REFUSED = 1000  # draws without an accepted case, after which training stops
WHOLE = 2 << 30
"""Bytes of whole cases cached in the generator's space: resampling them takes a second."""
ASKED = 0x61736B  # separates the random numbers of edits from those of places


@dataclass(eq=False)
class CaseBatches:
    """Batches of real training cases; the same seed, step and number give the same sample.

    Several threads may ask for batches at once.
    ``context`` makes context channels of a case. ``accepts`` says whether to train on a case at its
    place; if not, another is drawn. ``asked`` makes the label map of a synthetic sample. ``scans``
    are those of another site.
    """

    cases: CaseCache | TrainingCases
    space: Space
    _: KW_ONLY
    seed: int = 0
    context: Callable[[Case], LabelArray | None] | None = None
    accepts: Callable[[Case], bool] | None = None
    asked: RequestedMaps | None = None
    scans: CaseBatches | None = None

    def __post_init__(self) -> None:
        self._whole: dict[str, tuple[PlacedCase, Case]] = {}
        self._bytes = 0
        mapped = self.cases.mapped if isinstance(self.cases, TrainingCases) else None
        self._maps = None if self.context is None else ContextMaps(self.space, self.context, mapped)

    def __call__(self, step: int, stage: Stage, which: range) -> Batch:
        """Return real cases of one step, on the CPU: image (B, C, D, H, W), labels (B, D, H, W).

        ``stage``: not used; a generator's ``prepare`` resizes the batch. ``which``: numbers of the
        samples within the step's whole batch.
        """
        accepted = [self._accepted(step, number) for number in which]
        drawn, cases = [placed for placed, _ in accepted], [case for _, case in accepted]
        batch = batch_of(cases)
        batch.context = _stacked([self._context(*each) for each in accepted])
        batch.padding = self._padding(drawn)
        batch.asked, batch.asked_context = self._asked(step, which, drawn, cases)
        batch.scans = None if self.scans is None else self.scans(step, stage, which).image
        return batch

    def _asked(
        self, step: int, which: range, drawn: Sequence[PlacedCase], cases: Sequence[Case]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return label maps for synthetic samples, and their context."""
        import torch

        if self.asked is None:
            return None, None
        maps_of = [
            self.asked(case, placed, np.random.SeedSequence((self.seed, step, number, ASKED)))
            for number, placed, case in zip(which, drawn, cases, strict=True)
        ]
        labels = torch.from_numpy(np.stack([pair[0] for pair in maps_of]).astype(np.int64))
        return labels, _stacked([context for _, context in maps_of])

    def _context(self, drawn: PlacedCase, case: Case) -> LabelArray | None:
        if self._maps is None:
            return None
        read = partial(self.cases, case.id)
        return self._maps(case, drawn.origin, drawn.shape, read)

    def _accepted(self, step: int, number: int) -> tuple[PlacedCase, Case]:
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, step, number)))
        ids = self.cases.ids
        for _ in range(MOST_REFUSED):
            placed, case = self._brought(ids[int(rng.integers(len(ids)))], rng)
            if self.accepts is None or self.accepts(case):
                return placed, case
        raise DataFault(
            "batches.every-case-refused",
            f"{self.cases.name}: {MOST_REFUSED} training cases drawn and none of them is "
            "one this generator can learn from, expected some; look at them with gansynth check",
        )

    def cut(self, case_id: str, rng: np.random.Generator) -> Case:
        """Cut one case at a drawn place of the generator's space."""
        return self._brought(case_id, rng)[1]

    def _brought(self, case_id: str, rng: np.random.Generator) -> tuple[PlacedCase, Case]:
        """Place and cut a case; whole cases are cached in the generator's space."""
        if self.space.cuts:
            placed = self.cases.place(case_id, self.space, rng)
            return placed, self._cut(placed)
        cached = self._whole.get(case_id)
        if cached is not None:
            return cached
        placed = self.cases.place(case_id, self.space, rng)
        case = self._cut(placed)
        entry = placed._replace(case=case), case  # the case as it was read may go
        if self._bytes + case.image.nbytes <= WHOLE and case_id not in self._whole:
            self._bytes += case.image.nbytes
            self._whole[case_id] = entry
        return entry

    def _cut(self, drawn: PlacedCase) -> Case:
        placed = self.space.to_generator(drawn.case, drawn.placement)
        return known_labels(placed, self.cases.schema)

    def _padding(self, drawn: Sequence[PlacedCase]) -> Tensor | None:
        import torch

        masks = [self.space.padding(d.shape, d.origin) for d in drawn]
        if all(mask is None for mask in masks):
            return None
        none = np.zeros(self.space.size, np.bool_)
        return torch.from_numpy(np.stack([none if m is None else m for m in masks]))


def batch_of(
    cases: Sequence[Case], context: Callable[[Case], LabelArray | None] | None = None
) -> Batch:
    """Stack cases of one size to a batch on the CPU, with the fields that all of them have."""
    import torch

    from gansynth.core.generator import Batch

    image = torch.from_numpy(np.stack([c.image for c in cases]))
    labelled = [c.labels for c in cases if c.labels is not None]
    labels = None
    if len(labelled) == len(cases):
        labels = torch.from_numpy(np.stack(labelled).astype(np.int64))
    made = _stacked(list(map(context, cases))) if context else None
    numbers = [c.label_class for c in cases if c.label_class is not None]
    classes = torch.tensor(numbers) if len(numbers) == len(cases) else None
    boxes, kinds = stack_boxes([c.boxes for c in cases], image.ndim - 2)
    return Batch(image, labels, made, classes=classes, boxes=boxes, box_labels=kinds)


def _stacked(maps: Sequence[LabelArray | None]) -> Tensor | None:
    """Stack the maps there are, int64 (B, D, H, W); None without any."""
    import torch

    there = [each for each in maps if each is not None]
    return torch.from_numpy(np.stack(there).astype(np.int64)) if there else None


def stack_boxes(boxes: Sequence[Boxes | None], axes: int) -> tuple[Tensor | None, Tensor | None]:
    """Stack lists of boxes to tensors, padded to the longest; None if a case has no list.

    Returns float32 (B, M, 2 * axes), padded with 0, and int64 (B, M), padded with -1; M >= 1.
    """
    import torch

    listed = [b for b in boxes if b is not None]
    if not listed or len(listed) < len(boxes):
        return None, None
    most = max([1] + [len(b.labels) for b in listed])
    coords = torch.zeros(len(listed), most, 2 * axes)
    labels = torch.full((len(listed), most), -1)
    for row, case_boxes in enumerate(listed):
        count = len(case_boxes.labels)
        coords[row, :count] = torch.from_numpy(case_boxes.coords)
        labels[row, :count] = torch.from_numpy(case_boxes.labels.astype(np.int64))
    return coords, labels
