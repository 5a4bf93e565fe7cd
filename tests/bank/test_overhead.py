"""The overhead meter, on hosts and producers whose truth is known."""

import heapq
import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gansynth.bank.overhead import AT_ONCE, DELAYED, MOST, OverheadMeter

BUDGET = 0.02
Array = npt.NDArray[np.float64]


class World:
    """A producer's stretches of work, and time as it passes for a host that they slow down."""

    def __init__(
        self,
        rng: np.random.Generator,
        slowdown: float,
        seconds: float,
        cycle: float = 5.0,
        duty: float = 0.25,
    ) -> None:
        count = int(seconds / cycle) + 2
        work = rng.gamma(20, duty * cycle / 20, count)
        rest = rng.gamma(20, (1 - duty) * cycle / 20, count)
        begins = np.cumsum([rng.uniform(0, cycle), *(work + rest)[:-1]])
        self.stretches = np.stack([begins, begins + work], axis=1)
        lost = slowdown / (1 + slowdown)
        self._knots = np.array([0.0, *self.stretches.reshape(-1), begins[-1] + 1e9])
        speed = 1 - lost * (np.arange(len(self._knots) - 1) % 2)
        self._done = np.cumsum([0.0, *(np.diff(self._knots) * speed)])

    def until(self, begin: float, alone: Any) -> Any:
        """When something begun then is done that would take so long alone."""
        return np.interp(np.interp(begin, self._knots, self._done) + alone, self._done, self._knots)

    def work(self, end: float) -> list[tuple[float, float]]:
        return [(a, b) for a, b in self.stretches.tolist() if b <= end]


def needs(rng: np.random.Generator, steps: int, noise: float = 0.1, drift: float = 0.0) -> Array:
    """Seconds steps take alone: correlated noise, a heavy tail, gaps between epochs."""
    z = rng.normal(size=steps)
    for i in range(1, steps):
        z[i] = 0.5 * z[i - 1] + math.sqrt(0.75) * z[i]
    alone = 0.4 * np.exp(noise * z + drift * np.linspace(0, 1, steps))
    alone *= np.where(rng.random(steps) < 0.03, rng.uniform(1.5, 5, steps), 1)
    alone[100::100] *= 40
    return np.asarray(alone, np.float64)


def metered(ends, work: Iterable[tuple[float, float]], window=1000, wait=0.0) -> OverheadMeter:
    meter = OverheadMeter(BUDGET, window)
    for before, end in itertools.pairwise(ends):
        meter.step(before + wait * (end - before), end)
    meter.work(work)
    meter.fit()
    return meter


def observe(seed, slowdown, steps=1000, noise=0.1, drift=0.0, **producer) -> OverheadMeter:
    rng = np.random.default_rng(seed)
    alone = needs(rng, steps, noise, drift)
    world = World(rng, slowdown, alone.sum() * (1 + slowdown) + 20, **producer)
    ends = world.until(0.0, np.cumsum([0.0, *alone]))
    return metered(ends, world.work(ends[-1] + 5))


@pytest.mark.slow
@pytest.mark.parametrize("slowdown", [0.0, 0.05, 0.3, 1.0])
def test_95_of_100_intervals_hold_the_truth(slowdown):
    within = judge(slowdown, range(1000, 1500))
    assert 0.91 <= np.mean(within) <= 0.99


@pytest.mark.parametrize("slowdown", [0.0, 0.05, 0.3, 1.0])
def test_the_slowdown_is_found_without_bias(slowdown):
    assert np.mean(judge(slowdown, range(50))) > 0.85


def judge(slowdown, seeds) -> list[bool]:
    """Whether each interval holds the truth; that estimates are unbiased is asserted here."""
    found = [observe(seed, slowdown).lost for seed in seeds]
    known = [lost for lost in found if lost is not None]
    assert len(known) == len(found)
    estimates = np.array([lost.slowdown for lost in known])
    error = estimates.std() / math.sqrt(len(known))
    assert abs(estimates.mean() - slowdown) < 3.5 * error + 0.02 * slowdown
    student = 2.07  # 23 degrees of freedom
    return [abs(x.slowdown - slowdown) <= student * x.slowdown_error for x in known]


@pytest.mark.parametrize(
    "case",
    [
        {"slowdown": 0.3, "drift": 1.0},
        {"slowdown": 0.3, "noise": 0.4},
        {"slowdown": 3.0, "duty": 0.3, "cycle": 1.0},
        {"slowdown": 0.05, "duty": 0.7},
        {"slowdown": 0.3, "cycle": 0.6},
        {"slowdown": 0.3, "cycle": 40.0},
    ],
    ids=["drift", "noise", "threefold", "busy", "short-cycle", "long-cycle"],
)
def test_the_slowdown_is_found_whatever_host_and_producer_are_like(case):
    found = [observe(seed, **case).lost for seed in range(30)]
    estimates = np.array([lost.slowdown for lost in found if lost is not None])
    assert len(estimates) == len(found)
    error = estimates.std() / math.sqrt(len(estimates))
    assert abs(estimates.mean() - case["slowdown"]) < 3.5 * error + 0.02 * case["slowdown"]


def test_overhead_is_the_time_lost_over_the_time_needed_alone():
    meter = observe(0, 1.0)
    found = meter.overhead()
    assert found is not None
    assert found.duty == pytest.approx(0.25, abs=0.05)
    true = 0.5 * found.duty / (1 - 0.5 * found.duty)
    assert found.low < true < found.high
    assert found.share == pytest.approx(true, rel=0.1)


def test_far_outliers_do_not_cost_precision():
    errors = [lost.slowdown_error for s in range(10) if (lost := observe(s, 0.3).lost) is not None]
    assert np.mean(errors) < 0.016  # 0.012; without clipping 0.02


def test_gaps_between_epochs_count_for_nothing():
    rng = np.random.default_rng(0)
    world = World(rng, 0.3, 2000)
    meter, now = OverheadMeter(BUDGET), 0.0
    for index, alone in enumerate(0.4 * np.exp(0.05 * rng.normal(size=600))):
        now += 60 * (index % 50 == 49)  # validation, before the next batch is asked for
        begin, now = now, float(world.until(now, alone))
        meter.step(begin, now)
    meter.work(world.work(now), now)
    meter.fit()
    assert meter.view is AT_ONCE
    assert meter.lost is not None
    assert meter.lost.slowdown == pytest.approx(0.3, abs=0.05)


# -- hosts that wait for their loader --------------------------------------------------------------


def prefetched(seed, slowdown, workers, steps=2000) -> tuple[OverheadMeter, float]:
    """A host whose worker processes are slowed down, and by how much that slowed it down itself."""
    rng = np.random.default_rng(seed)
    world = World(rng, slowdown, steps * 0.8, cycle=float(rng.uniform(8, 16)))
    noise = np.exp(0.2 * rng.normal(size=(2, 2 * steps + 100)))

    def run(world: World) -> tuple[list[float], list[float]]:
        batches = iter(0.5 * workers * noise[0])
        pending = [float(world.until(0.0, x)) for x in rng.uniform(0, 0.5 * workers, workers)]
        heapq.heapify(pending)
        now, met, ends = 0.0, [], [0.0]
        for own in 0.3 * noise[1, :steps]:
            ready = heapq.heappop(pending)
            now = max(now, ready)
            heapq.heappush(pending, float(world.until(ready, next(batches))))
            met.append(now)
            now += own
            ends.append(now)
        return met, ends

    met, ends = run(world)
    alone = run(World(np.random.default_rng(seed), 0.0, steps * 0.8))[1][-1]
    meter = OverheadMeter(BUDGET)
    for begin, end in zip(met, ends[1:], strict=True):
        meter.step(begin, end)
    meter.work(world.work(ends[-1]), ends[-1])
    meter.fit()
    return meter, ends[-1] / alone - 1


@pytest.mark.parametrize("workers", [1, 4])
def test_what_is_felt_batches_later_counts_too(workers):
    pairs = [prefetched(seed, 0.5, workers) for seed in range(6)]
    assert {meter.view for meter, _ in pairs} == {DELAYED}
    found = [meter.overhead() for meter, _ in pairs]
    ratio = np.mean([o.share for o in found if o]) / np.mean([true for _, true in pairs])
    assert 0.75 < ratio < 1.25


def test_a_host_that_never_waits_is_looked_at_step_by_step():
    assert observe(0, 0.3).view is AT_ONCE


# -- the duty --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slowdown", "within"), [(0.0, 1.0), (0.3, 0.1), (1.0, 0.05)])
def test_the_duty_keeps_to_the_budget(slowdown, within):
    meter = observe(1, slowdown)
    lost, duty = slowdown / (1 + slowdown), meter.duty()
    assert lost * duty / (1 - lost * duty) <= BUDGET
    assert duty <= within


def test_a_producer_that_costs_nothing_may_work_hard_but_never_without_rest():
    meter = observe(2, 0.0, steps=1000, noise=0.02)
    assert meter.duty() == MOST < 1


def test_while_nothing_is_known_the_duty_is_modest():
    meter = OverheadMeter(BUDGET)
    assert meter.fit() is None
    assert meter.overhead() is None
    assert 0 < meter.duty() <= 0.25


def test_the_duty_is_not_below_what_even_a_standstill_would_allow():
    meter = metered(np.cumsum(np.random.default_rng(0).lognormal(0, 2, 2000)), [(5.0, 9.0)] * 30)
    assert meter.duty() >= BUDGET / (1 + BUDGET)


def test_a_change_of_load_is_followed():
    rng = np.random.default_rng(0)
    before, after = World(rng, 0.0, 400), World(rng, 1.0, 2000)
    first = before.until(0.0, np.cumsum([0.0, *needs(rng, 300)]))
    second = first[-1] + after.until(0.0, np.cumsum([0.0, *needs(rng, 600)]))
    work = before.work(first[-1]) + [(a + first[-1], b + first[-1]) for a, b in after.work(1e9)]
    meter = metered([*first, *second[1:]], work, window=300)
    assert meter.lost is not None
    assert meter.lost.slowdown == pytest.approx(1.0, abs=0.15)


def test_steps_of_which_the_producer_has_not_told_yet_wait():
    rng = np.random.default_rng(0)
    alone = needs(rng, 1000)
    world = World(rng, 1.0, 2 * alone.sum())
    ends = world.until(0.0, np.cumsum([0.0, *alone]))
    told = world.work(ends[500])
    half = metered(ends, told)
    assert half.lost is not None
    assert half.lost.slowdown == pytest.approx(1.0, abs=0.15)
    found = half.overhead()
    assert found is not None
    assert found.duty == pytest.approx(0.25, abs=0.04)


def test_a_pause_belongs_to_no_step():
    meter = OverheadMeter(BUDGET)
    meter.step(0.0, 1.0)
    meter.pause()
    meter.step(50.0, 51.0)
    assert meter.pulse == AT_ONCE.pulse * 1.0
