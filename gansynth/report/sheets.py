"""Sample sheets: what a generator draws, beside real cases, label outlines on top."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Boxes, Case, FloatArray, LabelArray, Sample, Schema
from gansynth.core.space import boxes_of_slice
from gansynth.report.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 8
"""Panels in a line: as many cases stand side by side as fit into it, at least one."""
COLOURS = ("#e6550d", "#31a354", "#3182bd", "#756bb1", "#dd1c77", "#8c6d31")
GOLDEN = 0.618033988749895
"""Step around the circle of hues, in turns, that keeps any number of colours apart."""


def colour_of(index: int) -> str:
    """The colour of the ``index``-th foreground label; distinct for as many as there are."""
    if index < len(COLOURS):
        return COLOURS[index]
    from colorsys import hsv_to_rgb

    red, green, blue = hsv_to_rgb((index * GOLDEN) % 1, 0.85, 0.9 if index % 2 else 0.65)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


@dataclass(frozen=True)
class Column:
    """What stands below a heading of a sheet.

    Attributes:
        heading: on top.
        real: whether it is of the real case; else of the sample.
        channel: of the image; None shows labels.
        values: of the labels that are shown, as outlines in an image.
    """

    heading: str
    real: bool
    channel: int | None
    values: tuple[int, ...] = ()


def write_sheet(
    path: Path,
    samples: Sequence[Sample],
    real: Sequence[Case],
    schema: Schema,
    *,
    title: str = "",
    given: Collection[str] = (),
    drawn: bool = False,
) -> Path:
    """Write a PNG: per sample, for each channel real | synthetic, then its label if any has one.

    A channel that was given to the generator is the real one, and shown once. Labels that a part of
    a chain has drawn beneath the others (``tissues:CSF``) have a column of their own.

    3D cases are shown in the slice where the sample's label has most foreground (drawn into the
    real case: most that is new); a real case of the same shape in the same slice, so that both show
    the same place if they were cut there. Without labels boxes are shown, if there are any.

    Args:
        path: where to write; published atomically.
        samples: synthetic samples, (C, D, H, W) or (C, H, W); may be none.
        real: real cases of the same space, in the samples' order; may be fewer, or none.
        schema: names channels and labels.
        title: printed on top.
        given: names of the channels that samples show as they were given.
        drawn: whether labels are drawn of the images; they stand beside the real cases' own.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(samples) or len(real)
    columns = _columns(samples, real, schema, given, drawn)
    across = min(max(1, COLUMNS // len(columns)), max(1, count))
    rows, wide = max(1, -(-count // across)), across * len(columns)
    figure = Figure(figsize=(1.5 * wide, 1.5 * rows + 0.4), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, wide, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    title = title if count else f"{title} (no samples)".strip()
    for place in range(across):
        for axis, column in zip(axes[0, place * len(columns) :], columns, strict=False):
            axis.set_title(column.heading, fontsize=7, loc="left")
    if title:  # a line above the first heading: a figure's own title would lie on the panels
        axes[0, 0].set_title(f"{title}\n{columns[0].heading}", fontsize=7, loc="left")
    windows = windows_of(real or samples) if count else []
    if real and samples:  # of a channel that the real cases lack the samples' own
        own = windows_of(samples)
        windows = [w if w[0] < w[1] else o for w, o in zip(windows, own, strict=True)]
    for index in range(count):
        first = index % across * len(columns)
        sample = samples[index] if index < len(samples) else None
        case = real[index] if index < len(real) else None
        panels = axes[index // across, first : first + len(columns)]
        _draw_case(panels, columns, sample, case, windows, schema)
    # Twice: pictures that are higher than wide push headings out the first time.
    figure.tight_layout(pad=0.3)
    return save_figure(figure, path, pad=0.3)


def _columns(
    samples: Sequence[Sample],
    real: Sequence[Case],
    schema: Schema,
    given: Collection[str],
    drawn: bool,
) -> list[Column]:
    """The columns of a case, from left to right."""
    beneath = _beneath(schema)
    hidden = {value for values in beneath.values() for value in values}
    own = tuple(value for value in schema.foreground if value not in hidden)
    sides = [("real", True)] * bool(real) + [("synthetic", False)] * bool(samples)
    columns = []
    for number, channel in enumerate(schema.channels):
        shown = [("given", not samples)] if channel in given else sides
        columns += [Column(f"{word} {channel}", is_real, number, own) for word, is_real in shown]
    items = samples or real
    labelled = not items or any(item.labels is not None for item in items)
    if drawn and any(case.labels is not None for case in real):
        columns.append(Column("real label", True, None, own))
    if labelled:
        columns += [Column(name, not samples, None, values) for name, values in beneath.items()]
        columns.append(Column("drawn label" if drawn else "label", not samples, None, own))
    return columns


def _beneath(schema: Schema) -> dict[str, tuple[int, ...]]:
    """Parts that have drawn labels (``composite_view.merged_schema``) -> their values."""
    found: dict[str, tuple[int, ...]] = {}
    for name, value in schema.labels.items():
        part, _, of = name.partition(":")
        if of and value > 0:
            found[part] = (*found.get(part, ()), value)
    return found


def _draw_case(
    panels: npt.NDArray[Any],
    columns: Sequence[Column],
    sample: Sample | None,
    case: Case | None,
    windows: Sequence[tuple[float, float]],
    schema: Schema,
) -> None:
    """One case's panels."""
    shown: Sample | Case | None = sample if sample is not None else case
    assert shown is not None, "as many panels as samples or real cases"
    shape, own = shown.image.shape[1:], columns[0].values
    cut = middle_slice(_only(_drawn_labels(shown, case), own), shape, shown.boxes)
    for axis, column in zip(panels, columns, strict=True):
        item = case if column.real else sample
        if item is None:
            continue
        same = item.image.shape[1:] == shape
        at = cut if same else middle_slice(item.labels, item.image.shape[1:], item.boxes)
        labels = _only(_all_labels(item), column.values)
        if column.channel is None:
            _draw_labels(axis, labels, at, schema)
            continue
        # An outline in the first channel; the others show what it would hide.
        first, window = not column.channel, windows[column.channel]
        _draw(axis, item.image[column.channel], labels if first else None, at, window, schema)
        if item.labels is None and first:
            _draw_boxes(axis, boxes_at(item.boxes, at))


def _all_labels(item: Sample | Case) -> LabelArray | None:
    """Labels, and what was drawn beneath them, if that is kept apart."""
    if item.under is None or item.labels is None:
        return item.labels
    return np.where(item.labels == 0, item.under, item.labels)


def _only(labels: LabelArray | None, values: Collection[int]) -> LabelArray | None:
    """Some of the foreground labels; the others are background, and outside stays outside."""
    if labels is None:
        return None
    return np.where((labels < 0) | np.isin(labels, list(values)), labels, np.int16(0))


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
        window = windows_of([Sample(image, truth)])[channel]
        for row, (name, labels) in enumerate((("truth", truth), ("prediction", predicted))):
            axis = axes[row, column]
            axis.axis("off")
            _draw(axis, image[channel], labels, cut, window, schema)
            axis.set_title(f"{title}, {name}", fontsize=7, loc="left")
    return save_figure(figure, path, pad=0.3)


def middle_slice(
    labels: LabelArray | None, shape: Sequence[int], boxes: Boxes | None = None
) -> int | None:
    """The slice along the first axis with most foreground, or the middle of the largest box.

    None for 2D arrays.
    """
    if len(shape) == 2:
        return None
    if labels is not None and (labels > 0).any():
        return int((labels > 0).sum(axis=(1, 2)).argmax())
    if boxes is not None and len(boxes.labels):
        low, high = boxes.coords[:, :3], boxes.coords[:, 3:]
        largest = int((high - low).prod(axis=1).argmax())
        return int(np.clip((low[largest, 0] + high[largest, 0]) // 2, 0, shape[0] - 1))
    return shape[0] // 2


def _drawn_labels(shown: Sample | Case, case: Case | None) -> LabelArray | None:
    """The labels where a sample is not its real case: of one drawn into it, what is new."""
    labels = shown.labels
    if labels is None or case is None or case.image.shape != shown.image.shape:
        return labels
    new = np.where((shown.image != case.image).any(0), labels, 0)
    return new if (new > 0).any() else labels


def boxes_at(boxes: Boxes | None, cut: int | None) -> Boxes | None:
    """The boxes of a picture: of a slice of a volume those that go through it."""
    if boxes is None or cut is None:
        return boxes
    return boxes_of_slice(boxes, cut)


def windows_of(items: Sequence[Sample | Case]) -> list[tuple[float, float]]:
    """What is shown black and white in each channel: nearly all of it lies between."""
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
    for index, value in enumerate(schema.foreground):
        drawn = labels == value
        if drawn.any() and not drawn.all():
            axis.contour(drawn, levels=[0.5], colors=colour_of(index), linewidths=0.6)


def _draw_boxes(axis: Axes, boxes: Boxes | None) -> None:
    """The outlines of boxes, in the colour of their class."""
    from matplotlib.patches import Rectangle

    rows = [] if boxes is None else zip(boxes.coords.tolist(), boxes.labels.tolist(), strict=True)
    for (top, left, bottom, right), label in rows:
        # A pixel's middle has whole numbers there.
        corner, colour = (left - 0.5, top - 0.5), colour_of(max(0, label))
        frame = Rectangle(
            corner, right - left, bottom - top, fill=False, edgecolor=colour, linewidth=0.6
        )
        axis.add_patch(frame)


def _draw_labels(axis: Axes, labels: LabelArray | None, cut: int | None, schema: Schema) -> None:
    """A label map in colours: outside black, background grey."""
    if labels is None:
        return
    from matplotlib.colors import to_rgb

    plane = labels if cut is None else labels[cut]
    picture = np.zeros((*plane.shape, 3))
    picture[plane == 0] = 0.25
    for index, value in enumerate(schema.foreground):
        picture[plane == value] = to_rgb(colour_of(index))
    axis.imshow(picture, interpolation="nearest")
