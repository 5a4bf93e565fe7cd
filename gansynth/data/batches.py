"""Real cases for the training loop: drawn by seed and step, cut in the generator's space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gansynth.core.schema import Boxes, Case, LabelArray, replace_ignored
from gansynth.core.space import Space
from gansynth.data.cache import CaseCache, Placed
from gansynth.runtime.errors import DataFault

if TYPE_CHECKING:
    from torch import Tensor

    from gansynth.core.generator import Batch, Stage


RequestedMaps = Callable[
    [Case, Placed, np.random.SeedSequence], tuple[LabelArray, LabelArray | None]
]
"""(case in the generator's space, where it was cut, seed) -> label map asked for, and context."""
MOST_REFUSED = 1000
"""Draws without a single case to learn from, after which it is given up."""
WHOLE = 2 << 30
"""Bytes of whole cases that are kept in the generator's space: resampling them takes a second."""
ASKED = 0x61736B
"""Keeps the random numbers of edits apart from those of places."""


class CaseBatches:
    """Batches of real training cases; the same seed, step and number give the same sample.

    ``context`` makes context channels of a case. ``accepts`` says whether to learn from a case at
    its place; if not, another is drawn. ``asked`` makes the label map that a synthetic sample is to
    have.
    """

    def __init__(
        self,
        cache: CaseCache,
        space: Space,
        *,
        seed: int = 0,
        context: Callable[[Case], LabelArray | None] | None = None,
        accepts: Callable[[Case], bool] | None = None,
        asked: RequestedMaps | None = None,
    ) -> None:
        self.cache = cache
        self.space = space
        self.seed = seed
        self.context = context
        self.accepts = accepts
        self.asked = asked
        self._whole: dict[str, tuple[Placed, Case]] = {}
        self._bytes = 0

    def __call__(self, step: int, stage: Stage, which: range) -> Batch:
        """Real cases of one step, on the CPU: image (B, C, D, H, W), labels (B, D, H, W).

        ``stage``: not looked at; a generator's ``prepare`` brings them to its size. ``which``:
        numbers of the samples wanted, of the step's whole batch.
        """
        drawn, cases = map(list, zip(*(self._accepted(step, n) for n in which), strict=True))
        batch = batch_of(cases, self.context)
        batch.padding = self._padding(drawn)
        batch.asked, batch.asked_context = self._asked(step, which, drawn, cases)
        return batch

    def _asked(
        self, step: int, which: range, drawn: Sequence[Placed], cases: Sequence[Case]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Label maps that synthetic samples are to have, and their context."""
        import torch

        if self.asked is None:
            return None, None
        found = [
            self.asked(case, placed, np.random.SeedSequence((self.seed, step, number, ASKED)))
            for number, placed, case in zip(which, drawn, cases, strict=True)
        ]
        labels = torch.from_numpy(np.stack([one[0] for one in found]).astype(np.int64))
        maps = [context for _, context in found if context is not None]
        return labels, torch.from_numpy(np.stack(maps).astype(np.int64)) if maps else None

    def _accepted(self, step: int, number: int) -> tuple[Placed, Case]:
        """A case at a drawn place, whole and cut."""
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, step, number)))
        ids = self.cache.source.train_ids
        for _ in range(MOST_REFUSED):
            placed, case = self._brought(ids[int(rng.integers(len(ids)))], rng)
            if self.accepts is None or self.accepts(case):
                return placed, case
        raise DataFault(
            f"{self.cache.source.name}: {MOST_REFUSED} training cases drawn and none of them is "
            "one this generator can learn from, expected some; look at them with gansynth check"
        )

    def cut(self, case_id: str, rng: np.random.Generator) -> Case:
        """One case at a drawn place of the generator's space."""
        return self._brought(case_id, rng)[1]

    def _brought(self, case_id: str, rng: np.random.Generator) -> tuple[Placed, Case]:
        """A case at a drawn place, and cut; whole ones are kept as they are brought here."""
        if self.space.cuts:
            placed = self.cache.place(case_id, self.space, rng)
            return placed, self._cut(placed)
        kept = self._whole.get(case_id)
        if kept is not None:
            return kept
        placed = self.cache.place(case_id, self.space, rng)
        case = self._cut(placed)
        found = placed._replace(case=case), case  # the case as it was read may go
        if self._bytes + case.image.nbytes <= WHOLE:
            self._bytes += case.image.nbytes
            self._whole[case_id] = found
        return found

    def _cut(self, drawn: Placed) -> Case:
        placed = self.space.to_generator(drawn.case, drawn.placement)
        if placed.labels is None:
            return placed
        schema = self.space.generator_schema(self.cache.source.schema)
        return replace(placed, labels=replace_ignored(placed.labels, schema))

    def _padding(self, drawn: Sequence[Placed]) -> Tensor | None:
        import torch

        masks = [self.space.padding(d.shape, d.origin) for d in drawn]
        if all(mask is None for mask in masks):
            return None
        none = np.zeros(self.space.size, np.bool_)
        return torch.from_numpy(np.stack([none if m is None else m for m in masks]))


def batch_of(
    cases: Sequence[Case], context: Callable[[Case], LabelArray | None] | None = None
) -> Batch:
    """Cases of one size as a batch on the CPU, with what every one of them has."""
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
    """Lists of boxes as tensors, padded to the longest: None for both where a case has no list.

    Returns float32 (B, M, 2 * axes), zeros beyond a case's own, and int64 (B, M), -1 there; M >= 1.
    """
    import torch

    listed = [b for b in boxes if b is not None]
    if not listed or len(listed) < len(boxes):
        return None, None
    most = max(1, *(len(b.labels) for b in listed))
    coords = torch.zeros(len(listed), most, 2 * axes)
    labels = torch.full((len(listed), most), -1)
    for row, one in enumerate(listed):
        count = len(one.labels)
        coords[row, :count] = torch.from_numpy(one.coords)
        labels[row, :count] = torch.from_numpy(one.labels.astype(np.int64))
    return coords, labels
