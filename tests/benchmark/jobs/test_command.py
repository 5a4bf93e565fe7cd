"""What a command said, in one line and as a document."""

import sys
from pathlib import Path

import pytest

from gansynth.runtime.processes import NOT_FOUND, Command, document_of, last_words
from tests.benchmark.jobs.small import Small


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
    return Command(words, {}, cwd=tmp_path, log=tmp_path / "log", grace=1).run()


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
    command = Command([sys.executable], {}, cwd=tmp_path / "none", log=tmp_path / "log", grace=1)
    assert command.run().line == f"{tmp_path / 'none'}: cannot be run: No such file or directory"


IN_PIECES = """
for word in ["from", " 0\\n", "last"]:
    print(word, end="", file=sys.stderr)
    print("{" + word.strip() + "}")
    time.sleep(0.3)
print("{}")
"""


def test_lines_that_are_written_in_pieces_are_whole_in_the_log(small: Small):
    job = small.add("talks", IN_PIECES)
    assert small.run().ok
    lines = small.store.log(job.key).read_text().splitlines()
    assert {"from 0", "{from}", "{0}", "{last}", "{}"} <= set(lines)


def test_a_line_without_an_end_is_logged(small: Small):
    job = small.add("talks", "sys.stderr.write('x' * 500_000)\nprint('{}')\n")
    assert small.run().ok
    text = small.store.log(job.key).read_text()
    assert text.count("x") == 500_000
