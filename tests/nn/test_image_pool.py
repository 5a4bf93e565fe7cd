from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from gansynth.core.generator import Batch, Stage, TrainingStep
from gansynth.nn.image_pool import ImagePool


def step(index: int, count: int) -> TrainingStep:
    rng = torch.Generator().manual_seed(index)
    batch = Batch(torch.zeros(count, 1, 2, 2))
    return TrainingStep(batch, Stage(), index, 0, rng, key=1000 + index, total=count)


def numbered(first: int, count: int) -> Tensor:
    """Samples (count, 1, 2, 2), each filled with its own number."""
    return torch.arange(first, first + count).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).float()


def run(pool: ImagePool, steps: range, count: int = 3) -> list[Sequence[Tensor]]:
    """Query with (image, condition) pairs: a condition is its image's negative, of integers."""
    images = [numbered(index * count, count) for index in steps]
    return [pool.query(step(i, count), x, -x.long()) for i, x in zip(steps, images, strict=True)]


def ids(tensor: Tensor) -> list[int]:
    return [int(v) for v in tensor.flatten(1)[:, 0]]


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


def test_stored_samples_come_out_uniformly_in_half_of_the_queries():
    pool, outs = ImagePool(4), list[int]()
    pool.query(step(0, 4), numbered(0, 4))
    for index in range(1, 400):
        again = ImagePool(4)
        again.load(pool.state())
        outs += ids(again.query(step(index, 1), numbered(9, 1))[0])
    assert min(outs.count(i) for i in range(4)) > 30
    assert 160 < outs.count(9) < 240


@pytest.mark.parametrize("stop", [1, 12], ids=["half full", "full"])
def test_it_goes_on_exactly_after_a_checkpoint_whatever_else_is_random(stop):
    whole, first, second = ImagePool(5), ImagePool(5), ImagePool(5)
    expected = run(whole, range(20))[stop:]
    run(first, range(stop))
    second.load(load(save(first.state())))
    assert len(second) == min(5, 3 * stop)
    torch.manual_seed(stop)
    for one, other in zip(run(second, range(stop, 20)), expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


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
