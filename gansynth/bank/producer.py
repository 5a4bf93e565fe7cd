"""Configuration and main loop of a producer: generate, admit, publish, rest."""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from gansynth.bank.reader import BankReader, BankWriter
from gansynth.bank.rejected_samples import RejectedSamples
from gansynth.bank.throttle import log_work, read_throttle_state
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample, Schema
from gansynth.runtime.errors import DataFault, EnvironmentFault, UsageFault
from gansynth.runtime.serialise import Document
from gansynth.sampling.quality_gate import QualityGate, validate_sample
from gansynth.sampling.replay import noted

if TYPE_CHECKING:
    from gansynth.core.adapter import HostArrays

_POLL_SECONDS = 0.1
_BEAT_SECONDS = 1.0


@dataclass(frozen=True)
class ProducerConfig(Document, inline=("samples",)):
    """Configuration of a producer process, written as JSON."""

    run: str  # folder of the generator's run
    request: dict[str, Any]  # a ``SourceRequest`` as JSON: the source of label maps
    target: str  # name of the adapter, e.g. ``nnunet``
    bank: str  # folder of the bank; created if missing, else continued
    frozen: bool  # fill the bank once and end, instead of refreshing it
    capacity: int  # samples the bank holds
    batch: int = 4  # samples generated at once
    samples: SampleRequest = field(default_factory=SampleRequest)  # their conditions and filters
    device: str = "auto"  # ``auto``, ``cpu``, ``cuda:1``
    # share of wall time that the producer of a full live bank works, until ``pace.json`` says
    # otherwise; with ``reuse`` or ``refresh`` only that file limits it
    duty: float = 0.25
    parent: int | None = None  # process whose end also ends the producer; None for none
    dtype: Literal["float16", "float32"] = "float16"  # storage type of images
    temporary: bool = False  # a watchdog deletes the bank when the parent has died
    # mean number of draws after which a sample of a live bank is replaced
    reuse: float | None = None
    refresh: float | None = None  # shortest time in seconds in which a live bank is replaced once
    max_bytes: int | None = None  # most bytes that the samples of a live bank take
    rejected: str | None = None  # folder for pictures of a few rejected samples; None writes none

    def __post_init__(self) -> None:
        if not 0 < self.duty <= 1:
            raise UsageFault(f"producer: duty is {self.duty}, expected above 0 and at most 1")
        for key in ("reuse", "refresh", "max_bytes"):
            value = getattr(self, key)
            if value is not None and not 0 < value < math.inf:
                raise UsageFault(f"producer: {key} is {value}, expected a number above 0")
        for key in ("capacity", "batch"):
            if getattr(self, key) < 1:
                raise UsageFault(f"producer: {key} is {getattr(self, key)}, expected at least 1")

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read the document that ``to_json`` wrote.

        Raises:
            UsageFault: keys are missing, unknown, or of another type.
        """
        try:
            return super().from_json(doc)
        except TypeError as error:
            keys = ", ".join(f.name for f in fields(cls))
            raise UsageFault(f"producer configuration: {error}; expected keys: {keys}") from error


def produce(
    writer: BankWriter,
    draw: Callable[[int, int], list[Sample]],
    finalise: Callable[[Sample], HostArrays],
    config: ProducerConfig,
    *,
    stop: Callable[[], bool],
    schema: Schema,
    min_size: Sequence[int],
    bring: Callable[[Sample], Sample] | None = None,
    compare: Callable[[Sequence[Any]], None] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Fill a bank, then finish it if it is frozen, else refresh it until stopped.

    Samples are numbered from 0 and published in order, with their ``index`` in the provenance. A
    rejected sample leaves a gap. Batches start at multiples of the batch size. An interrupted bank
    therefore gets, to the bit, the content of an uninterrupted one.

    Args:
        writer: writer of the bank.
        draw: ``draw(first_index, n)`` generates n samples in the adapter's space.
        finalise: returns the adapter's extra arrays of a sample.
        config: batch size and duty.
        stop: checked between batches and during rests.
        schema: the adapter's schema.
        min_size: smallest spatial size in voxels.
        bring: maps samples into the adapter's space, if they are generated in another.
        compare: refuses images of the first samples in other units than the real ones.
        settings: generation settings for the provenance.

    Raises:
        TrainingFault: more than half of the last 64 samples were rejected.
        EnvironmentFault: the disk is full.
    """
    gate = QualityGate(writer.rejected)
    rejects = RejectedSamples(Path(config.rejected) if config.rejected else None, schema, _say)
    pacer = _DutyCycle(writer, config)
    ready: list[tuple[Sample, HostArrays]] = []  # of a batch, to be published

    def add(index: int, sample: Sample) -> None:
        try:
            sample = sample if bring is None else bring(sample)
            validate_sample(sample, schema, min_size, writer.spec.dtype)
            extras = finalise(sample)
        except DataFault as fault:
            rejects.keep(sample, fault, index)
            gate.reject(fault)
            return
        gate.accept()
        sample = replace(sample, provenance={**sample.provenance, "index": index})
        ready.append((sample if settings is None else noted(sample, settings), extras))

    start = _next_index(writer.folder)
    first = start - start % config.batch
    with _beating(writer):
        while not stop():
            if writer.spec.frozen and writer.full:
                if not writer.complete:
                    writer.finish()
                writer.state = "complete"
                writer.beat()
                return
            with pacer.work():
                for index, sample in enumerate(draw(first, config.batch), first):
                    if index >= start:  # earlier ones are published already
                        add(index, sample)
                first += config.batch
                if ready and compare is not None:
                    compare([sample.image for sample, _ in ready])
                    compare = None
                for sample, extras in ready:
                    if not (writer.spec.frozen and writer.full):
                        writer.publish(sample, extras)
                ready.clear()
            if not writer.spec.frozen and writer.full:
                writer.state = "refreshing"
            writer.beat()
            if not writer.spec.frozen:
                pacer.rest(stop)


def _say(line: str) -> None:
    sys.stderr.write(f"WARNING: {line}\n")


def _next_index(bank: Path) -> int:
    """Return the index after the last published one; 0 for an empty bank."""
    reader = BankReader(bank)
    ids = reader.ids()
    return int(reader.read(ids[-1]).provenance["index"]) + 1 if ids else 0


@contextlib.contextmanager
def _beating(writer: BankWriter) -> Iterator[None]:
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_BEAT_SECONDS):
            with contextlib.suppress(EnvironmentFault):  # publishing reports a full disk
                writer.beat()

    thread = threading.Thread(target=beat, name="gansynth-beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_BEAT_SECONDS)


class _DutyCycle:
    """Limit the producer of a live bank; it works without rest until training starts."""

    def __init__(self, writer: BankWriter, config: ProducerConfig) -> None:
        self.writer, self.config = writer, config
        self._begin = self._end = time.monotonic()
        self._took: deque[float] = deque(maxlen=32)

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        writer = self.writer
        writer.working_since = self._begin = time.monotonic()
        yield
        self._end = time.monotonic()
        self._took.append(self._end - self._begin)
        writer.working_since, writer.usual = None, statistics.median(self._took)
        if not writer.spec.frozen:
            log_work(writer.folder, self._begin, self._end)

    def rest(self, stop: Callable[[], bool]) -> None:
        while (left := self._left()) > 0 and not stop():
            time.sleep(min(left, _POLL_SECONDS))

    def _left(self) -> float:
        """Return the seconds to rest from now; infinite while too few samples were drawn."""
        config, pace = self.config, read_throttle_state(self.writer.folder)
        if self.writer.state != "refreshing":  # reuse and refresh apply to full banks only
            duty = 1.0 if pace is None else pace.duty
            return self._end + (self._end - self._begin) * (1 - duty) / duty - time.monotonic()
        limited = config.reuse is not None or config.refresh is not None
        duty = pace.duty if pace is not None else 1.0 if limited else config.duty
        due = self._end + (self._end - self._begin) * (1 - duty) / duty
        held = max(1, self.writer.held)
        if config.refresh is not None:
            due = max(due, self._begin + config.batch * config.refresh / held)
        if config.reuse is not None:
            drawn = 0 if pace is None else pace.drawn
            if self.writer.total - held >= drawn / config.reuse:
                return math.inf
        return due - time.monotonic()
