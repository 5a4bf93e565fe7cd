"""Numbers of real cases, synthetic cases and segments of a subepoch for an exact R:S.

Stock DeepMedic loads a random part of the listed cases. So R:S is exact on disk only if every
subepoch loads all listed cases. On the fly a subepoch loads about as many cases as the user's file
says. It never loads more than the real cases and their share: two real cases at 1:2 give subepochs
of six.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gansynth import Ratio
from gansynth_deepmedic.configs import CASES, SEGMENTS

MOST_REPEATS = 8  # most times that a real case is listed to reach R:S exactly
MOST_TIMES = 2  # most cases of a subepoch on the fly, relative to the user's file


@dataclass(frozen=True)
class SubepochShare:
    """Cases and segments of one subepoch."""

    cases: int  # cases of a subepoch, real and synthetic
    # with real and synthetic cases, a multiple of ``cases`` for equal numbers, and of the batch
    # size, so that no batch is dropped
    segments: int
    real: int | None  # None if it varies: a schedule, or a ratio not exact in so few cases
    synthetic: int | None  # synthetic cases; None as for ``real``
    repeats: int = 1  # how often each real case is listed (on disk; else 1)
    notes: tuple[str, ...] = ()  # on roundings and on differences from the user's file

    @property
    def values(self) -> dict[str, int]:
        """Keys of ``trainConfig.cfg``."""
        return {CASES: self.cases, SEGMENTS: self.segments}

    @property
    def described(self) -> tuple[dict[str, int], dict[str, int]]:
        """Real and synthetic cases, and segments, of every subepoch; empty if they vary."""
        if self.real is None or self.synthetic is None:
            return {}, {}
        cases = {"real": self.real, "synthetic": self.synthetic}
        return cases, {key: self.segments // self.cases * n for key, n in cases.items()}


def share_on_disk(real: int, ratio: Ratio, cases: int, segments: int, batch: int) -> SubepochShare:
    """Return the share of stock DeepMedic; without real cases, of as many as the file loads."""
    if ratio.real == 0:
        taken, notes = _segments(cases, segments, batch, one_kind=True)
        return SubepochShare(cases, taken, 0, cases, notes=notes)
    repeats, synthetic, even = ratio.listed(real, MOST_REPEATS, int(ratio.p > 0))
    total = repeats * real + synthetic
    notes = ()
    if not even:
        notes += (
            f"ratio {ratio}: is not exact with {real} real cases, each listed up to "
            f"{MOST_REPEATS} times; it is {repeats * real}:{synthetic}, {synthetic / total:.2%} "
            f"synthetic where {ratio.p:.2%} was asked",
        )
    if total != cases:
        advice = "; loading takes longer. On the fly a subepoch loads about as many as before"
        notes += (
            f"{CASES}: {cases} in the file, {total} now: each real case is listed {repeats} "
            f"time(s), and every subepoch loads all that is listed{advice * (total > cases)}",
        )
    taken, changed = _segments(total, segments, batch)
    return SubepochShare(total, taken, repeats * real, synthetic, repeats, notes + changed)


def share_on_the_fly(
    ratio: Ratio, cases: int, segments: int, batch: int, *, real: int, constant: bool
) -> SubepochShare:
    """Return the share of a training on the fly."""
    total, why = cases, ""
    listed = ratio.places(real)
    if listed < cases:
        total, why = listed, f"{real} real case(s) and their share of synthetic ones"
    dealt: tuple[int | None, int | None] = (None, None)
    notes: tuple[str, ...] = ()
    parts = ratio.whole_parts()
    unit = sum(parts)
    if constant and unit <= MOST_TIMES * cases:
        count = max(1, (2 * total + unit) // (2 * unit)) * unit
        if count != total:
            total, why = count, f"a multiple of {unit}, so that each is {ratio} exactly"
        dealt = parts[0] * total // unit, parts[1] * total // unit
    elif constant:
        synthetic = ratio.p * total
        notes += (
            f"ratio {ratio}: is not exact in {total} cases; in each subepoch "
            f"{math.floor(synthetic)} or {math.ceil(synthetic)} of {total} are synthetic, and the "
            "remainder is carried over to the next",
        )
    if total != cases:
        notes += (f"{CASES}: {cases} in the file, {total} now: {why}",)
    one_kind = constant and ratio.p in (0.0, 1.0)
    taken, changed = _segments(total, segments, batch, one_kind=one_kind)
    return SubepochShare(total, taken, *dealt, notes=notes + changed)


def same_segments(
    mixes: Sequence[tuple[Ratio, bool]], cases: int, segments: int, batch: int, *, real: int
) -> int:
    """Return the least segments of a subepoch for equal steps at all ratios, not below the file."""
    while True:
        needed = []
        for ratio, constant in mixes:
            share = share_on_the_fly(ratio, cases, segments, batch, real=real, constant=constant)
            needed.append(share.segments)
        if max(needed) == segments:
            return segments
        segments = max(needed)


def _segments(
    cases: int, segments: int, batch: int, *, one_kind: bool = False
) -> tuple[int, tuple[str, ...]]:
    """Return the segments of a subepoch, and a note on a difference from the user's file."""
    step = math.lcm(cases, batch)
    taken = max(1, -(-segments // step)) * step
    why = f"as many of each of {cases} cases, in whole batches of {batch}"
    if one_kind:
        taken, why = max(segments, cases), f"one of each of {cases} cases"
    if taken == segments:
        return taken, ()
    return taken, (f"{SEGMENTS}: {segments} in the file, {taken} now: {why}",)
