import contextlib
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from gansynth.bank.reader import BankReader, BankSample, BankWriter, verify_bank
from gansynth.bank.store import HEARTBEAT
from gansynth.bank.supervisor import ProducerSupervisor
from gansynth.runtime import watchdog
from gansynth.runtime.errors import DataFault, EnvironmentFault, TrainingFault
from tests.expected import raises_fault
from tests.processes import until
from tests.producers import config_of, gone, put_stand_in

LIMITS = "gansynth.bank.supervisor._%s_SECONDS"
OURS = ("gansynth.bank.producer", watchdog.__file__)
Start = Callable[..., ProducerSupervisor]


@pytest.fixture
def keep(tmp_path, monkeypatch) -> Iterator[Start]:
    """Keeps producers of the stand-in, and ends them; nothing may be left of them then."""
    put_stand_in(tmp_path, monkeypatch)
    # They have low priority: on a busy machine to end in good order takes its time.
    monkeypatch.setattr(LIMITS % "STOP", 120)
    monkeypatch.setattr(LIMITS % "JOIN", 130)  # or a second SIGTERM meets one that is leaving
    monkeypatch.setattr(LIMITS % "BACKOFF", 0.05)
    monkeypatch.setattr(LIMITS % "LOOK", 0.1)
    kept = []

    def start(where: str = "ok", restarts: int = 5, **changes) -> ProducerSupervisor:
        config = config_of(tmp_path, where, **changes)
        kept.append(ProducerSupervisor(config, tmp_path / "producer.log", restarts=restarts))
        return kept[-1]

    yield start
    for supervisor in kept:
        supervisor.stop()
    assert children() == []


def children() -> list[str]:
    """What the producers and watchdogs of this process are run by.

    A test before may have left multiprocessing's own process, which lives as long as this one.
    """
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # or a zombie
            found += [word for word in child.cmdline() if word in OURS]
    return found


def pid_of(supervisor: ProducerSupervisor) -> int:
    return supervisor.process.pid


def kill(supervisor: ProducerSupervisor) -> None:
    """Kill the producer, and wait until another one has published something."""
    before, pid = supervisor.restarts, pid_of(supervisor)
    os.kill(pid, signal.SIGKILL)
    until(lambda: supervisor.restarts > before)
    newest = BankReader(supervisor.config.bank).ids()[-1]  # perhaps published just before
    until(lambda: BankReader(supervisor.config.bank).ids()[-1] > newest)


def is_whole(sample: BankSample) -> bool:
    """Whether a sample is all that the stand-in draws under its number, and nothing else."""
    rng = np.random.default_rng(sample.provenance["index"])
    image = rng.normal(size=(2, 4, 4, 4)).astype(np.float32)
    assert sample.labels is not None
    same = np.array_equal(sample.image, image.astype(np.float16))
    return same and np.array_equal(sample.labels, image[0] > 1)


@pytest.mark.fault(34)
@pytest.mark.slow
def test_readers_meet_only_whole_samples_over_deaths_which_are_told_and_counted(keep, tmp_path):
    supervisor = keep(frozen=False, duty=0.5, restarts=1)
    supervisor.wait(13, 300)
    whole: list[bool] = []
    done = threading.Event()

    def read() -> None:
        reader, rng = BankReader(tmp_path / "bank", rescan_seconds=0.05), np.random.default_rng(0)
        while not done.wait(0.002):
            sample = reader.draw(rng)
            whole.append(sample is not None and is_whole(sample))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(2):  # it counts anew once a sample is published
            kill(supervisor)
        until(lambda: len(whole) > 100)
    finally:
        done.set()
        thread.join()
    assert all(whole)
    told = supervisor.messages()
    assert ["SIGKILL" in line and "(restart 1 of at most 1" in line for line in told] == [True] * 2
    assert supervisor.messages() == []
    assert supervisor.log.read_text().count("--- started, ") == 2
    assert (supervisor.alive(), supervisor.restarts, supervisor.ended) == (True, 2, None)
    supervisor.stop()
    assert verify_bank(tmp_path / "bank") == 13


@pytest.mark.slow
def test_a_frozen_bank_whose_producers_die_gets_the_content_of_any_other(keep, tmp_path):
    found = []
    for deaths in (1, 0):  # of the same request, which samples note; the marker is there by then
        supervisor = keep(f"once kill {tmp_path / 'marker'}", batch=2)
        supervisor.wait(13, 300)
        until(lambda supervisor=supervisor: not supervisor.alive())  # type: ignore[misc]
        assert (supervisor.restarts, supervisor.ended) == (deaths, None)
        found.append(BankReader(tmp_path / "bank").sha256)
        (tmp_path / "bank").rename(tmp_path / f"bank {deaths}")
    assert found[0] == found[1] is not None


@pytest.mark.fault(40)
@pytest.mark.slow
def test_a_producer_that_keeps_dying_is_given_up_and_whoever_waits_learns_why(keep):
    supervisor = keep("bug", restarts=2)
    with pytest.raises(TrainingFault, match=r"exit code 1 .*KeyError: 'a bug'; given up after 2"):
        supervisor.wait(13, 300)
    assert not supervisor.alive()
    assert supervisor.restarts == 2
    assert supervisor.log.read_text().count("KeyError: 'a bug'") == 3
    *before, last = supervisor.messages()
    said = [f"started again in {s} s (restart {n} of at most 2" for s, n in ((0.05, 1), (0.1, 2))]
    assert [words in line for words, line in zip(said, before, strict=True)] == [True, True]
    assert last == f"{supervisor.ended}; it is not started again"
    assert "\n" not in last


def test_the_end_of_a_producer_is_named_and_decides_whether_it_is_started_again(keep):
    supervisor = keep("slow", restarts=2)
    supervisor.stop()
    with supervisor.log.open("a") as log:
        log.write("labels: not there;\n\nlook for them\n")
    for code, fault, says in (
        (-9, EnvironmentFault, "killed by SIGKILL with 0 of 13 samples there"),
        (1, TrainingFault, "exit code 1 .* ends: .*labels: not there; | look for them"),
        (DataFault.exit_code, DataFault, "^look for them .producer ended with 0 of 13"),
    ):
        why = supervisor._fault(code, "")
        assert type(why) is fault
        assert re.search(says, str(why))
    for number, seconds in ((1, "0.05"), (2, "0.1")):
        supervisor._revive(TrainingFault("test.fault", "a bug"), 1)
        (said,) = supervisor.messages()
        assert said.startswith(f"a bug; it is started again in {seconds} s (restart {number} of")
    supervisor._revive(TrainingFault("test.fault", "a bug"), 1)
    assert supervisor.messages() == [f"{supervisor.ended}; it is not started again"]
    with raises_fault("test.fault"):
        supervisor.wait(13, 300)
    supervisor._in_a_row = 0
    supervisor._revive(why, DataFault.exit_code)
    assert supervisor.ended is why


def test_a_bank_that_a_full_disk_made_smaller_is_told_of_once(keep, monkeypatch):
    document: dict[str, object] = {"squeezed": True, "held": 5}
    monkeypatch.setattr("gansynth.bank.supervisor.read_heartbeat", lambda _: document)
    supervisor = keep("slow")
    document["pid"] = pid_of(supervisor)
    said: list[str] = []
    until(lambda: bool(said.extend(supervisor.messages()) or said), step=0.01)  # type: ignore[func-returns-value]
    until(lambda: supervisor._silent is not None, step=0.01)
    (line,) = said + supervisor.messages()
    assert "the bank holds 5 samples instead of 13" in line


@pytest.mark.fault(40)
def test_a_producer_counts_as_hung_by_its_heartbeat(keep, tmp_path, monkeypatch):
    supervisor = keep("slow", restarts=0)
    supervisor.stop()  # its thread, too
    file, clock = tmp_path / "bank" / HEARTBEAT, [0.0]
    file.parent.mkdir(exist_ok=True)
    for name, seconds in {"LOOK": 1.0, "SILENT": 8.0, "START": 20.0}.items():
        monkeypatch.setattr(LIMITS % name, seconds)
    monkeypatch.setattr("gansynth.bank.supervisor.time.monotonic", lambda: clock[0])
    for beats, moments, says in (
        (0, (1, 10, 20), ""),
        (0, range(1, 23), "hung, no sign of life for 21 s"),
        (1, range(1, 12), "hung, no sign of life for 9 s"),
        (1, (1, 1000), ""),  # the machine may have been asleep
        (99, range(1, 99), ""),
    ):
        file.unlink(missing_ok=True)
        supervisor._heartbeat, supervisor._beat = {}, 0
        supervisor._looked, supervisor._silent = 0.0, None
        for number, moment in enumerate(moments):
            clock[0] = float(moment)
            if number < beats:
                file.write_text(json.dumps({"pid": pid_of(supervisor)}))
                os.utime(file, ns=(number, number + 1))
            found = supervisor._hang_reason()
        assert found == says


@pytest.mark.fault(40)
@pytest.mark.slow
@pytest.mark.parametrize("what", ["freeze", "block"])
def test_a_hung_producer_is_killed_and_another_one_started(keep, tmp_path, monkeypatch, what):
    for name in ("SILENT", "START"):
        monkeypatch.setattr(LIMITS % name, 8.0)
    supervisor = keep(f"once {what} {tmp_path / 'marker'}")
    pid = pid_of(supervisor)
    supervisor.wait(13, 300)
    assert supervisor.restarts >= 1  # on a busy machine the next one may be silent for as long
    assert not psutil.pid_exists(pid)
    assert "hung, no sign of life for" in supervisor.messages()[0]


@pytest.mark.fault(40)
@pytest.mark.slow
def test_a_producer_that_gets_little_of_the_cpu_is_not_taken_for_hung(keep, tmp_path, monkeypatch):
    monkeypatch.setattr(LIMITS % "START", 3.0)
    supervisor = keep()
    process, began = psutil.Process(pid_of(supervisor)), time.monotonic()
    while not (tmp_path / "bank" / HEARTBEAT).exists() and not gone(process):
        process.suspend()
        time.sleep(0.5)
        process.resume()
        time.sleep(0.05)
    assert time.monotonic() - began > 3
    supervisor.wait(13, 300)
    assert supervisor.restarts == 0


@pytest.mark.fault(37, 44)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"), [("memory", "CUDA out of memory. Tried"), ("busy", "CUDA error: CUDA-cap")]
)
def test_where_the_device_has_no_room_the_producer_goes_on_on_the_cpu(keep, tmp_path, what, said):
    supervisor = keep(what, device="cuda:7")
    supervisor.wait(13, 300)
    assert (supervisor.restarts, supervisor.config.device) == (1, "cpu")
    death, move = sorted(supervisor.messages())[::-1]
    assert "cuda:7 has no memory left for the producer, or is another" in death + move
    lines = (tmp_path / "producer.log").read_text().splitlines()
    assert lines[0].startswith(f"no room on the device: cuda:7: {said}")
    assert lines[1].startswith("--- started, ")


@pytest.mark.slow
def test_a_stop_in_the_midst_of_a_restart_leaves_no_process(keep, monkeypatch):
    monkeypatch.setattr(LIMITS % "BACKOFF", 0.02)
    rng = random.Random(0)
    for _ in range(6):
        supervisor = keep(frozen=False, temporary=True)
        supervisor.wait(1, 300)
        assert sorted(children()) == sorted(OURS)
        os.kill(pid_of(supervisor), signal.SIGKILL)
        time.sleep(0.2 * rng.random())
        supervisor.stop()
        assert not supervisor.alive()
        assert children() == []


def test_a_live_producer_is_nice_and_ends_in_good_order_on_sigterm(keep, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("forked, not spawned: a forked worker could hold its pipe open")

    monkeypatch.setattr("subprocess._fork_exec", refuse)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    producer = keep(frozen=False, duty=0.5)
    producer.wait(13, 300)
    with raises_fault("bank.producer-too-slow"):
        producer.wait(20, 0.1)
    pid = pid_of(producer)
    assert children() == ["gansynth.bank.producer"]
    assert psutil.Process(pid).nice() == min(19, psutil.Process().nice() + 10)
    assert psutil.Process(pid).environ()["OMP_NUM_THREADS"] == "1"
    assert os.getsid(pid) == os.getsid(0)  # else Linux would not heed the niceness
    assert os.getpgid(pid) != os.getpgid(0)  # else Ctrl-C would reach it
    producer.stop()
    assert producer.process.returncode == 143
    assert list((tmp_path / "bank").glob(".*.tmp-*")) == []
    assert json.loads((tmp_path / "bank/heartbeat.json").read_text())["state"] == "stopped"
    assert verify_bank(tmp_path / "bank") == 13
    spec = BankReader(tmp_path / "bank").spec
    assert (spec.run_id, spec.capacity, spec.samples.edits) == ("run", 13, ("elastic",))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["slow", "stubborn"])
def test_a_producer_that_is_waited_for_is_not_nice_and_ends_on_sigterm(keep, tmp_path, where):
    producer = keep(where)
    producer.wait(4, 300)
    assert psutil.Process(pid_of(producer)).nice() == psutil.Process().nice()
    producer.stop()
    assert producer.process.returncode == 143
    BankWriter.attach(tmp_path / "bank").close()


def test_a_log_that_cannot_be_written_is_an_environment_fault(tmp_path):
    with raises_fault("files.cannot-be-written"):
        ProducerSupervisor(config_of(tmp_path), Path(tmp_path / "nowhere/producer.log"))
