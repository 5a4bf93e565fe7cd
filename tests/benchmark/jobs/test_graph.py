import os
import shutil

import pytest

from gansynth_benchmark.jobs.attempt import FAILED, UNTRAINED
from gansynth_benchmark.jobs.executor import LocalExecutor, parse_executor
from gansynth_benchmark.jobs.machine import cuda_devices, device_names
from gansynth_benchmark.jobs.store import ResultStore
from tests.benchmark.jobs.small import Small, key_of
from tests.expected import raises_fault

READ = """
print('ha'); print('hm', file=sys.stderr)
number = int((work.parents[1] / need / 'number').read_text())
document = [number + 1, float('nan'), os.getpid(), os.getppid()]
"""


def test_a_job_is_a_process_that_reads_what_the_jobs_before_it_wrote_and_leaves_a_result(
    small: Small,
):
    seen = []
    read = small.add("read", f"need = '{key_of('write')}'{READ}", needs=["write"])
    small.add("write", "(work / 'number').write_text('41'); time.sleep(0.3)")
    small.run(LocalExecutor(2, ()), on_change=lambda told: seen.append(phases_of(told.standings)))
    assert ("WAITING", "RUNNING") in seen
    assert seen[-1] == ("DONE", "DONE")
    result = small.store.result(read.key)
    number, nothing, process, parent = result["document"]
    assert (number, nothing, parent) == (42, None, os.getpid())
    assert process != parent
    assert (result["key"], result["title"], result["group"]) == (read.key, "read", "toy")
    assert result["attempts"] == 1
    assert result["machine"]["cores"] >= 1
    assert 0.3 < small.store.result(key_of("write"))["seconds"] < 300
    log = small.store.log(read.key)
    assert log == small.store.folder / read.key / "log.txt"
    assert {"ha", "hm"} < set(log.read_text().splitlines())
    assert {path.suffix for path in small.store.work.iterdir()} == {".lock"}


def phases_of(standings) -> tuple[str, ...]:
    return tuple(standing.phase.name for standing in standings)


def test_a_failure_costs_its_dependents_and_nothing_else_and_is_told(small: Small):
    small.add("bad", "sys.exit('error: no such case')")
    small.add("child", needs=["bad"])
    small.add("grandchild", needs=["child"])
    small.add("good")
    report = small.run(LocalExecutor(2, ()))
    assert phases_of(report.standings) == ("FAILED", "SKIPPED", "SKIPPED", "DONE")
    why, *others, _ = (standing.why for standing in report.standings)
    assert why.endswith("no such case")
    assert others == [f"needs bad, which failed: {why}"] * 2
    assert small.runs("child") == 0
    assert not report.ok
    log = report.standings[0].log
    assert "no such case" in log.read_text()
    told = ["4 jobs: 1 done, 1 failed, 2 skipped", f"failed: bad: {why}; log: {log}"]
    assert report.lines() == told
    with raises_fault("benchmark.jobs-failed"):
        report.raise_if_failed()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("TrainingFault('test.few', 'too few')", UNTRAINED),
        ("DataFault('test.few', 'too few')", FAILED),
        ("SystemExit('too few')", FAILED),
    ],
)
def test_a_failure_says_whether_it_is_the_trainings_own(small: Small, fault, code):
    small.add("bad", f"from gansynth.runtime.errors import *; raise {fault}")
    (standing,) = small.run().standings
    assert (standing.phase.name, standing.why, standing.code) == ("FAILED", "too few", code)


def test_what_failed_or_was_damaged_is_done_again_and_nothing_else(small: Small):
    small.add("good")
    small.add("bad", f"pathlib.Path({str(small.tmp)!r}, 'cured').exists() or sys.exit(1)")
    small.add("child", "document = {}", needs=["bad"])
    assert phases_of(small.run().standings) == ("DONE", "FAILED", "SKIPPED")
    (small.tmp / "cured").touch()
    assert phases_of(small.run().standings) == ("FOUND", "DONE", "DONE")
    assert small.store.result(key_of("bad"))["attempts"] == 2
    (small.store.folder / key_of("child") / "result.json").write_text('{"key": "')
    assert phases_of(small.run().standings) == ("FOUND", "FOUND", "DONE")
    assert [small.runs(name) for name in ("good", "bad", "child")] == [1, 2, 2]
    assert small.document("child") == {}


def test_what_nobody_needs_any_more_is_not_computed(small: Small):
    """The fit's folder was deleted; what was trained with it is there."""
    fit = small.add("fit", "(work / 'weights').touch()")
    small.add("train", needs=["fit"])
    small.run()
    shutil.rmtree(small.store.folder / fit.key)
    report = small.run()
    assert phases_of(report.standings) == ("NOT_NEEDED", "FOUND")
    assert report.ok
    small.add("new", needs=["fit"])
    assert phases_of(small.run().standings) == ("DONE", "FOUND", "DONE")
    assert (small.runs("fit"), small.runs("train")) == (2, 1)


def test_what_was_finished_but_not_published_is_published(small: Small):
    folder = small.store.folder / small.add("one").key
    small.run()
    folder.rename(small.store.work / folder.name)
    assert phases_of(small.run().standings) == ("DONE",)
    assert small.runs("one") == 1
    assert (folder / "result.json").exists()


def test_cores_are_shared_out_and_gpus_dealt_out_in_turn(small: Small, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("gansynth_benchmark.jobs.executor.cores", lambda: 7)
    names = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"
    for job in "abc":
        own = {"OMP_NUM_THREADS": "5"} if job == "a" else {}
        small.add(job, f"time.sleep(0.5); document = [os.environ[n] for n in {names}]", env=own)
    small.run(LocalExecutor(3, ("4", "6")))
    cores, gpus = zip(*map(small.document, "abc"), strict=True)
    assert cores == ("5", "2", "2")
    assert sorted(gpus) == ["4", "4", "6"]
    assert [LocalExecutor(None, gpus).slots for gpus in (("4", "6"), ())] == [2, 1]
    assert LocalExecutor(8, ()).environ(0)["OMP_NUM_THREADS"] == "1"


KEY = "0123456789abcdef"


@pytest.mark.fault(32)
def test_what_is_not_there_is_named_and_not_waited_for_for_ever(tmp_path):
    store = ResultStore(tmp_path / "store")
    with raises_fault("benchmark.no-complete-result", names=KEY):
        store.result(KEY)
    assert not store.expect(KEY, patience=0)
    (tmp_path / "file").touch()
    with raises_fault("files.cannot-be-written"):
        ResultStore(tmp_path / "file")


def test_a_job_is_held_by_one_at_a_time(tmp_path):
    store, other = ResultStore(tmp_path), ResultStore(tmp_path)
    with store.lock(KEY) as mine, other.lock(KEY) as too:
        assert (mine, too, other.held(KEY)) == (True, False, True)
    assert not other.held(KEY)


def test_an_executor_has_what_its_words_say():
    executor = parse_executor("local:3")
    assert (type(executor), executor.slots) == (LocalExecutor, 3)


@pytest.mark.parametrize(
    ("text", "expected", "names"),
    [
        ("locl", "benchmark.executor-unknown", "'local'"),
        ("local:", "benchmark.executor-unknown", "'local:'"),
        ("here:2", "benchmark.executor-runs-one-job", "'here:2'"),
        *(
            (f"local:{n}", "benchmark.executor-jobs-no-number", f"'local:{n}'")
            for n in (0, -1, "two")
        ),
    ],
)
def test_other_words_are_refused(text, expected, names):
    with raises_fault(expected, names=names):
        parse_executor(text)


def test_hidden_gpus_are_no_devices():
    assert cuda_devices({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert device_names({"CUDA_VISIBLE_DEVICES": "-1"}) == "cpu"
