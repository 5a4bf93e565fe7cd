"""``copypaste``: a generator without networks. Stub: being written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from gansynth.generator import Generator, Heeded, Phase
from gansynth.schema import Condition, Sample


class CopyPaste(Generator):
    """A lesion of one case in the image of another."""

    name: ClassVar[str] = "copypaste"

    @property
    def heeds(self) -> frozenset[Heeded]:
        """Labels, background and lesion."""
        return frozenset({"labels", "lesion"})

    def networks(self) -> dict[str, nn.Module]:
        """None."""
        return {}

    def phases(self) -> Sequence[Phase]:
        """None."""
        return ()

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Being written."""
        raise NotImplementedError
