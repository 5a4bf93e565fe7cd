"""Records of samples: draw logs, and the provenance that banks and exports keep."""

import json

import pytest

from gansynth import replay
from gansynth.bank.api import fill_bank
from gansynth.bank.reader import BankReader
from gansynth.core.run_folder import write_manifest
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.sampling.replay import SampleRecord, read_record

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


@pytest.fixture(scope="module")
def bank(fitted, tmp_path_factory):
    return fill_bank(fitted, tmp_path_factory.mktemp("records") / "bank", 2, device="cpu")


def test_another_run_does_not_replay_a_sample(fitted, bank, tmp_path):
    reader = BankReader(bank)
    manifest = json.loads((fitted / "manifest.json").read_text())
    write_manifest(tmp_path, {**manifest, "run_id": "another"})
    with pytest.raises(IntegrityFault, match=r"was drawn by .*expected that run"):
        replay(tmp_path, reader.read(reader.ids()[0]).provenance)


def test_what_comes_out_otherwise_is_said(fitted, bank, caplog):
    reader = BankReader(bank)
    told = reader.read(reader.ids()[0]).provenance
    gpu = {**told, "settings": {**told["settings"], "device": "cuda", "model": "X"}}
    replay(fitted, {**gpu, "sha256": "0" * 64})
    assert "not the same to the bit" in caplog.text
    assert "device cuda, now cpu" in caplog.text
    assert "Expect the same but for rounding" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "expected FILE:LINE of a draw log"),
        (":999", "no line 999, expected the number of one of"),
        (":1", "line 1 is 'settings ', expected one that begins with synthetic"),
    ],
)
def test_a_record_that_is_none_is_refused(tmp_path, line, message):
    log = tmp_path / "draws-host-1.csv"
    log.write_text("settings,,{}\nsynthetic,0-1,a,1,f\n")
    with pytest.raises(UsageFault, match=message):
        read_record(f"{log}{line}")
