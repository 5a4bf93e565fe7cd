"""DeepMedic's network of two and more paths: the old engine's outputs, trainings, refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.testing import ToySource
from gansynth_segmenter import load_segmenter
from gansynth_segmenter.dual_path import DualPath
from gansynth_segmenter.networks import probabilities
from tests.adapters.segmenter.dual_path_reference import CASES, crop_of, figures, with_weights
from tests.adapters.segmenter.test_training import drawn_in

REFERENCE = Path(__file__).parent / "reference" / "dual_path.json"
SMALL: dict[str, Any] = {"network": "deepmedic", "levels": None, "factors": "2", "batch_size": "3"}


@pytest.mark.parametrize(("segment", "factors"), [CASES[0], *CASES[3:]])
def test_its_outputs_are_those_of_the_engine_that_was_held_to_deepmedic(segment, factors):
    expected = json.loads(REFERENCE.read_text())["outputs"][f"{segment} {factors}"]
    with torch.inference_mode():
        logits = with_weights(factors)[0](crop_of(segment, factors))
    assert logits.shape[2:] == (segment - 16,) * 3
    assert figures(logits) == pytest.approx(expected, abs=1e-4)


def test_the_published_network_has_two_paths_of_eight_layers():
    layers = [module for module in DualPath(2, 5).modules() if isinstance(module, torch.nn.Conv3d)]
    path = [30, 30, 40, 40, 40, 40, 50, 50]
    assert [layer.out_channels for layer in layers] == [*path, *path, 150, 150, 5]
    assert (DualPath(2, 5).margin, DualPath(1, 2, 4, (3, 5)).margin) == (24, 40)


def test_crops_are_mixed_and_whole_cases_predicted(train, tmp_path, monkeypatch):
    monkeypatch.setattr(ToySource, "held_out_ids", ("toy_12",))
    source = ToySource(3, side=34)
    train(source=source, ratio="1:2", **SMALL, steps="2")
    kinds = [row[0] for row in drawn_in(tmp_path / "out")]
    assert (kinds.count("real"), kinds.count("synthetic")) == (2, 4)
    segmenter = load_segmenter(tmp_path / "out", "cpu")
    case = source.load("toy_12")
    whole = segmenter.scores(case.image)
    # In one piece, on a grid of contexts that begins where that of the windows does.
    image = np.pad(case.image, [(0, 0), *[(16, 16)] * 3])[None]
    at_once = probabilities(segmenter.generator, torch.from_numpy(image))[0].numpy()
    np.testing.assert_allclose(whole, at_once, atol=1e-5)


@pytest.mark.slow
def test_it_learns(train):
    settings = {**SMALL, "patch": "40", "steps": "60", "learning_rate": "0.01"}
    result = train(source=ToySource(3, side=36), ratio="1:0", **settings)
    assert result.metrics["dice"]["foreground"] > 0.6
