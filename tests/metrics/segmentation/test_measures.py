from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.metrics.segmentation import MEASURES, SEGMENTATION, measure_case, measure_of
from gansynth.metrics.segmentation.measures import (
    dice,
    mean_dice,
    read_regions,
    regions_of,
    with_labels,
)
from tests.expected import raises_fault
from tests.metrics.segmentation.shapes import ONE, blobs, line, marked, measured

pytestmark = [
    # MONAI 1.6 calls its own deprecated argument, and says of every empty map that it is one.
    pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning"),
    pytest.mark.filterwarnings("ignore:the prediction of class .* is all 0:UserWarning"),
]
ROOT = Path(__file__).parents[3]
CUBE_SHAPE = (7, 7, 7)
DIAGONAL = np.sqrt(21**2 + 14**2 + 7**2)


def all_of(dice_, hd95, nsd, sensitivity, precision, alarms, volume, number):
    values = (dice_, hd95, nsd, sensitivity, precision, alarms, volume, number)
    return dict(zip(SEGMENTATION, values, strict=True))


def lesions_of(sensitivity, precision):
    return {"lesion_sensitivity": sensitivity, "lesion_precision": precision}


POINTS = marked((5, 6, 9), (3, 1, 5)), marked((5, 6, 9), (1, 1, 1))
OUTLIERS = line((*range(20), 30)) | marked((4, 40), (3, 10))
ROW = line(range(20))
CUBE = marked(CUBE_SHAPE, (slice(1, 6),) * 3)
MANY = marked((4, 12), (0, 0), (1, 1), (slice(0, 2), slice(5, 7)), (3, 11))
"""Three lesions: one that holds together at a corner, one of four pixels, one of one."""
HITS = marked((4, 12), (1, 1), (0, 5), (3, 0), (3, slice(4, 6)))
"""Hits the first and a quarter of the second, and two more."""
IGNORED = line(range(10)) + 9 * line(range(10, 40))
SMALL = {"false_alarms": 0, "false_positive_volume": 5}


@pytest.mark.parametrize(
    ("predicted", "truth", "spacing", "options", "expected"),
    [
        # 3 and 4 mm
        (*POINTS, (1.5, 9.0, 1.0), {}, all_of(0, 5, 0, 0, 0, None, 1, 1)),
        # Twenty distances of 0, one of 2, one of 11: at rank 0.95 * 21 = 19.95 lies 0.95 * 2.
        (OUTLIERS, ROW, (1, 1), {"tolerance_mm": 2.0}, {"hd95": 1.9, "nsd": 41 / 42}),
        (HITS, MANY, (1, 1), {}, lesions_of(2 / 3, 2 / 4) | {"false_positive_volume": 3}),
        (HITS, MANY, (1, 1), {"overlap": 0.5}, lesions_of(1 / 3, 2 / 4) | {"false_positives": 2}),
        (CUBE * 0, CUBE, (3, 2, 1), {}, all_of(0, DIAGONAL, 0, 0, None, None, 0, 0)),
        (CUBE, CUBE * 0, (1, 1, 1), {}, all_of(*[None] * 4, 0, 1, 125, 1)),
        (CUBE * 0, CUBE * 0, (1, 1, 1), {}, all_of(*[None] * 5, 0, 0, 0)),
        # A corner joins two pixels, then two more lie alone; of four in a row one touches ignored.
        (HITS, HITS * 0, (1, 1), {}, SMALL),
        (line(range(4)), line(()), (1, 1), {}, {"false_alarms": 1, "false_positive_volume": 4}),
        (line(range(4)), 9 * line([3]), (1, 1), {"ignore": 9}, {"false_alarms": 0}),
        (line(range(12)), IGNORED, (1, 1), {"ignore": 9}, all_of(1, 0, 1, 1, 1, None, 0, 0)),
        (line(range(12)), IGNORED, (1, 1), {}, {"dice": 20 / 22}),
    ],
    ids=[
        *("mm", "tolerance", "lesions", "overlap", "not predicted", "not there", "nothing"),
        *("small", "alarm", "ignored alarm", "ignored", "not ignored"),
    ],
)
def test_measures_by_hand(predicted, truth, spacing, options, expected):
    found = measured(predicted, truth, spacing, **options)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((14, 22, 18), (2.5, 0.7, 1.1)), ((40, 36), (0.8, 1.3))]
)
def test_blobs_are_measured_as_by_monai(shape, spacing):
    metrics = pytest.importorskip("monai.metrics")
    import torch

    rng = np.random.default_rng(0)
    truth, predicted = blobs(rng, shape), blobs(rng, shape)
    asked: Any = ("dice", "hd95", "nsd")
    ours = measured(predicted, truth, spacing, tolerance_mm=1.5, measures=asked)
    pair = [torch.from_numpy(one[None, None].astype(np.float32)) for one in (predicted, truth)]
    same: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
    theirs = {
        "dice": metrics.compute_dice(*pair, include_background=True),
        "hd95": metrics.compute_hausdorff_distance(*pair, percentile=95, **same),
        "nsd": metrics.compute_surface_dice(*pair, [1.5], **same),
    }
    assert ours == pytest.approx({key: float(value) for key, value in theirs.items()}, abs=1e-4)
    # A slab of one voxel has no surface along that axis, and axes have no order.
    slab = measured(predicted.T[None], truth.T[None], (7.0, *spacing[::-1]), tolerance_mm=1.5)
    assert {key: slab[key] for key in ours} == pytest.approx(ours)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"measures": ("dcie",)}, "metrics.measure-not-among-measured"),
        ({"spacing": (1.0,)}, "metrics.spacing-not-positive"),
        ({"spacing": (1.0, 0.0)}, "metrics.spacing-not-positive"),
        ({"tolerance_mm": -1.0}, "metrics.tolerance-negative"),
        ({"overlap": 2.0}, "metrics.overlap-not-a-share"),
        ({"predicted": np.zeros((4, 4), np.int16)}, "metrics.label-map-shapes-differ"),
    ],
)
def test_measure_case_refuses_unknown_measures_and_numbers_out_of_range(changes, expected):
    usual = {"predicted": ROW, "truth": ROW, "spacing": (1.0, 1.0), "regions": ONE}
    with raises_fault(expected):
        measure_case(**{**usual, **changes})


def test_lesions_of_each_size_are_judged_by_themselves():
    """Lines of 40, 400, 300 and 2,000 voxels, of which the second and the last are found."""
    truth = np.zeros((12, 2200), np.int16)
    for row, length in enumerate((40, 400, 300, 2000)):
        truth[3 * row, :length] = 1
    predicted = np.zeros_like(truth)
    predicted[3, 50:150] = predicted[9, :99] = predicted[7, 2100:2120] = 1  # the last is an alarm
    names = ("lesion_sensitivity", "lesion_precision")
    regions = with_labels((), [1])
    found = measure_case(predicted, truth, (1, 1), regions, measures=names, by_size=True)
    sizes = ("1-99", "100-999", "1000+")
    each = [[found[f"{name}@{size}/foreground"] for size in sizes] for name in names]
    assert each == [[0, 1 / 2, 1], [1 / 2, 1, None]]
    assert not any("@" in key for key in measure_case(predicted, truth, (1, 1), regions))


def test_every_measure_is_in_the_table_and_the_page_has_it():
    found = measure_case(ROW, ROW, (1, 1), ONE)
    assert [measure_of(key) for key in found] == list(SEGMENTATION.values())
    assert list(measured(ROW, ROW, (1, 1), measures=("nsd", "dice"))) == ["nsd", "dice"]
    assert measure_of("sensitivity@FP=0.5") is MEASURES["sensitivity"]
    with raises_fault("metrics.measure-unknown"):
        measure_of("hd59/WT")
    page = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")
    for name, one in MEASURES.items():
        margin = "" if one.margin is None else f"{one.margin} "
        assert f"| `{name}` | {one.unit} | {one.better} | {one.says} | {margin}|" in page


LABELS = (1, 2, 4)


def test_regions_are_unions_of_labels():
    expected = (("WT", (1, 2, 4)), ("TC", (1, 4)))
    assert read_regions(" WT: 4+1 +2, TC:1+4+1,", LABELS) == expected
    assert regions_of({"WT": "1+2+4", "TC": "1+4"}, LABELS) == expected
    assert with_labels((("WT", (1, 2)),), LABELS) == (
        *(("foreground", LABELS), ("1", (1,)), ("2", (2,)), ("4", (4,))),
        ("WT", (1, 2)),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WT:1+3", "metrics.region-labels-wrong"),
        ("WT", "metrics.region-labels-wrong"),
        ("WT:²", "metrics.region-labels-wrong"),
        (":1", "metrics.region-name-wrong"),
        ("4:1", "metrics.region-name-wrong"),
        ("foreground:1", "metrics.region-name-wrong"),
        ("WT:1,WT:2", "metrics.region-name-wrong"),
    ],
)
def test_what_is_no_region_is_refused(text, expected):
    with raises_fault(expected):
        read_regions(text, LABELS)


def test_means_are_over_the_cases_that_have_one():
    """The truths have no 2."""
    pairs = [([1, 2], [1, 0]), ([1, 0], [1, 1])]
    every = [dice(np.array(a), np.array(b), with_labels((), (1, 2))) for a, b in pairs]
    means = mean_dice(every)
    assert means["2"] is None
    assert means["1"] == pytest.approx((1 + 2 / 3) / 2)
