import pytest
import torch

SUBJECTS = 6
SHAPE = (12, 14, 16)


def test_subjects_and_patches_are_mixed(example, toy_bank):
    tio = pytest.importorskip("torchio")
    generator = torch.Generator().manual_seed(0)
    subjects = [
        tio.Subject(
            image=tio.ScalarImage(tensor=torch.randn(1, *SHAPE, generator=generator)),
            label=tio.LabelMap(tensor=torch.zeros(1, *SHAPE, dtype=torch.int16)),
        )
        for _ in range(SUBJECTS)
    ]
    bank = toy_bank(shape=SHAPE[::-1])
    names = example("torchio", subjects=subjects, bank=bank, workers=0)
    assert [tuple(volumes.shape) for volumes in names["volumes"]] == [(2, 1, *SHAPE)] * 3
    # ZNormalization brings real images to 0; samples are 100 and more.
    drawn = [[float(v.mean()) > 50 for v in volumes] for volumes in names["volumes"]]
    assert [sorted(batch) for batch in drawn] == [[False, True]] * 3
    patches = torch.cat(names["patches"])
    assert tuple(patches.shape) == (2 * SUBJECTS, 1, 8, 8, 8)
    assert sum(float(patch.mean()) > 50 for patch in patches) == SUBJECTS
    counts = names["mixed"].counts()
    assert (counts.real, counts.synthetic, counts.fell_back) == (SUBJECTS, SUBJECTS, 0)
