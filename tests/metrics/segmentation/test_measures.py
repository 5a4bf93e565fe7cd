from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.metrics.segmentation import MEASURES, SEGMENTATION, measure_case, measure_of
from gansynth.metrics.segmentation.measures import (
    LESIONS,
    dice,
    mean_dice,
    read_regions,
    regions_of,
    with_labels,
)
from gansynth.runtime.errors import DataFault, UsageFault
from tests.metrics.segmentation.shapes import ONE, blobs, line, measured

pytestmark = [
    # MONAI 1.6 calls its own deprecated argument, and says of every empty map that it is one.
    pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning"),
    pytest.mark.filterwarnings("ignore:the prediction of class .* is all 0:UserWarning"),
]
ROOT = Path(__file__).parents[3]
NAMES = ("dice", "hd95", "nsd", *LESIONS, "false_positives")
PERFECT = dict(zip(NAMES, (1, 0, 1, 1, 1, None, 0, 0), strict=True))


def marked(shape: tuple[int, ...], *places: Any) -> Any:
    labels = np.zeros(shape, np.int16)
    for place in places:
        labels[place] = 1
    return labels


POINTS = marked((5, 6, 9), (3, 1, 5)), marked((5, 6, 9), (1, 1, 1))
OUTLIERS = line((*range(20), 30)) | marked((4, 40), (3, 10))
ROW = line(range(20))
CUBE = marked((7, 7, 7), (slice(1, 6),) * 3)
SHELL = CUBE - marked((7, 7, 7), (slice(2, 5),) * 3)
MANY = marked((4, 12), (0, 0), (1, 1), (slice(0, 2), slice(5, 7)), (3, 11))
"""Three lesions: one that holds together at a corner, one of four pixels, one of one."""
HITS = marked((4, 12), (1, 1), (0, 5), (3, 0), (3, slice(4, 6)))
"""Hits the first and a quarter of the second, and two more."""
IGNORED = line(range(10)) + 9 * line(range(10, 40))


@pytest.mark.parametrize(
    ("predicted", "truth", "spacing", "options", "expected"),
    [
        # 3 and 4 mm
        (*POINTS, (1.5, 9.0, 1.0), {}, dict(zip(NAMES, (0, 5, 0, 0, 0, None, 1, 1), strict=True))),
        # Twenty distances of 0, one of 2, one of 11: at rank 0.95 * 21 = 19.95 lies 0.95 * 2.
        (OUTLIERS, ROW, (1, 1), {"tolerance_mm": 1.0}, {"hd95": 1.9, "nsd": 40 / 42}),
        (OUTLIERS, ROW, (1, 1), {"tolerance_mm": 2.0}, {"hd95": 1.9, "nsd": 41 / 42}),
        # From the truth: ten distances of 0, then 1 to 10 pixels; rank 0.95 * 19 = 18.05.
        (line(range(10)), ROW, (1.0, 0.5), {}, {"hd95": 9.05 * 0.5}),
        (ROW, line(range(10)), (1.0, 0.5), {}, {"hd95": 9.05 * 0.5}),
        (SHELL, CUBE, (1, 1, 1), {}, {"dice": 2 * 98 / (98 + 125), "hd95": 0, "nsd": 1}),
        (HITS, MANY, (1, 1), {}, dict(zip(NAMES[3:], (2 / 3, 2 / 4, None, 3, 2), strict=True))),
        (
            *(HITS, MANY, (1, 1), {"overlap": 0.5}),
            dict(zip(LESIONS, (1 / 3, 2 / 4, None, 3), strict=True)),
        ),
        (
            *(CUBE * 0, CUBE, (3, 2, 1), {}),  # as far as the case is wide
            dict(
                zip(NAMES, (0, np.sqrt(21**2 + 14**2 + 7**2), 0, 0, None, None, 0, 0), strict=True)
            ),
        ),
        (CUBE, CUBE * 0, (1, 1, 1), {}, dict(zip(NAMES, (*[None] * 4, 0, 1, 125, 1), strict=True))),
        (CUBE * 0, CUBE * 0, (1, 1, 1), {}, dict(zip(NAMES, (*[None] * 5, 0, 0, 0), strict=True))),
        # A corner joins two pixels, then two more lie alone; of four in a row one touches ignored.
        (HITS, HITS * 0, (1, 1), {}, {"false_alarms": 0, "false_positive_volume": 5}),
        (line(range(4)), line(()), (1, 1), {}, {"false_alarms": 1, "false_positive_volume": 4}),
        (line(range(4)), 9 * line([3]), (1, 1), {"ignore": 9}, {"false_alarms": 0}),
        (line(range(12)), IGNORED, (1, 1), {"ignore": 9}, PERFECT),
        (line(range(12)), IGNORED, (1, 1), {}, {"dice": 20 / 22}),
    ],
    ids=[
        *("mm", "percentile", "tolerance", "larger direction", "and back", "inside", "lesions"),
        *("overlap", "not predicted", "not there", "nothing", "small", "alarm"),
        *("ignored alarm", "ignored", "not ignored"),
    ],
)
def test_measures_by_hand(predicted, truth, spacing, options, expected):
    found = measured(predicted, truth, spacing, **options)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


CASES = [((14, 12, 10), (2.5, 0.7, 1.1)), ((30, 26), (0.8, 1.3)), ((9, 9, 9), (1.0, 1.0, 1.0))]


@pytest.fixture(params=range(9))
def case(request) -> Any:
    shape, spacing = CASES[request.param % 3]
    rng = np.random.default_rng(request.param)
    return blobs(rng, shape), blobs(rng, shape), spacing


def test_prediction_and_truth_change_places(case):
    predicted, truth, spacing = case
    one = measured(predicted, truth, spacing, measures=NAMES[:5])
    other = measured(truth, predicted, spacing, measures=NAMES[:5])
    other["lesion_sensitivity"], other["lesion_precision"] = (
        other["lesion_precision"], other["lesion_sensitivity"],
    )  # fmt: skip
    assert one == pytest.approx(other)
    assert one["dice"] == dice(predicted, truth, ONE)["x"]["dice"]


def test_neither_units_nor_axes_nor_background_around_matter(case):
    predicted, truth, spacing = case
    one = measured(predicted, truth, spacing, tolerance_mm=1.5)
    wide = measured(predicted, truth, [3 * mm for mm in spacing], tolerance_mm=4.5)
    wide["hd95"] = (wide["hd95"] or 0) / 3
    turned = measured(predicted.T[::-1], truth.T[::-1], spacing[::-1], tolerance_mm=1.5)
    padded = measured(np.pad(predicted, 3), np.pad(truth, 3), spacing, tolerance_mm=1.5)
    slab = measured(predicted[None], truth[None], (7.0, *spacing), tolerance_mm=1.5)
    for other in (wide, turned, padded, slab):
        assert other == pytest.approx(one)


def assert_monais(predicted: Any, truth: Any, spacing: Any, mm: float = 1.0) -> None:
    """MONAI, which computes in float32, has the same Dice, distance and surface Dice."""
    metrics = pytest.importorskip("monai.metrics")
    import torch

    ours = measured(predicted, truth, spacing, tolerance_mm=mm, measures=("dice", "hd95", "nsd"))
    maps = ((one == 1)[None, None].astype(np.float32) for one in (predicted, truth))
    pair = [torch.from_numpy(one) for one in maps]
    same: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
    theirs = metrics.compute_hausdorff_distance(*pair, percentile=95, **same)
    assert ours["hd95"] == pytest.approx(float(theirs), abs=1e-4)
    theirs = metrics.compute_dice(*pair, include_background=True)
    assert ours["dice"] == pytest.approx(float(theirs), abs=1e-6)
    theirs = metrics.compute_surface_dice(*pair, [mm], **same)
    assert ours["nsd"] == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((14, 22, 18), (2.5, 0.7, 1.1)), ((40, 36), (0.8, 1.3)), ((16, 16, 16), (1.0, 1.0, 1.0))],
)
def test_blobs_are_measured_as_by_monai(shape, spacing, seed):
    rng = np.random.default_rng(seed)
    truth, other = blobs(rng, shape), blobs(rng, shape)
    assert_monais(other, truth, spacing, 1.5)
    assert_monais(np.where(rng.random(shape) < 0.02, 1 - truth, truth), truth, spacing, 1.5)


def test_lesions_are_those_of_cc3d():
    cc3d = pytest.importorskip("cc3d")
    rng = np.random.default_rng(3)
    for _ in range(5):
        truth, predicted = blobs(rng, (16, 20, 18)), blobs(rng, (16, 20, 18))
        parts, count = cc3d.connected_components(truth, connectivity=26, return_N=True)
        hit = {int(n) for n in np.unique(parts[predicted > 0])} - {0}
        found = measure_case(predicted, truth, (1, 1, 1), ONE, measures=("lesion_sensitivity",))
        assert count > 1
        assert found == {"lesion_sensitivity/x": pytest.approx(len(hit) / count)}


@pytest.mark.parametrize(
    ("changes", "fault", "says"),
    [
        ({"measures": ("dcie",)}, UsageFault, "measure 'dcie': .* Did you mean 'dice'"),
        ({"spacing": (1.0,)}, UsageFault, "spacing .*expected 2 positive numbers"),
        ({"spacing": (1.0, 0.0)}, UsageFault, "spacing"),
        ({"tolerance_mm": -1.0}, UsageFault, "tolerance_mm -1.0"),
        ({"overlap": 2.0}, UsageFault, "overlap 2.0"),
        ({"predicted": np.zeros((4, 4), np.int16)}, DataFault, r"shape \(4, 4\).*expected equal"),
    ],
)
def test_measure_case_refuses_unknown_measures_and_numbers_out_of_range(changes, fault, says):
    usual: dict[str, Any] = {"predicted": line(range(3)), "truth": line(range(3))}
    with pytest.raises(fault, match=says):
        measure_case(**{**usual, "spacing": (1.0, 1.0), "regions": ONE, **changes})


def test_every_measure_is_in_the_table_and_only_what_is_asked_is_measured():
    found = measure_case(ROW, ROW, (1, 1), ONE)
    assert [measure_of(key) for key in found] == list(SEGMENTATION.values())
    assert list(measured(ROW, ROW, (1, 1))) == list(SEGMENTATION) == list(NAMES)
    assert list(measured(ROW, ROW, (1, 1), measures=("nsd", "dice"))) == ["nsd", "dice"]
    assert measure_of("sensitivity@FP=0.5") is MEASURES["sensitivity"]
    with pytest.raises(UsageFault, match=r"^hd59/WT: no measure.*Did you mean 'hd95'"):
        measure_of("hd59/WT")


def test_the_page_has_the_table_of_the_code():
    page = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")
    for name, one in MEASURES.items():
        margin = "" if one.margin is None else f"{one.margin} "
        assert f"| `{name}` | {one.unit} | {one.better} | {one.says} | {margin}|" in page


LABELS = (1, 2, 4)


def test_regions_are_unions_of_labels():
    expected = (("WT", (1, 2, 4)), ("TC", (1, 4)))
    assert read_regions(" WT: 4+1 +2, TC:1+4+1,", LABELS) == expected
    assert regions_of({"WT": "1+2+4", "TC": "1+4"}, LABELS) == expected
    assert read_regions("", LABELS) == ()
    names = [name for name, _ in with_labels(read_regions("WT:1+2", LABELS), LABELS)]
    assert names == ["foreground", "1", "2", "4", "WT"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("WT:1+3", "labels '1\\+3'; expected values among 1, 2, 4"),
        ("WT", "labels ''"),
        ("WT:²", "labels '²'"),
        (":1", "name ''"),
        ("4:1", "name '4'"),
        ("foreground:1", "name 'foreground'"),
        ("WT:1,WT:2", "name 'WT'; expected names of your own, each once"),
    ],
)
def test_what_is_no_region_is_refused(text, says):
    with pytest.raises(UsageFault, match=says) as fault:
        read_regions(text, LABELS)
    assert str(fault.value).startswith(f"--set regions={text}: ")


def test_means_are_over_the_cases_that_have_one():
    """The truths have no 2."""
    pairs = [([1, 2], [1, 0]), ([1, 0], [1, 1])]
    every = [dice(np.array(a), np.array(b), with_labels((), (1, 2))) for a, b in pairs]
    means = mean_dice(every)
    assert means["2"] is None
    assert means["1"] == pytest.approx((1 + 2 / 3) / 2)
