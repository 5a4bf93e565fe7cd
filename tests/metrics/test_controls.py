"""What must come out right: real people are like real people, noise and blur are not."""

import numpy as np
import pytest

from gansynth.metrics.c2st import nearest_c2st, network_c2st
from gansynth.metrics.distribution import (
    frechet_metric,
    kid_metric,
    manifold_metric,
    mmd_metric,
    sliced_metric,
)
from gansynth.metrics.diversity import diversity_metric
from gansynth.metrics.estimate import Figure
from gansynth.metrics.intensity import histogram_metric
from gansynth.metrics.spectrum import spectrum_metric
from tests.metrics.people import blurred, changed, noise, people, same, sides

METRICS = {
    "spectrum": spectrum_metric,
    "histogram": histogram_metric,
    "diversity": diversity_metric,
    "sliced": sliced_metric,
    "mmd": mmd_metric,
    "kid": kid_metric,
    "frechet": frechet_metric,
    "manifold": manifold_metric,
    "knn": nearest_c2st,
    "cnn": network_c2st,
}
REAL = people(14, seed=0)


def measured(samples, **more) -> dict[str, dict[str, Figure]]:
    """All figures, by metric and name; networks are trained once."""
    compared = sides(samples, REAL, **more)
    return {name: {f.name: f for f in m.figures(compared)} for name, m in METRICS.items()}


@pytest.fixture(scope="module")
def strangers():
    others = people(14, seed=1)
    return measured(changed(others, same), drawn_of=[case.subject for case in others])


@pytest.fixture(scope="module")
def noisy():
    return measured(changed(people(28, seed=2, per_person=1), noise))


@pytest.fixture(scope="module")
def blurry():
    others = people(14, seed=3)
    return measured(changed(others, blurred), drawn_of=[case.subject for case in others])


@pytest.mark.parametrize("metric", METRICS)
def test_strangers_are_like_real_people(strangers, metric):
    assert {f.finding for f in strangers[metric].values()} <= {"like real", "unclear"}


@pytest.mark.parametrize("metric", ["knn", "cnn"])
def test_nobody_can_tell_strangers(strangers, metric):
    figure = strangers[metric]["accuracy"]
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low < 0.5 < figure.high
    assert figure.value == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("metric", METRICS)
def test_noise_is_unlike_real_people_everywhere(noisy, metric):
    assert "unlike real" in {f.finding for f in noisy[metric].values()}


@pytest.mark.parametrize("metric", ["knn", "cnn"])
def test_anybody_can_tell_noise(noisy, metric):
    assert noisy[metric]["accuracy"].value > 0.9
    assert noisy[metric]["accuracy"].p < 0.01


def test_blur_is_seen_in_the_spectrum(blurry):
    high = blurry["spectrum"]["high"]
    assert high.finding == "unlike real"
    assert high.value < 0.1


def test_blur_is_seen_in_the_finest_patches_alone(blurry):
    fine, coarse = (blurry["sliced"][f"level {n}"] for n in (1, 2))
    assert (fine.finding, coarse.finding) == ("unlike real", "like real")


def test_every_figure_has_an_interval_and_a_scale(strangers):
    for metric in strangers.values():
        for figure in metric.values():
            assert figure.low <= figure.value <= figure.high
            assert figure.real_low <= figure.real <= figure.real_high


def test_one_picture_for_all_is_less_diverse():
    one = changed(REAL[:1] * 28, same)
    figure = diversity_metric.figures(sides(one, REAL))[0]
    assert figure.value == pytest.approx(1, abs=1e-3)
    assert figure.finding == "unlike real"


def test_findings_of_strangers_are_seldom_wrong():
    """Of metrics without networks, over many pairs of sides: at most a few in a hundred."""
    wrong, count = 0, 0
    for seed in range(12):
        real, others = people(8, 100 + seed), people(8, 200 + seed)
        compared = sides(changed(others, same), real, drawn_of=[c.subject for c in others])
        for metric in (spectrum_metric, sliced_metric, histogram_metric, diversity_metric):
            found = [figure.finding for figure in metric.figures(compared)]
            wrong += found.count("unlike real")
            count += len(found)
    assert wrong / count < 0.05


def test_pictures_of_one_person_are_no_witnesses_for_each_other():
    """People unlike each other, with nearly equal pictures each: still nobody can be told."""
    from gansynth.metrics.c2st import judged_by_neighbours

    rng = np.random.default_rng(0)
    rows = np.repeat(10 * rng.standard_normal((24, 4)), 5, axis=0)
    rows += 0.01 * rng.standard_normal(rows.shape)
    owners = np.repeat(np.arange(24), 5).astype(str).tolist()
    synthetic = np.repeat(np.arange(24) < 12, 5)
    found = judged_by_neighbours(rows, synthetic, owners)
    assert 0.3 < found.accuracy < 0.7
    assert found.p(rng) > 0.05


def test_p_of_a_two_sample_test_is_uniform_where_nothing_is_to_be_told():
    from gansynth.metrics.c2st import judged_by_neighbours

    small = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows = np.repeat(rng.standard_normal((16, 3)), 2, axis=0)
        rows += 0.2 * rng.standard_normal(rows.shape)
        owners = np.repeat(np.arange(16), 2).astype(str).tolist()
        found = judged_by_neighbours(rows, np.repeat(np.arange(16) < 8, 2), owners)
        small.append(found.p(rng) < 0.2)
    assert 0.02 <= np.mean(small) <= 0.4


def test_permuted_sides_keep_people_together_and_their_number():
    from gansynth.metrics.c2st import permuted

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
