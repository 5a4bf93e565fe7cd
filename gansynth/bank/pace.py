"""What a host's main process and its producer tell each other, through two files in the bank.

``pace.json`` says to the producer how hard it may work and how much was drawn. ``work.bin`` says to
the host when the producer worked: pairs of float64, ``time.monotonic()`` at begin and end of each
stretch of work, which mean something on one machine only (until it restarts). Neither is waited
for, and losing either stops nothing.
"""

from __future__ import annotations

import contextlib
import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

from gansynth.runtime.files import replace_text

PACE, WORK = "pace.json", "work.bin"
_PAIR = struct.Struct("<dd")
Stretch = tuple[float, float]
"""Begin and end, seconds of ``time.monotonic()``."""


@dataclass(frozen=True)
class Pace:
    """What the host tells its producer.

    Attributes:
        duty: share of wall time a full live bank may be worked on, above 0 and at most 1.
        drawn: synthetic samples drawn so far.
    """

    duty: float
    drawn: int


def write_pace(bank: Path, pace: Pace) -> None:
    """Tell the producer; a bank that has gone, or a full disk, is none of the host's business."""
    with contextlib.suppress(OSError):
        replace_text(bank / PACE, json.dumps(asdict(pace)))


def read_pace(bank: Path) -> Pace | None:
    """What the host says; None if it has said nothing (that makes sense)."""
    try:
        values = json.loads((bank / PACE).read_bytes())
        pace = Pace(float(values["duty"]), int(values["drawn"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pace if 0 < pace.duty <= 1 else None


def log_work(bank: Path, begin: float, end: float) -> None:
    """Tell the host of a stretch of work."""
    with contextlib.suppress(OSError), open(bank / WORK, "ab", buffering=0) as file:
        file.write(_PAIR.pack(begin, end))


def read_work(bank: Path, skip: int = 0) -> list[Stretch]:
    """Stretches of work, oldest first, without the ``skip`` first ones."""
    try:
        with open(bank / WORK, "rb") as file:
            file.seek(skip * _PAIR.size)
            raw = file.read()
    except OSError:
        return []
    whole = len(raw) - len(raw) % _PAIR.size
    return [(float(begin), float(end)) for begin, end in _PAIR.iter_unpack(raw[:whole])]
