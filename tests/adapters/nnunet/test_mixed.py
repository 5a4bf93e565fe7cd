"""The wrapped training data set: what nnU-Net's loader asks of it, and of each sample."""

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.bank.reader import BankReader, BankSpec, BankWriter
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.runtime.errors import DataFault
from gansynth_nnunet.class_locations import decode, encode, location_keys
from gansynth_nnunet.mixed import MixedDataset
from gansynth_nnunet.source import open_nnunet


@pytest.fixture
def real(toy_nnunet):
    """nnU-Net's own data set of the fold's training cases."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    source = open_nnunet(toy_nnunet.request())
    return nnUNetDatasetBlosc2(str(source.folder), list(source.train_ids))


def mix(real: Any, bank: Path, p: float, keys: Any = (), **plan: Any) -> MixedDataset:
    """Real cases (two channels) with the share p of a bank's samples, in batches of two."""
    told: MixPlan[str] = MixPlan(bank, Ratio(1 - p, p), **plan)
    return MixedDataset(real, told, 2, 2, keys)


def draw(mixed: MixedDataset, times: int) -> list[Any]:
    return [mixed.load_case(mixed.identifiers[i % len(mixed.identifiers)]) for i in range(times)]


def is_synthetic(loaded: Any) -> bool:
    return isinstance(loaded[0], np.ndarray)  # real cases are opened, not read


def test_every_slot_of_a_batch_is_synthetic_now_and_then(real, frozen_bank):
    mixed = mix(real, frozen_bank(), 0.5)
    first = [[is_synthetic(loaded) for loaded in draw(mixed, 2)].index(True) for _ in range(40)]
    assert 8 < sum(first) < 32


def test_everything_else_is_the_real_data_sets(real, frozen_bank):
    mixed = mix(real, frozen_bank(), 0)
    image, *_, properties = mixed[real.identifiers[1]]
    assert np.array_equal(image[:], real.load_case(real.identifiers[1])[0][:])
    assert "spacing" in properties
    assert mixed.source_folder == real.source_folder
    assert mixed.identifiers is real.identifiers
    assert not hasattr(mixed, "no_such_thing")


def test_a_bank_of_one_channel_is_refused_for_data_of_two(real, toy_nnunet, tmp_path):
    source = open_nnunet(toy_nnunet.request())
    schema = replace(source.schema, channels=("T1",), outside_fill=(0.0,))
    spec = BankSpec(schema, source.lineage(), "toy", "0" * 64, frozen=True, capacity=1)
    BankWriter.create(tmp_path / "one", spec).close()
    with pytest.raises(DataFault, match=r"1 channel\(s\), the training cases 2"):
        mix(real, tmp_path / "one", 0.5)


def test_a_pickle_carries_nothing_open_and_draws_on(real, frozen_bank, tmp_path):
    mixed = mix(real, frozen_bank(), 1, log=tmp_path / "draws")
    before = len(pickle.dumps(mixed))
    draw(mixed, 1)
    pickled = pickle.dumps(mixed)
    assert len(pickled) == before
    assert pickle.loads(pickled).load_case(real.identifiers[0])[0].shape[0] == 2
    assert summarise(tmp_path / "draws").synthetic == 2


def region_manager() -> Any:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    return LabelManager(labels, regions_class_order=[1, 2])


def test_locations_come_back_for_regions_and_the_ignore_label():
    keys = location_keys(region_manager())
    labels = np.random.default_rng(0).integers(-1, 3, (9, 8, 7)).astype(np.int16)
    found = decode(encode(labels, keys), keys)
    assert set(found) == {(1, 2), 2, (-1, 0, 1, 2)}
    for key, voxels in found.items():
        assert (voxels[:, 0] == 0).all()
        drawn = labels[tuple(voxels[:, 1:].T)]
        assert set(drawn.tolist()) == set(key if isinstance(key, tuple) else (key,))


def test_a_label_that_does_not_occur_has_its_key_all_the_same():
    found = decode(encode(np.zeros((4, 4, 4), np.int16), (1, (1, 2))), (1, (1, 2), 5))
    assert {key: len(voxels) for key, voxels in found.items()} == {1: 0, (1, 2): 0, 5: 0}


def test_nnunets_loader_takes_samples_of_regions_with_an_ignore_label(
    real, toy_nnunet, frozen_bank, tmp_path
):
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

    manager = region_manager()
    keys = location_keys(manager)
    sample: Any = BankReader(frozen_bank()).read("000000-00")
    source = open_nnunet(toy_nnunet.request())
    spec = BankSpec(source.schema, source.lineage(), "toy", "0" * 64, frozen=True, capacity=1)
    with BankWriter.create(tmp_path / "regions", spec) as writer:
        writer.publish([(sample, encode(sample.labels, keys))])
    mixed = mix(real, tmp_path / "regions", 1, keys=keys)
    loader = nnUNetDataLoader(mixed, 2, (20, 20, 20), (16, 16, 16), manager, 0.33)
    batches = [loader.generate_train_batch() for _ in range(4)]
    assert all(batch["data"].shape == (2, 2, 20, 20, 20) for batch in batches)
    # The last of two slots is one that must hold foreground.
    assert all((batch["target"][1] > 0).any() for batch in batches)


def test_forced_foreground_is_spread_over_the_labels(real, frozen_bank):
    mixed = mix(real, frozen_bank(), 1, keys=(1, 2))
    seen: Counter[Any] = Counter()
    for _, seg, _, properties in draw(mixed, 20):
        for key, voxels in properties["class_locations"].items():
            seen[key] += len(voxels)
            assert (seg[tuple(voxels.T)] == key).all()
    assert min(seen.values()) > 0
