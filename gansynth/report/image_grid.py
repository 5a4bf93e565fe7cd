"""Preview grids: many images side by side, with outlines of labels; large ones are fast."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case, FloatArray, LabelArray, Sample, Schema
from gansynth.report.png import (
    boxes_at,
    colour_of,
    enlarged,
    middle_slice,
    outlined,
    png_bytes,
    rgb,
    scaled,
)
from gansynth.runtime.files import disk_errors, write_bytes_atomic

EDGE, GAP, LINE = 128, 4, 16
"""Pixels along a panel, between panels, and of a line of text."""
LARGE = 192
"""Pixels along a panel for close inspection: a sample's grid, truth and prediction."""
COLUMNS = 8
"""Panels in a line; it holds as many whole cases as fit, at least one."""
BEHIND = 64
"""Grey of a label map's background."""
Picture = npt.NDArray[np.uint8]
"""(H, W, 3)."""
Window = tuple[float, float]
Cell = tuple[str, Sequence[Sample | Case]]
"""A caption, and the items side by side below it."""


@dataclass(frozen=True)
class GridColumn:
    """A column of a preview grid.

    Attributes:
        real: whether it shows the real case; else the sample.
        channel: of the image; None shows labels.
        values: labels to show, as outlines in an image.
    """

    heading: str
    real: bool
    channel: int | None
    values: tuple[int, ...] = ()


def write_image_grid(
    path: Path, cells: Sequence[Cell], schema: Schema, *, across: int = 1, edge: int = EDGE
) -> Path:
    """Write a PNG of cells, each with a caption and a strip of images for each channel.

    Labels, or boxes without them, are outlined in the first channel. A volume is shown in the slice
    with most foreground; all volumes of a cell in the same slice. All share a channel's window.

    Args:
        path: where to write; published atomically, its folder made.
        cells: of equally many items (C, D, H, W) or (C, H, W), all of one shape.
        edge: approximate pixels along a panel; larger images keep their size.

    Raises:
        EnvironmentFault: a disk error.
    """
    windows = windows_of([item for _, items in cells for item in items])
    pictures: list[Picture | None] = [_cell(*cell, windows, schema, edge) for cell in cells]
    pictures += [None] * (-len(pictures) % across)
    rows = [pictures[first : first + across] for first in range(0, len(pictures), across)]
    return _write(path, [_together(rows, gap=0)])


def _cell(
    caption: str,
    items: Sequence[Sample | Case],
    windows: Sequence[Window],
    schema: Schema,
    edge: int,
) -> Picture:
    """Return a line of text above each channel's strip."""
    cut = middle_slice(items[0].labels, items[0].image.shape[1:], items[0].boxes)
    strips = []
    for channel, name in enumerate(schema.channels):
        window = windows[channel]
        panels = [_panel(item, cut, channel, window, item.labels, schema, edge) for item in items]
        strip = _together([panels])
        text = caption if channel == 0 else ""
        if len(schema.channels) > 1:
            text = f"{text}  {name}".strip()
        strips += [_text(text, strip.shape[1]), strip]
    return np.concatenate(strips)


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
    """
    above: list[Cell] = []
    below: list[Cell] = []
    for title, image, truth, predicted in cases:
        cut = middle_slice(truth, truth.shape)
        for name, labels, cells in (("truth", truth, above), ("prediction", predicted, below)):
            plane = Sample(image[channel : channel + 1, cut], labels[cut])
            cells.append((f"{title}, {name}", [plane]))
    channel_schema = replace(schema, channels=schema.channels[channel : channel + 1])
    return write_image_grid(path, [*above, *below], channel_schema, across=len(cases), edge=LARGE)


def write_sample_grid(
    path: Path,
    samples: Sequence[Sample],
    real: Sequence[Case],
    schema: Schema,
    *,
    title: str = "",
    given_channels: Collection[str] = (),
    drawn: bool = False,
) -> Path:
    """Write a PNG: per sample, for each channel real | synthetic, then its label if any has one.

    A channel that was input of the generator is real, and shown once. Labels that a chain's part
    generated beneath the others (``tissues:CSF``) have their own column.

    3D cases are shown in the slice where the sample's label has most foreground; with a real
    background, most new foreground. A real case of the same shape is shown in the same slice: both
    show the same place if they were cut there. Without labels, boxes are shown, if there are any.

    Args:
        path: where to write; published atomically, its folder made.
        samples: synthetic samples, (C, D, H, W) or (C, H, W); may be none.
        real: real cases of the same space, in the samples' order; may be fewer, or none.
        given_channels: names of the channels that were input of the generator.
        drawn: whether labels are predicted from images; shown beside the real cases' labels.

    Raises:
        EnvironmentFault: a disk error.
    """
    count = len(samples) or len(real)
    columns = _columns(samples, real, schema, given_channels, drawn)
    windows = windows_of(real or samples) if count else []
    if real and samples:  # channels that the real cases lack take the samples' windows
        sample_windows = windows_of(samples)
        windows = [w if w[0] < w[1] else o for w, o in zip(windows, sample_windows, strict=True)]
    panels: list[Picture | None] = []
    for index in range(count):
        sample = samples[index] if index < len(samples) else None
        case = real[index] if index < len(real) else None
        panels += _case(columns, sample, case, windows, schema)
    wide = len(columns) * min(max(1, COLUMNS // len(columns)), max(1, count))
    panels += [None] * (-len(panels) % wide or (0 if panels else wide))
    rows = [panels[first : first + wide] for first in range(0, len(panels), wide)]
    body = _together(rows, least=max(_length(column.heading) for column in columns))
    width = body.shape[1] // wide
    headings = [_text(column.heading, width) for column in columns] * (wide // len(columns))
    title = title if count else f"{title} (no samples)".strip()
    above = [_text(title, body.shape[1])] if title else []
    return _write(path, [*above, np.concatenate(headings, axis=1), body])


def _columns(
    samples: Sequence[Sample],
    real: Sequence[Case],
    schema: Schema,
    given_channels: Collection[str],
    drawn: bool,
) -> list[GridColumn]:
    """Return the columns of a case, from left to right."""
    beneath = _beneath(schema)
    hidden = {value for values in beneath.values() for value in values}
    foreground = tuple(value for value in schema.foreground if value not in hidden)
    sides = [("real", True)] * bool(real) + [("synthetic", False)] * bool(samples)
    columns = []
    for number, channel in enumerate(schema.channels):
        channel_sides = [("given", not samples)] if channel in given_channels else sides
        columns += [
            GridColumn(f"{word} {channel}", is_real, number, foreground)
            for word, is_real in channel_sides
        ]
    items = samples or real
    labelled = not items or any(item.labels is not None for item in items)
    if drawn and any(case.labels is not None for case in real):
        columns.append(GridColumn("real label", True, None, foreground))
    if labelled:
        columns += [GridColumn(name, not samples, None, values) for name, values in beneath.items()]
        columns.append(
            GridColumn("drawn label" if drawn else "label", not samples, None, foreground)
        )
    return columns


def _beneath(schema: Schema) -> dict[str, tuple[int, ...]]:
    """Map parts with generated labels (``composite_view.merged_schema``) to their values."""
    parts: dict[str, tuple[int, ...]] = {}
    for name, value in schema.labels.items():
        part, _, of = name.partition(":")
        if of and value > 0:
            parts[part] = (*parts.get(part, ()), value)
    return parts


def _case(
    columns: Sequence[GridColumn],
    sample: Sample | None,
    case: Case | None,
    windows: Sequence[Window],
    schema: Schema,
) -> list[Picture | None]:
    """Return the panels of one case."""
    reference: Sample | Case | None = sample if sample is not None else case
    assert reference is not None, "as many panels as samples or real cases"
    shape, values = reference.image.shape[1:], columns[0].values
    cut = middle_slice(_only(_drawn_labels(reference, case), values), shape, reference.boxes)
    panels: list[Picture | None] = []
    for column in columns:
        item = case if column.real else sample
        if item is None:
            panels.append(None)
            continue
        same = item.image.shape[1:] == shape
        at = cut if same else middle_slice(item.labels, item.image.shape[1:], item.boxes)
        labels = _only(_all_labels(item), column.values)
        if column.channel is None:
            panels.append(_label_panel(labels, at, schema))
        else:
            window = windows[column.channel]
            panels.append(_panel(item, at, column.channel, window, labels, schema, LARGE))
    return panels


def _all_labels(item: Sample | Case) -> LabelArray | None:
    """Return labels merged with generated ones beneath them, if those are separate."""
    if item.under is None or item.labels is None:
        return item.labels
    return np.where(item.labels == 0, item.under, item.labels)


def _only(labels: LabelArray | None, values: Collection[int]) -> LabelArray | None:
    """Keep only some foreground labels; the others become background, outside stays."""
    if labels is None:
        return None
    return np.where((labels < 0) | np.isin(labels, list(values)), labels, np.int16(0))


def _drawn_labels(item: Sample | Case, case: Case | None) -> LabelArray | None:
    """Return the labels where a sample's image differs from its real case, if it does."""
    labels = item.labels
    if labels is None or case is None or case.image.shape != item.image.shape:
        return labels
    new = np.where((item.image != case.image).any(0), labels, 0)
    return new if (new > 0).any() else labels


def windows_of(items: Sequence[Sample | Case]) -> list[Window]:
    """Return each channel's values of black and white: the 1st and 99.5th percentile."""
    stacked = [i.image.reshape(i.image.shape[0], -1) for i in items]
    low = np.min([np.percentile(s, 1, axis=1) for s in stacked], axis=0)
    high = np.max([np.percentile(s, 99.5, axis=1) for s in stacked], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


# -- panels ----------------------------------------------------------------------------------------


def _panel(
    item: Sample | Case,
    cut: int | None,
    channel: int,
    window: Window,
    labels: LabelArray | None,
    schema: Schema,
    edge: int,
) -> Picture:
    """Draw a channel; only the first has outlines of labels, which would hide too much."""
    image = item.image[channel] if cut is None else item.image[channel, cut]
    low, high = window
    grey = scaled(image[None], [(low, max(high, low + 1e-6))], 8)[0][0]
    boxes = boxes_at(item.boxes, cut) if item.labels is None and channel == 0 else None
    plane = None if labels is None or channel else labels if cut is None else labels[cut]
    return outlined(grey, plane, schema.foreground, edge=edge, boxes=boxes)


def _label_panel(labels: LabelArray | None, cut: int | None, schema: Schema) -> Picture | None:
    """Draw a label map in colours: outside black, background grey."""
    if labels is None:
        return None
    plane, _ = enlarged(labels if cut is None else labels[cut], LARGE)
    picture = np.zeros((*plane.shape, 3), np.uint8)
    picture[plane == 0] = BEHIND
    for index, value in enumerate(schema.foreground):
        picture[plane == value] = rgb(colour_of(index))
    return picture


def _together(rows: Sequence[Sequence[Picture | None]], gap: int = GAP, least: int = 0) -> Picture:
    """Arrange images in cells of the largest size plus the gap; empty cells are white."""
    shapes = [picture.shape for row in rows for picture in row if picture is not None]
    height = max((shape[0] for shape in shapes), default=EDGE)
    width = max(least, max((shape[1] for shape in shapes), default=EDGE))
    height, width = height + gap, width + gap
    sheet = np.full((len(rows) * height, len(rows[0]) * width, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            if picture is not None:
                place = sheet[y * height :, x * width :]
                place[: picture.shape[0], : picture.shape[1]] = picture
    return sheet


def _length(text: str) -> int:
    """Return the width of a line of text in pixels."""
    from PIL import ImageFont

    return 2 + round(ImageFont.load_default().getlength(text))


def _text(text: str, width: int) -> Picture:
    """Draw a line of text, black on white: uint8 (LINE, width, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    line = Image.new("RGB", (width, LINE), "white")
    ImageDraw.Draw(line).text((2, 2), text, fill="black", font=ImageFont.load_default())
    return np.asarray(line)


def _write(path: Path, parts: Sequence[Picture]) -> Path:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, png_bytes(np.concatenate(parts)))
    return path
