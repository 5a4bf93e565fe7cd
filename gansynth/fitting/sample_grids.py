"""Preview grids during a fit: the same conditions and seeds each time, beside real cases."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gansynth.fitting.setup import FitJob
from gansynth.report.image_grid import write_sample_grid
from gansynth.runtime.progress import Reporter
from gansynth.sampling.inspect import SHOWN_SAMPLES, write_nearest
from gansynth.sampling.manifest import Run

COLUMNS, LEAST, VALUES = 8, 4, 1 << 24
"""Samples on a preview grid, at most and at least, and values of images that more must not have: of
volumes with several channels each is a dozen panels, and takes seconds."""
UNTRAINED = "preview"  # name of the only grid of a generator without training


class SampleGrid:
    """Writes ``samples/step-XXXXXXXX.png`` with the current weights; without training, one grid."""

    def __init__(self, job: FitJob, run: Run) -> None:
        self.job, self.folder, self.sampler = job, run.folder / "samples", job.sampler(run)

    def __call__(self, step: int) -> Path:
        """Write a preview grid; return its path."""
        samples = [self.sampler.draw_raw(index, 1)[0] for index in range(columns_of(self.job))]
        name, title = f"step-{step:08d}", f"step {step}"
        if not self.job.trains:
            name, title = UNTRAINED, ""
        path = self.folder / f"{name}.png"
        real = [self.sampler.matching_real_case(sample) for sample in samples]
        can, schema = self.job.generator.capabilities, self.job.generator.schema
        write_sample_grid(
            path,
            samples,
            real,
            schema,
            title=title,
            given_channels=can.channels,
            drawn=can.draws == "labels",
            oriented=self.job.space.oriented,
        )
        return path


def columns_of(job: FitJob) -> int:
    """Return the number of samples on a preview grid."""
    values = len(job.generator.schema.channels) * math.prod(job.space.size)
    return min(COLUMNS, max(LEAST, VALUES // max(values, 1)))


def final_sheets(job: FitJob, run: Run, reporter: Reporter) -> dict[str, Any]:
    """Write the grid of the nearest real cases of a generator from noise; return its report."""
    if not job.generator.capabilities.from_noise:
        return {}
    sampler = job.sampler(run)
    samples = sampler.draw_raw(0, SHOWN_SAMPLES)
    return {
        "nearest": write_nearest(sampler, samples, run.folder / "samples", reporter, load=job.cache)
    }
