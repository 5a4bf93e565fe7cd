"""How many lesions an image has is the first figure, and the first line where it differs."""

from dataclasses import replace

import numpy as np
import pytest

from gansynth.core.schema import Sample
from gansynth.evaluation.report import write_report
from gansynth.testing import ToySource
from gansynth.testing.toy import without_blobs
from tests.evaluation.gatherings import as_samples, assessed, strangers

NO_BOXES = replace(ToySource(2, boxes=True).load("toy_00").boxes, coords=np.zeros((0, 4)),
                   labels=np.zeros(0, int))  # fmt: skip


class Rare(ToySource):
    """Every third case has lesions, as label maps or as boxes."""

    def load(self, case_id):
        case, number = super().load(case_id), int(case_id[-2:])
        if self.schema.box_classes:
            return replace(case, labels=None, boxes=case.boxes if number % 3 == 0 else NO_BOXES)
        return case if number % 3 == 0 else without_blobs(case, number)


def boxed():
    return [Sample(c.image, None, c.boxes) for c in ToySource(2, 9, boxes=True).cases()]


def rare():
    source = Rare(2, 9)
    return as_samples(source.cases((*source.train_ids, *source.held_out_ids)))


@pytest.mark.parametrize(
    ("samples", "source", "value", "real", "said"),
    [
        (strangers, Rare(2), 1, 5 / 16, "Every sample has a lesion; 31 % of real images have one."),
        (boxed, Rare(2, boxes=True), 1, 5 / 16, "Every sample has a lesion; 31 % of real images "),
        (rare, Rare(2), 6 / 16, 5 / 16, ""),
        (
            rare,
            ToySource(2),
            6 / 16,
            1,
            "38 % of samples have a labelled part; 100 % of real images",
        ),
        (strangers, ToySource(2), 1, 1, ""),  # organs: nothing is said of lesions
    ],
    ids=["label maps", "boxes", "as often", "too seldom", "organs"],
)
def test_how_many_have_a_lesion_comes_first(samples, source, value, real, said, tmp_path):
    found = assessed(samples(), "realism", metrics=("counts", "spectrum"), source=source)
    share, mean = found["figures"][:2]
    assert (share["value"], share["real"]) == pytest.approx((value, real))
    assert 0 <= share["low"] < share["high"] <= 1
    assert 0 <= share["real_low"] < share["real_high"] <= 1
    assert mean["value"] >= share["value"]
    assert share["finding"] == ("unlike real" if said else "unclear")
    assert ("lesion" in share["name"]) == (source.__class__ is Rare)
    top = write_report(found, tmp_path)["report.md"].read_text("utf-8").split("\n\n")[1]
    assert top.startswith(f"- **Realism**: {said or 'Cannot tell in '}")


def test_it_is_the_first_of_all_figures():
    assert assessed(strangers(), "realism")["figures"][0]["metric"] == "counts"
