"""nnU-Net's augmentation in the segmenter, read back against nnU-Net's trainer."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from gansynth_segmenter.as_nnunet import NnunetAugmentation, transforms_of
from tests.benchmark.test_plan import BENCHMARKS
from tests.expected import raises_fault

STRENGTHS: dict[str, tuple[float, dict[str, Any]]] = {
    "GaussianNoiseTransform": (0.1, {"noise_variance": (0, 0.1)}),
    "GaussianBlurTransform": (0.2, {"blur_sigma": (0.5, 1.0), "p_per_channel": 0.5}),
    "MultiplicativeBrightnessTransform": (0.15, {"multiplier_range": (0.75, 1.25)}),
    "ContrastTransform": (0.15, {"contrast_range": (0.75, 1.25), "preserve_range": True}),
    "SimulateLowResolutionTransform": (0.25, {"scale": (0.5, 1), "p_per_channel": 0.5}),
    "GammaTransform": (0.1, {"gamma": (0.7, 1.5), "p_invert_image": 1}),
    "GammaTransform, not inverted": (0.3, {"gamma": (0.7, 1.5), "p_invert_image": 0}),
}


def test_the_list_is_that_of_nnunet_in_names_chances_and_ranges():
    moves, *looks, mirror, _ = transforms_of((64, 64))
    told = vars(moves)
    assert (told["p_rotation"], told["p_scaling"], told["scaling"]) == (0.2, 0.2, (0.7, 1.4))
    assert told["rotation"] == (-np.pi, np.pi)
    assert vars(mirror)["allowed_axes"] == (0, 1)
    for transform, (name, (chance, ranges)) in zip(looks, STRENGTHS.items(), strict=True):
        assert isinstance(transform, RandomTransform)
        assert type(transform.transform).__name__ == name.partition(",")[0]
        assert transform.apply_probability == chance
        own = vars(transform.transform)
        for key, value in ranges.items():
            assert getattr(own[key], "contrast_range", own[key]) == value
    # The trainer's own, built as its loaders build it for the same patch.
    asked: Any = (64, 64), (-np.pi, np.pi), None, (0, 1), False
    theirs = str([str(each) for each in nnUNetTrainer.get_training_transforms(*asked).transforms])
    ours = str([str(each) for each in transforms_of((64, 64))])
    assert ours == theirs.replace("benchmark = True", "benchmark = False")


@pytest.mark.parametrize("size", [(24, 24), (16, 16, 16), (4, 24, 24)])
def test_an_item_is_changed_by_its_seed_alone(size: tuple[int, ...]):
    augment = NnunetAugmentation(size, (-2.0,), -1)
    labels = np.zeros(size, np.int16)
    labels[..., 6:12, 6:12] = 1
    image = (3 * labels + np.random.default_rng(0).normal(size=size)).astype(np.float32)[None]
    before = str(np.random.get_state())  # noqa: NPY002 - the global one is watched
    results = [augment(image, labels, np.random.default_rng(seed)) for seed in (1, 1, *range(60))]
    assert str(np.random.get_state()) == before  # noqa: NPY002
    (first, drawn), (again, same) = results[:2]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(drawn, same)
    assert all(np.isfinite(moved).all() for moved, _ in results)
    beyond = [moved[0][found == -1] for moved, found in results if (found == -1).any()]
    assert beyond  # turned or made smaller: what lies beyond the border moves in
    assert -3 < np.median(np.concatenate(beyond)) < -1
    kept = [moved[0][found == 1].mean() - moved[0][found == 0].mean() for moved, found in results]
    assert np.median(kept) > 2  # labels move with the image, and its units stay


def test_settings_of_the_other_augmentation_are_refused_beside_it(train):
    with raises_fault("options.option-without-effect"):
        train(ratio="1:0", augmentation="nnunet", flip="yes")


@pytest.mark.parametrize("plan", sorted((BENCHMARKS / "gains").glob("fair_*/plan.yaml")), ids=str)
def test_plans_with_a_fair_control_have_nnunets_augmentation_and_lesion_sampling(plan: Path):
    settings = yaml.safe_load(plan.read_text())["host"]["set"]
    assert settings["augmentation"] == "nnunet"
    source = inspect.getsource(nnUNetTrainer.__init__)
    assert f"self.oversample_foreground_percent = {settings['foreground']}\n" in source
