from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, combinations
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from gansynth.core.generator import Batch, Stage, TrainingStep
from gansynth.nn.diff_augment import DiscriminatorAugment
from tests.expected import raises_fault

INTENSITY = ("brightness", "contrast", "saturation")
SIZES = {2: (8, 8), 3: (6, 8, 8)}


def step(index: int = 0, count: int = 16) -> TrainingStep:
    rng = torch.Generator().manual_seed(index)
    batch = Batch(torch.zeros(count, 1, 2, 2))
    return TrainingStep(batch, Stage(), index, 16 * index, rng, total=count)


def pictures(count: int = 16, channels: int = 2, size: Sequence[int] = (8, 8)) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(5)) + 3


def changed(name: str, x: Tensor, p: float = 1.0) -> Tensor:
    return DiscriminatorAugment([name], p)(step(0, len(x)), x, None)[0]


@pytest.mark.parametrize("ndim", SIZES)
@pytest.mark.parametrize("name", get_args(DiscriminatorAugment.Change))
def test_an_image_moves_with_its_condition_whose_values_stay(name, ndim):
    image = pictures(size=SIZES[ndim])
    condition = image[:, 1:].double()
    new_image, new_condition = DiscriminatorAugment([name], 1.0)(step(), image, condition)
    assert not torch.equal(new_image, image)
    assert (new_image.shape, new_image.dtype) == (image.shape, image.dtype)
    if name in INTENSITY:
        assert new_condition is condition
    else:
        assert torch.equal(new_image[:, 1:].double(), new_condition)


@pytest.mark.parametrize("size", [(4, 4), (3, 4, 5)], ids=str)
def test_gradients_agree_with_finite_differences(size):
    augment = DiscriminatorAugment(get_args(DiscriminatorAugment.Change), 0.7)
    image = pictures(3, 2, size).double().requires_grad_()
    change = lambda x: augment(step(3, 3), x, None)[0]  # noqa: E731
    assert torch.autograd.gradcheck(change, image, fast_mode=True)


@pytest.mark.parametrize("name", get_args(DiscriminatorAugment.Change))
def test_samples_that_are_not_hit_stay_as_they_are(name):
    image = pictures(64)
    new = changed(name, image, p=0.5)
    assert 22 < sum(torch.equal(a, b) for a, b in zip(new, image, strict=True)) < 64


def test_brightness_adds_a_number_and_contrast_and_saturation_scale_about_means():
    image = pictures(200, 3)
    bright, contrast, grey = (changed(name, image) for name in INTENSITY)
    added = (bright - image).flatten(1)
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    torch.testing.assert_close(contrast.mean((1, 2, 3)), image.mean((1, 2, 3)))
    torch.testing.assert_close(grey.mean(1), image.mean(1))
    scaled = contrast.flatten(1).std(1) / image.flatten(1).std(1)
    paler = (grey[:, 0] - grey[:, 1]) / (image[:, 0] - image[:, 1])
    shares = paler.flatten(1).median(1).values
    for found, low, high in ((added, -0.5, 0.5), (scaled, 0.5, 1.5), (shares, 0, 2)):
        assert low - 1e-3 <= found.min() < low + 0.1
        assert high - 0.1 < found.max() < high + 1e-3
    assert torch.equal(changed("saturation", image[:, :1]), image[:, :1])  # of one channel


def flips(ndim: int) -> list[Any]:
    axes = range(1, ndim + 1)
    every = chain.from_iterable(combinations(axes, count) for count in range(ndim + 1))
    return [partial(torch.flip, dims=dims) for dims in every]


def turns(*quarters: int) -> list[Any]:
    return [partial(torch.rot90, k=k, dims=(-2, -1)) for k in quarters]


def moved(x: Tensor, shift: Sequence[int]) -> Tensor:
    """(C, ...) moved by ``shift``, zeros behind it."""
    for axis, by in enumerate(shift, start=1):
        x = x.roll(by, axis)
        gap = slice(0, by) if by > 0 else slice(x.shape[axis] + by, None)
        x[(slice(None),) * axis + (gap,)] = 0
    return x


def shifts(*size: int) -> list[Any]:
    """By whole voxels, up to an eighth."""
    each = torch.cartesian_prod(*[torch.arange(-(n // 8), n // 8 + 1) for n in size])
    return [partial(moved, shift=shift) for shift in each.tolist()]


@pytest.mark.parametrize(
    ("name", "size", "ways"),
    [
        *(("flip", (8, 8), flips(2)), ("flip", (6, 8, 8), flips(3))),
        # Quarter turns where the plane is square.
        *(("rotate90", (4, 4), turns(0, 1, 2, 3)), ("rotate90", (3, 4, 5), turns(0, 2))),
        *(("translation", size, shifts(*size)) for size in ((16, 8), (8, 16, 8))),
    ],
)
def test_samples_are_moved_in_all_ways_and_no_other(name, size, ways):
    image, met = pictures(200, 1, size), set()
    for old, new in zip(image, changed(name, image), strict=True):
        (way,) = (i for i, way in enumerate(ways) if torch.equal(way(old), new))
        met.add(way)
    assert len(met) == len(ways)


def test_a_translation_may_leave_the_edges_behind():
    image = torch.arange(1.0, 17).view(1, 1, 1, 16).expand(64, 1, 16, 16)
    rows = {tuple(row) for row in changed("translation_edge", image)[:, 0, 0].tolist()}
    assert rows == {tuple(min(max(v + by, 1.0), 16.0) for v in range(1, 17)) for by in range(-2, 3)}


@pytest.mark.parametrize("size", [(8, 10), (4, 8, 10)])
def test_a_cut_out_is_one_box_of_half_of_each_axis(size):
    gone = changed("cutout", torch.ones(300, 1, *size))[:, 0] == 0
    volume = torch.ones(300, dtype=torch.int64)
    for axis, edge in enumerate(size, start=1):
        line = gone.any(tuple(a for a in range(1, len(size) + 1) if a != axis))
        lengths = line.sum(1)
        assert lengths.max() == edge // 2
        assert lengths.min() == edge // 2 - edge // 4  # its centre on the border
        assert (line[:, 1:] & ~line[:, :-1]).sum(1).max() == 1
        assert line.any(0).all()
        volume *= lengths
    assert torch.equal(gone.flatten(1).sum(1), volume)


@pytest.mark.parametrize("p", [0, "adaptive"])
def test_p_of_zero_changes_nothing_and_draws_only_if_it_may_rise(p):
    image, now, later, augment = pictures(), step(), step(), DiscriminatorAugment(["flip"], p)
    assert augment(now, image, image) == (image, image)
    augment.p = 0.5
    assert augment(later, image, None)[0] is not image
    # What others draw must not change when p begins to rise.
    drawn = later if p == "adaptive" else step()
    assert torch.equal(now.rng.get_state(), drawn.rng.get_state())


def test_a_step_draws_the_same_again_and_afresh_within():
    image, now = pictures(), step(4)
    augment = DiscriminatorAugment(get_args(DiscriminatorAugment.Change), 0.5)
    drawn = [augment(s, image, None)[0] for s in (now, now, step(4), step(5))]
    assert [torch.equal(drawn[0], other) for other in drawn] == [True, False, True, False]


SURE, UNSURE = [torch.ones(16, 1, 3)], [-torch.ones(16, 1, 3)]


def adaptive(p: float = 0.0, **changes: Any) -> DiscriminatorAugment:
    made = DiscriminatorAugment(["brightness"], "adaptive", speed=1600, **changes)
    made.p = p
    return made


def same(values: Tensor) -> Tensor:
    return values


def train(
    augment: DiscriminatorAugment,
    steps: range,
    logits: Sequence[Tensor] | None,
    mean: Callable[[Tensor], Tensor] = same,
) -> list[float]:
    """P in each step; 16 images a step."""
    ps = []
    for index in steps:
        now = step(index)
        now.mean = mean
        augment(now, pictures(), None)
        if logits is not None:
            augment.observe(logits)
        ps.append(augment.p)
    return ps


def signs(share: float) -> list[Tensor]:
    """Logits of which this share is positive; the others are far below."""
    logits = torch.ones(16, 8)
    logits[:, int(8 * share) :] = -100
    return [logits]


def other(mine: Tensor) -> Tensor:
    """Shared with a process that saw 48 unsure samples, where this one saw 64 sure ones."""
    return (mine + mine.new_tensor([-48, 48])) / 2


FOLLOWS: dict[str, tuple[Any, Any, Any, list[float]]] = {
    "rises": (adaptive(), SURE, same, [0.0] * 4 + [0.04] * 4 + [0.08] * 4 + [0.12]),
    "falls to zero": (adaptive(0.06), UNSURE, same, [0.06] * 4 + [0.02] * 4 + [0.0] * 5),
    "to its limit": (adaptive(limit=0.05), SURE, same, [0.0] * 4 + [0.04] * 4 + [0.05] * 5),
    "mean sign 0.5": (adaptive(0.5), signs(0.75), same, [0.5] * 4 + [0.46]),
    "mean sign 0.75": (adaptive(0.5), signs(0.875), same, [0.5] * 4 + [0.54]),
    "below 0.5": (adaptive(0.3, midpoint=0.5), [UNSURE[0] + 1.4], same, [0.3] * 4 + [0.26]),
    "above 0.5": (adaptive(0.3, midpoint=0.5), [SURE[0] - 0.4], same, [0.3] * 4 + [0.34]),
    "nothing observed": (adaptive(0.3), None, same, [0.3] * 9),
    "shared by processes": (adaptive(0.5), SURE, other, [0.5] * 4 + [0.46]),
    "fixed": (DiscriminatorAugment(["brightness"], 0.25), SURE, same, [0.25] * 9),
}


@pytest.mark.parametrize("case", FOLLOWS)
def test_p_follows_how_sure_the_discriminator_is_at_its_speed(case):
    augment, logits, mean, expected = FOLLOWS[case]
    assert train(augment, range(len(expected)), logits, mean) == pytest.approx(expected)


def test_an_adaptive_p_goes_on_from_a_checkpoint():
    whole, first, second = adaptive(), adaptive(), adaptive()
    expected = train(whole, range(13), SURE)
    train(first, range(6), SURE)
    second.load(first.state())
    assert train(second, range(6, 13), SURE) == expected[6:]


def test_augment_refuses_unknown_changes_and_probabilities():
    with raises_fault("diff-augment.change-unknown", names="'flipp'"):
        DiscriminatorAugment(["flipp"], 0.5)
    for p in (-0.1, 1.5, float("nan")):
        with raises_fault("diff-augment.probability-out-of-range", names=f"p={p}"):
            DiscriminatorAugment(["flip"], p)


def test_a_batch_must_be_the_steps():
    with pytest.raises(ValueError, match="32 samples, expected the step's 16"):
        DiscriminatorAugment(["flip"], 1.0)(step(), pictures(32), None)
