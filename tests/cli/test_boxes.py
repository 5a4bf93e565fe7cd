import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.run_source import open_source
from tests.spots import replay, spots_plugin


@pytest.fixture(scope="module")
def spots_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    quiet: dict[str, Any] = {"device": "cpu", "reporter": NullReporter()}
    with spots_plugin():
        fit("spots", SourceRequest("spotted", "any"), folder, settings={}, edits=None, **quiet)
        yield folder


@pytest.fixture
def sample(spots_run, run_json, tmp_path):
    """``gansynth sample`` into ``tmp_path / "out"``, or another; its report."""

    def draw(n, *more, out="out"):
        return run_json("sample", spots_run, "-n", n, "-o", tmp_path / out, *more)

    return draw


def told(folder: Path, index: int):
    samples = json.loads((folder / "provenance.json").read_text())["samples"]
    return samples[f"sample-{index:04d}"]["boxes"]


def test_samples_come_with_their_boxes_as_a_list_that_can_be_asked_for(sample, tmp_path):
    sample(4, "--sheet", out="a")
    with Image.open(tmp_path / "a" / "sheet.png") as file:
        shown = np.asarray(file.convert("RGB")).astype(int)
    assert np.ptp(shown, axis=2).max() > 100  # the colour of a box
    lists = [tmp_path / "a" / f"boxes/sample-{i:04d}.csv" for i in range(4)]
    rows = [list(csv.DictReader(path.read_text().splitlines())) for path in lists]
    first = next(i for i in range(4) if rows[i])
    assert {row["class"] for row in rows[first]} == {"metastasis"}
    sample(1, "--boxes", f"file:{lists[first]}", out="b")
    assert told(tmp_path / "a", first)["by"] == "jitter"
    wanted = replay(told(tmp_path / "a", first)).coords[:1]
    assert np.allclose(replay(told(tmp_path / "b", 0)).coords, wanted, atol=1e-5)


def test_a_detectors_format_has_boxes_and_a_fifth_for_validation(sample, tmp_path):
    told = sample(6, "--format", "yolo", "--boxes", "training")
    found: Any = open_source(SourceRequest("yolo", str(tmp_path / "out"), synthetic="run"))
    assert (len(found.train_ids), len(found.held_out_ids)) == (4, 2)
    assert found.schema.box_classes == ("metastasis",)
    kept = json.loads((tmp_path / "out" / "provenance.json").read_text())["samples"]
    for case_id in found.train_ids:
        wanted = replay(kept[case_id.rpartition("/")[2]]["boxes"]).coords
        assert np.allclose(found.image(case_id).boxes.coords, wanted, atol=1e-3)
    assert told["samples"] == 6


def test_a_slip_in_a_list_is_found_before_anything_is_opened(refuse, tmp_path):
    (tmp_path / "bad.csv").write_text("class,xmin\n")
    says = ["bad.csv, line 1: the header"]
    refuse("sample", tmp_path, "--boxes", f"file:{tmp_path / 'bad.csv'}", code=3, says=says)
