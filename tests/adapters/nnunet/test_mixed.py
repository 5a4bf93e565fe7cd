import csv
import functools
import json
import pickle
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth import replay
from gansynth.bank.draw_log import summarise
from gansynth.bank.producer import ProducerConfig, run_producer
from gansynth.bank.reader import BankReader
from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import write_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import lineage_of
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.sampling.open_run import load_run
from gansynth.sampling.replay import SampleRecord, read_record
from gansynth_nnunet.class_locations import decode, encode, location_keys
from gansynth_nnunet.mixed import MixedNnunetDataset
from gansynth_nnunet.source import open_nnunet
from tests.banks import write_bank

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def real(toy_nnunet):
    """nnU-Net's own data set of the fold's training cases."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    source = open_nnunet(toy_nnunet.request())
    return nnUNetDatasetBlosc2(str(source.folder), list(source.train_ids))


def mix(real: Any, bank: Path, p: float, keys: Any = (), **plan: Any) -> MixedNnunetDataset:
    """Real cases (two channels) with the share p of a bank's samples, in batches of two."""
    told: MixerConfig[str] = MixerConfig(bank, Ratio(1 - p, p), **plan)
    return MixedNnunetDataset(real, told, 2, 2, keys)


def draw(mixed: MixedNnunetDataset, times: int) -> list[Any]:
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
    write_bank(tmp_path / "one", schema, lineage_of(source))
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


def test_locations_come_back_for_regions_and_the_ignore_label():
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    names = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    keys = location_keys(LabelManager(names, regions_class_order=[1, 2]))
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


def test_forced_foreground_is_spread_over_the_labels(real, frozen_bank):
    mixed = mix(real, frozen_bank(), 1, keys=(1, 2))
    seen: Counter[Any] = Counter()
    for _, seg, _, properties in draw(mixed, 20):
        for key, voxels in properties["class_locations"].items():
            seen[key] += len(voxels)
            assert (seg[tuple(voxels.T)] == key).all()
    assert min(seen.values()) > 0


DRAWS = 10


@dataclass(frozen=True)
class Host:
    """What nnU-Net's data set gave: image and labels of each draw, and where that was logged."""

    run: Path
    bank: Path
    got: list[tuple[Any, Any]]
    log: Path

    @property
    def frozen(self) -> bool:
        return BankReader(self.bank).spec.frozen

    @property
    def rows(self) -> dict[int, list[str]]:
        """Number of a line -> its cells, of the samples."""
        with self.log.open(newline="") as file:
            return {n: r for n, r in enumerate(csv.reader(file), 1) if r[0] == "synthetic"}


@pytest.fixture(scope="module", params=["frozen", "live"])
def host(request, toy_nnunet, fitted, tmp_path_factory) -> Host:
    """Of a generator that finds every third of its own samples flawed."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    folder, source = tmp_path_factory.mktemp("host"), open_nnunet(toy_nnunet.request())
    bank, live = folder / "bank", request.param == "live"
    how: dict[str, Any] = {"frozen": not live, "capacity": 4, "duty": 1.0}
    if not live:
        filters = ("range:tolerance=60",)
        how["samples"] = SampleRequest(edits=("shift", "flip"), filters=filters)
    words = (str(fitted), source.request.to_json(), "nnunet", str(bank))
    real = nnUNetDatasetBlosc2(str(source.folder), list(source.train_ids))
    plan: MixerConfig[str] = MixerConfig(bank, Ratio(0, 1), log=folder / "draws")
    mixed = functools.cache(lambda: MixedNnunetDataset(real, plan, 2, 2))
    drawn: list[Any] = []

    def stop() -> bool:
        """A live bank is drawn from while it is filled."""
        if live and BankReader(bank).count() >= how["capacity"]:
            drawn.append(mixed().load_case(source.train_ids[0]))
        return len(drawn) == DRAWS

    with pytest.MonkeyPatch.context() as patch:
        generator = type(load_run(fitted, "cpu").generator)
        reject_reason = staticmethod(lambda sample: "odd" * (sample.provenance["index"] % 3 == 0))
        patch.setattr(generator, "reject_reason", lambda self, sample: reject_reason(sample))
        run_producer(ProducerConfig(*words, device="cpu", **how), stop)
    drawn += [mixed().load_case(source.train_ids[0]) for _ in range(DRAWS - len(drawn))]
    got = [(image, labels[0]) for image, labels, *_ in drawn]
    return Host(fitted, bank, got, *(folder / "draws").glob("draws-*.csv"))


def test_every_draw_comes_back_to_the_bit(host):
    assert len(host.rows) == DRAWS
    for number, (image, labels) in zip(host.rows, host.got, strict=True):
        again: Any = replay(host.run, f"{host.log}:{number}")
        assert again.image.dtype == np.float32
        assert np.array_equal(again.image, image.astype(np.float32))
        assert np.array_equal(again.labels, labels)


def test_the_place_of_the_data_set_is_known_from_the_run(host, monkeypatch):
    """nnU-Net's training has its folders from the environment, so its record names no root."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.delenv(f"nnUNet_{name}", raising=False)
    reader = BankReader(host.bank)
    name = reader.ids()[0]
    told = reader.read(name).provenance
    request = {**load_run(host.run, "cpu").request.to_json(), "root": None}
    settings = {**told["settings"], "host": {"target": "nnunet", "request": request}}
    again = replay(host.run, {**told, "settings": settings})
    assert np.array_equal(again.image, reader.read(name).image.astype(np.float32))


def test_the_log_has_the_samples_number_not_its_place_in_the_bank(host):
    numbers = [read_record(f"{host.log}:{n}").index for n in host.rows]
    assert all(number % 3 for number in numbers)  # every third was rejected
    assert numbers != [int(row[1]) for row in host.rows.values()]


def test_a_live_bank_has_some_of_them_no_more(host):
    held = set(BankReader(host.bank).ids())
    assert ({row[1] for row in host.rows.values()} <= held) == host.frozen


def test_another_run_does_not_replay_it(host, tmp_path):
    other = tmp_path / "run"
    other.mkdir()
    manifest = json.loads((host.run / "manifest.json").read_text())
    write_manifest(other, {**manifest, "run_id": "another"})
    with pytest.raises(IntegrityFault, match=r"was drawn by .*expected that run"):
        replay(other, f"{host.log}:{next(iter(host.rows))}")


def test_what_comes_out_otherwise_is_said(host, caplog):
    (name,) = BankReader(host.bank).ids()[:1]
    told = BankReader(host.bank).read(name).provenance
    gpu = {**told, "settings": {**told["settings"], "device": "cuda", "model": "X"}}
    replay(host.run, {**gpu, "sha256": "0" * 64})
    assert "not the same to the bit" in caplog.text
    assert "device cuda, now cpu" in caplog.text
    assert "Expect the same but for rounding" in caplog.text


def test_a_record_that_is_none_is_refused(host):
    says = {
        "": "expected FILE:LINE of a draw log",
        ":999": "no line 999, expected the number of one of",
        ":1": "line 1 is 'settings ', expected one that begins with synthetic",
    }
    for line, words in says.items():
        with pytest.raises(UsageFault, match=words):
            replay(host.run, f"{host.log}{line}")


DAMAGED = {
    "settings,,{\nsynthetic,0-1,a,1,f": "its settings are damaged",
    "settings,,[]\nsynthetic,0-1,a,1,f": "its settings are damaged",
    "settings\nsynthetic,0-1,a,1,f": "has no sample's number",
    '\nsynthetic,"' + "x" * 200000: "damaged .field larger than field limit",
}


@pytest.mark.parametrize(("text", "words"), DAMAGED.items(), ids=range(len(DAMAGED)))
def test_a_damaged_record_is_refused(text, words, tmp_path):
    (tmp_path / "draws-host-1.csv").write_text(text)
    with pytest.raises((DataFault, UsageFault), match=words):
        read_record(f"{tmp_path}/draws-host-1.csv:2")


def test_a_record_that_says_otherwise_what_was_asked_is_refused():
    told = {"index": 0, "seed": 0, "sha256": "f", "settings": {"asking": {"lesions": "what=one"}}}
    with pytest.raises(UsageFault, match="provenance: was written by another version of gansynth"):
        SampleRecord.of(told, "provenance")


def test_an_exported_case_comes_back_from_the_exports_record(toy_copy, fitted, tmp_path, run_cli):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    run = Path(shutil.copytree(fitted, tmp_path / "run"))
    command = ("augment", "--target", "nnunet", *toy_copy.options, "--generator", run)
    asked = ("--device", "cpu", "--ratio", "2:1", "--seed", "3", "--export", "Dataset510_Plus")
    result = run_cli(*command, *asked, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["synthetic_cases"], report["rejected"]) == (2, {})
    assert report["record"] == str(Path(report["folder"]) / "provenance.json")
    data = nnUNetDatasetBlosc2(str(Path(report["folder"]) / "nnUNetPlans_3d_fullres"))
    for name in ("synthetic_0001", "synthetic_0002"):
        image, labels, *_ = data.load_case(name)
        again: Any = replay(run, f"{report['record']}:{name}")
        assert again.provenance["seed"] == 3
        assert np.array_equal(again.image, image[...])
        assert np.array_equal(again.labels, labels[0])
