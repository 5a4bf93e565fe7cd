"""The wrapped training data set: ratio, safety, processes, and what nnU-Net's loader asks of it."""

import multiprocessing
import os
import pickle
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import DrawLog, Tally, summarise
from gansynth.bank.reader import BankReader, BankSpec, BankWriter
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.runtime.errors import DataFault, TrainingFault
from gansynth_nnunet.class_locations import decode, encode, location_keys
from gansynth_nnunet.mixed import MixedDataset
from gansynth_nnunet.source import open_nnunet


@pytest.fixture
def real(toy_nnunet):
    """nnU-Net's own data set of the fold's training cases."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    source = open_nnunet(toy_nnunet.request())
    return nnUNetDatasetBlosc2(str(source.folder), list(source.train_ids))


@pytest.fixture
def log(tmp_path):
    return tmp_path / "draws"


def mix(
    real: Any,
    bank: Path | None,
    p: float,
    batch_size: int = 2,
    seed: int = 0,
    log: Path | None = None,
    keys: Any = (),
    **plan: Any,
) -> MixedDataset:
    """Real cases (two channels) with the share p of a bank's samples."""
    told: MixPlan[str] = MixPlan(bank, Ratio(1 - p, p), seed=seed, log=log, **plan)
    return MixedDataset(real, told, batch_size, 2, keys)


def draw(mixed: MixedDataset, times: int) -> list[Any]:
    return [mixed.load_case(mixed.identifiers[i % len(mixed.identifiers)]) for i in range(times)]


def is_synthetic(loaded: Any) -> bool:
    return isinstance(loaded[0], np.ndarray)  # real cases are opened, not read


def empty_bank(source: Any, folder: Path) -> Path:
    spec = BankSpec(source.schema, source.lineage(), "toy", "0" * 64, frozen=False, capacity=4)
    BankWriter.create(folder, spec).close()
    return folder


# -- ratio ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "batch_size"), [(0.5, 2), (0.3, 18), (0.25, 1), (0.75, 3), (1, 2)])
def test_every_batch_holds_the_share_asked_for(real, frozen_bank, p, batch_size):
    mixed = mix(real, frozen_bank(), p, batch_size, 0, None)
    batches = [sum(map(is_synthetic, draw(mixed, batch_size))) for _ in range(60)]
    assert set(batches) <= {int(p * batch_size), int(np.ceil(p * batch_size))}
    asked = p * batch_size * np.arange(1, 61)
    assert np.abs(np.cumsum(batches) - asked).max() <= 1 + 1e-9


def test_every_slot_of_a_batch_is_synthetic_now_and_then(real, frozen_bank):
    mixed = mix(real, frozen_bank(), 0.5, 2, 0, None)
    first = [[is_synthetic(loaded) for loaded in draw(mixed, 2)].index(True) for _ in range(40)]
    assert 8 < sum(first) < 32


def test_without_synthetic_samples_no_bank_is_needed(real, log):
    draw(mix(real, None, 0.0, 2, 0, log), 6)
    assert (summarise(log).real, summarise(log).synthetic) == (6, 0)


def test_the_same_seed_draws_the_same(real, frozen_bank):
    bank = frozen_bank()
    runs = [draw(mix(real, bank, 1, 2, seed=3, log=None), 5) for _ in range(2)]
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(*runs, strict=True))


def test_another_rank_draws_something_else(real, frozen_bank):
    bank = frozen_bank()
    ranks = [draw(mix(real, bank, 1, 2, 3, None, stream=(rank,)), 8) for rank in (0, 1)]
    assert any(not np.array_equal(a[0], b[0]) for a, b in zip(*ranks, strict=True))


# -- what is returned ----------------------------------------------------------------------------


def test_a_sample_looks_like_a_case_to_nnunet(real, frozen_bank):
    mixed = mix(real, frozen_bank(), 1, 2, 0, None, keys=(1, 2))
    image, seg, previous, properties = mixed.load_case(mixed.identifiers[0])
    assert image.shape == (2, *seg.shape[1:])
    assert seg.shape[0] == 1
    assert seg.dtype == np.int16
    assert previous is None
    assert set(properties["class_locations"]) == {1, 2}


def test_writing_into_a_sample_does_not_change_the_bank(real, frozen_bank):
    mixed = mix(real, frozen_bank(samples=1), 1, 2, 0, None)
    first = mixed.load_case(mixed.identifiers[0])
    kept = first[0].copy()
    first[0][:], first[1][:] = 7, 7
    again = mixed.load_case(mixed.identifiers[0])
    assert np.array_equal(again[0], kept)
    assert not (again[1] == 7).any()


def test_a_real_case_is_the_one_nnunet_asked_for(real, frozen_bank):
    mixed = mix(real, frozen_bank(), 0, 2, 0, None)
    image, *_, properties = mixed[real.identifiers[1]]
    assert np.array_equal(image[:], real.load_case(real.identifiers[1])[0][:])
    assert "spacing" in properties


def test_everything_else_is_the_real_data_sets(real, frozen_bank):
    mixed = mix(real, frozen_bank(), 0.5, 2, 0, None)
    assert mixed.source_folder == real.source_folder
    assert mixed.identifiers is real.identifiers
    assert not hasattr(mixed, "no_such_thing")


# -- trouble with the bank -----------------------------------------------------------------------


def test_an_empty_bank_gives_real_cases_and_counts_them(real, toy_nnunet, tmp_path, log):
    bank = empty_bank(open_nnunet(toy_nnunet.request()), tmp_path / "empty")
    loaded = draw(mix(real, bank, 0.5, 2, 0, log), 8)
    counts = summarise(log)
    assert not any(map(is_synthetic, loaded))
    assert (counts.real, counts.fell_back, counts.missing) == (8, 4, 1.0)
    assert counts.reasons == {"the bank is empty": 4}


def test_a_bank_that_goes_away_stops_nothing(real, frozen_bank, log):
    bank = frozen_bank()
    mixed = mix(real, bank, 0.5, 2, 0, log)
    shutil.rmtree(bank)
    draw(mixed, 4)
    assert summarise(log).fell_back == 2


def test_a_damaged_bank_stops_nothing(real, frozen_bank, log):
    bank = frozen_bank()
    for segment in bank.glob("segment-*.h5"):
        segment.write_bytes(segment.read_bytes()[:600])
    draw(mix(real, bank, 0.5, 2, 0, log), 4)
    assert summarise(log).fell_back == 2


def test_a_bank_of_one_channel_is_refused_for_data_of_two(real, toy_nnunet, tmp_path):
    source = open_nnunet(toy_nnunet.request())
    schema = replace(source.schema, channels=("T1",), outside_fill=(0.0,))
    spec = BankSpec(schema, source.lineage(), "toy", "0" * 64, frozen=True, capacity=1)
    BankWriter.create(tmp_path / "one", spec).close()
    with pytest.raises(DataFault, match=r"1 channel\(s\), the training cases 2"):
        mix(real, tmp_path / "one", 0.5, 2, 0, None)


def test_where_no_real_case_may_slip_in_it_waits_and_then_stops(real, toy_nnunet, tmp_path):
    bank = empty_bank(open_nnunet(toy_nnunet.request()), tmp_path / "empty")
    mixed = mix(real, bank, 1, 2, 0, None, patience=0.5)
    with pytest.raises(TrainingFault, match=r"no synthetic sample after 0\.5 s"):
        mixed.load_case(mixed.identifiers[0])


# -- processes -----------------------------------------------------------------------------------


def fork(work: Callable[[], Any]) -> Any:
    """Run work() in a forked process, as nnU-Net's workers are, to its end."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process


def test_forked_workers_do_not_repeat_each_other(real, frozen_bank, log):
    mixed = mix(real, frozen_bank(samples=12), 1, 2, 0, log)
    draw(mixed, 1)  # open in the parent, which a fork then inherits
    for _ in range(2):
        assert fork(lambda: draw(mixed, 12)).exitcode == 0
    orders = [path.read_text() for path in log.glob("draws-*.csv")]
    assert sorted(text.count("synthetic") for text in orders) == [1, 12, 12]
    assert len(set(orders)) == 3


def test_a_killed_worker_loses_no_count(real, frozen_bank, log):
    mixed = mix(real, frozen_bank(), 1, 2, 0, log)

    def work():
        draw(mixed, 5)
        os.kill(os.getpid(), signal.SIGKILL)

    assert fork(work).exitcode == -signal.SIGKILL
    assert summarise(log).synthetic == 5


def test_it_works_in_a_spawned_process(real, frozen_bank, log):
    mixed = mix(real, frozen_bank(), 1, 2, 0, log)
    draw(mixed, 1)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        image = pool.submit(mixed.load_case, real.identifiers[0]).result()[0]
    assert image.shape[0] == 2
    assert summarise(log).synthetic == 2


def test_a_pickle_carries_nothing_open(real, frozen_bank):
    mixed = mix(real, frozen_bank(), 0.5, 2, 0, None)
    before = len(pickle.dumps(mixed))
    draw(mixed, 4)
    assert len(pickle.dumps(mixed)) == before


# -- counting ------------------------------------------------------------------------------------


def test_distinct_samples_and_reuse_are_counted(tmp_path):
    log = DrawLog(tmp_path)
    for sample in ("000000-00", "000000-01", "000000-00"):
        log.append("synthetic", sample, "case,\nwith a comma")
    counts = summarise(tmp_path)
    assert (counts.distinct, counts.reuse, counts.realised) == (2, 1.5, 1.0)


def test_a_tally_reads_only_whole_new_lines(tmp_path):
    tally, path = Tally(tmp_path), tmp_path / "draws-host-1.csv"
    path.write_text("real,a,\nsynthetic,b")
    assert (tally.update().real, tally.update().synthetic) == (1, 0)
    path.write_text("real,a,\nsynthetic,b,c\n")
    assert (tally.update().real, tally.update().synthetic) == (1, 1)


def test_a_full_disk_under_the_log_stops_nothing(real, frozen_bank, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert draw(mix(real, frozen_bank(), 0.5, 2, 0, tmp_path / "file"), 4)


# -- voxels of labels and regions ----------------------------------------------------------------


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
    mixed = mix(real, tmp_path / "regions", 1, 2, 0, None, keys=keys)
    loader = nnUNetDataLoader(mixed, 2, (20, 20, 20), (16, 16, 16), manager, 0.33)
    batches = [loader.generate_train_batch() for _ in range(4)]
    assert all(batch["data"].shape == (2, 2, 20, 20, 20) for batch in batches)
    # The last of two slots is one that must hold foreground.
    assert all((batch["target"][1] > 0).any() for batch in batches)


def test_forced_foreground_is_spread_over_the_labels(real, toy_nnunet, frozen_bank):
    mixed = mix(real, frozen_bank(), 1, 2, 0, None, keys=(1, 2))
    seen: Counter[Any] = Counter()
    for _, seg, _, properties in draw(mixed, 20):
        for key, voxels in properties["class_locations"].items():
            seen[key] += len(voxels)
            assert (seg[tuple(voxels.T)] == key).all()
    assert min(seen.values()) > 0
