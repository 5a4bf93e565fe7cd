"""Realism: what every metric says of samples, and the curves that lie behind two of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gansynth.metrics.comparison import Evaluated, Plain, Sides
from gansynth.metrics.estimate import Figure, Floats
from gansynth.metrics.intensity import BINS, edges_of, histogram_metric
from gansynth.metrics.spectrum import BANDS, frequencies, spectrum_metric
from gansynth.runtime.errors import DataFault, UsageFault

PAIRED = ("lesions", "seam")
"""Metrics of samples beside the very case each was drawn into: no other person can stand there."""
BARS = 64
"""Bars of a histogram that is drawn."""


def chosen_metrics(names: Sequence[str]) -> dict[str, Evaluated]:
    """Metrics by name; all that are registered and can be held against real people if none is.

    Raises:
        UsageFault: one is unknown or does not load.
    """
    from gansynth.core.registry import installed
    from gansynth.metrics.comparison import load_metrics

    usual = [name for name in installed().names("metrics") if name not in PAIRED]
    loaded = load_metrics(names or usual)
    return {
        name: metric if isinstance(metric, Evaluated) else Plain(metric, name)
        for name, metric in loaded.items()
    }


def measure_realism(
    metrics: Mapping[str, Evaluated], sides: Sides, asked: Sequence[str] = ()
) -> tuple[list[Figure], list[dict[str, str]], dict[str, float]]:
    """Figures of all metrics.

    Args:
        asked: metrics that must not be left out.

    Returns:
        The figures; what was left out and why; seconds by metric.

    Raises:
        DataFault: a metric that was asked for needs more images, or others.
        UsageFault: one that was asked for fails.
    """
    found: list[Figure] = []
    left_out, seconds = [], dict[str, float]()
    for name, metric in metrics.items():
        began = time.perf_counter()
        try:
            found += [replace(figure, metric=name) for figure in metric.figures(sides)]
        except (DataFault, UsageFault) as error:  # too few images, or a stranger's metric fails
            if name in asked or len(metrics) == 1:
                raise
            left_out.append({"metric": name, "why": " ".join(str(error).split())})
        seconds[name] = time.perf_counter() - began
    return found, left_out, seconds


def curves(sides: Sides) -> dict[str, Any]:
    """``curves`` of the document: power by frequency, and intensities by channel and label."""
    return {"spectrum": _spectra(sides), "intensities": _intensities(sides)}


def _spectra(sides: Sides) -> list[dict[str, Any]]:
    numbers, schema = spectrum_metric.numbers(sides), sides.schema
    rows = []
    for channel in schema.channels:
        bands = [numbers[f"{channel} band {band}"] for band in range(1, BANDS + 1)]
        keys = (
            *(("ratio", "value"), ("low", "low"), ("high", "high")),
            *(("real_low", "real_low"), ("real_high", "real_high")),
        )
        row = {key: [_rounded(band.get(name)) for band in bands] for key, name in keys}
        frequency = [round(f, 5) for f in frequencies(schema.spacing)]
        rows.append({"channel": channel, "frequency": frequency, **row})
    return rows


def _intensities(sides: Sides) -> list[dict[str, Any]]:
    sets = histogram_metric.prepared(sides)
    edges, names = edges_of(sides), list(sides.schema.channels)
    titles = {
        f"{channel}{', ' + label if label else ''}": (number, label)
        for number, channel in enumerate(names)
        for label in (None, *sides.schema.labels)
    }
    step = BINS // BARS
    rows = []
    for title, (number, label) in titles.items():
        if title not in sets[0].counts:
            continue
        own = edges[number][::step]
        mine, real = (_density(s.counts[title].sum(0), own) for s in sets)
        rows.append(
            {
                **{"channel": names[number], "label": label},
                **{"edges": [_rounded(e) for e in own], "synthetic": mine, "real": real},
            }
        )
    return rows


def _density(counts: Floats, edges: Floats) -> list[float | None]:
    bars = counts.reshape(BARS, -1).sum(1)
    total = bars.sum()
    if not total:
        return [None] * BARS
    return [_rounded(v) for v in bars / total / np.diff(edges)]


def _rounded(value: float | None) -> float | None:
    if value is None or not np.isfinite(value):
        return None
    return float(f"{value:.5g}")
