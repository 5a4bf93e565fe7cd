"""Sources that read a part of a case without the rest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from gansynth.core.foreground import Outline
from gansynth.core.schema import Boxes, Case
from gansynth.core.source import CaseSource
from gansynth.core.space import cut_boxes


class PatchSource(CaseSource):
    """A source of cases that may be too large, or too many, to be held in memory."""

    @abstractmethod
    def train_bytes(self) -> int:
        """Bytes of images and labels of all training cases, as ``load`` returns them."""

    @abstractmethod
    def outline(self, case_id: str) -> Outline:
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
