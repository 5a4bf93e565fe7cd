import math

import numpy as np
import pytest

from gansynth.core.ratio import Ratio, SlotAllocator
from gansynth.runtime.errors import UsageFault

BATCHES = 500


def plan(p: float, batch_size: int, seed: int = 0, batches: int = BATCHES) -> np.ndarray:
    allocator = SlotAllocator(np.random.default_rng(seed))
    drawn = [allocator.allocate(p, batch_size) for _ in range(batches)]
    return np.array([[slot in batch for slot in range(batch_size)] for batch in drawn])


READ = {"1:1": 0.5, "2:1": 1 / 3, "2813:4000": 4000 / 6813, "0:1": 1, "1:0": 0, "0.5:1.5": 0.75}


@pytest.mark.parametrize("text", READ)
def test_a_ratio_is_read_as_written(text):
    ratio = Ratio.parse(text)
    assert ratio.p == pytest.approx(READ[text], abs=1e-15)
    assert str(ratio) == text


@pytest.mark.parametrize(
    "text", ["", "1", "1:", "1:1:1", "a:b", "0:0", "-1:2", "2:-1", "nan:1", "1:inf"]
)
def test_a_malformed_ratio_is_refused_with_its_text(text):
    with pytest.raises(UsageFault) as caught:
        Ratio.parse(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("text", ["1:1", "9:1", "1:5", "2813:4000"])
def test_the_count_is_never_off_by_a_sample(text, batch_size):
    p = Ratio.parse(text).p
    counts = np.cumsum(plan(p, batch_size).sum(axis=1))
    asked = p * batch_size * np.arange(1, BATCHES + 1)
    assert np.abs(counts - asked).max() <= 1 + 1e-9


def test_the_count_is_never_off_by_a_sample_while_the_ratio_changes():
    allocator = SlotAllocator(np.random.default_rng(0))
    shares = [1.0] * 50 + np.linspace(1, 0, 300).tolist() + [0.0] * 20
    counts = np.cumsum([len(allocator.allocate(p, 3)) for p in shares])
    assert np.abs(counts - np.cumsum(np.multiply(shares, 3))).max() <= 1 + 1e-9
    assert counts[49] == 150
    assert counts[-1] == counts[-20]


@pytest.mark.parametrize(("p", "batch_size", "batches"), [(1 / 6, 1, 4), (0.6, 1, 2), (0.3, 5, 3)])
def test_workers_that_soon_end_are_not_off_together(p, batch_size, batches):
    counts = [plan(p, batch_size, seed, batches).sum() for seed in range(1000)]
    assert np.mean(counts) == pytest.approx(p * batch_size * batches, abs=4 * 0.5 / 1000**0.5)


def test_every_place_in_a_batch_is_equally_often_synthetic():
    frequencies = plan(0.3, 5, batches=2000).mean(axis=0)
    assert np.abs(frequencies - 0.3).max() < 4 * math.sqrt(0.3 * 0.7 / 2000)


def test_the_same_generator_plans_the_same_and_another_does_not():
    assert (plan(0.5, 4, seed=1) == plan(0.5, 4, seed=1)).all()
    assert (plan(0.5, 4, seed=1) != plan(0.5, 4, seed=2)).any()


@pytest.mark.parametrize(("p", "batch_size"), [(-0.1, 2), (1.1, 2), (float("nan"), 2), (0.5, 0)])
def test_a_share_or_batch_size_out_of_range_is_refused(p, batch_size):
    with pytest.raises(UsageFault):
        SlotAllocator(np.random.default_rng(0)).allocate(p, batch_size)
