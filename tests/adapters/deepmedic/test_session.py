"""One DeepMedic training: its bank, the process that trains, what is counted and recorded."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gansynth.bank.supply import Supply
from gansynth.core.adapter import Injection, Outcome
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.core.source import SourceRequest
from gansynth.hosts.record import FILE, LOG
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth_deepmedic import session
from gansynth_deepmedic.adapter import DeepMedicAdapter
from gansynth_deepmedic.config import Choices
from gansynth_deepmedic.literals import read_literals
from gansynth_deepmedic.order import ORDER, Order
from gansynth_deepmedic.program import Program
from gansynth_deepmedic.record import commit_of, newest_checkpoint
from gansynth_deepmedic.source import open_deepmedic
from gansynth_deepmedic.watch import Lines, watch
from tests.adapters.deepmedic.fake_deepmedic import write_fake
from tests.deepmedic_sets import toy_deepmedic

STUB = Path(__file__).with_name("stub_child.py")
EPOCHS, SUBEPOCHS = 2, 2


@pytest.fixture
def adapter(shared_deepmedic) -> DeepMedicAdapter:
    return DeepMedicAdapter(open_deepmedic(SourceRequest("deepmedic", str(shared_deepmedic.train))))


@pytest.fixture
def program(monkeypatch, tmp_path) -> Program:
    """A checkout of the small program that goes about its work as DeepMedic does."""
    found = Program(write_fake(tmp_path / "dm"), Path(sys.executable), {"tensorflow": "2.0"})
    monkeypatch.setattr(Choices, "program", lambda self: found)
    return found


@pytest.fixture
def stub(program, monkeypatch) -> Callable[[str], None]:
    """Lets a process that trains nothing take the program's place; ``stub("fails")``."""
    words = lambda program, order: [sys.executable, str(STUB), str(order)]  # noqa: E731
    monkeypatch.setattr(session, "command", words)
    return lambda wrong: monkeypatch.setenv("STUB", wrong)


@pytest.fixture
def train(adapter, crop_bank, shared_deepmedic, tmp_path) -> Callable[..., Outcome]:
    """Trains by a bank of six at 1:2: ``train(ratio=Ratio(1, 1), settings={"epochs": "3"})``."""

    def run(settings: dict[str, str] | None = None, output: str = "out", **changes: Any) -> Outcome:
        small = {"epochs": EPOCHS, "subepochs": SUBEPOCHS, "output": tmp_path / output}
        asked = {"engine": "deepmedic", **{key: str(value) for key, value in small.items()}}
        bank = tmp_path / "bank"
        injection = Injection(
            None, Ratio(1, 2), bank=bank if bank.exists() else crop_bank(), device="cpu"
        )
        options = ["-model", str(shared_deepmedic.model)]
        outcome: Outcome = adapter.start(
            replace(injection, **changes), {**asked, **(settings or {})}, options
        )
        return outcome

    return run


def record_of(output: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((output / FILE).read_text())
    return document


def cases_of(told: dict[str, Any]) -> tuple[int, int]:
    return told["cases_real"], told["cases_synthetic"]


# -- the whole of it -------------------------------------------------------------------------------


def test_every_subepoch_is_counted_and_exact(train, program, tmp_path, capfd):
    outcome = train()
    document = record_of(tmp_path / "out")
    (last,) = document["sessions"]
    assert document["complete"]
    assert last["epochs"] == [0, EPOCHS]
    assert [cases_of(one) for one in last["per_subepoch"]] == [(2, 4)] * EPOCHS * SUBEPOCHS
    for one in last["per_subepoch"]:
        assert (one["segments_real"], one["segments_synthetic"]) == (20, 40)
        assert (one["fell_back"], one["trained"]) == (0, True)
    assert last["drawn"]["realised"] == last["asked"] == pytest.approx(2 / 3, abs=1e-6)
    assert last["bank"].startswith("existing, SHA-256 ")
    assert last["versions"] == {"tensorflow": "2.0", "deepmedic": "unknown"}
    assert len(last["lineage"]["cases"]) == 4
    assert (outcome.drawn_real, outcome.drawn_synthetic, outcome.fell_back) == (8, 16, 0)
    assert outcome.metrics == {"dice": {"foreground": 0.5, "1": 0.25}}
    said = capfd.readouterr().err
    assert "gansynth: subepoch 1 of 4 trained on 2 real and 4 synthetic cases (20 and 40 " in said
    assert "gansynth: epoch 2 of 2: dice foreground 0.5, dice 1 0.25" in said
    assert "gansynth: in all 16 of 24 samples drawn were synthetic" in said
    assert "subepoch 4 of 4" in (tmp_path / "out" / LOG).read_text()


def test_the_process_is_told_what_was_asked(train, stub, shared_deepmedic, tmp_path):
    asked = SampleRequest(seed=7)
    train(settings={"cases": "3", "processes": "2"}, samples=asked, augment_synthetic=False)
    order = Order.read(tmp_path / "out" / ORDER)
    assert (order.engine, order.count, order.subepochs, order.seed) == ("deepmedic", 3, 2, 7)
    assert not order.augment_synthetic
    assert len(order.slots) == 2
    assert order.arguments[:2] == ("-model", str(shared_deepmedic.model))
    values = read_literals(order.train_config)
    assert values["folderForOutput"] == str(tmp_path / "out")
    assert (values["num_processes_sampling"], values["numberOfSubepochs"]) == (2, SUBEPOCHS)


def test_without_augmentation_the_configuration_has_none(adapter, stub, tmp_path, monkeypatch):
    affine = {"affine": {"prob": 0.5, "max_rot_xyz": (45.0, 45.0, 45.0)}}
    reflect = {"hist_dist": None, "reflect": (0.5, 0.0, 0.0), "rotate90": None}
    values = {"augm_img_prms_tr": affine, "augm_sample_prms_tr": reflect}
    toy = toy_deepmedic(tmp_path / "augmented", train=1, val=0, values=values)
    adapter = DeepMedicAdapter(open_deepmedic(SourceRequest("deepmedic", str(toy.train))))
    for usual, output in ((True, "with"), (False, "without")):
        settings = {"engine": "deepmedic", "output": str(tmp_path / output), "cases": "1"}
        injection = Injection(None, Ratio(1, 0), usual_augmentation=usual)
        adapter.start(injection, settings, ["-model", str(toy.model)])
        written = read_literals(tmp_path / output / "train.cfg")
        for key, value in values.items():
            assert written[key] == (value if usual else None)


def test_real_cases_alone_need_no_generator_bank_or_producer(train, stub, tmp_path):
    outcome = train(ratio=Ratio(1, 0), bank=None)
    (last,) = record_of(tmp_path / "out")["sessions"]
    assert last["bank"] == "none"
    assert last["generator"] is last["lineage"] is None
    assert (outcome.drawn_synthetic, outcome.fell_back) == (0, 0)
    # As many cases as there are: each is loaded once.
    assert [cases_of(one) for one in last["per_subepoch"]] == [(4, 0)] * EPOCHS * SUBEPOCHS
    assert not (tmp_path / "out" / "gansynth_producer.log").exists()


def test_what_is_rounded_is_said_and_recorded(train, stub, tmp_path, capfd):
    outcome = train(settings={"cases": "5"})
    assert any("5 in the file, 6 now" in text for text in outcome.warnings)
    assert "gansynth: numOfCasesLoadedPerSubepoch: 5 in the file" in capfd.readouterr().err
    *said, unmeasured = outcome.warnings
    assert record_of(tmp_path / "out")["sessions"][0]["said"] == said
    assert unmeasured.startswith("no Dice and HD95")  # the stub predicts nothing


def test_a_schedule_counts_subepochs(train, stub, tmp_path):
    train(schedule=Schedule.parse("anneal:0%-100%"), ratio=Ratio(1, 1), settings={"epochs": "4"})
    (last,) = record_of(tmp_path / "out")["sessions"]
    drawn = [one["cases_synthetic"] for one in last["per_subepoch"]]
    assert len(drawn) == 4 * SUBEPOCHS
    assert drawn[0] > drawn[-1]
    assert sum(drawn) / (6 * len(drawn)) == pytest.approx(0.25, abs=0.02)
    assert last["asked"] == pytest.approx(0.25)
    assert Order.read(tmp_path / "out" / ORDER).plan.clock is not None


def test_fine_tuning_draws_of_chosen_cases_only(train, stub, tmp_path, adapter):
    train(schedule=Schedule.parse("finetune:25%@50%"), ratio=Ratio(0, 1))
    (last,) = record_of(tmp_path / "out")["sessions"]
    assert len(last["chosen"]) == 1
    assert set(last["chosen"]) < set(adapter.source.train_ids)
    counted = [cases_of(one) for one in last["per_subepoch"]]
    assert counted == [(0, 4)] * SUBEPOCHS + [(4, 0)] * SUBEPOCHS


def test_an_empty_bank_gives_real_cases_and_they_are_counted(train, stub, crop_bank, tmp_path):
    crop_bank(count=0)
    with pytest.raises(TrainingFault, match="holds no sample"):
        train()
    outcome = train(output="again", keep_going=True)
    (last,) = record_of(tmp_path / "again")["sessions"]
    assert [one["fell_back"] for one in last["per_subepoch"]] == [4] * EPOCHS * SUBEPOCHS
    assert [cases_of(one) for one in last["per_subepoch"]] == [(6, 0)] * EPOCHS * SUBEPOCHS
    assert (outcome.drawn_synthetic, outcome.fell_back) == (0, 16)


def test_real_cases_come_through_the_generators_space(train, stub, crop_run, tmp_path):
    train(real_in_generator_space=True, run=RunFolder(crop_run))
    order = Order.read(tmp_path / "out" / ORDER)
    home = str(tmp_path / "out" / "real")
    assert all(case.channels[0].startswith(home) for case in order.cases)
    assert all(Path(file).is_file() for case in order.cases for file in case.channels)


# -- how it ends -----------------------------------------------------------------------------------


def test_a_training_that_fails_says_so_and_keeps_its_record(train, stub, tmp_path):
    stub("fails")
    with pytest.raises(TrainingFault, match="the loss is NaN"):
        train()
    document = record_of(tmp_path / "out")
    assert not document["complete"]
    assert document["sessions"][0]["epochs"] == [0, 1]
    assert document["sessions"][0]["drawn"]["synthetic"] == 8


def test_a_process_that_ends_early_has_not_completed_its_training(train, stub, tmp_path):
    stub("ends early")
    train()
    assert not record_of(tmp_path / "out")["complete"]


def test_rubbish_among_what_is_told_is_passed_over(train, stub, tmp_path):
    stub("says rubbish")
    train()
    (last,) = record_of(tmp_path / "out")["sessions"]
    assert [cases_of(one) for one in last["per_subepoch"]] == [(2, 4)] * EPOCHS * SUBEPOCHS


def test_samples_without_room_for_a_segment_are_counted_and_said(train, stub, tmp_path, capfd):
    before = train(output="before").warnings
    stub("spreads")
    said, *others = train().warnings
    assert len(others) == len(before) == 1  # the stub predicts nothing, which is said
    assert said.startswith(f"segments of {4 * EPOCHS * SUBEPOCHS} synthetic cases were taken")
    (last,) = record_of(tmp_path / "out")["sessions"]
    assert [one["spread"] for one in last["per_subepoch"]] == [4] * EPOCHS * SUBEPOCHS
    assert "segments of 4 of the synthetic ones lie anywhere" in capfd.readouterr().err


def test_nothing_is_left_of_a_session_that_does_not_begin(
    train, stub, crop_run, tmp_path, monkeypatch
):
    made: list[Supply] = []

    def wait(self: Supply) -> None:
        made.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Supply, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        train(run=RunFolder(crop_run), bank=None)
    assert made[0].bank is not None
    assert not made[0].bank.exists()
    assert made[0].keeper is not None
    assert not made[0].keeper.alive()
    assert not record_of(tmp_path / "out")["complete"]


# -- going on --------------------------------------------------------------------------------------


def test_a_training_is_gone_on_with_from_its_last_checkpoint(train, stub, tmp_path):
    stub("fails")
    with pytest.raises(TrainingFault):
        train()
    stub("")
    outcome = train({"resume": "yes"})
    document = record_of(tmp_path / "out")
    assert document["complete"]
    assert [one["epochs"] for one in document["sessions"]] == [[0, 1], [1, EPOCHS]]
    numbers = [one["subepoch"] for last in document["sessions"] for one in last["per_subepoch"]]
    assert numbers == list(range(1, EPOCHS * SUBEPOCHS + 1))
    assert (outcome.drawn_real, outcome.drawn_synthetic) == (8, 16)
    order = Order.read(tmp_path / "out" / ORDER)
    assert order.done == 1
    at = order.arguments.index("-load")
    assert order.arguments[at + 1].endswith("out/saved_models/toy/toy.0.model.ckpt")


def test_tables_of_a_training_that_is_continued_go_on(train, stub, tmp_path):
    train(output="whole")
    whole = Order.read(tmp_path / "whole" / ORDER).made()
    stub("fails")
    with pytest.raises(TrainingFault):
        train()
    stub("")
    train({"resume": "yes"})
    rest = Order.read(tmp_path / "out" / ORDER).made()
    assert whole.order(3) == rest.order(3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": "9"}, "has ended, as asked, after 2 epochs"),
        ({"engine": "torch"}, "a training with engine deepmedic, not torch"),
        ({"subepochs": "5"}, "a training with subepochs 2, not 5"),
    ],
    ids=["epochs", "engine", "subepochs"],
)
def test_another_training_is_not_gone_on_with(
    train, stub, adapter, shared_deepmedic, tmp_path, settings, says
):
    train()
    small = {"engine": "deepmedic", "epochs": "2", "subepochs": "2", "resume": "yes"}
    model = {"model": str(shared_deepmedic.model), "output": str(tmp_path / "out")}
    with pytest.raises(UsageFault, match=says):
        adapter.check(Injection(None, Ratio(1, 0)), {**small, **model, **settings}, ())


def test_a_checkpoint_that_is_gone_is_named(train, stub, tmp_path):
    stub("fails")
    with pytest.raises(TrainingFault):
        train()
    for file in (tmp_path / "out" / "saved_models").rglob("*.index"):
        file.unlink()
    with pytest.raises(UsageFault, match=r"toy.0.model.ckpt.index: missing"):
        train({"resume": "yes"})


def test_the_newest_checkpoint_is_neither_the_first_nor_the_final_one(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    folder = tmp_path / "saved_models" / "toy"
    folder.mkdir(parents=True)
    for name in ("initial.1", "2", "3", "final.4"):
        (folder / f"m.{name}.model.ckpt.index").touch()
    assert newest_checkpoint(tmp_path) == Path("saved_models/toy/m.3.model.ckpt")


# -- small things ----------------------------------------------------------------------------------


def test_lines_are_read_once_and_whole(tmp_path):
    lines = Lines(tmp_path / "told")
    assert list(lines.new()) == []
    with (tmp_path / "told").open("w") as file:
        file.write('{"a": 1}\n{"a"')
        file.flush()
        assert list(lines.new()) == [{"a": 1}]
        file.write(": 2}\n")
        file.flush()
    assert list(lines.new()) == [{"a": 2}]
    assert list(lines.new()) == []


def test_what_ails_the_watching_is_said_once(tmp_path):
    (tmp_path / "told").write_text('{"a": 1}\n')
    said: list[str] = []

    def take(document: Any) -> None:
        raise KeyError("a")

    with watch(tmp_path / "told", take, said.append):
        pass
    (tmp_path / "told").write_text('{"a": 1}\n{"a": 2}\n')
    assert len(said) == 1
    assert "not all counted: KeyError" in said[0]


def test_the_commit_of_a_checkout_is_read_without_git(tmp_path):
    assert commit_of(tmp_path) is None
    git = tmp_path / ".git"
    git.mkdir()
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text("# pack-refs\nabc refs/heads/other\ndef refs/heads/main\n")
    assert commit_of(tmp_path) == "def"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "refs" / "heads" / "main").write_text("123\n")
    assert commit_of(tmp_path) == "123"
    (git / "HEAD").write_text("456\n")
    assert commit_of(tmp_path) == "456"
