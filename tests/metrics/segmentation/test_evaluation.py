"""Held-out cases measured as hosts leave them: by case, by subject, in mm or in pixels."""
# mypy: disallow-untyped-calls=False

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gansynth.core.prediction import SlicePosition
from gansynth.metrics.segmentation import LabelMaps, Prediction, evaluate
from gansynth.metrics.segmentation.account import FILE, account_of, lines_of, said_of
from gansynth.metrics.segmentation.evaluation import headline
from gansynth.metrics.segmentation.predictions import of_volumes
from gansynth.runtime.errors import DataFault
from tests.conftest import save_nifti
from tests.metrics.segmentation.shapes import ONE, blobs, measured

AFFINE = np.array([[0, 0, -2.0, 5], [1.0, 0, 0, -3], [0, 3.0, 0, 7], [0, 0, 0, 1]])
"""Axes of 1, 3 and 2 mm, turned in a circle."""
HOST: Any = SimpleNamespace(subject=lambda case: f"of {case}", schema=SimpleNamespace(ignore=None))


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    """A predicted and a true label map."""
    rng = np.random.default_rng(0)
    for name in ("predicted", "true"):
        save_nifti(tmp_path / f"{name}.nii.gz", blobs(rng, (12, 14, 10)), AFFINE)
    return tmp_path / "predicted.nii.gz", tmp_path / "true.nii.gz"


def of_files(pair, **options):
    return evaluate(of_volumes(HOST, {"a": pair}, "train it"), ONE, **options).per_case["a"]


def test_mm_are_those_along_the_files_own_axes(pair):
    rng = np.random.default_rng(0)
    arrays = blobs(rng, (12, 14, 10)), blobs(rng, (12, 14, 10))
    found = of_files(pair, asked=("hd95", "nsd"), tolerance_mm=2.0)
    own = measured(*arrays, (1, 3, 2), asked=("hd95", "nsd"), tolerance_mm=2.0)
    assert found == {f"{name}/x": pytest.approx(value) for name, value in own.items()}
    assert own != measured(*arrays, (2, 1, 3), asked=("hd95", "nsd"), tolerance_mm=2.0)


@pytest.mark.parametrize(
    ("shape", "affine", "says"),
    [
        ((12, 14, 11), AFFINE, r"predicted.nii.gz: shape is \(12, 14, 11\)"),
        ((12, 14, 10), np.diag([1.0, 3.0, 2.0, 1.0]), "predicted.nii.gz: affine differs"),
    ],
)
def test_another_grid_is_refused(pair, shape, affine, says):
    save_nifti(pair[0], np.zeros(shape, np.int16), affine)
    with pytest.raises(DataFault, match=says):
        of_files(pair)


def test_what_is_no_label_map_is_refused(pair):
    save_nifti(pair[0], np.full((12, 14, 10), 0.5, np.float32), AFFINE)
    with pytest.raises(DataFault, match=r"predicted.nii.gz: holds label 0.5"):
        of_files(pair)


def test_a_missing_file_is_named_before_any_is_read(tmp_path):
    pair = tmp_path / "p.nii.gz", tmp_path / "t.nii.gz"
    with pytest.raises(DataFault, match=r"p.nii.gz: missing, .* of case 'a'; train it again"):
        of_volumes(HOST, {"a": pair}, "train it again")


# -- subjects --------------------------------------------------------------------------------------


def predicted(subject, found, truth, position=None, unit="mm", spacing=(1.0, 1.0)):
    maps = LabelMaps(np.asarray(found, np.int16), np.asarray(truth, np.int16), spacing)
    return Prediction(subject, None, lambda: maps, unit, position)


def square(rows, columns=slice(2, 6), shape=(12, 12)):
    labels = np.zeros(shape, np.int16)
    labels[rows, columns] = 1
    return labels


def test_a_subject_has_the_mean_of_its_volumes_and_the_mean_is_over_subjects():
    whole, half = square(slice(2, 6))[None], square(slice(2, 4))[None]
    cases = {
        "a1": predicted("a", whole, whole, spacing=(1.0,) * 3),
        "a2": predicted("a", half, whole, spacing=(1.0,) * 3),
        "b": predicted("b", whole, whole, spacing=(1.0,) * 3),
    }
    found = evaluate(cases, ONE)
    assert found.per_case["a2"]["dice/x"] == pytest.approx(2 / 3)
    assert found.per_subject["a"]["dice/x"] == pytest.approx((1 + 2 / 3) / 2)
    assert found.means()["dice/x"] == pytest.approx((1 + 5 / 6) / 2)


def slices(position):
    """A subject of three slices: a hit, a miss, and a false alarm."""
    hit, none = square(slice(2, 6)), np.zeros((12, 12), np.int16)
    small = square(slice(8, 10), slice(8, 10))
    pairs = [(hit, hit), (none, small), (small, none)]
    return {f"s{n}": predicted("p", *maps, position(n)) for n, maps in enumerate(pairs)}


def test_dice_of_slices_is_counted_over_all_of_a_subjects():
    found = evaluate(slices(lambda n: SlicePosition("p")), ONE, asked=("dice", "hd95"))
    assert found.per_subject["p"]["dice/x"] == pytest.approx(2 * 16 / (20 + 20))
    assert [found.per_case[f"s{n}"]["dice/x"] for n in range(3)] == [1, 0, None]


def test_distances_of_pictures_are_within_each_and_undefined_ones_follow_the_rule():
    found = evaluate(slices(lambda n: SlicePosition("p")), ONE)
    assert found.distances == "slices"
    assert found.per_subject["p"]["hd95/x"] == pytest.approx((0 + np.hypot(12, 12)) / 2)
    counts = found.counts["x"]
    assert (counts.images, counts.no_truth, counts.no_truth_predicted) == (3, 1, 1)
    assert counts.not_predicted == 1


def test_slices_without_a_gap_are_a_volume():
    found = evaluate(slices(lambda n: SlicePosition("v", 7 + n, 3.0)), ONE)
    assert found.distances == "volumes"
    truth, guess = np.zeros((2, 3, 12, 12), np.int16)
    truth[0] = guess[0] = square(slice(2, 6))
    truth[1] = guess[2] = square(slice(8, 10), slice(8, 10))
    own = measured(guess, truth, (3, 1, 1), asked=("dice", "hd95"))
    assert found.per_subject["p"] == {f"{name}/x": value for name, value in own.items()}
    assert found.counts["x"].images == 1


@pytest.mark.parametrize(
    "position", [lambda n: SlicePosition("v", 2 * n, 3.0), lambda n: SlicePosition("v", n, None)]
)
def test_slices_with_gaps_or_unknown_distances_are_none(position):
    assert evaluate(slices(position), ONE).distances == "slices"


def test_lesions_of_slices_with_gaps_are_counted_over_all_and_never_joined():
    asked = ("lesion_sensitivity", "lesion_precision")
    found = evaluate(slices(lambda n: SlicePosition("p")), ONE, asked=asked)
    assert found.per_subject["p"] == {"lesion_sensitivity/x": 0.5, "lesion_precision/x": 0.5}
    alike = {f"s{n}": predicted("p", square(slice(2, 6)), square(slice(2, 6)),
                                SlicePosition("p")) for n in range(2)}  # fmt: skip
    alike["s2"] = predicted("p", np.zeros((12, 12)), square(slice(2, 6)), SlicePosition("p"))
    found = evaluate(alike, ONE, asked=asked)
    assert found.per_subject["p"]["lesion_sensitivity/x"] == pytest.approx(2 / 3)


def test_pictures_of_several_sizes_are_scored_together():
    cases = {
        "s0": predicted("p", square(slice(2, 6)), square(slice(2, 6)), SlicePosition("p")),
        "s1": predicted(
            "p", np.zeros((20, 8)), square(slice(2, 6), shape=(20, 8)), SlicePosition("p")
        ),
    }
    assert evaluate(cases, ONE).per_subject["p"]["dice/x"] == pytest.approx(2 * 16 / (16 + 32))


def test_pixels_are_called_pixels():
    one = predicted("p", square(slice(2, 6)), square(slice(2, 6)), SlicePosition("p"), unit="px")
    document = evaluate({"s": one}, ONE).document()
    assert document["unit"] == "px"
    assert next(iter(lines_of(headline(document))))[:3] == ("region", "Dice", "HD95 px")
    assert "HD95 within slices, in px" in said_of(headline(document))


# -- the account that hosts leave ------------------------------------------------------------------


def test_a_host_leaves_dice_and_hd95_of_every_case_and_subject(pair, tmp_path):
    from gansynth.runtime.files import read_json

    told, why = account_of(lambda folder: of_volumes(HOST, {"a": pair}, ""), HOST, tmp_path, ONE)
    document = read_json(tmp_path / FILE)
    assert why == ""
    assert told == headline(document)
    assert document["per_case"]["a"] == document["per_subject"]["of a"]
    assert document["per_case"]["a"].keys() == {"dice", "hd95"}
    assert document["per_case"]["a"]["hd95"]["x"] == of_files(pair)["hd95/x"]


def test_a_host_without_label_maps_says_why_there_are_no_measures(tmp_path):
    def judged(folder):
        raise DataFault(f"{folder}: has nothing")

    told, why = account_of(judged, HOST, tmp_path, ONE)
    assert told == {}
    assert why.endswith("has nothing")
    assert not (tmp_path / FILE).exists()
