import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.hosts.contract.record import FILE as RECORD
from gansynth.testing import ToySource
from gansynth_segmenter import judge, load_segmenter
from gansynth_segmenter.inference import FILE
from gansynth_segmenter.networks import SegmentingNetwork
from tests.expected import raises_fault


def drawn_in(output: Path) -> list[list[str]]:
    """Lines (kind, id, case) of what was drawn, in order."""
    files = sorted((output / "gansynth_draws").rglob("*.csv"))
    return [row for path in files for row in csv.reader(path.read_text().splitlines())]


def test_fine_tuning_has_a_learning_rate_of_its_own(train, tmp_path):
    train(ratio="0:1", schedule="finetune:10%@50%", steps="8", log_every="1")
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rates = [float(row["rate"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([1, 1, 1, 0.5] * 2)


def test_seeds_choose_cases_and_weights(train, tmp_path):
    for seed in ("1", "2"):
        train(seed, ratio="1:0", seed=seed)
    assert drawn_in(tmp_path / "1") != drawn_in(tmp_path / "2")
    one, two = (load_segmenter(tmp_path / seed, "cpu").generator.nets for seed in ("1", "2"))
    first, second = (next(nets["generator"].parameters()).detach() for nets in (one, two))
    assert not np.allclose(first, second)


def test_cases_with_foreground_can_be_drawn_more_often(train, tmp_path, monkeypatch):
    load, only = ToySource.load, ToySource(3).train_ids[0]

    def emptied(self: ToySource, case_id: str) -> Any:
        case: Any = load(self, case_id)
        return case if case_id == only else replace(case, labels=np.minimum(case.labels, 0))

    monkeypatch.setattr(ToySource, "load", emptied)
    train("all", ratio="1:0", steps="8")
    train(ratio="1:0", steps="8", foreground="1")
    assert {row[1] for row in drawn_in(tmp_path / "all")} > {only}
    assert {row[1] for row in drawn_in(tmp_path / "out")} == {only}


LEARNS = {"steps": "60", "width": "8", "levels": "3", "learning_rate": "5e-3"}


def test_it_learns_what_the_blobs_look_like_and_can_be_loaded(train, tmp_path, example):
    out, source = tmp_path / "out", ToySource(3)
    dice = dict(train(ratio="1:0", regions="both:1+2", **LEARNS).metrics["dice"])
    assert dice["foreground"] > 0.8
    assert dice["both"] == dice["foreground"]
    document = json.loads((out / "metrics.json").read_text())
    assert document["dice"] == dice
    assert set(document["per_case"]) == set(source.held_out_ids)
    assert document["without_labels"] == []
    assert set(document["predictions"].values()) == {None}  # toy cases are of no file
    image, samples = source.load("toy_12").image, [source.load("toy_13")]
    first = example("judge", ("results/T1", str(out)), image=image, samples=samples)["labels"]
    assert sorted(np.unique(first)) == [0, 1, 2]  # outside of the body is background
    cases: list[Any] = [source.load(case_id) for case_id in source.held_out_ids]
    pairs = [(case.image, case.labels) for case in cases]
    assert judge(out, pairs, "cpu")["dice"] == pytest.approx(dice)
    shuffled = [(image, pairs[i - 1][1]) for i, (image, _) in enumerate(pairs)]
    assert judge(out, shuffled, "cpu")["dice"]["1"] < dice["1"] - 0.2


@pytest.mark.slow
def test_pix2pix_learns_too(train):
    # On so few voxels the levels that drop features out are all there are.
    asked = {**LEARNS, "network": "pix2pix", "steps": "300", "learning_rate": "2e-3"}
    assert train(ratio="1:0", dropout="0", **asked).metrics["dice"]["foreground"] > 0.45


@pytest.mark.fault(3)
def test_a_finished_training_is_judged_again_but_not_by_damaged_weights(train, tmp_path):
    before = train()
    (tmp_path / "out" / "metrics.json").unlink()
    assert train().metrics == before.metrics
    assert summarise(next((tmp_path / "out" / "gansynth_draws").iterdir())).synthetic == 4
    described = json.loads((tmp_path / "out" / FILE).read_text())
    path = tmp_path / "out" / described["weights"]["path"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with raises_fault("training.tensor-file-hash-differs"):
        load_segmenter(tmp_path / "out", "cpu")
    with raises_fault("segmenter.file-missing"):
        load_segmenter(tmp_path, "cpu")


@pytest.mark.fault(38)
def test_a_loss_that_is_no_number_ends_it_with_the_record_kept(train, tmp_path, monkeypatch):
    loss = SegmentingNetwork.loss

    def ill(self: SegmentingNetwork, step: Any) -> dict[str, Any]:
        return {name: term * np.nan for name, term in loss(self, step).items()}

    monkeypatch.setattr(SegmentingNetwork, "loss", ill)
    with raises_fault("training.numbers-not-finite"):
        train()
    assert not json.loads((tmp_path / "out" / RECORD).read_text())["complete"]
