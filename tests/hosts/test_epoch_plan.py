from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.hosts.mixing.epoch_plan import EpochPlan, EpochTable
from gansynth.hosts.mixing.mixer import BatchCounter, MixerConfig


def plan_of(
    ratio: str, schedule: str = "constant", rounds: int | None = None, **more: Any
) -> MixerConfig[int]:
    counter = None if rounds is None else BatchCounter(Path("never-written"), rounds)
    told = {"seed": 5, **more}
    return MixerConfig(None, Ratio.parse(ratio), Schedule.parse(schedule), counter, **told)


def tables(places: EpochPlan, rounds: int) -> list[EpochTable]:
    return [places.table(n) for n in range(rounds)]


def synthetic(found: list[EpochTable]) -> list[int]:
    return [int(table.synthetic.sum()) for table in found]


def used_evenly(found: list[EpochTable], kind: bool, pool: int) -> None:
    """At any time no case of a pool was used twice more than another."""
    used: Counter[int] = Counter()
    for table in found:
        used.update(table.real[table.synthetic == kind].tolist())
        numbers = [used[n] for n in range(pool)]
        assert max(numbers) - min(numbers) <= 1


RATIOS = st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(any)


@settings(max_examples=60, deadline=None)
@given(ratio=RATIOS, real=st.integers(1, 9), count=st.integers(1, 14), rounds=st.integers(1, 9))
def test_a_number_of_places_of_ones_own_is_as_exact_as_it_can_be(ratio, real, count, rounds):
    places = EpochPlan(plan_of(f"{ratio[0]}:{ratio[1]}"), real, count)
    share = Fraction(ratio[1], sum(ratio))
    found = tables(places, rounds)
    counts = synthetic(found)
    assert len(places) == count
    assert all(len(table.real) == len(table.synthetic) == count for table in found)
    if (share * count).denominator == 1:
        assert set(counts) == {share * count}
    for done, so_far in enumerate(np.cumsum(counts).tolist(), 1):
        assert abs(so_far - done * count * share) < 1
    for first in range(rounds):  # nor is any stretch of the training off by a case
        assert abs(sum(counts[first:]) - (rounds - first) * count * share) <= 1
    for kind in (False, True):
        used_evenly(found, kind, real)


def test_the_places_of_synthetic_ones_are_not_always_the_same():
    one, again, other = (
        tables(EpochPlan(plan_of("1:1", seed=seed), 10, 6), 12) for seed in (5, 5, 6)
    )
    assert len({tuple(table.synthetic.nonzero()[0].tolist()) for table in one}) > 4
    for first, same in zip(one, again, strict=True):
        assert np.array_equal(first.synthetic, same.synthetic)
        assert np.array_equal(first.real, same.real)
    assert any(not np.array_equal(a.real, b.real) for a, b in zip(one, other, strict=True))


def test_annealing_uses_real_cases_evenly_and_ends_with_them_only():
    found = tables(EpochPlan(plan_of("1:2", "anneal", rounds=9), 4, 6), 12)
    counts = synthetic(found)
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == round(9 * 6 / 3)
    assert counts[9:] == [0, 0, 0]
    used_evenly(found, kind=False, pool=4)


@pytest.mark.parametrize("count", [1, 5])
def test_the_chosen_are_drawn_in_fine_tuning_only(count):
    plan = plan_of("0:1", "finetune:40%@50%", rounds=8, chosen=(1, 4))
    found = tables(EpochPlan(plan, 5, count), 8)
    assert synthetic(found) == [count] * 4 + [0] * 4
    assert [table.mix.real for table in found] == ["none"] * 4 + ["chosen"] * 4
    used = Counter(int(n) for table in found[4:] for n in table.real)
    assert set(used) == {1, 4}
    assert abs(used[1] - used[4]) <= 1
