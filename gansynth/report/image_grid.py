"""Preview grids: many images side by side, with outlines of labels; large ones are fast.

Arrays that are ``oriented`` (``Space.oriented``) are shown as radiologists look at them, others as
they run: their first row above, but later slices above earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import shown_body
from gansynth.core.sample_request import MARKED
from gansynth.core.schema import Case, FloatArray, LabelArray, Mask, Sample, Schema
from gansynth.report.png import (
    Plane,
    boxes_at,
    colour_of,
    enlarged,
    middle_slice,
    outlined,
    plane_of,
    png_bytes,
    radiological,
    rgb,
    scaled,
    text_line,
    text_width,
    three_planes,
)
from gansynth.runtime.files import disk_errors, write_bytes_atomic

EDGE, GAP = 128, 4
"""Pixels along a panel, and between panels."""
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
_Shows = Literal["real", "without", "synthetic", "difference"]
_Drawn = tuple[str, list[list[Picture | None]]]
"""A caption, and rows of panels below it; cells of a sheet have equally many."""


@dataclass(frozen=True)
class GridColumn:
    """A column of a preview grid.

    Attributes:
        shows: the real case, its image without its own lesion, the sample, or the sample's
            difference to that image.
        channel: of the image; None shows labels.
        values: labels to show, as outlines in an image.
    """

    heading: str
    shows: _Shows
    channel: int | None
    values: tuple[int, ...] = ()


def write_image_grid(
    path: Path,
    cells: Sequence[Cell],
    schema: Schema,
    *,
    across: int = 1,
    edge: int = EDGE,
    oriented: bool = False,
) -> Path:
    """Write a PNG of cells, each with a caption and a strip of images for each channel.

    Labels, or boxes without them, are outlined in each channel. A volume is shown in the slice with
    most foreground; all volumes of a cell in the same slice. All share a channel's window.

    Args:
        path: where to write; published atomically, its folder made.
        cells: of equally many items (C, D, H, W) or (C, H, W), all of one shape.
        edge: approximate pixels along a panel; larger images keep their size.
    """
    items = [item for _, shown in cells for item in shown]
    windows, drawn = windows_of(items), []
    for caption, shown in cells:
        plane = three_planes(shown[0].labels, shown[0].image.shape[1:], shown[0].boxes)[0]
        words = [caption, f"slice {plane[1]}" if plane else ""]
        words += [" above ".join(schema.channels)] * (len(schema.channels) > 1)
        rows: list[list[Picture | None]] = [
            [_panel(item, plane, n, window, item.labels, schema, edge) for item in shown]
            for n, window in enumerate(windows)
        ]
        if oriented:
            rows = [_turned(row, plane) for row in rows]
        drawn.append((", ".join(filter(None, words)), rows))
    return _sheet(path, drawn, across, _names(items, schema))


def write_figure(
    path: Path,
    cells: Sequence[tuple[str, Sample | Case]],
    schema: Schema,
    *,
    across: int = 1,
    planes: int = 1,
    beside: int | None = None,
    body: bool = False,
    title: str = "",
    oriented: bool = False,
) -> Path:
    """Write a PNG of captioned items: every channel side by side, behind their label maps.

    Label maps are shown if all items have one. Nothing is outlined but boxes without labels. A
    channel has the same window in all items, that of the real ones if there are some.

    Args:
        path: where to write; published atomically, its folder made.
        cells: of items (C, D, H, W) or (C, H, W), all of one number of channels.
        across: cells side by side.
        planes: of a volume: 1, the slice with most foreground, or 3, also those across it.
        beside: cells that begin again after so many are of one place, and volumes of one shape
            among them are shown in the same planes. None: each in its own.
        body: what differs from the background is a class of the label maps; of samples, in the
            real image of their place.
    """
    items = [item for _, item in cells]
    labelled = not [item for item in items if item.labels is None]
    if not labelled:
        items = [replace(item, labels=None) for item in items]
    windows = windows_of([item for item in items if isinstance(item, Case)] or items)
    drawn: list[_Drawn] = []
    for number, ((caption, _), item) in enumerate(zip(cells, items, strict=True)):
        same = [item] if beside is None else items[number % beside :: beside]
        shown = three_planes(_shared(item, same), item.image.shape[1:], item.boxes)[:planes]
        flats = [plane_of(item.image[0], plane, schema.spacing) for plane in shown]
        longest = max([max(flat.shape) for flat in flats])
        times = max(1, LARGE // longest)  # the same in all planes
        rows: list[list[Picture | None]] = []
        for plane, flat in zip(shown, flats, strict=True):
            edge = times * max(flat.shape)
            around = shown_body(_real_of(item, same).image) if body else None
            row: list[Picture | None] = []
            if labelled:
                row.append(_label_panel(_all_labels(item), plane, schema, edge, around))
            for channel, window in enumerate(windows):
                row.append(_panel(item, plane, channel, window, None, schema, edge))
            rows.append(_turned(row, plane) if oriented else row)
        place = "" if shown[0] is None else f"slice {shown[0][1]}"
        drawn.append((", ".join(filter(None, (caption, place))), rows))
    headings = [*["label"] * labelled, *schema.channels]
    names = [*_names(items, schema), *["body"] * (body and labelled)]
    return _sheet(path, drawn, across, names, title, headings)


def _shared(item: Sample | Case, others: Sequence[Sample | Case]) -> LabelArray | None:
    """Return the foreground that samples among others have in common, else all of theirs."""
    drawn = [each for each in others if isinstance(each, Sample)] or others
    maps = [each.labels > 0 for each in drawn if each.labels is not None]
    maps = [inside for inside in maps if inside.shape == item.image.shape[1:]]
    if not maps:
        return item.labels
    common = np.logical_and.reduce(maps)
    return np.asarray(common if common.any() else np.logical_or.reduce(maps), np.int16)


def _real_of(item: Sample | Case, others: Sequence[Sample | Case]) -> Sample | Case:
    """Return the first real image of an item's shape among others, else the item."""
    shape = item.image.shape
    real = [each for each in others if isinstance(each, Case) and each.image.shape == shape]
    return real[0] if real else item


def write_overlays(
    path: Path,
    cases: Sequence[tuple[str, FloatArray, Mapping[str, LabelArray]]],
    schema: Schema,
    *,
    oriented: bool = False,
) -> Path:
    """Write a PNG: truth above predictions of segmenters, one column per case.

    Args:
        path: where to write; published atomically.
        cases: title, image (C, D, H, W), and named label maps (D, H, W), the same ones for each
            case, the truth first.
    """
    cells: list[Cell] = []
    for name in cases[0][2]:
        for title, image, maps in cases:
            truth = next(iter(maps.values()))
            cut = middle_slice(truth, truth.shape)
            cells.append((f"{title}, {name}", [Sample(image[:, cut], maps[name][cut])]))
    across = len(cases)
    return write_image_grid(path, cells, schema, across=across, edge=LARGE, oriented=oriented)


def write_sample_grid(
    path: Path,
    samples: Sequence[Sample],
    real: Sequence[Case],
    schema: Schema,
    *,
    without: Sequence[FloatArray | None] = (),
    title: str = "",
    given_channels: Collection[str] = (),
    drawn: bool = False,
    oriented: bool = False,
) -> Path:
    """Write a PNG: per sample, for each channel real | synthetic, then its label if any has one.

    Of samples with lesions drawn into an image, that image without its own lesions, and the
    sample's difference to it, are shown, too.

    A channel that was input of the generator is real, and shown once. Labels that a chain's part
    generated beneath the others (``tissues:CSF``) have their own column.

    Above each case: why it is rejected, if it is, its name and slice, its class and its edits. The
    names of labels are on top.

    Volumes are shown in three planes: the slice where the sample's label has most foreground (with
    a real background, most new foreground), and two across it. A real case of the same shape is
    shown in the same ones: both show the same place if they were cut there. Without labels, boxes
    are shown, if there are any.

    Args:
        path: where to write; published atomically, its folder made.
        samples: synthetic samples, (C, D, H, W) or (C, H, W); may be none.
        real: real cases of the same space, in the samples' order; may be fewer, or none.
        without: images that lesions were drawn into, float (C, ...) as the samples, in their order.
        given_channels: names of the channels that were input of the generator.
        drawn: whether labels are predicted from images; shown beside the real cases' labels.
    """
    count = len(samples) or len(real)
    bare = [None if image is None else Sample(image, None) for image in without]
    inserts = any(bare)
    columns = _columns(samples, real, schema, given_channels, drawn, inserts=inserts)
    windows = windows_of(real or samples) if count else []
    if real and samples:  # channels that the real cases lack take the samples' windows
        sample_windows = windows_of(samples)
        windows = [w if w[0] < w[1] else o for w, o in zip(windows, sample_windows, strict=True)]
    across = min(max(1, COLUMNS // len(columns)), max(1, count))
    shown = zip_longest(samples[:count], real[:count], bare[:count])
    drawn_cases = [
        _case(columns, sample, case, background, windows, schema, oriented=oriented)
        for sample, case, background in shown
    ]
    title = title if count else f"{title} (no samples)".strip()
    names, headings = _names([*samples, *real], schema), [column.heading for column in columns]
    empty: _Drawn = ("", [[None] * len(columns)])
    return _sheet(path, drawn_cases or [empty], across, names, title, headings)


def _columns(
    samples: Sequence[Sample],
    real: Sequence[Case],
    schema: Schema,
    given_channels: Collection[str],
    drawn: bool,
    *,
    inserts: bool,
) -> list[GridColumn]:
    beneath = _beneath(schema)
    hidden = {value for values in beneath.values() for value in values}
    foreground = tuple([value for value in schema.foreground if value not in hidden])
    columns = []
    for number, channel in enumerate(schema.channels):
        if channel in given_channels:
            shows: _Shows = "synthetic" if samples else "real"
            columns.append(GridColumn(f"given {channel}", shows, number, foreground))
            continue
        if real:
            columns.append(GridColumn(f"real {channel}", "real", number, foreground))
        if inserts:
            columns.append(GridColumn(f"emptied {channel}", "without", number))
        if samples:
            columns.append(GridColumn(f"synthetic {channel}", "synthetic", number, foreground))
        if inserts:
            columns.append(GridColumn("difference", "difference", number))
    items = samples or real
    labelled = not items or any(item.labels is not None for item in items)
    if drawn and any(case.labels is not None for case in real):
        columns.append(GridColumn("real label", "real", None, foreground))
    if labelled:
        whose: _Shows = "synthetic" if samples else "real"
        columns += [GridColumn(name, whose, None, values) for name, values in beneath.items()]
        columns.append(GridColumn("drawn label" if drawn else "label", whose, None, foreground))
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
    without: Sample | None,
    windows: Sequence[Window],
    schema: Schema,
    *,
    oriented: bool,
) -> _Drawn:
    difference = None
    if sample is not None and without is not None:
        difference = Sample(sample.image - without.image, None)
    items = {"real": case, "without": without, "synthetic": sample, "difference": difference}
    reference: Sample | Case | None = sample if sample is not None else case
    assert reference is not None, "as many panels as samples or real cases"
    shape, values = reference.image.shape[1:], columns[0].values
    planes = three_planes(_only(_drawn_labels(reference, case), values), shape, reference.boxes)
    rows: list[list[Picture | None]] = [[] for _ in planes]
    for column in columns:
        item = items[column.shows]
        if item is None:
            rows = [[*row, None] for row in rows]
            continue
        same = item.image.shape[1:] == shape
        own = planes if same else three_planes(item.labels, item.image.shape[1:], item.boxes)
        labels = _only(_all_labels(item), column.values)
        for row, plane in zip(rows, own, strict=True):
            edge = LARGE if len(planes) == 1 else EDGE
            if column.channel is None:
                row.append(_label_panel(labels, plane, schema, edge))
            else:
                window = windows[column.channel]
                if column.shows == "difference":  # none of it is the middle grey
                    half = (window[1] - window[0]) / 2
                    window = -half, half
                row.append(_panel(item, plane, column.channel, window, labels, schema, edge))
    if oriented:
        rows = [_turned(row, plane) for row, plane in zip(rows, planes, strict=True)]
    return _caption(sample, case, planes), rows


def _caption(sample: Sample | None, case: Case | None, planes: Sequence[Plane]) -> str:
    """Return why a sample is rejected; the case beside it, its planes and class; and its edits."""
    provenance = {} if sample is None else sample.provenance
    placement = provenance.get("placement") or {}
    whole = sample is None or list(provenance.get("shape", ())) == list(sample.image.shape[1:])
    corner = () if whole else placement.get("corner") or ()
    words = [f"case {case.id}"] if case is not None else []
    words += ["a scan with predicted labels"] if MARKED in provenance else []
    if placement.get("slice_index") is not None:
        planes, corner = ((0, placement["slice_index"]),), ()
    axes = zip(planes, ("slice", "row", "column"), (*corner, 0, 0, 0), strict=False)
    words += [f"{name} {plane[1] + first}" for plane, name, first in axes if plane]
    words += [str(provenance["class"])] if provenance.get("class") else []
    edits = ", ".join([step["edit"] for step in provenance.get("edits") or ()])
    rejected = re.split(r", expected|; ", str(provenance.get("reject_reason") or ""))[0]
    about = ": ".join(filter(None, (", ".join(words), edits)))
    return f"REJECTED, {rejected}. {about}" if rejected else about


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
    ends = np.array([np.percentile(s, (1, 99.5), axis=1) for s in stacked])
    low, high = ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


# -- panels ----------------------------------------------------------------------------------------


def _panel(
    item: Sample | Case,
    plane: Plane,
    channel: int,
    window: Window,
    labels: LabelArray | None,
    schema: Schema,
    edge: int,
) -> Picture:
    """Draw a channel with outlines of labels; without these, of boxes in an image or a slice."""
    image = plane_of(item.image[channel], plane, schema.spacing)
    low, high = window
    grey = scaled(image[None], [(low, max(high, low + 1e-6))], 8)[0][0]
    flat = plane is None or plane[0] == 0
    cut = None if plane is None else plane[1]
    boxes = boxes_at(item.boxes, cut) if item.labels is None and flat else None
    inside = None if labels is None else plane_of(labels, plane, schema.spacing)
    return outlined(grey, inside, schema.foreground, edge=edge, boxes=boxes)


def _turned(row: Sequence[Picture | None], plane: Plane) -> list[Picture | None]:
    """Return the panels of a plane of oriented arrays as radiologists look at them."""
    return [None if panel is None else radiological(panel, plane) for panel in row]


def _label_panel(
    labels: LabelArray | None, plane: Plane, schema: Schema, edge: int, body: Mask | None = None
) -> Picture | None:
    """Draw a label map in colours: outside black, background grey, of it a body in the next."""
    if labels is None:
        return None
    flat, _ = enlarged(plane_of(labels, plane, schema.spacing), edge)
    picture = np.zeros((*flat.shape, 3), np.uint8)
    picture[flat == 0] = BEHIND
    if body is not None:
        inside, _ = enlarged(plane_of(body.astype(np.int16), plane, schema.spacing), edge)
        picture[(flat == 0) & (inside > 0)] = rgb(colour_of(len(schema.foreground)))
    for index, value in enumerate(schema.foreground):
        picture[flat == value] = rgb(colour_of(index))
    return picture


def _sheet(
    path: Path,
    cells: Sequence[_Drawn],
    across: int,
    names: Sequence[str],
    title: str = "",
    headings: Sequence[str] = (),
) -> Path:
    """Write cells side by side, below a title, the names of colours and headings of columns."""
    panels = [panel for _, rows in cells for row in rows for panel in row if panel is not None]
    least = [panel.shape[1] for panel in panels] or [EDGE]
    width = max(*least, *map(text_width, headings), 0) + GAP
    columns = len(cells[0][1][0])
    total = across * columns * width
    parts = [_texts([title], total)] if title else []
    parts += _legend(names, total)
    if headings:
        parts.append(_texts([*headings] * across, width))
    for first in range(0, len(cells), across):
        line = cells[first : first + across]
        parts.append(_texts([caption for caption, _ in line], columns * width))
        for rows in zip(*[rows for _, rows in line], strict=True):
            parts.append(_row([panel for row in rows for panel in row], width))
    around = ((0, 0), (0, total), (0, 0))
    sheet = np.concatenate([np.pad(p, around, constant_values=255)[:, :total] for p in parts])
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, png_bytes(sheet, grid=True))
    return path


def _row(panels: Sequence[Picture | None], width: int) -> Picture:
    height = max([panel.shape[0] for panel in panels if panel is not None], default=EDGE)
    row = np.full((height + GAP, len(panels) * width, 3), 255, np.uint8)
    for number, panel in enumerate(panels):
        if panel is not None:
            row[: panel.shape[0], number * width :][:, : panel.shape[1]] = panel
    return row


def _names(items: Sequence[Sample | Case], schema: Schema) -> list[str]:
    """Return the names of the colours: of labels; of boxes, if no item has labels."""
    if any(item.labels is not None for item in items):
        return [name for name, value in schema.labels.items() if value in schema.foreground]
    return list(schema.box_classes) if any(item.boxes is not None for item in items) else []


def _legend(names: Sequence[str], width: int) -> list[Picture]:
    lines: list[Picture] = []
    left = width
    for index, name in enumerate(names):
        word = text_line(name, text_width(name))
        if left + 22 + word.shape[1] > width:
            lines.append(text_line("", width))
            left = 0
        lines[-1][3:-3, left + 2 : left + 12] = rgb(colour_of(index))
        lines[-1][:, left + 14 :][:, : word.shape[1]] = word[:, : width - left - 14]
        left += 22 + word.shape[1]
    return lines


def _texts(texts: Sequence[str], width: int) -> Picture:
    """Draw texts side by side, each in as many lines as it takes within its width."""
    columns = [_lines(text, width) for text in texts]
    rows = []
    for row in zip_longest(*columns, fillvalue=""):
        rows.append(np.concatenate([text_line(line, width) for line in row], axis=1))
    return np.concatenate(rows)


def _lines(text: str, width: int) -> list[str]:
    """Break a text between words, and a word that alone is too long within."""
    lines = [""]
    for word in re.findall(r"\S+\s*", text):
        if lines[-1] and text_width((lines[-1] + word).rstrip()) > width - GAP:
            lines.append("")
        for letter in word:
            if text_width((lines[-1] + letter).rstrip()) > width - GAP:
                lines.append("")
            lines[-1] += letter
    return lines
