import sys
from pathlib import Path

import pytest

from gansynth.runtime.errors import DataFault, EnvironmentFault, UsageFault
from gansynth.runtime.processes import NOT_FOUND, ChildCommand, document_of, last_words
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


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ('{\n  "dice": 0.5\n}\n', {"dice": 0.5}),
        ("[1, 2]", [1, 2]),
        ('some talk\n{"dice": NaN, "far": -Infinity}\n', {"dice": None, "far": None}),
        ('{"first": 1}\n{"last": 2}\n', {"last": 2}),
        ('{"cut": ', None),
        ("3", None),
        ("", None),
    ],
)
def test_the_document_is_the_json_at_the_end(output, expected):
    assert document_of(output) == expected


@pytest.mark.parametrize(
    ("code", "errors", "output", "line"),
    [
        (3, "warning: x\nerror: a.nii: cut; copy it\nlate talk\n", "{}", "a.nii: cut; copy it"),
        (1, "Traceback\nValueError: bad\n\n", "out", "ValueError: bad"),
        (1, "", "only this\n", "only this"),
        (9, "", "", "exit 9: no output"),
        (-15, "half way\n", "", "killed by SIGTERM; last output: half way"),
        (-9, "", "", "killed by SIGKILL, as the system does when memory runs out"),
    ],
)
def test_the_last_words_are_the_fault_or_the_last_line(code, errors, output, line):
    assert last_words(code, errors, output) == line


def run(tmp_path: Path, *words: str):
    return ChildCommand(words, {}, cwd=tmp_path, log=tmp_path / "log").run()


@pytest.mark.parametrize(
    ("word", "says"),
    [("/no/such/program", "/no/such/program: cannot be run: No such file"), ("/", "/: cannot be")],
)
def test_a_program_that_cannot_be_run_is_named(tmp_path, word, says):
    ended = run(tmp_path, word)
    assert ended.code == NOT_FOUND
    assert ended.line.startswith(says)
    assert (tmp_path / "log").read_text() == f"{ended.line}\n"


def test_a_folder_to_work_in_that_is_not_there_is_named(tmp_path):
    command = ChildCommand([sys.executable], {}, cwd=tmp_path / "none", log=tmp_path / "log")
    assert command.run().line == f"{tmp_path / 'none'}: cannot be run: No such file or directory"


IN_PIECES = """
import sys, time
for word in ["from", " 0\\n", "last\\n"]:
    print(word, end="", file=sys.stderr)
    print("{" + word.strip() + "}")
    time.sleep(0.1)
print("{}")
"""


def test_lines_that_are_written_in_pieces_are_whole_in_the_log(tmp_path):
    words, log = [sys.executable, "-c", IN_PIECES], tmp_path / "log"
    assert ChildCommand(words, {}, log=log, document=True).run().code == 0
    assert {"from 0", "last", "{from}", "{0}", "{last}", "{}"} <= set(log.read_text().splitlines())


def test_a_line_without_an_end_is_logged(tmp_path):
    assert run(tmp_path, sys.executable, "-c", "print('x' * 500_000, end='')").code == 0
    assert (tmp_path / "log").read_text().count("x") == 500_000
