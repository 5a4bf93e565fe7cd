"""Inspection of a generator: latent interpolations, and the real cases nearest to its samples.

Preview grids with real cases stay in the run folder, below ``samples/``: they show patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.generator import Generator
from gansynth.core.schema import Case, Sample
from gansynth.metrics.nearest import find_nearest
from gansynth.report.image_grid import write_image_grid
from gansynth.runtime.files import write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth.sampling.sampler import Sampler

STEPS, ROWS = 8, 4
"""Samples of an interpolation, and interpolations of a preview grid, at the end of a fit."""
SHOWN, ACROSS = 16, 4
"""Samples of a preview grid with their nearest real case, and samples of one line of it."""


def walks(generator: Generator) -> bool:
    """Return whether a generator has a latent space."""
    from gansynth.core.generator import Generator

    return type(generator).interpolate is not Generator.interpolate


def write_interpolation(drawer: Sampler, folder: Path, rows: int, steps: int) -> dict[str, Any]:
    """Write ``interpolation.png``: each row leads from one sample's latent to the next one's.

    Row ``i`` begins with sample ``2 i`` of the drawer's seed and ends at the latent of the next
    one, generated with the same condition.

    Returns:
        A JSON-able report with the preview grid's path. For each row it has the length of each
        step: root mean square over voxels and channels, in standard deviations of the grid's
        intensities. The evenness is mean over largest: 1 if all are equal, None if nothing changes.
    """
    walked = [drawer.interpolate(2 * row, steps) for row in range(rows)]
    stacked = np.stack([[sample.image for sample in walk] for walk in walked])
    deviation = stacked.std(axis=(0, 1, *range(3, stacked.ndim)), keepdims=True)
    apart = np.diff(stacked / np.maximum(deviation, 1e-6), axis=1)
    lengths = np.sqrt((apart**2).mean(axis=tuple(range(2, apart.ndim)))).tolist()
    evenness = [sum(row) / len(row) / max(row) if max(row) else None for row in lengths]
    captions = [
        f"sample {2 * row} to {2 * row + 1}: "
        + ("nothing changes" if even is None else f"evenness {even:.2f}")
        for row, even in enumerate(evenness)
    ]
    cells = list(zip(captions, walked, strict=True))
    path = write_image_grid(folder / "interpolation.png", cells, drawer.run.generator.schema)
    return {
        "sheet": str(path),
        "evenness": [None if even is None else round(even, 4) for even in evenness],
        "steps": [[round(length, 4) for length in row] for row in lengths],
    }


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
    real = [space.to_generator(read(n.case), n.placement) for n in nearest.near[:SHOWN]]
    pairs = zip(samples, real, strict=False)
    captions = [
        "synthetic | nearest real, "
        + (f"distance {n.distance:.2f}" if n.ratio is None else f"ratio {n.ratio:.2f}")
        for n in nearest.near[:SHOWN]
    ]
    cells = list(zip(captions, pairs, strict=True))
    sheet = write_image_grid(
        folder / "nearest.png", cells, drawer.run.generator.schema, across=ACROSS
    )
    document = nearest.to_json()
    for entry, sample in zip(document["samples"], samples, strict=True):
        entry["index"], entry["seed"] = sample.provenance["index"], sample.provenance["seed"]
    write_json_atomic(folder / "nearest.json", document)
    if nearest.hint:
        reporter.warn(f"{sheet}: {nearest.hint}")
    return {
        "sheet": str(sheet),
        "table": str(folder / "nearest.json"),
        **{key: document[key] for key in ("compared", "usual_distance", "median_ratio")},
    }
