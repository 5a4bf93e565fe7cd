"""How many real and synthetic cases a subepoch loads, and how many segments: R:S without a rest."""

from __future__ import annotations

from dataclasses import dataclass

from gansynth.ratio import Ratio

MOST_REPEATS = 8
"""How often a real case is listed at most, so that R:S comes out even."""


@dataclass(frozen=True)
class Share:
    """One subepoch.

    Attributes:
        cases: that it loads, real and synthetic.
        segments: that it takes of them; a multiple of ``cases``, so that each gives as many, and of
            the batch size, so that no batch is dropped.
        real: real cases of a subepoch; None where it differs between subepochs (a schedule, or a
            ratio that does not come out even in so few cases).
        synthetic: synthetic ones, likewise.
        repeats: how often each real case is listed (on disk; else 1).
        said: what was rounded, or is otherwise than the user's file says, in words.
    """

    cases: int
    segments: int
    real: int | None
    synthetic: int | None
    repeats: int = 1
    said: tuple[str, ...] = ()


def share_on_disk(real: int, ratio: Ratio, cases: int, segments: int, batch: int) -> Share:
    """What stock DeepMedic has to load, which can only be exact if it loads all there is.

    Args:
        real: real training cases.
        ratio: real:synthetic.
        cases: that a subepoch loads by the user's file.
        segments: that it takes by the user's file.
        batch: segments of a training step.
    """
    raise NotImplementedError


def share_on_the_fly(
    ratio: Ratio, cases: int, segments: int, batch: int, *, constant: bool
) -> Share:
    """What is loaded where somebody deals the cases out.

    Args:
        ratio: real:synthetic.
        cases: that a subepoch loads by the user's file.
        segments: that it takes by the user's file.
        batch: segments of a training step.
        constant: whether the ratio stays as it is.
    """
    raise NotImplementedError
