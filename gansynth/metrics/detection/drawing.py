"""FROC curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.report.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1f6fb4", "#d1600f", "#2b8a3e", "#7a3fa0", "#9a7b00", "#5b6770")


def draw_froc(doc: Mapping[str, Any], path: Path, *, title: str = "") -> Path:
    """Draw every arm's FROC curve, one panel for each overlap; a dot where it would be used.

    Args:
        doc: of ``measure_arms``.
        path: PNG to write; published atomically.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ious = [f"{iou:g}" for iou in doc["ious"]]
    figure = Figure(figsize=(4.6 * len(ious), 3.7), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(ious), squeeze=False, sharey=True)[0]
    for axis, iou in zip(axes, ious, strict=True):
        _draw(axis, doc, iou)
    axes[0].set_ylabel("sensitivity (boxes of slices)")
    axes[-1].legend(fontsize=8, loc="lower right", frameon=False)
    if title:
        figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)


def _draw(axis: Axes, doc: Mapping[str, Any], iou: str) -> None:
    """One panel."""
    for number, arm in enumerate(doc["arms"]):
        colour, at = COLOURS[number % len(COLOURS)], arm["at"][iou]
        line = at["drawn"]
        known = [v is not None for v in line["sensitivity"]]
        if all(known):
            axis.plot(line["fps"], line["sensitivity"], color=colour, lw=1.5, label=arm["name"])
        if line["low"]:
            axis.fill_between(
                line["fps"], line["low"], line["high"], color=colour, alpha=0.15, lw=0
            )
        used = at["fps_per_slice"]["value"], at["sensitivity"]["value"]
        if used[1] is not None:
            axis.plot(*used, "o", color=colour, ms=5)
    ticks = [2.0**power for power in range(-5, 7)]
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{t:g}" if t >= 1 else f"1/{1 / t:g}" for t in ticks], fontsize=7)
    axis.set(xlim=_span(doc, iou), ylim=(0, 1), xlabel="false positives per slice (log)")
    axis.set_title(f"IoU ≥ {iou}", fontsize=10)
    axis.grid(alpha=0.3)


def _span(doc: Mapping[str, Any], iou: str) -> tuple[float, float]:
    """From 1/32 to where the longest curve ends, as powers of two."""
    ends = max(arm["at"][iou]["froc"]["end"] for arm in doc["arms"])
    high = 1.0
    while high < min(ends, 64):
        high *= 2
    return 1 / 32, high
