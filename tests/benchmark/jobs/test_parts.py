import pytest

from gansynth.runtime.errors import DataFault, EnvironmentFault, UsageFault
from gansynth_benchmark.jobs.executor import LocalExecutor, parse_executor
from gansynth_benchmark.jobs.machine import cuda_devices, device_names
from gansynth_benchmark.jobs.ray_executor import RayExecutor
from gansynth_benchmark.jobs.store import AttemptTrace, ResultStore

KEY = "0123456789abcdef"
RESULT = {"key": KEY, "document": None}


@pytest.fixture
def store(tmp_path) -> ResultStore:
    return ResultStore(tmp_path / "store")


def test_a_result_that_is_not_there_is_named_and_not_waited_for_for_ever(store):
    with pytest.raises(DataFault, match=f"{KEY}/result.json: no complete result of this job"):
        store.result(KEY)
    assert not store.expect(KEY, patience=0)


@pytest.mark.parametrize("change", [{"key": "f" * 16}, {"document": ...}])
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
    store.leave_trace(KEY, AttemptTrace("run", "here", 1, "now", 1, 0.0))
    store.finish(KEY, work, RESULT)
    files = {path.name for path in (store.folder / KEY).iterdir()}
    assert files == {"log.txt", "result.json", "weights"}
    assert store.log(KEY).read_text() == "said"
    assert store.trace(KEY) is None


def test_a_job_is_held_by_one_at_a_time(store):
    other = ResultStore(store.folder)
    with store.lock(KEY) as mine:
        assert mine
        assert other.held(KEY)
        with other.lock(KEY) as too:
            assert not too
    assert not other.held(KEY)


@pytest.mark.fault(32)
def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match=r"file/\.work: cannot be written"):
        ResultStore(tmp_path / "file")


def test_local_has_as_many_slots_as_asked():
    executor = parse_executor("local:3")
    assert isinstance(executor, LocalExecutor)
    assert executor.slots == 3


@pytest.mark.parametrize(
    ("text", "shares"),
    [("ray", (1, None)), ("ray:cpus=2", (2, None)), ("ray:gpus=0.5,cpus=4", (4, 0.5))],
)
def test_ray_gives_each_job_its_shares(text, shares):
    executor = parse_executor(text)
    assert isinstance(executor, RayExecutor)
    assert (executor.cpus, executor.gpus) == shares


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("locl", "expected here, local, local:4, ray or .* Did you mean 'local'"),
        *((text, "expected here, local, local:4") for text in ("", "local:")),
        *((f"local:{n}", "expected a number of jobs") for n in (0, -1, "two")),
        ("ray:4", "'4': expected cpus"),
        *(
            (f"ray:{share}", f"'{share}': expected cpus")
            for share in ("cpus=0", "cpus=nan", "gpus=1.5", "gpus=inf")
        ),
        ("ray:gpus=1,gpus=2", "'gpus=2': expected cpus"),
    ],
)
def test_other_words_are_refused(text, says):
    with pytest.raises(UsageFault, match=says):
        parse_executor(text)


def test_hidden_gpus_are_no_devices(monkeypatch):
    assert cuda_devices({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert device_names({"CUDA_VISIBLE_DEVICES": "-1"}) == "cpu"
