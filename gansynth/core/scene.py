"""What edits and filters see of the training cases: a pool of them, and the case at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np

from gansynth.core.body_mask import shown_body
from gansynth.core.geometry import Mask
from gansynth.core.schema import OUTSIDE, Case, LabelArray, Schema, replace_ignored
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space

T = TypeVar("T")


class CaseReader(Protocol):
    """Reads cases of a source, and may keep some at hand."""

    source: CaseSource

    def __call__(self, case_id: str) -> Case:
        """A case in its source's voxels."""

    @property
    def at_hand(self) -> frozenset[str]:
        """Ids of the cases in memory."""


class CropSource(Protocol):
    """Cuts training cases in the generator's space."""

    space: Space

    @property
    def cache(self) -> CaseReader:
        """Reads whole cases."""

    def cut(self, case_id: str, rng: np.random.Generator) -> Case:
        """One case at a drawn place of the generator's space."""


class CasePool(Protocol):
    """The training cases of a run, of which ``ids``, sorted, can be borrowed from."""

    source: CaseSource
    space: Space
    schema: Schema
    cache: CaseReader
    ids: tuple[str, ...]

    def uncut(self, case_id: str, slice_index: int | None = None) -> Case:
        """A whole case in the generator's voxels and intensities; of a space of slices, one."""

    def label_map(self, case_id: str) -> LabelArray:
        """Own foreground of a whole case in the generator's voxels, int16."""

    def body(self, case: Case) -> Mask:
        """What a training case's image shows of a body: bool (D, H, W) or (H, W)."""

    def others(self, subject: str) -> tuple[str, ...]:
        """Cases of other people; all cases if there is nobody else."""

    def learnt(self, what: str, learn: Callable[[CasePool], T]) -> T:
        """What is learnt from the training cases, once: ``learn(pool)``, kept under a name."""


@dataclass(frozen=True)
class Scene:
    """Where an edit is applied.

    ``case``: as the generator has it, before any edit, without ignore values. ``room``: cases that
    can be borrowed from. ``seen``: of the body that the whole case shows what the scene has; None
    where the scene is all there is.
    """

    case: Case
    placement: Placement
    shape: tuple[int, ...]
    index: int
    room: CasePool
    turn: int | None = None
    seen: Callable[[], Mask] | None = None

    @property
    def labels(self) -> LabelArray:
        """Of the case, before any edit."""
        assert self.case.labels is not None, "conditions are drawn of labelled cases"
        return self.case.labels

    @cached_property
    def body(self) -> Mask:
        """Where foreground may lie: in the body that the image shows, and nowhere outside."""
        return body_of(self.case, self.seen)


def own_labels(case: Case, schema: Schema) -> Case:
    """A case with its own labels alone, none of them the ignore value."""
    case = case.own
    if case.labels is None:
        return case
    return replace(case, labels=replace_ignored(case.labels, schema))


def body_of(case: Case, seen: Callable[[], Mask] | None = None) -> Mask:
    """The body in a case, bool: what its labels do not call outside, else what its image shows."""
    if case.labels is None:
        return shown_body(case.image) if seen is None else seen()
    body: Mask = case.labels != OUTSIDE
    if body.all() or not body.any():
        body = shown_body(case.image) if seen is None else seen()
    return np.asarray(body & (case.labels != OUTSIDE))
