"""``gansynth sample`` from fit to folder: what is for sharing passes the audit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.evaluation.audit import audit_exported
from gansynth.fitting.fit import fit
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.png_export import PngOptions
from gansynth.sampling.sample import sample_run
from gansynth.sampling.sharing import record_of, refuse_real_images
from tests.evaluation.audit.exported import write_source

TINY = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1, "steps": 1, "batch_size": 1}


class Heard(NullReporter):
    """Remembers warnings."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Runs on volumes and on slices of one data set; one step each."""
    base = tmp_path_factory.mktemp("house")
    request = write_source(base / "klinik_nord" / "gehirne")
    settings = {key: str(value) for key, value in {**TINY, "precision": "fp32"}.items()}
    flat = replace(request, kind="slices", where=f"nifti:{request.where}")
    for name, asked in (("deep", request), ("flat", flat)):
        out = base / name
        fit(
            *("cgan3d", asked, out),
            settings=settings, edits=None, device="cpu", reporter=NullReporter(),
        )  # fmt: skip
    return {"deep": base / "deep", "flat": base / "flat"}


def draw(run: Path, out: Path, **more: Any) -> dict[str, Any]:
    more.setdefault("reporter", NullReporter())
    more.setdefault("request", SampleRequest(edits=("shift",)))
    return sample_run(run, 3, out=out, device="cpu", **more)


@pytest.fixture(scope="module")
def shared(runs, tmp_path_factory) -> Path:
    out: Path = tmp_path_factory.mktemp("shared") / "handed_on"
    draw(runs["deep"], out, for_sharing=True, sheet=True)
    return out


def test_the_audit_finds_nothing_in_volumes_for_sharing(runs, shared):
    audit = audit_exported(shared, run=runs["deep"])
    assert audit.findings == ()
    assert audit.files == 8


def test_the_audit_finds_nothing_in_pictures(runs, tmp_path):
    for sharing in (False, True):
        out = tmp_path / f"pictures{sharing}"
        draw(runs["flat"], out, png=PngOptions(overlay=True), for_sharing=sharing)
        assert audit_exported(out, run=runs["flat"]).findings == ()


def test_the_audit_finds_cases_in_what_is_not_for_sharing(runs, tmp_path):
    draw(runs["deep"], tmp_path / "plain")
    found = audit_exported(tmp_path / "plain", run=runs["deep"]).findings
    kept = json.loads((tmp_path / "plain" / "provenance.json").read_text())["samples"]
    case = kept["sample-0000"]["case"]
    assert f"provenance.json: value of 'samples.sample-0000.case': names case '{case}'" in found
    assert {line.split(":")[0] for line in found} == {"provenance.json", "dataset.json"}


def test_a_shared_sample_tells_no_more_than_how_it_was_drawn(runs, shared):
    document = json.loads((shared / "provenance.json").read_text())
    assert set(document) == {"synthetic", "gansynth", "samples"}
    told = document["samples"]["sample-0001"]
    assert set(told) == {"sample", "seed", "run", "generator", "gansynth", "edits"}
    assert (told["sample"], told["edits"]) == (1, ["shift"])


def test_the_record_in_the_run_knows_the_cases(runs, shared):
    record = json.loads(record_of(runs["deep"], shared).read_text())
    assert record["folder"] == str(shared)
    ids = {case["id"] for case in record["lineage"]["cases"]}
    assert {told["case"] for told in record["samples"].values()} <= ids
    assert sorted(record["samples"]) == [f"sample-000{i}" for i in range(3)]


def test_sheets_of_real_cases_stay_in_the_run(runs, shared):
    assert not (shared / "sheet.png").exists()
    assert (runs["deep"] / "samples" / "seed-0" / "sheet.png").exists()


def test_the_same_samples_are_the_same_bytes(runs, shared, tmp_path):
    draw(runs["deep"], tmp_path / "again", for_sharing=True)
    one, two = (
        {p.name: p.read_bytes() for p in o.rglob("*.*")} for o in (shared, tmp_path / "again")
    )
    assert one == two


def test_label_maps_that_are_not_edited_are_told(runs, tmp_path):
    heard = Heard()
    draw(
        runs["deep"],
        tmp_path / "plain",
        for_sharing=True,
        request=SampleRequest(edits=()),
        reporter=heard,
    )
    assert any("3 of 3 label maps are training cases' own" in text for text in heard.said)
    draw(runs["deep"], tmp_path / "edited", for_sharing=True, reporter=(again := Heard()))
    assert again.said == []


def test_a_folder_that_holds_something_is_refused(runs, shared):
    with pytest.raises(UsageFault, match="exists already"):
        draw(runs["deep"], shared, for_sharing=True)


@pytest.mark.parametrize(
    ("heeds", "given", "says"),
    [
        (["labels", "lesion"], [], "puts lesions into real cases"),
        (["labels", "image"], [], "moves real cases"),
        (["labels"], ["T1"], "given the channels T1 of real cases"),
    ],
)
def test_samples_with_real_images_in_them_are_refused(runs, heeds, given, says):
    manifest = {"heeds": heeds, "options": {"given": given}}
    with pytest.raises(UsageFault, match=rf"--for-sharing: .*{says}.*(?i:leave it out)"):
        refuse_real_images(RunFolder.known(runs["deep"], manifest), "--for-sharing", "leave it out")


def test_a_part_that_moves_real_images_is_refused_too(runs, tmp_path):
    part = shutil.copytree(runs["deep"], tmp_path / "run" / "parts" / "rare")
    told = json.loads((part / "manifest.json").read_text())
    (part / "manifest.json").write_text(json.dumps({**told, "heeds": ["labels", "image"]}))
    manifest = {"heeds": ["labels"], "options": {}, "parts": [{"name": "rare"}]}
    with pytest.raises(UsageFault, match="moves real cases"):
        refuse_real_images(
            RunFolder.known(tmp_path / "run", manifest), "--for-sharing", "leave it out"
        )


def test_the_command_has_the_option(runs, run_cli, tmp_path):
    asked = ("-n", 1, "-o", tmp_path / "out", "--device", "cpu", "--edit", "shift", "--json")
    done = run_cli("sample", runs["deep"], *asked, "--for-sharing")
    assert done.exit_code == 0, done.stderr
    record = Path(json.loads(done.stdout)["record"])
    assert record.parent == runs["deep"] / "exports"
    assert audit_exported(tmp_path / "out", run=runs["deep"]).findings == ()
