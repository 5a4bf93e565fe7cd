"""By how much a producer slows its host's training steps down, and how hard it may work.

The model: while the producer works, a step gets on at 1 - lost of its speed. A step that takes
``seconds``, a ``share`` of them beside the producer, would take ``seconds * (1 - lost * share)``
alone; and that has nothing to do with the share. ``lost`` is the number for which this comes true:
found from steps the producer overlaps in full, in part and not at all, none being slowed down for
the sake of measuring.

Where the host waits for its loader, the producer may slow down the loader's processes, which is
felt some batches later. Then a step counts together with its neighbours, and the producer's work
shortly before them counts as well as that beside them. Needs numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gansynth.bank.pace import Stretch

WINDOW = 2000
"""Steps an estimate rests on: a change of load is followed within so many."""
_FARTHEST = 8
"""Windows that it goes back at most for a producer that seldom works."""
_STRETCHES = 10
"""Stretches of work that it goes back for."""
MOST = 0.72
"""Duty at most: without some rest there is nothing to compare with."""
_START = 10.0
"""Budgets: the duty at first."""
_GAP = 10.0
"""Medians: what took longer was no step, but a validation, a checkpoint, a suspended machine."""
_CALL = 0.002
"""Seconds that asking for a batch takes which is there: no waiting."""
_CLIP = 2.5
_WIDER = 1.25
"""An interval of overhead, wider than one of what is lost: the duty follows the estimates, errors
and all, so that both err together (found by simulation)."""
_LEAST = 0.02
"""Of its speed a step keeps at least so much, whatever its neighbours say."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """How steps are looked at.

    Attributes:
        bin: so many consecutive steps count as one.
        lags: bins before one whose work counts too, in ranges: (1, 4) is the last, and those up to
            the fourth last.
        pulse: steps for which the producer's duty should stay as it is.
        few: bins a block holds at least.
        blocks: at most.
    """

    bin: int
    lags: tuple[int, ...]
    pulse: int
    few: int
    blocks: int


AT_ONCE = View(bin=1, lags=(), pulse=8, few=16, blocks=24)
DELAYED = View(bin=8, lags=(1, 4), pulse=32, few=12, blocks=16)
"""Far enough back for the batches that a dozen worker processes have in the making."""
_BLOCKS = 5


@dataclass(frozen=True)
class Lost:
    """What a host loses while its producer works.

    Attributes:
        share: of its speed; below 0 if noise outweighs it.
        error: standard error of that.
        freedom: degrees of freedom of the error.
    """

    share: float
    error: float
    freedom: int

    @property
    def slowdown(self) -> float:
        """By how much a step takes longer while the producer works: 1 is twice as long."""
        return self.share / (1 - self.share)

    @property
    def slowdown_error(self) -> float:
        """Standard error of ``slowdown``."""
        return self.error / (1 - self.share) ** 2


@dataclass(frozen=True)
class Overhead:
    """What a producer cost its host.

    Attributes:
        share: by which the host's steps took longer than without it.
        low: lower end of its 95 % interval.
        high: upper end.
        duty: share of the time in which the producer worked.
    """

    share: float
    low: float
    high: float
    duty: float


@dataclass(frozen=True)
class _Sum:
    """Over steps: seconds lost, the variance of that, seconds of work, and all seconds."""

    lost: float = 0.0
    variance: float = 0.0
    freedom: float = math.inf
    work: float = 0.0
    seconds: float = 0.0

    def plus(self, found: Lost, work: float, seconds: float) -> _Sum:
        return _Sum(
            self.lost + found.share * work,
            self.variance + (found.error * work) ** 2,
            min(self.freedom, found.freedom),
            self.work + work,
            self.seconds + seconds,
        )


@dataclass(frozen=True)
class _Steps:
    """(N,) each: when steps ended, what they took, of that waiting, of that beside the producer."""

    ends: Array
    seconds: Array
    wait: Array
    work: Array


class OverheadMeter:
    """Measures overhead from steps of the host and stretches of the producer's work.

    Args:
        budget: share by which the producer may slow the host's steps down, above 0.
        window: steps an estimate rests on.
    """

    def __init__(self, budget: float, window: int = WINDOW) -> None:
        self.budget, self.window = budget, window
        self.lost: Lost | None = None
        """As of the last ``fit``; None while too little is known."""
        self.view = AT_ONCE
        self._ring = np.zeros((_FARTHEST * window, 3))
        self._count = 0
        self._stretches: list[Stretch] = []
        self._until = -math.inf
        self._last: float | None = None
        self._summed = -math.inf
        self._sum, self._rest = _Sum(), (0.0, 0.0)

    def step(self, begin: float, end: float) -> None:
        """Note a training step, seconds of ``time.monotonic()``; waiting for its batch counts."""
        last = self._last
        row = begin if last is None or last > begin else last, begin, end
        self._ring[self._count % len(self._ring)] = row
        self._count += 1
        self._last = end

    def pause(self) -> None:
        """Say that the time from the last step to the next belongs to neither."""
        self._last = None

    def work(self, stretches: Iterable[Stretch], until: float | None = None) -> None:
        """Note what the producer did.

        Args:
            stretches: of its work, oldest first, after those noted before.
            until: up to then there were no others; None: up to the end of the last one.
        """
        self._stretches += (s for s in stretches if s[0] < s[1] < math.inf)
        known = self._stretches[-1][1] if self._stretches else -math.inf
        self._until = max(self._until, known, -math.inf if until is None else until)

    @property
    def pulse(self) -> float:
        """Seconds for which the duty should stay as it is, if it is varied to learn from that."""
        steps = self._newest(self.window)
        if not len(steps):
            return 0.0
        seconds = self.view.pulse * float(np.mean(steps[:, 2] - steps[:, 0]))
        if not self._stretches:
            return seconds
        # And never shorter than a stretch of work with its rest.
        stretch = sum(end - begin for begin, end in self._stretches) / len(self._stretches)
        return max(seconds, stretch / self.duty())

    def fit(self) -> Lost | None:
        """Estimate anew; takes some milliseconds."""
        known = self._known()
        # What the loader's delays cost cannot be more than the waiting there is.
        waited = float(np.maximum(known.wait - _CALL, 0).sum())
        waits = waited > self.budget / 4 * float(known.seconds.sum())
        self.view = DELAYED if waits else AT_ONCE
        found = fit(known.seconds, known.work, self.view, len(self._stretches))
        self.lost = found or self.lost
        if self.lost is not None:
            new = known.ends > self._summed
            self._rest = (float(known.work[new].sum()), float(known.seconds[new].sum()))
            if np.count_nonzero(new) >= 0.9 * max(self.window, len(new)):
                self._sum, self._rest = self._sum.plus(self.lost, *self._rest), (0.0, 0.0)
                self._summed = float(known.ends[-1])
        return self.lost

    def overhead(self) -> Overhead | None:
        """What the producer cost from the first step on; None while too little is known."""
        if self.lost is None:
            return None
        total = self._sum.plus(self.lost, *self._rest)
        wide = _WIDER * _student(total.freedom) * math.sqrt(total.variance)
        share, low, high = (
            lost / max(0.01 * total.seconds, total.seconds - lost)
            for lost in (total.lost, total.lost - wide, total.lost + wide)
        )
        return Overhead(share, low, high, total.work / total.seconds)

    def duty(self) -> float:
        """Share of wall time the producer may work so that its overhead keeps within the budget."""
        if self.lost is None:
            return min(MOST, _START * self.budget)
        # One standard error above the estimate: what is not known well is used with care. More
        # than everything cannot be lost, so the duty never falls far below the budget.
        allowed = self.budget / (1 + self.budget)
        worst = min(1.0, self.lost.share + self.lost.error)
        return MOST if worst <= allowed / MOST else allowed / worst

    def _newest(self, count: int) -> Array:
        """(N, 3) of the last steps: when the one before ended, when each began, and ended."""
        first = max(0, self._count - min(count, len(self._ring)))
        return self._ring[np.arange(first, self._count) % len(self._ring)]

    def _known(self) -> _Steps:
        """The last steps of which it is known whether the producer worked meanwhile."""
        far = self._stretches[-_STRETCHES:][:1]
        steps = self._newest(len(self._ring))
        steps = steps[: np.searchsorted(steps[:, 2], self._until, "right")]
        begin = np.searchsorted(steps[:, 0], far[0][0]) if far else len(steps)
        steps = steps[max(0, min(int(begin), len(steps) - self.window)) :]
        if not len(steps) or not self._stretches:
            return _Steps(*(np.empty(0),) * 4)
        self._stretches = [s for s in self._stretches if s[1] > steps[0, 0]] or [far[0]]
        knots = np.maximum.accumulate(np.array(self._stretches, np.float64).reshape(-1))
        worked = np.cumsum(np.diff(knots, prepend=knots[0]) * (np.arange(len(knots)) % 2))
        begun, met, ends = steps.T
        seconds = ends - begun
        work = np.interp(ends, knots, worked) - np.interp(begun, knots, worked)
        kept = (seconds > 0) & (seconds <= _GAP * np.median(seconds))
        return _Steps(ends[kept], seconds[kept], (met - begun)[kept], work[kept])


def fit(seconds: Array, work: Array, view: View, most: int) -> Lost | None:
    """Estimate what is lost from the steps of one host.

    Bins are compared within blocks of consecutive ones, so that drift is no effect; the error is
    that of block sums, so that steps may depend on their neighbours; far outliers are clipped.

    Args:
        seconds: (N,) of each step, above 0.
        work: (N,) of them beside the producer.
        view: how to look at them.
        most: blocks at most: stretches of work, so that each block has work and rest in it.

    Returns:
        None if nothing can be said: too few steps, or the producer overlaps all of them alike.
    """
    seconds, shares = _bins(seconds, work, view)
    blocks = min(view.blocks, most, len(seconds) // view.few)
    if blocks < _BLOCKS:
        return None
    rest = len(seconds) % blocks
    taken = np.log(seconds[rest:]).reshape(blocks, -1)
    shares = shares[rest:].reshape(blocks, taken.shape[1], -1)
    lost = np.zeros(shares.shape[2])
    try:
        for clip in (math.inf, math.inf, math.inf, 8, 4, 2, 1, 1, 1, 1):
            scores, slopes = _scores(taken, shares, lost, clip * _CLIP)
            lost = lost + np.clip(np.linalg.solve(slopes, scores.sum(axis=0)), -0.4, 0.4)
            lost *= min(1.0, (1 - _LEAST) / max(1e-9, float(lost.sum())))
        scores, slopes = _scores(taken, shares, lost, _CLIP)
        inverse = np.linalg.inv(slopes)
    except np.linalg.LinAlgError:
        return None
    spread = inverse @ (scores.T @ scores) @ inverse.T * blocks / (blocks - 1)
    share, error = float(lost.sum()), math.sqrt(max(0.0, float(spread.sum())))
    if not (math.isfinite(share) and math.isfinite(error) and error > 0):
        return None
    return Lost(share, error, blocks - 1)


def _bins(seconds: Array, work: Array, view: View) -> tuple[Array, Array]:
    """Seconds (M,) of each bin, and (M, K) the producer's share of it and of those before it."""
    count = len(seconds) // view.bin
    # The last steps, and sums up to each bin's beginning.
    ends = np.arange(count + 1) * view.bin + len(seconds) % view.bin
    taken, worked = (np.concatenate(([0.0], np.cumsum(x)))[ends] for x in (seconds, work))
    far = view.lags[-1] if view.lags else 0
    if count <= far:
        return np.empty(0), np.empty((0, 1))
    here = np.arange(far, count)
    columns = [(worked[here + 1] - worked[here]) / (taken[here + 1] - taken[here])]
    near = 0
    for lag in view.lags:
        before, after = here - lag, here - near
        columns.append((worked[after] - worked[before]) / (taken[after] - taken[before]))
        near = lag
    return taken[here + 1] - taken[here], np.stack(columns, axis=1)


def _scores(taken: Array, shares: Array, lost: Array, clip: float) -> tuple[Array, Array]:
    """Covariances of what steps would take alone with the producer's shares: 0 if ``lost`` is true.

    Args:
        taken: (blocks, M) logarithm of seconds.
        shares: (blocks, M, K).
        lost: (K,).
        clip: robust standard deviations beyond which an outlier counts no more.

    Returns:
        (blocks, K) covariances, and (K, K) by how much they fall with each of ``lost``.
    """
    speed = np.maximum(1 - shares @ lost, _LEAST)
    alone = taken + np.log(speed)
    alone -= np.median(alone, axis=1, keepdims=True)
    limit = max(1e-6, 1.4826 * float(np.median(np.abs(alone)))) * clip
    # The producer's share of the work done, not of the time: a slowed step is beside it for longer.
    parts = shares.copy()
    parts[..., 0] *= (1 - lost[0]) / np.maximum(1 - lost[0] * shares[..., 0], _LEAST)
    parts -= parts.mean(axis=1, keepdims=True)
    scores = (np.clip(alone, -limit, limit)[..., None] * parts).sum(axis=1)
    effect = shares / speed[..., None] * (np.abs(alone) <= limit)[..., None]
    effect -= effect.mean(axis=1, keepdims=True)
    return scores, np.einsum("bik,bil->kl", parts, effect)


def _student(freedom: float) -> float:
    """The 97.5 % point of Student's distribution, within 1 % from four degrees of freedom on."""
    return 1.95996 + 2.3722 / freedom + 2.8226 / freedom**2 + 2.5557 / freedom**3
