"""The real cases nearest to samples.

Grids of them stay in the run folder, below ``samples/``: they show patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gansynth.core.schema import Case, Sample
from gansynth.metrics.nearest import find_nearest
from gansynth.report.image_grid import write_image_grid
from gansynth.runtime.files import write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth.sampling.sampler import Sampler

SHOWN_SAMPLES, ACROSS = 16, 4
"""Samples of a preview grid with their nearest real case, and samples of one line of it."""


def write_nearest(
    drawer: Sampler,
    samples: Sequence[Sample],
    folder: Path,
    reporter: Reporter,
    *,
    load: Callable[[str], Case] | None = None,
) -> dict[str, Any]:
    """Write ``nearest.png`` and ``nearest.json``: samples beside their nearest training case.

    Both show, or name, patients, so the folder should be the run's own.

    Args:
        samples: in the generator's own space; the preview grid shows the first ones.

    Returns:
        A JSON-able report: the files, the usual distance, the median ratio.
    """
    read, space = load or drawer.source.load, drawer.run.space
    people = {i: drawer.source.header(i).subject for i in drawer.source.train_ids}
    nearest = find_nearest(samples, people, space, load=read, reporter=reporter)
    cells = []
    for sample, near in zip(samples[:SHOWN_SAMPLES], nearest.near[:SHOWN_SAMPLES], strict=True):
        real = space.to_generator(read(near.case), near.placement)
        nearness = (
            f"distance {near.distance:.2f}" if near.ratio is None else f"ratio {near.ratio:.2f}"
        )
        cells.append((f"synthetic | nearest real, {nearness}", (sample, real)))
    sheet = write_image_grid(
        folder / "nearest.png",
        cells,
        drawer.run.generator.schema,
        across=ACROSS,
        oriented=space.oriented,
    )
    document = nearest.to_json()
    for entry, sample in zip(document["samples"], samples, strict=True):
        entry["index"], entry["seed"] = sample.provenance["index"], sample.provenance["seed"]
    write_json_atomic(folder / "nearest.json", document)
    if nearest.hint:
        reporter.warn(f"{sheet}: {nearest.hint}")
    report = {"sheet": str(sheet), "table": str(folder / "nearest.json")}
    for key in ("compared", "usual_distance", "median_ratio"):
        report[key] = document[key]
    return report
