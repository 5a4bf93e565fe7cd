"""The report of a benchmark: one HTML file to look at, one Markdown file to read anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gansynth.benchmark.report.overlays import Overlay


def write_report(
    document: Mapping[str, Any], folder: Path, overlays: Sequence[Overlay] = ()
) -> dict[str, Path]:
    """Write ``report.html`` and ``report.md`` from a benchmark's results.

    The HTML file is whole in itself: no network, no other file. Its numbers are links into
    ``results.json``, which the caller writes into the same folder.

    Args:
        document: the results; any part may be missing or empty, which the report then says.
        folder: where to write; made if it is not there.
        overlays: pictures of the cases that ``overlays.worst_cases`` names. They are slices of
            test images: who passes the report on passes these on.

    Returns:
        Name of each file -> its path.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    from gansynth.benchmark.report.page import compose
    from gansynth.report import rendering

    return rendering.write_report(compose(document, overlays), folder)
