"""Phantoms as data sets on disk: nnU-Net's, DeepMedic's, YOLO's, and those of papers' recipes."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image

from gansynth.core.registry import installed
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.sampling.run_source import open_source
from gansynth.testing import demonstration
from gansynth.testing.phantoms import (
    BRATS_LABELS,
    LABELS,
    TISSUES,
    PhantomOptions,
    make_phantom,
    write_phantoms,
)
from gansynth.testing.phantoms.data_sets import FEWEST_PIXELS
from gansynth_deepmedic.configs import read_values
from gansynth_yolo.source import open_yolo

COARSE = PhantomOptions(spacing_mm=8.0)
TWO = replace(COARSE, channels=("FLAIR", "T1c"))
SETS: dict[str, tuple[int, PhantomOptions]] = {
    "nnunet": (2, COARSE),
    "deepmedic": (4, TWO),
    "yolo": (5, replace(COARSE, channels=("T1c",))),
    "tissues": (5, replace(COARSE, channels=("T1",))),
    "brats": (5, COARSE),
    "livers": (5, PhantomOptions(spacing_mm=6.0)),
}
"""Kind -> how many subjects, and how they look."""
PAPERS = ("tissues", "brats", "livers")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set of each kind, of seed 3. Do not change it."""
    folder: Path = tmp_path_factory.mktemp("sets")
    progress: list[str] = []
    for kind, (count, options) in SETS.items():
        write_phantoms(kind, folder / kind, count, 3, options, partial(progress.append, kind))
    assert [kind for kind, (count, _) in SETS.items() for _ in range(count)] == progress
    return folder


def array(path: Path) -> np.ndarray:
    image: Any = nib.load(path)
    return np.asarray(image.dataobj).T


def opened(folder: Path, **keys: str) -> CaseSource:
    return open_source(SourceRequest("nifti", str(folder), read=keys))


@pytest.mark.parametrize("kind", ["nnunet", "livers"])
def test_a_subject_is_the_same_to_the_byte_in_a_smaller_set_and_another_of_another_seed(
    base, tmp_path, kind
):
    def volumes(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.nii.gz")}

    for name, seed in (("again", 3), ("other", 4)):
        write_phantoms(kind, tmp_path / name, 1, seed, SETS[kind][1])
    again, usual = volumes(tmp_path / "again"), volumes(base / kind)
    assert again == {path: usual[path] for path in again}
    assert not set(again.values()) & set(volumes(tmp_path / "other").values())
    stamps = {held[4:8] for held in usual.values()}  # no time of writing: gzip's MTIME
    assert stamps == {bytes(4)}


def test_every_set_says_that_it_is_no_patients(base):
    for file in ("nnunet/dataset", "tissues/dataset", "brats/phantoms", "livers/dataset"):
        about = json.loads((base / f"{file}.json").read_text())
        assert "NOT PATIENTS" in about["description"]
        assert about["phantoms"]["seed"] == 3
    about = json.loads((base / "nnunet/dataset.json").read_text())
    assert "Copyright (C) 1993-2009 Louis Collins" in about["description"]


@pytest.mark.parametrize(
    ("kind", "says", "made"),
    [
        *((kind, f"check nifti:{{}}/{kind}", kind) for kind in PAPERS),
        ("deepmedic", "check deepmedic:", "gliomas/trainConfig.cfg"),
        ("yolo", "check yolo:{}/gliomas/data.yaml --subjects '(sub-[0-9]+)_'", "gliomas"),
    ],
)
def test_the_demo_writes_them_and_says_what_to_run(
    tmp_path, run_json, run_cli, monkeypatch, kind, says, made
):
    for sizes in ("SUBJECTS", "SUBJECTS_OF_SLICES"):
        monkeypatch.setattr(demonstration, sizes, ((4, 8.0), (0, 0.0)))
    out = tmp_path / "p"
    told = run_json("demo", "-o", out, "--phantoms", kind)
    assert told["then"].startswith("gansynth " + says.format(out))
    assert told["subjects"] == 4
    assert (out / made).exists()
    assert {path.name for path in out.iterdir()} == {"DEMO.txt", made.partition("/")[0]}
    if kind == "yolo":  # a slice alone is no subject; their names tell whose they are
        checked = run_cli("check", f"yolo:{out}/gliomas/data.yaml")
        assert "--subjects '(sub-[A-Za-z0-9]+)_'" in checked.stderr.splitlines()[-1]


def test_a_demo_of_the_same_settings_is_kept_and_no_other(tmp_path, run_json, run_cli, monkeypatch):
    monkeypatch.setattr(demonstration, "SUBJECTS", ((1, 8.0), (0, 0.0)))
    words = ("demo", "-o", tmp_path / "p", "--phantoms", "brats")
    told = run_json(*words)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    assert run_json(*words) == told
    refused = run_cli(*words, "--seed", "1")
    assert "[testing.demonstration-folder-not-empty]" in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")} == before
    run_json(*words, "--seed", "1", "--force")
    assert {path: path.stat().st_mtime_ns for path in before} != before


def test_nnunets_layout_holds_the_phantom_as_x_y_z(base):
    raw = base / "nnunet"
    expected = {"dataset.json"}
    for case in ("phantom_000", "phantom_001"):
        expected |= {f"labelsTr/{case}.nii.gz"}
        expected |= {f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in range(4)}
    assert {str(p.relative_to(raw)) for p in raw.rglob("*") if p.is_file()} == expected
    content = json.loads((raw / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "T1", "1": "T1c", "2": "T2", "3": "FLAIR"}
    assert content["labels"] == {"background": 0, "oedema": 1, "core": 2, "enhancing": 3}
    assert (content["numTraining"], content["file_ending"]) == (2, ".nii.gz")
    phantom = make_phantom(1, 3, COARSE)
    image: Any = nib.load(raw / "imagesTr" / "phantom_001_0002.nii.gz")
    assert image.get_data_dtype() == np.float32
    assert image.header.get_zooms() == (8.0, 8.0, 8.0)
    assert np.array_equal(image.affine, phantom.affine)
    assert np.array_equal(np.asarray(image.dataobj).T, phantom.image[2])
    assert np.array_equal(array(raw / "labelsTr" / "phantom_001.nii.gz"), phantom.labels)


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms("nnunet", tmp_path / "set", 1, 5, COARSE, stop)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_lists_name_every_subject_once_in_the_same_order(base):
    told, folder = read_values(base / "deepmedic/trainConfig.cfg"), base / "deepmedic"
    for part, count in (("Training", 3), ("Validation", 1)):
        names = [*told[f"channels{part}"], told[f"gtLabels{part}"], told[f"roiMasks{part}"]]
        files = [[folder / line for line in (folder / n).read_text().split()] for n in names]
        assert {len(one) for one in files} == {count}
        assert all(path.is_file() for one in files for path in one)
        assert len({tuple(path.parent.name for path in one) for one in files}) == 1
    assert len((folder / told["namesForPredictionsPerCaseVal"]).read_text().split()) == 1


def test_images_are_normal_within_the_brain_and_labels_are_the_phantoms(base):
    folder = base / "deepmedic" / "sub-001"
    brain = array(folder / "brain.nii.gz")
    assert brain.dtype == np.int16  # DeepMedic's uniform sampling chokes on bytes
    for channel in ("FLAIR", "T1c"):
        image = array(folder / f"{channel}.nii.gz")
        assert image.dtype == np.float32
        inside = image[brain > 0]
        assert abs(inside.mean()) < 1e-4
        assert inside.std() == pytest.approx(1, abs=1e-4)
        assert len(np.unique(image[brain == 0])) == 1
    labels = array(folder / "labels.nii.gz")
    assert np.array_equal(labels, make_phantom(1, 3, TWO).labels)
    assert labels.max() < read_values(base / "deepmedic/modelConfig.cfg")["numberOfOutputClasses"]


def test_a_detectors_set_has_boxes_around_what_is_bright_and_people_in_one_split(base):
    folder = base / "yolo"
    text = (folder / "data.yaml").read_text()
    assert text.startswith("# PHANTOMS, NOT PATIENTS")
    assert yaml.safe_load(text) == {
        **{part: f"images/{part}" for part in ("train", "val", "test")},
        **{"nc": 1, "names": {0: "glioma"}, "channels": 1},
    }
    people, free, inside, ends = set(), [], [], []
    source = open_yolo(SourceRequest("yolo", str(folder / "data.yaml")))
    pictures = [(split, one) for split, images in source.images.items() for one in images]
    for split, one in pictures:
        people.add((split, one.image.name[:7]))
        pixels, boxes = np.asarray(Image.open(one.image)), one.boxes.coords
        assert pixels.shape == (24, 24)
        assert pixels.dtype == np.uint8
        free.append(boxes.size == 0)
        assert np.allclose(boxes, np.rint(boxes), atol=1e-3)
        assert ((boxes >= -1e-3) & (boxes <= 24 + 1e-3)).all()
        assert ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) >= FEWEST_PIXELS - 0.01).all()
        for y1, x1, y2, x2 in np.rint(boxes).astype(int):
            inside.append(pixels[y1:y2, x1:x2].max() / np.median(pixels[pixels > 0]))
        filled = np.count_nonzero(pixels, axis=1)
        filled = filled[filled > 0]
        quarter = len(filled) // 4
        ends.append((filled[:quarter].mean(), filled[::-1][:quarter].mean()))
    assert people == {("train", f"sub-00{n}") for n in range(3)} | {
        *(("val", "sub-003"), ("test", "sub-004"))
    }
    assert len(pictures) == len([*folder.glob("labels/*/*.txt")])
    assert 0.2 < np.mean(free) < 0.9
    assert len(inside) > 10
    assert min(inside) > 1.15
    front, back = np.mean(ends, axis=0)  # a brain is narrower in front, which is up
    assert front < 0.95 * back


@pytest.mark.parametrize(
    ("kind", "channels", "labels"),
    [
        ("tissues", ("T1",), TISSUES),
        ("brats", ("flair", "t1", "t1ce", "t2"), BRATS_LABELS),
        ("livers", ("CT",), {"background": 0, "tumour": 1}),
    ],
)
def test_check_finds_nothing_wrong_and_one_subject_in_five_is_held_out(
    base, kind, channels, labels
):
    request = SourceRequest("nifti", str(base / kind))
    found = installed().check("nifti")(request, lambda done, total: None)
    said = [finding.message for finding in found.findings]
    assert found.cases == 5
    # All livers have one abdomen but for its proportions, which is what the guard compares.
    assert ["nearly identical" in text for text in said] == [True] * (kind == "livers")
    source = opened(base / kind)
    assert (source.schema.channels, source.schema.labels) == (channels, labels)
    assert (len(source.train_ids), len(source.held_out_ids)) == (4, 1)


def test_gliomas_are_those_of_make_phantom_in_the_layout_of_brats(base):
    phantom, home = make_phantom(2, 3, COARSE), base / "brats" / "BraTS20_phantom_002"
    parts = ("flair", "t1", "t1ce", "t2", "seg")
    assert {path.name for path in home.iterdir()} == {
        f"BraTS20_phantom_002_{p}.nii.gz" for p in parts
    }
    assert np.array_equal(array(home / "BraTS20_phantom_002_t1ce.nii.gz"), phantom.image[1])
    assert np.array_equal(array(home / "BraTS20_phantom_002_flair.nii.gz"), phantom.image[3])
    seg = array(home / "BraTS20_phantom_002_seg.nii.gz")
    for ours, theirs in (("core", 1), ("oedema", 2), ("enhancing", 4)):
        assert np.array_equal(seg == theirs, phantom.labels == LABELS[ours])


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float(((one > 0) & (other > 0)).sum()) / float((one > 0).sum() + (other > 0).sum())


def test_livers_labels_are_exact_where_drawn_and_about_right_between(base):
    """Measured: from 0.861, between the outermost drawn slices from 0.871."""
    for index in range(5):
        case = f"liver_{index:03d}.nii.gz"
        labels, truth = (array(base / "livers" / part / case) for part in ("labels", "truth"))
        first = int(truth.sum(axis=(1, 2)).argmax()) % 3
        assert np.array_equal(labels[first::3], truth[first::3])
        assert dice(labels, truth) > 0.84
        between = np.flatnonzero(labels[first::3].any(axis=(1, 2))) * 3 + first
        inner = slice(between[0], between[-1] + 1)
        assert dice(labels[inner], truth[inner]) > 0.86
