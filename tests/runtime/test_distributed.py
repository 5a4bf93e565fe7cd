"""Two processes under torchrun train as one with the whole batch would."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from gansynth.core.run_folder import read_manifest
from gansynth.report.figures import read_metrics
from gansynth.runtime.child import torch_threads
from gansynth.runtime.distributed import ProcessGroup
from gansynth.training import checkpoint
from gansynth.training.loop import train
from tests.expected import raises_fault
from tests.processes import forked
from tests.training.zoo import ranks
from tests.training.zoo.members import ZOO, apart, loop, member, newest, toy_batches

ROOT = Path(__file__).parents[2]
SHARED = tuple(name for name, chosen in ZOO.items() if chosen.shared and name != "wgan_gp")
ROUNDING = 1e-4
"""Two sums of float32 in different orders differ by 1e-7 of what they add up; Adam divides a
gradient by its own size, so a weight whose gradient nearly cancels may differ by more. Of the way
from the first weights to the last, this is the most that was ever allowed to differ; measured are
1e-6 to 5e-5."""
WHOLE = {"steps": 8, "batch_size": 4}
ILL = {**WHOLE, "checkpoint_every": 3}
STEPS = {"progressive": 22, "cpggan": 18, "mmgan": 3}
Seen = dict[str, tuple[Path, list[dict[str, Any]]]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As many as torchrun gives each process."""
    with torch_threads(1):
        yield


def alone(name: str, folder: Path, **options: Any) -> Any:
    """The same training by this process."""
    return train(member(name), toy_batches(name), loop(name, **options), folder=folder)


def by_two(base: Path, jobs: dict[str, dict[str, Any]]) -> Seen:
    """Jobs done by two processes at once: by name, the folder and what each process saw."""
    for key, job in jobs.items():
        job["folder"] = str(base / key)
    (base / "jobs.json").write_text(json.dumps(list(jobs.values())))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def work(rank: int) -> None:
        told = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(told, MASTER_PORT=port)
        ranks.main(base / "jobs.json")

    assert forked(work, 2) == [0, 0]
    saw = [json.loads((base / f"rank{rank}.json").read_text()) for rank in range(2)]
    return {key: (base / key, seen) for key, *seen in zip(jobs, *saw, strict=True)}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Seen:
    """All that happens to ``wgan_gp``; shares of a batch may be done in parts, too."""
    base = tmp_path_factory.mktemp("ranks")
    jobs: dict[str, dict[str, Any]] = {
        "joins": {"options": WHOLE},
        "parts": {"options": {**WHOLE, "accumulate": 2}},
        "loss": {"options": ILL, "on_rank_1": "loss"},
        "buffer": {"options": ILL, "on_rank_1": "buffer"},
        "stop": {"options": WHOLE, "on_rank_1": "stop"},
    }
    alone("wgan_gp", base / "joins", **{**WHOLE, "steps": 5})
    return by_two(base, {key: {"name": "wgan_gp", **job} for key, job in jobs.items()})


def assert_close(folder: Path, tmp_path: Path, name: str, **options: Any) -> None:
    """Equal to a training by one process, up to rounding."""
    alone(name, tmp_path / "alone", **options)
    alone(name, tmp_path / "start", **{**options, "steps": 0})
    start, whole = newest(tmp_path / "start"), newest(tmp_path / "alone")
    assert apart(name, newest(folder), whole) < ROUNDING * apart(name, whole, start)


def test_two_processes_end_where_one_with_the_whole_batch_does(ran, tmp_path):
    folder, seen = ran["parts"]
    assert_close(folder, tmp_path, "wgan_gp", **WHOLE)
    assert [process["images"] for process in seen] == [32, 32]
    assert [key for key, (_, (a, b)) in ran.items() if a["weights"] != b["weights"]] == []


@pytest.mark.slow
def test_each_gan_ends_where_one_process_with_the_whole_batch_does(tmp_path):
    """A full pool of ``mmgan`` is each process's own; so long as it fills, everything passes."""
    options = {n: {**WHOLE, "steps": STEPS.get(n, 8)} for n in (*SHARED, "mmgan")}
    jobs = {name: {"name": name, "options": told} for name, told in options.items()}
    for name, (folder, (first, second)) in by_two(tmp_path, jobs).items():
        assert first["weights"] == second["weights"]
        assert_close(folder, tmp_path / f"{name} alone", name, **options[name])


def test_two_go_on_with_the_run_of_one_and_say_what_differs(ran, tmp_path):
    folder, seen = ran["joins"]
    assert_close(folder, tmp_path, "wgan_gp", **WHOLE)
    for process in seen:
        (note,) = process["notes"]
        assert "resumed with processes 2 instead of 1" in note


def test_one_goes_on_with_the_run_of_two_and_says_what_differs(ran, tmp_path):
    stopped, seen = ran["stop"]  # by a request to one process, with a checkpoint
    assert [process["stopped"] for process in seen] == [signal.SIGTERM] * 2
    folder = shutil.copytree(stopped, tmp_path / "run")
    report = alone("wgan_gp", folder, **WHOLE)
    assert report.resumed_at == 3
    (note,) = report.notes
    assert "resumed with processes 1 instead of 2" in note
    assert_close(folder, tmp_path, "wgan_gp", **WHOLE)


@pytest.mark.parametrize(("ill", "after"), [("loss", "step 5"), ("buffer", "after step 6")])
def test_numbers_that_are_ill_in_one_process_roll_both_back(ran, ill, after):
    folder, seen = ran[ill]
    assert [process["rollbacks"] for process in seen] == [1, 1]
    for process in seen:
        assert after in process["warned"][0]
        assert "back to step 3" in process["warned"][0]
    assert read_metrics(folder / "metrics.csv")["step"] == list(range(1, 9))
    assert all(v.isfinite().all() for v in newest(folder).values())


@pytest.mark.parametrize(
    ("size", "parts", "shares"),
    [
        (1, 1, [[range(4)]]),
        (2, 1, [[range(2)], [range(2, 4)]]),
        (2, 2, [[range(1), range(1, 2)], [range(2, 3), range(3, 4)]]),
    ],
)
def test_a_batch_is_shared_out_in_order(size, parts, shares):
    assert [ProcessGroup(rank, size).shares(4, parts) for rank in range(size)] == shares


@pytest.mark.parametrize(("total", "size", "parts"), [(3, 2, 1), (4, 2, 4), (1, 2, 1)])
def test_a_batch_that_cannot_be_shared_out_is_refused_with_one_that_can(total, size, parts):
    with raises_fault("distributed.batch-shares-not-equal", names=f"batch_size={total}:") as caught:
        ProcessGroup(0, size).shares(total, parts)
    offered = int(str(caught.value).rpartition("=")[2])
    assert len(ProcessGroup(0, size).shares(offered, parts)) == parts


LOOP = ("batch_size=2", "precision=fp32", "log_every=1", "checkpoint_every=1000")
SETTINGS = tuple(f"--set={setting}" for setting in LOOP)
ZOO_FIT = ("tests.training.zoo.command", "fit", "zoo_slow", "--data=zoo:16", "-q")


@contextmanager
def torchrun(*command: str, out: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start two processes with a port of their own; they do not outlive the test."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    run = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    with subprocess.Popen(
        [*run, "-m", *command, "--device=cpu", "-o", str(out), *SETTINGS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for left in psutil.Process(process.pid).children(recursive=True):
                    left.kill()
                process.kill()


@pytest.mark.slow
def test_the_command_runs_under_torchrun_and_one_process_speaks(toy_nnunet, tmp_path):
    tiny = [f"--set={s}" for s in ("width=4", "d_width=4", "levels=2", "steps=4")]
    fit = ("gansynth_cli", "fit", "cgan3d", *toy_nnunet.options, "--json", *tiny)
    with torchrun(*fit, out=tmp_path / "run") as run:
        stdout, stderr = run.communicate(timeout=100)
    assert run.returncode == 0, stderr
    assert json.loads(stdout)["steps"] == 4
    assert read_manifest(tmp_path / "run")["complete"]
    found = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert found.state["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("told", ["torchrun", "one of them", "all of them"])
def test_told_to_stop_they_stop_with_a_checkpoint_of_the_very_step(tmp_path, told):
    def steps() -> int:
        log = tmp_path / "metrics.csv"
        return log.read_bytes().count(b"\n") - 1 if log.exists() else 0

    with torchrun(*ZOO_FIT, "--set=steps=100000", out=tmp_path) as run:
        while steps() < 5:
            assert run.poll() is None
            time.sleep(0.01)
        workers = [p.pid for p in psutil.Process(run.pid).children() if "fit" in p.cmdline()]
        assert len(workers) == 2
        one = workers[1:]
        for pid in {"torchrun": [run.pid], "one of them": one}.get(told, [run.pid, *workers]):
            os.kill(pid, signal.SIGTERM)
        _, stderr = run.communicate(timeout=100)
    assert run.returncode != 0
    assert stderr.count(f"stopped after step {steps()}") == 1, stderr
    saved = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert saved == ["step-00000000", f"step-{steps():08d}"]


@pytest.mark.slow
def test_what_the_first_process_refuses_ends_all(tmp_path):
    (tmp_path / "checkpoints" / "step-00000004").mkdir(parents=True)
    with torchrun(*ZOO_FIT, "--set=steps=4", out=tmp_path) as run:
        _, stderr = run.communicate(timeout=100)
    assert run.returncode != 0
    assert "holds checkpoints but no manifest.json" in stderr
    assert "bug:" not in stderr
