import errno
import json
import os
import stat

import pytest

from gansynth.evaluation.turing import raters
from gansynth.evaluation.turing.raters import (
    clean_ms,
    clean_name,
    clean_years,
    new_rater,
    read_raters,
    same_code,
)
from gansynth.runtime.errors import EnvironmentFault, IntegrityFault, UsageFault

TIMES: dict[str, float | None] = {"ms": 1200.5, "hidden_ms": 0.0, "server_ms": 1300.0}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "raters").mkdir()
    return tmp_path


@pytest.fixture
def rater(folder):
    return new_rater(folder, "Dr. Ito", 12.0, 4)


def answered(rater, *answers):
    for answer in answers:
        rater.answer(rater.names[rater.done], answer, TIMES)


def test_answers_are_read_back_as_they_were_given(folder, rater):
    said = ["real", "synthetic", "synthetic"]
    answered(rater, *said)
    (read,) = read_raters(folder, 4)
    for key in ("name", "years", "code", "order", "names"):
        assert getattr(read, key) == getattr(rater, key)
    assert (read.name, read.years) == ("Dr. Ito", 12)
    pairs = [(one["answer"], one["image"]) for one in read.answers]
    assert pairs == list(zip(said, rater.order, strict=False))
    assert {key: read.answers[0][key] for key in TIMES} == TIMES
    assert not read.finished
    assert stat.S_IMODE(rater.path.stat().st_mode) == 0o600


def test_an_answer_is_forced_to_the_disk_before_it_counts(rater, monkeypatch):
    forced: list[int] = []
    sync = os.fsync

    def spy(handle: int) -> None:
        sync(handle)
        forced.append(len(rater.path.read_text().splitlines()))
        assert rater.done == 0

    monkeypatch.setattr(os, "fsync", spy)
    answered(rater, "real")
    assert forced == [2]


@pytest.mark.fault(31)
def test_a_full_disk_leaves_the_file_as_it_was_and_counts_nothing(rater, monkeypatch):
    answered(rater, "real")
    before = rater.path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFault, match="the disk is full"):
        answered(rater, "real")
    assert (rater.path.read_bytes(), rater.done) == (before, 1)
    with pytest.raises(UsageFault):  # only the current image can be answered
        rater.answer(rater.names[2], "real", TIMES)


def append(rater, data):
    with open(rater.path, "ab") as stream:
        stream.write(data)


def test_a_torn_last_line_is_no_answer_and_cut_off_only_by_who_goes_on_writing(folder, rater):
    answered(rater, "real", "real")
    whole = rater.path.read_bytes()
    append(rater, b'{"position": 2, "image": 1, "ans')
    (read,) = read_raters(folder, 4)
    assert (read.done, read.torn) == (2, True)
    assert rater.path.read_bytes() != whole
    (again,) = read_raters(folder, 4, mend=True)
    assert rater.path.read_bytes() == whole
    answered(again, "synthetic")
    assert [one["answer"] for one in read_raters(folder, 4)[0].answers][-1] == "synthetic"


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        (0, {"order": [0, 1, 2, 2]}),
        (0, {"order": [0, 1, 2]}),
        (0, {"names": ["a", "b", "c", "a"]}),
        (0, {"name": "<b>"}),
        (0, {"years": "many"}),
        (1, {"answer": "maybe"}),
        (1, None),
        (2, {"position": 3}),
        (2, {"image": 99}),
    ],
)
def test_other_damage_names_file_and_line(folder, rater, line, changes):
    answered(rater, "real", "real")
    lines = rater.path.read_text().splitlines()
    changed = lines[line][:20] if changes is None else json.loads(lines[line]) | changes
    lines[line] = changed if isinstance(changed, str) else json.dumps(changed)
    rater.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(IntegrityFault, match=rf"{rater.path.name}: line {line + 1} is damaged"):
        read_raters(folder, 4)


def test_a_line_too_many_and_an_empty_file_are_damage(folder, rater):
    answered(rater, *["real"] * 4)
    append(rater, rater.path.read_bytes().splitlines()[-1] + b"\n")
    with pytest.raises(IntegrityFault, match=r"line 6 is damaged .more answers than images"):
        read_raters(folder, 4)
    rater.path.write_bytes(b"")
    with pytest.raises(IntegrityFault, match="line 1 is damaged"):
        read_raters(folder, 4)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [("  Dr.   Ito ", "Dr. Ito"), ("7", "7"), ("O'Neil-Ö", "O'Neil-Ö"), ("O\u0308zil", "Özil")],
)
def test_a_name_is_kept_tidily(typed, kept):
    assert clean_name(typed) == kept


NAMES = ["", " ", "<b>x</b>", "a&b", 'a"b', "a\0b", "=1+1", "-x", "_x", "x" * 41, None, 3, "a|b"]
YEARS = [-1, 81, float("nan"), float("inf"), True, "12", []]


@pytest.mark.parametrize(
    ("clean", "typed", "says"),
    [
        *[(clean_name, name, "1 to 40 letters") for name in NAMES],
        *[(clean_years, years, "Years") for years in YEARS],
    ],
)
def test_what_is_no_name_and_what_are_no_years_is_refused(clean, typed, says):
    with pytest.raises(UsageFault, match=says):
        clean(typed)


@pytest.mark.parametrize("ms", [-1, float("nan"), float("inf"), True, "9", None, 1e9])
def test_what_is_no_time_is_none(ms):
    assert clean_ms(ms) is None


def test_a_code_may_be_typed_with_blanks_and_small_letters(rater):
    code = rater.code
    assert same_code(rater, f" {code[:5].lower()}-{code[5:]} ")
    assert not same_code(rater, code[:-1])
    assert not same_code(rater, "")


def test_a_session_takes_no_more_raters_than_there_can_be(monkeypatch):
    monkeypatch.setattr(raters, "MOST_RATERS", 2)
    raters.check_room(1)
    with pytest.raises(EnvironmentFault, match="raters, the maximum"):
        raters.check_room(2)
