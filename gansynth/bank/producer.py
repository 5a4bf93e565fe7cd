"""The producer process of a bank: ``python -m gansynth.bank.producer CONFIG.json``.

``gansynth.bank.supervisor`` starts it. It generates, admits, publishes and rests, at low priority
where a training runs beside, and writes a heartbeat. It ends within seconds of its parent's death.
Errors are one line and an exit code.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from gansynth.bank.producer_count import BATCH
from gansynth.bank.reader import BankReader, BankSpec, BankWriter
from gansynth.bank.rejected_samples import RejectedSamples
from gansynth.bank.store import SPEC
from gansynth.bank.throttle import log_work, read_throttle_state
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample
from gansynth.runtime.errors import (
    EXIT_OK,
    DataFault,
    EnvironmentFault,
    GansynthError,
    UsageFault,
)
from gansynth.runtime.files import read_json
from gansynth.runtime.life import Life
from gansynth.runtime.serialise import Document
from gansynth.runtime.system import leave_group, lower_priority, send_self, wait_for_end_of
from gansynth.sampling.quality_gate import QualityGate, validate_sample
from gansynth.sampling.replay import noted

if TYPE_CHECKING:
    from gansynth.bank.drawing_workers import Draw
    from gansynth.core.intake import HostArrays

NICENESS = 10
NO_ROOM = "no room on the device: "
"""Start of a producer's last line if its device was out of memory or in exclusive mode."""
_NO_ROOM = (
    "OutOfMemoryError",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "busy or unavailable",
)
_POLL_SECONDS = 0.1
_BEAT_SECONDS = 1.0
# Seconds of standing still, or CPU seconds, that a batch may take, three times that for the first
# one; and the multiple of its usual time, if that is longer. A batch is watched once it takes more
# than the last of these, in seconds. The supervisor kills a silent producer.
_LONGEST, _TIMES_USUAL, _WATCHED = 600.0, 20.0, 60.0
_PARENT_POLL_SECONDS = 0.5
_GRACE_SECONDS = 1.5  # time for an orderly end; with the poll interval, less than 3 s for an orphan


@dataclass(frozen=True)
class ProducerConfig(Document, flatten=("samples",)):
    """Configuration of a producer process, written as JSON."""

    run: str  # folder of the generator's run
    request: dict[str, Any]  # a ``SourceRequest`` as JSON: the source of label maps
    target: str  # name of the host, e.g. ``nnunet``; empty for none
    bank: str  # folder of the bank; created if missing, else continued
    frozen: bool  # fill the bank once and end, instead of refreshing it
    capacity: int  # samples the bank holds
    batch: int = BATCH  # samples generated at once
    producers: int = 1  # processes that draw batches side by side; above 1, on the CPU
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
        for key in ("duty", "reuse", "refresh", "max_bytes", "capacity", "batch", "producers"):
            value, most = getattr(self, key), 1 if key == "duty" else math.inf
            if value is not None and not 0 < value <= most:
                raise UsageFault(
                    "bank.producer-setting-out-of-range",
                    f"producer: {key} is {value}, expected above 0, at most {most}",
                )


def produce(
    writer: BankWriter,
    draw: Callable[[int, int], list[Sample]],
    finalise: Callable[[Sample], HostArrays],
    config: ProducerConfig,
    *,
    stop: Callable[[], bool],
    min_size: Sequence[int],
    compare: Callable[[Sequence[Any]], None] | None = None,
    settings: Mapping[str, Any] | None = None,
    oriented: bool = False,
) -> None:
    """Fill a bank, then finish it if it is frozen, else refresh it until stopped.

    Samples are numbered from 0 and published in order, with their ``index`` in the provenance. A
    rejected sample leaves a gap. Batches start at multiples of the batch size. An interrupted bank
    therefore gets, to the bit, the content of an uninterrupted one.

    Args:
        draw: ``draw(first_index, n)`` generates n samples in the host's space, for
            ``config.producers`` processes a batch each.
        finalise: returns the host's extra arrays of a sample.
        stop: checked between batches and during rests.
        min_size: smallest spatial size in voxels.
        compare: refuses images of the first samples in other units than the real ones.
        settings: generation settings for the provenance.
        oriented: whether it is known which way samples' arrays run (``Space.oriented``).
    """
    spec = writer.spec
    pictures = Path(config.rejected) if config.rejected else None
    rejected = RejectedSamples(pictures, spec.schema, oriented=oriented)
    admission = _Admission(spec, finalise, min_size, QualityGate(writer.rejected), rejected)
    took: deque[float] = deque(maxlen=32)  # seconds of batches
    start = _first_unpublished(writer.folder)
    first, count = start - start % config.batch, config.batch * config.producers
    with _beating(writer):
        while not stop() and not (spec.frozen and writer.full):
            begin = writer.working_since = time.monotonic()
            admitted: list[tuple[Sample, HostArrays]] = []
            for index, sample in enumerate(draw(first, count), first):
                if index < start:  # published already
                    continue
                entry = admission.admit(sample, index)
                if entry is not None:
                    stored, extras = entry
                    admitted.append(
                        (stored if settings is None else noted(stored, settings), extras)
                    )
            first += count
            if admitted and compare is not None:
                compare([sample.image for sample, _ in admitted])
                compare = None
            for sample, extras in admitted:
                if not (spec.frozen and writer.full):
                    writer.publish(sample, extras)
            end = time.monotonic()
            took.append(end - begin)
            writer.working_since, writer.usual = None, statistics.median(took)
            if not spec.frozen:
                log_work(writer.folder, begin, end)
                if writer.full:
                    writer.state = "refreshing"
            writer.beat()
            while (left := _rest(writer, config, begin, end)) > 0 and not stop():
                time.sleep(min(left, _POLL_SECONDS))
        if spec.frozen and writer.full:
            if not writer.complete:
                writer.finish()
            writer.state = "complete"
            writer.beat()


def _first_unpublished(folder: Path) -> int:
    """Return the index of the sample after the last published one of a bank; 0 if it is empty."""
    reader = BankReader(folder)
    last = reader.ids()[-1:]
    return int(reader.read(last[0]).provenance["index"]) + 1 if last else 0


@dataclass(frozen=True)
class _Admission:
    """Decides which samples a bank takes; counts the others and keeps pictures of a few."""

    spec: BankSpec
    finalise: Callable[[Sample], HostArrays]
    min_size: Sequence[int]
    gate: QualityGate
    rejected: RejectedSamples

    def admit(self, sample: Sample, index: int) -> tuple[Sample, HostArrays] | None:
        """Return a sample as it is stored, and the host's arrays of it; None if it is rejected."""
        try:
            stored = validate_sample(sample, self.spec.schema, self.min_size, self.spec.dtype)
            extras = self.finalise(sample)
        except DataFault as fault:
            self.rejected.keep(sample, fault, index)
            self.gate.reject(fault)
            return None
        self.gate.accept()
        return replace(stored, provenance=dict(sample.provenance, index=index)), extras


def _rest(writer: BankWriter, config: ProducerConfig, begin: float, end: float) -> float:
    """Return the seconds to rest from now; infinite while too few samples were drawn.

    A live bank is filled without rest until training starts, a frozen one until its end. ``reuse``
    and ``refresh`` apply to full banks only.
    """
    if writer.spec.frozen:
        return 0.0
    pace = read_throttle_state(writer.folder)
    filling = writer.state != "refreshing"
    duty = config.duty
    if pace is not None:
        duty = pace.duty
    elif filling or config.reuse is not None or config.refresh is not None:
        duty = 1.0
    # Work is the share ``duty`` of work and rest: rest = work * (1 - duty) / duty.
    due = end + (end - begin) * (1 - duty) / duty
    if not filling:
        held, drawn = max(1, writer.held), 0 if pace is None else pace.drawn
        if config.refresh is not None:
            drawn_at_once = config.batch * config.producers
            due = max(due, begin + drawn_at_once * config.refresh / held)
        # Samples were replaced as often as the draws ask for; more draws end this rest.
        if config.reuse is not None and writer.total - held >= drawn / config.reuse:
            return math.inf
    return due - time.monotonic()


@contextlib.contextmanager
def _beating(writer: BankWriter) -> Iterator[None]:
    """Write the heartbeat each second, until a batch takes far too long."""
    done = threading.Event()

    def beat() -> None:
        batch: Life | None = None  # what has been done of one that takes long
        while not done.wait(_BEAT_SECONDS):
            since, usual = writer.working_since, writer.usual
            if since is None or time.monotonic() - since < _WATCHED:
                batch = None
            elif batch is None:
                batch = Life(os.getpid())
            else:
                batch.look()
                limit = 3 * _LONGEST if usual is None else max(_LONGEST, _TIMES_USUAL * usual)
                if batch.hung(limit):
                    return  # looking on would be a sign of life
            with contextlib.suppress(EnvironmentFault):  # publishing reports a full disk
                writer.beat()

    thread = threading.Thread(target=beat, name="gansynth-beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_BEAT_SECONDS)


# -- the process ---------------------------------------------------------------------------------


class _StopSignal:
    """Stop on SIGTERM, SIGINT or the parent's end: orderly, or at once after a short time."""

    def __init__(self, parent: int | None) -> None:
        self.exit_code = EXIT_OK
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if parent is not None:
            threading.Thread(target=self._follow, args=(parent,), daemon=True).start()

    def __call__(self) -> bool:
        return self.exit_code != EXIT_OK

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if not self():  # a second signal must not disturb the clean-up
            self.exit_code = 128 + number
            threading.Thread(target=_end_soon, args=(number,), daemon=True).start()
            raise SystemExit(self.exit_code)

    def _follow(self, parent: int) -> None:
        # Polled: the kernel's own parent-death signal is sent when the *thread* that started us
        # ends, which would kill the producer of a healthy parent.
        wait_for_end_of(parent, _PARENT_POLL_SECONDS)
        send_self(signal.SIGTERM)
        _end_soon(signal.SIGTERM)  # also while C code keeps the handler from being called


def _end_soon(number: int) -> None:
    time.sleep(_GRACE_SECONDS)
    os._exit(128 + number)


def run_producer(config: ProducerConfig, stop: Callable[[], bool]) -> None:
    """Open run, source and bank, and fill the bank; at low priority if a training runs beside."""
    if not config.frozen:  # a frozen bank is waited for, and nothing else
        lower_priority(NICENESS)  # before the heavy imports
    from gansynth.bank.drawing_workers import (
        Drawing,
        DrawingWorkers,
        draw_converted,
        open_drawing,
    )
    from gansynth.core.units import compare_with_cases
    from gansynth.sampling.deidentify import real_parts
    from gansynth.sampling.replay import host_of, settings_of

    drawing = Drawing(
        config.run,
        config.request,
        config.target,
        config.samples,
        config.device,
        measured=config.frozen,  # only a frozen bank can be exported for sharing
    )
    sampler, convert, intake, cases = open_drawing(drawing)
    run = sampler.run
    host = host_of(config.request, config.target, run, converted=convert is not None)
    spec = BankSpec(
        schema=cases.source.schema,
        lineage=sampler.lineage,
        run_id=run.run_id,
        generator=run.manifest_sha256,
        frozen=config.frozen,
        capacity=config.capacity,
        dtype=config.dtype,
        samples=sampler.request,
        max_bytes=None if config.frozen else config.max_bytes,
        real=real_parts(run),
    )
    with open_bank(Path(config.bank), spec) as writer, contextlib.ExitStack() as stack:
        draw: Draw = partial(draw_converted, sampler, convert)
        if config.producers > 1:
            workers = DrawingWorkers(drawing, config.producers, config.batch)
            draw = stack.enter_context(workers).draw
            writer.count_drawing = workers.count
        try:
            produce(
                writer,
                draw,
                (lambda _: {}) if intake is None else intake.finalise,
                config,
                stop=stop,
                min_size=() if intake is None or convert is not None else intake.sample_size,
                compare=partial(compare_with_cases, Path(config.run), cases),
                settings=settings_of(sampler, config.batch, config.dtype, host),
                oriented=cases.source.space.oriented,
            )
        finally:
            if not writer.complete:
                writer.state = "stopped"
                with contextlib.suppress(GansynthError):
                    writer.beat()


def open_bank(folder: Path, spec: BankSpec) -> BankWriter:
    """Make a bank, or continue it; UsageFault: it was made with other options."""
    if not (folder / SPEC).exists():
        return BankWriter.create(folder, spec)
    writer = BankWriter.attach(folder)
    existing, requested = writer.spec.to_json(), spec.to_json()
    keys = sorted({*existing, *requested})
    differing = [key for key in keys if existing.get(key) != requested.get(key)]
    if differing:
        writer.close()
        raise UsageFault(
            "bank.made-with-other-options",
            f"{folder}: this bank was made with other {', '.join(differing)}; expected the same to "
            "go on with it. Name another folder, or delete it",
        )
    return writer


def main(path: str) -> int:
    """Run the producer that a JSON file describes, and return its exit code."""
    try:
        config = _read_config(path)
        stop = _StopSignal(config.parent)
        try:
            run_producer(config, stop)
        except RuntimeError as error:
            if not _tells_of_no_room(error):
                raise
            text = " ".join(str(error).split())
            raise EnvironmentFault(
                "bank.no-room-on-device",
                f"{NO_ROOM}{config.device}: {text[:300]}; use another device, or the CPU",
            ) from error
    except GansynthError as error:
        sys.stderr.write(f"{error.line}\n")
        return error.exit_code
    return stop.exit_code


def _read_config(path: str) -> ProducerConfig:
    try:
        return ProducerConfig.from_json(read_json(path))
    except TypeError as error:
        raise UsageFault(
            "bank.producer-config-invalid", f"{path}: {error}; expected ProducerConfig"
        ) from error


def _tells_of_no_room(error: RuntimeError) -> bool:
    """Whether a device was out of memory, or in exclusive mode.

    torch.OutOfMemoryError is known by its name, for torch may be missing. CUDA and cuBLAS have
    messages of their own.
    """
    text = " ".join([type(error).__name__, *str(error).split()])
    return any(words in text for words in _NO_ROOM)


if __name__ == "__main__":
    # The parent handles Ctrl-C. Not a new session: Linux shares the CPU between sessions
    # first, and a low priority counts only within one.
    leave_group()
    sys.exit(main(sys.argv[1]))
