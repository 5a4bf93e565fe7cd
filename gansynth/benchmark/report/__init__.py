"""The report of a benchmark: an HTML file with graphics, and a Markdown file."""

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

    The HTML file is self-contained. Its numbers are links into ``results.json``, which the caller
    writes into the same folder.

    Args:
        document: the results; the report states which parts are missing or empty.
        folder: where to write; created if missing.
        overlays: pictures of the cases from ``overlays.worst_cases``. They are slices of test
            images, so the report then contains patient data.

    Returns:
        Name of each file -> its path.
    """
    from gansynth.benchmark.report.page import compose
    from gansynth.report import rendering

    return rendering.write_report(compose(document, overlays), folder)
