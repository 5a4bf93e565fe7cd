import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch

from gansynth.metrics.segmentation.regions import dice, with_labels
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_deepmedic.engine.configs import ModelConfig, read_model_config, read_train_config
from gansynth_deepmedic.engine.cutting import SegmentCutter, read_volume
from gansynth_deepmedic.engine.geometry import SegmentGeometry, padded
from gansynth_deepmedic.engine.infer import Confusion, Predictor, held_cases, read_held, validate
from gansynth_deepmedic.engine.network import DualPath
from gansynth_deepmedic.engine.segmenter import load_network
from gansynth_deepmedic.insertion import LoadedCase
from tests.deepmedic_sets import MODEL_VALUES, Toy, toy_deepmedic, write_config

CLASSES = with_labels((), range(1, 3))


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    """One training and two validation cases, which need not be large."""
    thick = np.diag([-1.0, -1.0, 3.0, 1.0])
    return toy_deepmedic(
        tmp_path_factory.mktemp("toy"), train=1, val=2, shape=(24, 22, 20), affine=thick
    )


def network(model: ModelConfig) -> DualPath:
    """One whose labels are not all the same."""
    torch.manual_seed(0)
    net, geometry = DualPath(model).eval(), SegmentGeometry.from_model(model)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(-0.5, 0.5)
        low = [torch.randn(4, 2, *size) for size in geometry.low]
        logits = net(torch.randn(4, 2, *geometry.segment), low)
        net.bias.bias.sub_(logits.mean(dim=(0, 2, 3, 4)))
    return net


@pytest.fixture(scope="module")
def ours(toy) -> Predictor:
    config, model = read_train_config(toy.train), read_model_config(toy.model)
    cutting, device = SegmentCutter.from_configs(config, model), torch.device("cpu")
    return Predictor(
        network(model), SegmentGeometry.from_model(model, "inference"), cutting, device
    )


def case_of(shape: Sequence[int], *, roi: bool = True) -> LoadedCase:
    image = np.random.default_rng(0).normal(0, 1, (2, *shape)).astype(np.float32)
    region = np.zeros(shape, np.int16)
    region[2:-3, 3:-2, 1:-4] = 1
    return LoadedCase(image, np.zeros(shape, np.int16), region if roi else None, None, "case")


def probabilities(predictor: Predictor, case: LoadedCase) -> npt.NDArray[np.float32]:
    """Every label's probability (classes, X, Y, Z), put together from the tiles."""
    ready, whole = predictor.ready(case)
    found = np.zeros((3, *ready.image.shape[1:]), np.float32)
    for start, logits in predictor.segments(ready):
        found[(slice(None), *predictor.geometry.predicted(start))] = logits.softmax(dim=0).numpy()
    return found[(slice(None), *whole)]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shape", [(20, 23, 31), (9, 8, 25)], ids=["large", "less than a segment"])
def test_tiles_are_one_large_convolution(ours, tmp_path, shape, batch):
    """The last tile along an axis overlaps its neighbour, and nothing shows of that."""
    values = {**MODEL_VALUES, "useSubsampledPathway": False}
    model = read_model_config(write_config(tmp_path / "model.cfg", values))
    sizes, net = SegmentGeometry.from_model(model, "inference"), network(model)
    plain = replace(ours, network=net, geometry=sizes, batch=batch)
    case = case_of(shape, roi=False)
    image = np.asarray(padded(case.image, sizes.margin), np.float32)
    with torch.no_grad():
        whole = net(torch.from_numpy(image)[None])[0].softmax(dim=0).numpy()
    assert whole.shape[1:] == shape
    np.testing.assert_allclose(probabilities(plain, case), whole, atol=1e-5)
    labels = plain.labels(case)
    assert (labels == whole.argmax(axis=0)).all()
    assert len(np.unique(labels)) > 1


def test_tiles_with_subsampled_paths_are_one_large_convolution(ours):
    """Where tiles begin on the grid of the subsampled path, it sees the same in both ways."""
    tiled = replace(
        ours, geometry=SegmentGeometry.cubes(15, 7, (3,))
    )  # predicts 9, three coarse voxels
    case = case_of((27, 18, 36), roi=False)
    whole = replace(tiled, geometry=replace(tiled.geometry, segment=(33, 24, 42)))
    np.testing.assert_allclose(probabilities(tiled, case), probabilities(whole, case), atol=1e-5)


def test_nothing_is_found_outside_of_the_region(ours):
    case = case_of((25, 24, 23))
    assert case.roi is not None
    found, everywhere = ours.labels(case), ours.labels(replace(case, roi=None))
    assert (everywhere[case.roi == 0] != 0).any()
    assert (found == everywhere * case.roi).all()


def test_an_unpadded_volume_has_no_labels_at_its_rim(ours):
    bare = replace(ours, cutting=replace(ours.cutting, pad=False))
    found = bare.labels(case_of((25, 24, 23), roi=False))
    inner = (slice(3, -3),) * 3
    assert found[inner].any()
    found[inner] = 0
    assert not found.any()


def test_it_normalises_as_training_does(ours, toy):
    """Images in other units give the same labels where DeepMedic normalises."""
    config, model = read_train_config(toy.train), read_model_config(toy.model)
    values = {**config.values, "norm_zscore_prms": {"apply_to_all_channels": True}}
    scoring = replace(
        ours,
        cutting=SegmentCutter.from_configs(config.model_copy(update={"values": values}), model),
    )
    case = case_of((20, 20, 20))
    other = replace(case, image=case.image * 50 + 7)
    assert (scoring.labels(case) == scoring.labels(other)).all()
    assert (ours.labels(case) != ours.labels(other)).any()


def test_accuracy_and_dice_of_segments():
    confusion = Confusion(3)
    confusion.add_labels(np.array([[0, 0, 1], [1, 1, -1]]), np.array([[0, 1, 1], [1, 0, 2]]))
    assert confusion.accuracy() == pytest.approx(3 / 5)
    assert confusion.dice()["1"] == pytest.approx(2 * 2 / 6)
    assert math.isnan(confusion.dice()["2"])
    assert math.isnan(Confusion(2).accuracy())


def test_validation_is_by_case_and_in_the_mean(ours, toy, tmp_path):
    held = held_cases(read_train_config(toy.train))
    assert [one.id for one in held] == ["pred_01", "pred_02"]
    regions = with_labels((("all", (1, 2)),), range(1, 3))
    found = validate(ours, held, read_volume, regions, tmp_path / "out")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    scores = [case["dice"]["all"] for case in found["cases"]]
    assert found["mean"]["all"] == pytest.approx(np.mean(scores))
    assert found["regions"]["all"] == [1, 2]
    for one, entry in zip(held, found["cases"], strict=True):
        image: Any = nib.load(tmp_path / "out" / entry["prediction"])
        truth: Any = nib.load(entry["labels"])
        assert image.get_data_dtype() == np.int16
        assert np.allclose(image.affine, truth.affine)
        again = dice(np.asarray(image.dataobj), np.asarray(truth.dataobj), (("1", (1,)),))
        assert again["1"]["dice"] == pytest.approx(entry["dice"]["1"])
        assert entry["voxels"]["1"]["predicted"] == again["1"]["predicted"]
        assert (ours.labels(read_held(one, read_volume)) == image.dataobj).all()


def test_a_case_without_truth_is_segmented_only_and_only_if_wanted(ours, toy, tmp_path):
    config = read_train_config(toy.train)
    bare = replace(config.validation[0], labels=None)
    held = held_cases(config.model_copy(update={"validation": (bare, config.validation[1])}))
    found = validate(ours, held, read_volume, CLASSES, tmp_path)
    assert "dice" not in found["cases"][0]
    assert found["mean"]["1"] == found["cases"][1]["dice"]["1"]
    assert (tmp_path / "pred_01.nii.gz").exists()
    alone = validate(ours, held[:1], read_volume, CLASSES, None)
    assert alone["mean"] == {}
    assert "prediction" not in alone["cases"][0]


def test_predictions_stay_in_their_folder_under_names_of_their_own(toy):
    config = read_train_config(toy.train)
    held = held_cases(config.model_copy(update={"predictions": ("../../a.nii.gz", "b/a")}))
    assert [one.id for one in held] == ["a", f"a_{config.validation[1].line}"]
    held = held_cases(config.model_copy(update={"predictions": ()}))
    assert [one.id for one in held] == ["case_0", "case_1"]


def test_labels_that_are_no_class_are_refused(ours):
    case = case_of((20, 20, 20))
    case.labels[5, 5, 5] = 7
    with pytest.raises(DataFault, match="labels from 0 to 7, expected 0 to 2"):
        ours.labels(case)


def test_there_is_nothing_to_predict_with_before_a_checkpoint(tmp_path: Path):
    with pytest.raises(UsageFault, match="no checkpoint"):
        load_network(None, tmp_path)  # type: ignore[arg-type]
