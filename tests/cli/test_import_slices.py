from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansynth.core.source import SourceRequest
from gansynth.core.volumes import read_volume
from gansynth.runtime.files import read_json
from gansynth_yolo.import_slices import VOLUMES
from gansynth_yolo.source import open_yolo
from tests.conftest import save_nifti


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    """Four volumes (z, y, x) of 6 x 20 x 24; slices 0 and 1 show no lesion, slice 5 nothing."""
    folder: Path = tmp_path_factory.mktemp("volumes") / "set"
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 20, 24), np.uint8)
    labels[2:5, 4:9, 6:14] = 1
    labels[3:5, 12:15, 3:6] = 2
    for case in ("a_1", "a_2", "b_1", "c_1"):
        image = rng.normal(100, 10, labels.shape).astype(np.float32) + 50 * (labels > 0)
        image[5] = 0
        for kind, array in (("images", image), ("labels", labels)):
            turned = array.transpose(2, 1, 0)[::-1, ::-1]
            affine = np.diag([-1.0, -1.0, 1.0, 1.0])
            save_nifti(folder / kind / f"{case}.nii.gz", turned, affine)
    return folder


@pytest.fixture
def imported(volumes, tmp_path, run_json):
    """Imports the volumes into ``tmp_path / "out"`` with more options: the report, the source."""

    def run(*more: object) -> Any:
        out = tmp_path / "out"
        report = run_json(
            *("import", f"slices:nifti:{volumes}", f"yolo:{out}", "--read=folds=2", *more),
            *("--read=boxes=lesion:1+2", "--read=modality=none", "--subjects", "([abc])_"),
        )
        told: dict[str, Any] = {"read": {"volumes": VOLUMES}, "subjects": f"{out}/subjects.csv"}
        return report, open_yolo(SourceRequest("yolo", str(out), **told))

    return run


def test_what_is_written_is_a_good_data_set(imported, volumes, tmp_path, refuse):
    out = tmp_path / "out"
    report, source = imported()
    assert (len(source.train_ids), len(source.held_out_ids)) == (report["train"], report["val"])
    assert report["train"] + report["val"] == 4 * 5
    assert report["left_out"] == {"constant": 4, "background": 0}
    assert report["boxes"] == {"lesion": 4 * 5}
    sides = source.train_ids, source.held_out_ids
    trained, held_out = ({source.header(case).subject for case in ids} for ids in sides)
    assert not trained & held_out
    assert trained | held_out == {"a", "b", "c"}
    # Boxes lie where the lesions are.
    [case] = [case for case in source.found.pictures if case.endswith("/b_1_z003")]
    np.testing.assert_allclose(
        source.image(case).boxes.coords, [[4, 6, 9, 14], [12, 3, 15, 6]], atol=1e-4
    )
    assert source.place(case) == ("b_1", 3)
    assert source.image(case.replace("z003", "z000")).label.read_text() == ""
    # The record says where each image is from.
    document = read_json(out / "provenance.json")
    assert document["volumes"] == VOLUMES
    assert document["host"]["slices"]["boxes"] == {"of": {"lesion": [1, 2]}, "least": 1}
    row = document["samples"]["a_2_z003"]
    assert (row["case"], row["subject"], row["boxes"]) == ("a_2/axi003", "a", 2)
    [path] = (out / "images").rglob("a_1_z002.png")
    with Image.open(path) as picture:
        assert picture.mode == "L"  # of 8 bits
    again, _ = imported()
    assert again == {**report, "imported_already": True}
    asked = ("import", f"slices:nifti:{volumes}", f"yolo:{out}", "--read=boxes=lesion:1+2")
    refuse(*asked, "--read=folds=2", code=2, says=["holds other files"], keep=[tmp_path])


def test_a_share_of_the_training_backgrounds_is_kept_and_pixels_of_16_bits(
    imported, volumes, tmp_path
):
    # Of each volume three slices show lesions, two do not, and one is constant.
    report, source = imported("--set=backgrounds=0.5", "--set=bits=16")
    images = source.images
    shown = {split: sum(len(i.rows) > 0 for i in images[split]) for split in ("train", "val")}
    assert sum(shown.values()) == 4 * 3
    assert len(images["train"]) - shown["train"] == shown["train"] / 3
    assert len(images["val"]) - shown["val"] == shown["val"] / 3 * 2
    assert source.grey
    [[low, high]] = report["window"]  # of all images
    for case in ("a_1", "c_1"):
        [path] = (tmp_path / "out" / "images").rglob(f"{case}_z002.png")
        stored = read_volume(volumes / "images" / f"{case}.nii.gz").array
        plane = stored[::-1, ::-1].transpose(2, 1, 0)[2]
        expected = np.clip((plane - low) / (high - low), 0, 1) * (2**16 - 1)
        np.testing.assert_allclose(np.asarray(Image.open(path)), expected, atol=0.51)
