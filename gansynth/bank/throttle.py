"""Limit a live bank's producer by its measured cost for the training steps.

The producer works in turns of random length, each paid in advance by a rest. Steps beside a turn
are compared with as many before as after it: their excess is the turn's cost in seconds, also where
it is felt some prefetched batches later. The mean cost of a second of work, at the upper end of its
interval, says how long the producer must rest to meet the requested overhead. Where it need not
rest, it rests only to be measured, ever more seldom.

``pace.json`` in the bank gives the producer its duty and the number of draws; ``work.bin`` gives
the training the times at which the producer worked, valid until the machine restarts.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gansynth.bank.store import PACE, WORK, read_heartbeat
from gansynth.core.bank_options import RefreshPolicy
from gansynth.runtime.files import parse_json, replace_text

_PAIR = 16  # bytes of begin and end of work, `time.monotonic()`, two "<f8"
_TICK_SECONDS = 2.0
_BEAT_SECONDS = 3.0  # largest age of a heartbeat
# Times the median: longer is a validation or a suspended machine; longer is not compared.
_GAP, _LONG = 10.0, 4.0
# Duties: the largest that still allows a comparison, that without a budget, that of a rest.
_LARGEST_DUTY, _HARD, _REST = 0.72, 0.9, 1e-6
_UNKNOWN = 0.1  # seconds that a second of work is assumed to cost while nothing is measured
_LONGER = 8.0  # how much longer a turn may last than the one before, where none is paid
_LONGEST = 60.0  # seconds of such a turn, but two rests at least
_SHORTEST_TURN, _SETTLE = 8, 12  # steps: of a turn and a rest, about; of a late effect
_CYCLES, _SIDE = 48, 0.95  # latest costs that count; the end of their interval that sets the duty
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
        file.write(np.array([begin, end], "<f8").tobytes())


def read_work(bank: Path, skip: int = 0) -> Array:
    """Read the stretches of work (N, 2), oldest first, without the first ``skip``."""
    try:
        raw = (bank / WORK).read_bytes()[skip * _PAIR :]
    except OSError:
        return np.zeros((0, 2))
    return np.frombuffer(raw, "<f8", len(raw) // _PAIR * 2).reshape(-1, 2)


class ProducerThrottle:
    """Limit the producer of one live bank, and measure its cost for the training.

    Args:
        drawn: returns the synthetic samples drawn so far; called rarely, as it may read files.
    """

    def __init__(self, bank: Path, pacing: RefreshPolicy, drawn: Callable[[], int]) -> None:
        self.bank, self.pacing, self._drawn = bank, pacing, drawn
        self._count, self._pace, self._chance = 0, _REST, random.Random(0)
        self._due = self._last = self._changed = -math.inf
        self._beat: Mapping[str, Any] = {}
        self._made: list[tuple[float, int]] = []  # first and last time and samples of a full bank
        self._rows: list[tuple[float, float]] = []  # begin and end of each step
        self._work = np.zeros((0, 2))  # the producer's stretches of work
        self._working, self._kept, self._length, self._reach = False, 0, 1.0, 1.0
        self._costs: list[tuple[float, float]] = []  # seconds lost by one of work, its weight
        # Seconds of steps, of work beside them: now, and when the turn began.
        self._total = self._before = np.zeros(2)
        self._read = len(read_work(bank))  # earlier work may be from before a reboot
        self.resume()

    def step(self, begin: float, end: float) -> None:
        """Record a training step, ``time.monotonic()`` when its batch was ready, and at its end."""
        self._rows.append((self._last if 0 < self._last <= begin else begin, end))
        self._last = end
        if end >= self._due:
            self._due = end + _TICK_SECONDS
            self._tick(end)

    def pause(self) -> None:
        """Exclude the time until the next step, e.g. at the end of an epoch."""
        self._last = self._due = -math.inf
        self.resume(min(_HARD, self.duty()))

    def resume(self, duty: float | None = None) -> None:
        """Write the duty again after another process has changed it, or another one for now."""
        write_throttle_state(self.bank, ThrottleState(duty or self._pace, self._count))

    def duty(self) -> float:
        """Return the share of time the producer may work within the overhead budget."""
        if self.pacing.overhead is None:
            return _HARD
        if len(self._costs) > 2:
            cost = interval(self._costs[-_CYCLES:], _SIDE)[2]
        else:
            cost = max([_UNKNOWN, 0.0] + [cost for cost, _ in self._costs])
        share = self.pacing.overhead / (1 + self.pacing.overhead)
        return 1.0 if cost <= share else min(_LARGEST_DUTY, share / cost)

    def summary(self) -> dict[str, Any]:
        """Return the measurements for the record; empty without a producer.

        ``refresh_seconds``, in which the bank is replaced; ``duty``, the share of time the producer
        worked; ``overhead``, the relative slowdown of steps, with its 95 % interval
        ``overhead_low`` to ``overhead_high``, unless that is too wide.
        """
        document: dict[str, Any] = {}
        if len(self._made) == 2:
            (begin, before), (end, total) = self._made
            if total > before:
                seconds = self._beat["held"] * (end - begin) / (total - before)
                document["refresh_seconds"] = round(seconds, 1)
        if len(self._costs) > 1:
            seconds, work = self._total
            document["duty"] = round(work / seconds, 4)
            lost = [cost * work for cost in interval(self._costs, 0.975)]
            low, share, high = [round(x / max(0.01 * seconds, seconds - x), 5) for x in lost]
            if high - low <= _KNOWN:
                document |= {"overhead": share, "overhead_low": low, "overhead_high": high}
        return document

    def status_line(self) -> str:
        """Describe the summary in words; empty if there is nothing to report."""
        found, text, cost = self.summary(), [], "; what that costs is not known yet"
        seconds = found.get("refresh_seconds")
        if seconds is not None:
            long = f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.0f} s"
            text.append(f"bank renewed every {long}")
        if "overhead" in found:
            share, low, high = [100 * found["overhead" + end] for end in ("", "_low", "_high")]
            asked = self.pacing.overhead
            budget = "" if asked is None else f"; budget {100 * asked:g} %"
            cost = f", slowing steps down by {share:.1f} % ({low:.1f} to {high:.1f} %{budget})"
        if "duty" in found:
            text.append(f"producer at work {found['duty']:.0%} of the time{cost}")
        return "; ".join(text)

    def _tick(self, now: float) -> None:
        beat, until = read_heartbeat(self.bank), now - _BEAT_SECONDS
        if beat != self._beat:
            self._beat, self._changed = beat, now
            if beat.get("state") == "refreshing":
                self._made = [*self._made[:1], (now, beat["total"])]
        new = read_work(self.bank, self._read)
        self._read += len(new)
        sound = (new[:, 0] < new[:, 1]) & (new[:, 1] < math.inf)
        self._work = np.concatenate([self._work, new[sound]])
        self._count = self._drawn()
        if self._rows[0][1] <= until:
            since = beat.get("working_since") if self._changed > until else None
            self._turn(until if since is None else min(float(since), until), until)
        self._pace = (_HARD if self.pacing.overhead is None else 1.0) if self._working else _REST
        self.resume()

    def _turn(self, since: float, until: float) -> None:
        """End the turn of work or of rest if it is time; the producer works since ``since``."""
        rows = np.array(self._rows)
        begun, ends = rows[: np.searchsorted(rows[:, 1], until, "right")].T
        knots = np.maximum.accumulate(np.append(self._work, [since, until]))
        worked = np.cumsum(np.diff(knots, prepend=knots[0]) * (np.arange(len(knots)) % 2))
        work = np.interp(ends, knots, worked) - np.interp(begun, knots, worked)
        seconds, steps, usual = ends - begun, len(ends), float(np.median(ends - begun))
        duty, turn = self.duty(), slice(self._kept, None)
        unpaid = duty == 1
        if unpaid:
            resting = max((_SHORTEST_TURN + _SETTLE) * usual, _BEAT_SECONDS + _TICK_SECONDS)
            target = self._length * min(resting * self._reach, max(_LONGEST, 2 * resting))
        else:
            target = (
                usual
                * self._length
                * max(_SHORTEST_TURN, (_SHORTEST_TURN + _SETTLE) * duty / (1 - duty))
            )
        step = (seconds <= _GAP * usual)[turn]
        self._total = self._before + np.stack([seconds[turn][step], work[turn][step]]).sum(axis=1)
        if self._working:
            over = seconds[turn].sum() > _PATIENCE * (target + _SETTLE * usual)
            self._working = not over and work[turn].sum() < target
            return
        busy = np.convolve(work > 0, np.ones(_SETTLE + 1))[:steps] > 0
        busy[: self._kept] = False
        end = int(np.flatnonzero(busy).max(initial=-1)) + 1
        hard = self.pacing.overhead is None
        paid = unpaid or hard or duty * self._total[0] >= self._total[1] + target
        if paid and steps - end >= _SHORTEST_TURN:
            begin, weight = int(np.argmax(busy)), float(work[turn].sum())
            if begin and weight:
                beside, rest = seconds[begin:end], [seconds[:begin], seconds[end : end + begin]]
                lost = (_mean(beside) - _mean(np.concatenate(rest))) * (end - begin)
                self._costs.append((lost / weight, weight))
                self._reach = _LONGER * self._reach if self.duty() == 1 else 1.0
            # The random length avoids synchrony with periodic work of the training.
            self._length = self._chance.uniform(0.5, 1.5)
            self._before, self._working, self._kept = self._total, True, (steps - end) // 2
            self._rows = self._rows[steps - self._kept :]
            self._work = self._work[self._work[:, 1] > until]


def _mean(seconds: Array) -> float:
    return float(seconds[seconds <= _LONG * np.median(seconds)].mean())


def interval(costs: list[tuple[float, float]], level: float) -> tuple[float, float, float]:
    """Return low end, mean and high end of the weighted costs."""
    from scipy.special import stdtrit

    values, weights = np.array(costs).T
    mean, count = float(np.average(values, weights=weights)), len(costs)
    variance = float(np.sum((weights * (values - mean)) ** 2)) * count / (count - 1)
    half = float(stdtrit(count - 1, level)) * math.sqrt(variance) / float(weights.sum())
    return mean - half, mean, mean + half
