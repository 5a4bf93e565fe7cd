"""Typed errors: one line for the user, one documented exit code each.

A message names the file, the key, the value found, what was expected, and the way out. The command
line prints it and exits with ``exit_code``; a traceback appears only with ``--debug``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

EXIT_OK = 0
EXIT_BUG = 1
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


class GansynthError(Exception):
    """Base of every error that is the user's to solve; a bare one would be a bug (exit 1)."""

    exit_code: int = EXIT_BUG


class UsageFault(GansynthError):
    """A wrong option, configuration key or combination of them (exit 2)."""

    exit_code = 2


class DataFault(GansynthError):
    """Input data that cannot be used: truncated, NaN, mismatched, mislabelled (exit 3)."""

    exit_code = 3


class EnvironmentFault(GansynthError):
    """The machine is in the way: disk, memory, device, lock, missing package (exit 4)."""

    exit_code = 4


class TrainingFault(GansynthError):
    """Training is ill: NaN losses, collapse, a bank that cannot deliver (exit 5)."""

    exit_code = 5


class IntegrityFault(GansynthError):
    """Leakage between training and held-out cases, or a file not what it claims (exit 6)."""

    exit_code = 6


FAULTS: Mapping[int, type[GansynthError]] = {
    fault.exit_code: fault
    for fault in (UsageFault, DataFault, EnvironmentFault, TrainingFault, IntegrityFault)
}
"""Exit code -> the fault it stands for, to raise a child process's fault as one's own."""


_PRIVATE = "samples were worse than noise at an epsilon of 8, see docs/privacy.md"
DROPPED = {
    **dict.fromkeys(
        (f"privacy_{key}" for key in ("noise", "epsilon", "clip", "delta", "units")), _PRIVATE
    ),
    **{
        f"--{key.replace('_', '-')}": f"gansynth {command} has --set {key}=VALUE"
        for command, keys in {
            "import": ("bits", "backgrounds"),
            "prepare": (
                *("small", "patch", "batch_size"),
                *("features", "convolutions", "plans_name"),
            ),
        }.items()
        for key in keys
    },
    "--host": "the report's maps show the fold's own segmenter",
    "selector": "choose slices by --read foreground=with, or by number: --read slices=40-110",
}
"""Name that earlier versions knew -> what to do instead."""


@contextmanager
def said_of(option: str, typed: str) -> Iterator[None]:
    """Say of the option that the user typed what is said of another: of ``--fit-set``.

    Args:
        option: as a message has it, with what follows it.
        typed: what stands there instead.
    """
    try:
        yield
    except GansynthError as fault:
        raise type(fault)(str(fault).replace(option, typed)) from fault


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Say " Did you mean 'width'?", with its leading blank; nothing where no known name is near.

    Of a name that was dropped, say what to do instead.
    """
    if word in DROPPED:
        return f" {word} is gone: {DROPPED[word]}"
    close = difflib.get_close_matches(word, list(names), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def refuse_unknown(
    settings: Iterable[str],
    names: Iterable[str],
    *,
    of: str,
    named: Callable[[str], str] = "--set {}".format,
) -> None:
    """Refuse a setting that is not known.

    Args:
        settings: keys that were given.
        known: keys that there are.
        of: what has them.
        named: what to call a given key.

    Raises:
        UsageFault: with the key that was probably meant, and all keys.
    """
    names = sorted(names)
    for key in settings:
        if key not in names:
            raise UsageFault(
                f"{named(key)}: {of} has no such setting, expected one of: "
                f"{', '.join(names) or 'none'}.{did_you_mean(key, names)}"
            )
