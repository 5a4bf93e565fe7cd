import pytest

from gansynth.runtime.errors import DataFault, EnvironmentFault, UsageFault
from gansynth_benchmark.jobs.executor import LocalExecutor, parse_executor
from gansynth_benchmark.jobs.machine import cuda_devices, device_names
from gansynth_benchmark.jobs.ray_executor import RayExecutor
from gansynth_benchmark.jobs.store import ResultStore

KEY = "0123456789abcdef"


@pytest.fixture
def store(tmp_path) -> ResultStore:
    return ResultStore(tmp_path / "store")


def test_a_result_that_is_not_there_is_named_and_not_waited_for_for_ever(store):
    with pytest.raises(DataFault, match=f"{KEY}/result.json: no complete result of this job"):
        store.result(KEY)
    assert not store.expect(KEY, patience=0)


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


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("local:3", (LocalExecutor, {"slots": 3})),
        ("ray", (RayExecutor, {"cpus": 1, "gpus": None})),
        ("ray:cpus=2", (RayExecutor, {"cpus": 2, "gpus": None})),
        ("ray:gpus=0.5,cpus=4", (RayExecutor, {"cpus": 4, "gpus": 0.5})),
    ],
)
def test_an_executor_has_what_its_words_say(text, made):
    executor = parse_executor(text)
    assert (type(executor), {key: getattr(executor, key) for key in made[1]}) == made


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
