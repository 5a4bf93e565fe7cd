import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.rejected_samples import (
    LINES,
    MOST_PICTURES,
    PICTURES_OF_A_REASON,
    RejectedSamples,
)
from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.data.picture_files import read_picture
from gansynth.runtime.errors import DataFault
from tests.spots import boxes_of, spotted

SCHEMA = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("core",))
CASE = spotted(0, (12, 12, 20, 22))


def sample(index: int = 0, **changes: Any) -> Sample:
    provenance = {"index": index, "seed": 5, "run": "0123"}
    return Sample(**{"image": CASE.image, "boxes": CASE.boxes, "provenance": provenance, **changes})


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / LINES).read_text().splitlines()]


def shown(folder: Path, rejected: Sample, schema: Schema = SCHEMA) -> Any:
    RejectedSamples(folder, schema).keep(rejected, DataFault("test.fault", "a, expected b"), 0)
    (line,) = lines(folder)
    return read_picture(folder / line["picture"], "image")


def test_a_rejected_sample_is_a_picture_with_its_boxes_and_a_line(tmp_path):
    kept, says = RejectedSamples(tmp_path / "r", SCHEMA), "lesion contrast 0.1 in box 1, expected 1"
    kept.keep(sample(), DataFault("test.fault", says), 7)
    (line,) = lines(tmp_path / "r")
    assert (line["reason"], line["fault"]) == ("lesion contrast in box", says)
    assert (line["index"], line["provenance"]["seed"]) == (7, 5)
    assert line["boxes"] == [[0, 12, 12, 20, 22]]
    drawn, bare = shown(tmp_path / "a", sample()), shown(tmp_path / "b", sample(boxes=boxes_of()))
    assert 60 < (drawn != bare).any(axis=2).sum() < 80  # the outline of 16 by 20 pixels


def test_only_the_first_of_each_reason_and_so_many_in_all_are_kept(tmp_path, monkeypatch):
    assert (PICTURES_OF_A_REASON, MOST_PICTURES) == (32, 200)
    monkeypatch.setattr("gansynth.bank.rejected_samples.PICTURES_OF_A_REASON", 3)
    monkeypatch.setattr("gansynth.bank.rejected_samples.MOST_PICTURES", 8)
    for index in range(20):
        kept = RejectedSamples(tmp_path, SCHEMA)  # one that is started again goes on counting
        kept.keep(
            sample(),
            DataFault("test.fault", f"{'abcd'[index % 4]} is wrong, expected right"),
            index,
        )
        kept.keep(sample(), DataFault("test.fault", "a is wrong, expected right"), index)
    reasons = [line["reason"] for line in lines(tmp_path)]
    assert len(reasons) == len(list(tmp_path.glob("*.png"))) == 8
    assert max(reasons.count(reason) for reason in set(reasons)) == 3


def test_whatever_is_wrong_with_a_sample_it_is_noted_and_nothing_raised(tmp_path, capsys):
    broken: list[dict[str, Any]] = [
        {"image": np.full((1, 48, 48), np.nan, np.float32)},
        {"image": np.zeros((48, 48), np.float32)},
        {"image": "none"},
        {"image": np.zeros((1, 0, 48), np.float32)},
        {"labels": np.zeros((3, 3), np.int16)},
        {"boxes": boxes_of((1, 1, 1, 2, 2, 2))},
        {"boxes": boxes_of((-9, -9, 99, 99), (60, 60, 70, 70))},
        {"provenance": {"path": Path("x"), "array": np.zeros(2)}},
    ]
    kept = RejectedSamples(tmp_path, SCHEMA)
    for index, changes in enumerate([*broken, {}]):
        kept.keep(sample(**changes), DataFault("test.fault", "wrong, expected right"), index)
    assert [line["index"] for line in lines(tmp_path)] == list(range(9))
    assert capsys.readouterr().err == ""


def test_volumes_show_the_slice_of_their_largest_box_and_large_images_are_thinned(tmp_path):
    image = np.zeros((1, 6, 20, 20), np.float32)
    image[0, 4] = np.arange(20)
    box = Boxes(np.array([[3, 2, 2, 6, 9, 9]], np.float32), np.zeros(1, np.int16))
    schema = replace(SCHEMA, spacing=(1.0, 1.0, 1.0), axes="DHW")
    assert len(np.unique(shown(tmp_path / "volume", Sample(image, None, box), schema))) > 20
    large = shown(tmp_path / "large", sample(image=np.zeros((1, 2000, 1500), np.float32)))
    assert max(large.shape) <= 600


def test_a_full_disk_is_told_once_and_the_rest_goes_on(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    kept = RejectedSamples(tmp_path / "file" / "folder", SCHEMA)
    for index in range(3):
        kept.keep(sample(), DataFault("test.fault", "a, expected b"), index)
    (line,) = capsys.readouterr().err.splitlines()
    assert "rejected samples are no longer kept as pictures: " in line
    assert "Not a directory" in line
