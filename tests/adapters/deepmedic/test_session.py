import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.host_commands import TrainingRequest
from gansynth.core.mix_config import MixConfig, TrainingResult
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.hosts.record import FILE, LOG
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.progress import RichReporter
from gansynth_deepmedic import session
from gansynth_deepmedic.adapter import DeepMedicAdapter
from gansynth_deepmedic.configs import ConfigFile
from gansynth_deepmedic.program import DeepMedicProgram
from gansynth_deepmedic.progress_reader import LineFollower, watch
from gansynth_deepmedic.record import commit_of, newest_checkpoint
from gansynth_deepmedic.training_order import ORDER, TrainingOrder
from tests.adapters.deepmedic.fake_deepmedic import write_fake
from tests.deepmedic_sets import Toy, toy_deepmedic
from tests.processes import until

STUB = Path(__file__).with_name("stub_child.py")
Train = Callable[..., TrainingResult]


def adapter_of(toy: Toy) -> DeepMedicAdapter:
    return DeepMedicAdapter(toy.source())


@pytest.fixture
def program(monkeypatch, tmp_path) -> DeepMedicProgram:
    """A checkout of the small program that goes about its work as DeepMedic does."""
    found = DeepMedicProgram(
        write_fake(tmp_path / "dm"), Path(sys.executable), {"tensorflow": "2.0"}
    )
    monkeypatch.setattr("gansynth_deepmedic.adapter.find_program", lambda *_: found)
    return found


@pytest.fixture
def stub(program, monkeypatch) -> Callable[[str], None]:
    """Lets a process that trains nothing take the program's place; ``stub("fails")``."""
    words = lambda program, order: [sys.executable, str(STUB), str(order)]  # noqa: E731
    monkeypatch.setattr(session, "command", words)
    return lambda wrong: monkeypatch.setenv("STUB", wrong)


@pytest.fixture
def train(crop_bank, shared_deepmedic, tmp_path) -> Train:
    """Trains two epochs of two subepochs by a bank of six at 1:2: ``train(ratio=Ratio(1, 1))``."""
    adapter = adapter_of(shared_deepmedic)

    def run(
        settings: dict[str, str] | None = None, output: str = "out", **changes: Any
    ) -> TrainingResult:
        small = {"deepmedic": "dm", "epochs": "2", "subepochs": "2"}
        asked = {**small, "output": str(tmp_path / output), **(settings or {})}
        bank = tmp_path / "bank"
        bank = bank if bank.exists() else crop_bank()
        mix_config = replace(MixConfig(None, Ratio(1, 2), bank=bank, device="cpu"), **changes)
        model = ["-model", str(shared_deepmedic.model)]
        result: TrainingResult = adapter.start(
            TrainingRequest(mix_config, asked, model, RichReporter())
        )
        return result

    return run


def record_of(output: Path) -> Any:
    return read_json(output / FILE)


def log_of(folder: Path) -> str:
    return (folder / "out" / LOG).read_text("utf-8")


def last_of(output: Path) -> Any:
    return record_of(output)["sessions"][-1]


def cases_of(last: dict[str, Any]) -> list[tuple[int, int]]:
    return [(one["cases_real"], one["cases_synthetic"]) for one in last["per_subepoch"]]


def test_every_subepoch_is_counted_and_exact(train, program, tmp_path, capfd):
    result = train()
    document, last = record_of(tmp_path / "out"), last_of(tmp_path / "out")
    assert document["complete"]
    assert last["epochs"] == [0, 2]
    assert cases_of(last) == [(2, 4)] * 4
    for one in last["per_subepoch"]:
        assert (one["segments_real"], one["segments_synthetic"]) == (20, 40)
        assert (one["fell_back"], one["trained"]) == (0, True)
    assert last["drawn"]["realised"] == last["asked"] == pytest.approx(2 / 3, abs=1e-6)
    assert last["bank"].startswith("existing, SHA-256 ")
    assert last["versions"] == {"tensorflow": "2.0", "deepmedic": "unknown"}
    assert len(last["lineage"]["cases"]) == 4
    assert (result.drawn_real, result.drawn_synthetic, result.fell_back) == (8, 16, 0)
    assert result.metrics == {"dice": {"foreground": 0.5, "1": 0.25}}
    said = log_of(tmp_path)
    assert "gansynth: subepoch 1 of 4 trained on 2 real and 4 synthetic cases (20 and 40 " in said
    assert "gansynth: epoch 2 of 2: dice foreground 0.5, dice 1 0.25" in said
    assert "gansynth: in all 16 of 24 samples drawn were synthetic" in said
    assert "subepoch 4 of 4" in said
    shown = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"epoch: 2/2 \(100%\)  elapsed [\d:]+  synthetic 67%.*", shown[-1])
    assert "subepoch" not in "".join(shown)


def test_the_process_is_told_what_was_asked(train, stub, shared_deepmedic, tmp_path):
    asked = SampleRequest(seed=7)
    train(settings={"cases": "3", "processes": "2"}, samples=asked, augment_synthetic=False)
    order = TrainingOrder.read(tmp_path / "out" / ORDER)
    assert (order.count, order.subepochs, order.seed) == (3, 2, 7)
    assert not order.augment_synthetic
    assert len(order.slots) == 2
    assert order.arguments[:2] == ("-model", str(shared_deepmedic.model))
    values = dict(ConfigFile.read(order.train_config).values)
    assert values["folderForOutput"] == str(tmp_path / "out")
    assert (values["num_processes_sampling"], values["numberOfSubepochs"]) == (2, 2)


def test_without_augmentation_the_configuration_has_none(stub, tmp_path):
    affine = {"affine": {"prob": 0.5, "max_rot_xyz": (45.0, 45.0, 45.0)}}
    reflect = {"hist_dist": None, "reflect": (0.5, 0.0, 0.0), "rotate90": None}
    values = {"augm_img_prms_tr": affine, "augm_sample_prms_tr": reflect}
    toy = toy_deepmedic(tmp_path / "augmented", train=1, val=0, values=values)
    for usual, output in ((True, "with"), (False, "without")):
        settings = {"deepmedic": "dm", "output": str(tmp_path / output), "cases": "1"}
        mix_config = MixConfig(None, Ratio(1, 0), usual_augmentation=usual)
        adapter_of(toy).start(TrainingRequest(mix_config, settings, ["-model", str(toy.model)]))
        written = dict(ConfigFile.read(tmp_path / output / "train.cfg").values)
        assert [written[key] for key in values] == [of if usual else None for of in values.values()]


def test_what_is_rounded_is_said_and_recorded(train, stub, tmp_path):
    training_result = train(settings={"cases": "5"})
    assert any("5 in the file, 6 now" in text for text in training_result.warnings)
    assert "gansynth: numOfCasesLoadedPerSubepoch: 5 in the file" in log_of(tmp_path)
    *said, unmeasured = training_result.warnings
    assert last_of(tmp_path / "out")["said"] == said
    assert unmeasured.startswith("no Dice and HD95")  # the stub predicts nothing


def test_an_empty_bank_gives_real_cases_and_they_are_counted(train, stub, crop_bank, tmp_path):
    crop_bank(count=0)
    train(keep_going=True)
    last = last_of(tmp_path / "out")
    assert [one["fell_back"] for one in last["per_subepoch"]] == [4] * 4
    assert cases_of(last) == [(6, 0)] * 4
    assert "; 4 of the real ones in place of a missing synthetic one" in log_of(tmp_path)


def test_real_cases_come_through_the_generators_space(train, stub, crop_run, tmp_path):
    train(real_in_generator_space=True, run=RunFolder(crop_run))
    order = TrainingOrder.read(tmp_path / "out" / ORDER)
    home = str(tmp_path / "out" / "real")
    assert all(case.channels[0].startswith(home) for case in order.cases)
    assert all(Path(file).is_file() for case in order.cases for file in case.channels)


def test_a_process_that_ends_early_or_says_rubbish(train, stub, tmp_path):
    stub("ends early")
    train()
    assert not record_of(tmp_path / "out")["complete"]
    stub("says rubbish")
    train(output="again")
    assert cases_of(last_of(tmp_path / "again")) == [(2, 4)] * 4


def test_samples_without_room_for_a_segment_are_counted_and_said(train, stub, tmp_path):
    stub("spreads")
    said, unmeasured = train().warnings
    assert said.startswith("segments of 16 synthetic cases were taken")
    assert unmeasured.startswith("no Dice and HD95")  # the stub predicts nothing
    assert [one["spread"] for one in last_of(tmp_path / "out")["per_subepoch"]] == [4] * 4
    assert "segments of 4 of the synthetic ones lie anywhere" in log_of(tmp_path)


@pytest.fixture
def failed(train, stub, tmp_path) -> Path:
    """A training that has failed in its second epoch, and would go on well."""
    stub("fails")
    with pytest.raises(TrainingFault, match="the loss is NaN"):
        train()
    stub("")
    return Path(tmp_path / "out")


def test_a_training_that_fails_keeps_its_record_and_is_gone_on_with(failed, train, tmp_path):
    assert not record_of(failed)["complete"]
    assert last_of(failed)["epochs"] == [0, 1]
    assert last_of(failed)["drawn"]["synthetic"] == 8
    training_result = train()
    document = record_of(failed)
    assert document["complete"]
    assert [one["epochs"] for one in document["sessions"]] == [[0, 1], [1, 2]]
    numbers = [one["subepoch"] for last in document["sessions"] for one in last["per_subepoch"]]
    assert numbers == [1, 2, 3, 4]
    assert (training_result.drawn_real, training_result.drawn_synthetic) == (8, 16)
    order = TrainingOrder.read(failed / ORDER)
    assert order.done == 1
    at = order.arguments.index("-load")
    assert order.arguments[at + 1].endswith("out/saved_models/toy/toy.0.model.ckpt")
    train(output="whole")
    whole = TrainingOrder.read(tmp_path / "whole" / ORDER).made()
    assert whole.order(3) == order.made().order(3)


def test_another_training_or_checkpoint_is_not_gone_on_with(failed, train, shared_deepmedic):
    for file in (failed / "saved_models").rglob("*.index"):
        file.rename(file.with_suffix(".away"))
    with pytest.raises(UsageFault, match=r"toy.0.model.ckpt.index: missing"):
        train()
    for file in (failed / "saved_models").rglob("*.away"):
        file.rename(file.with_suffix(".index"))
    train()
    small = {"deepmedic": "dm", "epochs": "2", "subepochs": "2"}
    small |= {"model": str(shared_deepmedic.model), "output": str(failed)}
    for settings, says in (
        ({"epochs": "9"}, "numberOfEpochs 2, not 9"),
        ({"subepochs": "5"}, "numberOfSubepochs 2, not 5"),
    ):
        with pytest.raises(UsageFault, match=says):
            adapter_of(shared_deepmedic).training_folder(
                TrainingRequest(MixConfig(None, Ratio(1, 0)), {**small, **settings}, ())
            )


def test_the_newest_checkpoint_is_neither_the_first_nor_the_final_one(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    folder = tmp_path / "saved_models" / "toy"
    folder.mkdir(parents=True)
    for name in ("initial.1", "2", "3", "final.4"):
        (folder / f"m.{name}.model.ckpt.index").touch()
    assert newest_checkpoint(tmp_path) == Path("saved_models/toy/m.3.model.ckpt")


def test_lines_are_read_once_and_whole(tmp_path):
    lines = LineFollower(tmp_path / "told")
    assert list(lines.new()) == []
    for text, found in (('{"a": 1}\n{"a"', [{"a": 1}]), (": 2}\n", [{"a": 2}]), ("", [])):
        with (tmp_path / "told").open("a") as file:
            file.write(text)
        assert list(lines.new()) == found


def test_what_ails_the_watching_is_said_once(tmp_path):
    said: list[str] = []
    told = tmp_path / "told"

    def take(document: Any) -> None:
        raise KeyError("a")

    with watch(told, take, said.append):
        told.write_text('{"a": 1}\n')
        until(lambda: said != [])
        told.write_text('{"a": 1}\n{"a": 2}\n')
    assert len(said) == 1
    assert "not completely counted: KeyError" in said[0]


def test_the_commit_of_a_checkout_is_read_without_git(tmp_path):
    assert commit_of(tmp_path) is None
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text("# pack-refs\nabc refs/heads/other\ndef refs/heads/main\n")
    assert commit_of(tmp_path) == "def"
    (git / "refs" / "heads" / "main").write_text("123\n")
    assert commit_of(tmp_path) == "123"
    (git / "HEAD").write_text("456\n")
    assert commit_of(tmp_path) == "456"
