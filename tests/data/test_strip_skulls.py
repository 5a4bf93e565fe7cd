"""``strip_skulls.py`` of the benchmarks, what Han et al. do to slices before all learning."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.sets import check, opened, save_picture
from tests.heads import head
from tests.yolo_sets import write_image, write_yaml

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scripts" / "strip_skulls.py"


@pytest.fixture
def strip(monkeypatch, capsys):
    """Runs the script; returns what it says."""

    def run(data: Path, out: Path) -> str:
        monkeypatch.setattr("sys.argv", [str(SCRIPT), str(data), "-o", str(out)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        said: str = capsys.readouterr().out
        return said

    return run


def test_slices_become_brains_with_boxes_and_masks_where_they_were(tmp_path, strip):
    data, out = tmp_path / "heads", tmp_path / "brains"
    heads = {f"p{seed}": head(seed, scalp=(0.08, 0.1, 0.25)[seed % 3]) for seed in range(6)}
    for case, one in heads.items():
        box = np.array(one.box) / 256
        row = (0, (box[1] + box[3]) / 2, (box[0] + box[2]) / 2, *(box[2:] - box[:2])[::-1])
        split = "val" if case == "p5" else "train"
        write_image(data, split, case, one.image, [row])
        save_picture(data / f"masks/{split}/{case}.png", 255 * one.lesion.astype(np.uint8))
    write_image(data, "train", "p9", head(9).image, [(0, 0.5, 0.02, 0.1, 0.03)])  # above the head
    named = {"train": "images/train", "val": "images/val", "names": {0: "lesion"}, "nc": 1}
    write_yaml(data, {**named, "channels": 1})
    said = strip(data, out)
    assert said.startswith("7 images; less than 90% of a lesion is brain in 1: ")
    assert said.strip().endswith("p9.png")
    assert not [finding for finding in check(out, "yolo").findings if finding.level == "error"]
    source = opened(out / "data.yaml", "yolo", size="256x256", masks="no")
    assert not len(source.image("train/p9").boxes.coords)
    for case, one in heads.items():
        image = source.image(f"{'val' if case == 'p5' else 'train'}/{case}")
        found = np.asarray(Image.open(image.image))
        mask = np.asarray(Image.open(str(image.image).replace("/images/", "/masks/")))
        assert found.shape == mask.shape < one.image.shape
        assert abs(int((found > 0).sum()) - int(one.brain.sum())) < 0.06 * one.brain.sum()
        top, left, bottom, right = image.boxes.coords[0].round().astype(int)
        rows, columns = slice(one.box[0], one.box[2]), slice(one.box[1], one.box[3])
        written = np.asarray(Image.open(next((data / "images").glob(f"*/{case}.png"))))
        np.testing.assert_array_equal(found[top:bottom, left:right], written[rows, columns])
        assert (mask > 0).sum() == one.lesion.sum()


def test_a_slice_without_a_skull_is_cropped_and_loses_nothing(tmp_path, strip):
    one = head()
    brain = np.rint(255 * np.where(one.brain, one.image, 0)).astype(np.uint8)
    save_picture(tmp_path / "d/images/a.png", brain)
    strip(tmp_path / "d", tmp_path / "o")
    found = np.asarray(Image.open(tmp_path / "o/images/a.png"))
    assert found.shape < brain.shape
    assert found.sum() > 0.97 * brain.sum()
