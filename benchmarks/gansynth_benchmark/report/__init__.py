"""The report of a benchmark: a page with figures, and a Markdown file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gansynth_benchmark.report.overlays import Overlay


def write_report(
    document: Mapping[str, Any], folder: Path, overlays: Sequence[Overlay] = ()
) -> dict[str, Path]:
    """Write ``report.html`` and ``report.md`` from a benchmark's results.

    The HTML file is self-contained.

    Args:
        document: the results; the report states which parts are missing or empty.
        folder: where to write; created if missing.
        overlays: pictures of the cases from ``overlays.worst_cases``. They are slices of test
            images, so the report then contains patient data.

    Returns:
        Name of each file -> its path.
    """
    from gansynth.report import page
    from gansynth.report.numbers import joined
    from gansynth_benchmark.report import figures, tables
    from gansynth_benchmark.report.study import ReportData
    from gansynth_benchmark.report.verdict import verdict

    study = ReportData(document)
    slopes, curves = list(figures.slopes(study)), list(figures.curves(study))
    drawn = {f"curve-{n}": figure for n, (_, figure) in enumerate(curves)}
    drawn |= {f"slope-{n}": figure for n, (_, figure) in enumerate(slopes)}
    drawn |= {f"worst-{n}": page.data_uri(overlay.png) for n, overlay in enumerate(overlays)}
    compared = tables.compared_measures(study)
    drawn |= {f"forest-{n}": figures.forest(study, key) for n, key in enumerate(compared)}
    found = figures.worth(study)
    if found:
        drawn["worth"] = found
    spread = tables.spread_rows(study)
    if spread:
        drawn["spread"] = figures.spread(spread)
    text = page.compose(
        "benchmark.md",
        __package__,
        root=document,
        study=study,
        verdict=verdict(document),
        sizes=joined(map(str, study.sizes)),
        tables=tables,
        compared=compared,
        curves=[title for title, _ in curves],
        slopes=[title for title, _ in slopes],
        overlays=overlays,
        drawn=drawn,
        parts=figures.PARTS,
    )
    return page.write_report(text, drawn, folder)
