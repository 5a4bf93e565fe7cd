from typing import Any

import numpy as np
import pytest

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.sampler import ConditionSampler
from tests.data import sets

MM = (2.0, 1.0, 1.5)  # z, y, x
SHAPES = {"a": (60, 40, 30), "b": (44, 52, 40), "c": (40, 40, 48), "d": (52, 48, 36)}  # x, y, z


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Cases of different shapes with a ball of 8 mm in the middle."""
    home = tmp_path_factory.mktemp("mm")
    for case, shape in SHAPES.items():
        places = np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) / 2
        away = np.sqrt(sum((axis * mm) ** 2 for axis, mm in zip(places, MM[::-1], strict=True)))
        noise = np.random.default_rng(len(case)).normal(100, 5, shape)
        affine = np.diag([*MM[::-1], 1.0])
        sets.save(home / f"images/{case}.nii", (noise + 50 * (away < 8)).astype(np.float32), affine)
        sets.save(home / f"labels/{case}.nii", (away < 8).astype(np.uint8), affine)
    return home


@pytest.mark.parametrize("frame", [None, (40, 40, 30)], ids=["whole", "frame"])
@pytest.mark.parametrize("moving", [False, True], ids=["labels", "image"])
def test_labels_move_by_the_millimetres_that_are_told(folder, frame, moving):
    read = {"whole": "16,16,16"} | ({} if frame is None else {"frame": "40,40,30"})
    source = sets.opened(folder, folds="2", spacing="native", **read)
    edits = build_edits(["shift:max_mm=8"])
    sampler = ConditionSampler(source, source.space, edits, moving=moving)
    for index in range(8):
        condition = sampler.draw(index)
        case = source.load(condition.provenance["case"])
        before: Any = source.space.to_generator(case).labels
        shown = frame or case.image.shape[1:]
        mm = np.array(MM) * shown / np.array(before.shape)
        moved = (middle(condition.labels) - middle(before)) * mm
        (step,) = condition.provenance["edits"]
        assert (np.abs(moved - step["params"]["shift_mm"]) <= 0.5 * mm + 0.1).all()


def middle(labels: Any) -> Any:
    return np.argwhere(labels > 0).mean(axis=0)
