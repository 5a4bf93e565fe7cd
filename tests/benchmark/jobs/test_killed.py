import re
import signal
import sys
import time

import psutil
import pytest

from gansynth.runtime.signals import Interrupted
from gansynth_benchmark.jobs.executor import LocalExecutor
from tests.benchmark.jobs.small import FIRST_TIME_FOREVER, FOREVER, Small, gone, key_of
from tests.processes import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

STUBBORN = """
def asked(*_):
    (work.parents[2] / "asked").touch()
signal.signal(signal.SIGTERM, asked)
print("set")
time.sleep(600)
"""
WITH_CHILD = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
(work.parents[2] / "child").write_text(str(child.pid))
"""
IN_SESSION = WITH_CHILD.replace("start_new_session=True", "")
GOES_ON = """
path = work / "steps"
document = {"from": len(path.read_text()) if path.exists() else 0}
for step in range(document["from"], 3):
    with path.open("a") as steps:
        steps.write(".")
    if step == 1 and pause:
        time.sleep(600)
document["steps"] = path.read_text()
"""


def child_of(small: Small) -> psutil.Process:
    """What a job with ``WITH_CHILD`` has started, in a session of its own."""
    told = small.tmp / "child"
    until(lambda: told.exists() and told.read_text() != "")
    return psutil.Process(int(told.read_text()))


@pytest.mark.fault(28)
def test_a_killed_run_leaves_no_process_and_the_next_one_goes_on_with_what_it_left(small: Small):
    small.add("done")
    small.add("cut", f"{WITH_CHILD}pause = True{GOES_ON}", needs=["done"])
    small.add("last", needs=["cut"])
    with small.runner() as runner:
        command, child = small.command_of("cut"), child_of(small)
        until(lambda: any(p.read_text() == ".." for p in small.store.work.glob("*/steps")))
        runner.kill()
    until(lambda: gone(command) and gone(child) and not small.store.held(key_of("cut")))
    small.add("cut", f"pause = False{GOES_ON}", needs=["done"])
    found = {standing.job.title: standing.phase.name for standing in small.run().standings}
    assert found == {"done": "FOUND", "cut": "DONE", "last": "DONE"}
    assert [small.runs(name) for name in ("done", "cut", "last")] == [1, 2, 1]
    assert small.document("cut") == {"from": 2, "steps": "..."}
    assert [path for path in small.store.work.iterdir() if path.is_dir()] == []


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_run_that_is_told_to_stop_stops_its_jobs_first(small: Small, number, code):
    small.add("done")
    small.add("long", WITH_CHILD + FOREVER, needs=["done"])
    with small.runner() as runner:
        command, child = small.command_of("long"), child_of(small)
        runner.send_signal(number)
        _, err = runner.communicate(timeout=120)
    assert runner.returncode == code
    assert gone(command)
    assert gone(child)
    assert "Traceback" not in err
    assert small.store.at_hand(key_of("done"))
    assert not small.store.held(key_of("long"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_job_of_this_process_hears_ends_the_run(small: Small, number):
    heard = "from gansynth.runtime.signals import Interrupted"
    small.add("long", f"{heard}; raise Interrupted({number:d})")
    small.add("next")
    with pytest.raises(Interrupted) as stopped:
        small.run()
    assert stopped.value.number == number
    assert (small.runs("long"), small.runs("next")) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grace", "numbers", "code"),
    [(0.5, [signal.SIGTERM], 143), (1000, [signal.SIGINT, signal.SIGINT], 130)],
    ids=["after the grace", "at a second signal"],
)
def test_jobs_that_will_not_stop_are_killed(small: Small, grace, numbers, code):
    small.add("stubborn", STUBBORN)
    with small.runner(grace=grace) as runner:
        command = small.command_of("stubborn")
        until(lambda: "set" in small.store.log(key_of("stubborn")).read_text())
        for number in numbers:
            assert not gone(command)
            runner.send_signal(number)
            until((small.tmp / "asked").exists)
            time.sleep(1.1)  # what follows within a second is the same request
        assert runner.wait(120) == code
        assert gone(command)


@pytest.mark.fault(34)
def test_what_is_killed_from_outside_has_failed_and_leaves_no_process(small: Small):
    small.add("shot", f"{IN_SESSION}os.kill(os.getpid(), {signal.SIGKILL:d})")
    report = small.run(LocalExecutor(1, ()))
    says = "its process was killed by signal 9, as the system does when memory runs out"
    assert f"failed: shot: {says}" in report.lines()[1]
    child = int((small.tmp / "child").read_text())
    until(lambda: not psutil.pid_exists(child))


@pytest.mark.fault(36)
@pytest.mark.slow
def test_two_runs_at_once_share_the_work(small: Small):
    small.add("one", "while not list(marks.glob('other-*')): time.sleep(0.05)")
    small.add("other")
    small.add("last", needs=["one", "other"])
    with small.runner("local:1") as first, small.runner("local:1") as second:
        told = [runner.communicate(timeout=120)[0] for runner in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert [small.runs(name) for name in ("one", "other", "last")] == [1, 1, 1]
    assert done_in(told) == 3


def done_in(told: list[str]) -> int:
    """Jobs that runs have done, by their last lines."""
    return sum(int(count) for text in told for count in re.findall(r"(\d+) done", text))


@pytest.mark.slow
def test_what_a_killed_run_leaves_undone_is_done_once_by_the_others_and_by_one_typed_later(
    small: Small,
):
    others = [f"job{number}" for number in range(5)]
    small.add("left", FIRST_TIME_FOREVER)
    for name in others:
        small.add(name, "time.sleep(0.2)")
    with small.runner("local:1") as one, small.runner("local:1") as other:
        runs = {one.pid: one, other.pid: other}
        first = runs.pop(small.command_of("left").ppid())
        (second,) = runs.values()
        until(lambda: small.runs("job4") == 1)  # nothing else is left: it waits for the other run
        first.kill()
        with small.runner("local:1") as again:
            told = [runner.communicate(timeout=120)[0] for runner in (second, again)]
    assert (second.returncode, again.returncode) == (0, 0)
    assert [small.runs(name) for name in others] == [1] * 5
    assert small.runs("left") == 2  # the killed attempt, and one more
    assert done_in(told) == 6


def test_a_job_that_another_run_holds_in_silence_is_not_waited_for_for_ever(
    small: Small, monkeypatch
):
    monkeypatch.setattr("gansynth_benchmark.jobs.graph.SILENT", 0.0)
    small.add("held")
    small.add("good")
    with small.store.lock(key_of("held")):
        report = small.run()
    assert [standing.phase.name for standing in report.standings] == ["FAILED", "DONE"]
    assert "has logged nothing for" in report.standings[0].why
