"""What stands for a host in a producer whose samples go into no host that gansynth knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gansynth.core.adapter import Adapter, HostArrays, Injection, Outcome
from gansynth.core.injection import MixPlan
from gansynth.core.schema import Sample
from gansynth.runtime.errors import UsageFault


class NoHost(Adapter):
    """Stands for a host in the producer where there is none: samples stay as they are."""

    name = ""

    @property
    def sample_size(self) -> tuple[int, ...]:
        """Any."""
        return (1,) * self.schema.ndim

    def finalise(self, sample: Sample) -> HostArrays:
        """Nothing beside image and labels."""
        return {}

    def validate(self) -> None:
        """There is nothing to validate."""

    def check(
        self, injection: Injection, settings: Mapping[str, str], options: Sequence[str]
    ) -> None:
        """There is no training to check."""

    def inject(self, dataset: Any, plan: MixPlan[Any], *, batch_size: int) -> Any:
        """That is for ``gansynth.mix``."""
        raise UsageFault("there is no host to train; expected gansynth.mix(dataset, bank, ratio)")

    def start(
        self, injection: Injection, settings: Mapping[str, str], options: Sequence[str]
    ) -> Outcome:
        """Nobody's training is started here."""
        raise UsageFault("there is no host to train; expected gansynth.mix(dataset, bank, ratio)")
