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
    """Register ``spectrum``, ``histogram``, ``diversity``, ``lesions`` and ``seam``."""
    register("spectrum", _spectrum)
    register("histogram", _histogram)
    register("diversity", _diversity)
    register("lesions", _lesions)
    register("seam", _seam)


def _spectrum() -> Metric:
    from gansynth.quality.spectrum import spectrum_metric

    return spectrum_metric


def _histogram() -> Metric:
    from gansynth.quality.histogram import histogram_metric

    return histogram_metric


def _diversity() -> Metric:
    from gansynth.quality.diversity import diversity_metric

    return diversity_metric


def _lesions() -> Metric:
    from gansynth.quality.lesions import lesions_metric

    return lesions_metric


def _seam() -> Metric:
    from gansynth.quality.seams import seam_metric

    return seam_metric
