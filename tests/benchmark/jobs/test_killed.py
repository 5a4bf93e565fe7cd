import re
import signal
import sys
import time

import psutil
import pytest

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


def child_of(small: Small) -> psutil.Process:
    """What a job with ``WITH_CHILD`` has started, in a session of its own."""
    told = small.tmp / "child"
    until(lambda: told.exists() and told.read_text() != "")
    return psutil.Process(int(told.read_text()))


@pytest.mark.fault(28)
def test_a_killed_run_leaves_no_process_and_the_next_computes_only_what_is_missing(small: Small):
    small.add("done")
    small.add("cut", WITH_CHILD + FIRST_TIME_FOREVER, needs=["done"])
    small.add("last", needs=["cut"])
    with small.runner() as runner:
        command, child = small.command_of("cut"), child_of(small)
        runner.kill()
    until(lambda: gone(command) and gone(child))
    report = small.run()
    assert small.phases(report) == {"done": "FOUND", "cut": "DONE", "last": "DONE"}
    assert [small.runs(name) for name in ("done", "cut", "last")] == [1, 2, 1]


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
    small.add(
        "long", f"from gansynth.runtime.signals import Interrupted; raise Interrupted({number:d})"
    )
    small.add("next")
    with small.runner("here") as runner:
        assert runner.wait(timeout=120) == 128 + number
    assert small.runs("long") == 1
    assert small.runs("next") == 0


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
def test_what_is_killed_from_outside_has_failed_and_is_tried_again(small: Small):
    small.add("shot", IN_SESSION + FIRST_TIME_FOREVER)
    with small.runner() as runner:
        command, child = small.command_of("shot"), child_of(small)
        command.kill()
        out, _ = runner.communicate(timeout=120)
    assert runner.returncode == 5
    says = "its process was killed by signal 9, as the system does when memory runs out"
    assert f"shot: {says}" in out
    until(lambda: gone(child))
    assert small.phases(small.run()) == {"shot": "DONE"}


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
    assert sum(int(count) for text in told for count in re.findall(r"(\d+) done", text)) == 3


@pytest.mark.slow
def test_a_job_that_another_run_leaves_undone_is_taken_over(small: Small):
    small.add("left", FIRST_TIME_FOREVER)
    with small.runner() as one, small.runner() as other:
        command = small.command_of("left")
        time.sleep(0.5)
        first = psutil.Process(command.ppid())
        first.kill()
        survivor = other if first.pid == one.pid else one
        assert survivor.wait(120) == 0
    assert small.runs("left") == 2


GOES_ON = """
path = work / "steps"
steps = len(path.read_text()) if path.exists() else 0
print("from", steps, file=sys.stderr)
while steps < 3:
    path.open("a").write(".")
    steps += 1
    if steps == 2 and not (work.parents[2] / "calm").exists():
        time.sleep(600)
document = {"steps": path.read_text()}
"""


@pytest.mark.fault(28)
def test_a_job_finds_what_it_had_written(small: Small):
    small.add("long", GOES_ON)
    with small.runner() as runner:
        command = small.command_of("long")
        until(lambda: any(p.read_text() == ".." for p in small.store.work.glob("*/steps")))
        runner.kill()
    until(lambda: gone(command) and not small.store.held(key_of("long")))
    (small.tmp / "calm").touch()
    assert small.run().ok
    log = small.store.log(key_of("long")).read_text().splitlines()
    assert [line for line in log if line.startswith("from")] == ["from 0", "from 2"]
    assert small.document("long") == {"steps": "..."}
    assert [path for path in small.store.work.iterdir() if path.is_dir()] == []


def test_what_was_finished_but_not_published_is_published(small: Small):
    job = small.add("one")
    small.run()
    folder = small.store.folder / job.key
    folder.rename(small.store.work / job.key)
    assert small.phases(small.run()) == {"one": "DONE"}
    assert small.runs("one") == 1
    assert (folder / "log.txt").exists()
