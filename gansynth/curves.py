"""Loss curves of a run, as a picture."""

from __future__ import annotations

import csv
from pathlib import Path

from gansynth.figures import save_figure


def read_metrics(path: Path) -> dict[str, list[float]]:
    """Columns of a run's ``metrics.csv``: ``step``, ``images``, ``seconds``, losses (nan: none)."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return {name: [float(row[i]) for row in rows[1:]] for i, name in enumerate(rows[0])}


def write_curves(metrics: Path, path: Path) -> Path:
    """Draw every loss over steps, one panel per player.

    Args:
        metrics: a run's ``metrics.csv``.
        path: PNG to write; published atomically.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = read_metrics(metrics)
    losses = [name for name in columns if "/" in name]
    players = list(dict.fromkeys(name.partition("/")[0] for name in losses))
    figure = Figure(figsize=(4.5 * max(1, len(players)), 3), dpi=110)
    FigureCanvasAgg(figure)
    for axis, player in zip(
        figure.subplots(1, max(1, len(players)), squeeze=False)[0], players, strict=False
    ):
        for name in losses:
            if name.startswith(f"{player}/"):
                axis.plot(columns["step"], columns[name], label=name.partition("/")[2], lw=1)
        axis.set(title=player, xlabel="step", ylabel="loss (weighted)")
        axis.legend(fontsize=7)
    return save_figure(figure, path)
