"""Rejected samples: kept as pictures with their reasons, not too many, and never in the way."""
# mypy: disallow-untyped-calls=False

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.producer import ProducerConfig, produce
from gansynth.bank.reader import BankSpec, BankWriter
from gansynth.bank.rejected_samples import EACH, LINES, MOST, RejectedSamples
from gansynth.core.lineage import Lineage
from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.data.picture_files import read_picture
from gansynth.runtime.errors import DataFault, TrainingFault
from tests.spots import boxes_of, spotted

SCHEMA = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("core",))


def sample(index: int = 0, **changes: Any) -> Sample:
    case = spotted(index, (12, 12, 20, 22))
    told = {"index": index, "seed": 5, "run": "0123"}
    return Sample(**{"image": case.image, "boxes": case.boxes, "provenance": told, **changes})


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / LINES).read_text().splitlines()]


def supervisor(folder: Path) -> RejectedSamples:
    return RejectedSamples(folder, SCHEMA)


def test_a_rejected_sample_is_a_picture_and_a_line(tmp_path):
    supervisor(tmp_path / "r").keep(
        sample(), DataFault("lesion contrast 0.1 in box 1, expected 1"), 7
    )
    (line,) = lines(tmp_path / "r")
    assert line["reason"] == "lesion contrast in box"
    assert line["fault"] == "lesion contrast 0.1 in box 1, expected 1"
    assert (line["index"], line["provenance"]["seed"]) == (7, 5)
    assert line["boxes"] == [[0, 12, 12, 20, 22]]
    assert (tmp_path / "r" / line["picture"]).exists()


def shown(folder: Path, rejected: Sample) -> Any:
    """The picture (H, W, 3) of one rejected sample."""
    supervisor(folder).keep(rejected, DataFault("a, expected b"), 0)
    (line,) = lines(folder)
    return read_picture(folder / line["picture"], "image")


def test_its_boxes_are_drawn(tmp_path):
    drawn, bare = shown(tmp_path / "a", sample()), shown(tmp_path / "b", sample(boxes=boxes_of()))
    assert 60 < (drawn != bare).any(axis=2).sum() < 80  # the outline of 16 by 20 pixels


def test_only_the_first_of_each_reason_and_so_many_in_all_are_kept(tmp_path, monkeypatch):
    assert (EACH, MOST) == (32, 200)
    monkeypatch.setattr("gansynth.bank.rejected_samples.EACH", 3)
    monkeypatch.setattr("gansynth.bank.rejected_samples.MOST", 8)
    kept = supervisor(tmp_path)
    for index in range(20):
        kept.keep(sample(), DataFault(f"{'abcd'[index % 4]} is wrong, expected right"), index)
        kept.keep(sample(), DataFault("a is wrong, expected right"), index)
    told = [line["reason"] for line in lines(tmp_path)]
    assert len(told) == len(list(tmp_path.glob("*.png"))) == 8
    assert max(told.count(reason) for reason in set(told)) == 3


def test_a_producer_that_is_started_again_goes_on_counting(tmp_path):
    for _ in range(EACH):
        supervisor(tmp_path).keep(sample(), DataFault("a, expected b"), 0)
    with open(tmp_path / LINES, "a") as stream:
        stream.write('{"reason": "torn')
    supervisor(tmp_path).keep(sample(), DataFault("a, expected b"), 0)
    assert len(list(tmp_path.glob("*.png"))) == EACH


BROKEN: dict[str, Any] = {
    "nan": {"image": np.full((1, 48, 48), np.nan, np.float32)},
    "axes": {"image": np.zeros((48, 48), np.float32)},
    "no image": {"image": "none"},
    "nothing": {"image": np.zeros((1, 0, 48), np.float32)},
    "labels": {"labels": np.zeros((3, 3), np.int16)},
    "boxes of a volume": {"boxes": boxes_of((1, 1, 1, 2, 2, 2))},
    "boxes outside": {"boxes": boxes_of((-9, -9, 99, 99), (60, 60, 70, 70))},
    "no boxes": {"boxes": boxes_of()},
    "provenance": {"provenance": {"path": Path("x"), "array": np.zeros(2)}},
}


@pytest.mark.parametrize("changes", BROKEN.values(), ids=BROKEN)
def test_whatever_is_wrong_with_a_sample_it_is_noted_and_nothing_raised(tmp_path, capsys, changes):
    kept = supervisor(tmp_path)
    kept.keep(sample(**changes), DataFault("wrong, expected right"), 0)
    kept.keep(sample(), DataFault("wrong, expected right"), 1)
    assert (len(lines(tmp_path)), capsys.readouterr().err) == (2, "")


def test_volumes_show_the_slice_of_their_largest_box(tmp_path):
    image = np.zeros((1, 6, 20, 20), np.float32)
    image[0, 4] = np.arange(20)
    box = Boxes(np.array([[3, 2, 2, 6, 9, 9]], np.float32), np.zeros(1, np.int16))
    schema = replace(SCHEMA, spacing=(1.0, 1.0, 1.0), axes="DHW")
    kept = RejectedSamples(tmp_path, schema)
    kept.keep(Sample(image, None, box), DataFault("a, expected b"), 0)
    (line,) = lines(tmp_path)
    assert len(np.unique(read_picture(tmp_path / line["picture"], "image"))) > 20


def test_large_images_are_thinned(tmp_path):
    large = shown(tmp_path, sample(image=np.zeros((1, 2000, 1500), np.float32)))
    assert max(large.shape) <= 600


def test_a_full_disk_is_told_once_and_the_rest_goes_on(tmp_path, capsys):
    kept = supervisor(tmp_path / "file" / "folder")
    (tmp_path / "file").write_text("no folder")
    for index in range(3):
        kept.keep(sample(), DataFault("a, expected b"), index)
    (line,) = capsys.readouterr().err.splitlines()
    assert "rejected samples are no longer kept as pictures: " in line
    assert "Not a directory" in line


def produced(folder: Path, draw: Callable[[int], Sample]) -> dict[str, int]:
    """A bank of six samples; how many were rejected, by reason, beside pictures in ``rejected``."""
    bank, rejected = str(folder / "bank"), str(folder / "rejected")
    spec = BankSpec(SCHEMA, Lineage("toy", "0", ()), "run", "0" * 64, True, 6)
    config = ProducerConfig("run", {}, "", bank, True, 6, rejected=rejected)

    def batch(first: int, count: int) -> list[Sample]:
        return [draw(index) for index in range(first, first + count)]

    how: dict[str, Any] = {"stop": lambda: False, "schema": SCHEMA, "min_size": ()}
    with BankWriter.create(folder / "bank", spec) as writer:
        produce(writer, batch, lambda _: {}, config, **how)
        return dict(writer.rejected)


def test_a_producer_keeps_what_its_gate_rejects(tmp_path):
    reject_reason = {
        "reject_reason": "too little lesion contrast in a box of class core: 0.1 in box 1"
    }

    def draw(index: int) -> Sample:
        return sample(
            index, provenance={"index": index, **(reject_reason if index % 3 == 0 else {})}
        )

    counted = produced(tmp_path, draw)
    told = lines(tmp_path / "rejected")
    assert [line["index"] for line in told] == [0, 3, 6, 9]
    assert counted == {"too little lesion contrast in a box of class core": 4}
    assert {line["reason"] for line in told} == set(counted)


def test_the_rejected_are_there_when_a_producer_gives_up(tmp_path):
    bad = sample(provenance={"reject_reason": "dull, expected contrast"})
    with pytest.raises(TrainingFault):
        produced(tmp_path, lambda _: bad)
    assert len(lines(tmp_path / "rejected")) == EACH
