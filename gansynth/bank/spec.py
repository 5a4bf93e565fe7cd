"""The description of a bank and the names of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from gansynth.core.lineage import Lineage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Schema
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import parse_json, read_json
from gansynth.runtime.serialise import Document

FORMAT = 1
SPEC, HEARTBEAT, COMPLETE, LOCK = "bank.json", "heartbeat.json", "complete.json", ".writer.lock"


@dataclass(frozen=True)
class BankSpec(Document, later=("max_bytes",), inline=("samples",)):
    """Description of a bank's content, written as ``bank.json`` when the bank is made."""

    schema: Schema  # schema of the stored samples, in the adapter's space
    # lineage of the generator, joined with that of other cases the samples come from
    lineage: Lineage
    run_id: str  # id of the generator's run
    generator: str  # SHA-256 of the run's manifest
    frozen: bool  # the content is complete and never refreshed
    capacity: int  # largest number of samples
    segment_samples: int = 16  # samples in a segment
    dtype: Literal["float16", "float32"] = "float16"  # storage type of images
    # conditions and filters of the samples, with the run's own edits where none were given
    samples: SampleRequest = field(default_factory=SampleRequest)
    # most bytes that the segments of a live bank take; None for no limit but capacity
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
        """Return the document, with the format's number first."""
        return {"format": FORMAT, **super().to_json()}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read the document that ``to_json`` wrote."""
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
    """Read a bank's description.

    Raises:
        DataFault: there is no bank.
        IntegrityFault: its description is invalid.
    """
    path = folder / SPEC
    if not path.is_file():
        raise DataFault(f"{folder}: holds no {SPEC}, expected a sample bank; name another folder")
    return BankSpec.from_json(read_json(path, hint="delete the bank and make it again"))


def read_heartbeat(folder: Path) -> Mapping[str, Any]:
    """Read a bank's heartbeat, see ``BankWriter.beat``; empty if it cannot be read."""
    try:
        doc = parse_json((folder / HEARTBEAT).read_bytes())
    except (OSError, ValueError):
        return {}
    return doc if isinstance(doc, dict) else {}
