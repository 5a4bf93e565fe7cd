"""The report of an evaluation: a page with figures, and a Markdown file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

NO_PICTURES: Mapping[str, bytes] = MappingProxyType({})
NO_STRIP: Mapping[str, Sequence[bytes]] = MappingProxyType({})


def write_report(
    document: Mapping[str, Any],
    folder: Path,
    pictures: Mapping[str, bytes] = NO_PICTURES,
    strip: Mapping[str, Sequence[bytes]] = NO_STRIP,
) -> dict[str, Path]:
    """Write ``report.html`` and ``report.md`` from an evaluation's document.

    The HTML file is self-contained: no network, no other file.

    Args:
        document: the evaluation; the report notes the parts that are missing.
        folder: created if missing.
        pictures: name of a point of the maps -> PNG file. They are slices of patients' images:
            sharing the report shares them, and it warns so.
        strip: side -> some of its images as PNG files, shown on top; they include patients.

    Returns:
        Name of each file -> its path.
    """
    from gansynth.report import page
    from gansynth_evaluate.report import figures, tables

    drawn = dict(figures.drawn(document))
    for side, shown in strip.items():
        drawn |= {f"{side}-{n}": page.data_uri(png) for n, png in enumerate(shown)}
    drawn |= {f"picture-{n}": page.data_uri(png) for n, png in enumerate(pictures.values())}
    text = page.compose(
        "evaluation.md",
        __package__,
        root=document,
        tables=tables,
        figures=figures,
        drawn=drawn,
        pictures=pictures,
        strip=strip,
        words_of=tables.words_of_points(document),
    )
    return page.write_report(text, drawn, folder)
