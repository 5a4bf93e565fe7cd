"""Typed errors: one line for the user, an id and one documented exit code each.

A message names the file, the key, the value, the expected value, and a hint. The command line
prints it, its id behind it, and exits with ``exit_code``; a traceback appears only with
``--debug``. Messages may be improved at any time. Ids stay: tests and scripts ask for them.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

EXIT_OK = 0
EXIT_BUG = 1
EXIT_SIGHUP = 129
EXIT_SIGINT = 130
EXIT_SIGPIPE = 141
EXIT_SIGTERM = 143

ID = r"[a-z0-9-]+\.[a-z0-9-]+"
"""An error's id."""
UNNAMED = "process.failed"
"""Id of an error of another process that has printed none."""


def brief(text: str) -> str:
    """Shorten words of more than 500 characters in a message, then all of it to 4,000."""
    text = re.sub(r"\S{500,}", lambda word: f"{word[0][:200]}...{word[0][-50:]}", text)
    return text if len(text) <= 4000 else f"{text[:3000]} ... {text[-900:]}"


class GansynthError(Exception):
    """Base of every error that the user can solve; raised itself, it is a bug (exit 1).

    Args:
        id: of the error, ``area.what-is-wrong``; a page of the site lists ids and messages.
        message: one sentence for the user.
    """

    exit_code: int = EXIT_BUG

    def __init__(self, id: str = UNNAMED, message: str = "") -> None:
        super().__init__(brief(message))
        self.id = id

    @property
    def message(self) -> str:
        """The sentence. Workers of torch make an error again by ``type(error)(message=...)``."""
        return str(self)

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.id, str(self))

    @property
    def line(self) -> str:
        """The message with its id, as processes print it: ``... [ratio.not-two-numbers]``."""
        return f"{' '.join(str(self).split())} [{self.id}]"

    def reworded(self, message: str) -> Self:
        """Return the same error with another message."""
        return type(self)(self.id, message)

    @staticmethod
    def printed(exit_code: int, line: str) -> GansynthError:
        """Return the error that a process printed as its ``line`` before it ended with a code."""
        message, bracket, id = line.rstrip("]").rpartition(" [")
        if not bracket or not re.fullmatch(ID, id):
            message, id = line, UNNAMED
        return FAULTS.get(exit_code, GansynthError)(id, message)

    @staticmethod
    def traced(text: str) -> GansynthError | None:
        """Return the error of the last traceback in a process's output, or None; it has no id."""
        traced = re.findall(rf"^{re.escape(__name__)}\.(\w+): (.+)$", text, re.MULTILINE)
        kinds = {kind.__name__: kind for kind in FAULTS.values()}
        if not traced or traced[-1][0] not in kinds:
            return None
        kind, message = traced[-1]
        return kinds[kind](UNNAMED, message)


class UsageFault(GansynthError):
    """A wrong option, configuration key or combination of them (exit 2)."""

    exit_code = 2


class DataFault(GansynthError):
    """Unusable input data: truncated, NaN, mismatched, mislabelled (exit 3)."""

    exit_code = 3


class EnvironmentFault(GansynthError):
    """A fault of the machine: disk, memory, device, lock, missing package (exit 4)."""

    exit_code = 4


class TrainingFault(GansynthError):
    """A failed training: non-finite losses, collapse, a bank that cannot deliver (exit 5)."""

    exit_code = 5


class IntegrityFault(GansynthError):
    """Leakage between training and held-out cases, or a file with false content (exit 6)."""

    exit_code = 6


FAULTS: Mapping[int, type[GansynthError]] = {
    fault.exit_code: fault
    for fault in (UsageFault, DataFault, EnvironmentFault, TrainingFault, IntegrityFault)
}
"""Exit code -> its fault."""


@contextmanager
def describe_error(option: str, typed: str) -> Iterator[None]:
    """Replace an option in raised messages by the one that the user typed (``--fit-set``).

    Args:
        option: as in the message, with the text behind it.
        typed: its replacement.
    """
    try:
        yield
    except GansynthError as fault:
        raise fault.reworded(str(fault).replace(option, typed)) from fault


ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk without room."""
_DISK = {
    errno.ENOSPC: "make room, or choose another folder",
    errno.EDQUOT: "make room, or choose another folder",
    errno.EFBIG: "make room, or choose another folder",
    errno.EROFS: "choose another folder",
    errno.EIO: "choose another disk",
    errno.ESTALE: "mount it again",
    errno.ENOTCONN: "mount it again",
    errno.ENAMETOOLONG: "name a file or folder that exists, or a shorter one",
}
"""Error number of a disk or a name -> a way out."""


def disk_fault(error: OSError) -> EnvironmentFault | None:
    """Return the fault behind an error of a system call: permission, disk or name; else None."""
    path = error.filename
    if isinstance(error, PermissionError) and isinstance(path, str | bytes | os.PathLike):
        return EnvironmentFault("files.no-permission", _no_permission(Path(os.fsdecode(path))))
    hint = _DISK.get(error.errno or 0)
    return None if hint is None else EnvironmentFault("files.disk-refuses", f"{error}; {hint}")


def refuse_closed(path: Path) -> None:
    """Refuse (EnvironmentFault) a path below a folder that this user may not enter.

    What lies there seems to be missing: ``os.path.isfile``, ``Path.glob`` and ``os.walk`` are
    silent.
    """
    if _closed(path) is not None:
        raise EnvironmentFault("files.no-permission", _no_permission(path))


def _no_permission(path: Path) -> str:
    folder = _closed(path)
    if folder is None:
        return f"{path}: this user may not read or write it; ask for permission, or name another"
    return (
        f"{folder}: a folder that this user may not enter, expected for {path}; ask for "
        "permission, or name another"
    )


def _closed(path: Path) -> Path | None:
    path = Path(os.path.abspath(path))
    for folder in reversed((path, *path.parents)):
        try:
            os.stat(os.path.join(folder, "."))
            if folder == path:
                os.scandir(folder).close()
        except PermissionError:
            return folder
        except OSError:  # not there, or a file
            return None
    return None


ELSEWHERE = {"train": "fit"}
"""Name in other programs -> what it is called here."""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return " Did you mean 'width'?" with its leading blank, or nothing without a similar name."""
    names = list(names)
    if ELSEWHERE.get(word) in names:
        return f" It is called {ELSEWHERE[word]!r}."
    close = difflib.get_close_matches(word, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def extra_hint(extra: str) -> str:
    """Return how to install an extra: from the clone, since no package index has gansynth."""
    how = f"pip install '.[{extra}]' -c constraints.txt"
    return f"install the extra {extra}: {how} in the clone of gansynth"


def refuse_unknown(
    settings: Iterable[str],
    names: Iterable[str],
    *,
    of: str,
    named: Callable[[str], str] = "--set {}".format,
) -> None:
    """Refuse unknown settings.

    Args:
        settings: keys to check.
        names: valid keys.
        of: their owner, for the message; its last word is a name for ``gansynth options``.
        named: formats a key for the message.
    """
    names = sorted(names)
    for key in settings:
        if key not in names:
            raise UsageFault(
                "options.setting-unknown",
                f"{named(key)}: {of} has no such setting.{did_you_mean(key, names)} "
                f"See: gansynth options {of.split()[-1]}",
            )
