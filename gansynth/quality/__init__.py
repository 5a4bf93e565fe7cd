"""How good samples are, measured.

This module is itself a plugin: it registers the metrics that come with gansynth, exactly as a
stranger's plugin would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.hookspecs import hookimpl

if TYPE_CHECKING:
    from gansynth.quality.metric import Metric


@hookimpl
def register_metrics(register: Callable[[str, Callable[[], Metric]], None]) -> None:
    """Register ``spectrum``."""
    register("spectrum", _spectrum)


def _spectrum() -> Metric:
    from gansynth.quality.spectrum import spectrum_metric

    return spectrum_metric
