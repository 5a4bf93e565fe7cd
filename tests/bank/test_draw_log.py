import logging
import os
import signal

import pytest

from gansynth.bank.draw_log import DrawCounter, DrawCounts, DrawLog, summarise
from tests.processes import forked


def test_what_was_drawn_is_counted(tmp_path):
    log = DrawLog(tmp_path / "draws")
    for sample in ("000000", 'a,"b\nc', "000000"):
        log.append("synthetic", sample, "case,\nwith a comma")
    log.append("real", "p1", "")
    log.append("fallback", "p2", "the bank is empty")
    log.append("stopped", "", "no more")
    counts = summarise(tmp_path / "draws")
    assert counts == DrawCounts(2, 3, 1, 2, 2, {"the bank is empty": 1}, "no more")
    assert (counts.realised, counts.reuse) == (0.6, 1.5)
    assert "3 of 5 samples drawn were synthetic (60.0%, asked 50.0%)" in counts.describe(0.5)
    assert "1 real ones in place of a missing synthetic one (the bank" in counts.describe(0.5)
    nothing = summarise(tmp_path / "none")
    assert (nothing.realised, nothing.reuse) == (0.0, 0.0)


def test_only_whole_new_lines_are_read_and_damaged_ones_left_out(tmp_path):
    counter, path = DrawCounter(tmp_path), tmp_path / "draws-host-1.csv"
    path.write_text("real,a,\nsynthetic,b")
    assert (counter.update().real, counter.update().synthetic) == (1, 0)
    with path.open("ab") as file:
        file.write(b",c\nreal\nsomething,b,c\n\xff\xfe,\nreal,\xff\r,b\nreal,b,\n")
    assert (counter.update().real, counter.update().synthetic) == (2, 1)


@pytest.mark.fault(29)
def test_forked_processes_lose_no_line_even_if_killed(tmp_path):
    log = DrawLog(tmp_path)
    log.append("real", "parent", "")  # open in the parent, which a fork then inherits

    def work(number: int) -> None:
        for i in range(200):
            log.append("synthetic", f"{os.getpid()}-{i}", "x" * 300)
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(work, 3) == [-signal.SIGKILL, 0, 0]
    counts = summarise(tmp_path)
    assert (counts.real, counts.synthetic, counts.distinct) == (1, 600, 600)


def test_a_log_that_cannot_be_written_ends_nothing_and_is_said_once(tmp_path, caplog):
    (tmp_path / "file").touch()
    log = DrawLog(tmp_path / "file")
    with caplog.at_level(logging.WARNING, "gansynth"):
        for _ in range(3):
            log.append("real", "a", "")
    (said,) = caplog.records
    assert "draws are no longer logged" in said.getMessage()


def test_a_count_ends_where_the_training_does_and_a_place_counts_once(tmp_path):
    log = DrawLog(tmp_path)
    for step in range(4):
        log.append("synthetic", f"00000{step}", "case", place=(step, 0))
        log.append("real", "p1", "", place=(step, 1))
    log.append("fallback", "p1", "the bank is empty", place=(3, 0))  # a place drawn anew
    counter = DrawCounter(tmp_path)
    found = [(now.real, now.synthetic) for now in (counter.update(end) for end in (0, 2, 4))]
    assert found == [(0, 0), (2, 2), (5, 3)]
    assert DrawCounter(tmp_path).update() == counter.update(9)
