"""Communication of a training process and its producer, by two files in the bank.

``pace.json`` gives the producer its duty and the number of draws. ``work.bin`` gives the training
process the times at which the producer worked. It holds pairs of float64: ``time.monotonic()`` at
begin and end of each stretch, valid on one machine until it restarts. Nobody waits for either file,
and losing one stops nothing.
"""

from __future__ import annotations

import contextlib
import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

from gansynth.runtime.files import parse_json, replace_text

PACE, WORK = "pace.json", "work.bin"
_PAIR = struct.Struct("<dd")
Stretch = tuple[float, float]  # begin and end in seconds of `time.monotonic()`


@dataclass(frozen=True)
class ThrottleState:
    """Instructions of the training process to its producer."""

    # share of wall time that the producer of a full live bank may work, above 0, at most 1
    duty: float
    drawn: int  # synthetic samples drawn so far


def write_throttle_state(bank: Path, pace: ThrottleState) -> None:
    """Write the pace for the producer; a missing bank or a full disk is ignored."""
    with contextlib.suppress(OSError):
        replace_text(bank / PACE, json.dumps(asdict(pace)))


def read_throttle_state(bank: Path) -> ThrottleState | None:
    """Read the pace; None if there is none or it is invalid."""
    try:
        values = parse_json((bank / PACE).read_bytes())
        pace = ThrottleState(float(values["duty"]), int(values["drawn"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pace if 0 < pace.duty <= 1 else None


def log_work(bank: Path, begin: float, end: float) -> None:
    """Append one stretch of work for the training process."""
    with contextlib.suppress(OSError), open(bank / WORK, "ab", buffering=0) as file:
        file.write(_PAIR.pack(begin, end))


def read_work(bank: Path, skip: int = 0) -> list[Stretch]:
    """Read the stretches of work, oldest first, without the first ``skip``."""
    try:
        with open(bank / WORK, "rb") as file:
            file.seek(skip * _PAIR.size)
            raw = file.read()
    except OSError:
        return []
    whole = len(raw) - len(raw) % _PAIR.size
    return [(float(begin), float(end)) for begin, end in _PAIR.iter_unpack(raw[:whole])]
