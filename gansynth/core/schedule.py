"""Schedules of the share of synthetic samples over a host's training, shared by all hosts.

A schedule gives, for every moment of a training, the share of synthetic samples and the real cases
that may be drawn. Needs the standard library only.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from gansynth.core.ratio import Ratio
from gansynth.runtime.errors import UsageFault

Kind = Literal["constant", "finetune", "anneal"]
Real = Literal["all", "none", "chosen"]
Key = TypeVar("Key", bound=str | int)  # a host's key of a real case: its id or index
FORMS = "constant, finetune:10%@80% or anneal:50%-100%"


@dataclass(frozen=True)
class ScheduledMix:
    """The samples that may be drawn at one moment of a training.

    ``p``: share of synthetic samples. ``real``: ``all``; ``none`` (a missing sample is waited for);
    ``chosen`` (fine-tuning).
    """

    p: float
    real: Real


@dataclass(frozen=True)
class Schedule:
    """How the ratio changes over a training, whose progress runs from 0 to 1.

    ``constant`` keeps it. ``finetune`` draws only synthetic samples up to ``begin``, then only real
    ones, from a subset of the cases (Shin et al. 2018 fine-tune on 10 %). ``anneal`` keeps the
    ratio up to ``begin``, then lowers the synthetic share linearly to 0 at ``end``.

    ``kind``: ``constant``, ``finetune`` or ``anneal``. ``begin``: progress at the start of the
    change, 0 to 1. ``end``: progress at the end of annealing. ``share``: share of the real cases
    used for fine-tuning, above 0.
    """

    kind: Kind = "constant"
    begin: float = 0.0
    end: float = 1.0
    share: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Parse ``constant``, ``finetune:SHARE%@BEGIN%``, ``anneal[:BEGIN%[-END%]]``."""
        number = r"(\d+(?:\.\d+)?)%"
        if text == "constant":
            return cls()
        match = re.fullmatch(f"finetune:{number}@{number}", text)
        if match:
            share, begin = float(match[1]) / 100, float(match[2]) / 100
            if 0 < share <= 1 and 0 < begin < 1:
                return cls("finetune", begin=begin, share=share)
        match = re.fullmatch(f"anneal(?::{number}(?:-{number})?)?", text)
        if match:
            begin, end = float(match[1] or "0") / 100, float(match[2] or "100") / 100
            if 0 <= begin < end <= 1:
                return cls("anneal", begin=begin, end=end)
        raise UsageFault(
            "schedule.malformed",
            f"--schedule {text!r}: expected {FORMS}: the share of the real cases fine-tuning may "
            "draw, and shares of the training at which it begins (and ends)",
        )

    def __str__(self) -> str:
        if self.kind == "finetune":
            return f"finetune:{100 * self.share:g}%@{100 * self.begin:g}%"
        if self.kind == "anneal":
            return f"anneal:{100 * self.begin:g}%-{100 * self.end:g}%"
        return "constant"

    def check(self, ratio: Ratio) -> None:
        """Refuse (UsageFault) a ratio that makes no sense with this schedule."""
        if self.kind == "finetune" and ratio.p < 1:
            raise UsageFault(
                "schedule.ratio-with-real-cases",
                f"--ratio {ratio} with --schedule {self}: fine-tuning follows a phase of synthetic "
                "samples only, expected --ratio 0:1",
            )
        if self.kind == "anneal" and ratio.p == 0:
            raise UsageFault(
                "schedule.nothing-to-anneal",
                f"--ratio {ratio} with --schedule {self}: nothing to anneal",
            )

    def at(self, progress: float, ratio: Ratio) -> ScheduledMix:
        """Return what may be drawn at a moment. ``progress``: of the training, 0 to 1."""
        p = ratio.p
        if self.kind == "finetune" and progress >= self.begin:
            return ScheduledMix(0.0, "chosen")
        if self.kind == "anneal":
            left = (self.end - progress) / (self.end - self.begin)
            p *= min(1.0, max(0.0, left))
        return ScheduledMix(p, "none" if p >= 1 else "all")

    def turn(self, total: int) -> int:
        """Return the first of ``total`` steps (or epochs) whose middle is in fine-tuning."""
        return max(0, math.ceil(self.begin * total - 0.5))

    def restarted(self, done: int, total: int) -> float:
        """Return the time, 0 to ``total``, at which to evaluate a learning-rate schedule.

        The schedule restarts with fine-tuning, which is a training of its own. Otherwise the rate
        would be near zero for the real cases.
        """
        turn = self.turn(total)
        if self.kind != "finetune" or not 0 < turn < total:
            return done
        begin, end = (0, turn) if done < turn else (turn, total)
        return (done - begin) * total / (end - begin)

    def tuning_note(self, total: int, unit: str, *, ours: bool) -> str:
        """Return a note on the learning rate, set by gansynth or the host; may be empty."""
        if self.kind != "finetune":
            return ""
        when = f"fine-tuning begins after {self.turn(total)} of {total} {unit}s"
        if ours:
            return f"{when}; the learning rate then goes through its whole schedule again"
        return (
            f"WARNING: {when}, at the value of the host's own learning-rate schedule at that time: "
            "gansynth cannot restart it. If that is next to nothing, the real cases teach next "
            "to nothing: choose a constant rate, or a schedule that falls late"
        )

    def share_of(self, ratio: Ratio, begin: float = 0.0, end: float = 1.0) -> float:
        """Return the share of synthetic samples between two moments: the mean of ``at().p``."""
        if end <= begin:
            return self.at(begin, ratio).p
        knots = sorted({begin, end} | {k for k in (self.begin, self.end) if begin < k < end})
        total = 0.0
        for left, right in itertools.pairwise(knots):
            # Linear between the knots, so the value in the middle is the mean.
            total += (right - left) * self.at((left + right) / 2, ratio).p
        return total / (end - begin)


class Mix(NamedTuple):
    """Real to synthetic samples over one training."""

    ratio: Ratio
    schedule: Schedule = Schedule()

    @classmethod
    def parse(cls, ratio: str, schedule: str = "constant") -> Mix:
        """Parse both; UsageFault: one cannot be read, or they make no sense together."""
        mix = cls(Ratio.parse(ratio), Schedule.parse(schedule))
        mix.schedule.check(mix.ratio)
        return mix

    @property
    def synthetic(self) -> bool:
        """Whether synthetic samples are drawn at all."""
        return self.ratio.p > 0

    def share_of(self, begin: float = 0.0, end: float = 1.0) -> float:
        """Return the share of synthetic samples between two moments."""
        return self.schedule.share_of(self.ratio, begin, end)

    def refuse_without(self, *origins: object) -> None:
        """Refuse synthetic samples if there is neither a generator nor a bank."""
        if self.synthetic and all(origin is None for origin in origins):
            raise UsageFault(
                "schedule.generator-missing",
                f"--ratio {self.ratio}: --generator is missing, which makes its synthetic samples; "
                "add --generator RUN, or --bank BANK, or take --ratio 1:0; gansynth augment "
                "KIND:WHERE, with the data alone, fits one",
            )


def choose_cases(subjects: Mapping[Key, str], share: float, seed: int) -> tuple[Key, ...]:
    """Choose a share of the real cases for fine-tuning, whole subjects at a time, sorted."""
    by_subject: dict[str, list[Key]] = defaultdict(list)
    for case, subject in sorted(subjects.items()):
        by_subject[subject].append(case)
    order = sorted(by_subject)
    random.Random(f"fine-tuning {seed}").shuffle(order)
    number = max(1, math.ceil(share * len(subjects) - 1e-9))
    chosen: list[Key] = []
    for subject in order:
        if len(chosen) >= number:
            break
        chosen += by_subject[subject]
    return tuple(sorted(chosen))
