"""Limit a live bank's producer by its measured cost for the training steps.

The producer alternates work and rest. Training steps during work are compared, pair by pair, with
those before and after it. The medians of both windows give the slowdown. The interval over the
pairs determines how long the producer must rest to meet the requested overhead. The training's main
process calls ``step`` after each step, and everything happens in that call. There is no thread and
no waiting. Failures are reported in ``sentence`` alone.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from gansynth.bank.spec import read_heartbeat
from gansynth.bank.throttle_state import Stretch, ThrottleState, read_work, write_throttle_state
from gansynth.core.bank_options import OVERHEAD, RefreshPolicy

_TICK_SECONDS = 2.0
_TICK_COSTS, _TICK_MOST = 200.0, 10.0
"""A tick waits so many times the last one's duration (0.5 % of the time); its limit in seconds."""
_BEAT_SECONDS = 3.0  # largest age of a heartbeat
_GAP = 10.0
"""In medians: anything longer is a validation, a checkpoint or a suspended machine, not a step."""
_CALL = 0.002  # seconds that fetching a batch takes if it is ready
_BUSY, _IDLE = 0.75, 0.05  # least share of a step during work; largest share of a step during rest
_MOST, _HARD, _REST = 0.72, 0.9, 1e-6
"""Duties: the largest that still allows a comparison, that without a budget, that of a rest."""
_UNKNOWN = 0.1  # assumed slowdown while nothing is measured
_LEAST, _PAIRS = 2, 48  # pairs that an interval needs, and the latest pairs that it uses
_SIDE = 0.8  # end of the interval that sets the duty: uncertain estimates are used with care
_PATIENCE = 10  # multiple of its usual length after which a turn without usable steps ends
_KNOWN = 0.5  # width of an overhead interval above which the overhead counts as unknown

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class _Window(NamedTuple):
    """Least number of steps; steps left out before them; steps averaged into one."""

    steps: int
    settle: int
    bin: int


_AT_ONCE, _DELAYED = _Window(6, 0, 1), _Window(24, 16, 8)
"""Without and with waiting for a loader: a slower loader shows some batches later."""


class ProducerThrottle:
    """Limit the producer of one live bank, and measure its cost for the training.

    Args:
        bank: folder of the bank.
        pacing: the requested limits.
        drawn: returns the synthetic samples drawn so far; it may read files, so it is called
            rarely.
    """

    def __init__(self, bank: Path, pacing: RefreshPolicy, drawn: Callable[[], int]) -> None:
        self.bank, self.pacing = bank, pacing
        self.fault = ""
        """Why steering stopped; empty while it works."""
        self._budget = pacing.overhead or OVERHEAD
        self._hard = _HARD if pacing.overhead is None else 1.0
        self._drawn, self._count, self._pace = drawn, 0, self._hard
        self._chance = random.Random(0)
        self._due, self._last = -math.inf, -math.inf
        self._beat: Mapping[str, Any] = {}
        self._beat_met = -math.inf
        self._rows: list[tuple[float, float, float]] = []  # a step: previous end, begin, end
        self._counted = 0  # leading rows that are in the total
        self._stretches: list[Stretch] = []
        self._working, self._since, self._longer = True, 0, 1.0
        self._pairs: list[tuple[float, float]] = []  # log of how much slower, seconds of work
        self._total, self._new = np.zeros(2), np.zeros(2)  # seconds of steps, of work beside them
        self._renewal = _RenewalTime()
        with self._safely():
            # Earlier work is ignored: it may be from before a reboot.
            self._read = len(read_work(bank))
            write_throttle_state(bank, ThrottleState(self._pace, 0))

    def step(self, begin: float, end: float) -> None:
        """Record a training step.

        Args:
            begin: ``time.monotonic()`` when its batch was ready.
            end: ``time.monotonic()`` when it was done.
        """
        if self.fault:
            return
        self._rows.append((self._last if 0 < self._last <= begin else begin, begin, end))
        self._last = end
        if end >= self._due:
            began = time.perf_counter()
            with self._safely():
                self._tick(end)
            cost = _TICK_COSTS * (time.perf_counter() - began)
            self._due = end + min(max(_TICK_SECONDS, cost), _TICK_MOST)

    def pause(self) -> None:
        """Exclude the time until the next step, e.g. at the end of an epoch."""
        self._last = self._due = -math.inf
        with self._safely():
            write_throttle_state(
                self.bank, ThrottleState(min(self._pace, self.duty()), self._count)
            )

    def resume(self) -> None:
        """Write the duty again after another process has changed it."""
        with self._safely():
            write_throttle_state(self.bank, ThrottleState(self._pace, self._count))

    def duty(self) -> float:
        """Return the share of time the producer may work within the overhead budget."""
        if self.pacing.overhead is None:
            return _HARD
        if len(self._pairs) <= _LEAST:
            worst = max([_UNKNOWN, *(_lost(ratio) for ratio, _ in self._pairs)])
        else:
            worst = _lost(interval(self._pairs[-_PAIRS:], _SIDE)[2])
        allowed = self._budget / (1 + self._budget)
        return _MOST if worst <= allowed / _MOST else allowed / worst

    def summary(self) -> dict[str, Any]:
        """Return the measurements for the record.

        Returns:
            ``refresh_seconds``, in which the bank is replaced. ``overhead``, the relative slowdown
            of steps, with its 95 % interval ``overhead_low`` to ``overhead_high``, unless that is
            too wide. ``duty``, the share of time the producer worked. Empty without a producer.
        """
        document: dict[str, Any] = {}
        with self._safely():
            if (renewed := self._renewal.seconds) is not None:
                document["refresh_seconds"] = round(renewed, 1)
            if len(self._pairs) >= _LEAST:
                seconds, work = self._total + self._new
                lost = (_lost(ratio) * work for ratio in interval(self._pairs, 0.975))
                low, share, high = (x / max(0.01 * seconds, seconds - x) for x in lost)
                document["duty"] = round(work / seconds, 4)
                if high - low <= _KNOWN:
                    document["overhead"] = round(share, 5)
                    document["overhead_low"] = round(low, 5)
                    document["overhead_high"] = round(high, 5)
        return document

    def sentence(self) -> str:
        """Describe the summary in words; empty if there is nothing to report."""
        summary, parts = self.summary(), []
        if "refresh_seconds" in summary:
            parts.append(f"renewed every {_duration(summary['refresh_seconds'])}")
        if "duty" in summary:
            parts.append(f"producer at work {summary['duty']:.0%} of the time")
        if "duty" in summary and "overhead" not in summary:
            parts.append("what that costs is not known yet")
        if "overhead" in summary:
            cost, low, high = (100 * summary[f"overhead{end}"] for end in ("", "_low", "_high"))
            overhead = self.pacing.overhead
            budget = "" if overhead is None else f"; budget {100 * overhead:g} %"
            parts[-1] += f", slowing steps down by {cost:.1f} % ({low:.1f} to {high:.1f} %{budget})"
        if self.fault:
            parts.append(f"steering stopped: {self.fault}")
        return "; ".join(parts)

    # -- now and then ----------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        beat = read_heartbeat(self.bank)
        if beat != self._beat:
            self._beat, self._beat_met = beat, now
        new = read_work(self.bank, self._read)
        self._read += len(new)
        self._stretches += (s for s in new if s[0] < s[1] < math.inf)
        self._renewal.look(beat, now)
        self._count = self._drawn()
        until, since = now - _BEAT_SECONDS, beat.get("working_since")
        if since is None or now - self._beat_met >= _BEAT_SECONDS:
            since = until
        if self._rows[0][2] <= until:
            self._turn(*self._known(float(since), until))
        self._pace = self._hard if self._working else _REST
        write_throttle_state(self.bank, ThrottleState(self._pace, self._count))

    def _known(self, since: float, until: float) -> tuple[Array, Array, Array]:
        """Return seconds of each step from ``since`` to ``until``: total, beside work, waiting."""
        rows = np.array(self._rows)
        begun, met, ends = rows[: np.searchsorted(rows[:, 2], until, "right")].T
        stretches = [*self._stretches, (min(since, until), until)]
        knots = np.maximum.accumulate(np.array(stretches).reshape(-1))
        worked = np.cumsum(np.diff(knots, prepend=knots[0]) * (np.arange(len(knots)) % 2))
        work = np.interp(ends, knots, worked) - np.interp(begun, knots, worked)
        return ends - begun, work, met - begun

    def _turn(self, seconds: Array, work: Array, wait: Array) -> None:
        """End the turn of work or of rest if it is time."""
        steps = len(seconds)
        whole = (seconds > 0) & (seconds <= _GAP * np.median(seconds))
        new = whole & (np.arange(steps) >= self._counted)
        self._new = np.array([seconds[new].sum(), work[new].sum()])
        # The cost of loader delays cannot exceed the total waiting.
        waited = np.maximum(wait[whole] - _CALL, 0).sum()
        view = _DELAYED if waited > self._budget / 4 * seconds[whole].sum() else _AT_ONCE
        share = _trailing(work, view.settle) / np.maximum(_trailing(seconds, view.settle), 1e-9)
        busy, idle = whole & (share >= _BUSY), whole & (share <= _IDLE)
        duty, turn = self.duty(), steps - self._since
        if self._working:
            target = view.steps * max(1, duty / (1 - duty))
            if busy.sum() >= target or turn > _PATIENCE * (target + view.settle):
                # The random length avoids synchrony with periodic work of the training.
                self._working, self._longer = False, self._chance.uniform(0.5, 1.5)
                self._since = steps
            return
        enough = idle[self._since :].sum() >= view.steps
        paid, all_paid = (
            spent >= longer * worked / duty
            for longer, (spent, worked) in ((self._longer, self._new), (1, self._total + self._new))
        )
        if paid and all_paid and (enough or turn > _PATIENCE * (view.steps + view.settle)):
            self._pair(seconds, share, busy, idle, view)
            self._working = True

    def _pair(self, seconds: Array, share: Array, busy: Mask, idle: Mask, view: _Window) -> None:
        """Compare a turn of work with the rests around it; half the last rest goes to the next."""
        steps = len(seconds)
        trailing = steps - int(np.argmax(~idle[::-1])) if not idle.all() else 0
        boundary = (trailing + steps) // 2
        beside, apart = (np.flatnonzero(kind[:boundary]) for kind in (busy, idle))
        if min(len(beside), len(apart)) >= 2 * view.bin:
            ratio = _median(seconds[beside], view.bin) / _median(seconds[apart], view.bin)
            slower = math.log(ratio) / float(share[beside].mean())
            self._pairs.append((min(3.0, max(-3.0, slower)), float(self._new[1])))
        self._total, self._new = self._total + self._new, np.zeros(2)
        self._counted, self._since = steps - boundary, steps - boundary
        self._rows = self._rows[boundary:]
        self._stretches = [s for s in self._stretches if s[1] > self._rows[0][0]]

    @contextlib.contextmanager
    def _safely(self) -> Iterator[None]:
        """Keep failures of steering away from the training."""
        try:
            yield
        except Exception as error:
            self.fault = self.fault or f"{type(error).__name__}: {error}"
            with contextlib.suppress(
                Exception
            ):  # so that the producer does not stay at a high duty
                write_throttle_state(
                    self.bank, ThrottleState(min(self._pace, self.duty() / 2), self._count)
                )


def interval(pairs: list[tuple[float, float]], level: float) -> tuple[float, float, float]:
    """Return low end, mean and high end of the pairs' log ratios, weighted by seconds of work."""
    ratios, work = np.array(pairs).T
    mean, count = float(np.average(ratios, weights=work)), len(pairs)
    variance = float(np.sum((work * (ratios - mean)) ** 2)) * count / (count - 1)
    half = float(stdtrit(count - 1, level)) * math.sqrt(variance) / float(work.sum())
    return mean - half, mean, mean + half


def _lost(slower: float) -> float:
    """Return the share of speed lost for a log ratio of step times."""
    return 1 - math.exp(-slower)


def _trailing(values: Array, before: int) -> Array:
    """Return the sum of each value and the ``before`` values before it."""
    sums = np.concatenate((np.zeros(before + 1), np.cumsum(values)))
    return np.asarray(sums[before + 1 :] - sums[: len(values)])


def _median(seconds: Array, size: int) -> float:
    """Return the median of step times, averaged over ``size`` consecutive steps."""
    count = len(seconds) // size
    return float(np.median(seconds[: count * size].reshape(count, size).mean(axis=1)))


class _RenewalTime:
    """Estimate from the heartbeat how long a full live bank takes to be replaced once."""

    def __init__(self) -> None:
        self.seconds: float | None = None  # None until a sample was replaced
        self._last: int | None = None
        self._first: tuple[float, int] | None = None

    def look(self, beat: Mapping[str, Any], now: float) -> None:
        total, held = beat.get("total"), beat.get("held")
        if not (isinstance(total, int) and isinstance(held, int)):
            return
        if self._first is not None and total > self._first[1]:
            # Up to now, as it may have stopped in between.
            self.seconds = held * (now - self._first[0]) / (total - self._first[1])
        elif self._last not in (None, total) and beat.get("state") == "refreshing":
            self._first = (now, total)  # measured from a publication on
        self._last = total


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
