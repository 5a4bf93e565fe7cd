"""What a bank says of itself, and the names of its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from gansynth.core.lineage import Lineage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Schema
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.serialise import Document

FORMAT = 1
SPEC, HEARTBEAT, COMPLETE, LOCK = "bank.json", "heartbeat.json", "complete.json", ".writer.lock"


@dataclass(frozen=True)
class BankSpec(Document, later=("max_bytes",), inline=("samples",)):
    """What is in a bank and how; written as ``bank.json`` when the bank is made.

    Attributes:
        schema: of the samples as stored (the host's space).
        lineage: of the generator that drew them, with that of other cases they were drawn of.
        run_id: the generator's run.
        generator: SHA-256 of the run's manifest.
        frozen: finished content that is never refreshed.
        capacity: samples the bank holds at most.
        segment_samples: samples in a segment.
        dtype: how images are stored.
        samples: what they were asked to be, and which were let in; its edits are the run's own
            where nobody said others.
        max_bytes: bytes the segments of a live bank take at most; None for no limit but capacity.
    """

    schema: Schema
    lineage: Lineage
    run_id: str
    generator: str
    frozen: bool
    capacity: int
    segment_samples: int = 16
    dtype: Literal["float16", "float32"] = "float16"
    samples: SampleRequest = field(default_factory=SampleRequest)
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.capacity < 1 or self.segment_samples < 1:
            raise UsageFault(
                f"bank: capacity is {self.capacity} and segment_samples {self.segment_samples}, "
                "expected at least 1"
            )
        if self.dtype not in ("float16", "float32"):
            raise UsageFault(f"bank: dtype is {self.dtype!r}, expected 'float16' or 'float32'")
        if self.max_bytes is not None and (self.frozen or self.max_bytes < 1):
            raise UsageFault(
                f"bank: max_bytes is {self.max_bytes}, expected at least 1, and a live bank; the "
                "size of a frozen one is its capacity"
            )

    def to_json(self) -> dict[str, Any]:
        """With the format's number before it."""
        return {"format": FORMAT, **super().to_json()}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            IntegrityFault: another format, or keys missing or unknown.
        """
        values = dict(doc)
        version = values.pop("format", None)
        if version != FORMAT:
            raise IntegrityFault(
                f"bank: format is {version!r}, expected {FORMAT}; make the bank again with this "
                "version of gansynth"
            )
        try:
            return super().from_json(values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityFault(
                f"bank: {SPEC} is not a bank's: {type(error).__name__}: {error}; make it again"
            ) from error


def load_spec(folder: Path) -> BankSpec:
    """Read a bank's own description.

    Raises:
        DataFault: there is no bank.
        IntegrityFault: its description is not one.
    """
    path = folder / SPEC
    if not path.is_file():
        raise DataFault(f"{folder}: holds no {SPEC}, expected a sample bank; name another folder")
    return BankSpec.from_json(read_json(path, way_out="delete the bank and make it again"))


def read_heartbeat(folder: Path) -> Mapping[str, Any]:
    """A bank's heartbeat as ``BankWriter.beat`` writes it; empty if there is none to be read."""
    try:
        doc = json.loads((folder / HEARTBEAT).read_bytes())
    except (OSError, ValueError):
        return {}
    return doc if isinstance(doc, dict) else {}
