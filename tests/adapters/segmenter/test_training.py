import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.hosts.record import FILE as RECORD
from gansynth.runtime.errors import IntegrityFault, TrainingFault, UsageFault
from gansynth.testing import ToySource
from gansynth_segmenter import judge, load_segmenter
from gansynth_segmenter.inference import FILE


def session_of(output: Path, number: int = -1) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((output / RECORD).read_text())
    session: dict[str, Any] = document["sessions"][number]
    return {**session, "complete": document["complete"]}


def drawn_in(output: Path) -> list[list[str]]:
    """Lines (kind, id, case) of what was drawn, in order."""
    rows = []
    for path in sorted((output / "gansynth_draws").rglob("*.csv")):
        with path.open(newline="") as file:
            rows += list(csv.reader(file))
    return rows


def weights_of(output: Path) -> dict[str, Any]:
    segmenter = load_segmenter(output, "cpu")
    return {k: v.numpy() for k, v in segmenter.generator.nets["generator"].state_dict().items()}


def test_a_line_has_step_losses_and_the_share_drawn(train, capfd):
    train("out", {"steps": "8"}, ratio="1:1")
    last = [line for line in capfd.readouterr().err.splitlines() if line.startswith("step")][-1]
    assert re.match(r"step: 8/8 \(100%\)  elapsed [\d:]+  synthetic 50%  \w+ \d", last)


def test_fine_tuning_has_a_learning_rate_of_its_own(train, tmp_path):
    asked = {"ratio": "0:1", "schedule": "finetune:10%@50%"}
    train("out", {"steps": "8", "log_every": "1"}, **asked)
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rates = [float(row["rate"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([1, 1, 1, 0.5] * 2)


def test_seeds_choose_cases_and_weights(train, tmp_path):
    train("one", ratio="1:0", seed=1)
    train("same", {"seed": "1"}, ratio="1:0")
    train("other", ratio="1:0", seed=2)
    one, same, other = (drawn_in(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other
    first = [next(iter(weights_of(tmp_path / name).values())) for name in ("one", "same", "other")]
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.allclose(first[0], first[2])


def test_cases_with_foreground_can_be_drawn_more_often(train, tmp_path, monkeypatch):
    load, only = ToySource.load, ToySource(3).train_ids[0]

    def emptied(self: ToySource, case_id: str) -> Any:
        case = load(self, case_id)
        assert case.labels is not None
        return case if case_id == only else replace(case, labels=np.minimum(case.labels, 0))

    monkeypatch.setattr(ToySource, "load", emptied)
    train("all", {"steps": "8"}, ratio="1:0")
    train("out", {"steps": "8", "foreground": "1"}, ratio="1:0")
    assert {row[1] for row in drawn_in(tmp_path / "all")} > {only}
    assert {row[1] for row in drawn_in(tmp_path / "out")} == {only}


LEARNS = {"steps": "60", "width": "8", "levels": "3", "learning_rate": "5e-3"}


def test_it_learns_what_the_blobs_look_like_and_can_be_loaded(train, tmp_path):
    training_result = train("out", {**LEARNS, "regions": "both:1+2"}, ratio="1:0")
    dice = training_result.metrics["dice"]
    assert dice["foreground"] > 0.8
    assert dice["both"] == dice["foreground"]
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    source = ToySource(3)
    assert document["dice"] == dict(dice)
    assert set(document["per_case"]) == set(source.held_out_ids)
    assert document["without_labels"] == []
    assert set(document["predictions"].values()) == {None}  # toy cases are of no file
    first = load_segmenter(tmp_path / "out", "cpu").predict(source.load("toy_12").image)
    assert sorted(np.unique(first)) == [0, 1, 2]  # outside of the body is background
    cases = [source.load(case_id) for case_id in source.held_out_ids]
    pairs = [(case.image, case.labels) for case in cases if case.labels is not None]
    judged = judge(tmp_path / "out", pairs, "cpu")
    assert judged["dice"] == pytest.approx(dict(dice))
    shuffled = [(image, pairs[i - 1][1]) for i, (image, _) in enumerate(pairs)]
    assert judge(tmp_path / "out", shuffled, "cpu")["dice"]["1"] < dice["1"] - 0.2


@pytest.mark.slow
def test_pix2pix_learns_too(train):
    # On so few voxels the levels that drop features out are all there are.
    asked = {**LEARNS, "network": "pix2pix", "steps": "300", "learning_rate": "2e-3"}
    training_result = train("out", {**asked, "dropout": "0"}, ratio="1:0")
    assert training_result.metrics["dice"]["foreground"] > 0.45


def test_a_finished_training_is_judged_again(train, tmp_path):
    before = train("out")
    (tmp_path / "out" / "metrics.json").unlink()
    after = train("out")
    assert after.metrics == before.metrics
    assert summarise(next((tmp_path / "out" / "gansynth_draws").iterdir())).synthetic == 4


@pytest.mark.fault(3)
def test_damaged_weights_are_not_loaded(train, tmp_path):
    train("out")
    described = json.loads((tmp_path / "out" / FILE).read_text())
    path = tmp_path / "out" / described["weights"]["path"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityFault, match="SHA-256"):
        load_segmenter(tmp_path / "out", "cpu")
    with pytest.raises(UsageFault, match=r"segmenter.json: missing"):
        load_segmenter(tmp_path, "cpu")


@pytest.mark.fault(38)
def test_a_loss_that_is_no_number_ends_it_with_the_record_kept(train, tmp_path, monkeypatch):
    import torch

    from gansynth_segmenter.networks import SegmentingNetwork

    before = SegmentingNetwork.loss

    def ill(self: SegmentingNetwork, step: Any) -> dict[str, torch.Tensor]:
        return {name: term * torch.nan for name, term in before(self, step).items()}

    monkeypatch.setattr(SegmentingNetwork, "loss", ill)
    with pytest.raises(TrainingFault, match="expected finite numbers"):
        train("out")
    assert not session_of(tmp_path / "out")["complete"]
