"""What a producer is told, and its loop: draw, admit, publish, rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gansynth.admission import Gate, admit
from gansynth.bank import BankReader, BankWriter
from gansynth.errors import DataFault, UsageFault
from gansynth.schema import Sample, Schema

if TYPE_CHECKING:
    from gansynth.adapter import HostArrays

_POLL_SECONDS = 0.1
_BEAT_SECONDS = 1.0


@dataclass(frozen=True)
class ProducerConfig:
    """What a producer process is told; plain values, written as JSON.

    Attributes:
        run: folder of the generator's run.
        request: a ``SourceRequest`` as JSON: whose label maps are drawn.
        target: name of the host's adapter, e.g. ``nnunet``.
        bank: folder of the bank; made if there is none, taken up again if there is.
        frozen: fill the bank once and end, instead of refreshing it.
        capacity: samples the bank holds.
        segment_samples: samples in a segment.
        batch: samples drawn at once.
        seed: seeds conditions and latents.
        edits: condition edits by name; None takes the run's own.
        device: ``auto``, ``cpu``, ``cuda:1``.
        duty: share of wall time a full live bank may be worked on.
        parent: process whose end is the producer's end; None for none.
        dtype: how images are stored.
        temporary: delete the bank when the parent has died; else a scratch bank in shared memory
            would hold that memory until the machine restarts.
    """

    run: str
    request: dict[str, Any]
    target: str
    bank: str
    frozen: bool
    capacity: int
    segment_samples: int = 16
    batch: int = 4
    seed: int = 0
    edits: tuple[str, ...] | None = None
    device: str = "auto"
    duty: float = 0.25
    parent: int | None = None
    dtype: Literal["float16", "float32"] = "float16"
    temporary: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.duty <= 1:
            raise UsageFault(f"producer: duty is {self.duty}, expected above 0 and at most 1")
        for key in ("capacity", "segment_samples", "batch"):
            if getattr(self, key) < 1:
                raise UsageFault(f"producer: {key} is {getattr(self, key)}, expected at least 1")

    def to_json(self) -> dict[str, Any]:
        """A JSON document that ``from_json`` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> ProducerConfig:
        """Read what ``to_json`` wrote.

        Raises:
            UsageFault: keys missing, unknown, or of another type.
        """
        edits = doc.get("edits")
        try:
            return cls(**{**doc, "edits": None if edits is None else tuple(edits)})
        except TypeError as error:
            known = ", ".join(f.name for f in fields(cls))
            raise UsageFault(f"producer configuration: {error}; expected keys: {known}") from error


def produce(
    writer: BankWriter,
    draw: Callable[[int, int], list[Sample]],
    finalise: Callable[[Sample], HostArrays],
    config: ProducerConfig,
    *,
    stop: Callable[[], bool],
    schema: Schema,
    min_size: Sequence[int],
) -> None:
    """Fill a bank; then finish it if it is frozen, else refresh it until told to stop.

    Samples are numbered from 0 and published in order, each with its ``index`` in its provenance;
    a rejected one leaves a gap, and a frozen bank draws on until it is full. They are always drawn
    in whole batches that start at multiples of the batch size, so that a bank which was interrupted
    and taken up again has, to the bit, the content of one that was not.

    Args:
        writer: the bank.
        draw: ``draw(first_index, n)`` draws n samples in the host's space.
        finalise: what the host wants beside each sample.
        config: batch size and duty.
        stop: asked between batches and while resting.
        schema: of the host.
        min_size: smallest spatial size in voxels.

    Raises:
        TrainingFault: more than half of the last 64 samples were rejected.
        EnvironmentFault: the disk is full.
    """
    gate = Gate(writer.rejected)
    ready: list[tuple[Sample, HostArrays]] = []
    start = _next_index(writer.folder)
    first = start - start % config.batch
    while not stop():
        if writer.spec.frozen and _is_full(writer):
            if not writer.complete:
                writer.finish()
            return
        began = time.monotonic()
        for index, sample in enumerate(draw(first, config.batch), first):
            if index >= start:  # those before were published before an interruption
                ready += _admitted(index, sample, finalise, gate, writer, schema, min_size)
        first += config.batch
        while 0 < (size := writer.next_size) <= len(ready):
            writer.publish(ready[:size])
            del ready[:size]
        if not writer.spec.frozen and _is_full(writer):
            writer.state = "refreshing"
            writer.beat()
            worked = time.monotonic() - began
            _rest(writer, worked * (1 - config.duty) / config.duty, stop)
        else:
            writer.beat()


def _admitted(
    index: int,
    sample: Sample,
    finalise: Callable[[Sample], HostArrays],
    gate: Gate,
    writer: BankWriter,
    schema: Schema,
    min_size: Sequence[int],
) -> list[tuple[Sample, HostArrays]]:
    try:
        admit(sample, schema, min_size, writer.spec.dtype)
        extras = finalise(sample)
    except DataFault as fault:
        gate.reject(fault)
        return []
    gate.accept()
    return [(replace(sample, provenance={**sample.provenance, "index": index}), extras)]


def _is_full(writer: BankWriter) -> bool:
    return writer.held >= writer.spec.capacity


def _next_index(bank: Path) -> int:
    """Index after the last published one; 0 for an empty bank."""
    reader = BankReader(bank)
    ids = reader.ids()
    return int(reader.read(ids[-1]).provenance["index"]) + 1 if ids else 0


def _rest(writer: BankWriter, seconds: float, stop: Callable[[], bool]) -> None:
    """Wait, with a sign of life every second."""
    beaten = time.monotonic()
    end = beaten + seconds
    while (left := end - time.monotonic()) > 0 and not stop():
        time.sleep(min(left, _POLL_SECONDS))
        if time.monotonic() - beaten >= _BEAT_SECONDS:
            writer.beat()
            beaten = time.monotonic()
