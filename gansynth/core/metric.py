"""The type of a metric: a function of samples and real cases in the generator's space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gansynth.core.schema import Case, Sample, Schema

Metric = Callable[[Sequence[Sample], Sequence[Case], Schema], Mapping[str, float]]
"""(samples, real cases, their schema) -> named numbers; JSON-able."""
