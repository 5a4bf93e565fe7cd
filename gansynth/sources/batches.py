"""Real cases for the training loop: drawn by seed and step, cut in the generator's space."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gansynth.conditions.sampler import replace_ignored
from gansynth.schema import Case, LabelArray
from gansynth.sources.cache import CaseCache
from gansynth.space import Space

if TYPE_CHECKING:
    from gansynth.generator import Batch, Stage


class CaseBatches:
    """Batches of real training cases; the same seed and step give the same batch.

    Args:
        cache: cases of the source.
        space: the generator's space.
        seed: first half of every key.
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

    def __call__(self, step: int, stage: Stage, batch_size: int) -> Batch:
        """Real cases of one step, on the CPU: image (B, C, D, H, W), labels (B, D, H, W)."""
        import torch

        from gansynth.generator import Batch

        rng = np.random.default_rng(np.random.SeedSequence((self.seed, step)))
        ids = self.cache.source.train_ids
        cases = [self.cut(ids[int(rng.integers(len(ids)))], rng) for _ in range(batch_size)]
        image = torch.from_numpy(np.stack([c.image for c in cases]))
        drawn = [c.labels for c in cases if c.labels is not None]
        labels = (
            torch.from_numpy(np.stack(drawn).astype(np.int64)) if len(drawn) == len(cases) else None
        )
        maps = [m for m in map(self.context, cases) if m is not None] if self.context else []
        context = torch.from_numpy(np.stack(maps).astype(np.int64)) if maps else None
        return Batch(image, labels, context)

    def cut(self, case_id: str, rng: np.random.Generator) -> Case:
        """One case at a drawn place of the generator's space."""
        case = self.cache(case_id)
        placed = self.space.to_generator(case, self.space.place(case, rng))
        if placed.labels is None:
            return placed
        schema = self.space.generator_schema(self.cache.source.schema)
        return Case(placed.id, placed.subject, placed.image, replace_ignored(placed.labels, schema))
