"""The order of a training process and its progress messages. Needs numpy only.

Both engines get the same order: the real program in its own Python, and the torch engine. Their
parent (``session``) owns the producer, reads the progress and writes the record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gansynth.core.mix_config import MixerConfig
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.serialise import Document
from gansynth_deepmedic.engine.subepochs import Subepochs
from gansynth_deepmedic.insertion import RIM, HostCase

Engine = Literal["deepmedic", "torch"]
ORDER = "gansynth_order.json"
PROGRESS = "gansynth_progress.jsonl"


@dataclass(frozen=True)
class TrainingOrder(Document, whole=True):
    """One training, or its remaining epochs."""

    engine: Engine  # engine of the process
    output: Path  # folder of the results; ``PROGRESS`` is written there
    # the configuration, whose lists have real cases in the order of ``cases``, then slots
    train_config: Path
    plan: MixerConfig[int]  # the mix of real and synthetic cases
    cases: tuple[HostCase, ...]  # the real training cases
    count: int  # cases that a subepoch loads
    # paths of the first channel of each slot in the list file; one for each possible synthetic case
    slots: tuple[str, ...] = ()
    model_config: Path | None = None  # the network's configuration; None for the torch engine's own
    done: int = 0  # epochs of earlier sessions
    subepochs: int = 1  # of an epoch
    seed: int = 0  # seed of sampling and augmentation of segments
    rim: int = RIM  # see ``insertion.insert``
    augment_synthetic: bool = True  # whether synthetic cases are augmented as real ones are
    checkout: Path | None = None  # folder of the user's DeepMedic
    arguments: tuple[str, ...] = ()  # for its command line, beside ``-train``
    # of the torch engine: see ``engine.settings``
    options: Mapping[str, Any] = field(default_factory=dict)

    def made(self) -> Subepochs:
        """The cases of every subepoch."""
        return Subepochs(self.plan, self.cases, self.count, self.rim)

    @classmethod
    def read(cls, path: Path) -> TrainingOrder:
        """Read a file that ``to_json`` wrote (IntegrityFault: it is damaged)."""
        try:
            return cls.from_json(read_json(path))
        except (DataFault, UsageFault, LookupError, TypeError, ValueError, AttributeError) as error:
            text = str(error) if isinstance(error, GansynthError) else _told(error)
            raise IntegrityFault(
                f"{path}: {text.removeprefix(f'{path}: ')}; expected the file that gansynth "
                "augment writes; start anew"
            ) from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class ProgressWriter:
    """Reports to the parent: one JSON document per line, from any process.

    ``{"step": [begin, end]}``: a training step, ``time.monotonic()``.
    ``{"job": {"subepoch", "place", "kind", "case", "sample", "segments"}}``: a case with its
    segments; kind is ``real``, ``synthetic`` or ``fallback``.
    ``{"trained": subepoch}``: all batches of a subepoch are done.
    ``{"epoch": done, "metrics": {...}}``: number of epochs done, and their metrics.
    ``{"end": {...}}``: the training has ended; metrics on real validation cases.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._fd = -1

    def tell(self, **document: Any) -> None:
        """Write one line."""
        if self._fd < 0:  # one that was inherited through fork appends just as well
            self._fd = os.open(self.file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        line = json.dumps(document, default=_number) + "\n"
        os.write(self._fd, line.encode())

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "_fd": -1}


def _number(value: Any) -> Any:
    """Convert a number of numpy to one of Python."""
    return value.item()
