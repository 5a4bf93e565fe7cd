"""Schedules inside nnU-Net: which real cases are opened at all, and when, by all its processes."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.schedule import choose_cases
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth_nnunet.session import NnunetSession
from gansynth_nnunet.source import open_nnunet

pytestmark = pytest.mark.filterwarnings("ignore")

TUNING = {"RATIO": "0:1", "SCHEDULE": "finetune:34%@50%"}


def epochs(number: int, iterations: int = 2, **more: object) -> str:
    values = {
        "num_epochs": number,
        "num_iterations_per_epoch": iterations,
        "num_val_iterations_per_epoch": 1,
        **more,
    }
    return ",".join(f"{key}={value}" for key, value in values.items())


@pytest.fixture
def opened(monkeypatch, tmp_path) -> Iterator[Callable[[], list[str]]]:
    """Ids of all real cases that nnU-Net has opened, in order, by this process and its workers."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    file = os.open(tmp_path / "opened", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    load = nnUNetDatasetBlosc2.load_case

    def logged(self: Any, identifier: str) -> Any:
        os.write(file, f"{identifier}\n".encode())
        return load(self, identifier)

    monkeypatch.setattr(nnUNetDatasetBlosc2, "load_case", logged)
    yield lambda: (tmp_path / "opened").read_text().split()
    os.close(file)


def test_fine_tuning_goes_through_nnunets_rates_again(build, told, frozen_bank):
    told(**TUNING, BANK=frozen_bank(), SET=epochs(10))
    trainer = build()
    trainer.initialize()
    rates = []
    for epoch in range(10):
        trainer.lr_scheduler.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates[5] == rates[0] == trainer.initial_lr
    assert rates[:5] == rates[5:] == sorted(rates[:5], reverse=True)
    assert rates[4] == pytest.approx(trainer.initial_lr * 0.2**0.9)


@pytest.fixture
def empty_after(monkeypatch):
    """Takes a bank's segments away once the session has wrapped the data set."""
    wrap = NnunetSession.wrap

    def arrange(bank: Path) -> None:
        def wrap_then_empty(session: NnunetSession, real: Any) -> Any:
            mixed = wrap(session, real)
            for segment in bank.glob("segment-*.h5"):
                segment.unlink()
            return mixed

        monkeypatch.setattr(NnunetSession, "wrap", wrap_then_empty)

    return arrange


def cases(trainer: Any) -> tuple[set[str], set[str]]:
    """Training and validation cases of a trainer."""
    train, validation = trainer.do_split()
    return set(train), set(validation)


def sidecar(trainer: Any) -> Any:
    return json.loads((Path(trainer.output_folder) / "gansynth.json").read_text())


def batches(trainer: Any) -> int:
    """Batches that were drawn, nnU-Net's first, which it throws away, among them."""
    log = max((Path(trainer.output_folder) / "gansynth_draws").iterdir())
    return (log / "batches-0").stat().st_size


# -- synthetic only, then fine-tuning --------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_fine_tuning_opens_the_chosen_cases_only_and_nothing_before(
    build, told, frozen_bank, opened, monkeypatch, workers
):
    monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
    told(BANK=frozen_bank(), SET=epochs(2, 4), **TUNING)
    trainer = build()
    trainer.run_training()
    train, validation = cases(trainer)
    chosen = set(choose_cases({case: case for case in train}, 0.34, 0))
    seen = Counter(opened())
    drawn = trainer.gansynth_session.counts()
    synthetic_only = 4  # of 8 batches
    assert len(chosen) == 2 < len(train)
    assert set(seen) - validation == chosen
    assert drawn.synthetic == synthetic_only * trainer.batch_size
    assert sum(seen[case] for case in train) == drawn.real
    assert drawn.fell_back == 0
    if workers == 0:  # else they draw ahead
        assert drawn.real == (batches(trainer) - synthetic_only) * trainer.batch_size
    assert sidecar(trainer)["sessions"][0]["chosen"] == sorted(chosen)
    assert not validation.isdisjoint(seen)  # which of them, nnU-Net rolls dice for


def test_while_nothing_but_samples_may_be_drawn_no_training_case_is_opened(
    build, told, frozen_bank, opened
):
    told(BANK=frozen_bank(), SET=epochs(4), **TUNING)
    trainer = build()
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    for _ in range(3):  # with nnU-Net's own first batch: half of all
        next(loader)
    train, validation = cases(trainer)
    assert set(opened()) <= validation
    next(loader)
    assert set(opened()) & train


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bank_that_runs_dry_is_waited_for_and_then_stops_training(
    build, told, frozen_bank, opened, empty_after, monkeypatch, workers
):
    monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
    bank = frozen_bank()
    told(BANK=bank, SET=epochs(4), PATIENCE=0.5, **TUNING)
    empty_after(bank)
    trainer = build()
    with pytest.raises(TrainingFault, match=r"no synthetic sample after 0\.5 s .*no real case may"):
        trainer.run_training()
    assert set(opened()) <= cases(trainer)[1]


def test_a_continued_training_goes_on_where_its_schedule_was(build, told, frozen_bank, opened):
    told(
        BANK=frozen_bank(),
        SET=epochs(2, 4, save_every=1),
        RATIO="0:1",
        SCHEDULE="finetune:34%@25%",
    )
    first = build()
    stop_after(first, 1)
    before = len(opened())
    second = build()
    second.load_checkpoint(str(Path(second.output_folder) / "checkpoint_latest.pth"))
    second.run_training()
    sessions = sidecar(second)["sessions"]
    assert [session["epochs"] for session in sessions] == [[0, 1], [1, 2]]
    drawn = [(session["drawn"]["synthetic"], session["drawn"]["real"]) for session in sessions]
    assert drawn == [(4, 6), (0, 10)]  # nnU-Net throws the first batch of each session away
    train, _ = cases(second)
    assert set(opened()[before:]) & train <= set(sessions[0]["chosen"])
    assert sessions[1]["chosen"] == sessions[0]["chosen"]
    assert [session["asked"] for session in sessions] == [pytest.approx(0.4, abs=0.01), 0.0]


def stop_after(trainer: Any, epoch: int) -> None:
    """Train, and be interrupted at the end of an epoch."""
    end = trainer.on_epoch_end

    def on_epoch_end() -> None:
        end()
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt

    trainer.on_epoch_end = on_epoch_end
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()


# -- annealing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_annealing_ends_with_real_cases_only(
    build, told, frozen_bank, opened, monkeypatch, workers
):
    monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
    told(BANK=frozen_bank(), SET=epochs(1, 12), SCHEDULE="anneal:0%-50%", RATIO="0:1")
    trainer = build()
    trainer.run_training()
    train, _ = cases(trainer)
    drawn = trainer.gansynth_session.counts()
    assert drawn.synthetic >= trainer.batch_size  # the first batch is synthetic throughout
    assert drawn.real >= 6 * trainer.batch_size
    assert drawn.fell_back == 0
    assert sum(case in train for case in opened()) == drawn.real
    session = sidecar(trainer)["sessions"][0]
    assert session["asked"] == pytest.approx(0.25, abs=0.06)


# -- a mixed phase ---------------------------------------------------------------------------------


def test_real_cases_stand_in_for_missing_samples_and_each_is_counted(
    build, told, frozen_bank, opened, empty_after
):
    bank = frozen_bank()
    told(BANK=bank)
    empty_after(bank)
    trainer = build()
    trainer.run_training()
    train, _ = cases(trainer)
    drawn = trainer.gansynth_session.counts()
    batches = 3  # nnU-Net's first one, which it throws away, among them
    assert (drawn.synthetic, drawn.fell_back) == (0, batches * trainer.batch_size // 2)
    assert sum(case in train for case in opened()) == drawn.real == batches * trainer.batch_size


def test_a_schedule_that_its_ratio_has_no_use_for_is_refused(build, told, frozen_bank):
    told(BANK=frozen_bank(), RATIO="1:1", SCHEDULE="finetune:34%@50%")
    with pytest.raises(UsageFault, match="expected --ratio 0:1"):
        build()


# -- as a user types it ----------------------------------------------------------------------------

AUDIT = """
import os, sys

folder = os.environ["AUDITED"]
log = os.open(os.environ["AUDIT_LOG"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def hook(event, arguments):
    if event == "open" and str(arguments[0]).startswith(folder) and arguments[0].endswith(".pkl"):
        os.write(log, (os.path.basename(arguments[0])[:-4] + "\\n").encode())


sys.addaudithook(hook)
"""
"""Nothing but nnU-Net's ``load_case`` opens a case's ``.pkl``, so this sees every case it opens."""


@pytest.fixture
def audited(toy_copy, monkeypatch, tmp_path) -> Callable[[], list[str]]:
    """Ids of the real cases that any process started from here opens, in order."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(AUDIT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("AUDITED", str(toy_copy.preprocessed))
    monkeypatch.setenv("AUDIT_LOG", str(tmp_path / "audit"))
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    return lambda: (tmp_path / "audit").read_text().split()


def augment(toy: Any, run_cli: Any, run: Path, *more: object) -> Any:
    settings = [f"--set={pair}" for pair in epochs(4, 4).split(",")]
    command = ("augment", "--target", "nnunet", *toy.options, "--generator", run)
    return run_cli(*command, "--json", "--device", "cpu", "--bank-size", 8, *settings, *more)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2])
def test_augment_fine_tunes_on_the_chosen_cases_only(
    toy_copy, fitted, run_cli, audited, monkeypatch, workers
):
    monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
    schedule = ("--ratio", "0:1", "--schedule", "finetune:34%@50%")
    ended = augment(toy_copy, run_cli, fitted, *schedule, "--", "-device", "cpu")
    assert ended.exit_code == 0, ended.stderr[-3000:]
    document = json.loads(ended.stdout)
    record = json.loads((Path(document["folder"]) / "gansynth.json").read_text())
    chosen = record["sessions"][0]["chosen"]
    source = open_nnunet(toy_copy.request())
    seen = Counter(case for case in audited() if case in source.train_ids)
    assert len(chosen) == 2
    assert set(seen) <= set(chosen)
    assert document["drawn_synthetic"] == 2 * 8  # half of 4 times 4 batches of 2
    assert document["fell_back"] == 0
    drawn = document["drawn_real"]
    # A worker that is ended between noting a draw and opening the case: one each at most.
    assert drawn - workers <= sum(seen.values()) <= drawn
    assert set(source.held_out_ids) <= set(audited())


@pytest.mark.slow
def test_augment_goes_on_without_a_sample_if_asked_to_and_ends_in_exit_5(
    toy_copy, nan_run, run_cli, audited
):
    asked = ("--ratio", "1:1", "--keep-going", "--restarts", 0)
    ended = augment(toy_copy, run_cli, nan_run(), *asked, "--", "-device", "cpu")
    assert ended.exit_code == 5
    document = json.loads(ended.stdout)
    assert (document["drawn_synthetic"], document["fell_back"]) == (0, document["drawn_real"] // 2)
    assert "were rejected" in document["supply"]["ended"]
    assert "results are kept" in ended.stderr.splitlines()[-1]
    assert "checkpoint_final.pth" in {file.name for file in Path(document["folder"]).iterdir()}


@pytest.mark.slow
def test_augment_says_what_has_changed_since_the_session_it_continues(
    toy_copy, frozen_bank, run_cli, monkeypatch
):
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    bank = frozen_bank()
    command = ("augment", "--target", "nnunet", *toy_copy.options, "--bank", bank, "--json")
    quick = ("--set=num_iterations_per_epoch=2", "--set=num_val_iterations_per_epoch=1")

    def augment(ratio: str, number: int, *more: str, host: tuple[str, ...] = ("--c",)) -> Any:
        asked = ("--ratio", ratio, f"--set=num_epochs={number}", *more)
        return run_cli(*command, *quick, *asked, "--", "-device", "cpu", *host)

    assert augment("1:1", 1, host=()).exit_code == 0
    ended = augment("1:3", 2)
    assert ended.exit_code == 0, ended.stderr[-3000:]
    document = json.loads(ended.stdout)
    assert document["warnings"] == ["ratio: 1:1 before, 1:3 now"]
    assert document["asked_synthetic_share"] == pytest.approx(0.625)
    refused = augment("1:3", 3, "--schedule", "anneal")
    assert refused.exit_code == 2
    assert "start anew without --c" in refused.stderr
