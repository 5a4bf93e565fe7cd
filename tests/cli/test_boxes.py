"""sample and augment of generators that are asked for boxes."""
# mypy: disallow-untyped-calls=False

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.data.picture_files import read_picture
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.opening import open_source
from tests.spots import replay, spots_plugin


@pytest.fixture(scope="module")
def spots():
    with spots_plugin():
        yield


def fitted(folder: Path, **settings: str) -> Path:
    told = SourceRequest("spotted", "any")
    quiet = NullReporter()
    fit("spots", told, folder, settings=settings, edits=None, device="cpu", reporter=quiet)
    return folder


@pytest.fixture(scope="module")
def run(spots, tmp_path_factory) -> Path:
    return fitted(tmp_path_factory.mktemp("boxes") / "run")


@pytest.fixture(scope="module")
def bare(spots, tmp_path_factory) -> Path:
    """A run whose samples have no lesions."""
    return fitted(tmp_path_factory.mktemp("bare") / "run", faint="1")


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def told(folder: Path, index: int):
    samples = json.loads((folder / "provenance.json").read_text())["samples"]
    return samples[f"sample-{index:04d}"]


def test_samples_come_with_their_boxes_as_a_list_that_can_be_asked_for(run, run_json, tmp_path):
    run_json("sample", run, "-n", 4, "-o", tmp_path / "a")
    boxed = [i for i in range(4) if table(tmp_path / "a" / f"boxes/sample-{i:04d}.csv")]
    assert boxed
    first = tmp_path / "a" / f"boxes/sample-{boxed[0]:04d}.csv"
    assert {row["class"] for row in table(first)} == {"metastasis"}
    run_json("sample", run, "-n", 1, "-o", tmp_path / "b", "--boxes", f"file:{first}")
    wanted = replay(told(tmp_path / "a", boxed[0])["boxes"]).coords[:1]
    assert np.allclose(replay(told(tmp_path / "b", 0)["boxes"]).coords, wanted, atol=1e-5)


def test_sample_by_sample_a_list_is_gone_through(run, run_json, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("class,xmin,ymin,xmax,ymax\n0,14,14,24,24\n0,20,20,30,30\n")
    run_json("sample", run, "-n", 3, "-o", tmp_path / "s", "--boxes", f"file:{boxes}")
    drawn = [told(tmp_path / "s", i)["boxes"]["coords"][0][0] for i in range(3)]
    assert drawn == [14, 20, 14]


def test_boxes_are_jittered_unless_told_otherwise(run, run_json, tmp_path):
    for name, more in (("usual", ()), ("own", ("--boxes", "training"))):
        run_json("sample", run, "-n", 2, "-o", tmp_path / name, *more)
    assert told(tmp_path / "usual", 0)["boxes"]["by"] == "jitter"
    assert told(tmp_path / "own", 0)["boxes"]["by"] == "training"


def test_the_metric_tells_lesions_in_boxes(run, run_json, tmp_path):
    report = run_json("sample", run, "-n", 24, "-o", tmp_path / "s", "--metric", "lesions")
    found = report["metrics"]["lesions"]
    assert found["samples"] > 0.9
    assert found["samples difference low"] > 0


def test_pictures_come_with_lines_for_a_detector_and_overlays_show_boxes(run, run_json, tmp_path):
    out = tmp_path / "png"
    export = ("--format", "png", "--overlay", "--boxes", "training")
    run_json("sample", run, "-n", 6, "-o", out, *export)
    assert (out / "classes.txt").read_text() == "metastasis\n"
    found = open_source(SourceRequest("yolo", str(out)))
    assert (len(found.train_ids), len(found.held_out_ids)) == (5, 1)
    assert found.schema.box_classes == ("metastasis",)
    rows = json.loads((out / "manifest.json").read_text())["samples"]
    for row in rows:
        lines = (out / "labels" / f"{row['case']}.txt").read_text().splitlines()
        assert len(lines) == len(row["boxes"])
        overlay = read_picture(out / row["overlay"][0]["file"], "image").astype(int)
        assert bool(np.ptp(overlay.reshape(3, -1) if len(overlay) == 3 else overlay, 0).any())
        for line, entry in zip(lines, row["boxes"], strict=True):
            label, x, y, width, height = (float(word) for word in line.split())
            top, left, bottom, right = entry["box"]
            edges = [y - height / 2, x - width / 2, y + height / 2, x + width / 2]
            assert (label, entry["label"]) == (0, "metastasis")
            assert np.allclose(np.array(edges) * 48, [top, left, bottom, right], atol=0.01)


@pytest.mark.parametrize(("how", "left"), [("own", 0), ("none", 12)])
def test_samples_without_lesions_are_left_out_unless_nobody_asks(
    bare, run_json, tmp_path, how, left
):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("class,xmin,ymin,xmax,ymax\n0,14,14,24,24\n")
    export = ("--format", "png", "--boxes", f"file:{boxes}", "--filter", how)
    report = run_json("sample", bare, "-n", 12, "-o", tmp_path / "png", *export)
    assert report["samples"] == left
    document = json.loads((tmp_path / "png" / "manifest.json").read_text())
    reason = "lesion contrast # in box # of class metastasis"
    assert document["flaws"] == ({} if left else {reason: 12})


def test_a_sheet_shows_boxes(run, run_json, tmp_path):
    run_json("sample", run, "-n", 4, "-o", tmp_path / "s", "--sheet")
    with Image.open(tmp_path / "s" / "sheet.png") as file:
        shown = np.asarray(file.convert("RGB")).astype(int)
    assert np.ptp(shown, axis=2).max() > 100  # the colour of a box


def test_boxes_are_refused_of_a_generator_that_heeds_none(toys, run_json, refuse, tmp_path):
    run_json("fit", "means", "--data", "toy:3", "-o", tmp_path / "run")
    says = ("--boxes jitter: means takes no boxes", "leave --boxes out")
    refuse("sample", tmp_path / "run", "--boxes", "jitter", code=2, says=says)
    augment = ("augment", "--target", "toyhost", "--data", "toy:3", "--ratio", "1:1")
    refuse(*augment, "--generator", tmp_path / "run", "--boxes", "jitter", code=2, says=says)


def test_a_slip_in_boxes_is_found_before_anything_is_opened(refuse, tmp_path):
    (tmp_path / "bad.csv").write_text("class,xmin\n")
    (tmp_path / "run").mkdir()
    sample = ("sample", tmp_path / "run", "--boxes")
    refuse(*sample, "jitter:postion=1", code=2, says=["Did you mean 'position'"])
    refuse(*sample, f"file:{tmp_path / 'bad.csv'}", code=3, says=["bad.csv, line 1: the header"])


def test_augment_hands_boxes_and_filter_on(toys, run_json, tmp_path, monkeypatch):
    # "means" is asked for no boxes; what is handed on is looked at alone.
    monkeypatch.setattr("gansynth.hosts.checks.check_request", lambda *_: None)
    monkeypatch.setattr("gansynth.hosts.checks.check_drawing", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    Path("boxes.csv").write_text("class,xmin,ymin,xmax,ymax\n0,1,1,2,2\n")
    run_json("fit", "means", "--data", "toy:3", "-o", tmp_path / "run")
    augment = ("augment", "--target", "toyhost", "--data", "toy:3", "--ratio", "1:1")
    more = ("--generator", tmp_path / "run", "--boxes", "file:boxes.csv", "--filter", "none")
    run_json(*augment, *more)
    ((injection, _, _),) = toys.started
    assert (injection.samples.boxes, injection.samples.keep_flawed) == (
        f"file:{tmp_path / 'boxes.csv'}",
        True,
    )
    run_json(*augment, "--generator", tmp_path / "run")
    assert toys.started[1][0].samples == SampleRequest()
