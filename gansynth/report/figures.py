"""Plots of a run's losses, and atomic writing of figures as PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.runtime.files import disk_errors, write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def read_metrics(path: Path) -> dict[str, list[float]]:
    """Read a run's ``metrics.csv``: ``step``, ``images``, ``seconds``, losses (nan: none).

    A last line without its end, as a killed run leaves it, is left out.
    """
    lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    names, *rows = csv.reader(lines or [""])
    return {name: [float(row[i]) for row in rows] for i, name in enumerate(names)}


def write_curves(metrics: Path, path: Path) -> Path:
    """Plot every loss over steps, one panel per player, and the diversity of samples if known.

    Args:
        metrics: a run's ``metrics.csv``; ``diversity.csv`` may lie beside it.
        path: PNG to write; published atomically.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = read_metrics(metrics)
    losses = [name for name in columns if "/" in name]
    players = list(dict.fromkeys(name.partition("/")[0] for name in losses))
    watched = metrics.with_name("diversity.csv")
    panels = max(1, len(players) + watched.exists())
    figure = Figure(figsize=(4.5 * panels, 3), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis, player in zip(axes, players, strict=False):
        for name in losses:
            if name.startswith(f"{player}/"):
                dot = "." if len(columns["step"]) == 1 else None  # a line needs two points
                label = name.partition("/")[2]
                axis.plot(columns["step"], columns[name], label=label, lw=1, marker=dot)
        axis.set(title=player, xlabel="step", ylabel="loss (weighted)")
        axis.legend(fontsize=7)
    if watched.exists():
        _draw_diversity(axes[-1], read_metrics(watched))
    return save_figure(figure, path)


def _draw_diversity(axis: Axes, columns: Mapping[str, list[float]]) -> None:
    """Plot the similarity of samples and of real cases, each with its standard error."""
    for name in ("samples", "real"):
        axis.errorbar(columns["step"], columns[name], columns[f"{name}_error"], label=name, lw=1)
    axis.set(title="diversity", xlabel="step", ylabel="mean MS-SSIM of pairs", ylim=(0, 1))
    axis.legend(fontsize=7)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG atomically; its folder is made if needed.

    Raises:
        EnvironmentFault: a disk error; an existing picture remains.
    """
    figure.tight_layout()
    image = io.BytesIO()
    figure.savefig(image, format="png")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, image.getvalue())
    return path
