"""The report of an evaluation: an HTML file with figures, and a Markdown file."""

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

    The HTML file is self-contained: no network, no other file. Its numbers link into
    ``evaluation.json``, which the caller writes into the same folder.

    Args:
        document: the evaluation; the report notes the parts that are missing.
        folder: created if missing.
        pictures: name of a point of the maps -> PNG file. They are slices of patients' images:
            sharing the report shares them, and it warns so.
        strip: side -> some of its images as PNG files, shown on top; they include patients.

    Returns:
        Name of each file -> its path.
    """
    from gansynth.evaluation.report.page import compose
    from gansynth.report import rendering

    style, script = (rendering.template(name, __name__) for name in ("evaluation.css", "maps.js"))
    report = compose(document, pictures, strip)
    return rendering.write_report(report, folder, style=style, script=script)
