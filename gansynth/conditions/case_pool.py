"""Where an edit is applied, and the cases it may borrow from."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import shown_body
from gansynth.core.geometry import Mask, bounding_box
from gansynth.core.scene import CasePool, CaseReader
from gansynth.core.schema import Case, LabelArray, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.cache import CaseCache

T = TypeVar("T")


MAPS = 1 << 29
"""Bytes of label maps that a room keeps at hand."""


@dataclass(frozen=True)
class _Map:
    """A label map of foreground, as the box around it."""

    shape: tuple[int, ...]
    at: tuple[slice, ...]
    box: LabelArray

    @classmethod
    def of(cls, labels: LabelArray) -> _Map:
        held = labels > 0
        at = bounding_box(held) if held.any() else tuple(slice(0, 0) for _ in labels.shape)
        box = np.where(held[at], labels[at], np.int16(0))
        return cls(labels.shape, at, box)

    def whole(self) -> LabelArray:
        out = np.zeros(self.shape, np.int16)
        out[self.at] = self.box
        return out


class Room:
    """The training cases of a run's source, in its generator's space.

    Args:
        source: only its training cases are ever opened.
        space: the generator's.
        cache: cases at hand; its own if None.
        ids: those that can be borrowed from; all training cases if None.

    Attributes:
        ids: sorted.
        schema: of the generator's space.
    """

    def __init__(
        self,
        source: CaseSource,
        space: Space,
        cache: CaseReader | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        self.source, self.space = source, space
        self.schema: Schema = space.generator_schema(source.schema)
        self.cache: CaseReader = cache or CaseCache(source)
        self.ids = tuple(sorted(source.train_ids if ids is None else ids))
        self._learnt: dict[str, Any] = {}
        self._maps: OrderedDict[str, _Map] = OrderedDict()

    def place(self, case_id: str, rng: np.random.Generator) -> Placement:
        """Draw a place in a case, two thirds of them at its foreground; see ``Space.place``."""
        return self.space.place(self.cache(case_id), rng)

    def cut(self, case_id: str, placement: Placement) -> Case:
        """A case as the generator has it, labels without the ignore value."""
        return self._known(self.space.to_generator(self.cache(case_id), placement))

    def uncut(self, case_id: str, slice_index: int | None = None) -> Case:
        """A case in the generator's voxels and intensities, but whole.

        Of a space of slices it is one slice, which must be named; of a resampled space it is what
        ``cut`` gives.
        """
        case = self.cache(case_id)
        if self.space.grid == "resample":
            return self.cut(case_id, Placement())
        shape = case.image.shape[1:]
        if self.space.grid == "slice":
            assert slice_index is not None, "a slice must be named"
            whole = replace(self.space, size=tuple(shape[1:]))
            corner = (0,) * (len(shape) - 1)
            return self._known(whole.to_generator(case, Placement(corner, slice_index)))
        return self._known(replace(self.space, grid="native", size=()).to_generator(case))

    def label_map(self, case_id: str) -> LabelArray:
        """Own foreground of a whole case in the generator's voxels, int16; background is all else.

        Kept at hand, its box alone, where images would take too much room.
        """
        if case_id not in self._maps:
            self._maps[case_id] = _Map.of(self._whole_labels(case_id))
            while sum(one.box.nbytes for one in self._maps.values()) > MAPS and len(self._maps) > 1:
                self._maps.popitem(last=False)
        self._maps.move_to_end(case_id)
        return self._maps[case_id].whole()

    def body(self, case: Case) -> Mask:
        """What a training case's image shows of a body, looked for once; as bits, at hand.

        Args:
            case: of a space that has but one way to bring it there.
        """

        def find(_: CasePool) -> npt.NDArray[np.uint8]:
            return np.packbits(shown_body(case.image))

        shape = case.image.shape[1:]
        bits = np.unpackbits(self.learnt(f"body of {case.id}", find), count=math.prod(shape))
        return bits.reshape(shape).astype(bool)

    def _whole_labels(self, case_id: str) -> LabelArray:
        case = self._known(self.cache(case_id))
        if case.labels is None:
            case = replace(case, labels=np.zeros(case.image.shape[1:], np.int16))
        if self.space.grid == "resample":
            bare = replace(case, image=case.image[:0], boxes=None)
            case = replace(self.space, window=None).to_generator(bare)
        assert case.labels is not None
        return case.labels

    def subject(self, case_id: str) -> str:
        """The person a case belongs to."""
        return self.source.subject(case_id)

    def others(self, subject: str) -> tuple[str, ...]:
        """Cases of other people; all cases if there is nobody else."""
        found = tuple(i for i in self.ids if self.subject(i) != subject)
        return found or self.ids

    def learnt(self, what: str, learn: Callable[[CasePool], T]) -> T:
        """What is learnt from the training cases, once: ``learn(room)``, kept under a name."""
        if what not in self._learnt:
            self._learnt[what] = learn(self)
        found: T = self._learnt[what]
        return found

    def _known(self, case: Case) -> Case:
        from gansynth.core.schema import replace_ignored

        case = case.own
        if case.labels is None:
            return case
        return replace(case, labels=replace_ignored(case.labels, self.schema))
