"""Regions by formula, and what is reported of them: the same for every host."""

import numpy as np
import pytest

from gansynth.metrics.segmentation.regions import (
    dice,
    mean_dice,
    read_regions,
    regions_of,
    with_labels,
)
from gansynth.runtime.errors import UsageFault

LABELS = (1, 2, 4)


def test_regions_are_unions_of_labels():
    expected = (("WT", (1, 2, 4)), ("TC", (1, 4)))
    assert read_regions(" WT: 4+1 +2, TC:1+4+1,", LABELS) == expected
    assert regions_of({"WT": "1+2+4", "TC": "1+4"}, LABELS) == expected
    assert read_regions("", LABELS) == ()


def test_the_foreground_and_every_label_come_first():
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


def test_a_plans_regions_are_refused_by_its_key():
    with pytest.raises(UsageFault, match=r"^regions: 'WT:3' has the labels '3'"):
        regions_of({"WT": "3"}, LABELS)


def test_means_are_over_the_cases_that_have_one():
    regions = with_labels((), (1, 2))
    pairs = [  # the truths have no 2
        (np.array([1, 2]), np.array([1, 0])),
        (np.array([1, 0]), np.array([1, 1])),
    ]
    means = mean_dice([dice(one, truth, regions) for one, truth in pairs])
    assert means["2"] is None
    assert means["1"] == pytest.approx((1 + 2 / 3) / 2)
