"""The ratio R:S, and the allocation of synthetic slots in a batch.

A share ``p = S / (R + S)`` of the samples is synthetic, at any time to within one sample for each
process that draws. Slots are random because hosts treat them differently (nnU-Net forces
foreground into the last ones). Needs numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from gansynth.runtime.errors import UsageFault

_PARTS = 10**6  # largest denominator of ratios as fractions; 2813:4000 is then exact


@dataclass(frozen=True)
class Ratio:
    """A real:synthetic ratio, counted in samples drawn."""

    real: float
    synthetic: float

    @classmethod
    def parse(cls, text: str) -> Ratio:
        """Parse ``"R:S"``, e.g. ``"2813:4000"``; UsageFault: no ratio of two numbers, or 0:0."""
        parts = text.split(":")
        try:
            real, synthetic = map(float, parts)
        except ValueError:
            raise UsageFault(
                "ratio.not-two-numbers",
                f"--ratio {text!r}: expected REAL:SYNTHETIC, two numbers, for example 1:1 or 2:1",
            ) from None
        if not (math.isfinite(real) and math.isfinite(synthetic)) or real < 0 or synthetic < 0:
            raise UsageFault(
                "ratio.not-finite-or-negative",
                f"--ratio {text!r}: both numbers must be finite and not negative",
            )
        if real + synthetic == 0:
            raise UsageFault(
                "ratio.both-zero", f"--ratio {text!r}: at least one number must be above 0"
            )
        return cls(real, synthetic)

    @property
    def p(self) -> float:
        """Probability that a drawn sample is synthetic."""
        return self.synthetic / (self.real + self.synthetic)

    def __str__(self) -> str:
        return f"{self.real:g}:{self.synthetic:g}"

    def whole_parts(self) -> tuple[int, int]:
        """Reduce R:S to the smallest whole numbers, e.g. (1, 3) for 0.1:0.3; R at most 10^6."""
        if self.real == 0:
            return 0, 1
        parts = (Fraction(self.synthetic) / Fraction(self.real)).limit_denominator(_PARTS)
        return parts.denominator, parts.numerator

    def places(self, real: int) -> int:
        """Return the places of an epoch: every real case plus its synthetic share, rounded up.

        Without real cases, R = 0, there are as many synthetic samples as there are real cases.
        """
        of, synthetic = self.whole_parts()
        return real if of == 0 else real - (-real * synthetic // of)

    def listed(self, real: int, most: int, least: int = 1) -> tuple[int, int, bool]:
        """Return how often to list real cases beside how many synthetic ones, nearest to R:S.

        Args:
            real: cases; R is not 0.
            most: times that a real case may be listed.
            least: synthetic cases.

        Returns:
            Times, synthetic cases, and whether they give R:S exactly.
        """
        parts = self.whole_parts()
        per_real, share = Fraction(parts[1], parts[0]), Fraction(parts[1], sum(parts))
        counts = []
        for times in range(1, most + 1):
            count = max(least, round(times * real * per_real))
            counts.append((abs(Fraction(count, times * real + count) - share), times, count))
        off, times, count = min(counts)
        return times, count, off == 0


class SlotAllocator:
    """Allocates the synthetic slots of each batch; remainders go to the next batch.

    A batch has the floor or the ceiling of pB such slots. The count always lies within one of the
    sum of pB so far, and equals it in expectation. So p may change, and workers need no
    communication. The position of a synthetic sample in its stretch of batches is random.
    Otherwise a host that takes cases in turns would skip the same ones each round.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._owed = 0.0
        """Synthetic slots due and not yet allocated, above -1 and below 1."""

    def allocate(self, p: float, batch_size: int) -> frozenset[int]:
        """Draw the synthetic slots of the next batch; UsageFault: invalid share or batch size."""
        if not 0 <= p <= 1:
            raise UsageFault(
                "ratio.share-out-of-range",
                f"ratio: share of synthetic samples is {p}, expected 0 to 1",
            )
        if batch_size < 1:
            raise UsageFault(
                "ratio.batch-size-below-one", f"batch size is {batch_size}, expected at least 1"
            )
        count = math.floor(p * batch_size)
        part = p * batch_size - count
        extra = self._rng.random() < self._chance(part)
        self._owed += part - extra
        slots = self._rng.choice(batch_size, size=min(count + extra, batch_size), replace=False)
        return frozenset(map(int, slots))

    def _chance(self, part: float) -> float:
        """Return the probability of one more slot: 0 or 1 at the bounds, else keeps the mean."""
        owed = self._owed
        if owed < 0:
            return 0.0 if owed + part <= 0 else (owed + part) / (1 + owed)
        return 1.0 if owed + part >= 1 else part / (1 - owed)
