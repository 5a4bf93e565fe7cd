from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.metrics.faithfulness import (
    EvaluationSegmenterOptions,
    _augment,
    load_segmenter,
    mean_dice,
    train_segmenter,
)
from gansynth.runtime.errors import EnvironmentFault
from gansynth.testing import ToySource
from tests.disks import files_of_at_most

FEW = EvaluationSegmenterOptions(steps=30, batch_size=4, width=6, levels=2, lr=2e-2)
SOURCE = ToySource(2)


def test_labels_are_turned_with_their_images():
    drawn = torch.randint(0, 2, (2, 5, 6), generator=torch.Generator().manual_seed(0))
    batch = Batch((20.0 * drawn - 10)[:, None], drawn)
    for seed in range(8):
        image, target = _augment(batch, (0, 1), torch.Generator().manual_seed(seed))
        assert torch.equal(image[:, 0] > 0, target == 1)


@pytest.mark.parametrize(
    ("predicted", "truth", "dice"),
    [
        ([1, 1, 2, 0], [1, 0, 2, 2], (2 / 3 + 2 / 3) / 2),
        ([1, 0], [1, 0], 1),  # a class in neither does not count
        ([1, 0], [1, 2], 0.5),
        ([0, 0], [0, 0], np.nan),
    ],
    ids=["by hand", "in neither", "missed", "nothing to find"],
)
def test_mean_dice(predicted, truth, dice):
    found = mean_dice(np.array(predicted, np.int16), np.array(truth, np.int16), (1, 2))
    assert found == pytest.approx(dice, nan_ok=True)


def test_a_saved_segmenter_is_read_again_and_a_full_disk_leaves_none(tmp_path):
    batches = CaseBatches(CaseCache(SOURCE), SOURCE.space)
    judge = train_segmenter(batches, SOURCE.schema, SOURCE.space.size, FEW)
    case: Any = SOURCE.load(SOURCE.held_out_ids[0])
    assert mean_dice(judge.predict(case.image), case.labels, (1, 2)) > 0.6
    path = tmp_path / "segmenter.safetensors"
    with files_of_at_most(10), pytest.raises(EnvironmentFault, match="cannot be written"):
        judge.save(path)
    assert not list(tmp_path.iterdir())
    judge.save(path)
    again = load_segmenter(path, SOURCE.schema, SOURCE.space.size, FEW)
    assert np.array_equal(again.predict(case.image), judge.predict(case.image))
