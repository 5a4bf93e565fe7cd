"""Metrics by name, applied to samples and real cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gansynth.core.metric import Metric
from gansynth.core.schema import Case, Sample, Schema
from gansynth.runtime.errors import GansynthError, UsageFault

Measured = dict[str, dict[str, float | None]]
"""Metric -> its named numbers; None where a number is not finite, which JSON cannot hold."""


def load_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Registered metrics by name. Raises UsageFault: one is unknown or does not load."""
    from gansynth.core.registry import installed

    return {name: installed().metric(name) for name in names}


def measure(
    metrics: Mapping[str, Metric], samples: Sequence[Sample], real: Sequence[Case], schema: Schema
) -> Measured:
    """Apply metrics to samples and real cases of the generator's space.

    Raises UsageFault: a metric raises, or returns anything but named numbers.
    """
    measured: Measured = {}
    for name, metric in metrics.items():
        try:
            found = {str(key): float(value) for key, value in metric(samples, real, schema).items()}
        except GansynthError:
            raise
        except Exception as error:  # a stranger's code
            text = " ".join(str(error).split())
            raise UsageFault(
                f"metric {name!r} fails on {len(samples)} sample(s): {type(error).__name__}: "
                f"{text}; expected named numbers. Leave it out, or mend its plugin"
            ) from error
        measured[name] = {k: v if math.isfinite(v) else None for k, v in found.items()}
    return measured
