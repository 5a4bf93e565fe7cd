import os
import shutil

import pytest

from gansynth.runtime.errors import TrainingFault
from gansynth_benchmark.jobs.executor import LocalExecutor
from gansynth_benchmark.jobs.graph import run_jobs
from tests.benchmark.jobs.small import Small, key_of

FAIL = "sys.exit('error: no such case')"


def test_a_job_reads_what_the_jobs_before_it_wrote(small: Small):
    source = small.store.folder / key_of("write") / "number"
    code = f"document = {{'n': int(open({str(source)!r}).read()) + 1}}"
    small.add("read", code, needs=["write"])
    small.add("write", "(work / 'number').write_text('41')")
    assert small.run().ok
    assert small.document("read") == {"n": 42}


def test_a_job_is_one_process(small: Small):
    for name in "ab":
        small.add(name, "document = [os.getpid(), os.getppid()]")
    small.run()
    processes, parents = zip(*(small.document(name) for name in "ab"), strict=True)
    assert set(parents) == {os.getpid()}
    assert len({*processes, os.getpid()}) == 3


def test_the_result_says_what_was_run_where_and_how_long(small: Small):
    code = (
        "time.sleep(0.05); print('ha'); print('hm', file=sys.stderr)\ndocument = [1, float('nan')]"
    )
    job = small.add("one", code)
    small.run()
    result = small.store.result(job.key)
    assert (result["key"], result["title"], result["group"]) == (job.key, "one", "toy")
    assert result["attempts"] == 1
    assert result["seconds"] > 0.05
    assert result["machine"]["cores"] >= 1
    assert result["document"] == [1, None]
    log = small.store.log(job.key)
    assert log == small.store.folder / job.key / "log.txt"
    assert {"ha", "hm"} < set(log.read_text().splitlines())
    assert [path.suffix for path in small.store.work.iterdir()] == [".lock"]


def test_a_failure_costs_its_dependents_and_nothing_else_and_is_told(small: Small):
    small.add("bad", FAIL)
    small.add("child", needs=["bad"])
    small.add("grandchild", needs=["child"])
    small.add("good")
    report = small.run()
    assert small.phases(report) == {
        **{"bad": "FAILED", "good": "DONE"},
        **{"child": "SKIPPED", "grandchild": "SKIPPED"},
    }
    why = {standing.job.title: standing.why for standing in report.standings}
    assert why["bad"].endswith("no such case")
    assert why["child"] == why["grandchild"] == f"needs bad, which failed: {why['bad']}"
    assert small.runs("child") == 0
    assert not report.ok
    log = report.standings[0].log
    assert "no such case" in log.read_text()
    assert report.lines()[0] == "4 jobs: 1 done, 1 failed, 2 skipped"
    assert report.lines()[1] == f"failed: bad: {why['bad']}; log: {log}"
    with pytest.raises(TrainingFault, match=r"1 of 4 jobs failed.*bad: .*no such case"):
        report.raise_if_failed()


def test_what_failed_is_tried_again_by_the_next_run(small: Small):
    code = f"pathlib.Path({str(small.tmp)!r}, 'cured').exists() or sys.exit(1)"
    small.add("bad", code)
    small.add("child", needs=["bad"])
    assert not small.run().ok
    (small.tmp / "cured").touch()
    assert small.phases(small.run()) == {"bad": "DONE", "child": "DONE"}
    assert small.store.result(key_of("bad"))["attempts"] == 2


def test_a_damaged_result_counts_as_not_done_and_what_is_done_is_not_done_again(small: Small):
    small.add("one")
    job = small.add("last", "document = {}", needs=["one"])
    small.run()
    (small.store.folder / job.key / "result.json").write_text('{"key": "')
    assert small.phases(small.run()) == {"one": "FOUND", "last": "DONE"}
    assert (small.runs("one"), small.runs("last")) == (1, 2)
    assert small.document("last") == {}


def test_what_nobody_needs_any_more_is_not_computed(small: Small):
    """The fit's folder was deleted; what was trained with it is there."""
    small.add("fit", "(work / 'weights').touch()")
    small.add("train", needs=["fit"])
    small.run()
    shutil.rmtree(small.store.folder / small.jobs[0].key)
    report = small.run()
    assert small.phases(report) == {"fit": "NOT_NEEDED", "train": "FOUND"}
    assert report.ok
    small.add("new", needs=["fit"])
    assert small.phases(small.run()) == {"fit": "DONE", "train": "FOUND", "new": "DONE"}
    assert (small.runs("fit"), small.runs("train")) == (2, 1)


def test_cores_are_shared_out(small: Small, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("gansynth_benchmark.jobs.executor.cores", lambda: 7)
    told = "document = [os.environ['OMP_NUM_THREADS']]"
    small.add("one", told)
    small.add("own", told, env={"OMP_NUM_THREADS": "5"})
    small.run(slots=2)
    assert small.document("one") == ["3"]
    assert small.document("own") == ["5"]


def test_gpus_are_dealt_out_in_turn(small: Small):
    code = "time.sleep(0.5); document = [os.environ['CUDA_VISIBLE_DEVICES']]"
    for name in "abc":
        small.add(name, code)
    run_jobs(small.jobs, small.store, LocalExecutor(3, ("4", "6")))
    assert sorted(small.document(name)[0] for name in "abc") == ["4", "4", "6"]
    assert [LocalExecutor(None, gpus).slots for gpus in (("4", "6"), ())] == [2, 1]


def test_whoever_watches_sees_jobs_begin_and_end(small: Small):
    small.add("one", "time.sleep(0.3)")
    small.add("two", needs=["one"])
    seen = []
    small.run(on_change=lambda told: seen.append(tuple(s.phase.name for s in told.standings)))
    assert ("RUNNING", "WAITING") in seen
    assert seen[-1] == ("DONE", "DONE")
