import numpy as np
import pytest
import torch

from gansynth.core.schema import Case, Sample, Schema
from gansynth.metrics.comparison import load_metrics
from gansynth.metrics.diversity import MeanSimilarity, owners_of, pairwise

SCHEMA = Schema(("one",), {"background": 0}, (1.0, 1.0), "HW", classes=("cold", "warm"))


def pictures(number: int, seed: int = 0) -> torch.Tensor:
    """Unlike images (N, 1, 16, 16), 0 to 1, smooth over some voxels."""
    coarse = np.random.default_rng(seed).random((number, 1, 8, 8)).astype(np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(coarse), (16, 16), mode="bilinear")


def copies(images: torch.Tensor, number: int) -> torch.Tensor:
    """Each image a few times, with hardly any noise."""
    several = images.repeat_interleave(number, 0)
    noise = np.random.default_rng(1).normal(0, 0.003, several.shape).astype(np.float32)
    return several + torch.from_numpy(noise)


def likeness(images: torch.Tensor, pairs: int = 500, **more) -> MeanSimilarity:
    return pairwise(images, pairs, np.random.default_rng(0), **more)


def test_the_error_is_how_far_means_of_other_images_lie():
    """Of 40 sets of 10 images each. Pairs are no independent draws: by them it would be half."""
    found = [likeness(pictures(10, seed), 45) for seed in range(40)]
    spread = np.std([f.mean for f in found], ddof=1)
    assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.35)


def test_images_of_one_owner_are_not_compared_and_no_new_evidence():
    several, few = copies(pictures(4), 8), likeness(pictures(4))
    apart = likeness(several, 2000, owners=[i // 8 for i in range(32)])
    assert apart.pairs == 6 * 64
    assert apart.mean == pytest.approx(few.mean, abs=0.02)
    assert apart.error == pytest.approx(few.error, rel=0.1)
    assert likeness(several, 2000).mean > apart.mean + 0.1
    none, one = likeness(pictures(2), owners=["same", "same"]), likeness(pictures(2))
    assert np.isnan([none.mean, none.error, one.error]).all()
    assert (one.pairs, np.isfinite(one.mean)) == (1, True)


@pytest.mark.parametrize(("people", "owner"), [(8, "p0"), (7, "c0")])
def test_few_people_may_be_met_twice(people, owner):
    blank = np.zeros((1, 4, 4), np.float32)
    assert owners_of([Case(f"c{i}", f"p{i % people}", blank) for i in range(16)])[0] == owner


def measured(drawn: torch.Tensor, kinds: list[str]) -> dict[str, float]:
    pairs = zip(drawn, kinds, strict=True)
    samples = [Sample(i.numpy(), None, None, {"class": kind}) for i, kind in pairs]
    real = [
        Case(f"c{n}", f"p{n}", image.numpy(), None, None, n % 2)
        for n, image in enumerate(pictures(12))
    ]
    return dict(load_metrics(["diversity"])["diversity"].measure(samples, real, SCHEMA))


def test_the_metric_tells_a_collapse_within_a_class_and_has_no_number_of_one_not_drawn():
    drawn = torch.cat([pictures(6, seed=1), copies(pictures(1), 6)])
    found = measured(drawn, 6 * ["cold"] + 6 * ["warm"])
    assert found["ms_ssim samples warm"] > 0.98
    assert found["ms_ssim samples cold"] < 0.5
    assert found["ms_ssim samples cold"] < found["ms_ssim samples"] < 0.98
    assert all(found[f"ms_ssim real{kind}"] < 0.5 for kind in ("", " cold", " warm"))
    assert 0 < found["ms_ssim samples error"] < 0.2
    assert np.isnan(measured(pictures(4), 4 * ["cold"])["ms_ssim samples warm"])
