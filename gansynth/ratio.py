"""R:S, and which slot of a batch is synthetic.

The ratio is exact in expectation and stratified per batch: ``n = floor(pB) + Bernoulli(frac(pB))``
synthetic slots at random places, ``p = S / (R + S)``. Places are random because hosts treat slots
differently (nnU-Net forces foreground into the last ones). Needs numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gansynth.errors import UsageFault


@dataclass(frozen=True)
class Ratio:
    """A real:synthetic ratio, counted in samples drawn."""

    real: float
    synthetic: float

    @classmethod
    def parse(cls, text: str) -> Ratio:
        """Read ``"R:S"``, e.g. ``"1:1"`` or ``"2813:4000"``.

        Raises:
            UsageFault: if the text is no ratio of two non-negative numbers, or 0:0.
        """
        parts = text.split(":")
        try:
            real, synthetic = (float(p) for p in parts)
        except ValueError:
            raise UsageFault(
                f"--ratio {text!r}: expected REAL:SYNTHETIC, two numbers, for example 1:1 or 2:1"
            ) from None
        if not (math.isfinite(real) and math.isfinite(synthetic)) or real < 0 or synthetic < 0:
            raise UsageFault(f"--ratio {text!r}: both numbers must be finite and not negative")
        if real + synthetic == 0:
            raise UsageFault(f"--ratio {text!r}: at least one number must be above 0")
        return cls(real, synthetic)

    @property
    def p(self) -> float:
        """Probability that a drawn sample is synthetic."""
        return self.synthetic / (self.real + self.synthetic)

    def __str__(self) -> str:
        return f"{self.real:g}:{self.synthetic:g}"


def choose_slots(p: float, batch_size: int, rng: np.random.Generator) -> frozenset[int]:
    """Which slots of a batch are synthetic: ``floor(pB) + Bernoulli(frac(pB))`` random ones.

    Args:
        p: share of synthetic samples, 0 to 1.
        batch_size: slots in the batch, B.
        rng: the caller's own generator (one per worker process).

    Raises:
        UsageFault: p is no share, or the batch has no slot.
    """
    if not 0 <= p <= 1:
        raise UsageFault(f"ratio: share of synthetic samples is {p}, expected 0 to 1")
    if batch_size < 1:
        raise UsageFault(f"batch size is {batch_size}, expected at least 1")
    expected = p * batch_size
    count = math.floor(expected)
    count += int(rng.random() < expected - count)
    slots = rng.choice(batch_size, size=min(count, batch_size), replace=False)
    return frozenset(int(s) for s in slots)
