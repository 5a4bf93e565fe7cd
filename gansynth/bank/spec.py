"""The description of a bank and the names of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from gansynth.bank.sample_file import damaged, open_regular
from gansynth.core.lineage import MAX_RECORD_BYTES, Lineage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Schema
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault, UsageFault
from gansynth.runtime.files import digest_of, parse_json
from gansynth.runtime.serialise import Document

FORMAT = 2
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
    dtype: Literal["float16", "float32"] = "float16"  # storage type of images
    # conditions and filters of the samples, with the run's own edits where none were given
    samples: SampleRequest = field(default_factory=SampleRequest)
    # most bytes that the samples of a live bank take; None for no limit but capacity
    max_bytes: int | None = None
    # what its generator takes of real images, as it declares (``real_parts``); None if unknown
    real: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise UsageFault(f"bank: capacity is {self.capacity}, expected at least 1")
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
        values = {key: value for key, value in doc.items() if key != "format"}
        try:
            return super().from_json(values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityFault(
                f"bank: {SPEC} is not a bank's: {type(error).__name__}: {error}; make it again"
            ) from error


def read_document(path: Path) -> dict[str, Any]:
    """Read one of a bank's JSON files.

    Raises:
        FileNotFoundError: there is none.
        IntegrityFault: it is not a JSON object in a regular file.
    """
    with open_regular(path) as (stream, size):
        try:
            if size > MAX_RECORD_BYTES:
                raise ValueError(f"larger than {MAX_RECORD_BYTES} bytes")
            doc = parse_json(stream.read(size))
        except ValueError as error:
            raise damaged(path, error) from error
    if not isinstance(doc, dict):
        raise damaged(path, "not a JSON object")
    return doc


def load_spec(folder: Path) -> BankSpec:
    """Read a bank's description.

    Raises:
        DataFault: there is no bank.
        IntegrityFault: its description is damaged, or of another format.
    """
    path = folder / SPEC
    try:
        doc = read_document(path)
    except FileNotFoundError:
        raise DataFault(
            f"{folder}: holds no {SPEC}, expected a sample bank; name another folder"
        ) from None
    if doc.get("format") != FORMAT:
        raise IntegrityFault(
            f"{path}: its format is {doc.get('format')!r}, expected {FORMAT}; make the bank again "
            "with this version of gansynth"
        )
    if doc.pop("digest", None) != digest_of(doc):
        raise damaged(path, "its digest is not that of its content")
    return BankSpec.from_json(doc)


def read_heartbeat(folder: Path) -> Mapping[str, Any]:
    """Read a bank's heartbeat, see ``BankWriter.beat``; empty if it cannot be read."""
    try:
        return read_document(folder / HEARTBEAT)
    except (OSError, GansynthError):
        return {}
