"""Networks of an evaluation on a GPU: features, two-sample tests, judges; near what a CPU finds."""

from dataclasses import replace

import numpy as np
import pytest

from gansynth.metrics.c2st import C2ST
from gansynth.metrics.comparison import Comparison
from gansynth.metrics.distances import Frechet
from gansynth.metrics.features import features_of
from tests.evaluation.gatherings import LITTLE, gathered, noise, strangers
from tests.pretend_cuda.environment import PRETENDS


def comparison(samples, device: str) -> Comparison:
    from gansynth.runtime.progress import NullReporter

    return gathered(samples).comparison(16, 0, LITTLE, device, NullReporter())


@pytest.fixture(scope="module")
def on_device():
    return comparison(strangers(), "cuda")


def features(on: Comparison) -> np.ndarray:
    return features_of(on).of(on.samples, "random").whole


def test_features_without_training_are_those_of_the_cpu(on_device):
    other = comparison(strangers(), "cpu")
    assert features(on_device) == pytest.approx(features(other), abs=1e-2)


def test_features_come_from_a_second_device(on_device, second):
    found = comparison(strangers(), str(second))
    assert features(found) == pytest.approx(features(on_device), abs=1e-2)


def test_figures_of_trained_features_are_finite(on_device):
    figures = Frechet().figures(on_device)
    assert all(figure.value is not None and np.isfinite(figure.value) for figure in figures)


def test_a_classifier_trained_there_tells_noise():
    (figure,) = C2ST().figures(comparison(noise(), "cuda"))
    assert figure.value is not None
    assert figure.value > 0.8


def test_judges_trained_there_find_labels(on_device):
    from gansynth_evaluate.evaluate import EvaluationOptions, assess

    effort = replace(LITTLE, judge=10) if PRETENDS else LITTLE
    options = EvaluationOptions(("faithfulness",), effort=effort)
    document = assess(gathered(strangers()), on_device, {}, options).document
    assert document["faithfulness"]["mean"]["synthetic"] > (0 if PRETENDS else 0.6)
