"""Sample sheets: what a generator draws, beside real cases, label outlines on top."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth.figures import save_figure
from gansynth.schema import Case, FloatArray, LabelArray, Sample, Schema

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 8
COLOURS = ("#e6550d", "#31a354", "#3182bd", "#756bb1", "#dd1c77", "#8c6d31")


def write_sheet(
    path: Path, samples: Sequence[Sample], real: Sequence[Case], schema: Schema, *, title: str = ""
) -> Path:
    """Write a PNG: eight cases a line, one row per channel, each synthetic above its real one.

    Args:
        path: where to write; published atomically.
        samples: synthetic samples, (C, D, H, W) or (C, H, W).
        real: real cases of the same space, in the samples' order; may be fewer, or none.
        schema: names channels and labels.
        title: printed on top.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks: list[tuple[str, Sequence[Sample | Case]]] = []
    for first in range(0, len(samples), COLUMNS):
        blocks.append(("synthetic", samples[first : first + COLUMNS]))
        if real[first : first + COLUMNS]:
            blocks.append(("real", real[first : first + COLUMNS]))
    channels = len(schema.channels)
    columns, rows = max(len(group) for _, group in blocks), channels * len(blocks)
    figure = Figure(figsize=(1.5 * columns, 1.5 * rows + 0.4), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    windows = _windows(real or samples)
    for block, (name, group) in enumerate(blocks):
        lines = axes[block * channels : (block + 1) * channels]
        for channel, line in enumerate(lines):
            line[0].set_title(f"{name} {schema.channels[channel]}", fontsize=7, loc="left")
            for axis, item in zip(line, group, strict=False):
                cut = middle_slice(item.labels, item.image.shape[1:])
                labels = None if channel else item.labels
                _draw(axis, item.image[channel], labels, cut, windows[channel], schema)
    figure.suptitle(title, fontsize=9)
    return save_figure(figure, path, pad=0.3)


def write_overlays(
    path: Path,
    cases: Sequence[tuple[str, FloatArray, LabelArray, LabelArray]],
    schema: Schema,
    *,
    channel: int = 0,
) -> Path:
    """Write a PNG: truth above a segmenter's prediction, one column per case.

    Args:
        path: where to write; published atomically.
        cases: title, image (C, D, H, W), truth and prediction (D, H, W).
        schema: names channels and labels.
        channel: which channel to show underneath.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * len(cases), 4.8), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(cases), squeeze=False)
    for column, (title, image, truth, predicted) in enumerate(cases):
        cut = middle_slice(truth, truth.shape)
        window = _windows([Sample(image, truth)])[channel]
        for row, (name, labels) in enumerate((("truth", truth), ("prediction", predicted))):
            axis = axes[row, column]
            axis.axis("off")
            _draw(axis, image[channel], labels, cut, window, schema)
            axis.set_title(f"{title}, {name}", fontsize=7, loc="left")
    return save_figure(figure, path, pad=0.3)


def middle_slice(labels: LabelArray | None, shape: Sequence[int]) -> int | None:
    """The slice along the first axis with most foreground; None for 2D arrays."""
    if len(shape) == 2:
        return None
    if labels is None or not (labels > 0).any():
        return shape[0] // 2
    return int((labels > 0).sum(axis=(1, 2)).argmax())


def _windows(items: Sequence[Sample | Case]) -> list[tuple[float, float]]:
    stacked = [i.image.reshape(i.image.shape[0], -1) for i in items]
    low = np.min([np.percentile(s, 1, axis=1) for s in stacked], axis=0)
    high = np.max([np.percentile(s, 99.5, axis=1) for s in stacked], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _draw(
    axis: Axes,
    image: npt.NDArray[Any],
    labels: LabelArray | None,
    cut: int | None,
    window: tuple[float, float],
    schema: Schema,
) -> None:
    if cut is not None:
        image = image[cut]
        labels = None if labels is None else labels[cut]
    axis.imshow(image, cmap="gray", vmin=window[0], vmax=window[1], interpolation="nearest")
    if labels is None:
        return
    for colour, value in zip(COLOURS, schema.foreground, strict=False):
        drawn = labels == value
        if drawn.any() and not drawn.all():
            axis.contour(drawn, levels=[0.5], colors=colour, linewidths=0.6)
