"""What depends on a case alone: made once, and kept on disk for all commands that read the case.

An entry says what it was made from: the state of the case's files, and how they are read. Where
that differs, it is made anew, as it is if the disk has damaged it. Processes may share a folder: an
entry is written whole, and all of them would write the same. Where nothing can be written, nothing
is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.runtime.files import folder_bytes, folder_name, free_bytes, remove, temporary_beside
from gansynth.runtime.measuring import measuring
from gansynth.runtime.version import __version__

Arrays = Mapping[str, npt.NDArray[Any]]
"""Arrays of numbers or texts, by name."""
SETTLED = 2.0
"""Seconds after which a change of a file changes its time, too, on any file system."""
PRIVATE = 0o700  # entries are of patients, as the files beside them


@dataclass(frozen=True)
class CaseStore:
    """The entries of one case, in a folder of its own.

    Attributes:
        folder: of the case; it need not exist.
        state: of the case's files, and of how they are read; empty: nothing is kept.
    """

    folder: Path
    state: str

    @classmethod
    def of(cls, case_id: str, files: Iterable[Path], home: Path, *, beside: bool) -> CaseStore:
        """Return the store of the case that some files hold.

        ``home``: file or folder of the data set. Entries are in ``gansynth_NAME`` beside it, if
        that is asked for and may be written to, else in the user's folder, as in a dry run.
        """
        home = Path(os.path.realpath(home))
        own = home.with_name(f"gansynth_{home.name}")
        writes = own.exists() or not measuring().dry
        if not (beside and writes and os.access(own if own.exists() else home.parent, os.W_OK)):
            own = user_folder() / f"{folder_name(home.name)[:40]}-{digest(str(home))[:16]}"
        name = f"{folder_name(case_id)[:60]}-{digest(case_id)[:8]}"
        return cls(own / name, _state_of(files))

    def read_as(self, how: str) -> CaseStore:
        """Return the store of the case's arrays as they are read: ``how`` tells of their making."""
        return replace(self, state=self.state and digest(self.state, how))

    def arrays(self, what: str, make: Callable[[], Arrays]) -> Arrays:
        """Return the entry of a name; made, and kept, if it is not there."""
        file = self.folder / f"{what}.npz"
        kept = self._read(file)
        if kept is not None:
            return kept
        made = make()
        if self.state:
            state = {"made_from": np.array(self.state)}
            self._write(file, lambda path: _save(path, {**made, **state}))
        return made

    def lacks(self, what: str) -> bool:
        """Return whether an entry would be kept, and is not there."""
        return bool(self.state) and self._read(self.folder / f"{what}.npz") is None

    def mapped(self, what: str, make: Callable[[], Arrays]) -> Arrays | None:
        """Return large arrays as maps of files, which processes share; made if they are not there.

        None where nothing is kept, or the disk would be more than half full of them.
        """
        if not self.state:
            return None
        folder = self.folder / f"{what}-{self.state[:16]}"
        if not folder.is_dir():
            made = make()
            if sum([array.nbytes for array in made.values()]) > _half_free(self.folder):
                return None
            for earlier in self.folder.glob(f"{what}-*"):
                _remove_at_once(earlier)
            self._write(folder, partial(_save_each, made))
        with contextlib.suppress(OSError, ValueError):  # removed meanwhile, or cut short
            files = sorted(folder.glob("*.npy"))
            return {file.stem: np.asarray(np.load(file, mmap_mode="r")) for file in files} or None
        return None

    def sizes(self) -> dict[str, int]:
        """Return the bytes of its entries, by the first word of their names."""
        found: dict[str, int] = defaultdict(int)
        for entry in self.folder.glob("*"):
            size = folder_bytes(entry) if entry.is_dir() else entry.stat().st_size
            found[entry.stem.partition("-")[0]] += size
        return found

    def clear(self) -> None:
        """Remove all entries; maps that a process holds stay readable to it."""
        _remove_at_once(self.folder)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # if it was the last one

    def _read(self, file: Path) -> Arrays | None:
        if not self.state:
            return None
        # A damaged archive raises whatever its parts stumble over.
        with contextlib.suppress(Exception), file.open("rb") as stream, np.load(stream) as entry:
            arrays = {name: entry[name] for name in entry.files}  # each has a checksum
            if str(arrays.pop("made_from")) == self.state:
                return arrays
        return None

    def _write(self, final: Path, write: Callable[[Path], None]) -> None:
        if measuring().dry and not self.folder.is_relative_to(user_folder()):
            return
        temporary = temporary_beside(final)
        with contextlib.suppress(OSError):
            os.makedirs(self.folder.parent, PRIVATE, exist_ok=True)
            self.folder.mkdir(exist_ok=True)
            try:
                write(temporary)
                os.replace(temporary, final)
            finally:
                remove(temporary)


def kept_in(store: CaseStore | None, what: str, make: Callable[[], Arrays]) -> Arrays:
    """Return an entry of a store; without one, what would have been kept in it."""
    return make() if store is None else store.arrays(what, make)


def user_folder() -> Path:
    """Return the folder for entries of cases that have none beside their files."""
    named = os.environ.get("GANSYNTH_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(home, "gansynth")


def _state_of(files: Iterable[Path]) -> str:
    """Return a hash of what changes with the files' contents; empty if they may just be changing.

    A file's change time cannot be set, so a copy over it of the same size and age is seen, too.
    """
    states = [__version__]  # each version may make entries in its own way
    for file in files:
        try:
            found = file.stat()
        except OSError:
            return ""
        if max(found.st_mtime, found.st_ctime) > time.time() - SETTLED:
            return ""
        states.append(f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}")
    return digest(*states)


def _remove_at_once(folder: Path) -> None:
    """Remove a folder so that nobody reads half of it."""
    gone = temporary_beside(folder)
    with contextlib.suppress(OSError):
        os.replace(folder, gone)
        remove(gone)


def _half_free(folder: Path) -> float:
    free = free_bytes(folder)
    return free / 2 if isinstance(free, int) else 0


def digest(*texts: str) -> str:
    """Return a hash of some texts, for a state or a name."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _save(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as stream:
        np.savez_compressed(stream, **dict[str, Any](arrays))


def _save_each(arrays: Arrays, folder: Path) -> None:
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
