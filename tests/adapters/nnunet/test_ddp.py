"""Two ranks of a data-parallel nnU-Net training: one producer, one bank, one record, no hang."""

import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gansynth.runtime.errors import IntegrityFault
from gansynth_nnunet.ranks import fault_of_rank, lead

pytestmark = pytest.mark.filterwarnings("ignore")
SECONDS = 300


def _rank(rank: int, folder: Path, work: Callable[[int], Any]) -> None:
    """One process of a group of two: writes what its work returned, or what it ended with."""
    import torch.distributed

    # Ranks need not be numbered children of one process; then only their rank tells them apart.
    multiprocessing.current_process()._identity = ()
    address = f"file://{folder / 'meet'}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        result = {"result": work(rank)}
    except Exception as error:
        result = {"error": type(error).__name__, "text": str(error)}
    (folder / f"rank-{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


@pytest.fixture
def two(tmp_path) -> Callable[[Callable[[int], Any]], list[Any]]:
    """Runs work(rank) in two forked processes that form a group; returns what each came to."""
    import torch.distributed  # before the fork: importing takes seconds

    assert torch.distributed.is_gloo_available()
    context = multiprocessing.get_context("fork")

    def run(work: Callable[[int], Any]) -> list[Any]:
        ranks = [context.Process(target=_rank, args=(rank, tmp_path, work)) for rank in (0, 1)]
        for process in ranks:
            process.start()
        end = time.monotonic() + SECONDS
        for process in ranks:
            process.join(max(0, end - time.monotonic()))
        hanging = [process for process in ranks if process.exitcode is None]
        for process in hanging:
            process.kill()
        assert not hanging, "a rank hangs"
        return [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]

    return run


def lengthy(tick: Callable[[], None]) -> str:
    tick()
    tick()
    return "done"


def refuse(tick: Callable[[], None]) -> None:
    raise IntegrityFault("leakage: of cases")


def bug(tick: Callable[[], None]) -> str:
    return dict[str, str]()["missing"]


@pytest.mark.parametrize(
    ("led", "key", "ends"),
    [
        (lengthy, "result", ["done", "done"]),
        (refuse, "error", ["IntegrityFault"] * 2),
        (refuse, "text", ["leakage: of cases"] * 2),
        (bug, "error", ["KeyError", "GansynthError"]),
    ],
)
def test_what_the_first_rank_did_or_died_of_is_known_to_all(two, led, key, ends):
    assert [end[key] for end in two(lambda rank: lead(rank, 2, led if rank == 0 else bug))] == ends


def test_one_rank_alone_asks_nobody():
    with pytest.raises(IntegrityFault):
        lead(0, 1, refuse)


def test_a_fault_that_a_rank_died_of_is_told_from_what_its_parent_says():
    try:
        refuse(lambda: None)
    except IntegrityFault:
        told = "\n\n-- Process 1 terminated with the following error:\n" + traceback.format_exc()
    fault = fault_of_rank(told)
    assert (type(fault), str(fault)) == (IntegrityFault, "leakage: of cases")
    assert fault_of_rank("ValueError: alone\n") is None


def on_cpu(build: Callable[..., Any]) -> Any:
    """A trainer as nnUNetv2_train builds it for each rank, made to work without CUDA.

    nnU-Net takes it for granted in data-parallel training: it sets the device, and names it to
    DistributedDataParallel, which refuses that for modules on a CPU.
    """
    import torch
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    distributed = torch.nn.parallel.DistributedDataParallel
    module.DDP = lambda network, device_ids: distributed(network)
    trainer = build()
    trainer.device, trainer.grad_scaler = torch.device("cpu"), None
    trainer.configuration_manager.configuration["batch_size"] = 3
    return trainer


def ids(log: Path, pid: int) -> list[str]:
    """Samples drawn by a process, in order."""
    rows = next(log.glob(f"draws-*-{pid}.csv")).read_text().splitlines()
    return [row.split(",")[1] for row in rows if row.startswith("synthetic")]


@pytest.mark.slow
def test_one_producer_serves_both_ranks_which_draw_differently(two, build, told, fitted):
    told(GENERATOR=fitted, DEVICE="cpu", BANK_SIZE=12, FROZEN=1, RATIO="1:2")

    def work(rank: int) -> Any:
        trainer = on_cpu(build)
        trainer.run_training()
        session, folder = trainer.gansynth_session, trainer.output_folder
        where, leads = (
            (str(session.plan.bank), str(session.plan.log), folder),
            bool(session._supply),
        )
        return {"where": where, "leads": leads, "batch": trainer.batch_size, "pid": os.getpid()}

    first, second = (end["result"] for end in two(work))
    bank, log, folder = map(Path, first["where"])
    assert first["where"] == second["where"]
    assert not bank.exists()
    assert (first["batch"], second["batch"]) == (2, 1)
    assert (first["leads"], second["leads"]) == (True, False)
    drawn = [ids(log, end["pid"]) for end in (first, second)]
    assert drawn[0][: len(drawn[1])] != drawn[1]
    record = json.loads((folder / "gansynth.json").read_text())
    assert record["complete"]
    counts = record["sessions"][0]["drawn"]
    assert counts["synthetic"] == sum(map(len, drawn))
    assert counts["real"] + counts["synthetic"] == 3 * (2 + 1)


@pytest.mark.parametrize(
    ("said", "fault", "says"),
    [
        ({}, "IntegrityFault", "leakage"),
        pytest.param(
            {"RESTARTS": 0, "EDITS": "no-such-edit"},
            *("UsageFault", "no-such-edit"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_refusal_ends_both_ranks_alike(two, build, told, fitted, frozen_bank, said, fault, says):
    where = {"GENERATOR": fitted, "DEVICE": "cpu"} if said else {"BANK": frozen_bank(fold="1")}
    told(**where, **said)
    ends = two(lambda rank: on_cpu(build).run_training())
    assert [end["error"] for end in ends] == [fault] * 2
    assert ends[0]["text"] == ends[1]["text"]
    assert says in ends[0]["text"]
