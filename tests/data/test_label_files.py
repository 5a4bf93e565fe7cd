"""A label map is made of a case's files of labels by one rule, whichever of them there are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.volumes import read_volume
from gansynth.data.case_writer import write_prediction
from gansynth.metrics.segmentation.held_out_scores import predictions_of
from tests.data.sets import check, opened, save
from tests.expected import raises_fault

SHAPE = (6, 7, 8)
CASES = ("anna", "bert", "carl")
IMAGE = "{case}/ct.nii.gz"


def box(*corner: int, value: int = 1) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[tuple(slice(start, start + 3) for start in corner)] = value
    return labels


ORGAN, LESION, OTHER = box(1, 1, 1), box(1, 1, 1) * box(0, 0, 0), box(2, 1, 1)
LATER = np.where(LESION, 2, ORGAN)
KINDS: dict[str, tuple[dict[str, np.ndarray], dict[str, str], np.ndarray]] = {
    "a file for each label": (
        {"seg/liver": ORGAN, "seg/liver_lesion": LESION * 255, "seg/spleen": ORGAN * 0},
        {"label": "{case}/seg/{label}.nii.gz"},
        LATER,
    ),
    "labels in another order": (
        {"seg/lesion": LESION, "seg/liver": ORGAN, "seg/body": OTHER},
        {"label": "{case}/seg/{label}.nii.gz", "labels": "liver:1,lesion:2"},
        LATER,
    ),
    "labels beside the image": (
        {"lesion": LESION, "liver": ORGAN},
        {"label": "{case}/{label}.nii.gz", "labels": "liver:1,lesion:2"},
        LATER,
    ),
    "most raters": (
        {"r1": ORGAN * 2, "r2": ORGAN * 2, "r3": OTHER * 2},
        {"label": "{case}/r{rater}.nii.gz", "labels": "tumour:2"},
        ORGAN * 2,
    ),
    "two raters": ({"A": ORGAN, "B": OTHER}, {"label": "{case}/{rater:?}.nii.gz"}, ORGAN * OTHER),
    "parts": (
        {"mask": ORGAN, "mask_1": OTHER},
        {"label": "{case}/mask{part}.nii.gz"},
        np.maximum(ORGAN, OTHER),
    ),
    "labels of raters": (
        {"1/a": ORGAN, "1/b": LESION, "2/a": ORGAN, "2/b": LESION, "3/a": OTHER, "3/b": LESION},
        {"label": "{case}/{rater}/{label}.nii.gz"},
        LATER,
    ),
    "layers": (
        {"label": np.stack([ORGAN, LESION], -1)},
        {"label": "{case}/label.nii.gz", "labels": "organ:1,lesion:1001"},
        np.where(LESION, 1001, ORGAN.astype(np.int16)),
    ),
}


def made(home: Path, files: dict[str, Any]) -> Path:
    for number, case in enumerate(CASES):
        image = np.random.default_rng(number).normal(0, 9, SHAPE).astype(np.float32)
        save(home / case / "ct.nii.gz", image)
        for name, array in files.items():
            save(home / case / f"{name}.nii.gz", array)
    return home


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_labels_are_joined_alike_in_every_command(tmp_path, kind, run_json):
    files, keys, expected = KINDS[kind]
    home = made(tmp_path / "set", files)
    assert [f.level for f in check(home, image=IMAGE, **keys).findings if f.level == "error"] == []
    source = opened(home, image=IMAGE, **keys)
    case = source.held_out_ids[0]
    assert np.array_equal(source.labels_of(case), expected.T)
    assert np.array_equal(source.load(case).labels, expected.T)
    written = write_prediction(source, case, source.load(case).labels, tmp_path / "predicted")
    assert written is not None
    both = predictions_of(source, {case: written})[case].read()
    assert np.array_equal(both.predicted, both.truth)
    read = [
        word
        for key in (f"image={IMAGE}", *[f"{k}={v}" for k, v in keys.items()])
        for word in ("--read", key)
    ]
    run_json("import", f"nifti:{home}", "nnunet:007", "--root", tmp_path / "nn", *read)
    (raw,) = (tmp_path / "nn" / "nnUNet_raw").iterdir()
    imported = read_volume(raw / "labelsTr" / f"{case}.nii.gz").array
    _, numbered = np.unique(expected, return_inverse=True)
    assert np.array_equal(imported, numbered.reshape(SHAPE))
    about = json.loads((raw / "dataset.json").read_text())
    assert about.get("label_files") == (None if kind == "layers" else keys["label"])
    assert source.space.host.get("label_files") == about.get("label_files")


@pytest.mark.parametrize(
    ("files", "keys", "says"),
    [
        ({"a": ORGAN, "b": ORGAN + LESION}, {}, "it is read as label 'b' alone"),
        ({"a": ORGAN, "b": ORGAN[1:]}, {}, "expected equal"),
        ({"a": LESION, "b": ORGAN}, {}, "name what lies inside last: --read labels='b:1,a:2'"),
        ({"a": ORGAN, "b": OTHER}, {}, "the later label is taken"),
        ({"a": np.stack([ORGAN * 1.5, ORGAN], -1)}, {"label": "{case}/a.nii.gz"}, "layer 0 of 2"),
    ],
)
def test_check_says_what_joining_loses(tmp_path, files, keys, says):
    keys = {"image": IMAGE, "label": "{case}/{label:?}.nii.gz", **keys}
    found = check(made(tmp_path, files), **keys).findings
    assert says in " ".join([finding.message for finding in found])
    order = says.partition("--read labels='")[2].rstrip("'")
    if order:
        again = check(tmp_path, **keys, labels=order).findings
        assert says not in " ".join([finding.message for finding in again])


def test_a_file_of_a_label_that_some_cases_lack_is_asked_for(tmp_path):
    made(tmp_path, {"a": ORGAN, "b": OTHER})
    (tmp_path / "bert" / "b.nii.gz").unlink()
    keys = {"image": IMAGE, "label": "{case}/{label:?}.nii.gz"}
    (fault,) = [f for f in check(tmp_path, **keys).findings if f.level == "error"]
    assert "1 of 3 cases have no file of label 'b', such as 'bert'" in fault.message
    assert "--read labels='a:1'" in fault.message
    assert opened(tmp_path, **keys, labels="a:1").schema.labels == {"background": 0, "a": 1}
    with raises_fault("listing.label-file-unknown", names="expected among: a, b"):
        opened(tmp_path, **keys, labels="c:1")
