"""Limit a live bank's producer by its measured cost for the training steps.

The producer works in turns of random length, with rests between them. In each cycle of work and
rest, log step times are regressed on the share of a step during which the producer worked. The
slopes of the cycles give the slowdown, and their spread how sure it is, so how long the producer
must rest to meet the requested overhead. All happens in the training's calls of ``step``.

Both sides meet in two files of the bank; losing either stops nothing. ``pace.json`` gives the
producer its duty and the number of draws. ``work.bin`` gives the training the times at which the
producer worked: pairs of float64, ``time.monotonic()``, valid until the machine restarts.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gansynth.bank.store import PACE, WORK, read_heartbeat
from gansynth.core.bank_options import OVERHEAD, RefreshPolicy
from gansynth.runtime.files import parse_json, replace_text

_PAIR = struct.Struct("<dd")
# A tick waits so many times the last one's duration (0.5 % of the time); its limits in seconds.
_TICK_COSTS, _TICK_SECONDS, _TICK_MOST = 200.0, 2.0, 10.0
_BEAT_SECONDS = 3.0  # largest age of a heartbeat
_GAP = 10.0  # medians: longer than that is a validation or a suspended machine, not a step
_CALL = 0.002  # seconds that fetching a batch takes if it is ready
# Duties: the largest that still allows a comparison, that without a budget, that of a rest.
_MOST, _HARD, _REST = 0.72, 0.9, 1e-6
_UNKNOWN = 0.1054  # assumed slope while nothing is measured: a tenth of the speed
_LEAST, _CYCLES = 2, 48  # cycles that an interval needs, and the latest cycles that it uses
_SIDE = 0.8  # end of the interval that sets the duty: uncertain estimates are used with care
_PATIENCE = 10  # multiple of its usual length after which a turn ends in any case
_KNOWN = 0.5  # width of an overhead interval above which the overhead counts as unknown

Array = npt.NDArray[np.float64]


class ThrottleState(NamedTuple):
    """Instructions of the training process to its producer."""

    duty: float  # share of wall time that the producer of a full live bank may work, above 0
    drawn: int  # synthetic samples drawn so far


def write_throttle_state(bank: Path, state: ThrottleState) -> None:
    """Write ``pace.json``; a missing bank or a full disk is ignored."""
    with contextlib.suppress(OSError):
        replace_text(bank / PACE, json.dumps(state._asdict()))


def read_throttle_state(bank: Path) -> ThrottleState | None:
    """Read the pace; None if there is none or it is invalid."""
    try:
        values = parse_json((bank / PACE).read_bytes())
        state = ThrottleState(float(values["duty"]), int(values["drawn"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return state if 0 < state.duty <= 1 else None


def log_work(bank: Path, begin: float, end: float) -> None:
    """Append one stretch of work for the training process."""
    with contextlib.suppress(OSError), open(bank / WORK, "ab", buffering=0) as file:
        file.write(_PAIR.pack(begin, end))


def read_work(bank: Path, skip: int = 0) -> list[tuple[float, float]]:
    """Read the stretches of work, oldest first, without the first ``skip``."""
    try:
        raw = (bank / WORK).read_bytes()[skip * _PAIR.size :]
    except OSError:
        return []
    return list(_PAIR.iter_unpack(raw[: len(raw) - len(raw) % _PAIR.size]))


class ProducerThrottle:
    """Limit the producer of one live bank, and measure its cost for the training.

    Args:
        bank: folder of the bank.
        pacing: the requested limits.
        drawn: returns the synthetic samples drawn so far; called rarely, as it may read files.
    """

    def __init__(self, bank: Path, pacing: RefreshPolicy, drawn: Callable[[], int]) -> None:
        self.bank, self.pacing, self._drawn = bank, pacing, drawn
        self._budget = pacing.overhead or OVERHEAD
        self._hard = _HARD if pacing.overhead is None else 1.0
        self._count, self._pace, self._chance = 0, self._hard, random.Random(0)
        self._due = self._last = self._beat_met = -math.inf
        self._beat: Mapping[str, Any] = {}
        self._first: tuple[float, int] | None = None  # time and samples of a full bank
        self._rows: list[tuple[float, float, float]] = []  # a step: previous end, begin, end
        self._stretches: list[tuple[float, float]] = []  # of the producer's work
        self._working, self._since, self._longer = True, 0, 1.0
        self._cycles: list[tuple[float, float]] = []  # log of how much slower, its weight
        self._total = np.zeros(2)  # seconds of steps, of work beside them
        self._read = len(read_work(bank))  # earlier work may be from before a reboot
        self.resume()

    def step(self, begin: float, end: float) -> None:
        """Record a training step, ``time.monotonic()`` when its batch was ready, and at its end."""
        self._rows.append((self._last if 0 < self._last <= begin else begin, begin, end))
        self._last = end
        if end >= self._due:
            began = time.perf_counter()
            self._tick(end)
            cost = _TICK_COSTS * (time.perf_counter() - began)
            self._due = end + min(max(_TICK_SECONDS, cost), _TICK_MOST)

    def pause(self) -> None:
        """Exclude the time until the next step, e.g. at the end of an epoch."""
        self._last = self._due = -math.inf
        self.resume(min(self._pace, self.duty()))

    def resume(self, duty: float | None = None) -> None:
        """Write the duty again after another process has changed it, or another one for now."""
        write_throttle_state(self.bank, ThrottleState(duty or self._pace, self._count))

    def duty(self) -> float:
        """Return the share of time the producer may work within the overhead budget."""
        if self.pacing.overhead is None:
            return _HARD
        slopes = [_UNKNOWN, *(slope for slope, _ in self._cycles)]
        if len(self._cycles) > _LEAST:
            slopes = [interval(self._cycles[-_CYCLES:], _SIDE)[2]]
        return min(_MOST, self._budget / (1 + self._budget) / max(_lost(max(slopes)), 1e-9))

    def summary(self) -> dict[str, Any]:
        """Return the measurements for the record; empty without a producer.

        Returns:
            ``refresh_seconds``, in which the bank is replaced. ``duty``, the share of time the
            producer worked. ``overhead``, the relative slowdown of steps, with its 95 % interval
            ``overhead_low`` to ``overhead_high``, unless that is too wide.
        """
        document: dict[str, Any] = {}
        if self._first is not None and self._beat.get("total", 0) > self._first[1]:
            made, passed = self._beat["total"] - self._first[1], self._beat_met - self._first[0]
            document["refresh_seconds"] = round(self._beat["held"] * passed / made, 1)
        if len(self._cycles) >= _LEAST:
            seconds, work = self._total
            document["duty"] = round(work / seconds, 4)
            lost = [_lost(slower) * work for slower in interval(self._cycles, 0.975)]
            low, share, high = (round(x / max(0.01 * seconds, seconds - x), 5) for x in lost)
            if high - low <= _KNOWN:
                document |= {"overhead": share, "overhead_low": low, "overhead_high": high}
        return document

    def sentence(self) -> str:
        """Describe the summary in words; empty if there is nothing to report."""
        found, parts = self.summary(), []
        if (seconds := found.get("refresh_seconds")) is not None:
            long = f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.0f} s"
            parts.append(f"bank renewed every {long}")
        if "duty" in found:
            parts.append(f"producer at work {found['duty']:.0%} of the time")
            parts[-1] += "; what that costs is not known yet" * ("overhead" not in found)
        if "overhead" in found:
            low, high, asked = found["overhead_low"], found["overhead_high"], self.pacing.overhead
            budget = "" if asked is None else f"; budget {100 * asked:g} %"
            parts[-1] += f", slowing steps down by {100 * found['overhead']:.1f} % "
            parts[-1] += f"({100 * low:.1f} to {100 * high:.1f} %{budget})"
        return "; ".join(parts)

    def _tick(self, now: float) -> None:
        beat = read_heartbeat(self.bank)
        if beat != self._beat:
            refreshing = beat.get("state") == "refreshing" and "total" in self._beat
            if self._first is None and refreshing and beat["total"] > self._beat["total"]:
                self._first = now, beat["total"]  # measured from a publication on
            self._beat, self._beat_met = beat, now
        new = read_work(self.bank, self._read)
        self._read += len(new)
        self._stretches += (s for s in new if s[0] < s[1] < math.inf)
        self._count = self._drawn()
        until, since = now - _BEAT_SECONDS, beat.get("working_since")
        if since is None or now - self._beat_met >= _BEAT_SECONDS:
            since = until
        if self._rows[0][2] <= until:
            self._turn(float(since), until)
        self._pace = self._hard if self._working else _REST
        self.resume()

    def _turn(self, since: float, until: float) -> None:
        """End the turn of work or of rest if it is time; the producer works since ``since``."""
        rows = np.array(self._rows)
        begun, met, ends = rows[: np.searchsorted(rows[:, 2], until, "right")].T
        knots = np.array([*self._stretches, (min(since, until), until)]).reshape(-1)
        knots = np.maximum.accumulate(knots)
        worked = np.cumsum(np.diff(knots, prepend=knots[0]) * (np.arange(len(knots)) % 2))
        work = np.interp(ends, knots, worked) - np.interp(begun, knots, worked)
        seconds, steps, usual = ends - begun, len(ends), float(np.median(ends - begun))
        whole = (seconds > 0) & (seconds <= _GAP * usual)
        # A slower loader shows some batches later. Its cost cannot exceed the total waiting.
        waited = np.maximum((met - begun)[whole] - _CALL, 0).sum()
        delayed = waited > self._budget / 4 * seconds[whole].sum()
        least, settle, size = (24, 16, 8) if delayed else (6, 0, 1)
        duty, spent = self.duty(), seconds[self._since :].sum() / usual
        target = least * max(1, duty / (1 - duty))
        cycle = np.array([seconds[whole].sum(), work[whole].sum()])
        total = self._total + cycle
        paid = cycle[0] >= self._longer * cycle[1] / duty and total[0] >= total[1] / duty
        last = int(np.flatnonzero(work > 0)[-1]) + 1 if work.any() else 0
        if self._working:
            if work.sum() >= target * usual or spent > _PATIENCE * (target + settle):
                # The random length avoids synchrony with periodic work of the training.
                self._working, self._longer = False, self._chance.uniform(0.5, 1.5)
                self._since = steps
        elif paid and (steps - last >= least + settle or spent > _PATIENCE * (least + settle)):
            self._measure(seconds, work, whole, settle, size)
            self._total, self._working, self._since = total, True, 0
            self._rows = self._rows[steps:]
            self._stretches = [s for s in self._stretches if s[1] > until]

    def _measure(
        self, seconds: Array, work: Array, used: npt.NDArray[np.bool_], settle: int, size: int
    ) -> None:
        """Regress a cycle's log step times, of ``size`` steps each, on the producer's share."""
        share = np.convolve(work, np.ones(settle + 1))[: len(used)]
        share /= np.maximum(np.convolve(seconds, np.ones(settle + 1))[: len(used)], 1e-9)
        count = int(used.sum()) // size
        if count < 4:
            return
        x, y = (
            values[: len(used)][used][: count * size].reshape(count, size).mean(axis=1)
            for values in (share, seconds)
        )
        x, y = x - x.mean(), np.log(y) - np.log(y).mean()
        if (weight := float(x @ x)) > 0.1:
            self._cycles.append((min(3.0, max(-3.0, float(x @ y) / weight)), weight))


def interval(cycles: list[tuple[float, float]], level: float) -> tuple[float, float, float]:
    """Return low end, mean and high end of the cycles' weighted slopes."""
    from scipy.special import stdtrit

    slopes, weights = np.array(cycles).T
    mean, count = float(np.average(slopes, weights=weights)), len(cycles)
    variance = float(np.sum((weights * (slopes - mean)) ** 2)) * count / (count - 1)
    half = float(stdtrit(count - 1, level)) * math.sqrt(variance) / float(weights.sum())
    return mean - half, mean, mean + half


def _lost(slower: float) -> float:
    """Return the share of speed lost for a log ratio of step times."""
    return 1 - math.exp(-slower)
