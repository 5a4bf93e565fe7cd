import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.metrics.detection.record import FILE, DetectedBoxes, write_detections
from tests.metrics.detection.simulated import document, drawn, seen

BOX = (10, 10, 20, 20)
FAST = ("--bootstrap", "50", "--confidence", "0.5")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of two trainings on the same images; the second is surer of all it finds."""
    folder, found = tmp_path_factory.mktemp("runs"), drawn(1, 60, per_subject=4)
    write_detections(folder / "real" / FILE, found)
    surer = [
        replace(s, found=DetectedBoxes(s.found.boxes, np.sqrt(s.found.scores), s.found.labels))
        for s in found.images
    ]
    write_detections(folder / "both" / FILE, replace(found, images=tuple(surer[::-1])))
    return folder / "real", folder / "both"


def test_the_table_the_verdicts_and_the_lesions_are_printed(trained, succeed):
    result = succeed("detections", *trained, *FAST, "--paper")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("15 patients, 60 slices (")
    names = ["", "real", "both", "Han 2019, 2,813 real images", "Han 2019, + 4,000 GAN-based DA"]
    assert [line.split("  ")[0] for line in lines[2:7]] == names
    assert "0.67" in lines[5]
    assert "not comparable" in lines[7]
    assert sum("no difference shown" in line for line in lines) == 4
    assert sum(line.startswith(("real  ", "both  ")) for line in lines) == 8
    assert any(line.startswith("slice has a lesion  AUC") for line in lines)


def test_numbers_are_one_document_a_seed_is_a_seed_and_files_hold_the_same(
    trained, run_json, tmp_path
):
    out = tmp_path / "new" / "table"
    one = run_json("detections", *trained, *FAST, "--seed", 1, "-o", out)
    assert {path.name for path in out.iterdir()} == {"table.md", "detections.json", "froc.png"}
    del one["files"]
    assert json.loads((out / "detections.json").read_text()) == one
    page = (out / "table.md").read_text()
    for part in ("At equal false positives", "FROC", "Lesions in three dimensions", "Classes"):
        assert f"## {part}" in page
    with Image.open(out / "froc.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    for colour in ((0x1F, 0x6F, 0xB4), (0xD1, 0x60, 0x0F)):
        assert (np.abs(pixels - colour).max(axis=2) < 3).sum() > 50
    same, other = (run_json("detections", *trained, *FAST, "--seed", seed) for seed in (1, 2))
    assert {**one, "files": {}} == same
    assert one["arms"][0]["map"]["low"] != other["arms"][0]["map"]["low"]
    assert [arm["name"] for arm in one["arms"]] == ["real", "both"]


def test_arms_can_be_named_one_alone_has_no_comparison_and_a_wrong_class_may_count(
    trained, run_json
):
    found = run_json("detections", f"my arm={trained[0]}", *FAST, "--bootstrap", "0")
    assert [arm["name"] for arm in found["arms"]] == ["my arm"]
    assert found["equal_fps"] == []
    assert found["arms"][0]["map"]["low"] is None
    loose = run_json("detections", trained[0], *FAST, "--any-class")
    values = [each["arms"][0]["at"]["0.5"]["sensitivity"]["value"] for each in (found, loose)]
    assert values[0] < values[1]
    assert loose["classes"] == ["any class"]


def test_a_folder_may_hold_several_splits(run_json, refuse, tmp_path):
    image = seen("x", [BOX], [BOX], [0.9])
    file = tmp_path / "a" / "gansynth_detections_test.json"
    write_detections(file, document(image, split="test"))
    for typed in (["--split", "test", tmp_path / "a"], [file]):
        found = run_json("detections", *typed)
        assert (found["split"], found["arms"][0]["name"]) == ("test", "a")
    refuse("detections", tmp_path / "a", code=3, says=[f"has no {FILE}"])


def test_detections_warns_of_unknown_patients_and_cut_off_detections(succeed, tmp_path):
    image = seen("x", [BOX], [BOX] * 2, [0.9, 0.8])
    found = document(image, seen("y"), confidence=0.01, most_found=2, iou_nms=None)
    result = succeed("detections", write_detections(tmp_path / "d.json", found))
    for said in (
        "patients are not known: intervals are of images, and too narrow",
        "2 images: fewer than 10",
        "confidence 0.001: detections were kept down to 0.01",
        "d: 1 image(s) have the 2 detections",
        "double boxes were not dropped",
    ):
        assert f"warning: {said}" in result.stderr
    assert "not available: 2 of 2 images" in result.stdout
    assert result.stdout.startswith("patients unknown, 2 slices (")
    assert "resamples of images" in result.stdout.splitlines()[0]


def test_volumes_count_where_no_patient_is_known(run_json, tmp_path):
    one = replace(seen("x", [BOX], [BOX], [0.9]), volume="v", slice=0)
    for other, said in (
        (replace(one, id="y", volume="w"), (None, "volumes", 2)),
        (replace(one, id="y", volume="w", subject="p"), (None, "groups", 2)),
    ):
        found = run_json("detections", write_detections(tmp_path / "d.json", document(one, other)))
        assert (found["patients"], found["unit"], found["units"]) == said


OTHER: dict[str, Any] = {
    "names": {"names": ("a", "b")},
    "split": {"split": "test"},
    "iou_nms": {"iou_nms": 0.7},
    "confidence": {"confidence": 0.01},
    "most_found": {"most_found": 100},
    "lacks image 'y'": {"images": (seen("x", [BOX]),)},
    "has image 'z'": {"images": (seen("x", [BOX]), seen("y"), seen("z"))},
    "image 'x': truth.boxes": {"images": (seen("x", [(10, 10, 20, 21)]), seen("y"))},
    "image 'x': truth.labels": {"images": (seen("x"), seen("y"))},
    "image 'y': subject": {"images": (seen("x", [BOX]), seen("y", subject="p"))},
    "image 'y': volume": {"images": (seen("x", [BOX]), seen("y", place=("v", 0)))},
}


@pytest.mark.parametrize("differs", OTHER)
def test_arms_that_cannot_be_compared_are_refused(differs, refuse, tmp_path):
    first = document(seen("x", [BOX]), seen("y"))
    one = write_detections(tmp_path / "one.json", first)
    two = write_detections(tmp_path / "two.json", replace(first, **OTHER[differs]))
    refuse("detections", one, two, code=3, says=["two.json", differs, "expected"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (".", 3, [f"has no {FILE}"]),
        ("broken.json", 3, ["broken.json", "not a detections document"]),
        ("{real} {real}", 2, ["real: names 2 arms", "NAME=PATH"]),
        ("{real} --iou 0", 2, ["--iou", ".5,.25"]),
        ("{real} --iou .5,.5", 2, ["--iou"]),
        ("{real} --iou half", 2, ["--iou", "'half'"]),
        ("{real} --confidence 2", 2, ["--confidence"]),
    ],
)
def test_detections_refuses_in_one_line(
    trained, arguments, code, says, refuse, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    typed = arguments.format(real=trained[0]).split()
    refuse("detections", *typed, "-o", "out", code=code, says=says, keep=[tmp_path])
