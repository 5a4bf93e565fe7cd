"""Real cases for the training loop: drawn by seed and step, cut in the generator's space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gansynth.conditions.sampler import replace_ignored
from gansynth.schema import Case, LabelArray
from gansynth.sources.cache import CaseCache, Placed
from gansynth.space import Space

if TYPE_CHECKING:
    from torch import Tensor

    from gansynth.generator import Batch, Stage


class CaseBatches:
    """Batches of real training cases; the same seed, step and number give the same sample.

    Args:
        cache: cases of the source.
        space: the generator's space.
        seed: first part of every key.
        context: makes context channels of a case in the generator's space, or None.
    """

    def __init__(
        self,
        cache: CaseCache,
        space: Space,
        *,
        seed: int = 0,
        context: Callable[[Case], LabelArray | None] | None = None,
    ) -> None:
        self.cache = cache
        self.space = space
        self.seed = seed
        self.context = context

    def __call__(self, step: int, stage: Stage, which: range) -> Batch:
        """Real cases of one step, on the CPU: image (B, C, D, H, W), labels (B, D, H, W).

        Args:
            step: optimiser step.
            stage: not looked at; a generator's ``prepare`` brings them to its size.
            which: numbers of the samples wanted, of the step's whole batch.
        """
        import torch

        from gansynth.generator import Batch

        drawn = [self._draw(step, number) for number in which]
        cases = [self._cut(placed) for placed in drawn]
        image = torch.from_numpy(np.stack([c.image for c in cases]))
        labelled = [c.labels for c in cases if c.labels is not None]
        labels = None
        if len(labelled) == len(cases):
            labels = torch.from_numpy(np.stack(labelled).astype(np.int64))
        maps = [m for m in map(self.context, cases) if m is not None] if self.context else []
        context = torch.from_numpy(np.stack(maps).astype(np.int64)) if maps else None
        numbers = [c.label_class for c in cases if c.label_class is not None]
        classes = torch.tensor(numbers) if numbers else None
        return Batch(image, labels, context, self._padding(drawn), classes)

    def _draw(self, step: int, number: int) -> Placed:
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, step, number)))
        ids = self.cache.source.train_ids
        return self.cache.place(ids[int(rng.integers(len(ids)))], self.space, rng)

    def cut(self, case_id: str, rng: np.random.Generator) -> Case:
        """One case at a drawn place of the generator's space."""
        return self._cut(self.cache.place(case_id, self.space, rng))

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
