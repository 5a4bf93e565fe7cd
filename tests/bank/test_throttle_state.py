import pytest

from gansynth.bank.throttle_state import (
    PACE,
    WORK,
    ThrottleState,
    log_work,
    read_throttle_state,
    read_work,
    write_throttle_state,
)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"duty": 0.5}', '{"duty": 0, "drawn": 1}', '{"duty": 2, "drawn": 1}'],
)
def test_what_makes_no_sense_is_no_pace(tmp_path, text):
    (tmp_path / PACE).write_text(text)
    assert read_throttle_state(tmp_path) is None


def test_a_bank_that_has_gone_disturbs_nobody(tmp_path):
    write_throttle_state(tmp_path / "gone", ThrottleState(0.5, 8))
    log_work(tmp_path / "gone", 1.0, 2.0)
    assert read_throttle_state(tmp_path / "gone") is None
    assert read_work(tmp_path / "gone") == []


def test_stretches_of_work_come_back_whole_and_from_where_they_are_not_known(tmp_path):
    for begin in (1.0, 2.0, 3.0):
        log_work(tmp_path, begin, begin + 0.5)
    with open(tmp_path / WORK, "ab") as file:
        file.write(b"half")
    assert read_work(tmp_path) == [(1.0, 1.5), (2.0, 2.5), (3.0, 3.5)]
    assert read_work(tmp_path, 2) == [(3.0, 3.5)]
    assert read_work(tmp_path, 9) == []
