"""The draw log: nothing lost, nothing counted twice, and never in a host's way."""

import logging
import multiprocessing
import os
import pickle
import signal

import pytest

from gansynth.bank.draw_log import DrawCounter, DrawCounts, DrawLog, summarise


def test_what_was_drawn_is_counted(tmp_path):
    log = DrawLog(tmp_path / "draws")
    for sample in ("000000", 'a,"b\nc', "000000"):
        log.append("synthetic", sample, "case,\nwith a comma")
    log.append("real", "p1", "")
    log.append("fallback", "p2", "the bank is empty")
    log.append("stopped", "", "no more")
    assert summarise(tmp_path / "draws") == DrawCounts(
        real=2,
        synthetic=3,
        fell_back=1,
        distinct=2,
        most=2,
        reasons={"the bank is empty": 1},
        stopped="no more",
    )


def test_shares_are_of_what_was_drawn_and_of_what_was_asked_for():
    counts = DrawCounts(real=6, synthetic=2, fell_back=2, distinct=1, reasons={"empty": 2})
    assert (counts.realised, counts.reuse) == (0.25, 2.0)
    assert "2 of 8 samples drawn were synthetic (25.0%, asked 50.0%)" in counts.sentence(0.5)
    assert "2 real ones in place of a missing synthetic one (empty)" in counts.sentence(0.5)


def test_nothing_drawn_is_no_division_by_zero(tmp_path):
    counts = summarise(tmp_path / "none")
    assert (counts.realised, counts.reuse) == (0.0, 0.0)


def test_a_tally_reads_only_whole_new_lines(tmp_path):
    tally, path = DrawCounter(tmp_path), tmp_path / "draws-host-1.csv"
    path.write_text("real,a,\nsynthetic,b")
    assert (tally.update().real, tally.update().synthetic) == (1, 0)
    path.write_text("real,a,\nsynthetic,b,c\n")
    assert (tally.update().real, tally.update().synthetic) == (1, 1)


def test_lines_that_are_none_of_ours_are_not_counted(tmp_path):
    lines = b"real,a,\nreal\nsomething,b,c\n\xff\xfe,\nreal,b,\n"
    (tmp_path / "draws-host-1.csv").write_bytes(lines)
    assert summarise(tmp_path) == DrawCounts(real=2)


def work(log, times, kill=False):
    for i in range(times):
        log.append("synthetic", f"{os.getpid()}-{i}", "x" * 300)
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.fault(29)
def test_forked_processes_lose_no_line_even_if_killed(tmp_path):
    log = DrawLog(tmp_path)
    log.append("real", "parent", "")  # open in the parent, which a fork then inherits
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(log, 200, i == 0)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert workers[0].exitcode == -signal.SIGKILL
    counts = summarise(tmp_path)
    assert (counts.real, counts.synthetic, counts.distinct) == (1, 600, 600)


def test_a_damaged_line_is_left_out(tmp_path):
    (tmp_path / "draws-host-1.csv").write_bytes(b"real,a,\nreal,\xff\r,b\nreal,b,\n")
    assert summarise(tmp_path).real == 2


def test_a_pickle_carries_nothing_open(tmp_path):
    log = DrawLog(tmp_path)
    before = pickle.dumps(log)
    log.append("real", "a", "")
    assert pickle.dumps(log) == before
    pickle.loads(before).append("real", "b", "")
    assert summarise(tmp_path).real == 2


@pytest.mark.parametrize("trouble", ["a file in its place", "it goes away"])
def test_a_lost_log_ends_nothing_and_is_said_once(tmp_path, caplog, trouble):
    folder = tmp_path / "draws"
    if trouble == "a file in its place":
        folder.write_text("")
    log = DrawLog(folder)
    with caplog.at_level(logging.WARNING, "gansynth"):
        for _ in range(3):
            log.append("real", "a", "")
            if log._fd >= 0:
                os.close(log._fd)  # as a failing disk: every write from now on is an error
    assert [record.getMessage().count("no longer logged") for record in caplog.records] == [1]
