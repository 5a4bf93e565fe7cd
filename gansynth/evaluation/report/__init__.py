"""The report of an evaluation: one HTML file to look at, one Markdown file to read anywhere."""

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

    The HTML file is whole in itself: no network, no other file. Its numbers are links into
    ``evaluation.json``, which the caller writes into the same folder.

    Args:
        document: the evaluation; any part may be missing, null or empty, which the report then
            says.
        folder: where to write; made if it is not there.
        pictures: name of a point of the maps -> PNG file. They are slices of patients' images,
            which the report warns of: who passes the report on passes these on.
        strip: side -> some of its images as PNG files, shown on top; patients' likewise.

    Returns:
        Name of each file -> its path.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    from gansynth.evaluation.report.page import compose
    from gansynth.report import rendering

    style, script = (rendering.template(name, __name__) for name in ("evaluation.css", "maps.js"))
    report = compose(document, pictures, strip)
    return rendering.write_report(report, folder, style=style, script=script)
