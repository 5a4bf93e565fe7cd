"""Real cases for the training loop: drawn by seed and step, cut in the generator's space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gansynth.core.case_pool import PlacedCase, TrainingCases
from gansynth.core.schema import Boxes, Case, LabelArray, replace_ignored
from gansynth.core.space import Space
from gansynth.data.cache import CaseCache
from gansynth.runtime.errors import DataFault

if TYPE_CHECKING:
    from torch import Tensor

    from gansynth.core.generator import Batch, Stage


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

    ``context`` makes context channels of a case. ``accepts`` says whether to train on a case at its
    place; if not, another is drawn. ``asked`` makes the label map of a synthetic sample.
    """

    cases: CaseCache | TrainingCases
    space: Space
    _: KW_ONLY
    seed: int = 0
    context: Callable[[Case], LabelArray | None] | None = None
    accepts: Callable[[Case], bool] | None = None
    asked: RequestedMaps | None = None

    def __post_init__(self) -> None:
        self._whole: dict[str, tuple[PlacedCase, Case]] = {}
        self._bytes = 0

    def __call__(self, step: int, stage: Stage, which: range) -> Batch:
        """Return real cases of one step, on the CPU: image (B, C, D, H, W), labels (B, D, H, W).

        ``stage``: not used; a generator's ``prepare`` resizes the batch. ``which``: numbers of the
        samples within the step's whole batch.
        """
        drawn, cases = map(list, zip(*(self._accepted(step, n) for n in which), strict=True))
        batch = batch_of(cases, self.context)
        batch.padding = self._padding(drawn)
        batch.asked, batch.asked_context = self._asked(step, which, drawn, cases)
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
        maps = [context for _, context in maps_of if context is not None]
        return labels, torch.from_numpy(np.stack(maps).astype(np.int64)) if maps else None

    def _accepted(self, step: int, number: int) -> tuple[PlacedCase, Case]:
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, step, number)))
        ids = self.cases.ids
        for _ in range(MOST_REFUSED):
            placed, case = self._brought(ids[int(rng.integers(len(ids)))], rng)
            if self.accepts is None or self.accepts(case):
                return placed, case
        raise DataFault(
            f"{self.cases.name}: {MOST_REFUSED} training cases drawn and none of them is "
            "one this generator can learn from, expected some; look at them with gansynth check"
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
        if self._bytes + case.image.nbytes <= WHOLE:
            self._bytes += case.image.nbytes
            self._whole[case_id] = entry
        return entry

    def _cut(self, drawn: PlacedCase) -> Case:
        placed = self.space.to_generator(drawn.case, drawn.placement)
        if placed.labels is None:
            return placed
        schema = self.space.generator_schema(self.cases.schema)
        return replace(placed, labels=replace_ignored(placed.labels, schema))

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
    maps = [m for m in map(context, cases) if m is not None] if context else []
    made = torch.from_numpy(np.stack(maps).astype(np.int64)) if maps else None
    numbers = [c.label_class for c in cases if c.label_class is not None]
    classes = torch.tensor(numbers) if len(numbers) == len(cases) else None
    boxes, kinds = stack_boxes([c.boxes for c in cases], image.ndim - 2)
    return Batch(image, labels, made, classes=classes, boxes=boxes, box_labels=kinds)


def stack_boxes(boxes: Sequence[Boxes | None], axes: int) -> tuple[Tensor | None, Tensor | None]:
    """Stack lists of boxes to tensors, padded to the longest; None if a case has no list.

    Returns float32 (B, M, 2 * axes), padded with 0, and int64 (B, M), padded with -1; M >= 1.
    """
    import torch

    listed = [b for b in boxes if b is not None]
    if not listed or len(listed) < len(boxes):
        return None, None
    most = max(1, *(len(b.labels) for b in listed))
    coords = torch.zeros(len(listed), most, 2 * axes)
    labels = torch.full((len(listed), most), -1)
    for row, case_boxes in enumerate(listed):
        count = len(case_boxes.labels)
        coords[row, :count] = torch.from_numpy(case_boxes.coords)
        labels[row, :count] = torch.from_numpy(case_boxes.labels.astype(np.int64))
    return coords, labels
