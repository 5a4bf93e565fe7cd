"""A session's producer, record and schedule: deaths, missing samples, which cases are opened."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from gansynth.bank.spec import read_heartbeat
from gansynth.core.schedule import choose_cases
from gansynth.hosts import record
from gansynth.runtime.errors import IntegrityFault, TrainingFault, UsageFault
from gansynth_nnunet.session import ANEW, COMPARED
from tests.adapters.nnunet.conftest import log_of, sidecar
from tests.processes import until

pytestmark = pytest.mark.filterwarnings("ignore")
LIVE = {"DEVICE": "cpu", "BANK_SIZE": 8}
TUNING = {"RATIO": "0:1", "SCHEDULE": "finetune:34%@50%"}


def epochs(number: int, iterations: int = 2, **more: object) -> str:
    values: dict[str, object] = {"num_epochs": number, "num_iterations_per_epoch": iterations}
    values |= {"num_val_iterations_per_epoch": 1, **more}
    return ",".join(f"{key}={value}" for key, value in values.items())


def kill_producer(session: Any) -> None:
    os.kill(read_heartbeat(session.supply.bank)["pid"], signal.SIGKILL)


def test_a_producer_that_died_is_started_again_and_the_log_says_so(ready, fitted):
    trainer = ready(GENERATOR=fitted, **LIVE)
    trainer.get_dataloaders()
    session = trainer.gansynth_session
    kill_producer(session)
    until(lambda: session.supply.keeper.restarts == 1)
    session.epoch(1)
    log = log_of(trainer)
    said = ("killed by SIGKILL", "started again", "1 restart")
    assert [words for words in said if words not in log] == []
    assert sidecar(trainer)["sessions"][0]["supply"]["restarts"] == 1


@pytest.mark.slow
def test_training_goes_on_with_what_a_producer_given_up_has_made(ready, fitted):
    trainer = ready(GENERATOR=fitted, RESTARTS=0, **LIVE)
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


@pytest.mark.slow
def test_its_producer_ends_when_no_more_samples_are_needed(ready, fitted, tmp_path):
    told = {**TUNING, "SCHEDULE": "finetune:50%@50%", "SCRATCH": tmp_path / "here"}
    trainer = ready(GENERATOR=fitted, **LIVE, **told, SET=epochs(2))
    train, _ = trainer.get_dataloaders()
    session = trainer.gansynth_session
    session.epoch(0)
    assert session.supply.bank.parent == tmp_path / "here"
    assert session.supply.keeper.alive()
    next(train)
    session.epoch(1)
    assert not session.supply.keeper.alive()
    assert "no more samples are needed" in log_of(trainer)
    assert "no producer any more" not in log_of(trainer)


def test_where_no_real_case_may_be_drawn_it_never_starts_without(ready, empty_bank):
    trainer = ready(BANK=empty_bank(), KEEP_GOING=1, **TUNING)
    with pytest.raises(TrainingFault, match="holds no sample"):
        trainer.get_tr_and_val_datasets()


def test_it_starts_even_without_a_bank_if_that_is_wanted(ready, fitted, monkeypatch):
    died = TrainingFault("producer: killed by SIGKILL")  # before it had described its bank
    told = {"alive.return_value": False, "messages.return_value": [], "wait.side_effect": died}
    keeper = Mock(restarts=3, ended=died, **told)
    monkeypatch.setattr("gansynth.bank.supervisor.Keeper.start", lambda *_, **__: keeper)
    trainer = ready(GENERATOR=fitted, KEEP_GOING=1, **LIVE)
    train, _ = trainer.get_dataloaders()
    for _ in range(2):
        next(train)
    trainer.gansynth_session.close()
    session = sidecar(trainer)["sessions"][0]
    assert session["drawn"]["reasons"] == {"no bank": 3}
    assert session["supply"] == {"restarts": 3, "ended": "producer: killed by SIGKILL"}


def test_each_training_step_is_timed(ready):
    trainer, seen = ready(), []
    train, _ = trainer.get_dataloaders()
    session = trainer.gansynth_session
    session.step = lambda begin, end: seen.append((begin, end))
    began = time.monotonic()
    trainer.train_step(next(train))
    ((begin, end),) = seen
    assert began <= begin < end <= time.monotonic()


def test_a_step_that_cannot_be_measured_stops_nothing(ready):
    class Broken:
        def step(self, begin: float, end: float) -> None:
            raise OSError("no")

    trainer = ready()
    trainer.get_tr_and_val_datasets()
    session = trainer.gansynth_session
    session.supply._steering = Broken()
    session.step(0, 1)
    session.step(1, 2)
    session.supply._steering = None
    assert log_of(trainer).count("cost is no longer measured: OSError: no") == 1


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


def test_fine_tuning_goes_through_nnunets_rates_again(ready):
    trainer, rates = ready(**TUNING, SET=epochs(10)), []
    for epoch in range(10):
        trainer.lr_scheduler.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates[5] == rates[0] == trainer.initial_lr
    assert rates[:5] == rates[5:] == sorted(rates[:5], reverse=True)
    assert rates[4] == pytest.approx(trainer.initial_lr * 0.2**0.9)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_fine_tuning_opens_the_chosen_cases_only_and_nothing_before(
    ready, opened, monkeypatch, workers
):
    monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
    trainer = ready(SET=epochs(2, 4), **TUNING)
    trainer.run_training()
    train, validation = map(set, trainer.do_split())
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
        log = max((Path(trainer.output_folder) / "gansynth_draws").iterdir())
        batches = (log / "batches-0").stat().st_size  # with nnU-Net's first, which it throws away
        assert drawn.real == (batches - synthetic_only) * trainer.batch_size
    assert sidecar(trainer)["sessions"][0]["chosen"] == sorted(chosen)
    assert not validation.isdisjoint(seen)  # which of them, nnU-Net rolls dice for


FROM = {"dataset": "nnunet:Dataset501_Toy", "fold": "0", "cases": []}
BEFORE: dict[str, Any] = {
    "ratio": "1:1",
    "schedule": "constant",
    "bank": "filled by a producer",
    "usual_augmentation": True,
    "generator": {"manifest_sha256": "a"},
    "lineage": FROM,
}
ANNEALED = {**BEFORE, "schedule": "anneal:0%-100%", "of_epochs": 10}


@pytest.mark.parametrize(
    ("before", "change", "said"),
    [
        (BEFORE, {}, []),
        (BEFORE, {"ratio": "3:1"}, ["ratio: 1:1 before, 3:1 now"]),
        (BEFORE, {"bank": "existing"}, ["bank: filled by a producer before, existing now"]),
        (BEFORE, {"usual_augmentation": False}, ["usual_augmentation: True before, False now"]),
        (BEFORE, {"generator": {"manifest_sha256": "b"}}, ["another generator"]),
        (BEFORE, {"generator": None, "lineage": None}, ["another generator"]),
        (ANNEALED, {}, ["epochs: 10 before, 20 now, which shifts the schedule"]),
    ],
)
def test_what_differs_from_the_last_session_is_said(before, change, said):
    keys = ("frozen", "size", "edits", "augment_synthetic", "cascade")
    now = {**dict.fromkeys(keys), **before, **change}
    assert record.compare(before, now, 20, COMPARED, ANEW) == said


@pytest.mark.parametrize(
    ("change", "fault", "says"),
    [
        ({"schedule": "anneal:0%-100%"}, UsageFault, "has the schedule constant, .*anew without -"),
        ({"lineage": {**FROM, "fold": "1"}}, IntegrityFault, "samples of nnunet:Dataset501_Toy f"),
        ({"lineage": {**FROM, "dataset": "b"}}, IntegrityFault, "expected the same. Name that gen"),
    ],
)
def test_something_else_is_not_gone_on_with(change, fault, says):
    with pytest.raises(fault, match=says):
        record.compare(BEFORE, {**BEFORE, **change}, None, COMPARED, ANEW)


def test_a_trainer_says_another_ratio_and_refuses_another_kind_of_schedule(ready):
    first = ready()
    first.get_tr_and_val_datasets()
    first.gansynth_session.done = 1
    first.gansynth_session.close()
    second = ready(RATIO="3:1", SET=epochs(2))
    second.current_epoch = 1
    second.get_tr_and_val_datasets()
    second.gansynth_session.close(complete=True)
    ratios = [(one["epochs"], one["ratio"]) for one in sidecar(second)["sessions"]]
    assert ratios == [([0, 1], "1:1"), ([1, 1], "3:1")]
    assert "WARNING: since the last session: ratio: 1:1 before, 3:1 now" in log_of(second)
    third = ready(SCHEDULE="anneal")
    third.current_epoch = 1
    with pytest.raises(UsageFault, match="start anew without --c"):
        third.get_tr_and_val_datasets()
