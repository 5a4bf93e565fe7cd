"""The producer: a process of its own that fills a bank and keeps it fresh while a host trains.

``Producer.start`` runs it from the host's main process; ``python -m gansynth.producer CONFIG.json``
is what is run. It works at low priority, shows in the bank's heartbeat that it lives, ends within
seconds of its parent's death, and says what went wrong in one line and an exit code.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from gansynth._bank_spec import SPEC
from gansynth._produce import ProducerConfig, produce
from gansynth.bank import BankReader, BankSpec, BankWriter
from gansynth.errors import (
    EXIT_OK,
    FAULTS,
    EnvironmentFault,
    GansynthError,
    TrainingFault,
    UsageFault,
)
from gansynth.integrity import disk_errors, read_json, write_json_atomic

__all__ = ["Producer", "ProducerConfig", "main", "produce"]

NICENESS = 10
_POLL_SECONDS = 0.1
_PARENT_POLL_SECONDS = 0.5
_GRACE_SECONDS = 1.5
"""How long it may take to end in good order; with the poll, less than 3 s for an orphan."""


# -- the handle, in the parent -------------------------------------------------------------------


class Producer:
    """A running producer, seen from the process that started it."""

    def __init__(self, config: ProducerConfig, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.config = config
        self.log = log
        self.process = process

    @classmethod
    def start(cls, config: ProducerConfig, log: Path) -> Producer:
        """Start a producer; what it says goes to ``log``, its configuration beside it.

        Raises:
            EnvironmentFault: the log cannot be written.
        """
        config = replace(config, parent=config.parent or os.getpid())
        settings = log.with_suffix(".json")
        write_json_atomic(settings, config.to_json())
        # The same modules in the same order as here, and none from the folder it happens to run in.
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        if not config.device.startswith("cuda"):
            env["OMP_NUM_THREADS"] = "1"  # more threads than free cores are slower, for both sides
        with disk_errors(log), open(log, "wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gansynth.producer", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=env,
                # Ctrl-C is the parent's business. Not a new session: Linux shares the CPU between
                # sessions first, and a low priority counts only within one.
                process_group=0,
            )
        return cls(config, log, process)

    def wait(
        self, samples: int, timeout: float, progress: Callable[[int], None] | None = None
    ) -> None:
        """Wait until the bank shows enough samples.

        Args:
            samples: how many.
            timeout: seconds.
            progress: called with the number of samples each time it has changed.

        Raises:
            GansynthError: the producer died; the fault it died of, with its last words.
            TrainingFault: it ended, or time was up, with fewer samples.
        """
        reader = BankReader(self.config.bank)
        end = time.monotonic() + timeout
        shown = -1
        while True:
            code = self.process.poll()  # before counting, so that its last segment counts
            count = reader.count()
            if count != shown and progress is not None:
                progress(count)
            shown = count
            if count >= samples:
                return
            if code is not None:
                raise self._fault(code, count, samples)
            if time.monotonic() >= end:
                raise TrainingFault(
                    f"producer: {count} of {samples} samples after {timeout:g} s; its log "
                    f"{self.log} ends: {self._last_words()}. Wait longer, or hold fewer samples"
                )
            time.sleep(_POLL_SECONDS)

    def _fault(self, code: int, count: int, samples: int) -> GansynthError:
        made = f"with {count} of {samples} samples made"
        if code in FAULTS:
            return FAULTS[code](f"{self._last_words(1)} (producer ended {made}; log: {self.log})")
        if code < 0:
            return EnvironmentFault(
                f"producer: killed by {signal.Signals(-code).name} {made}; out of memory? Its log "
                f"{self.log} ends: {self._last_words()}"
            )
        return TrainingFault(
            f"producer: ended with exit code {code} {made}; its log {self.log} ends: "
            f"{self._last_words()}"
        )

    def _last_words(self, lines: int = 5) -> str:
        try:
            text = self.log.read_text("utf-8", "replace")
        except FileNotFoundError:
            return "(no log)"
        last = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
        return " | ".join(last) or "(nothing)"

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End the process: politely, and after 5 s not."""
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


# -- the process ---------------------------------------------------------------------------------


class _Stop:
    """Ends the process in good order on SIGTERM, SIGINT, or when its parent is gone.

    A signal's handler runs in the main thread, once that returns from whatever C code it is in. A
    second thread watches over that: it learns of signals through a pipe and of the parent's end by
    polling, and after a short grace it ends the process itself.
    """

    def __init__(self, config: ProducerConfig) -> None:
        self.config = config
        self.exit_code: int | None = None
        self._signals, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> bool:
        return self.exit_code is not None

    @property
    def orphaned(self) -> bool:
        # Polled: the kernel's own parent-death signal is sent when the *thread* that started us
        # ends, which would kill the producer of a parent in good health.
        return self.config.parent is not None and os.getppid() != self.config.parent

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.exit_code is None:  # a second one must not disturb the cleaning up
            self.exit_code = 128 + number
            raise SystemExit(self.exit_code)

    def _watch(self) -> None:
        number: int = signal.SIGTERM
        while not self.orphaned:
            if select.select([self._signals], [], [], _PARENT_POLL_SECONDS)[0]:
                number = os.read(self._signals, 1)[0]
                break
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        self.clean_up()
        os._exit(128 + number)

    def clean_up(self) -> None:
        """Delete a scratch bank that nobody will come back for."""
        if self.config.temporary and self.orphaned:
            shutil.rmtree(self.config.bank, ignore_errors=True)


def _run(config: ProducerConfig, stop: Callable[[], bool]) -> None:
    if config.device == "cpu":
        os.nice(NICENESS)  # before the heavy imports
    from gansynth.registry import installed
    from gansynth.run import load_run
    from gansynth.sampling import SampleDrawer
    from gansynth.sources.base import SourceRequest

    run = load_run(Path(config.run), config.device)
    if config.device != "cpu" and run.generator.device.type == "cpu":
        os.nice(NICENESS)
    source = installed().open_source(SourceRequest(**config.request))
    adapter = installed().adapter(config.target)(source)
    spec = BankSpec(
        schema=adapter.schema,
        lineage=run.lineage,
        run_id=run.run_id,
        generator=run.manifest_sha256,
        frozen=config.frozen,
        capacity=config.capacity,
        segment_samples=config.segment_samples,
        dtype=config.dtype,
        seed=config.seed,
        edits=tuple(run.edits if config.edits is None else config.edits),
    )
    drawer = SampleDrawer(run, source, config.edits, config.seed)
    with _open_bank(Path(config.bank), spec) as writer:
        try:
            produce(
                writer,
                drawer.draw,
                adapter.finalise,
                config,
                stop=stop,
                schema=adapter.schema,
                min_size=adapter.sample_size,
            )
        finally:
            if not writer.complete:
                writer.state = "stopped"
                with contextlib.suppress(GansynthError):
                    writer.beat()


def _open_bank(folder: Path, spec: BankSpec) -> BankWriter:
    if not (folder / SPEC).exists():
        return BankWriter.create(folder, spec)
    writer = BankWriter.attach(folder)
    found, wanted = writer.spec.to_json(), spec.to_json()
    differing = sorted(key for key in wanted if found.get(key) != wanted[key])
    if differing:
        writer.close()
        raise UsageFault(
            f"{folder}: this bank was made with other {', '.join(differing)}; expected the same to "
            "go on with it. Name another folder, or delete it"
        )
    return writer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a producer as ``python -m gansynth.producer CONFIG.json``; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if len(arguments) != 1:
            raise UsageFault("usage: python -m gansynth.producer CONFIG.json")
        config = ProducerConfig.from_json(read_json(arguments[0]))
        stop = _Stop(config)
        try:
            _run(config, stop)
        finally:
            stop.clean_up()
    except GansynthError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return stop.exit_code or EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
