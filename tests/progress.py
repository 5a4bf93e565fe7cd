"""``pytest --progress``: how far the tests are, what runs, and how long it will take."""

import time
from collections import defaultdict
from typing import Any

import pytest

EVERY = 10.0
"""Seconds between two lines."""
CACHED = "gansynth/seconds"


class Progress:
    """A line now and then instead of dots; a test that fails is named at once.

    The time left is that of the tests left, each weighed with the seconds it took the last time. A
    test that is new weighs as much as the mean of the others.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.cache = getattr(config, "cache", None)  # None with -p no:cacheprovider
        self.before: dict[str, float] = self.cache.get(CACHED, {}) if self.cache else {}
        self.mean = sum(self.before.values()) / len(self.before) if self.before else 1.0
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.tests = self.finished = 0
        self.weight = self.weight_finished = self.start = self.written = 0.0

    def _begin(self, tests: list[str]) -> None:
        if tests and not self.tests:
            self.tests, self.start = len(tests), time.monotonic()
            self.weight = sum(self.before.get(test, self.mean) for test in tests)
            self._write(f"{len(tests):,} tests")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._begin([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._begin(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        if hasattr(report, "wasxfail"):
            return None
        if report.failed:
            return "failed" if report.when == "call" else "error", "", ""
        return report.outcome if report.when == "call" or report.skipped else "", "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self._write(f"FAILED {report.nodeid}")
        if report.when == "teardown":
            self.finished += 1
            self.weight_finished += self.before.get(report.nodeid, self.mean)
            now, over = time.monotonic(), self.finished == self.tests
            if over or now - self.written >= EVERY:
                self.written = now
                self._write(self._line(report.nodeid, now - self.start))

    def pytest_sessionfinish(self) -> None:
        """Remember how long each test took."""
        if self.cache:
            self.cache.set(CACHED, {**self.before, **self.seconds})

    def _line(self, test: str, elapsed: float) -> str:
        share = self.weight_finished / self.weight
        left = round(elapsed * (1 - share) / share)
        clock = f"{left // 60} min {left % 60:02d} s" if left >= 60 else f"{left} s"
        file = test.partition("::")[0].removeprefix("tests/")
        return f"{share:4.0%}  {self.finished:,} of {self.tests:,} tests, {clock} left; {file}"

    def _write(self, text: str) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal:
            terminal.write_line(text, flush=True)
