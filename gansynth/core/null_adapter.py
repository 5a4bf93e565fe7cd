"""The adapter of a producer whose samples enter no host known to gansynth."""

from __future__ import annotations

from gansynth.core.adapter import Adapter, HostArrays
from gansynth.core.host_commands import TrainingRequest
from gansynth.core.mix_config import TrainingResult
from gansynth.core.schema import Sample
from gansynth.runtime.errors import UsageFault


class NullAdapter(Adapter):
    """Stands in for a host where there is none; samples stay unchanged."""

    name = ""

    def finalise(self, sample: Sample) -> HostArrays:
        """Return no extra arrays."""
        return {}

    def validate(self) -> None:
        """Do nothing."""

    def check(self, request: TrainingRequest) -> None:
        """Do nothing: there is no training."""

    def start(self, request: TrainingRequest) -> TrainingResult:
        """Refuse; there is no host to train."""
        raise UsageFault("there is no host to train; expected gansynth.mix(dataset, bank, ratio)")
