"""Log of the cases and samples a training actually drew: one line a draw.

A sample's line has its number, hash and sketch. A line before it has the settings it was generated
with, for ``gansynth.sampling.replay``. Each process appends to its own file, unbuffered, so a
killed worker loses nothing.

Workers draw ahead, and a killed training goes on from its newest checkpoint. So a line also has the
place of its draw in the training, and a count ends where the training does that is gone on with.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from gansynth.core.sample_request import SETTINGS
from gansynth.runtime.tables import cell, read_cell

if TYPE_CHECKING:
    from gansynth.core.requests.hosts import AugmentRequest

Kind = Literal["real", "synthetic", "fallback", "stopped"]
Place = tuple[int, ...]
"""Place of a draw in the whole training: first the step, or the round, then any within it. What is
drawn again for the same place takes the place of what was drawn before."""
PATTERN = "draws-*.csv"
MOST_DRAWS = 4
"""Draws of one sample above which the user is warned that the network may memorise it."""
_PLACE = 6  # column of the place, behind those of a sample
logger = logging.getLogger("gansynth")


class DrawLog:
    """Append draws to ``draws-<host>-<pid>.csv``; the drawing process opens the file.

    A failing log never ends a training: the first failure is reported, then logging stops.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._pid, self._fd, self._settings = folder, 0, -1, ""

    def append(
        self,
        kind: Kind,
        sample_id: str,
        source: str,
        provenance: Mapping[str, Any] | None = None,
        place: Place = (),
    ) -> None:
        """Record one draw.

        Args:
            kind: ``fallback`` is a real case in place of a missing synthetic sample; ``stopped``
                means that nothing could replace it.
            sample_id: id of the synthetic sample, or of the real case.
            source: the case a synthetic sample was conditioned on; else the reason it was missing.
            provenance: provenance of a synthetic sample.
            place: see ``Place``; empty if unknown, so that the draw counts in any case.
        """
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        try:
            if self._pid != os.getpid():
                self._pid, self._fd, self._settings = os.getpid(), -1, ""
                self.folder.mkdir(parents=True, exist_ok=True)
                path = self.folder / f"draws-{socket.gethostname()}-{self._pid}.csv"
                self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
            row: list[object] = [kind, cell(sample_id), cell(" ".join(source.split()))]
            if provenance is not None and "settings" in provenance:
                row += provenance["index"], provenance["sha256"], provenance.get("sketch", "")
                settings = json.dumps({"seed": provenance["seed"]} | provenance["settings"])
                if settings != self._settings:
                    rows.writerow((SETTINGS, "", settings))
                    self._settings = settings
            if place:
                row += [""] * (_PLACE - len(row)) + [".".join(map(str, place))]
            rows.writerow(row)
            if self._fd >= 0:
                os.write(self._fd, text.getvalue().encode("utf-8", "replace"))
        except OSError as error:
            logger.warning("%s: draws are no longer logged: %s", self.folder, error)
            self._fd = -1

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled copy opens a file of its own, in the process that draws."""
        return DrawLog, (self.folder,)

    def __del__(self) -> None:
        if self._fd >= 0 and self._pid == os.getpid():
            os.close(self._fd)


class HeldDraws:
    """Keeps the draws of a batch until it is trained on, which its host logs then.

    Takes the place of a ``DrawLog`` where a loader draws ahead without knowing for which step. That
    nothing can be drawn is logged at once.
    """

    def __init__(self, log: DrawLog) -> None:
        self.log, self.draws = log, list[tuple[Kind, str, str, Mapping[str, Any] | None]]()

    def append(
        self,
        kind: Kind,
        sample_id: str,
        source: str,
        provenance: Mapping[str, Any] | None = None,
        place: Place = (),
    ) -> None:
        """Keep one draw; see ``DrawLog.append``."""
        if kind == "stopped":
            self.log.append(kind, sample_id, source, provenance, place)
        else:
            self.draws.append((kind, sample_id, source, provenance))


@dataclass(frozen=True)
class DrawCounts:
    """Numbers of draws; see ``DrawCounter.update`` for which ones."""

    real: int = 0  # real cases drawn, including those that replaced a missing synthetic sample
    synthetic: int = 0  # synthetic samples drawn
    fell_back: int = 0  # real cases drawn in place of a missing synthetic sample
    distinct: int = 0  # distinct synthetic samples among those drawn
    most: int = 0  # draws of the most often drawn sample
    reasons: dict[str, int] = field(default_factory=dict)  # why samples were missing -> how often
    stopped: str = ""  # why drawing stopped; empty if it did not

    @property
    def realised(self) -> float:
        """Share of synthetic samples."""
        return self.synthetic / max(1, self.real + self.synthetic)

    @property
    def reuse(self) -> float:
        """Mean number of draws of a synthetic sample."""
        return self.synthetic / max(1, self.distinct)

    def describe(self, requested: float) -> str:
        """Describe the counts, and the requested share of synthetic samples, in words."""
        text = (
            f"{self.synthetic} of {self.real + self.synthetic} samples drawn were synthetic "
            f"({self.realised:.1%}, asked {requested:.1%})"
        )
        if self.synthetic:
            text += f", {self.distinct} different ones, each drawn {self.reuse:.1f} times"
            text += f" (at most {self.most})"
        if self.fell_back:
            why = max(self.reasons, key=self.reasons.__getitem__)
            text += f"; {self.fell_back} real ones in place of a missing synthetic one ({why})"
        return text

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document."""
        return {
            "real": self.real,
            "synthetic": self.synthetic,
            "fell_back": self.fell_back,
            "distinct_synthetic": self.distinct,
            "draws_per_synthetic": round(self.reuse, 4),
            "most_draws": self.most,
            "realised": round(self.realised, 6),
            "reasons": self.reasons,
        }


class DrawCounter:
    """Count the draws of log folders; each update reads only new lines.

    Sessions of one training draw the same samples under the same ids.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self._read = Counter[Path]()
        # Kind -> how often: each sample if synthetic; else each source, or reason for none.
        self._draws: dict[Kind, Counter[str]] = {kind: Counter() for kind in get_args(Kind)}
        # Of each folder, draws beyond what is counted: place -> what was drawn there last.
        self._ahead: dict[Path, dict[Place, tuple[Kind, str]]] = {each: {} for each in folders}

    def update(self, *ends: float) -> DrawCounts:
        """Read the new lines of every process and return the counts.

        Args:
            ends: of each folder, the step or round before which draws count; never smaller than at
                the last update. None: all count, with those that workers have drawn ahead.
        """
        for folder in self.folders:
            for path in sorted(folder.glob(PATTERN)):
                for row in self._new_rows(path):
                    self._take(row, self._ahead[folder])
        for folder, end in zip(self.folders, ends or repeat(math.inf), strict=False):
            ahead = self._ahead[folder]
            for place in [place for place in ahead if place[0] < end]:
                kind, name = ahead.pop(place)
                self._draws[kind][name] += 1
        real, synthetic = self._draws["real"], self._draws["synthetic"]
        fallback, stopped = self._draws["fallback"], self._draws["stopped"]
        return DrawCounts(
            real=real.total() + fallback.total(),
            synthetic=synthetic.total(),
            fell_back=fallback.total(),
            distinct=len(synthetic),
            most=max(synthetic.values(), default=0),
            reasons=dict(fallback),
            stopped=next(reversed(stopped), ""),
        )

    def _new_rows(self, path: Path) -> Iterator[list[str]]:
        read = self._read[path]
        if path.stat().st_size == read:  # most of thousands of workers are idle
            return
        with path.open("rb") as file:
            file.seek(read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # an incomplete line waits for the next update
        self._read[path] += len(whole)
        yield from _readable_rows(whole)

    def _take(self, row: list[str], ahead: dict[Place, tuple[Kind, str]]) -> None:
        kind = row[0] if len(row) > 2 else ""
        if kind not in self._draws:  # such as settings, or a damaged line
            return
        name = read_cell(row[1] if kind == "synthetic" else row[2])
        place = _place_of(row)
        if place:
            ahead[place] = kind, name
        else:
            self._draws[kind][name] += 1


def _place_of(row: list[str]) -> Place:
    """Return the place of a draw; empty of a host that knows none, or of an earlier version."""
    numbers = row[_PLACE].split(".") if len(row) > _PLACE else []
    known = bool(numbers) and all(map(str.isdecimal, numbers))
    return tuple(map(int, numbers)) if known else ()


def drawn_cases(
    logs: Iterable[tuple[Path, float]],
) -> dict[Literal["real", "synthetic"], Counter[str]]:
    """Return how often each real case was drawn, and samples of each case that they are based on.

    Args:
        logs: folder of each session, and the step or round before which its draws count.
    """
    found: dict[Literal["real", "synthetic"], Counter[str]]
    found = {"real": Counter(), "synthetic": Counter()}
    for folder, end in logs:
        last: dict[Place, tuple[Literal["real", "synthetic"], str]] = {}
        for path in sorted(folder.glob(PATTERN)):
            for row in _readable_rows(path.read_bytes()):
                if len(row) < 3 or row[0] not in ("real", "fallback", "synthetic"):
                    continue
                synthetic, place = row[0] == "synthetic", _place_of(row)
                case = read_cell(row[2] if synthetic else row[1])
                if place:
                    last[place] = ("synthetic" if synthetic else "real"), case
                else:
                    found["synthetic" if synthetic else "real"][case] += 1
        for place, (kind, case) in last.items():
            found[kind][case] += place[0] < end
    return {kind: +counter for kind, counter in found.items()}


def _readable_rows(lines: bytes) -> Iterator[list[str]]:
    """Yield the rows of whole lines of CSV, without damaged ones."""
    rows = csv.reader(io.StringIO(lines.decode("utf-8", "replace")))
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error:  # a damaged line; the reader goes on behind it
            continue


def summarise(folder: Path) -> DrawCounts:
    """Count all draws of a log folder."""
    return DrawCounter(folder).update()


def enough_samples(draws: int, most: float = MOST_DRAWS) -> int:
    """Return the number of samples of which none is drawn more than ``most`` times."""
    return math.ceil(draws / most)


def foreseen(request: AugmentRequest, draws: int, held: int) -> dict[str, Any]:
    """Return what a dry run reports about ``draws`` draws from a bank of ``held`` samples."""
    if not request.offline and request.bank is None:
        least = enough_samples(draws)
        reuse = (
            f"no sample is drawn more than {MOST_DRAWS} times if the producer makes {least} while "
            "it trains; the log says if it makes fewer"
        )
        return {"synthetic_draws": draws, "samples_to_make": least, "reuse": reuse}
    document: dict[str, Any] = {"synthetic_draws": draws}
    document["draws_of_a_sample"] = round(draws / max(1, held), 2)
    warning = too_few(draws, held)
    if warning:
        document["reuse"] = warning
    return document


def too_few(draws: int, held: int, most: int | None = None) -> str:
    """Return a warning if samples are drawn too often, or "".

    Args:
        draws: planned draws of the training.
        held: samples of a frozen bank, or those that were drawn ``most`` times at most.
        most: None before the training.
    """
    times = draws / max(1, held) if most is None else most
    if times <= MOST_DRAWS:
        return ""
    text = f"{held} different samples were drawn up to {most} times each"
    if most is None:
        text = f"each of {held} samples will be drawn {times:.1f} times"
    return (
        f"{text}, more than {MOST_DRAWS}: fill a larger bank first (--offline --bank-size "
        f"{enough_samples(draws)}), let a producer make more beside the training (--refresh 10%, "
        "or 4x for as many as it can; --device of its own), or train for fewer steps"
    )
