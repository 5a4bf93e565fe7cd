"""A watch on mode collapse while a generator trains: are its samples still unlike each other?"""

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
from gansynth.fitting.setup import Job
from gansynth.metrics.comparison import Window, window_of
from gansynth.metrics.diversity import PAIRS, Likeness, owners_of, pairwise, windowed
from gansynth.runtime.files import write_bytes_atomic
from gansynth.runtime.progress import Reporter
from gansynth.sampling.run import Run

FILE = "diversity.csv"
COLUMNS = ("step", "samples", "samples_error", "real", "real_error")
AT_ONCE = 8
"""Samples drawn at once."""
ERRORS = 2.0
"""Standard errors by which samples must be more alike than real cases ..."""
LOST = 0.3
"""... and the share of what real cases differ by that samples must have lost. A generator of m
equally frequent images has lost 1/m. Healthy ones had lost 0.19 at most."""
FALLEN = 0.15
"""Share by which a collapse is worse than the best before it."""
REGAINED = 0.2
"""Share lost below which a collapse is over."""
GAIN = 0.02
"""Share by which a finding must be better than the best to count as progress ..."""
PATIENCE = 5
"""... and how many may come without."""


@dataclass(frozen=True)
class Finding:
    """How alike samples, and real cases, are after an optimiser step."""

    step: int
    samples: Likeness
    real: Likeness

    @property
    def lost(self) -> float:
        """Share of the real cases' unlikeness that samples lack; below 0 if they differ more."""
        return (self.samples.mean - self.real.mean) / max(1 - self.real.mean, 1e-6)

    @property
    def clear(self) -> bool:
        """Whether samples are more alike by more than chance and by enough to matter."""
        error = np.hypot(self.samples.error, self.real.error)
        return self.samples.mean - self.real.mean > ERRORS * error and self.lost > LOST

    def row(self) -> list[str]:
        """A line of ``diversity.csv``."""
        numbers = (self.samples.mean, self.samples.error, self.real.mean, self.real.error)
        return [str(self.step), *(f"{number:.6g}" for number in numbers)]

    @classmethod
    def parse(cls, row: Sequence[str]) -> Finding:
        """Read back ``row``."""
        a, b, c, d = map(float, row[1:])
        return cls(int(row[0]), Likeness(a, b, 0), Likeness(c, d, 0))


def collapsed(findings: Sequence[Finding], steps: int) -> bool:
    """Whether the last of findings lies in a collapse.

    A young generator's samples are all alike, and grow apart as it learns. So a collapse begins
    where two clear findings in a row have lost ``FALLEN`` more than the best before them, or where
    clear findings get no better for ``PATIENCE`` of them and a tenth of the run. It ends when less
    than ``REGAINED`` is lost. ``steps`` are those of the whole run.
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


def read_findings(path: Path) -> list[Finding]:
    """Lines of a ``diversity.csv``; none if it is not there. What a cut-off wrote is left out."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Finding.parse(row) for row in list(csv.reader(file))[1:]]


class DiversityMonitor:
    """Measures the same samples at every call, and says when they collapse and when that is over.

    ``options.diversity`` samples are drawn; ``diversity.csv`` is kept in the run's folder.
    """

    def __init__(self, job: Job, run: Run, reporter: Reporter) -> None:
        self.job, self.path, self.reporter = job, run.folder / FILE, reporter
        self.number, self.seed = job.options.diversity, job.options.seed + 2
        self.drawer = job.drawer(run, 2)

    def __call__(self, step: int) -> dict[str, float]:
        """Measure, write a line, and warn if need be.

        Lines of this step and later ones are dropped first: the run has gone back. Returns
        ``diversity/samples`` and ``diversity/real``, for the run's loggers.
        """
        before = [finding for finding in read_findings(self.path) if finding.step < step]
        found = Finding(step, self._likeness_of_samples(), self._real[1])
        self._write([*before, found])
        was, now = (collapsed(f, self.job.options.steps) for f in (before, [*before, found]))
        if now and not was:
            self.reporter.warn(_alarm(found, self.job.generator))
        elif was and not now:
            self.reporter.say(f"diversity: {_numbers(found)}: the collapse is over")
        return {"diversity/samples": found.samples.mean, "diversity/real": found.real.mean}

    def report(self, step: int) -> dict[str, float | None]:
        """The last likenesses at a step, measured now if need be; None where there is no pair."""
        findings = read_findings(self.path)
        if not findings or findings[-1].step != step:
            self(step)
            findings = read_findings(self.path)
        last = findings[-1]
        if last.clear and not collapsed(findings, self.job.options.steps):
            self.reporter.warn(_alarm(last, self.job.generator, "mode collapse, or too few steps"))
        means = {"samples": last.samples.mean, "real": last.real.mean}
        return {k: round(v, 4) if np.isfinite(v) else None for k, v in means.items()}

    def _likeness_of_samples(self) -> Likeness:
        starts = range(0, self.number, AT_ONCE)
        parts = [self.drawer.draw_raw(i, min(AT_ONCE, self.number - i)) for i in starts]
        drawn = [sample for part in parts for sample in part]
        kinds = [sample.provenance.get(self._by) for sample in drawn]
        images = windowed([sample.image for sample in drawn], self._real[0])
        return pairwise(images, PAIRS, np.random.default_rng(self.seed), kinds=kinds)

    @cached_property
    def _real(self) -> tuple[Window, Likeness]:
        """Window and likeness of real crops, of as many people as there are."""
        rng, source = np.random.default_rng(self.seed), self.job.source
        order = [str(case_id) for case_id in rng.permutation(source.train_ids)]
        turns: dict[str, list[str]] = {}
        for case_id in order:
            turns.setdefault(source.subject(case_id), []).append(case_id)
        by_turn = [case for turn in zip_longest(*turns.values()) for case in turn if case]
        cases = [self.job.crops.cut(case_id, rng) for case_id in by_turn[: self.number]]
        window = window_of([case.image for case in cases])
        images = windowed([case.image for case in cases], window)
        kinds = [self._kind(case) for case in cases]
        return window, pairwise(images, PAIRS, rng, owners=owners_of(cases), kinds=kinds)

    @property
    def _by(self) -> str:
        """What a conditioned generator is asked for; its samples' provenance names it so."""
        heeds = self.job.generator.heeds
        return next((kind for kind in ("class", "foreground") if kind in heeds), "none")

    def _kind(self, case: Case) -> str | None:
        """The name of a real case's kind; None where nothing is asked."""
        if self._by == "class" and case.label_class is not None:
            return self.job.generator.schema.classes[case.label_class]
        if self._by == "foreground" and case.labels is not None:
            return "with" if (case.labels > 0).any() else "without"
        return None

    def _write(self, findings: Sequence[Finding]) -> None:
        rows = [COLUMNS, *(finding.row() for finding in findings)]
        write_bytes_atomic(self.path, "".join(",".join(row) + "\n" for row in rows).encode())


def _numbers(found: Finding) -> str:
    return (
        f"step {found.step}, mean MS-SSIM of pairs of samples {found.samples.mean:.2f} +- "
        f"{found.samples.error:.2f}, of real cases {found.real.mean:.2f} +- {found.real.error:.2f}"
    )


def _alarm(found: Finding, generator: Generator, cause: str = "mode collapse") -> str:
    """One line: numbers, likely cause, way out."""
    ways, options = ["lower rates (--set lr_generator=...)"], generator.options
    if getattr(options, "objective", "wgan-gp") != "wgan-gp":
        ways.append("--set objective=wgan-gp")
    if getattr(options, "augment", None) == ():
        ways.append("--set augment=[translation,cutout] if cases are few")
    return (
        f"diversity: {_numbers(found)}: as alike as if there were {max(1, round(1 / found.lost))} "
        f"different image(s) ({cause}), expected samples as unlike as real cases. If it does not "
        f"pass, fit again with {', or '.join(ways)}; an earlier checkpoint may be better"
    )
