from dataclasses import replace

import numpy as np
import pytest

from gansynth.core.schema import Boxes
from gansynth.metrics.segmentation.measures import SIZES
from gansynth.testing import ToySource
from gansynth.testing.toy import without_blobs
from gansynth_evaluate.evaluate import chosen_metrics
from gansynth_evaluate.report import write_report
from tests.evaluation.gatherings import as_samples, assessed, strangers

pytestmark = pytest.mark.usefixtures("unrendered")
BOXED = ToySource(2, 9, boxes=True)
NO_BOXES = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int16))


class Rare(ToySource):
    """Every third case has lesions, in label maps or, if it has boxes, in these alone."""

    def load(self, case_id):
        case, some = super().load(case_id), int(case_id[-2:]) % 3 == 0
        if case.boxes is not None:
            return replace(case, labels=None, boxes=case.boxes if some else NO_BOXES)
        return case if some else without_blobs(case, 0)


def boxed():
    cases = [BOXED.load(case) for case in BOXED.train_ids]
    pairs = zip(as_samples(cases), cases, strict=True)
    return [replace(sample, labels=None, boxes=case.boxes) for sample, case in pairs]


def rare():
    return as_samples(map(Rare(2, 9).load, ToySource(2).train_ids))


@pytest.mark.parametrize(
    ("samples", "source", "value", "real", "said"),
    [
        (boxed, Rare(2, boxes=True), 1, 5 / 16, "Every sample has a lesion; 31 % of real images "),
        (rare, Rare(2), 4 / 12, 5 / 16, ""),
        (rare, ToySource(2), 4 / 12, 1, "33 % of samples have a "),
        (strangers, ToySource(2), 1, 1, ""),  # organs: nothing is said of lesions
    ],
    ids=["boxes", "as often", "too seldom", "organs"],
)
def test_how_many_have_a_lesion_comes_first(samples, source, value, real, said, tmp_path):
    assert next(iter(chosen_metrics(()))) == "counts"
    found = assessed(samples(), "realism", source=source, metrics=("counts", "spectrum"))
    share, mean, *by_size = [one for one in found["figures"] if one["metric"] == "counts"]
    for side in ("value", "real"):
        assert sum(one[side] for one in by_size) == pytest.approx(mean[side])
    assert [one["name"].partition("s of ")[2] for one in by_size] == [
        f"{size} voxels per image" for size in SIZES
    ]
    assert (share["value"], share["real"]) == pytest.approx((value, real))
    assert all(0 <= share[f"{side}low"] < share[f"{side}high"] <= 1 for side in ("", "real_"))
    assert share["finding"] == ("unlike real" if said else "unclear")
    assert ("lesion" in share["name"]) == isinstance(source, Rare)
    top = write_report(found, tmp_path)["report.md"].read_text("utf-8").split("\n\n")[1]
    assert top.startswith(f"- **Realism**: {said or 'Cannot tell in '}")
