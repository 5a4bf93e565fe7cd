"""nnU-Net's processes: in how many it augments, decided here alone, and what they have written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from gansynth import UsageFault
from gansynth.runtime.machine import cores

WORKERS = "nnUNet_n_proc_DA"
"""nnU-Net's variable for their number; a user's wins."""


def own_workers() -> int:
    """Return the number that nnU-Net's own commands start for each GPU; 0: it augments itself."""
    from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

    try:
        return int(get_allowed_n_proc_DA())
    except ValueError:
        raise UsageFault(
            "nnunet.workers-no-number",
            f"{WORKERS}={os.environ[WORKERS]!r}: nnU-Net stops at it, expected a number of "
            f"processes; set one, or: unset {WORKERS}",
        ) from None


def workers() -> int:
    """Return the number that ``gansynth augment`` gives nnU-Net for each GPU.

    That is its own, but no more than the cores that this process may use: nnU-Net counts those of
    the machine, also in a container with fewer.
    """
    own = own_workers()
    return own if WORKERS in os.environ else min(own, cores())


@contextmanager
def counting_files(
    folder: Path, ending: str, tell: Callable[[int, int], None], cases: int
) -> Iterator[None]:
    """Call ``tell(done, cases)`` as files appear in a folder, or are written anew: one a case."""

    def states() -> set[tuple[str, int]]:
        return {(file.name, file.stat().st_mtime_ns) for file in folder.glob(f"*{ending}")}

    before, stop, told = states(), Event(), 0

    def tell_more(done: int) -> None:
        nonlocal told
        if done > told:
            tell(done, cases)
            told = done

    def watch() -> None:
        while not stop.wait(0.5):
            with suppress(FileNotFoundError):  # gone since it was listed
                tell_more(min(cases, len(states() - before)))

    watcher = Thread(target=watch, daemon=True)
    tell(0, cases)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    tell_more(cases)
