"""Run mutants of a format in child processes, and count what came of them."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from tests.fuzz.formats import FORMATS, ROOT, Format
from tests.fuzz.planted import PLANTED

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

    def count(self, line: list[Any]) -> None:
        number, how, words, peak, outside = line
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


_END = object()


def _listen(stream: IO[str], lines: queue.Queue[Any]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(_END)


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


def _next(lines: queue.Queue[Any], pid: int, patience: float) -> Any:
    """Return the next line; queue.Empty if the child computes, or only waits, for too long."""
    began = _computed(pid)
    for _ in range(WAITS):
        try:
            return lines.get(timeout=patience)
        except queue.Empty:
            if _computed(pid) - began > patience / 2:
                raise
    raise queue.Empty


def _computed(pid: int) -> float:
    """Return the seconds that a process has computed: fewer than it exists on a busy machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child(name: str, folder: Path, first: int, end: int, patience: float, tally: Tally) -> int:
    """Run one child process until its end; return the mutant at which to go on."""
    words = [sys.executable, "-m", "tests.fuzz.child", name, str(folder), str(SEED)]
    lines: queue.Queue[Any] = queue.Queue()
    errors = folder.with_name("stderr")
    with errors.open("w+") as stderr, subprocess.Popen(
        [*words, str(first), str(end)], stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT
    ) as child:  # fmt: skip
        assert child.stdout is not None
        threading.Thread(target=_listen, args=(child.stdout, lines), daemon=True).start()
        reading: int | None = None
        try:
            while (line := _next(lines, child.pid, patience)) is not _END:
                entry = json.loads(line)
                reading = entry[0]
                if len(entry) > 1:
                    tally.count(entry)
                    first, reading = entry[0] + 1, None
        except queue.Empty:
            if reading is None:
                raise RuntimeError(f"{name}: mutant {first} is not made") from None
            tally.mutants += 1
            tally.note("hangs", reading, f"{name}: more than {patience} s")
            return reading + 1
        finally:
            child.kill()
        code = child.wait()
        if reading is not None:
            tally.mutants += 1
            tally.note("crashes", reading, f"{name}: ended by {code}")
            return reading + 1
        stderr.seek(0)
        if code or first < end:
            raise RuntimeError(f"{name}: the child failed: {stderr.read()[-2000:]}")
    return first
