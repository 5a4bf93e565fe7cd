"""Steering a live bank's producer from the host's training steps: how hard it works, what it costs.

A host's main process calls ``step`` after each training step; everything else happens in there,
now and then: no thread, no waiting, and what fails in here is told in ``sentence`` alone.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gansynth.bank.overhead import OverheadMeter
from gansynth.bank.pace import Pace, read_work, write_pace
from gansynth.bank.spec import read_heartbeat
from gansynth.core.bank_options import OVERHEAD, Pacing

_TICK_SECONDS = 2.0
_TICK_COSTS = 200.0
"""A tick waits for so many times what the last one took: at most 0.5 % of the host's time."""
_BEAT_SECONDS = 3.0
"""A heartbeat is younger than that."""
_KNOWN = 0.5
"""Width of an interval of overhead above which nothing is known about it."""
_HARD, _HARDLY = 0.9, 0.02
"""Duties: the producer's own limits rule; next to no work."""


class Steering:
    """Paces the producer of one live bank, and measures what it costs the host.

    With a stated overhead the producer works by fits and starts, at random, in such parts of the
    time that the overhead comes out: a duty that never changed would teach little about its cost.

    Args:
        bank: folder of the bank.
        pacing: what was asked for.
        drawn: synthetic samples drawn so far; not asked at each step, it may read files.
    """

    def __init__(self, bank: Path, pacing: Pacing, drawn: Callable[[], int]) -> None:
        self.bank, self.pacing = bank, pacing
        self.meter = OverheadMeter(pacing.overhead or OVERHEAD)
        self.fault = ""
        """Why there is no steering any more; empty if there is."""
        self._drawn, self._count = drawn, 0
        self._chance = random.Random(0)
        self._due = self._turn = float("-inf")
        self._read, self._met = 0, False
        self._pace = self._duty()
        self._renewal = _Renewal()
        with self._safely():
            # What was done before is no concern of ours, and maybe of the time before a reboot.
            self._read = len(read_work(bank))
            write_pace(bank, Pace(self._pace, 0))

    def step(self, begin: float, end: float) -> None:
        """Note a training step of the host.

        Args:
            begin: ``time.monotonic()`` when its batch was there.
            end: when it was done.
        """
        if self.fault:
            return
        self.meter.step(begin, end)
        if end >= self._due:
            began = time.perf_counter()
            with self._safely():
                self._tick(end)
            self._due = end + max(_TICK_SECONDS, _TICK_COSTS * (time.perf_counter() - began))

    def pause(self) -> None:
        """Say that the time until the next step belongs to none, at the end of an epoch say."""
        self.meter.pause()

    def resume(self) -> None:
        """Tell the producer again how hard it may work, after somebody else told it otherwise."""
        with self._safely():
            write_pace(self.bank, Pace(self._pace, self._count))

    def summary(self) -> dict[str, Any]:
        """What is known, for the record.

        Returns:
            ``refresh_seconds`` in which the bank is renewed; ``overhead``, the share by which steps
            were slowed down, with its 95 % interval ``overhead_low`` to ``overhead_high``, unless
            that is too wide to mean anything; ``duty``, the share of the time the producer worked.
            Empty without a producer.
        """
        document: dict[str, Any] = {}
        with self._safely():
            if (seconds := self._renewal.seconds) is not None:
                document["refresh_seconds"] = round(seconds, 1)
            if (found := self.meter.overhead()) is not None:
                document["duty"] = round(found.duty, 4)
                if found.high - found.low <= _KNOWN:
                    document["overhead"] = round(found.share, 5)
                    document["overhead_low"] = round(found.low, 5)
                    document["overhead_high"] = round(found.high, 5)
        return document

    def sentence(self) -> str:
        """The summary in words; empty if there is nothing to say."""
        found, parts = self.summary(), []
        if "refresh_seconds" in found:
            parts.append(f"renewed every {_duration(found['refresh_seconds'])}")
        if "duty" in found:
            parts.append(f"producer at work {found['duty']:.0%} of the time")
        if "duty" in found and "overhead" not in found:
            parts.append("what that costs is not known yet")
        if "overhead" in found:
            cost, low, high = (100 * found[f"overhead{end}"] for end in ("", "_low", "_high"))
            asked = self.pacing.overhead
            budget = "" if asked is None else f"; budget {100 * asked:g} %"
            parts[-1] += f", slowing steps down by {cost:.1f} % ({low:.1f} to {high:.1f} %{budget})"
        if self.fault:
            parts.append(f"steering stopped: {self.fault}")
        return "; ".join(parts)

    # -- now and then ----------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        beat = read_heartbeat(self.bank)
        stretches = read_work(self.bank, self._read)
        self._read += len(stretches)
        self._met = self._met or bool(stretches)
        if self._met:
            self.meter.work(stretches, _idle_until(beat, now))
            self.meter.fit()
        self._renewal.look(beat, now)
        self._count = self._drawn()
        if now >= self._turn:
            self._pace = self._duty()
            self._turn = now + max(_TICK_SECONDS, self.meter.pulse)
        write_pace(self.bank, Pace(self._pace, self._count))

    def _duty(self) -> float:
        """The producer's duty for a while."""
        if self.pacing.overhead is None:
            return _HARD
        duty = self.meter.duty()
        hard = min(_HARD, 2 * duty)
        rather = (duty - _HARDLY) / (hard - _HARDLY) if hard > _HARDLY else 1.0
        return hard if self._chance.random() < rather else min(_HARDLY, duty)

    @contextlib.contextmanager
    def _safely(self) -> Iterator[None]:
        """Let nothing that fails in here reach the host's training."""
        try:
            yield
        except Exception as error:
            self.fault = self.fault or f"{type(error).__name__}: {error}"
            with contextlib.suppress(Exception):  # not to leave it at work hard for good
                write_pace(self.bank, Pace(min(self._pace, self.meter.duty()), self._count))


class _Renewal:
    """How long a full live bank takes to be replaced once, from its heartbeat."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._total, self._at, self._now, self._held = -1, 0.0, 0.0, 0
        self._segments = 0

    def look(self, beat: Mapping[str, Any], now: float) -> None:
        total, held = beat.get("total"), beat.get("held")
        if not (isinstance(total, int) and isinstance(held, int)):
            return
        self._now, self._held = now, held
        if total == self._total:
            return
        # From one publication to another: between them nothing is known.
        if beat.get("state") == "refreshing" and self._total >= 0:
            if self._first is None:
                self._first = (now, total)
            else:
                self._segments += 1
        self._total, self._at = total, now

    @property
    def seconds(self) -> float | None:
        """None while fewer than two segments were replaced."""
        if self._first is None or not self._segments or self._total <= self._first[1]:
            return None
        begin, total = self._first
        usual = (self._at - begin) / self._segments
        span = max(self._at - begin, self._now - begin - usual)  # it may have stopped since
        return self._held * span / (self._total - total)


def _idle_until(beat: Mapping[str, Any], now: float) -> float | None:
    """Up to when all is known of a producer's work that is done; None if it does not tell."""
    if "working_since" not in beat:
        return None
    since = beat["working_since"]
    return now - _BEAT_SECONDS if since is None else float(since)


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
