"""Mean MS-SSIM of pairs: which pairs, how sure, and the metric made of it."""

from itertools import combinations

import numpy as np
import pytest
import torch

from gansynth.core.registry import installed
from gansynth.core.schema import Case, Sample, Schema
from gansynth.metrics.comparison import window_of
from gansynth.metrics.diversity import (
    diversity_metric,
    likenesses,
    ms_ssim,
    owners_of,
    pairwise,
    windowed,
)

SCHEMA = Schema(("one",), {"background": 0}, (1.0, 1.0), "HW", classes=("cold", "warm"))


def pictures(number: int, seed: int = 0) -> torch.Tensor:
    """Unlike images (N, 1, 16, 16), 0 to 1, smooth over some voxels."""
    coarse = np.random.default_rng(seed).random((number, 1, 8, 8)).astype(np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(coarse), (16, 16), mode="bilinear")


def copies(number: int, of: torch.Tensor) -> torch.Tensor:
    """One image with hardly any noise."""
    noise = np.random.default_rng(1).normal(0, 0.003, (number, *of.shape)).astype(np.float32)
    return of + torch.from_numpy(noise)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_it_is_the_mean_over_all_pairs():
    images = pictures(5)
    each = [float(ms_ssim(images[[i]], images[[j]], 1.0)) for i, j in combinations(range(5), 2)]
    found = pairwise(images, 100, rng())
    assert found.pairs == 10
    assert found.mean == pytest.approx(np.mean(each))


def test_many_images_are_compared_in_some_of_their_pairs():
    images = pictures(40)
    every, some = pairwise(images, 780, rng()), pairwise(images, 100, rng())
    assert (every.pairs, some.pairs) == (780, 100)
    assert abs(some.mean - every.mean) < 3 * some.error
    assert some == pairwise(images, 100, rng())


def test_the_error_is_how_far_means_of_other_images_lie():
    """Of 40 sets of 10 images each. Pairs are no independent draws: by them it would be half."""
    found = [pairwise(pictures(10, seed), 45, rng()) for seed in range(40)]
    spread = np.std([f.mean for f in found], ddof=1)
    assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.35)


def test_copies_are_alike_and_others_are_not():
    images = pictures(8)
    assert pairwise(copies(8, images[0]), 28, rng()).mean > 0.99
    assert pairwise(images, 28, rng()).mean < 0.5


def test_images_of_one_owner_are_not_compared():
    """Near-copies of one person's slices say nothing of how unlike people are."""
    a, b, c = pictures(3)
    people = torch.cat([copies(3, a), copies(3, b), copies(3, c)])
    owners = [*"aaabbbccc"]
    apart = pairwise(people, 100, rng(), owners=owners)
    assert apart.pairs == 27
    assert apart.mean == pytest.approx(pairwise(torch.stack([a, b, c]), 3, rng()).mean, abs=0.02)
    assert pairwise(people, 100, rng()).mean > apart.mean + 0.15


def test_the_error_knows_whose_images_are_no_new_evidence():
    people = torch.cat([copies(8, image) for image in pictures(4)])
    owners = [i // 8 for i in range(32)]
    few = pairwise(pictures(4), 500, rng())
    assert pairwise(people, 500, rng(), owners=owners).error == pytest.approx(few.error, rel=0.1)


def test_images_of_two_kinds_are_not_compared():
    """A generator with one image for each class has collapsed."""
    a, b = pictures(2)
    found = pairwise(torch.cat([copies(4, a), copies(4, b)]), 100, rng(), kinds=[*"ccccwwww"])
    assert (found.pairs, found.mean > 0.99) == (12, True)


def test_without_a_pair_there_is_no_number():
    found = pairwise(pictures(2), 5, rng(), owners=["same", "same"])
    assert np.isnan([found.mean, found.error]).all()


def test_one_pair_has_no_error():
    found = pairwise(pictures(2), 5, rng())
    assert (found.pairs, np.isfinite(found.mean), np.isnan(found.error)) == (1, True, True)


@pytest.mark.parametrize(("people", "owner"), [(8, "p0"), (7, "c0")])
def test_few_people_may_be_met_twice(people, owner):
    blank = np.zeros((1, 4, 4), np.float32)
    assert owners_of([Case(f"c{i}", f"p{i % people}", blank) for i in range(16)])[0] == owner


# -- scale -----------------------------------------------------------------------------------------


def test_a_window_is_of_its_channel_and_leaves_a_stray_voxel_out():
    draw = np.random.default_rng(0)
    images = [draw.uniform((0, 5), (1, 9), (20, 20, 2)).transpose(2, 0, 1) for _ in range(8)]
    images[0][0, 0, 0] = 1e6
    window = window_of([image.astype(np.float32) for image in images])
    assert window == pytest.approx(np.array([[0, 1], [5, 9]]), abs=0.05)


def test_what_is_beyond_the_window_is_clipped():
    image = np.array([[[-9, 0, 1, 2, 99]]], np.float32)
    found = windowed([image], np.array([[0, 2]], np.float32))
    assert found[0, 0, 0].tolist() == [0, 0, 0.5, 1, 1]


def test_a_channel_that_never_changes_is_alike():
    flat = [np.full((1, 16, 16), 3, np.float32)] * 3
    assert pairwise(windowed(flat, window_of(flat)), 9, rng()).mean == pytest.approx(1)


# -- the metric ------------------------------------------------------------------------------------


def samples(images: torch.Tensor, kinds: str) -> list[Sample]:
    names = {"c": "cold", "w": "warm"}
    made = [{"class": names[kind]} for kind in kinds]
    return [Sample(i.numpy(), None, None, m) for i, m in zip(images, made, strict=True)]


def real(images: torch.Tensor, kinds: str) -> list[Case]:
    return [
        Case(f"c{n}", f"p{n}", image.numpy(), None, None, "cw".index(kind))
        for n, (image, kind) in enumerate(zip(images, kinds, strict=True))
    ]


def test_the_metric_is_registered_and_tells_a_collapse_within_a_class():
    metric = installed().metric("diversity")
    drawn = torch.cat([pictures(6, seed=1), copies(6, pictures(1)[0])])
    found = metric(samples(drawn, 6 * "c" + 6 * "w"), real(pictures(12), 6 * "cw"), SCHEMA)
    assert metric is diversity_metric
    assert found["ms_ssim samples warm"] > 0.98
    assert found["ms_ssim samples cold"] < 0.5
    assert found["ms_ssim samples cold"] < found["ms_ssim samples"] < 0.98
    assert all(found[f"ms_ssim real{kind}"] < 0.5 for kind in ("", " cold", " warm"))
    assert 0 < found["ms_ssim samples error"] < 0.2


def test_a_class_that_was_not_drawn_is_not_a_number():
    found = likenesses(samples(pictures(4), "cccc"), real(pictures(4), "cwcw"), SCHEMA)
    assert np.isnan(found["ms_ssim samples warm"])
