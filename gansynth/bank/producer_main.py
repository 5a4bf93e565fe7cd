"""The producer process: ``python -m gansynth.bank.producer_main CONFIG.json``.

``gansynth.bank.supervisor`` starts it. It fills a bank and keeps it fresh at low priority, and
writes a heartbeat. It ends within seconds of its parent's death. Errors are one line and an exit
code.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from gansynth.bank.producer import ProducerConfig, produce
from gansynth.bank.reader import BankSpec, BankWriter
from gansynth.bank.spec import SPEC
from gansynth.bank.supervisor import NO_ROOM
from gansynth.runtime.errors import EXIT_OK, EnvironmentFault, GansynthError, UsageFault
from gansynth.runtime.files import read_json

__all__ = ["ProducerConfig", "main", "produce"]

NICENESS = 10
_PARENT_POLL_SECONDS = 0.5
_GRACE_SECONDS = 1.5  # time for an orderly end; with the poll interval, less than 3 s for an orphan
_NO_ROOM = (
    "OutOfMemoryError",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "busy or unavailable",
)


class _StopSignal:
    """Stop on SIGTERM, SIGINT or the parent's end; a thread acts while C code blocks handlers."""

    def __init__(self, parent: int | None) -> None:
        self.parent = parent
        self.exit_code: int | None = None
        self._signals, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> bool:
        return self.exit_code is not None

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.exit_code is None:  # a second signal must not disturb the clean-up
            self.exit_code = 128 + number
            raise SystemExit(self.exit_code)

    def _watch(self) -> None:
        number: int = signal.SIGTERM
        # Polled: the kernel's own parent-death signal is sent when the *thread* that started us
        # ends, which would kill the producer of a healthy parent.
        while self.parent is None or os.getppid() == self.parent:
            if select.select([self._signals], [], [], _PARENT_POLL_SECONDS)[0]:
                number = os.read(self._signals, 1)[0]
                break
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS)
        os._exit(128 + number)


def _run(config: ProducerConfig, stop: Callable[[], bool]) -> None:
    os.nice(NICENESS)  # before the heavy imports
    from gansynth.core.null_adapter import NullAdapter
    from gansynth.core.registry import installed
    from gansynth.core.run_folder import RunFolder
    from gansynth.core.source import SourceRequest
    from gansynth.core.units import compare_with_cases
    from gansynth.sampling.deidentify import real_parts
    from gansynth.sampling.replay import host_of, settings_of
    from gansynth.sampling.run_source import open_drawer, open_source

    source = open_source(SourceRequest(**config.request))
    adapter = (installed().adapter(config.target) if config.target else NullAdapter)(source)
    generator = RunFolder(Path(config.run))
    sampler, bring = open_drawer(adapter, generator, config.samples, device=config.device)
    sampler.measured = config.frozen  # only a frozen bank can be exported for sharing
    run = sampler.run
    host = host_of(config.request, config.target, run, brought=bring is not None)
    spec = BankSpec(
        schema=adapter.schema,
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
    with _open_bank(Path(config.bank), spec) as writer:
        try:
            produce(
                writer,
                sampler.draw,
                adapter.finalise,
                config,
                stop=stop,
                schema=adapter.schema,
                min_size=adapter.sample_size if bring is None else (),
                bring=bring,
                compare=partial(compare_with_cases, Path(config.run), source),
                settings=settings_of(sampler, config.batch, config.dtype, host),
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
    existing, requested = writer.spec.to_json(), spec.to_json()
    keys = {*existing, *requested}
    differing = sorted(key for key in keys if existing.get(key) != requested.get(key))
    if differing:
        writer.close()
        raise UsageFault(
            f"{folder}: this bank was made with other {', '.join(differing)}; expected the same to "
            "go on with it. Name another folder, or delete it"
        )
    return writer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a producer, ``python -m gansynth.bank.producer_main FILE``, and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if len(arguments) != 1:
            raise UsageFault("usage: python -m gansynth.bank.producer_main CONFIG.json")
        config = ProducerConfig.from_json(read_json(arguments[0]))
        stop = _StopSignal(config.parent)
        try:
            _run(config, stop)
        except RuntimeError as error:
            # torch.OutOfMemoryError by its name: torch may be missing. CUDA and cuBLAS have their
            # own messages, also for a device in exclusive mode.
            said = f"{type(error).__name__} {error}"
            if not any(words in said for words in _NO_ROOM):
                raise
            text = " ".join(str(error).split())[:300]
            raise EnvironmentFault(
                f"{NO_ROOM}{config.device}: {text}; use another device, or the CPU"
            ) from error
    except GansynthError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return stop.exit_code or EXIT_OK


if __name__ == "__main__":
    # The parent handles Ctrl-C. Not a new session: Linux shares the CPU between sessions
    # first, and a low priority counts only within one.
    os.setpgid(0, 0)
    sys.exit(main())
