import json
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from gansynth.core.source import SourceRequest
from gansynth_benchmark.access_log import AccessLog
from gansynth_benchmark.analysis import analysed
from gansynth_benchmark.plan_file import read_plan
from gansynth_yolo.source import open_yolo

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GAINS = BENCHMARKS / "gains"
PUBLISHED = sorted(
    path.parent.name
    for path in GAINS.glob("*/results.json")
    if not (path.parent / "suite.yaml").exists()
)


def script(name: str) -> Any:
    sys.path.insert(0, str(BENCHMARKS / "measure"))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS / "measure"))


def results(name: str) -> Any:
    return json.loads((GAINS / name / "results.json").read_text())


def test_the_table_of_results_is_made_of_them():
    text = (BENCHMARKS / "measure" / "results" / "TABLE.md").read_text()
    assert script("table").made() == text, "run: python benchmarks/measure/table.py"


def test_the_pages_are_made_of_the_results():
    assert "hippocampus" in PUBLISHED
    page = script("gain_page")
    for file, make in page.MADE.items():
        text = file.read_text()
        if file == page.PICTURE:  # its lines lie where a version of matplotlib puts them
            words = re.compile(r"<text[^>]*>([^<]*)<")
            assert words.findall(make(text)) == words.findall(text)
        else:
            assert make(text) == text


@pytest.mark.parametrize("name", PUBLISHED)
def test_results_are_of_the_plan_and_their_looks_are_in_the_log(name):
    found, plan = results(name), read_plan(GAINS / f"{name}.yaml").model_dump(mode="json")
    for key in ("name", "sizes", "draws", "seeds", "split", "measures", "primary", "margin"):
        assert found["plan"][key] == plan[key], key
    for key in ("name", "generator", "real", "schedule"):
        assert [a[key] for a in found["plan"]["arms"]] == [a[key] for a in plan["arms"]], key
    assert found["plan"]["host"]["steps"] == plan["host"]["steps"]
    looks, look = AccessLog(GAINS / f"{name}.yaml"), found["look"]
    assert look["log"] == looks.report_entries()
    last = [entry for entry in looks.entries if entry["split"] == look["split"]][-1]
    assert last["plan_hash"] == found["plan_hash"]
    for path in sorted((GAINS / name).iterdir()):  # nothing says where it was computed
        text = path.read_text()
        assert not re.search(r"/(work|tmp|home|root)/", text), path
        assert "data:image/png" not in text, path  # no picture of a person


SCORED = [*(f"{name}/results" for name in PUBLISHED), "lgg_others/development"]
LARGE = "figshare/results"  # takes as long as all others
LATE = [pytest.mark.ci, pytest.mark.slow]


@pytest.mark.parametrize("name", [pytest.param(n, marks=LATE) if n == LARGE else n for n in SCORED])
def test_statistics_are_those_of_the_scores(name):
    document = json.loads((GAINS / f"{name}.json").read_text())
    again = json.loads(json.dumps(analysed(document)))
    found = ("measures", "comparisons", "means", "worth", "costs", "verdict")
    for key in found if name != "lgg_others/development" else (*found, "baselines"):
        assert again[key] == document[key], key


@pytest.fixture
def slices(tmp_path):
    """Three slices of two patients, 256 x 256; the first has a tumour."""
    for name, grey in (("TCGA_A_1_003", 60), ("TCGA_A_1_004", 80), ("TCGA_B_2_001", 200)):
        tumour = np.zeros((256, 256), np.uint8)
        tumour[40:80, 20:40] = name.endswith("003")
        for kind, pixels in (("images", np.full_like(tumour, grey)), ("labels", tumour)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / kind / f"{name}.png")
    return tmp_path


def test_the_labs_slices_are_one_volume_a_patient_for_nnunet(slices, tmp_path):
    lgg = script("lgg_data")
    lgg.nnunet_raw(slices, tmp_path / "root", 64)
    folder = tmp_path / "root" / "nnUNet_raw" / lgg.DATASET
    volume: Any = nibabel.load(folder / "labelsTr" / "TCGA_A_1.nii.gz")
    labels = volume.get_fdata()
    assert labels.shape == (64, 64, 2)
    assert labels[..., 0].sum() == labels[5:10, 10:20, 0].sum() == 50  # x, y, z
    assert sorted(p.name for p in (folder / "imagesTr").iterdir()) == [
        "TCGA_A_1_0000.nii.gz",
        "TCGA_B_2_0000.nii.gz",
    ]


def test_the_labs_boxes_lie_around_its_masks(slices, tmp_path, monkeypatch):
    lgg = script("lgg_data")
    monkeypatch.setattr(lgg, "TRAINING", 1)
    lgg.yolo(slices, tmp_path / "out", 128)
    source = open_yolo(SourceRequest("yolo", str(tmp_path / "out"), read={"masks": "yes"}))
    case, without = (source.load(f"train/TCGA_A_1_00{n}") for n in (3, 4))
    assert case.labels is not None
    for boxes in (case.boxes, source.boxes_around(case.labels)):
        assert boxes is not None
        assert boxes.coords.round(2).tolist() == [[20, 10, 40, 20]]
    assert without.boxes is not None
    assert not len(without.boxes.coords)


def test_a_folder_without_pictures_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    words = ["gain_data.py", "lgg", "--source", str(tmp_path / "none"), "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match=r"none: has no images/\*\.png"):
        script("gain_data").main()
    assert not (tmp_path / "out").exists()
