"""What a producer is told, and its loop: draw, admit, publish, rest."""

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

from gansynth.bank.pace import log_work, read_pace
from gansynth.bank.reader import BankReader, BankWriter
from gansynth.bank.rejected import Rejected
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample, Schema
from gansynth.runtime.errors import DataFault, EnvironmentFault, UsageFault
from gansynth.runtime.serialise import Document
from gansynth.sampling.admission import Gate, admit
from gansynth.sampling.replay import noted

if TYPE_CHECKING:
    from gansynth.core.adapter import HostArrays

_POLL_SECONDS = 0.1
_BEAT_SECONDS = 1.0


@dataclass(frozen=True)
class ProducerConfig(Document, inline=("samples",)):
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
        samples: what they are asked to be, and which are let in.
        rejected: folder where a few of the rejected samples are kept as pictures; None keeps none.
        device: ``auto``, ``cpu``, ``cuda:1``.
        duty: share of wall time a full live bank may be worked on, until ``pace.json`` says
            otherwise; with ``reuse`` or ``refresh`` only what that file says limits it.
        parent: process whose end is the producer's end; None for none.
        dtype: how images are stored.
        temporary: delete the bank when the parent has died; else a scratch bank in shared memory
            would hold that memory until the machine restarts.
        reuse: draws of a sample of a live bank, on average, before a new one replaces it; how many
            were drawn, ``pace.json`` says.
        refresh: seconds in which a live bank may be renewed once at most.
        max_bytes: bytes the segments of a live bank take at most.
    """

    run: str
    request: dict[str, Any]
    target: str
    bank: str
    frozen: bool
    capacity: int
    segment_samples: int = 16
    batch: int = 4
    samples: SampleRequest = field(default_factory=SampleRequest)
    device: str = "auto"
    duty: float = 0.25
    parent: int | None = None
    dtype: Literal["float16", "float32"] = "float16"
    temporary: bool = False
    reuse: float | None = None
    refresh: float | None = None
    max_bytes: int | None = None
    rejected: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.duty <= 1:
            raise UsageFault(f"producer: duty is {self.duty}, expected above 0 and at most 1")
        for key in ("reuse", "refresh", "max_bytes"):
            value = getattr(self, key)
            if value is not None and not 0 < value < math.inf:
                raise UsageFault(f"producer: {key} is {value}, expected a number above 0")
        for key in ("capacity", "segment_samples", "batch"):
            if getattr(self, key) < 1:
                raise UsageFault(f"producer: {key} is {getattr(self, key)}, expected at least 1")

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            UsageFault: keys missing, unknown, or of another type.
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
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Fill a bank; then finish it if it is frozen, else refresh it until told to stop.

    Samples are numbered from 0 and published in order, each with its ``index`` in its provenance; a
    rejected one leaves a gap. They are drawn in whole batches that start at multiples of the batch
    size: an interrupted bank gets, to the bit, the content of any other.

    Args:
        writer: the bank.
        draw: ``draw(first_index, n)`` draws n samples in the host's space.
        finalise: what the host wants beside each sample.
        config: batch size and duty.
        stop: asked between batches and while resting.
        schema: of the host.
        min_size: smallest spatial size in voxels.
        bring: brings samples into the host's space, if they are drawn in another.
        settings: what samples are drawn with, for their provenance.

    Raises:
        TrainingFault: more than half of the last 64 samples were rejected.
        EnvironmentFault: the disk is full.
    """
    gate = Gate(writer.rejected)
    rejects = Rejected(Path(config.rejected) if config.rejected else None, schema, _say)
    pacer = _Pacer(writer, config)
    ready: list[tuple[Sample, HostArrays]] = []

    def add(index: int, sample: Sample) -> None:
        """Make a sample ready, unless it is rejected."""
        try:
            sample = sample if bring is None else bring(sample)
            admit(sample, schema, min_size, writer.spec.dtype)
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
                    if index >= start:  # those before were published before an interruption
                        add(index, sample)
                first += config.batch
                while 0 < (size := writer.next_size) <= len(ready):
                    writer.publish(ready[:size])
                    del ready[:size]
            if not writer.spec.frozen and writer.full:
                writer.state = "refreshing"
            writer.beat()
            if not writer.spec.frozen:
                pacer.rest(len(ready), stop)


def _say(line: str) -> None:
    """Into the producer's log."""
    sys.stderr.write(f"WARNING: {line}\n")


def _next_index(bank: Path) -> int:
    """Index after the last published one; 0 for an empty bank."""
    reader = BankReader(bank)
    ids = reader.ids()
    return int(reader.read(ids[-1]).provenance["index"]) + 1 if ids else 0


@contextlib.contextmanager
def _beating(writer: BankWriter) -> Iterator[None]:
    """Show every second that the writer lives, also while it draws a batch that takes minutes."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_BEAT_SECONDS):
            with contextlib.suppress(EnvironmentFault):  # that of a full disk: publishing tells
                writer.beat()

    thread = threading.Thread(target=beat, name="gansynth-beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_BEAT_SECONDS)


class _Pacer:
    """How hard a producer may work on a live bank.

    Until its host trains, and so waits, it works without rest; from then on as the host says.
    """

    def __init__(self, writer: BankWriter, config: ProducerConfig) -> None:
        self.writer, self.config = writer, config
        self._begin = self._end = time.monotonic()
        self._took: deque[float] = deque(maxlen=32)

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """One batch of work: told in the heartbeat and, of a live bank, in ``work.bin``."""
        writer = self.writer
        writer.working_since = self._begin = time.monotonic()
        yield
        self._end = time.monotonic()
        self._took.append(self._end - self._begin)
        writer.working_since, writer.usual = None, statistics.median(self._took)
        if not writer.spec.frozen:
            log_work(writer.folder, self._begin, self._end)

    def rest(self, ready: int, stop: Callable[[], bool]) -> None:
        """Wait until there may be work again; so many samples are made and not yet published."""
        while (left := self._left(ready)) > 0 and not stop():
            time.sleep(min(left, _POLL_SECONDS))

    def _left(self, ready: int) -> float:
        """Seconds to rest from now; infinite while the host has drawn too little."""
        config, pace = self.config, read_pace(self.writer.folder)
        if self.writer.state != "refreshing":  # reuse and renewal concern full banks only
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
            if self.writer.total + ready - held >= drawn / config.reuse:
                return math.inf
        return due - time.monotonic()
