"""Samples that nnU-Net got are drawn again from its draw log, or an export's record: to the bit."""

import csv
import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth import replay
from gansynth.bank.producer_main import ProducerConfig, _run
from gansynth.bank.reader import BankReader
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.core.sample_request import SampleRequest
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.sampling.open_run import load_run
from gansynth.sampling.replay import Record, read_record
from gansynth_nnunet.mixed import MixedDataset
from gansynth_nnunet.source import open_nnunet

pytestmark = pytest.mark.filterwarnings("ignore")
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
    how: dict[str, Any] = {"frozen": not live, "capacity": 4, "segment_samples": 2, "duty": 1.0}
    if not live:
        filters = ("range:tolerance=60",)
        how["samples"] = SampleRequest(edits=("shift", "flip"), filters=filters)
    words = (str(fitted), source.request.to_json(), "nnunet", str(bank))
    real = nnUNetDatasetBlosc2(str(source.folder), list(source.train_ids))
    plan: MixPlan[str] = MixPlan(bank, Ratio(0, 1), log=folder / "draws")
    mixed = functools.cache(lambda: MixedDataset(real, plan, 2, 2))
    drawn: list[Any] = []

    def stop() -> bool:
        """A live bank is drawn from while it is filled."""
        if live and BankReader(bank).count() >= how["capacity"]:
            drawn.append(mixed().load_case(source.train_ids[0]))
        return len(drawn) == DRAWS

    with pytest.MonkeyPatch.context() as patch:
        generator = type(load_run(fitted, "cpu").generator)
        flaw = staticmethod(lambda sample: "odd" * (sample.provenance["index"] % 3 == 0))
        patch.setattr(generator, "flaw", lambda self, sample: flaw(sample))
        _run(ProducerConfig(*words, device="cpu", **how), stop)
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


def test_the_log_has_the_samples_number_not_its_place_in_the_bank(host):
    numbers = [read_record(f"{host.log}:{n}").index for n in host.rows]
    assert all(number % 3 for number in numbers)  # every third was rejected
    size = BankReader(host.bank).spec.segment_samples
    places = [int(r[1][:6]) * size + int(r[1][7:]) for r in host.rows.values()]
    assert numbers != places


def test_a_live_bank_has_some_of_them_no_more(host):
    held = set(BankReader(host.bank).ids())
    assert ({row[1] for row in host.rows.values()} <= held) == host.frozen


def test_a_crop_that_was_padded_comes_back_too(host):
    reader = BankReader(host.bank)
    told = [reader.read(name).provenance for name in reader.ids()]
    padded = [one for one in told if min(one["placement"]["corner"]) < 0]
    assert padded
    again = replay(host.run, padded[0])
    assert again.labels is not None
    assert (again.labels == -1).any()
    assert (again.image[:, again.labels == -1] == 0).all()


def test_another_run_does_not_replay_it(host, tmp_path):
    other = tmp_path / "run"
    other.mkdir()
    manifest = json.loads((host.run / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "run_id": "another"}))
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


def test_a_record_that_says_otherwise_what_was_asked_is_refused():
    told = {"index": 0, "seed": 0, "sha256": "f", "settings": {"asking": {"lesions": "what=one"}}}
    with pytest.raises(UsageFault, match="provenance: was drawn by a gansynth that noted otherwi"):
        Record.of(told, "provenance")


def test_an_exported_case_comes_back_from_the_exports_record(toy_copy, fitted, tmp_path, run_cli):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    run = Path(shutil.copytree(fitted, tmp_path / "run"))
    command = ("augment", "--target", "nnunet", *toy_copy.options, "--generator", run)
    asked = ("--device", "cpu", "--ratio", "2:1", "--seed", "3", "--export", "Dataset510_Plus")
    result = run_cli(*command, *asked, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["synthetic_cases"], report["rejected"]) == (2, {})
    assert report["record"] == str(run / "exports" / "Dataset510_Plus.json")
    data = nnUNetDatasetBlosc2(str(Path(report["folder"]) / "nnUNetPlans_3d_fullres"))
    for name in ("synthetic_0001", "synthetic_0002"):
        image, labels, *_ = data.load_case(name)
        again: Any = replay(run, f"{report['record']}:{name}")
        assert again.provenance["seed"] == 3
        assert np.array_equal(again.image, image[...])
        assert np.array_equal(again.labels, labels[0])
