"""Jobs of a benchmark's specs: what a worker process is told, and the command that starts it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.benchmark.jobs.job import WORK, Job
from gansynth.benchmark.jobs.store import Store
from gansynth.benchmark.specs import FIT, Spec, write_work
from gansynth.benchmark.words import RUN

DATA, TOLD = "data", "work"


@dataclass(frozen=True)
class Jobs:
    """Makes jobs that share a folder and a data set.

    Attributes:
        folder: where lists of cases, and what processes are told, are written.
        request: how the data set is opened, as JSON.
        env: variables of all processes but those that fit a generator.
    """

    folder: Path
    store: Store
    request: Mapping[str, Any]
    env: Mapping[str, str]

    def of(self, spec: Spec, held_out: Sequence[str]) -> Job:
        """A spec's job; writes what its process is told.

        Args:
            held_out: cases that a fit must not see.
        """
        places: dict[str, Any] = {"request": self.request}
        if spec.kind == FIT:
            # Beside the jobs: a run remembers where its cases are.
            places["division"] = str(self.folder / DATA / spec.key)
            places["held_out"] = sorted(held_out)
        elif spec.needs:
            places["run"] = str(self.store.folder / spec.needs[0] / RUN)
        told = write_work(spec, places, self.folder / TOLD)
        return Job(
            spec.key,
            spec.title,
            spec.kind,
            (sys.executable, "-m", "gansynth.benchmark.worker", str(told), WORK),
            folder=self.store.folder / spec.key,
            needs=spec.needs,
            env={} if spec.kind == FIT else dict(self.env),
            resumable=True,
        )
