"""Where an edit is applied, and the cases it may borrow from."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import shown_body
from gansynth.core.geometry import Mask, bounding_box
from gansynth.core.scene import CasePool, CaseReader, own_labels
from gansynth.core.schema import Case, LabelArray, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.cache import CaseCache
from gansynth.data.lesion_parts import Part

T = TypeVar("T")
MAPS = 1 << 29
"""Bytes of label maps that a room keeps at hand."""


class Room:
    """The training cases of a run's source, in its generator's space; see ``CasePool``.

    Only training cases are ever opened; all of them are lent if no ``ids`` are given.
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
        self._maps: OrderedDict[str, Part] = OrderedDict()

    def cut(self, case_id: str, placement: Placement) -> Case:
        """A case as the generator has it, labels without the ignore value."""
        return own_labels(self.space.to_generator(self.cache(case_id), placement), self.schema)

    def uncut(self, case_id: str, slice_index: int | None = None) -> Case:
        """A case in the generator's voxels and intensities, but whole; of a space of slices one."""
        case = self.cache(case_id)
        if self.space.grid == "resample":
            return self.cut(case_id, Placement())
        shape = case.image.shape[1:]
        if self.space.grid == "slice":
            assert slice_index is not None, "a slice must be named"
            whole = replace(self.space, size=tuple(shape[1:]))
            corner = (0,) * (len(shape) - 1)
            case = whole.to_generator(case, Placement(corner, slice_index))
        else:
            case = replace(self.space, grid="native", size=()).to_generator(case)
        return own_labels(case, self.schema)

    def label_map(self, case_id: str) -> LabelArray:
        """Own foreground of a whole case in the generator's voxels, int16; background is all else.

        Kept at hand, its box alone, where images would take too much room.
        """
        if case_id not in self._maps:
            labels = self._whole_labels(case_id)
            box = bounding_box(labels > 0)
            held = Part(np.maximum(labels[box], 0), box, labels.shape, self.schema.spacing)
            self._maps[case_id] = held
            while sum(p.labels.nbytes for p in self._maps.values()) > MAPS and len(self._maps) > 1:
                self._maps.popitem(last=False)
        self._maps.move_to_end(case_id)
        return self._maps[case_id].whole()

    def body(self, case: Case) -> Mask:
        """What a training case's image shows of a body, looked for once; as bits, at hand.

        The space must have but one way to bring the case there.
        """

        def find(_: CasePool) -> npt.NDArray[np.uint8]:
            return np.packbits(shown_body(case.image))

        shape = case.image.shape[1:]
        bits = np.unpackbits(self.learnt(f"body of {case.id}", find), count=math.prod(shape))
        return bits.reshape(shape).astype(bool)

    def _whole_labels(self, case_id: str) -> LabelArray:
        case = own_labels(self.cache(case_id), self.schema)
        if case.labels is None:
            case = replace(case, labels=np.zeros(case.image.shape[1:], np.int16))
        if self.space.grid == "resample":
            bare = replace(case, image=case.image[:0], boxes=None)
            case = replace(self.space, window=None).to_generator(bare)
        assert case.labels is not None
        return case.labels

    def others(self, subject: str) -> tuple[str, ...]:
        """Cases of other people; all cases if there is nobody else."""
        found = tuple(i for i in self.ids if self.source.subject(i) != subject)
        return found or self.ids

    def learnt(self, what: str, learn: Callable[[CasePool], T]) -> T:
        """What is learnt from the training cases, once: ``learn(room)``, kept under a name."""
        if what not in self._learnt:
            self._learnt[what] = learn(self)
        found: T = self._learnt[what]
        return found
