"""Sample sheets during a fit: the same conditions and seeds each time, beside their real cases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth.data.views import draws_labels, given_channels
from gansynth.fitting.setup import Job
from gansynth.report.sheets import write_sheet
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.run import Run

COLUMNS = 8
"""Samples on a sheet."""


class Preview:
    """Draws ``samples/step-XXXXXXXX.png`` with the weights the generator holds.

    Args:
        job: what is being fitted.
        out: its run folder.
        manifest: the run's.
    """

    def __init__(self, job: Job, out: Path, manifest: Mapping[str, Any]) -> None:
        self.job, self.out = job, out
        run = Run(out, job.generator, dict(manifest))
        self.drawer = SampleDrawer(run, job.source, job.edits, seed=job.options.seed)

    def __call__(self, step: int) -> Path:
        """Draw and write a sheet; its path."""
        samples = [self.drawer.draw_raw(index, 1)[0] for index in range(COLUMNS)]
        path = self.out / "samples" / f"step-{step:08d}.png"
        real = [self.drawer.beside(sample) for sample in samples]
        options, schema = self.job.generator.options, self.job.generator.schema
        write_sheet(
            *(path, samples, real, schema),
            title=f"step {step}",
            given=given_channels(options),
            drawn=draws_labels(options),
        )
        return path
