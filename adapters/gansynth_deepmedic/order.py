"""What a training process is told, and the lines it tells while it trains. numpy and h5py only.

Both engines are told the same: the real program in its own Python, and the torch engine. Their
parent (``session``) has the producer, watches, and keeps the record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from gansynth.core.injection import MixPlan
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth_deepmedic.files import HostCase
from gansynth_deepmedic.insertion import RIM
from gansynth_deepmedic.subepochs import Subepochs

Engine = Literal["deepmedic", "torch"]
ORDER = "gansynth_order.json"
PROGRESS = "gansynth_progress.jsonl"
SLOTS = "synth"
"""Folder that the paths of synthetic places lead to; on the fly there is nothing in it."""


@dataclass(frozen=True)
class Order:
    """One training, or what is left of it.

    Attributes:
        engine: which process this is for.
        output: folder of the results; ``PROGRESS`` is written there.
        train_config: the configuration to train by, with lists of real cases, in the order of
            ``cases``, then of slots.
        model_config: the network's configuration; None for the torch engine's own.
        plan: what is mixed in.
        cases: the real training cases.
        count: cases that a subepoch loads.
        slots: paths of the first channel of each slot, as they are in the list file; one slot for
            each place that may be synthetic.
        done: epochs that earlier sessions have done.
        subepochs: of an epoch.
        seed: seeds where segments are cut, and how they are augmented.
        rim: see ``insertion.insert``.
        augment_synthetic: whether synthetic cases are augmented as real ones are.
        checkout: folder of the user's DeepMedic.
        arguments: for its command line, beside ``-train``.
        options: of the torch engine: see ``engine.settings``.
    """

    engine: Engine
    output: Path
    train_config: Path
    plan: MixPlan[int]
    cases: tuple[HostCase, ...]
    count: int
    slots: tuple[str, ...] = ()
    model_config: Path | None = None
    done: int = 0
    subepochs: int = 1
    seed: int = 0
    rim: int = RIM
    augment_synthetic: bool = True
    checkout: Path | None = None
    arguments: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def made(self) -> Subepochs:
        """The cases of every subepoch."""
        return Subepochs(self.plan, self.cases, self.count, self.rim)

    def to_json(self) -> dict[str, Any]:
        """A JSON document that ``read`` reads back; paths are absolute in it."""
        paths = {
            key: None if (path := getattr(self, key)) is None else str(path.absolute())
            for key in ("output", "train_config", "model_config", "checkout")
        }
        return {
            **{key: getattr(self, key) for key in _PLAIN},
            **paths,
            "plan": self.plan.to_json(),
            "cases": [case.to_json() for case in self.cases],
            "slots": list(self.slots),
            "arguments": list(self.arguments),
            "options": dict(self.options),
        }

    @classmethod
    def read(cls, path: Path) -> Order:
        """Read what ``to_json`` wrote.

        Raises:
            IntegrityFault: it is damaged.
        """
        try:
            return cls._from_json(read_json(path))
        except (DataFault, UsageFault, LookupError, TypeError, ValueError, AttributeError) as error:
            what = str(error) if isinstance(error, GansynthError) else _told(error)
            raise IntegrityFault(
                f"{path}: {what.removeprefix(f'{path}: ')}; expected the file that gansynth "
                "augment writes; start anew"
            ) from error

    @classmethod
    def _from_json(cls, doc: Mapping[str, Any]) -> Order:
        for key, kind in _PLAIN.items():
            if type(doc[key]) is not kind:
                raise ValueError(f"{key} is {doc[key]!r}, expected {kind.__name__}")
        if doc["engine"] not in get_args(Engine):
            raise ValueError(f"engine is {doc['engine']!r}, expected one of {get_args(Engine)}")
        values: dict[str, Any] = {key: doc[key] for key in _PLAIN}
        for key in ("output", "train_config"):
            values[key] = Path(doc[key])
        for key in ("model_config", "checkout"):
            values[key] = None if doc[key] is None else Path(doc[key])
        return cls(
            **values,
            plan=MixPlan.from_json(doc["plan"]),
            cases=tuple(HostCase.from_json(case) for case in doc["cases"]),
            slots=tuple(doc["slots"]),
            arguments=tuple(doc["arguments"]),
            options=dict(doc["options"]),
        )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


_PLAIN = {
    "engine": str,
    "count": int,
    "done": int,
    "subepochs": int,
    "seed": int,
    "rim": int,
    "augment_synthetic": bool,
}


class Progress:
    """Tells the parent: one JSON document a line, whole lines only, from any process.

    ``{"step": [begin, end]}``: a training step, ``time.monotonic()``.
    ``{"job": {"subepoch", "place", "kind", "case", "sample", "segments"}}``: a case that segments
    were taken of; kind is ``real``, ``synthetic`` or ``fallback``.
    ``{"trained": subepoch}``: all batches of a subepoch are done.
    ``{"epoch": done, "metrics": {...}}``: so many epochs are done; numbers worth saying.
    ``{"end": {...}}``: the training has reached its end; metrics on real validation cases.
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
    """One of numpy's numbers as Python's own."""
    return value.item()
