"""``h5:FILE``: a cache of any source, made by ``gansynth cache``, that reads single patches.

A cache has the name, fold, record and lineage of its original source, so all guards treat it alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.findings import CheckReport, Finding
from gansynth.core.foreground import ForegroundIndex
from gansynth.core.lineage import CaseRecord, Lineage, guard_split
from gansynth.core.schema import Boxes, Case, LabelArray, Schema, content_hash
from gansynth.core.source import CaseSource, FoldSplit, OriginalCase, SourceRequest, StoredCase
from gansynth.core.space import Space
from gansynth.data.cache import PatchSource, part_boxes
from gansynth.data.h5_format import (
    CacheIndex,
    CaseEntry,
    checked,
    damaged,
    group,
    hdf5,
    open_file,
    read_index,
    unpack_planes,
)
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault


class H5Source(PatchSource):
    """A cached source. May be pickled, shared by threads, and used on both sides of a fork.

    Raises DataFault: no cache, a damaged one, or another format. Raises UsageFault: another fold,
    configuration, plans or subjects than the cache has. Raises IntegrityFault: a subject on both
    sides.
    """

    def __init__(self, request: SourceRequest) -> None:
        self.path = Path(request.where).expanduser().absolute()
        self.request = replace(request, where=str(self.path))
        self.index: CacheIndex = read_index(self.path)
        self._numbers = {entry.id: n for n, entry in enumerate(self.index.cases)}
        self._open: tuple[int, Any] | None = None
        self._refuse_other()
        self._refuse_leaks()

    # -- what it was made from -------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The original source's name."""
        return self.index.name

    @property
    def schema(self) -> Schema:
        """The original source's schema."""
        return self.index.schema

    @property
    def space(self) -> Space:
        """The original source's space, with its record."""
        return self.index.space

    @property
    def train_ids(self) -> tuple[str, ...]:
        """Training cases of the cached fold, sorted."""
        return self.index.train

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """Held-out cases of the cached fold, sorted."""
        return self.index.held_out

    @property
    def ancestors(self) -> tuple[Lineage, ...]:
        """Lineages behind the original source."""
        return self.index.ancestors

    def subject(self, case_id: str) -> str:
        """The subject a case belongs to."""
        return self._entry(case_id).subject

    def label_class(self, case_id: str) -> int | None:
        """Number of a case's class, from the index."""
        return self._entry(case_id).label_class

    def record(self, case_id: str, load: Callable[[str], Case] | None = None) -> CaseRecord:
        """Lineage record of the original case from the index; nothing is read."""
        return self._entry(case_id).record

    def content(self, case_id: str, load: Callable[[str], Case] | None = None) -> str:
        """SHA-256 of a case from the index; nothing is read."""
        return self._entry(case_id).sha256

    def _refuse_other(self) -> None:
        request, made = self.request, self.index.request
        again = f"make another cache: gansynth cache {made.get('kind')}:{made.get('where')} -o FILE"
        if request.fold != self.index.fold:
            raise UsageFault(
                f"{self.path}: --fold {request.fold}: the cache holds fold {self.index.fold}, "
                f"expected --fold {self.index.fold}; or {again} --fold {request.fold}"
            )
        for key in ("configuration", "plans", "subjects"):
            value, cached = getattr(request, key), made.get(key)
            if value is not None and value != cached:
                raise UsageFault(
                    f"{self.path}: --{key} {value}: the cache was made with {cached}; leave it "
                    f"out, or {again} --{key} {value}"
                )

    def _refuse_leaks(self) -> None:
        sides = [
            [(case, self.subject(case)) for case in ids]
            for ids in (self.train_ids, self.held_out_ids)
        ]
        guard_split(*sides, fold=self.fold, repair="correct the original, and cache it again")

    def original(self, case_id: str) -> OriginalCase:
        """Return a case from the files of the original source, which must still be there."""
        return self._original.original(case_id)

    def stored(self, case_id: str, labels: LabelArray) -> StoredCase:
        """On the grid of the original source's files; on the cache's own where they are gone."""
        try:
            return self._original.stored(case_id, labels)
        except (UsageFault, DataFault):
            return super().stored(case_id, labels)

    @cached_property
    def _original(self) -> CaseSource:
        from gansynth.data.views import open_plain

        request = SourceRequest(**self.index.request)
        return open_plain(replace(request, root=self.request.root or request.root))

    # -- reading ---------------------------------------------------------------------------------

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Refused (UsageFault): a cache holds one fold, read as its training cases say."""
        made_from = f"{self.index.request['kind']}:{self.index.request['where']}"
        raise UsageFault(
            f"{self.path}: a cache holds one fold, which cannot be split otherwise, expected "
            f"what it was made from: {made_from}"
        )

    def load(self, case_id: str) -> Case:
        """Read one case, float32 (C, D, H, W), int16 (D, H, W); DataFault if damaged."""
        entry = self._entry(case_id)
        return self.load_part(case_id, [slice(0, n) for n in entry.shape])

    def load_part(self, case_id: str, box: Sequence[slice]) -> Case:
        """Read the voxels of a case within a box, with the case's boxes cut to it."""
        entry = self._entry(case_id)
        with hdf5(self.path, f"case {case_id!r}: "):
            image = self._image(entry)[(slice(None), *box)].astype(np.float32, copy=False)
            labels = self._labels(entry)[tuple(box)] if entry.labelled else None
            boxes = None if entry.boxes is None else part_boxes(self._boxes(entry), box)
        return Case(case_id, entry.subject, image, labels, boxes, entry.label_class)

    def outline(self, case_id: str) -> ForegroundIndex:
        """Shape and foreground of a case; drawing a voxel reads one plane of the labels."""
        entry = self._entry(case_id)
        if not entry.labelled:
            return ForegroundIndex(entry.shape)
        axes = len(entry.shape)

        def read(box: tuple[slice, ...]) -> LabelArray:
            with hdf5(self.path, f"case {case_id!r}: "):
                labels: LabelArray = self._labels(entry)[box]
                return labels

        with hdf5(self.path, f"case {case_id!r}: "):
            table = self._file[f"{self._group(entry)}/planes"][()]
            if table.ndim != 2 or table.shape[1] != 1 + 2 * axes + entry.shape[0]:
                raise ValueError(f"planes is of shape {table.shape}")
        return ForegroundIndex(entry.shape, unpack_planes(table, axes), read)

    def shape(self, case_id: str) -> tuple[int, ...]:
        """Spatial shape of a case, from the index."""
        return self._entry(case_id).shape

    def train_bytes(self) -> int:
        """Bytes of all training cases as ``load`` returns them."""
        voxel = 4 * len(self.schema.channels) + 2
        return sum(int(np.prod(self.shape(case))) * voxel for case in self.train_ids)

    def _entry(self, case_id: str) -> CaseEntry:
        if case_id not in self._numbers:
            raise DataFault(
                f"{self.path}: holds no case {case_id!r}, expected one of {len(self._numbers)}, "
                f"for example {next(iter(self._numbers), None)!r}"
            )
        return self.index.cases[self._numbers[case_id]]

    def _group(self, entry: CaseEntry) -> str:
        return group(self._numbers[entry.id])

    def _image(self, entry: CaseEntry) -> Any:
        shape = (len(self.schema.channels), *entry.shape)
        return checked(self._file, f"{self._group(entry)}/image", shape, "f")

    def _labels(self, entry: CaseEntry) -> Any:
        return checked(self._file, f"{self._group(entry)}/labels", entry.shape, "i")

    def _boxes(self, entry: CaseEntry) -> Boxes:
        count = int(entry.boxes or 0)
        shape = (count, 2 * len(entry.shape))
        coords = checked(self._file, f"{self._group(entry)}/boxes", shape, "f")
        labels = checked(self._file, f"{self._group(entry)}/box_labels", (count,), "i")
        return Boxes(coords[()], labels[()])

    # -- one handle per process ------------------------------------------------------------------

    @property
    def _file(self) -> Any:
        """The open file of this process: HDF5's handles do not survive a fork."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), open_file(self.path))
        return self._open[1]

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}


def check_h5(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Check ``h5:FILE``: every chunk of every case is read."""
    fold = read_index(Path(request.where).expanduser()).fold
    source = H5Source(replace(request, fold=fold))
    findings = []
    total = len(source.index.cases)
    for done, entry in enumerate(source.index.cases):
        progress(done, total)
        try:
            case = source.load(entry.id)
            source.outline(entry.id)
            if content_hash(case.image, case.labels) != entry.stored:
                raise damaged(source.path, "other content than was cached", f"case {entry.id!r}: ")
            case.validate(source.schema)
        except GansynthError as fault:
            findings.append(Finding("error", entry.id, source.path, str(fault)))
    progress(total, total)
    return CheckReport(source.name, total, findings)
