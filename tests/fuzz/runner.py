"""Read mutants of a format in forked processes, and count what came of them."""

import multiprocessing
import shutil
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from tests.fuzz import child
from tests.fuzz.formats import FORMATS, PLANTED, Format

SEED = 0
HANG_SECONDS = 10.0
WAITS = 30
"""Times as long that a child may wait without computing, on a busy machine."""
MOST_MIB = 1024


@dataclass
class Tally:
    """Outcomes of the mutants of a format; ``examples``: one of each kind that must not be."""

    mutants: int = 0
    accepted: int = 0
    typed: int = 0
    untyped: int = 0
    crashes: int = 0
    hangs: int = 0
    memory: int = 0
    outside: int = 0
    peak_mib: int = 0
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def bad(self) -> int:
        return self.untyped + self.crashes + self.hangs + self.memory + self.outside

    def note(self, kind: str, number: int, words: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.examples.setdefault(f"{kind}: {words.partition(': ')[2][:70]}", f"{number}: {words}")

    def count(self, number: int, how: str, words: str, peak: int, outside: list[str]) -> None:
        self.mutants += 1
        if how == "untyped":
            self.note("untyped", number, words)
        else:
            setattr(self, how, getattr(self, how) + 1)
        if peak > MOST_MIB >= self.peak_mib:  # the highest so far, so it counts once a process
            self.note("memory", number, f"{peak} MiB: {words}")
        self.peak_mib = max(self.peak_mib, peak)
        if outside:
            self.note("outside", number, f"{outside[0]}: {words}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def sample(spec: Format, made: Path) -> Path:
    """Return the folder with a valid sample of a format; make it where it is missing."""
    name = spec.make.args[0] if isinstance(spec.make, partial) else spec.make.__name__
    folder = made / str(name)
    if not folder.exists():
        building = folder.with_name(f"{name}.new")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        spec.make(building)
        building.rename(folder)
    return folder


def fuzz(
    name: str, count: int, made: Path, work: Path, first: int = 0, patience: float = HANG_SECONDS
) -> Tally:
    """Read ``count`` mutants of a format.

    Args:
        made: folder with a valid sample of each maker, made where it is missing.
        work: a folder for copies of it, which are removed.
        first: number of the first mutant.
        patience: seconds for one mutant.
    """
    spec, tally, end = {**FORMATS, **PLANTED}[name], Tally(), first + count
    valid = sample(spec, made)
    patience *= 1 if spec.together == 1 else 12
    while first < end:
        folder = work / "set"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(valid, folder)
        first = _child(name, folder, first, end, patience, tally)
        shutil.rmtree(folder, ignore_errors=True)
    return tally


def _hears(lines: Connection, process: psutil.Process, patience: float) -> bool:
    """Whether a child says something, or ends, before it has computed, or waited, for too long."""
    began = process.cpu_times().user
    for _ in range(WAITS):
        if lines.poll(patience):
            return True
        if process.cpu_times().user - began > patience / 2:
            return False
    return False


def _child(name: str, folder: Path, first: int, end: int, patience: float, tally: Tally) -> int:
    """Read mutants in one child process until its end; return the mutant at which to go on."""
    fork = multiprocessing.get_context("fork")
    lines, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=child.main, args=(name, folder, SEED, first, end, theirs))
    process.start()
    theirs.close()
    reading: int | None = None
    try:
        while _hears(lines, psutil.Process(process.pid), patience):
            number, *told = lines.recv()
            reading = None if told else number
            if told:
                tally.count(number, *told)
                first = number + 1
        how = "hangs", f"more than {patience} s"
    except EOFError:
        process.join()
        how = "crashes", f"ended by {process.exitcode}"
    finally:
        process.kill()
    if reading is not None:
        tally.mutants += 1
        tally.note(how[0], reading, f"{name}: {how[1]}")
        return reading + 1
    if how[0] == "hangs" or process.exitcode or first < end:
        raise RuntimeError(f"{name}: mutant {first} is not made: {how[1]}")
    return first
