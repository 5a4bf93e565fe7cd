"""Records of samples: draw logs, and the provenance that banks and exports keep."""

import json

import pytest

from gansynth import replay
from gansynth.core.run_folder import write_manifest
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.sampling.replay import SampleRecord, read_record
from gansynth.sampling.sample import sample

SOUND = "settings,,{}\nsynthetic,0-1,a,1,f\n"
REFUSED = [
    ("settings,,{\nsynthetic,0-1,a,1,f", ":2", "its settings are damaged"),
    ("settings,,[]\nsynthetic,0-1,a,1,f", ":2", "its settings are damaged"),
    ("settings\nsynthetic,0-1,a,1,f", ":2", "has no sample's number"),
    ('\nsynthetic,"' + "x" * 200000, ":2", "damaged .field larger than field limit"),
    (SOUND, "", "expected FILE:LINE of a draw log"),
    (SOUND, ":999", "no line 999, expected the number of one of"),
    (SOUND, ":1", "line 1 is 'settings ', expected one that begins with synthetic"),
]


@pytest.mark.parametrize(("text", "line", "words"), REFUSED, ids=range(len(REFUSED)))
def test_a_record_that_is_none_is_refused(text, line, words, tmp_path):
    log = tmp_path / "draws-host-1.csv"
    log.write_text(text)
    with pytest.raises((DataFault, UsageFault), match=words):
        read_record(f"{log}{line}")


def test_a_record_that_says_otherwise_what_was_asked_is_refused():
    told = {"index": 0, "seed": 0, "sha256": "f", "settings": {"asking": {"lesions": "what=one"}}}
    with pytest.raises(UsageFault, match="provenance: was written by another version of gansynth"):
        SampleRecord.of(told, "provenance")


@pytest.fixture(scope="module")
def drawn(toy_fit, tmp_path_factory):
    """A run, and the provenance of a sample of it."""
    folder = tmp_path_factory.mktemp("records")
    toy_fit(folder / "run", steps=0)
    sample(folder / "run", n=1, out=folder / "out", device="cpu", quiet=True)
    samples = json.loads((folder / "out/provenance.json").read_text())["samples"]
    return folder / "run", samples["sample-0000"]


def test_another_run_does_not_replay_a_sample(drawn, tmp_path):
    run, told = drawn
    manifest = json.loads((run / "manifest.json").read_text())
    write_manifest(tmp_path, {**manifest, "run_id": "another"})
    with pytest.raises(IntegrityFault, match=r"was drawn by .*expected that run"):
        replay(tmp_path, told)


def test_what_comes_out_otherwise_is_said(drawn, caplog):
    run, told = drawn
    gpu = {**told, "settings": {**told["settings"], "device": "cuda", "model": "X"}}
    replay(run, {**gpu, "sha256": "0" * 64})
    assert "not the same to the bit" in caplog.text
    assert "device cuda, now cpu" in caplog.text
    assert "Expect the same but for rounding" in caplog.text
