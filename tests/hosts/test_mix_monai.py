from typing import Any

import numpy as np
import pytest

CASES = 6
SHAPE = (18, 18, 18)


def test_a_small_unet_trains_on_real_cases_and_samples(toy_bank, example):
    pytest.importorskip("monai")
    rng = np.random.default_rng(0)
    label = np.zeros((1, *SHAPE), np.float32)
    label[0, 4:12, 4:12, 4:12] = 1
    cases = [
        {"image": rng.normal(size=label.shape).astype(np.float32) + 3 * label, "label": label}
        for _ in range(CASES)
    ]
    bank = toy_bank(shape=SHAPE)
    names = example("monai", cases=cases, bank=bank, epochs=2, workers=0)
    counts = names["mixed"].counts()
    assert (counts.real, counts.synthetic, counts.fell_back) == (CASES, CASES, 0)
    assert len(names["losses"]) == CASES
    assert np.isfinite(names["losses"]).all()
    batch = next(iter(names["loader"]))
    assert tuple(batch["image"].shape) == (2, 1, 16, 16, 16)
    assert sorted(float(image.max()) >= 100 for image in batch["image"]) == [False, True]


def test_monai_seeds_the_random_transforms_of_a_mixed_data_set(toy_bank):
    pytest.importorskip("monai")
    from monai.data.utils import set_rnd
    from monai.transforms.croppad.dictionary import RandSpatialCropd
    from monai.transforms.transform import Randomizable

    import gansynth

    class Cases(Randomizable):  # as MONAI's own data sets of challenges are
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            raise AssertionError("no real item is asked for")

    crop: Any = RandSpatialCropd("image", (2, 2, 2), random_size=False)
    mixed = gansynth.mix(Cases(), toy_bank(), "0:1", transform=crop)
    mixed[0]  # in use, with a bank open
    states = []
    for seed in (1, 1, 2):
        set_rnd(mixed, seed)
        states.append(repr(crop.cropper.R.get_state()))
    assert states[0] == states[1]
    assert states[0] != states[2]
    assert tuple(mixed[0]["image"].shape) == (1, 2, 2, 2)
