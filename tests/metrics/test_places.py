from dataclasses import replace

import numpy as np
import pytest

from gansynth.core.schema import Sample
from gansynth.metrics.comparison import Comparison
from gansynth.metrics.places import LesionPlaces
from gansynth_evaluate.summary import alarms
from tests.metrics.test_lesions import CASES, SCHEMA, disc, unit_of


def sample(case, centre):
    """A real case's image without its lesion, and one of seven voxels' radius elsewhere."""
    lesion = disc(centre, 7)
    labels = np.where(case.labels > 0, 0, case.labels)
    image = case.image + 3 * unit_of(case) * (lesion & (labels == 0))
    return Sample(image, np.where(lesion & (labels == 0), 2, labels).astype(np.int16), None, {})


def measured(*centres):
    samples = [sample(CASES[n], centre) for n in range(10) for centre in centres]
    return LesionPlaces().measure(samples, CASES[10:], SCHEMA)


@pytest.mark.parametrize("axis", ["H", "W"])
def test_a_lesion_on_the_midline_is_astride(axis):
    aside, across = (20, 20), (32, 20) if axis == "H" else (20, 32)
    assert measured(aside)[f"astride the middle of axis {axis}"] == 0
    assert measured(aside, across)[f"astride the middle of axis {axis}"] == 0.5


def test_a_lesion_at_the_surface_is_shallow():
    assert (
        measured((32, 6))["shallowest voxel"] < 0.03 < 0.1 < measured((32, 24))["shallowest voxel"]
    )


def test_images_without_lesions_say_nothing():
    bare = [replace(case, labels=np.minimum(case.labels, 0)) for case in CASES[:10]]
    samples = [Sample(case.image, case.labels, None, {}) for case in bare]
    found = LesionPlaces().measure(samples, CASES[10:], SCHEMA)
    assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize("column", [14, 32])
def test_lesions_on_a_midline_that_real_ones_keep_off_are_unlike_them_and_an_alarm(column):
    real, samples, drawn_of = [], [], []
    for number, case in enumerate(CASES):
        beside = sample(case, (24, (14, 50)[number % 2]))
        real.append(replace(case, image=beside.image.astype(np.float32), labels=beside.labels))
        if number % 3 == 0:
            samples.append(sample(case, (24, column)))
            drawn_of.append(case.subject)
    figures = LesionPlaces().figures(Comparison(samples, real, SCHEMA, drawn_of))
    texts = [alarm["text"] for alarm in alarms({}, figures)]
    said = "100 % of lesions lie astride the middle of axis W of the body, 0 % of real ones"
    assert [text.partition(";")[0] for text in texts] == ([said] if column == 32 else [])
