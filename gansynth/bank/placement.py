"""Location and disk space of a training's bank, and its removal."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth.runtime.files import disk_errors, in_units
from gansynth.runtime.system import SHARED_MEMORY

FILE_BYTES = 8192  # most bytes of a sample's header and of its last, partly filled block
_SCRATCH = re.compile(r"gansynth-.*-([0-9a-f]{8})-(\d+)-[a-z0-9_]+")


def place_bank(
    run_id: str, bytes_needed: int, scratch: str | os.PathLike[str] | None = None
) -> tuple[Path, str]:
    """Make an empty folder for a bank, named after the run and this process.

    Args:
        run_id: id of the generator's run.
        bytes_needed: bytes of a full bank.
        scratch: parent folder; None is shared memory if twice the room is free, else the temporary
            folder.

    Returns:
        The folder, and a notice for the log if it is not in shared memory, else "".
    """
    for left in _dead_banks(scratch):
        shutil.rmtree(left, ignore_errors=True)
    base, notice = bank_place(bytes_needed, scratch)
    if base.exists() and not base.is_dir():
        raise UsageFault(
            "bank.folder-is-file",
            f"--bank-dir {base}: is a file, expected a folder; name another one",
        )
    with disk_errors(base):
        base.mkdir(parents=True, exist_ok=True)
    free = _free(base) if notice else bytes_needed
    if free < bytes_needed:
        raise EnvironmentFault(
            "bank.no-room-on-disk",
            f"{base}: a bank needs {bytes_needed} bytes, {free} are free; make room, hold fewer "
            "samples (--bank-size), or name a larger disk by --bank-dir (or by TMPDIR)",
        )
    prefix = f"gansynth-{Path(run_id).name}-{_machine()}-{os.getpid()}-"
    with disk_errors(base):
        return Path(tempfile.mkdtemp(prefix=prefix, dir=base)), notice


def bank_place(
    bytes_needed: int, scratch: str | os.PathLike[str] | None = None
) -> tuple[Path, str]:
    """Return the parent folder and the notice of ``place_bank``; nothing is written."""
    if scratch is not None:
        base = Path(scratch).absolute()
        return base, f"the bank is kept in {base}"
    if not os.access(SHARED_MEMORY, os.W_OK):
        why = f"there is no shared memory ({SHARED_MEMORY}) to keep the bank in"
    else:
        free = _free(SHARED_MEMORY)
        if free >= 2 * bytes_needed:
            return SHARED_MEMORY, ""
        why = (
            f"shared memory ({SHARED_MEMORY}) has {in_units(free)} free, the bank needs "
            f"{in_units(bytes_needed)} and as much to spare"
        )
    base = Path(tempfile.gettempdir())
    return base, (
        f"{why}: it is kept in {base} instead; enlarge shared memory (docker run --shm-size 8g), "
        "or name a folder by --bank-dir"
    )


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _dead_banks(scratch: str | os.PathLike[str] | None) -> list[Path]:
    """This machine's scratch banks whose process and watchdog were killed."""
    import psutil

    dead = []
    named = [] if scratch is None else [Path(scratch).absolute()]
    for base in dict.fromkeys((SHARED_MEMORY, Path(tempfile.gettempdir()), *named)):
        for folder in base.glob("gansynth-*"):
            match = _SCRATCH.fullmatch(folder.name)
            if match is None or match[1] != _machine() or not folder.is_dir():
                continue
            if not psutil.pid_exists(int(match[2])):
                dead.append(folder)
    return dead


def _machine() -> str:
    """Return a name of what numbers processes here: containers may share memory, not numbers."""
    numbers = ""
    with contextlib.suppress(OSError):
        numbers = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]
