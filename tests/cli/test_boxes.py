"""sample and augment of generators that are asked for boxes."""

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
def runs(tmp_path_factory):
    """Runs ``run``, and ``bare``, whose samples have no lesions."""
    folder = tmp_path_factory.mktemp("boxes")
    with spots_plugin():
        for name, settings in (("run", {}), ("bare", {"faint": "1"})):
            quiet = {"edits": None, "device": "cpu", "reporter": NullReporter()}
            told = SourceRequest("spotted", "any")
            fit("spots", told, folder / name, settings=settings, **quiet)
        yield folder


@pytest.fixture
def sample(runs, run_json, tmp_path):
    """``gansynth sample`` of ``run`` into ``tmp_path / "out"``, or of another; its report."""

    def draw(n, *more, run="run", out="out"):
        return run_json("sample", runs / run, "-n", n, "-o", tmp_path / out, *more)

    return draw


@pytest.fixture
def boxes(tmp_path) -> Path:
    path = tmp_path / "boxes.csv"
    path.write_text("class,xmin,ymin,xmax,ymax\n0,14,14,24,24\n0,20,20,30,30\n")
    return path


def told(folder: Path, index: int):
    samples = json.loads((folder / "provenance.json").read_text())["samples"]
    return samples[f"sample-{index:04d}"]["boxes"]


def test_samples_come_with_their_boxes_as_a_list_that_can_be_asked_for(sample, tmp_path):
    sample(4, out="a")
    lists = [tmp_path / "a" / f"boxes/sample-{i:04d}.csv" for i in range(4)]
    rows = [list(csv.DictReader(path.read_text().splitlines())) for path in lists]
    first = next(i for i in range(4) if rows[i])
    assert {row["class"] for row in rows[first]} == {"metastasis"}
    sample(1, "--boxes", f"file:{lists[first]}", out="b")
    wanted = replay(told(tmp_path / "a", first)).coords[:1]
    assert np.allclose(replay(told(tmp_path / "b", 0)).coords, wanted, atol=1e-5)


def test_sample_by_sample_a_list_is_gone_through(sample, boxes, tmp_path):
    sample(3, "--boxes", f"file:{boxes}")
    assert [told(tmp_path / "out", i)["coords"][0][0] for i in range(3)] == [14, 20, 14]


@pytest.mark.parametrize(("more", "by"), [((), "jitter"), (("--boxes", "training"), "training")])
def test_boxes_are_jittered_unless_told_otherwise(sample, tmp_path, more, by):
    sample(2, *more)
    assert told(tmp_path / "out", 0)["by"] == by


def test_the_metric_tells_lesions_in_boxes(sample):
    found = sample(24, "--metric", "lesions")["metrics"]["lesions"]
    assert found["samples"] > 0.9
    assert found["samples difference low"] > 0


def test_pictures_come_with_lines_for_a_detector_and_overlays_show_boxes(sample, tmp_path):
    out = tmp_path / "out"
    sample(6, "--format", "png", "--overlay", "--boxes", "training")
    assert (out / "classes.txt").read_text() == "metastasis\n"
    found = open_source(SourceRequest("yolo", str(out)))
    assert (len(found.train_ids), len(found.held_out_ids)) == (5, 1)
    assert found.schema.box_classes == ("metastasis",)
    for row in json.loads((out / "manifest.json").read_text())["samples"]:
        lines = (out / "labels" / f"{row['case']}.txt").read_text().splitlines()
        overlay = read_picture(out / row["overlay"][0]["file"], "image").astype(int)
        assert np.ptp(overlay.reshape(3, -1) if len(overlay) == 3 else overlay, 0).any()
        for line, entry in zip(lines, row["boxes"], strict=True):
            label, x, y, width, height = (float(word) for word in line.split())
            edges = [y - height / 2, x - width / 2, y + height / 2, x + width / 2]
            assert (label, entry["label"]) == (0, "metastasis")
            assert np.allclose(np.array(edges) * 48, entry["box"], atol=0.01)


@pytest.mark.parametrize(("how", "left"), [("own", 0), ("none", 12)])
def test_samples_without_lesions_are_left_out_unless_nobody_asks(
    sample, boxes, tmp_path, how, left
):
    export = ("--format", "png", "--boxes", f"file:{boxes}", "--filter", how)
    assert sample(12, *export, run="bare")["samples"] == left
    document = json.loads((tmp_path / "out" / "manifest.json").read_text())
    reason = "lesion contrast # in box # of class metastasis"
    assert document["flaws"] == ({} if left else {reason: 12})


def test_a_sheet_shows_boxes(sample, tmp_path):
    sample(4, "--sheet")
    with Image.open(tmp_path / "out" / "sheet.png") as file:
        shown = np.asarray(file.convert("RGB")).astype(int)
    assert np.ptp(shown, axis=2).max() > 100  # the colour of a box


def test_a_slip_in_a_list_is_found_before_anything_is_opened(refuse, tmp_path):
    (tmp_path / "bad.csv").write_text("class,xmin\n")
    says = ["bad.csv, line 1: the header"]
    refuse("sample", tmp_path, "--boxes", f"file:{tmp_path / 'bad.csv'}", code=3, says=says)


def test_augment_hands_boxes_and_filter_on(toys, run, boxes, run_json, tmp_path, monkeypatch):
    # "means" is asked for no boxes; what is handed on is looked at alone.
    monkeypatch.setattr("gansynth.hosts.checks.check_request", lambda *_: None)
    monkeypatch.setattr("gansynth.hosts.checks.check_drawing", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    augment = ("augment", "--target", "toyhost", "--data", "toy:3", "--ratio", "1:1")
    run_json(*augment, "--generator", run, "--boxes", "file:boxes.csv", "--filter", "none")
    run_json(*augment, "--generator", run)
    asked = [injection.samples for injection, _, _ in toys.started]
    assert (asked[0].boxes, asked[0].keep_flawed) == (f"file:{boxes}", True)
    assert asked[1] == SampleRequest()
