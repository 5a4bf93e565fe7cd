import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from gansynth.metrics import METRICS
from gansynth.metrics.c2st import permuted
from gansynth.metrics.comparison import Estimate, load_metrics, measure
from gansynth.testing import check_metric
from tests.expected import raises_fault
from tests.metrics.people import SCHEMA, changed, comparison, noise, people, same

EVERY = load_metrics(tuple(METRICS))
FIGURES = {name: metric for name, metric in EVERY.items() if "pairs" not in metric.needs}
NETWORKS = {"kid", "frechet", "manifold", "c2st-cnn"}
REAL = people(14, seed=0)
Found = Mapping[str, Mapping[str, Estimate]]


def figures_of(samples: Any, **more: Any) -> Found:
    """All figures, by metric and name; networks are trained once."""
    compared = comparison(samples, REAL, **more)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PERMUTATIONS", "DRAWN"):
            patch.setattr(f"gansynth.metrics.c2st.{name}", 199)
        return {name: {f.name: f for f in m.figures(compared)} for name, m in FIGURES.items()}


@pytest.fixture(scope="module")
def strangers() -> Found:
    others = people(14, seed=1)
    return figures_of(changed(others, same), drawn_of=[case.subject for case in others])


@pytest.fixture(scope="module")
def noisy() -> Found:
    return figures_of(changed(people(28, seed=2, per_person=1), noise))


each_with_figures = pytest.mark.parametrize("metric", FIGURES)


@each_with_figures
def test_strangers_are_like_real_people(strangers, metric):
    for figure in strangers[metric].values():
        assert figure.finding in {"like real", "unclear"}
        assert figure.low <= figure.value <= figure.high
        assert figure.real_low <= figure.real <= figure.real_high


# Counts and places are of labels, which noise keeps.
@pytest.mark.parametrize("metric", sorted(FIGURES.keys() - {"counts", "places"}))
def test_noise_is_unlike_real_people(noisy, metric):
    assert "unlike real" in {f.finding for f in noisy[metric].values()}
    for figure in noisy[metric].values() if metric == "c2st-cnn" else ():
        assert (figure.value > 0.9, figure.p < 0.01) == (True, True)


# Training those that have networks takes long.
@pytest.mark.parametrize("metric", sorted(EVERY.keys() - NETWORKS))
def test_a_metric_keeps_the_contract(metric):
    check_metric(type(EVERY[metric]), ndim=(2,)).raise_if_failed()


@each_with_figures
@pytest.mark.parametrize(("own", "real"), [(3, 20), (20, 3)])
def test_too_few_images_are_refused_with_both_numbers(metric, own, real):
    samples = changed(people(10, seed=1)[:own], same)
    with raises_fault("metrics.few-samples-or-real-images") as caught:
        FIGURES[metric].figures(comparison(samples, REAL[:real]))
    assert {str(own), str(real)} <= set(re.findall(r"\d+", str(caught.value)))


@pytest.mark.parametrize(
    ("metric", "lacks"),
    [("lesions", "samples have no boxes"), ("appearance", "have no label maps")],
)
def test_samples_without_what_a_metric_needs_are_refused(metric, lacks):
    bare = [type(s)(s.image) for s in changed(REAL[:4], same)]
    with raises_fault("metrics.metric-lacks-conditions", names=lacks):
        measure({metric: EVERY[metric]}, bare, REAL[:4], SCHEMA)


BAND = {"real_low": 0.4, "real_high": 0.6}
APART = {"difference_low": 0.1, "difference_high": 0.2}


@pytest.mark.parametrize(
    ("better", "value", "numbers", "finding"),
    [
        ("lower", 0.61, BAND | APART, "unlike real"),
        ("lower", 0.6, BAND | APART, "like real"),
        ("higher", 0.39, BAND | APART, "unlike real"),
        ("higher", 0.9, BAND | APART, "like real"),
        ("real", 0.39, BAND | APART, "unlike real"),
        ("real", 0.61, BAND | APART, "unlike real"),
        ("half", 0.61, BAND | APART, "unlike real"),
        ("half", 0.42, BAND | APART, "like real"),
        ("lower", 0.9, BAND, "unclear"),
        ("lower", 0.9, BAND | {"difference_low": -0.1, "difference_high": 0.2}, "unclear"),
        ("lower", 0.9, APART, "unclear"),
        # A few images, or an interval wider than twice the band, cannot tell.
        ("lower", 0.5, BAND | APART | {"images": 15}, "unclear"),
        ("lower", 0.5, BAND | {"difference_low": -0.2, "difference_high": 0.21}, "unclear"),
        ("lower", 0.9, BAND | APART | {"images": 4}, "unlike real"),
        ("half", 0.5, BAND | {"p": 0.4, "images": 15}, "unclear"),
        ("half", 0.9, BAND | {"p": 0.05}, "like real"),
        ("half", 0.5, BAND | {"p": 0.049}, "unlike real"),
    ],
)
def test_a_finding_is_of_the_band_and_of_the_difference(better, value, numbers, finding):
    numbers = {"images": 16} | numbers
    assert Estimate("m", "n", "t", "w", better, value, **numbers).finding == finding


def test_permuted_sides_keep_people_together_and_their_number():
    whose = np.array([0, 0, 1, 1, 1, 2, 3, 3])
    synthetic = np.array([1, 1, 0, 0, 0, 1, 1, 0], bool)  # the last one is on both sides
    seen = set()
    for seed in range(60):
        found = permuted(synthetic, whose, np.random.default_rng(seed))
        assert all(len(set(found[whose == person].tolist())) == 1 for person in (0, 1, 2))
        assert sum(bool(found[whose == person][0]) for person in (0, 1, 2)) == 2
        assert found[6] != found[7]
        seen.add(tuple(found.tolist()))
    assert len(seen) == 3 * 2
