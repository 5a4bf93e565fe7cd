"""What a dry run measures has a bar from the first second, and an end."""

import importlib
import io
import os
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from gansynth.runtime import measuring, processes, progress
from gansynth.runtime.progress import NullReporter, RichReporter
from tests.offered import offered

FIT = ("fit", "cgan3d", "--data", "toy:3", "--set", "width=8", "--set", "levels=2")


class Bars(NullReporter):
    """Notes the titles of bars, and warnings."""

    def __init__(self) -> None:
        self.titles, self.warnings = list[str](), list[str]()

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def task(self, total, title, done=0):
        self.titles.append(title)
        with super().task(total, title, done) as task:
            yield task


def test_the_bar_is_there_before_the_work_begins():
    bars = Bars()
    with measuring.dry_run(bars):
        assert bars.titles == ["measuring, at most 60 s"]


def test_the_time_left_is_that_of_the_bound_and_unknown_while_checks_run(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.01)
    stream = io.StringIO()

    def told(name: str) -> None:
        while f"now {name}" not in stream.getvalue():
            time.sleep(0.05)

    with measuring.dry_run(RichReporter(stream), 60.0) as clock:
        told("checks")
        clock.part("work", lambda: told("work"))
    lines = stream.getvalue().splitlines()
    assert not any("ETA" in line for line in lines if line.endswith("now checks"))
    assert all(re.search(r"ETA < (0:5\d|1:00) ", line) for line in lines if line.endswith("work"))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarms")
def test_a_part_that_takes_too_long_is_ended_and_named_and_its_processes_with_it(tmp_path):
    bars, file = Bars(), tmp_path / "pid"
    code = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    words = [sys.executable, "-c", code]

    def wait() -> object:
        return processes.run(words, os.environ, tmp_path / "log", show=lambda line: None)

    with measuring.dry_run(bars, 5.0) as clock:
        assert clock.part("short", lambda: 3) == 3
        assert clock.part("long", wait) is None
        assert clock.part("late", lambda: 4) is None
    assert bars.warnings[0] == "measuring ends after 5 s; not measured: long; late"
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarms")
def test_a_file_that_is_open_when_the_time_is_over_is_no_warning(tmp_path):
    def opened_and_left() -> None:
        stream = open(tmp_path / "file", "w")  # noqa: SIM115 - what is tested
        time.sleep(600)
        stream.close()

    with measuring.dry_run(Bars(), 0.5) as clock:
        assert clock.part("file", opened_and_left) is None


def test_checks_do_not_use_up_the_time_to_measure():
    with measuring.dry_run(Bars(), 0.5) as clock:
        time.sleep(1)
        assert clock.part("what follows them", lambda: 3) == 3


def test_a_part_has_its_share_of_the_time_and_one_within_it_no_more():
    with measuring.dry_run(Bars(), 4.0) as clock:
        clock.part("outer", lambda: clock.part("inner", lambda: time.sleep(600)), 0.1)
        assert clock.missing[0] == "inner"
        assert clock.part("next", lambda: 5) == 5


def test_opening_the_data_has_an_end(run_cli, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "OPENING", 0.5)
    never = threading.Event()
    with offered("slow", sources={"slow": lambda request: never.wait(30)}):
        for words in (("fit", "elastic"), ("augment", "--target", "segmenter", "--ratio", "1:0")):
            command = (*words, "--data", "slow:disk", "-o", tmp_path / "run", "--dry-run")
            result = run_cli(*command)
            assert result.exit_code == 4, result.stderr
            assert "slow:disk is not open after 0.5 s" in result.stderr


def test_an_import_that_has_begun_is_not_cut_off(tmp_path, monkeypatch):
    """As torch does, the module registers a name that it may not register twice."""
    monkeypatch.setattr(sys, "registered_once", [], raising=False)
    code = "import sys, time\nassert not sys.registered_once\nsys.registered_once.append(1)\n"
    (tmp_path / "slow_to_import.py").write_text(f"{code}time.sleep(1.5)\n")
    monkeypatch.syspath_prepend(tmp_path)

    def steps() -> None:
        importlib.import_module("slow_to_import")
        time.sleep(600)

    with measuring.dry_run(Bars(), 1.0) as clock:
        clock.part("steps", steps)
    assert clock.missing == ["steps"]
    importlib.import_module("slow_to_import")


def test_a_command_prints_what_is_known_and_names_what_is_not(
    toy_source, run_cli, run_json, tmp_path, monkeypatch
):
    monkeypatch.setattr(measuring, "BOUND", 1e-3)
    dry = (*FIT, "-o", tmp_path / "run", "--dry-run")
    result = run_cli(*dry)
    assert result.exit_code == 0, result.stderr
    assert "warning: measuring ends after 0.001 s; not measured: learning" in result.stderr
    assert "not known; what was measured takes" in result.stdout
    assert "12 training cases" in result.stdout
    assert run_json(*dry)["not_measured"] == ["learning from all cases", "steps"]
