"""Checks of the machine for ``hosts.data_sets.doctor``: cores, disks, packages; free memory."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.files import in_units
from gansynth.runtime.sizes import bytes_of
from gansynth.runtime.system import SHARED_MEMORY, usable_cores
from gansynth.runtime.version import installed_parts

CGROUP = Path("/sys/fs/cgroup")
CACHE_MEMORY = "GANSYNTH_CACHE_MEMORY"  # a size, for this process and those that it starts
GIB = 2**30
NEWEST_TORCH = (2, 15)
"""Newest release of torch with which the tests were run."""
LITTLE_SPACE = 2 * GIB
"""Free bytes of a folder below which a bank of ordinary samples has no room."""


# -- cores and memory ----------------------------------------------------------------------------


def cores() -> int:
    """Return the cores this process may use: by affinity, and by a container's quota."""
    count = usable_cores()
    quota = _cgroup("cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        count = max(1, min(count, int(quota[0]) // int(quota[1])))
    return count


def threads() -> DoctorLine:
    """Check the cores, and whether each process will start a thread for every one of them."""
    count, setting = cores(), os.environ.get("OMP_NUM_THREADS")
    if setting is None and count > 1:
        return DoctorLine(
            "note",
            "threads",
            f"{count} cores; OMP_NUM_THREADS is not set. Where cores are shared with other jobs, "
            "more threads than free cores slow training down many times",
            "export OMP_NUM_THREADS=1",
        )
    return DoctorLine("ok", "threads", f"{count} cores, OMP_NUM_THREADS={setting}")


def refuse_beyond_memory(needed: int, what: str) -> None:
    """Refuse (EnvironmentFault) what takes more bytes than there are free."""
    free = free_memory()
    if needed > free:
        raise EnvironmentFault(
            "machine.needs-more-memory-than-free",
            f"{what}, which takes {in_units(needed)} of memory; expected at most the "
            f"{in_units(free)} that are free. Make it smaller, or take a machine with more",
        )


def free_memory() -> int:
    """Return the free bytes of memory, within a container's limit."""
    import psutil

    ram = psutil.virtual_memory()
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit.isdigit() and int(limit) < ram.total:
        return min(ram.available, int(limit) - int(used or 0))
    return ram.available


def hold_cases_in(size: str | None) -> None:
    """Limit the memory for cases, here and in processes that this one starts; None: as it was."""
    if size is not None:
        os.environ[CACHE_MEMORY] = size


def cache_memory() -> int:
    """Return the bytes of cases that this process may hold in memory.

    It is what ``--cache-memory`` asked for, here or in a process that started this one, else a
    quarter of what is free.
    """
    asked = os.environ.get(CACHE_MEMORY)
    return bytes_of(asked, CACHE_MEMORY) if asked else free_memory() // 4


def _cgroup(name: str) -> str:
    """Return the content of a container's limit file; empty if it does not exist."""
    try:
        return (CGROUP / name).read_text().strip()
    except OSError:
        return ""


# -- disks ---------------------------------------------------------------------------------------


def shared_memory() -> DoctorLine:
    """Check shared memory, which holds the sample banks of trainings."""
    name = str(SHARED_MEMORY)
    fallback = "elsewhere banks go to the temporary folder, or to --bank-dir FOLDER"
    if not os.access(SHARED_MEMORY, os.W_OK):
        return DoctorLine("note", name, "not there, or not writable", fallback)
    return _room(name, SHARED_MEMORY, f"enlarge it (docker run --shm-size 8g); {fallback}")


def temporary() -> DoctorLine:
    """Check the temporary folder, which takes banks that shared memory cannot."""
    cure = "make room, or name a folder on a larger disk: export TMPDIR=FOLDER"
    return _room("temporary files", Path(tempfile.gettempdir()), cure)


def _room(name: str, folder: Path, cure: str) -> DoctorLine:
    free = shutil.disk_usage(folder).free
    text = f"{folder}, {in_units(free)} free"
    if free < LITTLE_SPACE:
        return DoctorLine("note", name, text, cure)
    return DoctorLine("ok", name, text)


@dataclass(frozen=True)
class DoctorLine:
    """Result of one check.

    Attributes:
        state: ``ok``, ``note`` (works, but worth knowing) or ``bad`` (something essential).
        what: its name.
        found: its result.
        cure: a hint, ready to paste if possible.
    """

    state: Literal["ok", "note", "bad"]
    what: str
    found: str
    cure: str = ""

    @property
    def text(self) -> str:
        """The result, and the hint."""
        return f"{self.found}; {self.cure}" if self.cure else self.found

    @classmethod
    def of_package(cls, package: str, *, essential: bool = False) -> DoctorLine:
        """Check one package: installed, of a version that gansynth needs, and importable."""
        state: Literal["bad", "note"] = "bad" if essential else "note"
        needs = _requirements().get(package, "")
        install = f"pip install '{package}{needs}'" if str(needs) else f"pip install {package}"
        try:
            installed = version(package)
            if str(needs) and installed not in needs:  # whose import may fail in any way
                return cls(state, package, f"{installed}, gansynth needs {needs}", install)
            importlib.import_module(package.replace("-", "_"))
        except PackageNotFoundError:
            return cls(state, package, "not installed", install)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return cls(state, package, f"does not import: {reason}", f"{install} --force-reinstall")
        return cls("ok", package, installed)


# -- packages ------------------------------------------------------------------------------------


def torch_line() -> DoctorLine:
    """Check torch, which may be newer than what was tested: no installation replaces it."""
    from packaging.version import Version

    line = DoctorLine.of_package("torch", essential=True)
    if line.state == "ok" and Version(line.found).release[:2] > NEWEST_TORCH:
        tested = ".".join(map(str, NEWEST_TORCH))
        found = f"{line.found}, newer than {tested}, the newest that was tested"
        return DoctorLine("note", "torch", found, f"if it fails: pip install 'torch=={tested}.*'")
    return line


@functools.cache
def _requirements() -> dict[str, Any]:
    """Return the versions gansynth requires by its own metadata; empty if unreadable."""
    try:
        from packaging.requirements import Requirement

        texts = [text for part in installed_parts() for text in part.requires or ()]
        needed = [Requirement(text) for text in texts]
    except Exception:  # for example a source tree that is not installed
        return {}
    return {need.name: need.specifier for need in needed if need.marker is None}
