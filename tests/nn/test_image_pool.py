from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from gansynth.core.generator import Batch, Stage, TrainingStep
from gansynth.nn.image_pool import ImagePool


def step(index: int, count: int, first: int = 0, total: int = 0) -> TrainingStep:
    batch = Batch(torch.zeros(count, 1, 2, 2))
    rng = torch.Generator().manual_seed(index)
    return TrainingStep(
        batch, Stage(), index, 0, rng, key=1000 + index, first=first, total=total or count
    )


def numbered(first: int, count: int, *size: int) -> torch.Tensor:
    """Samples (count, 1, *size), each filled with its own number."""
    return torch.arange(first, first + count).view(-1, 1, *[1] * len(size)).expand(-1, 1, *size)


def run(pool: ImagePool, steps: range, count: int = 3) -> list[tuple[torch.Tensor, ...]]:
    """Query with (image, condition) pairs: a condition is its image's negative."""
    results = []
    for index in steps:
        image = numbered(index * count, count, 2, 2)
        results.append(pool.query(step(index, count), image.float(), -image))
    return results


def ids(tensor: torch.Tensor) -> list[int]:
    return [int(v) for v in tensor.flatten(1)[:, 0]]


def assert_same(one: list[tuple[torch.Tensor, ...]], other: list[tuple[torch.Tensor, ...]]) -> None:
    pairs = [p for found in zip(one, other, strict=True) for p in zip(*found, strict=True)]
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_every_sample_is_shown_or_still_stored_beside_its_condition():
    pool = ImagePool(4)
    drawn = run(pool, range(20))
    assert all(torch.equal(image, -condition.float()) for image, condition in drawn)
    shown = [i for r in drawn for i in ids(r[0])]
    assert shown[:4] == [0, 1, 2, 3]  # while it fills everything passes
    assert shown != sorted(shown)
    # Those that filled it were shown as well as stored; all others are in one place only.
    stored = Counter(ids(pool.state()["stored0"]))
    assert Counter(shown) + stored == Counter([*range(60), *range(4)])
    assert len(pool) == 4


def test_stored_samples_come_out_uniformly():
    pool = ImagePool(4)
    pool.query(step(0, 4), numbered(0, 4, 1))
    rest = torch.full((1, 1, 1), 9)
    outs = []
    for index in range(1, 400):
        again = ImagePool(4)
        again.load(pool.state())
        outs += ids(again.query(step(index, 1), rest)[0])
    counts = [outs.count(i) for i in range(4)]
    assert min(counts) > 30
    assert sum(counts) + outs.count(9) == 399


@pytest.mark.parametrize("stop", [1, 12], ids=["half full", "full"])
def test_it_goes_on_exactly_after_a_checkpoint(stop):
    whole, first, second = ImagePool(5), ImagePool(5), ImagePool(5)
    expected = run(whole, range(20))[stop:]
    run(first, range(stop))
    second.load(load(save(first.state())))
    assert len(second) == min(5, 3 * stop)
    assert_same(run(second, range(stop, 20)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_no_type_loses_anything_in_a_checkpoint(dtype):
    pool, again = ImagePool(2), ImagePool(2)
    value = (torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(0)) * 1e9).to(dtype)
    pool.query(step(0, 2), value)
    again.load(load(save(pool.state())))
    assert again.state()["stored0"].dtype == dtype
    assert torch.equal(again.state()["stored0"], value)
    assert again.state()["count"].dtype == torch.int64


def test_a_larger_pools_checkpoint_fills_a_smaller_one():
    large, small = ImagePool(6), ImagePool(4)
    run(large, range(2))
    small.load(large.state())
    assert (len(large), len(small)) == (6, 4)


def test_decisions_hang_on_the_steps_key_alone():
    torch.manual_seed(0)
    before: Any = np.random.get_state()  # noqa: NPY002
    torch_before = torch.get_rng_state()
    first = run(ImagePool(4), range(10))
    after: Any = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(after[1], before[1])
    assert after[2] == before[2]
    assert torch.equal(torch.get_rng_state(), torch_before)
    torch.manual_seed(1)
    assert_same(run(ImagePool(4), range(10)), first)


def test_another_size_empties_the_pool():
    pool = ImagePool(4)
    run(pool, range(10))
    grown = numbered(0, 3, 4, 4)
    assert torch.equal(pool.query(step(10, 3), grown.float(), -grown)[0], grown.float())
    assert len(pool) == 3
    assert pool.state()["stored0"].shape == (3, 1, 4, 4)


@pytest.mark.parametrize("full", [False, True])
def test_what_is_stored_is_a_copy_without_gradient(full):
    pool = ImagePool(1)
    if full:
        pool.query(step(0, 1), torch.zeros(1, 1, 2))
    image = torch.ones(8, 1, 2, requires_grad=True)
    pool.query(step(1, 8), image)
    with torch.no_grad():
        image += 1
    stored = pool.state()["stored0"]
    assert not stored.requires_grad
    assert stored.tolist() == [[[1, 1]]]


def test_the_memory_layout_is_the_inputs_whatever_is_stored():
    # Contiguous tensors come back from a checkpoint; another layout could change a later bit.
    pool = ImagePool(2)
    pool.query(step(0, 2), torch.zeros(2, 3, 2, 4, 5))
    image = torch.ones(6, 3, 2, 4, 5).contiguous(memory_format=torch.channels_last_3d)
    (shown,) = pool.query(step(1, 6), image)
    assert shown is not image
    assert shown.stride() == image.stride()
