"""``strip_skulls.py`` of the benchmarks, what Han et al. do to slices before all learning."""

import runpy
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.sets import check, opened, save_picture
from tests.heads import head
from tests.yolo_sets import write_image, write_yaml

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "measure" / "strip_skulls.py"


def test_slices_become_brains_with_boxes_and_masks_where_they_were(tmp_path, monkeypatch, capsys):
    data, out = tmp_path / "heads", tmp_path / "brains"
    heads = {f"p{seed}": head(seed, scalp=(0.08, 0.1, 0.25)[seed % 3]) for seed in range(3)}
    for case, one in heads.items():
        box = np.array(one.box) / 256
        row = (0, (box[1] + box[3]) / 2, (box[0] + box[2]) / 2, *(box[2:] - box[:2])[::-1])
        write_image(data, "val" if case == "p2" else "train", case, one.image, [row])
        path = data / f"masks/{'val' if case == 'p2' else 'train'}/{case}.png"
        save_picture(path, 255 * one.lesion.astype(np.uint8))
    write_image(data, "train", "p9", head(9).image, [(0, 0.5, 0.02, 0.1, 0.03)])  # above the head
    named = {"train": "images/train", "val": "images/val", "names": {0: "lesion"}, "nc": 1}
    write_yaml(data, {**named, "channels": 1})
    monkeypatch.setattr("sys.argv", [str(SCRIPT), str(data), "-o", str(out)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr().out
    assert said.startswith("4 images; less than 90% of a lesion is brain in 1: ")
    assert said.strip().endswith("p9.png")
    assert not [finding for finding in check(out, "yolo").findings if finding.level == "error"]
    source = opened(out / "data.yaml", "yolo", size="256x256", masks="no")
    assert not len(source.image("train/p9").boxes.coords)
    for case, one in heads.items():
        image = source.image(f"{'val' if case == 'p2' else 'train'}/{case}")
        found = np.asarray(Image.open(image.image))
        mask = np.asarray(Image.open(str(image.image).replace("/images/", "/masks/")))
        assert found.shape == mask.shape < one.image.shape
        assert abs(int((found > 0).sum()) - int(one.brain.sum())) < 0.06 * one.brain.sum()
        top, left, bottom, right = image.boxes.coords[0].round().astype(int)
        rows, columns = slice(one.box[0], one.box[2]), slice(one.box[1], one.box[3])
        written = np.asarray(Image.open(next((data / "images").glob(f"*/{case}.png"))))
        np.testing.assert_array_equal(found[top:bottom, left:right], written[rows, columns])
        assert (mask > 0).sum() == one.lesion.sum()
