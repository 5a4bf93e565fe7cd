"""Figures: SVG for reports, plots of a run's losses, and atomic writing as PNG."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.report.page import data_uri
from gansynth.runtime.files import disk_errors, write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, BAND, GAIN, LOSS = "#1b1f24", "#555d66", "#ccd1d8", "#0b5cad", "#a83c08"
"""Colours of figures; a dark page inverts their lightness."""
FONTS = ("DejaVu Sans", "Verdana", "Arial")


def axes_of(width: float, height: float) -> Axes:
    """Return the axes of a figure for a report, of a size in inches."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(width, height), layout="constrained").subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(8)
    return axes


def plain(text: str, most: int = 60) -> str:
    """Return text for a figure: of so many letters at most, and no formula."""
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return text.replace("$", r"\$")


def hollow(marker: str) -> dict[str, Any]:
    """Return what makes a circle a ring; nothing for other markers."""
    return {"markerfacecolor": "white", "markeredgewidth": 1.8} if marker == "o" else {}


def write_above(axes: Axes, y: float, text: str, **style: Any) -> None:
    """Write the name of a row above it, from the left edge of the axes on."""
    where = axes.get_yaxis_transform()
    axes.text(style.pop("x", 0.0), y, plain(text), transform=where, va="center", size=8,
              **style).set_in_layout(False)  # fmt: skip


def as_svg(axes: Axes) -> str:
    """Return the figure of axes as the data URI of an SVG without a ground."""
    return data_uri(svg_of(axes, transparent=True), "svg+xml")


def svg_of(axes: Axes, *, transparent: bool = False) -> bytes:
    """Return the figure of axes as SVG, the same for the same figure."""
    import matplotlib

    figure, stream = axes.get_figure(root=True), io.BytesIO()
    assert figure is not None
    # Text stays text; no common font is wider than the one that the layout is made for.
    usual: Any = {"svg.hashsalt": "gansynth", "svg.fonttype": "none", "font.sans-serif": FONTS}
    with matplotlib.rc_context(usual), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(stream, format="svg", transparent=transparent, metadata={"Date": None})
    return stream.getvalue()


def read_metrics(path: Path) -> dict[str, list[float]]:
    """Read a run's ``metrics.csv``: ``step``, ``images``, ``seconds``, losses (nan: none).

    A last line without its end, as a killed run leaves it, is left out.
    """
    lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    names, *rows = csv.reader(lines or [""])
    return {name: [float(row[i]) for row in rows] for i, name in enumerate(names)}


def write_curves(metrics: Path, path: Path) -> Path:
    """Plot every loss over steps, one panel per player.

    Args:
        metrics: a run's ``metrics.csv``.
        path: PNG to write; published atomically.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = read_metrics(metrics)
    losses = [name for name in columns if "/" in name]
    players = list(dict.fromkeys([name.partition("/")[0] for name in losses]))
    panels = max(1, len(players))
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
    return save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG atomically; its folder is made if needed."""
    figure.tight_layout()
    image = io.BytesIO()
    figure.savefig(image, format="png")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, image.getvalue())
    return path
