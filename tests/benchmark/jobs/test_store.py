"""Folders of results, and who may write to them."""

import pytest

from gansynth.benchmark.jobs.store import Store, Trace
from gansynth.runtime.errors import DataFault, EnvironmentFault
from tests.benchmark.jobs.small import Small

KEY = "0123456789abcdef"
RESULT = {"key": KEY, "rc": 0, "document": None}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def test_a_result_that_is_not_there_is_named_and_not_waited_for_for_ever(store):
    with pytest.raises(DataFault, match=f"{KEY}/result.json: no whole result of this job"):
        store.result(KEY)
    assert not store.expect(KEY, patience=0)


@pytest.mark.parametrize("change", [{"key": "f" * 16}, {"rc": 1}, {"document": ...}])
def test_only_a_whole_result_of_the_job_counts(store, tmp_path, change):
    work = tmp_path / "work"
    work.mkdir()
    changed = {key: value for key, value in {**RESULT, **change}.items() if value is not ...}
    store.finish(KEY, work, changed)
    assert (store.folder / KEY / "result.json").exists()
    assert not store.at_hand(KEY)


def test_a_published_folder_has_its_log_and_leaves_no_trace(store, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "weights").touch()
    store.log(KEY).write_text("said")
    store.leave_trace(KEY, Trace("run", "here", 1, "now", 1, 0.0))
    store.finish(KEY, work, RESULT)
    files = {path.name for path in (store.folder / KEY).iterdir()}
    assert files == {"log.txt", "result.json", "weights"}
    assert store.log(KEY).read_text() == "said"
    assert store.trace(KEY) is None


def test_a_job_is_held_by_one_at_a_time(store):
    other = Store(store.folder)
    with store.lock(KEY) as mine:
        assert mine
        assert other.held(KEY)
        with other.lock(KEY) as too:
            assert not too
    assert not other.held(KEY)


def test_an_empty_folder_is_for_every_attempt_but_a_resumable_one(small: Small):
    once, kept = small.add("once"), small.add("kept", resumable=True)
    for job in (once, kept):
        (small.store.work_folder(job) / "left").touch()
    assert list(small.store.work_folder(once).iterdir()) == []
    assert [path.name for path in small.store.work_folder(kept).iterdir()] == ["left"]
    assert len(list(small.store.work.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match=r"file/\.work: cannot be written"):
        Store(tmp_path / "file")
