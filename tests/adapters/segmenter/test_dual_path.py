"""DeepMedic's network of two and more paths: the old engine's outputs, trainings, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.space import Space
from gansynth.runtime.errors import UsageFault
from gansynth.testing import ToySource
from gansynth_segmenter import load_segmenter
from gansynth_segmenter.dual_path import DualPath
from gansynth_segmenter.host import SegmenterHost
from gansynth_segmenter.networks import probabilities
from tests.adapters.segmenter.dual_path_reference import CASES, crop_of, figures, with_weights
from tests.adapters.segmenter.test_training import drawn_in

REFERENCE = Path(__file__).parent / "reference" / "dual_path.json"
SMALL = {"network": "deepmedic", "width": "4", "levels": None, "factors": "2", "batch_size": "3"}


@pytest.mark.parametrize(("segment", "factors"), CASES)
def test_its_outputs_are_those_of_the_engine_that_was_held_to_deepmedic(segment, factors):
    expected = json.loads(REFERENCE.read_text())["outputs"][f"{segment} {factors}"]
    with torch.inference_mode():
        logits = with_weights(factors)[0](crop_of(segment, factors))
    assert logits.shape[2:] == (segment - 16,) * 3
    assert figures(logits) == pytest.approx(expected, abs=1e-4)


def test_the_published_network_has_two_paths_of_eight_layers():
    network = DualPath(2, 5)
    features = [
        module.out_channels for module in network.modules() if isinstance(module, torch.nn.Conv3d)
    ]
    path = [30, 30, 40, 40, 40, 40, 50, 50]
    assert features == [*path, *path, 150, 150, 5]
    assert (network.margin, DualPath(1, 2, 4, (3, 5)).margin) == (24, 40)


def test_crops_are_mixed_and_whole_cases_predicted(train, tmp_path):
    source = ToySource(3, side=40)
    train("out", {**SMALL, "steps": "6"}, source=source, ratio="1:2")
    kinds = [row[0] for row in drawn_in(tmp_path / "out")]
    assert (kinds.count("real"), kinds.count("synthetic")) == (6, 12)
    segmenter = load_segmenter(tmp_path / "out", "cpu")
    case = source.load(source.held_out_ids[0])
    whole = segmenter.scores(case.image)
    # In one piece, on a grid of contexts that begins where that of the windows does.
    image = np.pad(case.image, [(0, 0), *[(16, 16)] * 3])[None]
    at_once = probabilities(segmenter.generator, torch.from_numpy(image))[0].numpy()
    np.testing.assert_allclose(whole, at_once, atol=1e-5)


@pytest.mark.slow
def test_it_learns(train):
    settings = {**SMALL, "patch": "40", "steps": "60", "learning_rate": "0.01"}
    result = train("out", settings, source=ToySource(3, side=36), ratio="1:0")
    assert result.metrics["dice"]["foreground"] > 0.6


class Whole(ToySource):
    @property
    def space(self) -> Space:
        return Space("resample", (64, 64, 64), pad_label=-1)


@pytest.mark.parametrize(
    ("source", "settings", "says"),
    [
        (ToySource(2), {"patch": "64"}, "toy:2 is read as pictures.*train --network unet"),
        (Whole(3), {}, "whole resampled cases; expected crops"),
        (ToySource(3), {}, "--patch 16x16x16: expected at least 49 voxels"),
        (ToySource(3), {"patch": "57", "factors": "3,5"}, "at least 81 .*--factors 3,5"),
        (ToySource(3), {"patch": "57", "levels": "3"}, "levels.*without network=unet"),
        (ToySource(3), {"network": "unet", "factors": "3"}, "factors.*without network=deepmedic"),
    ],
    ids=["pictures", "whole", "small", "factors", "levels", "unet"],
)
def test_what_it_cannot_train_on_is_refused(source, settings, says, tmp_path):
    settings = {"network": "deepmedic", "output": str(tmp_path / "o"), **settings}
    request = AugmentRequest(target="segmenter", ratio="1:0", set=settings)
    with pytest.raises(UsageFault, match=says):
        SegmenterHost(source).check(request)
