from collections.abc import Callable, Sequence
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from gansynth.core.generator import Batch, Stage, TrainingStep
from gansynth.nn.diff_augment import ChangeName, DiscriminatorAugment
from gansynth.runtime.errors import UsageFault

INTENSITY = ("brightness", "contrast", "saturation")
SPATIAL = ("flip", "rotate90", "translation", "translation_edge", "cutout")
SIZES = {2: (8, 8), 3: (6, 8, 8)}


def step(
    index: int = 0, count: int = 16, first: int = 0, total: int = 0, images: int = 0
) -> TrainingStep:
    rng = torch.Generator().manual_seed(index)
    batch = Batch(torch.zeros(count, 1, 2, 2))
    return TrainingStep(batch, Stage(), index, images, rng, first=first, total=total or count)


def pictures(count: int = 16, channels: int = 2, size: Sequence[int] = (8, 8)) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(5)) + 3


def changed(name: str, x: Tensor, p: float = 1.0, index: int = 0) -> Tensor:
    return DiscriminatorAugment([name], p)(step(index, len(x)), x, None)[0]


@pytest.mark.parametrize("ndim", SIZES)
@pytest.mark.parametrize("name", get_args(ChangeName))
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


@pytest.mark.parametrize("size", [(4, 5), (4, 4), (3, 4, 4)])
def test_gradients_agree_with_finite_differences(size):
    augment = DiscriminatorAugment(get_args(ChangeName), 0.7)
    image = pictures(3, 2, size).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(step(3, 3), x, None)[0], image)


@pytest.mark.parametrize("name", get_args(ChangeName))
def test_samples_that_are_not_hit_stay_as_they_are(name):
    image = pictures(64)
    new = changed(name, image, p=0.5)
    assert 22 < sum(torch.equal(a, b) for a, b in zip(new, image, strict=True)) < 64


def test_brightness_adds_one_number_to_a_sample():
    image = pictures(200)
    difference = (changed("brightness", image) - image).flatten(1)
    torch.testing.assert_close(difference, difference[:, :1].expand_as(difference))
    assert -0.5 <= difference.min() < -0.4
    assert 0.4 < difference.max() < 0.5


def test_contrast_scales_about_the_mean():
    image = pictures(200)
    new = changed("contrast", image)
    torch.testing.assert_close(new.mean((1, 2, 3)), image.mean((1, 2, 3)))
    factor = new.flatten(1).std(1) / image.flatten(1).std(1)
    assert 0.499 <= factor.min() < 0.6
    assert 1.4 < factor.max() < 1.501


def test_saturation_scales_about_the_mean_over_channels_if_there_are_several():
    image = pictures(200, 3)
    new = changed("saturation", image)
    torch.testing.assert_close(new.mean(1), image.mean(1))
    factor = (new[:, 0] - new[:, 1]) / (image[:, 0] - image[:, 1])
    assert factor.flatten(1).median(1).values.max() > 1.8
    assert changed("saturation", image[:, :1]).data_ptr() == image.data_ptr()


@pytest.mark.parametrize("ndim", SIZES)
def test_flips_turn_every_axis(ndim):
    image = pictures(64, 1, SIZES[ndim])
    seen = set()
    choices = [[axis + 2 for axis in range(ndim) if bits & (1 << axis)] for bits in range(2**ndim)]
    for old, new in zip(image.unsqueeze(1), changed("flip", image).unsqueeze(1), strict=True):
        seen |= {i for i, axes in enumerate(choices) if torch.equal(old.flip(axes), new)}
    assert seen == set(range(2**ndim))


@pytest.mark.parametrize(("size", "turns"), [((4, 4), {0, 1, 2, 3}), ((3, 4, 5), {0, 2})])
def test_quarter_turns_where_the_plane_is_square(size, turns):
    image = pictures(64, 1, size)
    pairs = zip(image, changed("rotate90", image), strict=True)
    found = [[k for k in turns if torch.equal(a.rot90(k, (-2, -1)), b)] for a, b in pairs]
    assert all(len(k) == 1 for k in found)
    assert {k[0] for k in found} == turns


@pytest.mark.parametrize("size", [(16, 8), (8, 16, 8)])
def test_a_translation_moves_by_whole_voxels_up_to_an_eighth(size):
    image = pictures(200, 1, size)
    candidates = torch.cartesian_prod(*[torch.arange(-(n // 8), n // 8 + 1) for n in size])
    shifts = []
    for old, one in zip(image, changed("translation", image), strict=True):
        shifts += [tuple(s.tolist()) for s in candidates if torch.equal(moved(old, s), one)]
    assert len(shifts) == 200
    assert len(set(shifts)) == len(candidates)


def moved(x: Tensor, shift: Tensor) -> Tensor:
    """(C, ...) moved by ``shift``, zeros behind it."""
    for axis, by in enumerate(shift.tolist(), start=1):
        x = x.roll(by, axis)
        gap = slice(0, by) if by > 0 else slice(x.shape[axis] + by, None)
        x[(slice(None),) * axis + (gap,)] = 0
    return x


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


def test_p_of_zero_changes_nothing_and_draws_nothing():
    image, condition, now = pictures(), pictures(), step()
    new = DiscriminatorAugment(get_args(ChangeName), 0)(now, image, condition)
    assert new[0] is image
    assert new[1] is condition
    assert torch.equal(now.rng.get_state(), step().rng.get_state())


def test_an_adaptive_p_of_zero_draws_what_it_would_draw_later():
    image, now, later = pictures(), step(), step()
    augment = DiscriminatorAugment(["flip"], "adaptive")
    assert augment(now, image, None)[0] is image
    augment.p = 0.5
    assert augment(later, image, None)[0] is not image
    assert torch.equal(now.rng.get_state(), later.rng.get_state())


def test_a_step_draws_the_same_again_and_afresh_within():
    image, now = pictures(), step(4)
    augment = DiscriminatorAugment(get_args(ChangeName), 0.5)
    drawn = [augment(s, image, None)[0] for s in (now, now, step(4), step(5))]
    assert [torch.equal(drawn[0], other) for other in drawn] == [True, False, True, False]


SURE, UNSURE = [torch.ones(16, 1, 3)], [-torch.ones(16, 1, 3)]


def adaptive(p: float = 0.0, **changes: Any) -> DiscriminatorAugment:
    made = DiscriminatorAugment(["brightness"], "adaptive", speed=1600, **changes)
    made.p = p
    return made


def train(
    augment: DiscriminatorAugment,
    steps: range,
    logits: Sequence[Tensor] | None,
    mean: Callable[[Tensor], Tensor] = lambda values: values,
) -> list[float]:
    """P in each step; 16 images a step."""
    ps = []
    for index in steps:
        now = step(index, images=16 * index)
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


@pytest.mark.parametrize(
    ("augment", "logits", "mean", "expected"),
    [
        (adaptive, SURE, None, [0.0] * 4 + [0.04] * 4 + [0.08] * 4 + [0.12]),
        (lambda: adaptive(0.06), UNSURE, None, [0.06] * 4 + [0.02] * 4 + [0.0] * 5),
        (lambda: adaptive(limit=0.05), SURE, None, [0.0] * 4 + [0.04] * 4 + [0.05] * 5),
        (lambda: adaptive(0.5), signs(0.75), None, [0.5] * 4 + [0.46]),
        (lambda: adaptive(0.5), signs(0.875), None, [0.5] * 4 + [0.54]),
        (lambda: adaptive(0.3, midpoint=0.5), [torch.full((16,), 0.4)], None, [0.3] * 4 + [0.26]),
        (lambda: adaptive(0.3, midpoint=0.5), [torch.full((16,), 0.6)], None, [0.3] * 4 + [0.34]),
        (lambda: adaptive(0.3), None, None, [0.3] * 9),
        (lambda: adaptive(0.5), SURE, other, [0.5] * 4 + [0.46]),
        (lambda: DiscriminatorAugment(["brightness"], 0.25), SURE, None, [0.25] * 9),
    ],
    ids=[
        *("rises", "falls to zero", "to its limit", "mean sign 0.5", "mean sign 0.75", "below 0.5"),
        *("above 0.5", "nothing observed", "shared by processes", "fixed"),
    ],
)
def test_p_follows_how_sure_the_discriminator_is_at_its_speed(augment, logits, mean, expected):
    found = train(augment(), range(len(expected)), logits, mean or (lambda values: values))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("stop", [4, 6, 11])
def test_it_goes_on_exactly_after_a_checkpoint(stop):
    doubtful = [torch.tensor([1.0] * 7 + [-1.0] * 3).expand(16, 10)]

    def go_on(augment: DiscriminatorAugment, steps: range) -> list[float]:
        # Two of four steps by themselves are under the target, all four are over it.
        return [train(augment, range(i, i + 1), SURE if i % 4 < 2 else doubtful)[0] for i in steps]

    whole, first, second = adaptive(), adaptive(), adaptive()
    expected = go_on(whole, range(20))
    before = go_on(first, range(stop))
    second.load(load(save(first.state())))
    assert before + go_on(second, range(stop, 20)) == expected
    assert expected[-1] == pytest.approx(4 * 0.04)


def test_a_fixed_p_has_no_state():
    augment = DiscriminatorAugment(["brightness"], 0.25)
    assert augment.state() == {}
    augment.load(adaptive().state())
    assert augment.p == 0.25


@pytest.mark.parametrize(
    ("names", "p", "says"),
    [
        (["flipp"], 0.5, r"'flipp'.*expected some of.*'flip'"),
        *((["flip"], p, "expected a probability") for p in (-0.1, 1.5, float("nan"))),
    ],
)
def test_augment_refuses_unknown_changes_and_probabilities(names, p, says):
    assert set(get_args(ChangeName)) == {*INTENSITY, *SPATIAL}
    with pytest.raises(UsageFault, match=says):
        DiscriminatorAugment(names, p)


def test_a_batch_must_be_the_steps():
    with pytest.raises(ValueError, match="32 samples, expected the step's 16"):
        DiscriminatorAugment(["flip"], 1.0)(step(), pictures(32), None)
