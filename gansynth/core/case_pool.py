"""The training cases as edits and filters see them: a pool of cases, and the current one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import shown_body
from gansynth.core.case_store import Arrays, kept_in
from gansynth.core.geometry import bounding_box, unpacked_mask
from gansynth.core.kept import Kept
from gansynth.core.schema import OUTSIDE, Case, LabelArray, Mask, Schema, known_labels
from gansynth.core.source import CaseSource, store_as_read
from gansynth.core.space import Placement, Space
from gansynth.runtime.errors import IntegrityFault

T = TypeVar("T")
Box = tuple[slice, ...]
MAPS, MASKS = 1 << 29, 1 << 28  # sizes of a pool's caches of label maps and masks, in bytes


class PlacedCase(NamedTuple):
    """A place in a whole case (``origin``), and in the part that is read (``placement``)."""

    case: Case
    placement: Placement
    shape: tuple[int, ...]
    origin: Placement


class CaseReader(Protocol):
    """Reads any case of a source, and may cache some."""

    source: CaseSource

    def __call__(self, case_id: str) -> Case:
        """Return a case in its source's voxels."""

    def content(self, case_id: str) -> str:
        """Return the hash of what a case's files hold; see ``case_content``."""

    def place(self, case_id: str, space: Space, rng: np.random.Generator) -> PlacedCase:
        """Draw a place in a case."""


CaseCheck = Callable[[str, CaseReader], None]


class TrainingCases:
    """The training cases of a source, which plugins get in place of the source.

    No other case can be read: any other id is an IntegrityFault. No attribute leads to the source.

    Args:
        ids: which training cases; None for all of the source's.
        check: called before a case is read for the first time; raises if it may not be used.

    Attributes:
        name: of the data set.
        schema: of the cases.
        ids: of the training cases, sorted.
        seen: ids of those that were read; they are in the lineage of what is made.
        refused: other ids that were asked for.
    """

    def __init__(
        self,
        reader: CaseReader,
        ids: Sequence[str] | None = None,
        check: CaseCheck | None = None,
    ) -> None:
        source = reader.source
        self.name, self.schema = source.name, source.schema
        self.ids = tuple(sorted(source.train_ids if ids is None else ids))
        self.seen: set[str] = set()
        self.refused: set[str] = set()
        self._subjects: dict[str, str] = {}
        self._admitted, self._check = frozenset(self.ids), check
        _READERS[self] = reader

    def __call__(self, case_id: str) -> Case:
        """Return a case in its source's voxels."""
        self.admit(case_id)
        return _READERS[self](case_id)

    def place(self, case_id: str, space: Space, rng: np.random.Generator) -> PlacedCase:
        """Draw a place in a case, and read the case or a part of it."""
        self.admit(case_id)
        return _READERS[self].place(case_id, space, rng)

    def kept(self, case_id: str, what: str, make: Callable[[], Arrays]) -> Arrays:
        """Return arrays that depend on a case alone, by name: made once, and kept on disk.

        ``what``: the name of a file; it tells of everything else that they depend on.
        """
        self.admit(case_id)
        return kept_in(store_as_read(_READERS[self].source, case_id), what, make)

    def mapped(
        self, case_id: str, what: str, how: str, make: Callable[[], Arrays]
    ) -> Arrays | None:
        """Return larger ones as maps of files; None where nothing can be kept.

        ``how``: everything else that they depend on; others of that name are removed.
        """
        self.admit(case_id)
        store = store_as_read(_READERS[self].source, case_id)
        return None if store is None else store.read_as(how).mapped(what, make)

    def subject(self, case_id: str) -> str:
        self._refuse_others(case_id)
        if case_id not in self._subjects:
            self._subjects[case_id] = _READERS[self].source.header(case_id).subject
        return self._subjects[case_id]

    def admit(self, case_id: str) -> None:
        """Check a case, and note that it is read."""
        self._refuse_others(case_id)
        if case_id not in self.seen:
            if self._check is not None:
                self._check(case_id, _READERS[self])
            self.seen.add(case_id)

    def _refuse_others(self, case_id: str) -> None:
        if case_id not in self._admitted:
            self.refused.add(case_id)
            raise IntegrityFault(
                "case-pool.not-a-training-case",
                f"{self.name}: case {case_id!r} is asked for, expected one of its "
                f"{len(self.ids)} training cases: edits, filters and generators read no other",
            )


_READERS: WeakKeyDictionary[TrainingCases, CaseReader] = WeakKeyDictionary()
"""Kept here, and not by the cases: what a plugin is handed holds no reference to a reader, and so
to no source with its held-out cases."""


class CropSource(Protocol):
    """Cuts training cases in the generator's space."""

    space: Space

    def cut(self, case_id: str, rng: np.random.Generator) -> Case:
        """Cut a case at a random place in the generator's space."""


class CasePool:
    """Training cases of a run that edits may borrow from, in the generator's space.

    Attributes:
        cases: the whole training cases.
        space: the generator's.
        schema: of the generator's space.
        ids: cases to borrow from, sorted; all training cases by default.
    """

    def __init__(
        self, cases: TrainingCases, space: Space, ids: Sequence[str] | None = None
    ) -> None:
        self.cases, self.space = cases, space
        self.schema: Schema = space.generator_schema(cases.schema)
        self.ids = cases.ids if ids is None else tuple(sorted(ids))
        self._learnt: dict[str, Any] = {}
        self._masks = Kept[npt.NDArray[np.uint8]](MASKS, lambda bits: bits.nbytes)
        self._maps = Kept[tuple[tuple[int, ...], Box, LabelArray]](MAPS, lambda at: at[2].nbytes)

    def cut(self, case_id: str, placement: Placement) -> Case:
        """Cut a case as the generator sees it; see ``own_labels``."""
        return own_labels(self.space.to_generator(self.cases(case_id), placement), self.schema)

    def uncut(self, case_id: str, slice_index: int | None = None) -> Case:
        """Return a whole case, or slice, in the generator's voxels and intensities."""
        case = self.space.uncut(self.cases(case_id), slice_index)
        return own_labels(case, self.schema)

    def label_map(self, case_id: str) -> LabelArray:
        """Return the case's own foreground in the generator's voxels, int16, uncropped.

        Cached as the bounding box alone, since images would take too much memory.
        """

        def find() -> tuple[tuple[int, ...], Box, LabelArray]:
            labels = self._whole_labels(case_id)
            box = bounding_box(labels > 0)
            return labels.shape, box, np.maximum(labels[box], 0)

        shape, box, labels = self._maps(case_id, find)
        whole = np.zeros(shape, np.int16)
        whole[box] = labels
        return whole

    def body(self, case: Case) -> Mask:
        """Return the visible body of a training case, computed once and cached as bits.

        The space must have only one placement for the case.
        """

        def find(_: CasePool) -> npt.NDArray[np.uint8]:
            return np.packbits(shown_body(case.image, case.labels))

        shape = case.image.shape[1:]
        return unpacked_mask(self.learnt(f"body of {case.id}", find), shape)

    def mask(self, key: Hashable, shape: tuple[int, ...], find: Callable[[], Mask]) -> Mask:
        """Return a mask of a shape, found anew where it is not kept, as bits, by its key."""
        bits = self._masks(key, lambda: np.packbits(find()))
        return unpacked_mask(bits, shape)

    def _whole_labels(self, case_id: str) -> LabelArray:
        case = own_labels(self.cases(case_id), self.schema)
        if case.labels is None:
            case = replace(case, labels=np.zeros(case.image.shape[1:], np.int16))
        if self.space.grid == "resample":
            bare = replace(case, image=case.image[:0], boxes=None)
            case = replace(self.space, window=None).to_generator(bare)
        assert case.labels is not None
        return case.labels

    def others(self, subject: str) -> tuple[str, ...]:
        """Return the cases of other subjects; all cases if there is no other subject."""
        return tuple([i for i in self.ids if self.cases.subject(i) != subject]) or self.ids

    def learnt(self, key: str, learn: Callable[[CasePool], T]) -> T:
        """Return statistics of the training cases, computed once: ``learn(pool)``, by name."""
        if key not in self._learnt:
            self._learnt[key] = learn(self)
        value: T = self._learnt[key]
        return value


@dataclass(frozen=True)
class CaseContext:
    """The place where an edit is applied.

    ``case``: as the generator sees it, unedited, without ignore values. ``case_pool``: cases to
    borrow from. ``find_body``: finds the body of the whole case within this place; None where the
    scene is the whole case. ``emptied``: bool, where lesions were taken out; None if none was.
    ``key``: of scenes with equal keys, images, labels and bodies are equal; None if it has none.
    ``whole_body``: finds the body of the whole case, of one that is not in the pool.
    """

    case: Case
    placement: Placement
    shape: tuple[int, ...]
    index: int
    case_pool: CasePool
    turn: int | None = None
    find_body: Callable[[], Mask] | None = None
    emptied: Mask | None = None
    key: Hashable = None
    whole_body: Callable[[], Mask] | None = None

    @property
    def labels(self) -> LabelArray:
        """Labels of the unedited case."""
        assert self.case.labels is not None, "conditions are drawn of labelled cases"
        return self.case.labels

    @cached_property
    def schema(self) -> Schema:
        """Schema of the case in the generator's space, with the size of its own voxels."""
        return self.case_pool.space.schema_of(self.case_pool.cases.schema, self.shape)

    @cached_property
    def body(self) -> Mask:
        """Where foreground may lie: within the visible body and never outside."""
        return body_of(self.case, self.find_body)


def own_labels(case: Case, schema: Schema) -> Case:
    """Return a case with its own labels alone, and the ignore value as a mask of its own."""
    ignored = None
    if case.labels is not None and schema.ignore is not None:
        ignored = case.labels == schema.ignore
    case = case.own
    return case if ignored is None else replace(known_labels(case, schema), ignored=ignored)


def annotated(case: Case, mask: Mask) -> Mask:
    """Return the voxels of a mask, (D, H, W) or (H, W), where a case's labels are known."""
    return mask if case.ignored is None else mask & ~case.ignored


def body_of(case: Case, find_body: Callable[[], Mask] | None = None) -> Mask:
    """Return the body in a case, bool: what its image shows where it is not labelled outside.

    ``find_body`` finds it for crops, in which it cannot be seen.
    """
    body = shown_body(case.image, case.labels) if find_body is None else find_body()
    return body if case.labels is None else np.asarray(body & (case.labels != OUTSIDE))
