"""What lesions look like in the training cases, in a few numbers: no patient's image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansynth.core.schema import OUTSIDE, Case


class LesionStatistics:
    """Intensities, float32 (values, C), of each class of lesions; (C,) of the body around."""

    def __init__(self, values: Sequence[int], channels: int) -> None:
        self.values = tuple(values)
        shape = (len(self.values), channels)
        self.means, self.deviations = torch.zeros(shape), torch.zeros(shape)
        self.between, self.neutral = torch.zeros(shape), torch.zeros(channels)

    def fit(self, cases: Iterable[Case]) -> None:
        """Learn from crops; of a class that none shows, what all lesions have in common."""
        seen: dict[int, list[tuple[Any, Any]]] = {value: [] for value in self.values}
        bodies = []
        for case in cases:
            labels = case.labels
            assert labels is not None, "it learns from labelled cases only"
            body = (labels != OUTSIDE) & ~np.isin(labels, self.values)
            if body.any():
                bodies.append(case.image[:, body].mean(1, dtype=np.float64))
            for value in self.values:
                held = case.image[:, labels == value]
                if held.size:
                    seen[value].append((held.mean(1, dtype=np.float64), held.std(1)))
        if bodies:
            self.neutral = _tensor(np.mean(bodies, axis=0))
        every = [one for found in seen.values() for one in found]
        for row, value in enumerate(self.values if every else ()):
            means, deviations = map(np.array, zip(*(seen[value] or every), strict=True))
            self.means[row] = _tensor(means.mean(0))
            self.deviations[row] = _tensor(deviations.mean(0))
            self.between[row] = _tensor(means.std(0))

    def to(self, device: torch.device) -> Mapping[str, Tensor]:
        """All of it on a device, by attribute."""
        return {key: getattr(self, key).to(device) for key in _KEYS}

    def to_json(self) -> dict[str, Any]:
        """Lists of numbers."""
        return {key: getattr(self, key).tolist() for key in _KEYS}

    def load_json(self, doc: Mapping[str, Any]) -> None:
        """Read what ``to_json`` wrote; nothing of an empty document."""
        for key in _KEYS:
            if key in doc:
                setattr(self, key, torch.tensor(doc[key], dtype=torch.float32))


_KEYS = ("means", "deviations", "between", "neutral")


def _tensor(numbers: Any) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)
