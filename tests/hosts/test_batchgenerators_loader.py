from typing import Any

import numpy as np
import pytest
from batchgenerators.dataloading.data_loader import DataLoader, SlimDataLoaderBase
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.transforms.spatial_transforms import MirrorTransform

import gansynth
from gansynth.runtime.errors import UsageFault
from tests.expected import raises_fault

PATCH = (8, 8, 8)


class Cases(SlimDataLoaderBase):  # type: ignore[misc]
    """Batches of two: every voxel is the number of the batch, negative; every asking is counted."""

    patch_size = PATCH

    def __init__(self, batch_size: int = 2, channels: int = 1, **changes: Any) -> None:
        super().__init__(None, batch_size)
        self.asked = 0
        self.channels, self.changes = channels, changes

    def generate_train_batch(self) -> dict[str, Any]:
        self.asked += 1
        size = (self.batch_size, self.channels, *self.patch_size)
        data = np.full(size, -self.asked, np.float32)
        seg = np.zeros((self.batch_size, 1, *self.patch_size), np.float32)
        return {"data": data, "seg": seg, "keys": ["a", "b"], **self.changes}


def test_samples_take_slots_of_a_batch_and_the_rest_stays(toy_bank):
    loader = Cases()
    mixed = gansynth.mix_batches(loader, toy_bank(shape=PATCH), "1:1")
    for number in range(1, 9):
        batch = next(mixed)
        assert sorted(batch["synthetic"]) == [False, True]
        real, drawn = batch["synthetic"].index(False), batch["synthetic"].index(True)
        assert (batch["data"][real] == -number).all()
        assert not batch["seg"][real].any()
        assert 100 <= batch["data"][drawn].min() == batch["data"][drawn].max() < 108
        assert batch["seg"][drawn].sum() == 64
        assert batch["data"].dtype == batch["seg"].dtype == np.float32
        assert batch["keys"] == ["a", "b"]
    assert (loader.asked, mixed.counts().synthetic) == (8, 8)
    assert not hasattr(mixed, "was_initialized")  # other attributes are the loader's
    kept = np.zeros((2, 1, *PATCH), np.float32)
    kept.setflags(write=False)
    batch = next(gansynth.mix_batches(Cases(data=kept, seg=kept), toy_bank("b"), "1:1"))
    assert batch["data"].max() >= 100
    assert not kept.any()


def test_a_larger_sample_is_cropped_with_its_labels_at_random_or_around_foreground(toy_bank):
    def drawn(bank: Any, **told: Any) -> list[int]:
        mixed = gansynth.mix_batches(Cases(), bank, "0:1", **told)
        return [int(seg.sum()) for _ in range(20) for seg in next(mixed)["seg"]]

    sums = drawn(toy_bank(shape=(12, 9, 8)))
    assert len({*sums}) > 4
    assert max(sums) == 6 * 4 * 4
    large = toy_bank("large", shape=(40, 40, 8))
    assert min(drawn(large, foreground=1.0)) > 0
    assert drawn(large, foreground=0.0).count(0) > 4


def test_a_smaller_sample_is_padded_as_what_lies_outside(toy_bank):
    bank = toy_bank(shape=(4, 8, 8), has_outside=True, outside_fill=(-5.0,))
    batch = next(gansynth.mix_batches(Cases(), bank, "0:1"))
    image, labels = batch["data"][0, 0], batch["seg"][0, 0]
    assert (image[:2] == -5).all()
    assert (labels[-2:] == -1).all()
    assert (image[2:6] >= 100).all()
    assert set(np.unique(labels[2:6])) == {0, 1}


def test_synthetic_only_never_asks_the_loader_and_annealing_when_it_may(toy_bank):
    loader = Cases()
    batch = next(gansynth.mix_batches(loader, toy_bank(), "0:1", dtypes=("float16", "int8")))
    assert (batch["data"].dtype, batch["seg"].dtype) == (np.float16, np.int8)
    assert batch["data"].shape == (2, 1, *PATCH)
    assert batch["synthetic"] == [True, True]
    told: dict[str, Any] = {"schedule": "anneal:50%-100%", "batches": 8}
    mixed, asked = gansynth.mix_batches(loader, toy_bank("b"), "0:1", **told), []
    for _ in range(8):
        next(mixed)
        asked.append(loader.asked)
    # At 50 % all are synthetic still, and no real case may be drawn.
    assert asked == [0, 0, 0, 0, 0, 1, 2, 3]


def test_a_multi_threaded_augmenter_takes_it_and_its_workers_draw_distinct_samples(toy_bank):
    mixed = gansynth.mix_batches(Cases(), toy_bank(samples=64, shape=PATCH), "0:1")
    for _ in range(3):  # open in the parent, which a fork then inherits
        next(mixed)
    augmenter = MultiThreadedAugmenter(mixed, MirrorTransform(), 2, 1, seeds=[1, 2])
    try:
        assert {sum(next(augmenter)["synthetic"]) for _ in range(8)} == {2}
    finally:
        augmenter._finish()
    logs = [path.read_text().splitlines()[:6] for path in mixed.log.glob("draws-*.csv")]
    assert len({"".join(line.split(",")[1] for line in log) for log in logs}) == 3
    assert mixed.counts().synthetic >= 22


class Finite(DataLoader):  # type: ignore[misc]
    """Eight cases, each once an epoch, dealt out to two workers."""

    def __init__(self, **told: Any) -> None:
        super().__init__(list(range(8)), 2, 2, **told)
        self.indices = list(range(8))

    def generate_train_batch(self) -> dict[str, Any]:
        keys = self.get_indices()
        zeros = np.zeros((len(keys), 1, *PATCH), np.float32)
        return {"data": zeros, "seg": zeros.copy(), "keys": keys}


def test_an_epoch_of_a_finite_loader_ends_and_the_next_begins(toy_bank):
    mixed = gansynth.mix_batches(Finite(), toy_bank(), "1:1")
    augmenter = MultiThreadedAugmenter(mixed, None, 2, 1, seeds=[1, 2])
    try:
        epochs = [sorted(int(k) for batch in augmenter for k in batch["keys"]) for _ in range(2)]
    finally:
        augmenter._finish()
    assert epochs == [list(range(8))] * 2


def test_the_page_s_example_runs(example, toy_bank, capsys):
    names = example("batchgenerators", loader=Cases(), bank=toy_bank(shape=(12, 12, 12)))
    names["augmenter"]._finish()
    assert sum(names["batch"]["synthetic"]) == 1
    assert capsys.readouterr().out.startswith("(2, 1, 8, 8, 8) (2, 1, 8, 8, 8) [")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "fine-tuning": ({"schedule": "finetune:10%@80%", "batches": 9}, "choose_cases"),
    "no size": ({"loader": iter([])}, "shape=(D, H, W)"),
    "no loader": ({"loader": [Cases()]}, "loader: a list gives no batches"),
    "no types": ({"dtypes": ("float31", "int16")}, "dtypes=('float31', 'int16'): "),
    "one type": ({"dtypes": ("float32",)}, "dtypes=('float32',): "),
    "an epoch of nothing": ({"loader": Finite(), "shape": PATCH}, "expected infinite=True"),
    "no share": ({"foreground": 1.5}, "foreground=1.5: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mix_batches_refuses_at_once_in_one_line(toy_bank, name):
    wrong, says = REFUSED[name]
    told: dict[str, Any] = {"loader": Cases()} | wrong
    with pytest.raises(UsageFault) as caught:
        gansynth.mix_batches(told.pop("loader"), toy_bank(), "0:1", **told)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


UNSIGNED = np.zeros((2, 1, *PATCH), np.uint8)
MISFITS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "channels": ({"channels": 2}, {}, "hosts.loader-data-shape-differs"),
    "axes": ({}, {"shape": (8, 8)}, "hosts.loader-data-shape-differs"),
    "two segmentations": ({"seg": np.zeros((2, 2, *PATCH))}, {}, "hosts.loader-seg-shape-differs"),
    "no sign": ({"seg": UNSIGNED}, {"has_outside": True}, "hosts.loader-seg-unsigned"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_samples_that_do_not_fit_into_the_batch_stop_at_the_first(toy_bank, name):
    loader, bank, expected = MISFITS[name]
    with raises_fault(expected):
        next(gansynth.mix_batches(Cases(**loader), toy_bank(**bank), "1:1"))
