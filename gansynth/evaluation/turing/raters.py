"""Raters and their answers: one append-only file each; acknowledged answers are on disk.

The first line has the rater, and the order and names of the images. Every other line is an answer.
A line is written whole and synced before it is acknowledged. So an incomplete last line was never
acknowledged: it is skipped with a warning.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import math
import os
import re
import secrets
import time
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gansynth.evaluation.turing.options import REAL, SYNTHETIC
from gansynth.evaluation.turing.session import OWN, RATERS
from gansynth.runtime.errors import EnvironmentFault, IntegrityFault, UsageFault
from gansynth.runtime.files import disk_errors, parse_json, reading, write_bytes_atomic

ANSWERS = (REAL, SYNTHETIC)
HEADER = ("name", "years", "code", "order", "names")
NAME = re.compile(r"[^\W_][\w .,'’()-]{0,39}")
"""A rater's name: it begins with a letter or digit, and has no HTML."""
CODE = "23456789ABCDEFGHJKMNPQRSTVWXYZ"  # characters of a code, without ambiguous ones
MOST_YEARS = 80
MOST_RATERS = 500
LONGEST_MS = 24 * 3600 * 1000.0


@dataclass
class Rater:
    """One rater of a session."""

    path: Path
    name: str
    years: float | None  # of experience, if given
    code: str
    order: list[int]  # numbers of the images, in the order shown
    names: list[str]  # random names of the images for this rater, in that order
    answers: list[dict[str, Any]] = field(default_factory=list)  # so far, in order
    torn: bool = False  # whether the last line of the file is incomplete

    @property
    def done(self) -> int:
        """Number of answered images."""
        return len(self.answers)

    @property
    def finished(self) -> bool:
        """Whether all are answered."""
        return self.done == len(self.order)

    def at_hand(self) -> dict[str, int]:
        """The current and the next image: name -> number. The others are not available."""
        return dict(
            zip(
                self.names[self.done : self.done + 2],
                self.order[self.done : self.done + 2],
                strict=True,
            )
        )

    def answer(self, name: str, answer: str, times: dict[str, float | None]) -> None:
        """Record the answer to the current image; it is on disk when this returns.

        Args:
            answer: ``real`` or ``synthetic``.
            times: milliseconds, JSON-able.

        Raises:
            UsageFault: not the current image.
            EnvironmentFault: the disk refuses; nothing is recorded.
        """
        if self.finished or name != self.names[self.done]:
            raise UsageFault("this image is not the one to be answered")
        line = {"position": self.done, "image": self.order[self.done], "answer": answer, **times}
        line["at"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        _append(self.path, line)
        self.answers.append(line)


def new_rater(folder: Path, name: str, years: float | None, images: int) -> Rater:
    """Create a rater, with random order and names of the images.

    Args:
        name: as typed, checked by ``clean_name``.
        years: of experience, if given.
    """
    order = list(range(images))
    secrets.SystemRandom().shuffle(order)
    rater = Rater(
        folder / RATERS / f"{secrets.token_hex(8)}.jsonl",
        name,
        years,
        "".join(secrets.choice(CODE) for _ in range(10)),
        order,
        [secrets.token_urlsafe(18) for _ in range(images)],
    )
    write_bytes_atomic(rater.path, _line({key: getattr(rater, key) for key in HEADER}))
    rater.path.chmod(OWN)
    return rater


def clean_name(text: object) -> str:
    """Normalise a rater's name."""
    name = " ".join(unicodedata.normalize("NFC", str(text)).split())
    if not isinstance(text, str) or not NAME.fullmatch(name):
        raise UsageFault(
            "A name or code has 1 to 40 letters, digits, blanks or . , ' ( ) - and begins with a "
            "letter or digit."
        )
    return name


def clean_years(value: object) -> float | None:
    """Years of experience, if given."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageFault("Years of experience is a number.")
    if not 0 <= value <= MOST_YEARS:  # NaN fails, too
        raise UsageFault(f"Years of experience is a number from 0 to {MOST_YEARS}.")
    return float(value)


def clean_ms(value: object) -> float | None:
    """Milliseconds measured by a browser; None if invalid."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    valid = math.isfinite(value) and 0 <= value <= LONGEST_MS
    return round(float(value), 1) if valid else None


def seat_of(rater: Rater, token: str) -> str:
    """The cookie that identifies a rater's browser."""
    return hmac.new(token.encode(), rater.code.encode(), hashlib.sha256).hexdigest()


def same_name(first: str, second: str) -> bool:
    """Whether two names are of one rater: case does not count."""
    return first.casefold() == second.casefold()


def same_code(rater: Rater, typed: object) -> bool:
    """Whether a code is a rater's; blanks, dashes and case do not count."""
    code = re.sub(r"[\s-]", "", str(typed)).upper()
    return hmac.compare_digest(code.encode(), rater.code.encode())


def read_raters(folder: Path, images: int, *, mend: bool = False) -> list[Rater]:
    """Read every rater of a session, ordered by name.

    Args:
        mend: remove incomplete last lines; only for the one process that writes.

    Raises:
        IntegrityFault: damage that a killed writer cannot cause, with file and line.
        EnvironmentFault: the disk refuses.
    """
    raters = [_read(path, images, mend) for path in sorted((folder / RATERS).glob("*.jsonl"))]
    return sorted(raters, key=lambda rater: rater.name.casefold())


def _read(path: Path, images: int, mend: bool) -> Rater:
    with reading(path):
        data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    torn = len(whole) < len(data)
    if torn and mend:
        with disk_errors(path), open(path, "r+b") as stream:
            stream.truncate(len(whole))
            os.fsync(stream.fileno())
    lines = whole.split(b"\n")[:-1]
    rater = _header(path, lines[0] if lines else data, images)
    rater.torn = torn
    for number, line in enumerate(lines[1:], 2):
        rater.answers.append(_answer(path, number, line, rater))
    return rater


def _header(path: Path, line: bytes, images: int) -> Rater:
    try:
        header = parse_json(line)
        rater = Rater(path, *(header[key] for key in HEADER))
        clean_name(rater.name)
        clean_years(rater.years)
        good = sorted(rater.order) == list(range(images)) == sorted(range(len(set(rater.names))))
        good = good and isinstance(rater.code, str)
    except (ValueError, KeyError, TypeError, UsageFault) as error:
        raise _damaged(path, 1, str(error)) from None
    if not good:
        raise _damaged(path, 1, f"its images are not the session's {images}")
    return rater


def _answer(path: Path, number: int, line: bytes, rater: Rater) -> dict[str, Any]:
    try:
        record: dict[str, Any] = parse_json(line)
        at, answer = (record["position"], record["image"]), record["answer"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, number, str(error)) from None
    if rater.finished:
        raise _damaged(path, number, "more answers than images")
    expected = rater.done, rater.order[rater.done]
    if at != expected or answer not in ANSWERS:
        raise _damaged(path, number, f"{answer!r} to image {at}, expected one to {expected}")
    for key in ("ms", "hidden_ms", "server_ms"):
        record[key] = clean_ms(record.get(key))
    return record


def _damaged(path: Path, number: int, why: str) -> IntegrityFault:
    return IntegrityFault(
        f"{path}: line {number} is damaged ({' '.join(why.split())}), expected what the server "
        "wrote; restore the file from a copy, or remove it from the folder to exclude this rater"
    )


def _append(path: Path, document: dict[str, Any]) -> None:
    """Append a line and sync it; on failure the file is unchanged."""
    line = _line(document)
    with disk_errors(path, len(line)):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            before = os.fstat(handle).st_size
            try:
                if os.write(handle, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)


def _line(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False) + "\n").encode()


def check_room(raters: int) -> None:
    """Refuse an excessive number of raters: an unattended page must not fill a disk."""
    if raters >= MOST_RATERS:
        raise EnvironmentFault(f"this session has {MOST_RATERS} raters, the maximum")
