"""Which conditions are drawn more often than others: towards what a host gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gansynth.schema import Condition, Schema

Draw = Callable[[int, np.random.Generator], "Condition"]
"""(index, rng) -> a condition."""


class Weights:
    """Draws several conditions for each that is asked for, and chooses one by its weight."""

    @classmethod
    def read(cls, path: Path) -> Weights:
        """Read a file that ``gansynth failures`` wrote.

        Raises:
            UsageFault: no such file.
            IntegrityFault: a damaged one.
        """
        raise NotImplementedError

    def choose(self, draw: Draw, schema: Schema, seed: int, index: int) -> Condition:
        """The ``index``-th condition of a seed; always the same.

        Args:
            draw: draws a condition of a number, with a random generator of the candidate's own.
            schema: of the generator's space.
            seed: first half of every key.
            index: the condition's number.
        """
        raise NotImplementedError
