"""A pool of earlier synthetic samples that the discriminator sees in place of new ones.

Shrivastava et al. 2017 (arXiv:1612.07828, sec. 2.3). The rule is that of CycleGAN (Zhu et al. 2017,
arXiv:1703.10593, sec. 4). It keeps 50 images, MM-GAN (Sun et al. 2020) 4 pairs of image and label.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gansynth.core.generator import TrainingStep

_POOL = 0x706F6F6C
"""Separates the pool's random numbers from others that are keyed by step and sample."""


class ImagePool:
    """Up to ``capacity`` earlier samples, each a tuple of tensors that stay together.

    While it fills, every sample passes and a copy is stored. Then a sample passes with probability
    1/2; else a stored one, chosen uniformly, replaces it. Samples enter one by one, so accumulated
    parts give the same result as the whole batch. Each process has its own pool. Checkpoints
    hold the stored tensors, so they must be conditions, not patients' images.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._stored: list[tuple[Tensor, ...]] = []

    def __len__(self) -> int:
        return len(self._stored)

    def query(self, step: TrainingStep, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Replace samples of a batch, tensors (B, ...), by stored ones of equal shapes and types.

        Stored samples carry no gradient. A sample of another size or type empties the pool first.
        """
        if not self.capacity:
            return tensors
        kept = []
        for stored in self._stored:
            if _kind(stored) == [(t.shape[1:], t.dtype) for t in tensors]:
                moved = [s.to(t.device) for s, t in zip(stored, tensors, strict=True)]
                kept.append(tuple(moved))
        self._stored = kept
        results = tensors
        for i in range(len(tensors[0])):
            sample = [t[i].detach() for t in tensors]
            if len(self._stored) < self.capacity:
                self._stored.append(_copy(sample))
                continue
            rng = np.random.default_rng((_POOL, step.key, step.first + i))
            if rng.random() < 0.5:
                continue
            if results is tensors:
                results = tuple(t.clone() for t in tensors)
            slot = int(rng.integers(self.capacity))
            earlier, self._stored[slot] = self._stored[slot], _copy(sample)
            for result, replacement in zip(results, earlier, strict=True):
                result[i] = replacement
        return results

    def state(self) -> dict[str, Tensor]:
        """Return ``count`` (int64) and, if above 0, ``stored0`` (count, ...), ``stored1`` ..."""
        state = {"count": torch.tensor(len(self._stored))}
        for number, column in enumerate(zip(*self._stored, strict=True)):
            state[f"stored{number}"] = torch.stack(column)
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load what ``state`` returned; tensors follow the device of the next batch."""
        columns = [state[f"stored{number}"] for number in range(len(state) - 1)]
        count = min(int(state["count"]), self.capacity)
        self._stored = [_copy([column[i] for column in columns]) for i in range(count)]


def _kind(sample: tuple[Tensor, ...]) -> list[tuple[torch.Size, torch.dtype]]:
    return [(t.shape, t.dtype) for t in sample]


def _copy(sample: list[Tensor]) -> tuple[Tensor, ...]:
    return tuple(t.clone(memory_format=torch.contiguous_format) for t in sample)
