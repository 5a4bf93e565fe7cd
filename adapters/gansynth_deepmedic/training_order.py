"""The order of a training by the real program, for ``hook``. Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gansynth.core.mix_config import MixerConfig
from gansynth.runtime.serialise import Document
from gansynth_deepmedic.insertion import HostCase

ORDER = "gansynth_order.json"
SLOTS = "synth"  # folder of the slots of an exported data set


@dataclass(frozen=True)
class TrainingOrder(Document, whole=True):
    """One training, or its remaining epochs."""

    checkout: Path  # folder of the user's DeepMedic
    arguments: tuple[str, ...]  # of ``deepMedicRun``
    plan: MixerConfig[int]  # the mix of real and synthetic cases
    cases: tuple[HostCase, ...]  # real training cases, in the order of the lists
    count: int  # cases of a subepoch
    first: int  # subepochs of earlier sessions
    total: int  # subepochs of the whole training
    seed: int  # of the centres of segments and their augmentation
    augment_synthetic: bool  # whether synthetic cases are augmented as real ones are
