from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch
from gansynth.core.schema import Schema
from gansynth.core.space import Space
from gansynth.metrics.segmentation.evaluation import OWN
from gansynth.metrics.segmentation.held_out_scores import evaluate_held_out
from gansynth.metrics.segmentation.measures import read_regions, with_labels
from gansynth.runtime.options import read_settings
from gansynth.testing import ToySource
from gansynth_segmenter import inference
from gansynth_segmenter.augmentation import AugmentationWarp, rotation
from gansynth_segmenter.inference import Segmenter, evaluate_pairs
from gansynth_segmenter.networks import SegmentingNetwork, SegmentingOptions
from gansynth_segmenter.options import SegmenterOptions
from tests.expected import raises_fault

SCHEMA = Schema(("T1",), {"background": 0, "oedema": 1, "core": 2}, (1.0, 1.0, 1.0))
REGIONS = with_labels(read_regions("WT:1+2", SCHEMA.foreground), SCHEMA.foreground)


def labels_of(shape: tuple[int, ...] = (6, 6, 6)) -> np.ndarray:
    labels = np.zeros(shape, np.int16)
    labels[1:4, 2:5, 1:5], labels[2, 3, 2:4] = 1, 2
    return labels


@pytest.fixture
def thresholding(monkeypatch):
    """A segmenter that sees through its image: voxel by voxel, its value is its label."""

    def see(generator: Any, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
        seen.append(tuple(images.shape))
        chosen = images[:, 0].round().clamp(0, 2).long()
        return torch.nn.functional.one_hot(chosen, 3).movedim(-1, 1).float()

    seen: list[tuple[int, ...]] = []
    monkeypatch.setattr(inference, "probabilities", see)

    def make(space: Space) -> tuple[Segmenter, list[tuple[int, ...]]]:
        net = SegmentingNetwork(SCHEMA, (8, 8, 8), SegmentingOptions(width=4, levels=1))
        return Segmenter(net, SCHEMA, space, REGIONS, SegmenterOptions()), seen

    return make


@pytest.mark.parametrize("shape", [(20, 13, 8), (5, 8, 30), (8, 8, 8)])
def test_windows_give_every_voxel_its_own_label(thresholding, shape):
    segmenter, seen = thresholding(Space("crop", (8, 8, 8), pad_label=0))
    truth = np.random.default_rng(0).integers(0, 3, shape).astype(np.int16)
    scores = segmenter.scores(truth[None].astype(np.float32))
    np.testing.assert_allclose(scores.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(segmenter.likeliest(scores), truth)
    np.testing.assert_array_equal(segmenter.levels(scores) > OWN, truth > 0)
    assert {batch[2:] for batch in seen} == {(8, 8, 8)}


@pytest.mark.parametrize(
    ("frame", "shape"), [((8, 12, 8), (10, 12, 14)), ((8, 12, 8), (6, 14, 8)), ((), (8, 12, 8))]
)
def test_a_whole_case_comes_back_to_its_own_grid(thresholding, frame, shape):
    space = Space("resample", (4, 6, 4), pad_label=0, frame=frame, nearest=True)
    segmenter, seen = thresholding(space)
    coarse = np.random.default_rng(1).integers(0, 3, (4, 6, 4)).astype(np.int16)
    truth = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)  # in the middle of the case, or beyond it
    for axis, (length, whole) in enumerate(zip(truth.shape, shape, strict=True)):
        before = (length - whole) // 2
        places = np.arange(whole) + before
        outside = (places < 0) | (places >= length)
        truth = truth.take(places.clip(0, length - 1), axis)
        truth[(slice(None),) * axis + (outside,)] = 0
    np.testing.assert_array_equal(segmenter.predict(truth[None].astype(np.float32)), truth)
    assert seen[-1] == (1, 1, 4, 6, 4)


def test_images_of_other_channels_are_refused(thresholding):
    segmenter, _ = thresholding(Space("crop", (8, 8, 8), pad_label=0))
    with raises_fault("schema.image-channels-differ"):
        segmenter.predict(np.zeros((2, 8, 8, 8), np.float32))
    with raises_fault("segmenter.pair-shapes-differ"):
        evaluate_pairs(segmenter, [(np.zeros((1, 8, 8, 8), np.float32), labels_of())])


@pytest.mark.parametrize(("ignore", "right"), [(2, True), (None, False)])
def test_voxels_without_a_known_truth_do_not_count(ignore, right, monkeypatch):
    source = ToySource(3)
    truth: Any = iter([source.load(case).labels for case in source.held_out_ids])
    monkeypatch.setattr(ToySource, "schema", replace(source.schema, ignore=ignore))
    look = lambda image: [np.clip(next(truth), 0, 1)]  # noqa: E731  # 1 for 2
    found = evaluate_held_out(source, REGIONS, look, None)
    assert (found["dice"]["1"] == 1) is right
    assert found["predictions"] == {}


def warp_of(**settings: str) -> AugmentationWarp | None:
    usual = {"rotate": "0", "shift": "0", "elastic": "0"}
    options = read_settings(SegmenterOptions, {**usual, **settings}, "segmenter")
    return AugmentationWarp.of(options, (1.0, 1.0, 1.0), (0.0,), -1)


def moved(seed: int = 0, **settings: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels before; and after a warp, with the image, which was as the labels were."""
    warp, labels = warp_of(**settings), labels_of((9, 10, 11))
    assert warp is not None
    image, drawn = warp(labels[None].astype(np.float32), labels, np.random.default_rng(seed))
    return labels, drawn, image[0]


def test_nothing_asked_for_is_nothing_done():
    assert warp_of() is None
    labels, drawn, image = moved(rotate="1e-9")
    np.testing.assert_array_equal(drawn, labels)
    np.testing.assert_allclose(image, labels, atol=1e-4)


def test_an_image_is_moved_as_its_label_map_is_by_its_seed():
    everything: dict[str, Any] = {"rotate": "20", "shift": "0.1", "elastic": "1"}
    labels, drawn, image = moved(**everything)
    assert (drawn != labels).mean() > 0.02
    inside = drawn >= 0
    assert np.corrcoef(image[inside], drawn[inside])[0, 1] > 0.8
    np.testing.assert_array_equal(moved(**everything)[2], image)
    assert not np.array_equal(moved(1, **everything)[1], drawn)


def test_beyond_the_border_is_what_the_space_pads_with():
    _, drawn, image = moved(1, shift="0.49")
    assert {-1} < set(np.unique(drawn)) <= {-1, 0, 1, 2}
    assert np.abs(image[drawn == -1]).max() == 0


def test_half_of_the_samples_are_mirrored_left_to_right():
    results = [moved(seed, flip="yes")[:2] for seed in range(20)]
    mirrored = [np.array_equal(drawn, labels[..., ::-1]) for labels, drawn in results]
    kept = [np.array_equal(drawn, labels) for labels, drawn in results]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 4 <= sum(mirrored) <= 16


def test_turns_are_of_the_body_and_not_of_its_grid():
    turn = rotation(np.array([30.0, -10.0, 5.0]), 3)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    warp = warp_of(rotate="90")
    assert warp is not None
    flat, mm = replace(warp, spacing=(1.0, 1.0, 4.0)), torch.tensor([1.0, 1.0, 4.0])
    after = (flat._grid((9, 9, 9), np.random.default_rng(0)) - 4).movedim(0, -1) * mm
    before = torch.stack(torch.meshgrid(*(torch.arange(9.0) - 4,) * 3, indexing="ij"), -1) * mm
    np.testing.assert_allclose(after.norm(dim=-1), before.norm(dim=-1), rtol=1e-4, atol=1e-4)


def test_what_nobody_labelled_teaches_nothing():
    schema = replace(SCHEMA, labels={**SCHEMA.labels, "ignore": 7}, ignore=7)
    network: Any = SegmentingNetwork(schema, (8, 8, 8), SegmentingOptions(width=4, levels=1))
    logits = torch.zeros(1, len(schema.label_values), 8, 8, 8, requires_grad=True)
    network.nets = {"generator": lambda image, latents: logits}
    labels = torch.ones(1, 8, 8, 8, dtype=torch.int64)
    labels[:, :4] = 7
    step: Any = SimpleNamespace(batch=Batch(torch.zeros(1, 1, 8, 8, 8), labels))
    terms = network.loss(step)
    (terms["cross_entropy"] + terms["dice"]).backward()
    assert logits.grad is not None
    taught = logits.grad.abs().sum(1)[0]
    assert taught[:4].max() == 0
    assert taught[4:].min() > 0
