"""Monitor of mode collapse during training, by the similarity of samples to each other."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import numpy as np

from gansynth.core.generator import Generator
from gansynth.core.schema import Case
from gansynth.fitting.setup import FitJob
from gansynth.metrics.comparison import Window, window_of
from gansynth.metrics.diversity import PAIRS, MeanSimilarity, owners_of, pairwise, windowed
from gansynth.runtime.files import write_bytes_atomic
from gansynth.runtime.progress import Reporter
from gansynth.sampling.run import Run

FILE = "diversity.csv"
COLUMNS = ("step", "samples", "samples_error", "real", "real_error")
AT_ONCE = 8
"""Samples generated at once."""
ERRORS = 2.0
"""Standard errors by which samples must be more similar than real cases ..."""
LOST = 0.3
"""... and least share of the diversity of real cases that samples must have lost. A generator of m
equally frequent images has lost 1/m. Generators without collapse had lost 0.19 at most."""
FALLEN = 0.15
"""Loss of diversity, beyond the best before, that is a collapse."""
REGAINED = 0.2
"""Loss of diversity below which a collapse is over."""
GAIN = 0.02
"""Least gain over the best finding that counts as progress ..."""
PATIENCE = 5
"""... and most findings without progress."""


@dataclass(frozen=True)
class DiversityReading:
    """Similarity of samples, and of real cases, after an optimiser step."""

    step: int
    samples: MeanSimilarity
    real: MeanSimilarity

    @property
    def lost(self) -> float:
        """Return the share of the real diversity that samples lack; below 0 if they have more."""
        return (self.samples.mean - self.real.mean) / max(1 - self.real.mean, 1e-6)

    @property
    def clear(self) -> bool:
        """Return whether samples are more similar, significantly and by enough to matter."""
        error = np.hypot(self.samples.error, self.real.error)
        return self.samples.mean - self.real.mean > ERRORS * error and self.lost > LOST

    def row(self) -> list[str]:
        """Return a line of ``diversity.csv``."""
        numbers = (self.samples.mean, self.samples.error, self.real.mean, self.real.error)
        return [str(self.step), *(f"{number:.6g}" for number in numbers)]

    @classmethod
    def parse(cls, row: Sequence[str]) -> DiversityReading:
        """Read back ``row``."""
        a, b, c, d = map(float, row[1:])
        return cls(int(row[0]), MeanSimilarity(a, b, 0), MeanSimilarity(c, d, 0))


def collapsed(findings: Sequence[DiversityReading], steps: int) -> bool:
    """Return whether the last of the findings lies in a collapse.

    Samples of a new generator are all similar and diverge as it learns. So a collapse begins where
    two clear findings in a row have lost ``FALLEN`` more than the best before them. It also begins
    where clear findings do not improve for ``PATIENCE`` of them and a tenth of the run. It ends
    when less than ``REGAINED`` is lost. ``steps``: of the whole run.
    """
    inside, best = False, 0
    for now, finding in enumerate(findings):
        if finding.lost < findings[best].lost - GAIN:
            best = now
        pair = findings[max(now - 1, 0) : now + 1]
        fallen = min(f.lost for f in pair) > findings[best].lost + FALLEN
        idle = now - best >= PATIENCE and finding.step - findings[best].step >= steps / 10
        begins = (fallen or idle) and all(f.clear for f in pair)
        inside = finding.lost >= REGAINED if inside else begins
    return inside


def read_findings(path: Path) -> list[DiversityReading]:
    """Read the findings of a ``diversity.csv``; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [DiversityReading.parse(row) for row in list(csv.reader(file))[1:]]


class DiversityMonitor:
    """Measures the same samples at every call, and reports begin and end of a collapse.

    ``options.diversity`` samples are generated; ``diversity.csv`` is in the run's folder.
    """

    def __init__(self, job: FitJob, run: Run, reporter: Reporter) -> None:
        self.job, self.path, self.reporter = job, run.folder / FILE, reporter
        self.number, self.seed = job.options.diversity, job.options.seed + 2
        self.sampler = job.sampler(run, 2)

    def __call__(self, step: int) -> dict[str, float]:
        """Measure, write a line, and warn if necessary.

        Lines of this step and later ones are dropped first, after a rollback. Returns
        ``diversity/samples`` and ``diversity/real``, for the run's loggers.
        """
        before = [finding for finding in read_findings(self.path) if finding.step < step]
        current = DiversityReading(step, self._likeness_of_samples(), self._real[1])
        self._write([*before, current])
        was, now = (collapsed(f, self.job.options.steps) for f in (before, [*before, current]))
        if now and not was:
            self.reporter.warn(_alarm(current, self.job.generator))
        elif was and not now:
            self.reporter.say(f"diversity: {_numbers(current)}: the collapse is over")
        return {"diversity/samples": current.samples.mean, "diversity/real": current.real.mean}

    def report(self, step: int) -> dict[str, float | None]:
        """Return the similarities at a step, measured if necessary; None without pairs."""
        findings = read_findings(self.path)
        if not findings or findings[-1].step != step:
            self(step)
            findings = read_findings(self.path)
        last = findings[-1]
        if last.clear and not collapsed(findings, self.job.options.steps):
            self.reporter.warn(_alarm(last, self.job.generator, "mode collapse, or too few steps"))
        means = {"samples": last.samples.mean, "real": last.real.mean}
        return {k: round(v, 4) if np.isfinite(v) else None for k, v in means.items()}

    def _likeness_of_samples(self) -> MeanSimilarity:
        starts = range(0, self.number, AT_ONCE)
        parts = [self.sampler.draw_raw(i, min(AT_ONCE, self.number - i)) for i in starts]
        drawn = [sample for part in parts for sample in part]
        kinds = [{**sample.notes, **sample.provenance}.get(self._by) for sample in drawn]
        images = windowed([sample.image for sample in drawn], self._real[0])
        return pairwise(images, PAIRS, np.random.default_rng(self.seed), kinds=kinds)

    @cached_property
    def _real(self) -> tuple[Window, MeanSimilarity]:
        """Return window and similarity of real crops, of as many subjects as possible."""
        rng, source = np.random.default_rng(self.seed), self.job.source
        order = [str(case_id) for case_id in rng.permutation(source.train_ids)]
        turns: dict[str, list[str]] = {}
        for case_id in order:
            turns.setdefault(source.header(case_id).subject, []).append(case_id)
        by_turn = [case for turn in zip_longest(*turns.values()) for case in turn if case]
        cases = [self.job.crops.cut(case_id, rng) for case_id in by_turn[: self.number]]
        window = window_of([case.image for case in cases])
        images = windowed([case.image for case in cases], window)
        kinds = [self._kind(case) for case in cases]
        return window, pairwise(images, PAIRS, rng, owners=owners_of(cases), kinds=kinds)

    @property
    def _by(self) -> str:
        """Return the condition of a generator, as named in the provenance of samples."""
        takes = self.job.generator.capabilities.takes
        return next((kind for kind in ("class", "foreground") if kind in takes), "none")

    def _kind(self, case: Case) -> str | None:
        if self._by == "class" and case.label_class is not None:
            return self.job.generator.schema.classes[case.label_class]
        if self._by == "foreground" and case.labels is not None:
            return "with" if (case.labels > 0).any() else "without"
        return None

    def _write(self, findings: Sequence[DiversityReading]) -> None:
        rows = [COLUMNS, *(finding.row() for finding in findings)]
        write_bytes_atomic(self.path, "".join(",".join(row) + "\n" for row in rows).encode())


def _numbers(finding: DiversityReading) -> str:
    return (
        f"step {finding.step}, mean MS-SSIM of pairs of samples {finding.samples.mean:.2f} +- "
        f"{finding.samples.error:.2f}, of real cases {finding.real.mean:.2f} +- "
        f"{finding.real.error:.2f}"
    )


def _alarm(finding: DiversityReading, generator: Generator, cause: str = "mode collapse") -> str:
    remedy = generator.capabilities.remedy("collapse")
    return (
        f"diversity: {_numbers(finding)}: as similar as {max(1, round(1 / finding.lost))} "
        f"different image(s) ({cause}), expected samples as diverse as real cases. If it does not "
        f"pass, fit again with {remedy}; an earlier checkpoint may be better"
    )
