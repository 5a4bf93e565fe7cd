import importlib
from typing import Any

import pytest
import torch

pytest.importorskip("torchio")

SUBJECTS = 6
SHAPE = (12, 14, 16)


@pytest.mark.parametrize("workers", [0, 2])
def test_subjects_and_patches_are_mixed(example, toy_bank, workers):
    tio: Any = importlib.import_module("torchio")
    generator = torch.Generator().manual_seed(0)
    subjects = [
        tio.Subject(
            image=tio.ScalarImage(tensor=torch.randn(1, *SHAPE, generator=generator)),
            label=tio.LabelMap(tensor=torch.zeros(1, *SHAPE, dtype=torch.int16)),
        )
        for _ in range(SUBJECTS)
    ]
    bank = toy_bank(shape=SHAPE[::-1])
    names = example("torchio", subjects=subjects, bank=bank, workers=workers)
    assert [tuple(volumes.shape) for volumes in names["volumes"]] == [(2, 1, *SHAPE)] * 3
    # ZNormalization brings real images to 0; samples are 100 and more.
    drawn = [[float(v.mean()) > 50 for v in volumes] for volumes in names["volumes"]]
    assert [sorted(batch) for batch in drawn] == [[False, True]] * 3
    patches = torch.cat(names["patches"])
    assert tuple(patches.shape) == (2 * SUBJECTS, 1, 8, 8, 8)
    # Each worker's first two subjects are one of each kind; its third may be either.
    patched = sum(float(patch.mean()) > 50 for patch in patches)
    assert patched in ((SUBJECTS,) if workers == 0 else (4, 6, 8))
    counts = names["mixed"].counts()
    assert (counts.real + counts.synthetic, counts.fell_back) == (2 * SUBJECTS, 0)
    assert counts.synthetic == SUBJECTS // 2 + patched // 2
