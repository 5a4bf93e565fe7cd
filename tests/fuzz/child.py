"""Read mutants of one format in this process, and say so before and after each."""

from __future__ import annotations

import contextlib
import os
import random
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click

from gansynth.runtime.errors import EXIT_BUG, GansynthError
from tests.fuzz.formats import FORMATS, PLANTED, Format

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


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def restore(folder: Path, valid: dict[Path, bytes], times: dict[Path, int]) -> None:
    """Put every file back as it was, and remove new ones."""
    for path in [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]:
        if path not in valid:
            path.unlink()
    for path, data in valid.items():
        if not path.is_file() or path.stat().st_mtime_ns != times.get(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            times[path] = path.stat().st_mtime_ns


def mutant(
    spec: Format, files: list[Path], name: str, seed: int, number: int
) -> tuple[Path, bytes]:
    """Return a file and its damaged bytes, always the same for the same numbers."""
    rng = random.Random(f"{seed} {name} {number}")
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


def mutants(name: str, folder: Path, seed: int, first: int, last: int) -> Iterator[Mutant]:
    """Yield mutants one after the other, each written in place of the undamaged file."""
    spec, valid, times = {**FORMATS, **PLANTED}[name], snapshot(folder), dict[Path, int]()
    files = sorted(folder.glob(spec.files))
    for file in files[:: max(1, len(files) // 3)]:
        if (found := outcome(spec, folder, file))[0] != "accepted":
            raise RuntimeError(f"{name}: {file} is not read undamaged: {found}")
    for start in range(first, last, spec.together):
        unit = range(start, min(start + spec.together, last))
        restore(folder, valid, times)
        made = [mutant(spec, files, name, seed, number) for number in unit]
        for number, (file, data) in zip(unit, made, strict=True):
            file.write_bytes(data)
            if spec.renote is not None and number % 2:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    spec.renote(folder, file)
        for number, (file, _) in zip(unit, made, strict=True):
            yield number, spec, file


def main(
    name: str, folder: Path, seed: int, first: int, last: int, lines: Connection[Any, Any]
) -> None:
    """Send the number of each mutant before it is read, and after that what came of it."""
    os.fsync = lambda fd: None  # no power cut is tested here
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    watch = Watch(folder)
    for number, spec, file in mutants(name, folder, seed, first, last):
        lines.send([number])
        watch.outside.clear()
        watch.on = True
        how, words = outcome(spec, folder, file)
        watch.on = False
        lines.send([number, how, f"{file.name}: {words}", peak_mib(), [*watch.outside]])
