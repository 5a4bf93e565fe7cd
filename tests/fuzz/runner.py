"""Read mutants of a format in forked processes, and count what came of them."""

import contextlib
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click

from gansynth.runtime.errors import EXIT_BUG, GansynthError
from tests.fuzz.formats import FORMATS, PLANTED, Format

SEED = 0
HANG_SECONDS = 10.0
WAITS = 30
"""Times as long that a mutant may wait without computing, on a busy machine."""
MOST_MIB = 1024
COLUMNS = ("mutants", "accepted", "typed", "untyped", "crashes", "hangs", "memory", "outside")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class")
Mutant = tuple[int, Format, Path]


class Watch:
    """What this process does outside of its folder, by Python's audit events."""

    def __init__(self, folder: Path) -> None:
        self.home = os.path.realpath(folder)
        self.outside: list[str] = []
        self.on = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in FORBIDDEN:
            self.outside.append(f"{event} {arguments!r:.100}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            self._written(event, arguments[:1])
        elif event in CHANGES:
            self._written(event, arguments[:2])

    def _written(self, event: str, paths: tuple[Any, ...]) -> None:
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                name = os.path.realpath(os.fsdecode(path))
                if name != os.devnull and os.path.commonpath((name, self.home)) != self.home:
                    self.outside.append(f"{event} {name}")


def mutant(spec: Format, files: list[Path], name: str, number: int) -> tuple[Path, bytes]:
    """Return a file and its damaged bytes, always the same for the same number."""
    rng = random.Random(f"{SEED} {name} {number}")
    file = files[number % spec.together] if spec.together > 1 else rng.choice(files)
    unpack, pack = rng.choice(spec.layers)
    data = unpack(file.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        with contextlib.suppress(Exception):  # damaged twice: no document any more
            data = rng.choice(spec.mutators)(data or b"\0", rng)
    return file, pack(data)


def outcome(spec: Format, folder: Path, file: Path) -> tuple[str, str]:
    """Read, and return what came of it."""
    try:
        spec.read(folder, file)
    except GansynthError as fault:
        how = "untyped" if fault.exit_code == EXIT_BUG else "typed"
        return how, f"{type(fault).__name__}: {str(fault)[:300]}"
    except click.ClickException as fault:
        return "typed", str(fault)[:200]
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        where = traceback.extract_tb(error.__traceback__)
        ours = [f for f in where if "gansynth" in f.filename and "/tests/" not in f.filename]
        last = (ours or where)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return "untyped", f"{type(error).__name__} at {place}: {str(error)[:200]}"
    return "accepted", ""


def peak_mib() -> int:
    """Return the most memory this process had so far; ``ru_maxrss`` counts its parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) >> 10


def mutants(name: str, valid: Path, folder: Path, numbers: range) -> Iterator[Mutant]:
    """Yield mutants one after the other, each written in place of the undamaged file."""
    spec = {**FORMATS, **PLANTED}[name]
    shutil.copytree(valid, folder)
    files = sorted(folder.glob(spec.files))
    for file in files[:: max(1, len(files) // 3)]:
        if (found := outcome(spec, folder, file))[0] != "accepted":
            raise RuntimeError(f"{name}: {file} is not read undamaged: {found}")
    for start in range(0, len(numbers), spec.together):
        unit = numbers[start : start + spec.together]
        shutil.rmtree(folder)
        shutil.copytree(valid, folder)
        made = [mutant(spec, files, name, number) for number in unit]
        for number, (file, data) in zip(unit, made, strict=True):
            file.write_bytes(data)
            if spec.renote is not None and number % 2:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    spec.renote(folder, file)
        for number, (file, _) in zip(unit, made, strict=True):
            yield number, spec, file
    shutil.rmtree(folder)


def read_mutants(
    name: str, valid: Path, folder: Path, numbers: range, seconds: float, lines: Connection
) -> None:
    """Send the number of each mutant before it is read, and after that what came of it."""
    os.fsync = lambda fd: None  # no power cut is tested here
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    for clock in (signal.SIGVTALRM, signal.SIGALRM):  # which end this process
        signal.signal(clock, signal.SIG_DFL)
    watch = Watch(folder)
    for number, spec, file in mutants(name, valid, folder, numbers):
        lines.send([number])
        watch.outside.clear()
        watch.on = True
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        signal.setitimer(signal.ITIMER_REAL, WAITS * seconds)
        how, words = outcome(spec, folder, file)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        watch.on = False
        lines.send([number, how, f"{file.name}: {words}", peak_mib(), [*watch.outside]])


@dataclass
class Tally:
    """Outcomes of the mutants of a format; ``examples``: one of each kind that must not be."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    peak_mib: int = 0
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def bad(self) -> int:
        return sum(self.counts[kind] for kind in COLUMNS[3:])

    def note(self, kind: str, number: int, words: str) -> None:
        self.counts[kind] += 1
        self.examples.setdefault(f"{kind}: {words.partition(': ')[2][:70]}", f"{number}: {words}")

    def count(self, number: int, how: str, words: str, peak: int, outside: list[str]) -> None:
        self.counts["mutants"] += 1
        if how == "untyped":
            self.note(how, number, words)
        else:
            self.counts[how] += 1
        if peak > MOST_MIB >= self.peak_mib:  # the highest so far, so it counts once a process
            self.note("memory", number, f"{peak} MiB: {words}")
        self.peak_mib = max(self.peak_mib, peak)
        if outside:
            self.note("outside", number, f"{outside[0]}: {words}")

    def to_json(self) -> dict[str, Any]:
        return {**self.counts, "peak_mib": self.peak_mib, "examples": self.examples}


def sample(spec: Format, made: Path) -> Path:
    """Return the folder with a valid sample of a format; make it where it is missing."""
    name = spec.make.args[0] if isinstance(spec.make, partial) else spec.make.__name__
    folder = made / str(name)
    if not folder.exists():
        folder.mkdir(parents=True)
        spec.make(folder)
    return folder


def fuzz(name: str, count: int, made: Path, work: Path, seconds: float = HANG_SECONDS) -> Tally:
    """Read ``count`` mutants of a format, so many seconds each at most.

    Args:
        made: folder with a valid sample of each maker, made where it is missing.
        work: a folder for copies of it, which are removed.
    """
    spec, tally, first, folder = {**FORMATS, **PLANTED}[name], Tally(), 0, work / "set"
    valid = sample(spec, made)
    seconds *= 1 if spec.together == 1 else 12
    while first < count:
        shutil.rmtree(folder, ignore_errors=True)
        first = _child(name, valid, folder, range(first, count), seconds, tally)
    return tally


def _child(
    name: str, valid: Path, folder: Path, numbers: range, seconds: float, tally: Tally
) -> int:
    """Read mutants in one child process until its end; return the mutant at which to go on."""
    fork = multiprocessing.get_context("fork")
    lines, theirs = fork.Pipe(duplex=False)
    told = (name, valid, folder, numbers, seconds, theirs)
    process = fork.Process(target=read_mutants, args=told)
    process.start()
    theirs.close()
    first = numbers.start
    reading: int | None = None
    with contextlib.suppress(EOFError):
        while True:
            number, *found = lines.recv()
            reading = None if found else number
            if found:
                tally.count(number, *found)
                first = number + 1
    process.join()
    if reading is None:
        assert (first, process.exitcode) == (numbers.stop, 0), f"{name}: mutant {first} is not made"
        return first
    hung = process.exitcode in (-signal.SIGVTALRM, -signal.SIGALRM)
    tally.counts["mutants"] += 1
    tally.note("hangs" if hung else "crashes", reading, f"{name}: ended by {process.exitcode}")
    return reading + 1
