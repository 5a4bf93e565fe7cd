from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.source import CaseHeader, SourceRequest
from gansynth.core.volumes import read_volume
from gansynth.hosts.contract.record import FILE
from gansynth.hosts.contract.session import Session
from gansynth.hosts.deciding.trials import trials_of
from gansynth.metrics.segmentation import measure_predictions
from gansynth.metrics.segmentation.evaluation import OWN, at_thresholds
from gansynth.metrics.segmentation.held_out_scores import (
    LEVELS,
    METRICS,
    PREDICTIONS,
    evaluate_held_out,
)
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.sampling.run_source import open_source
from gansynth.testing import ToySource
from gansynth_deepmedic.source import open_deepmedic
from tests.conftest import save_nifti
from tests.deepmedic_sets import toy_deepmedic
from tests.expected import raises_fault
from tests.flat_sets import FLAT, SHAPE, pictures

ONE = (("1", (1,)), ("2", (2,)))
TURNED = np.array([[0, 0, -2.0, 5], [1.0, 0, 0, -3], [0, 3.0, 0, 7], [0, 0, 0, 1]])


def perfect(judged: Any) -> bool:
    found = measure_predictions(judged, ONE, measures=("dice", "nsd")).per_case
    return bool(found) and all(set(case.values()) == {1.0} for case in found.values())


@pytest.fixture
def nnunet(tmp_path) -> Any:
    """A source with two cases held out, as far as looking for files goes, and its results."""
    rng = np.random.default_rng(0)
    for case in ("a", "b", "trained on"):
        labels = rng.integers(0, 3, (6, 7, 8)).astype(np.uint8)
        for folder in ("results/validation", "home/gt_segmentations"):
            save_nifti(tmp_path / folder / f"{case}.nii.gz", labels)
    return SimpleNamespace(
        name="nnunet:Dataset004_Toy",
        header=lambda case: CaseHeader(case, (), ()),
        request=SourceRequest("nnunet", "004"),
        ending=".nii.gz",
        held_out_ids=("a", "b"),
        plans=SimpleNamespace(folder=tmp_path / "home"),
        results=tmp_path / "results",
    )


def judged_by_nnunet(source: Any) -> Any:
    return trials_of("nnunet").predictions(source, source.results)


@pytest.mark.parametrize(
    "regions", [{}, {"whole": (1, 2), "core": (2,)}], ids=["labels", "regions"]
)
def test_nnunet_validates_beside_its_truth(nnunet, regions):
    truth = read_volume(nnunet.results / "validation/a.nii.gz").array
    labels = np.stack([truth > 0, truth == 2] if regions else [truth == n for n in range(3)])
    shares = (0.05 + 0.9 * labels.transpose(0, 3, 2, 1)).astype(np.float32)  # axes as it reads
    np.savez_compressed(nnunet.results / "validation/a.npz", probabilities=shares)
    nnunet.labels = SimpleNamespace(regions=regions)
    found: Any = judged_by_nnunet(nnunet)
    assert list(found) == ["a", "b"]
    assert perfect(found)
    np.testing.assert_array_equal(found["a"].levels() > OWN, truth > 0)
    assert found["b"].levels is None


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("held_out_ids", ("c",), "metrics.label-map-missing"),
        ("held_out_ids", (), "nnunet.fold-holds-no-case-out"),
    ],
)
def test_nnunet_without_predictions_or_held_out_cases_is_refused(nnunet, key, value, expected):
    setattr(nnunet, key, value)
    if not value:
        nnunet.request = SourceRequest("nnunet", "004", "all")
    with raises_fault(expected):
        judged_by_nnunet(nnunet)


@pytest.fixture
def volumes(tmp_path) -> Callable[..., SourceRequest]:
    """Asks for three volumes whose axes are turned, read in some way."""
    rng = np.random.default_rng(0)
    for number in range(3):
        labels = np.zeros((8, 9, 10), np.int16)
        labels[2:6, 2:7, 2:8], labels[3, 3, 3:5] = 1, 2
        image = (labels + rng.normal(0, 0.1, labels.shape)).astype(np.float32)
        save_nifti(tmp_path / "set" / "images" / f"c{number}.nii.gz", image, TURNED)
        save_nifti(tmp_path / "set" / "labels" / f"c{number}.nii.gz", labels, TURNED)
    usual = {"folds": "3", "modality": "none", "spacing": "native", "channels": "T1"}
    return lambda **read: SourceRequest("nifti", str(tmp_path / "set"), read={**usual, **read})


def segmented(request: SourceRequest, output: Path, *, keep: bool = True) -> Any:
    """An adapter whose training has predicted each held-out case as ``load`` has it, and that."""
    source = open_source(request)
    truth: Any = iter([source.load(case).labels for case in source.held_out_ids])
    maps: Any = ((labels, np.int16(18) * (labels > 0)) for labels in truth)
    folder = output / PREDICTIONS if keep else None
    found = evaluate_held_out(source, ONE, lambda image: next(maps), folder, levels=output / LEVELS)
    output.mkdir(exist_ok=True)
    write_json_atomic(output / METRICS, found)
    judged: Any = trials_of("segmenter").predictions(source, output)
    assert set(judged) == set(source.held_out_ids)
    for one in judged.values():  # levels are on the grid of the label maps
        np.testing.assert_array_equal(one.levels(), 18 * (one.read().predicted > 0))
    return judged


def test_a_segmenter_predicts_on_the_grid_of_the_files(volumes, tmp_path):
    assert perfect(segmented(volumes(), tmp_path / "out"))
    (one,) = segmented(volumes(spacing="1"), tmp_path / "other").values()
    assert read_volume(one.file).array.shape == one.read().truth.shape == (8, 9, 10)


def test_what_kept_nothing_or_is_of_no_files_is_refused_also_before_a_training(volumes, tmp_path):
    with raises_fault("hosts.held-out-predictions-not-measurable"):
        segmented(volumes(), tmp_path / "out", keep=False)
    trials = trials_of("segmenter")
    trials.check_predictions(open_source(volumes()), {})
    for source, settings, names in (
        (ToySource(3), {}, "toy:3"),
        (open_source(volumes(between="2")), {}, "--read between=2"),
        (open_source(volumes()), {"save_predictions": "no"}, "--set save_predictions=yes"),
    ):
        with raises_fault("hosts.held-out-predictions-not-measurable", names=names):
            trials.check_predictions(source, settings)


@pytest.mark.parametrize("kind", FLAT)
def test_a_segmenter_of_slices_is_measured_on_the_files_pixels(kind, tmp_path):
    found = segmented(FLAT[kind](tmp_path / "set", folds="3", resize="10x12"), tmp_path / "out")
    assert all(one.read().predicted.shape == SHAPE for one in found.values())
    whole = segmented(FLAT[kind](tmp_path / "set", folds="3"), tmp_path / "whole")
    own = measure_predictions(whole, ONE[:1]).per_subject
    assert own
    assert all((one["dice/1"], one["hd95/1"]) == (1.0, 0.0) for one in own.values())


def test_a_label_map_of_other_pixels_is_refused(tmp_path):
    found = segmented(pictures(tmp_path / "set", folds="3"), tmp_path / "out")
    one = next(iter(found.values()))
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(one.file)
    with raises_fault("pictures.mask-shape-differs"):
        one.read()


def test_deepmedics_own_predictions_are_found_by_their_names(tmp_path):
    toy = toy_deepmedic(tmp_path / "toy", train=1, val=2, shape=(18, 17, 16))
    source = open_deepmedic(SourceRequest("deepmedic", str(toy.train)))
    trials = trials_of("deepmedic")
    with raises_fault("deepmedic.not-an-augment-folder"):
        trials.predictions(source, tmp_path)
    write_json_atomic(tmp_path / FILE, {"sessions": [{}]})
    with raises_fault("metrics.label-map-missing"):
        trials.predictions(source, tmp_path)
    home = tmp_path / "predictions" / "toy" / "predictions"
    for number in (1, 2):
        labels = read_volume(toy.folder / "data" / f"pat_{number:02d}" / "labels.nii.gz")
        save_nifti(home / f"pat_{number:02d}_Segm.nii.gz", labels.array, labels.affine)
    assert perfect(trials.predictions(source, tmp_path))


def test_a_host_that_draws_no_label_maps_says_so(tmp_path):
    with raises_fault("hosts.no-held-out-label-maps"):
        trials_of("yolo").predictions(None, tmp_path)


@pytest.mark.slow
def test_nnunets_own_dice_is_ours(toy_copy):
    """Of a real training, on the grid and under the names that nnU-Net writes."""
    source, trials = open_source(toy_copy.request()), trials_of("nnunet")
    iterations = {f"num_{which}iterations_per_epoch": "1" for which in ("", "val_")}
    quick, saving = {"num_epochs": "1", **iterations}, trials.saving_levels()
    assert saving is not None
    options = ("-device", "cpu", *saving[1])
    asked = AugmentRequest(target="nnunet", ratio="1:0", set=quick, options=options)
    outcome = Session.of(asked, source).start()
    judged = trials.predictions(source, outcome.folder)
    found = measure_predictions(judged, ONE, measures=("dice",)).per_case
    whole = measure_predictions(judged, (("foreground", (1, 2)),), measures=("dice",)).per_case
    cut = at_thresholds(judged, (1, 2), "case")["dice@alarms/foreground"]
    assert {case: {"dice/foreground": row[OWN]} for case, row in cut.items()} == whole
    assert set(found) == set(source.held_out_ids)
    assert any(value for case in found.values() for value in case.values())
    summary = read_json(outcome.folder / "validation" / "summary.json")
    for case in summary["metric_per_case"]:
        name = Path(case["prediction_file"]).name.removesuffix(".nii.gz")
        theirs = {f"dice/{label}": one["Dice"] for label, one in case["metrics"].items()}
        assert found[name] == pytest.approx(theirs)
