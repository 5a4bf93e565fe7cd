"""The judge of faithfulness: real cases as samples score as real ones, shuffled labels lower."""
# mypy: disallow-untyped-calls=False

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from benchmarks.measures import label_recovery
from gansynth.core.generator import Batch, Stage
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.metrics.faithfulness import (
    Segmenter,
    SegmenterOptions,
    _augment,
    mean_dice,
    train_segmenter,
)
from gansynth.testing import ToySource

FEW = SegmenterOptions(steps=30, batch_size=4, width=6, levels=2, lr=2e-2)


@pytest.fixture(scope="module")
def source():
    return ToySource(2)


@pytest.fixture(scope="module")
def judge(source):
    batches = CaseBatches(CaseCache(source), source.space)
    return train_segmenter(batches, source.schema, source.space.size, FEW)


def pairs(source, ids):
    return [(case.image, case.labels) for case in source.cases(ids)]


@pytest.fixture(scope="module")
def found(judge, source):
    real = pairs(source, source.held_out_ids)
    return label_recovery(judge, real, pairs(source, source.train_ids[:6]), source.schema)


def test_the_judge_finds_what_is_there(found):
    assert found["real"] > 0.6


def test_perfect_samples_score_near_real_ones(found):
    assert found["synthetic_over_real"] == pytest.approx(1, abs=0.2)


def test_shuffled_labels_score_much_lower(found):
    assert found["shuffled"] < 0.6 * found["synthetic"]
    assert found["synthetic_over_shuffled"] == found["synthetic"] / found["shuffled"]


def test_samples_of_other_labels_than_theirs_score_low(judge, source):
    cases = pairs(source, source.train_ids[:6])
    turned = [(image, labels) for (image, _), (_, labels) in pairwise(cases)]
    found = label_recovery(judge, pairs(source, source.held_out_ids), turned, source.schema)
    assert found["synthetic_over_real"] < 0.6


class Oracle(Segmenter):
    """Finds exactly what an image shows."""

    def __init__(self):
        super().__init__(torch.nn.Identity(), (0, 1), torch.device("cpu"))

    def predict(self, image):
        return image[0].astype(np.int16)


def test_a_sample_is_not_shuffled_with_itself(source):
    apart = [
        (np.eye(3, dtype=np.float32)[None, i], np.eye(3)[i].astype(np.int16)) for i in range(3)
    ]
    found = label_recovery(Oracle(), apart, apart, source.schema)
    assert (found["synthetic"], found["shuffled"]) == (1, 0)


def test_labels_are_turned_with_their_images():
    drawn = torch.randint(0, 2, (2, 5, 6), generator=torch.Generator().manual_seed(0))
    batch = Batch((20.0 * drawn - 10)[:, None], drawn)
    for seed in range(8):
        image, target = _augment(batch, (0, 1), torch.Generator().manual_seed(seed))
        assert torch.equal(image[:, 0] > 0, target == 1)


def test_the_judge_is_the_same_for_the_same_seed(source):
    batches = CaseBatches(CaseCache(source), source.space)
    weights = []
    for state in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(state)
            judge = train_segmenter(
                batches, source.schema, source.space.size, replace(FEW, steps=2)
            )
        weights.append(next(judge.net.parameters()))
    assert torch.equal(*weights)


def test_cases_are_counted(found):
    assert (found["real_cases"], found["samples"]) == (4, 6)


def test_a_prediction_holds_label_values(judge, source):
    case = source.load(source.held_out_ids[0])
    predicted = judge.predict(case.image)
    assert (predicted.dtype, predicted.shape) == (np.int16, case.labels.shape)
    assert set(np.unique(predicted)) == {0, 1, 2}


def test_training_leaves_the_random_state_alone(source):
    before = torch.get_rng_state()
    batches = CaseBatches(CaseCache(source), source.space)
    train_segmenter(batches, source.schema, source.space.size, replace(FEW, steps=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [(22, 37), (12, 9, 22)])
def test_any_size_can_be_judged(size):
    source = ToySource(len(size))

    def batches(step, stage: Stage, which: range) -> Batch:
        rng = torch.Generator().manual_seed(step)
        image = torch.randn(len(which), 2, *size, generator=rng)
        return Batch(image, (image[:, 0] > 0).long())

    options = replace(FEW, steps=1, levels=3)
    judge = train_segmenter(batches, source.schema, size, options)
    assert judge.predict(np.zeros((2, *size), np.float32)).shape == size


# -- Dice ------------------------------------------------------------------------------------------


def test_dice_by_hand():
    predicted, truth = np.array([1, 1, 2, 0], np.int16), np.array([1, 0, 2, 2], np.int16)
    assert mean_dice(predicted, truth, (1, 2)) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_a_class_in_neither_does_not_count():
    same = np.array([1, 0], np.int16)
    assert mean_dice(same, same, (1, 2)) == 1


def test_a_class_missed_counts_as_zero():
    assert mean_dice(np.array([1, 0], np.int16), np.array([1, 2], np.int16), (1, 2)) == 0.5


def test_nothing_to_find_is_not_a_number():
    empty = np.zeros(4, np.int16)
    assert np.isnan(mean_dice(empty, empty, (1, 2)))
