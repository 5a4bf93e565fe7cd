"""A session's producer and record: deaths, missing samples, what the log says, how it goes on."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gansynth.bank.spec import read_heartbeat
from gansynth.hosts import record
from gansynth.runtime.errors import IntegrityFault, TrainingFault, UsageFault
from gansynth_nnunet.session import ANEW, COMPARED, read_outcome

pytestmark = pytest.mark.filterwarnings("ignore")
LIVE = {"DEVICE": "cpu", "BANK_SIZE": 8}


def sidecar(trainer: Any) -> Any:
    return json.loads((Path(trainer.output_folder) / "gansynth.json").read_text())


def log_of(trainer: Any) -> str:
    return Path(trainer.log_file).read_text()


def kill_producer(session: Any) -> None:
    os.kill(read_heartbeat(session.supply.bank)["pid"], signal.SIGKILL)


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


# -- the producer ----------------------------------------------------------------------------------


def test_a_producer_that_died_is_started_again_and_the_log_says_so(build, told, fitted):
    told(GENERATOR=fitted, **LIVE)
    trainer = build()
    trainer.initialize()
    trainer.get_dataloaders()
    session = trainer.gansynth_session
    kill_producer(session)
    until(lambda: session.supply.keeper.restarts == 1)
    session.epoch(1)
    assert "killed by SIGKILL" in log_of(trainer)
    assert "started again" in log_of(trainer)
    assert "1 restart" in log_of(trainer)
    assert sidecar(trainer)["sessions"][0]["supply"]["restarts"] == 1


@pytest.mark.slow
def test_training_goes_on_with_what_a_producer_given_up_has_made(build, told, fitted):
    told(GENERATOR=fitted, RESTARTS=0, **LIVE)
    trainer = build()
    trainer.initialize()
    train, _ = trainer.get_dataloaders()
    session = trainer.gansynth_session
    kill_producer(session)
    until(lambda: not session.supply.keeper.alive())
    for _ in range(4):
        next(train)
    session.epoch(1)
    session.epoch(2)
    assert (session.counts().synthetic, session.counts().fell_back) == (5, 0)
    assert log_of(trainer).count("there is no producer any more; training goes on") == 1
    assert "SIGKILL" in sidecar(trainer)["sessions"][0]["supply"]["ended"]


def test_a_bank_without_a_sign_of_life_gives_real_cases_and_counts_them(build, told, empty_bank):
    from dataclasses import replace

    told(BANK=empty_bank(), KEEP_GOING=1)
    trainer = build()
    trainer.initialize()
    trainer.gansynth_session = None
    real, _ = trainer.get_tr_and_val_datasets()
    session = trainer.gansynth_session
    session.plan = replace(session.plan, stale_seconds=0.0)
    mixed = session.wrap(real._real)
    for _ in range(4):
        mixed.load_case(mixed.identifiers[0])
    assert session.counts().reasons == {"the bank is stale: its producer has gone": 2}


@pytest.mark.slow
def test_its_producer_ends_when_no_more_samples_are_needed(build, told, fitted):
    told(
        GENERATOR=fitted,
        **LIVE,
        RATIO="0:1",
        SCHEDULE="finetune:50%@50%",
        SET="num_epochs=2,num_iterations_per_epoch=2",
    )
    trainer = build()
    trainer.initialize()
    train, _ = trainer.get_dataloaders()
    session = trainer.gansynth_session
    session.epoch(0)
    assert session.supply.keeper.alive()
    next(train)
    session.epoch(1)
    assert not session.supply.keeper.alive()
    assert "no more samples are needed" in log_of(trainer)
    assert "no producer any more" not in log_of(trainer)


@pytest.mark.slow
def test_a_small_shared_memory_is_told_of(build, told, fitted, monkeypatch, tmp_path):
    from gansynth.bank import placement

    monkeypatch.setattr(placement, "SHARED_MEMORY", tmp_path / "none")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told(GENERATOR=fitted, **LIVE)
    trainer = build()
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    assert "there is no shared memory" in log_of(trainer)
    assert trainer.gansynth_session.supply.bank.parent == tmp_path


@pytest.mark.slow
def test_the_size_of_a_bank_in_bytes_is_kept_to(build, told, fitted, tmp_path):
    told(GENERATOR=fitted, DEVICE="cpu", BANK_SIZE="2MB", SCRATCH=tmp_path / "here")
    trainer = build()
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    supply = trainer.gansynth_session.supply
    assert supply.bank.parent == tmp_path / "here"
    assert supply.keeper.config.max_bytes == 2_000_000
    assert 16 <= supply.keeper.config.capacity <= 24
    assert sum(f.stat().st_size for f in supply.bank.glob("segment-*")) <= 2_000_000


# -- no sample at the start ------------------------------------------------------------------------


def test_without_a_sample_training_does_not_start(build, told, empty_bank):
    told(BANK=empty_bank())
    trainer = build()
    trainer.initialize()
    with pytest.raises(TrainingFault, match="holds no sample"):
        trainer.get_tr_and_val_datasets()


def test_it_starts_with_real_cases_alone_if_that_is_wanted(build, told, empty_bank):
    told(BANK=empty_bank(), KEEP_GOING=1)
    trainer = build()
    trainer.run_training()
    assert "WARNING: there is no synthetic sample" in log_of(trainer)
    outcome = read_outcome(Path(trainer.output_folder))
    assert (outcome.drawn_synthetic, outcome.fell_back, outcome.drawn_real) == (0, 3, 6)
    assert "holds no sample" in outcome.supply["ended"]


class Dead:
    """A keeper whose producer died before it had made anything, its bank's description included."""

    restarts, ended = 3, TrainingFault("producer: killed by SIGKILL")

    @classmethod
    def start(cls, *_: object, **__: object) -> "Dead":
        return cls()

    def wait(self, *_: object) -> None:
        raise self.ended

    def alive(self) -> bool:
        return False

    def messages(self) -> list[str]:
        return []

    def stop(self) -> None:
        pass


def test_it_starts_even_without_a_bank_if_that_is_wanted(build, told, fitted, monkeypatch):
    monkeypatch.setattr("gansynth.bank.supervisor.Keeper", Dead)
    told(GENERATOR=fitted, KEEP_GOING=1, **LIVE)
    trainer = build()
    trainer.run_training()
    session = sidecar(trainer)["sessions"][0]
    assert session["drawn"]["reasons"] == {"no bank": 3}
    assert session["supply"] == {"restarts": 3, "ended": "producer: killed by SIGKILL"}


def test_a_producer_that_dies_at_once_leaves_no_bank_behind(build, told, fitted, monkeypatch):
    monkeypatch.setattr("gansynth.bank.supervisor.Keeper", Dead)
    told(GENERATOR=fitted, **LIVE)
    trainer = build()
    trainer.initialize()
    with pytest.raises(TrainingFault, match="killed by SIGKILL"):
        trainer.get_tr_and_val_datasets()
    assert trainer.gansynth_session is None
    assert not list(Path("/dev/shm").glob(f"gansynth-*-{os.getpid()}-*"))


@pytest.mark.parametrize("schedule", ["constant", "finetune:50%@50%"])
def test_where_no_real_case_may_be_drawn_it_never_starts_without(build, told, empty_bank, schedule):
    told(BANK=empty_bank(), KEEP_GOING=1, RATIO="0:1", SCHEDULE=schedule)
    trainer = build()
    trainer.initialize()
    with pytest.raises(TrainingFault, match="holds no sample"):
        trainer.get_tr_and_val_datasets()


@pytest.mark.slow
def test_a_generator_of_which_all_samples_are_rejected_is_refused_with_the_reason(
    build, told, nan_run
):
    told(GENERATOR=nan_run(), RESTARTS=0, **LIVE)
    trainer = build()
    trainer.initialize()
    with pytest.raises(TrainingFault, match="were rejected"):
        trainer.get_tr_and_val_datasets()


def test_a_leaking_generator_is_refused_however_much_one_wants_to_go_on(build, told, frozen_bank):
    told(BANK=frozen_bank(fold="1"), KEEP_GOING=1)
    trainer = build()
    trainer.initialize()
    with pytest.raises(IntegrityFault, match="leakage"):
        trainer.get_tr_and_val_datasets()


# -- steps -----------------------------------------------------------------------------------------


def test_each_training_step_is_timed(build, told, frozen_bank):
    told(BANK=frozen_bank())
    trainer = build()
    trainer.initialize()
    seen = []

    class Session:
        def step(self, begin: float, end: float) -> None:
            seen.append((begin, end))

        def close(self, *_: object, **__: object) -> None:
            pass

    train, _ = trainer.get_dataloaders()
    trainer.gansynth_session.close()
    trainer.gansynth_session = Session()
    began = time.monotonic()
    trainer.train_step(next(train))
    ((begin, end),) = seen
    assert began <= begin < end <= time.monotonic()


def test_a_step_that_cannot_be_measured_stops_nothing(build, told, frozen_bank):
    class Broken:
        def step(self, begin: float, end: float) -> None:
            raise OSError("no")

    told(BANK=frozen_bank())
    trainer = build()
    trainer.initialize()
    trainer.get_tr_and_val_datasets()
    session = trainer.gansynth_session
    session.supply._steering = Broken()
    session.step(0, 1)
    session.step(1, 2)
    session.supply._steering = None
    assert log_of(trainer).count("cost is no longer measured: OSError: no") == 1


# -- going on --------------------------------------------------------------------------------------


def compare(before: Any, now: Any, epochs: int | None = None) -> list[str]:
    return record.compare(before, now, epochs, COMPARED, ANEW)


BEFORE: dict[str, Any] = {
    "ratio": "1:1",
    "schedule": "constant",
    "bank": "filled by a producer",
    "usual_augmentation": True,
    "generator": {"manifest_sha256": "a"},
    "lineage": {"dataset": "nnunet:Dataset501_Toy", "fold": "0", "cases": []},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"ratio": "3:1"}, ["ratio: 1:1 before, 3:1 now"]),
        ({"bank": "existing"}, ["bank: filled by a producer before, existing now"]),
        ({"usual_augmentation": False}, ["usual_augmentation: True before, False now"]),
        ({"generator": {"manifest_sha256": "b"}}, ["another generator"]),
        ({"generator": None, "lineage": None}, ["another generator"]),
    ],
    ids=["nothing", "ratio", "bank", "augmentation", "generator", "none"],
)
def test_what_differs_from_the_last_session_is_said(change, said):
    keys = ("frozen", "size", "edits", "augment_synthetic", "cascade")
    now = {**dict.fromkeys(keys), **BEFORE, **change}
    assert compare(BEFORE, now) == said


def test_a_schedule_that_other_epochs_shift_is_said():
    before = {**BEFORE, "schedule": "anneal:0%-100%", "of_epochs": 10}
    keys = ("frozen", "size", "edits", "augment_synthetic", "cascade")
    now = {**dict.fromkeys(keys), **before}
    assert compare(before, now, 20) == ["epochs: 10 before, 20 now, which shifts the schedule"]


def test_another_kind_of_schedule_is_refused():
    with pytest.raises(UsageFault, match="has the schedule constant, expected one of the same"):
        compare(BEFORE, {**BEFORE, "schedule": "anneal:0%-100%"})


@pytest.mark.parametrize("change", [{"fold": "1"}, {"dataset": "nnunet:Dataset502_Other"}])
def test_a_generator_of_another_data_set_or_fold_is_refused(change):
    lineage = {**BEFORE["lineage"], **change}
    with pytest.raises(IntegrityFault, match="has drawn samples of nnunet:Dataset501_Toy fold 0"):
        compare(BEFORE, {**BEFORE, "lineage": lineage})


def test_a_trainer_refuses_to_go_on_with_another_kind_of_schedule(build, told, frozen_bank):
    reader = frozen_bank()
    told(BANK=reader)
    first = build()
    first.initialize()
    first.get_tr_and_val_datasets()
    first.gansynth_session.done = 1
    first.gansynth_session.close()
    told(BANK=reader, SCHEDULE="anneal")
    second = build()
    second.initialize()
    second.current_epoch = 1
    with pytest.raises(UsageFault, match="start anew without --c"):
        second.get_tr_and_val_datasets()
