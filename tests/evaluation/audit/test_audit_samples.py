import contextlib
import io
import json
import random
import shutil
from dataclasses import replace

import pytest

import gansynth
from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.deidentify import record_of
from gansynth_evaluate.audit import audit_exported
from tests.evaluation.audit.exported import write_source
from tests.expected import raises_fault

TINY = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1, "steps": 1, "batch_size": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs ``deep`` and ``flat`` on volumes and on slices of one data set; one step each."""
    base = tmp_path_factory.mktemp("house")
    deep = write_source(base / "klinik_nord" / "gehirne")
    settings = {key: str(value) for key, value in {**TINY, "precision": "fp32"}.items()}
    usual = {"settings": settings, "edits": None, "device": "cpu", "reporter": NullReporter()}
    for asked in (deep, replace(deep, kind="slices", where=f"nifti:{deep.where}")):
        out = base / ("deep" if asked is deep else "flat")
        fit("cgan3d", asked, out, **usual)  # type: ignore[arg-type]
    return base


def draw(run, out, edits=("shift",), **more):
    """Three samples; what was warned of."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        gansynth.sample(run, n=3, out=out, device="cpu", edit=edits, quiet=True, **more)
    return [line for line in said.getvalue().splitlines() if line.startswith("warning")]


@pytest.fixture(scope="module")
def shared(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("shared") / "handed_on"
    draw(runs / "deep", out, deidentify=True, sheet=True)
    return out


def test_the_audit_finds_nothing_in_volumes_for_sharing_nor_in_pictures(
    runs, shared, tmp_path, example, monkeypatch
):
    monkeypatch.chdir(shared.parent)
    audit = example("audit", ("runs/g0", str(runs / "deep")))["audit"]
    assert (audit.findings, audit.files) == ((), 8)
    kept = shutil.copytree(runs / "deep", tmp_path / "kept")
    manifest = read_manifest(kept)
    write_manifest(kept, {**manifest, "state": {"kept": random.Random(0).randbytes(4096).hex()}})
    audited = audit_exported(shared, run=kept)
    cases = len(manifest["lineage"]["cases"])
    assert audit.state_bits is not None
    assert audited.state_bits is not None
    assert 4096 < audited.state_bits * cases / 8 < 5120
    assert audit.state_bits < audited.state_bits
    for sharing in (False, True):
        out = tmp_path / f"pictures{sharing}"
        draw(runs / "flat", out, format="png", overlay="yes", deidentify=sharing)
        assert audit_exported(out, run=runs / "flat").findings == ()


def test_a_shared_sample_tells_only_how_it_was_drawn_and_the_run_knows_the_cases(runs, shared):
    document = json.loads((shared / "provenance.json").read_text())
    assert set(document) == {"synthetic", "gansynth", "samples"}
    told = document["samples"]["sample-0001"]
    assert set(told) == {"sample", "seed", "run", "generator", "gansynth", "edits"}
    assert (told["sample"], told["edits"]) == (1, ["shift"])
    record = json.loads(record_of(runs / "deep", shared).read_text())
    ids = {case["id"] for case in record["lineage"]["cases"]}
    assert record["folder"] == str(shared)
    assert {told["case"] for told in record["samples"].values()} <= ids
    assert sorted(record["samples"]) == [f"sample-000{i}" for i in range(3)]
    assert not (shared / "sheet.png").exists()  # sheets of real cases stay in the run
    assert (runs / "deep" / "samples" / "seed-0" / "sheet.png").exists()


def test_the_same_samples_are_the_same_bytes_and_a_folder_is_written_once(runs, shared, tmp_path):
    assert draw(runs / "deep", tmp_path / "again", deidentify=True) == []
    folders = (shared, tmp_path / "again")
    one, two = ({p.name: p.read_bytes() for p in o.rglob("*.*")} for o in folders)
    assert one == two
    draw(runs / "deep", shared, deidentify=True)  # is there already
    with raises_fault("sampling.folder-holds-other-samples", names="edits"):
        draw(runs / "deep", shared, deidentify=True, edits="identity")
    said = draw(runs / "deep", tmp_path / "plain", edits="identity", deidentify=True)
    assert any("3 of 3 label maps are training cases' own" in text for text in said)
