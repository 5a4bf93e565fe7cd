import json
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gansynth.bank.draw_log import DrawCounter
from gansynth.core.schedule import choose_cases
from gansynth.runtime.child import SHOWN, SHOWS
from gansynth.runtime.errors import EnvironmentFault, IntegrityFault, UsageFault
from gansynth_nnunet import launch
from gansynth_nnunet.launch import fault_of_rank
from tests.adapters.nnunet.conftest import begin, sidecar
from tests.house import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")
TUNING = {"ratio": "0:1", "schedule": "finetune:34%@50%"}


def epochs(number: int, iterations: int = 2) -> dict[str, int]:
    values = {"num_epochs": number, "num_iterations_per_epoch": iterations}
    return {**values, "num_val_iterations_per_epoch": 1}


def test_fine_tuning_goes_through_nnunets_rates_again_and_each_step_is_timed(ready):
    trainer, rates = ready(**TUNING, settings=epochs(10)), []
    for epoch in range(10):
        trainer.lr_scheduler.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates[5] == rates[0] == trainer.initial_lr
    assert rates[:5] == rates[5:] == sorted(rates[:5], reverse=True)
    assert rates[4] == pytest.approx(trainer.initial_lr * 0.2**0.9)
    train, _ = begin(trainer).get_dataloaders()
    seen: list[tuple[float, float]] = []
    trainer.session.took = lambda *times: seen.append(times)
    began = time.monotonic()
    trainer.train_step(next(train))
    ((started, ended),) = seen
    assert began <= started < ended <= time.monotonic()


def test_fine_tuning_opens_the_chosen_cases_only_and_nothing_before(ready, monkeypatch):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    load, seen = nnUNetDatasetBlosc2.load_case, Counter[str]()

    def logged(self: Any, identifier: str) -> Any:
        seen[identifier] += 1
        return load(self, identifier)

    monkeypatch.setattr(nnUNetDatasetBlosc2, "load_case", logged)
    trainer = ready(settings=epochs(2, 4), **TUNING)
    trainer.run_training()
    train, validation = map(set, trainer.do_split())
    chosen = set(choose_cases({case: case for case in train}, 0.34, 0))
    drawn = DrawCounter(trainer.gansynth_plan.log).update()
    synthetic_only = 4  # of 8 batches
    assert len(chosen) == 2 < len(train)
    assert set(seen) - validation == chosen
    assert drawn.synthetic == synthetic_only * trainer.batch_size
    assert sum(seen[case] for case in train) == drawn.real
    assert drawn.fell_back == 0
    log = max((Path(trainer.output_folder) / "gansynth_draws").iterdir())
    batches = (log / "batches-0").stat().st_size  # with nnU-Net's first, which it throws away
    assert drawn.real == (batches - synthetic_only) * trainer.batch_size
    assert sidecar(trainer)["sessions"][0]["chosen"] == sorted(chosen)
    assert not validation.isdisjoint(seen)  # which of them, nnU-Net rolls dice for


def test_where_nnunetv2_train_starts_it_a_trainer_goes_on_with_no_other_training(ready):
    first = begin(ready())
    first.session.close()
    other = ready(ratio="3:1")
    other.current_epoch = 1
    with pytest.raises(UsageFault, match="another training, with ratio 1:1, not 3:1"):
        begin(other)


def test_the_parent_process_is_told_of_the_epoch_that_runs(ready, monkeypatch, capfd):
    first = ready(settings=epochs(3))
    first.num_epochs = 1  # as if it were cut off
    first.run_training()
    trainer = ready(settings=epochs(3))
    trainer.load_checkpoint(f"{first.output_folder}/checkpoint_final.pth")
    monkeypatch.setenv(SHOWS, "1")
    trainer.run_training()
    sent = [line.partition(SHOWN)[2] for line in capfd.readouterr().err.splitlines()]
    begun, *_, last = [message for text in sent if text and "done" in (message := json.loads(text))]
    assert begun == {"unit": "epoch", "done": 1.001, "total": 3, "synthetic": "0%"}
    assert (last["done"], last["total"], last["synthetic"]) == (3, 3, "50%")
    logged = [trainer.logger.get_value(name, step=-1) for name in ("train_losses", "mean_fg_dice")]
    assert [last["loss"], last["Dice"]] == pytest.approx(logged)


def test_a_fault_that_a_rank_died_of_is_told_from_what_its_parent_says():
    try:
        raise IntegrityFault("leakage: of cases")
    except IntegrityFault:
        told = "\n\n-- Process 1 terminated with the following error:\n" + traceback.format_exc()
    fault = fault_of_rank(told)
    assert (type(fault), str(fault)) == (IntegrityFault, "leakage: of cases")
    assert fault_of_rank("ValueError: alone\n") is None


def test_a_killed_loader_worker_is_one_line_that_says_how_to_go_on(monkeypatch):
    def run_training(*words: object, **named: object) -> None:
        raise RuntimeError("One or more background workers are no longer alive. Exiting.")

    monkeypatch.setattr("nnunetv2.run.run_training.run_training", run_training)
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    with pytest.raises(EnvironmentFault, match="the same command goes on from the last checkpoint"):
        launch.run(["Dataset004_X", "2d", "0", "-device", "cpu"])


def ids(log: Path, pid: int) -> list[str]:
    """Samples drawn by a process, in order."""
    rows = next(log.glob(f"draws-*-{pid}.csv")).read_text().splitlines()
    return [row.split(",")[1] for row in rows if row.startswith("synthetic")]


@pytest.mark.slow
def test_one_producer_serves_two_ranks_which_draw_differently(nnunet, told, fitted, tmp_path):
    told(generator=fitted, device="cpu", bank_size="12", offline=True, ratio="1:2")
    words = [sys.executable, "-m", "tests.adapters.nnunet.rank"]
    rest = [str(tmp_path), nnunet.dataset, nnunet.plans]
    ranks = [subprocess.Popen([*words, str(rank), *rest], cwd=ROOT) for rank in (0, 1)]
    try:
        assert [process.wait(300) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
    first, second = (json.loads((tmp_path / f"rank-{n}.json").read_text()) for n in (0, 1))
    bank, log, folder = map(Path, first["where"])
    assert first["where"] == second["where"]
    assert not bank.exists()
    assert (first["batch"], second["batch"]) == (2, 1)
    assert (first["leads"], second["leads"]) == (True, False)
    drawn = [ids(log, end["pid"]) for end in (first, second)]
    assert drawn[0][: len(drawn[1])] != drawn[1]
    record = json.loads((folder / "gansynth_session.json").read_text())
    assert record["complete"]
    counts = record["sessions"][0]["drawn"]
    assert counts["synthetic"] == sum(map(len, drawn))
    assert counts["real"] + counts["synthetic"] == 3 * (2 + 1)
