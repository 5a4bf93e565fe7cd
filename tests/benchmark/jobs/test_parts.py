import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gansynth.benchmark.jobs.executor import LocalExecutor, parse_executor
from gansynth.benchmark.jobs.machine import cuda_devices, device_names
from gansynth.benchmark.jobs.ray_executor import RayExecutor
from gansynth.benchmark.jobs.store import AttemptTrace, ResultStore
from gansynth.runtime.errors import DataFault, EnvironmentFault, UsageFault
from gansynth.runtime.processes import NOT_FOUND, ChildCommand, document_of, last_words
from tests.benchmark.jobs.small import Small, key_of


@pytest.mark.parametrize(
    ("needs", "says"),
    [
        (
            {"free": [], "a": ["c"], "b": ["a"], "c": ["b"]},
            r"need each other: (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)\b",
        ),
        ({"a": ["nobody"]}, f"job 'a': needs {key_of('nobody')}, which is not a job"),
    ],
)
def test_needs_that_cannot_be_met(small: Small, needs, says):
    for name, others in needs.items():
        small.add(name, needs=others)
    with pytest.raises(UsageFault, match=says):
        small.run()
    assert list(small.marks.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        *(
            ({"key": key}, "expected 16 to 64 digits")
            for key in ("", "abc", "g" * 16, "../" + "a" * 16, "A" * 16)
        ),
        ({"folder": "elsewhere"}, r"folder .*elsewhere: expected .*store"),
        ({"argv": ()}, r"job 'a': no words"),
        ({"title": "b"}, r"given twice, as 'a' and 'b'"),
    ],
)
def test_a_job_that_is_none(small: Small, change, says):
    job = small.add("a")
    folder = small.tmp / change["folder"] if "folder" in change else None
    other = replace(job, **{**change, "folder": folder or small.store.folder / job.key})
    if "key" in change:
        other = replace(other, folder=small.store.folder / change["key"])
    small.jobs = [job, other] if "title" in change else [other]
    with pytest.raises(UsageFault, match=says):
        small.run()
    assert list(small.marks.iterdir()) == []


KEY = "0123456789abcdef"
RESULT = {"key": KEY, "rc": 0, "document": None}


@pytest.fixture
def store(tmp_path) -> ResultStore:
    return ResultStore(tmp_path / "store")


def test_a_result_that_is_not_there_is_named_and_not_waited_for_for_ever(store):
    with pytest.raises(DataFault, match=f"{KEY}/result.json: no complete result of this job"):
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
    return ChildCommand(words, {}, cwd=tmp_path, log=tmp_path / "log", grace=1).run()


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
    command = ChildCommand(
        [sys.executable], {}, cwd=tmp_path / "none", log=tmp_path / "log", grace=1
    )
    assert command.run().line == f"{tmp_path / 'none'}: cannot be run: No such file or directory"


IN_PIECES = """
for word in ["from", " 0\\n", "last\\n"]:
    print(word, end="", file=sys.stderr)
    print("{" + word.strip() + "}")
    time.sleep(0.1)
print("{}")
"""


def test_lines_that_are_written_in_pieces_are_whole_in_the_log(small: Small):
    job = small.add("talks", IN_PIECES)
    assert small.run().ok
    lines = small.store.log(job.key).read_text().splitlines()
    assert {"from 0", "last", "{from}", "{0}", "{last}", "{}"} <= set(lines)


def test_a_line_without_an_end_is_logged(small: Small):
    job = small.add("talks", "sys.stderr.write('x' * 500_000)\nprint('{}')\n")
    assert small.run().ok
    text = small.store.log(job.key).read_text()
    assert text.count("x") == 500_000
