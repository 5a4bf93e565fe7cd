from dataclasses import replace

import numpy as np
import pytest

from gansynth.core.schema import Sample, Schema
from gansynth.metrics.lesions import BoxContrastMetric
from tests.spots import picture, spotted

SCHEMA = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("core",))
measured = BoxContrastMetric().compute


def cases(count=24):
    rng, made = np.random.default_rng(0), []
    for index in range(count):
        corner = rng.uniform(9, 28, 2)
        made.append(spotted(index, (*corner, *(corner + rng.uniform(7, 10, 2)))))
    return made


def drawn(made, heeded=True):
    """Samples with lesions in their boxes, or in another's."""
    rng = np.random.default_rng(1)
    pairs = zip(made if heeded else made[5:] + made[:5], made, strict=True)
    return [Sample(picture(s.boxes, (48, 48), rng), None, c.boxes) for s, c in pairs]


def test_lesions_in_boxes_are_told_from_lesions_anywhere():
    real = cases()
    good, bad = (measured(drawn(real, heeded), real, SCHEMA) for heeded in (True, False))
    assert good["samples"] > 0.95
    assert good["samples difference low"] > 0.5
    assert good["samples told apart"] > 0.9
    assert bad["samples difference low"] < 0.1
    assert bad["samples told apart"] < 0.7
    assert good["real"] == pytest.approx(bad["real"])
    assert good["real difference"] == pytest.approx(good["real"] - good["real shuffled"])


def test_the_interval_is_of_people_however_many_images_they_have():
    real = cases()
    two = [replace(c, subject=str(i % 2)) for i, c in enumerate(real)]
    many, few = (measured(drawn(real), r, SCHEMA) for r in (real, two))
    assert many["real difference"] == pytest.approx(few["real difference"])
    low, high = many["real difference low"], many["real difference high"]
    assert low < many["real difference"] < high
    assert few["samples difference low"] == many["samples difference low"]
    assert (few["real difference low"], few["real difference high"]) != (low, high)
