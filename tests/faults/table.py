"""The fault matrix: its rows, and a plugin of pytest that prints which of them hold.

``make faults`` runs all tests marked ``fault(ROW, ...)`` with it. A row fails without a test that
ran, or with one that failed.
"""

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

ROWS: dict[int, tuple[str, str]] = {
    1: ("`.nii.gz` or picture cut in half", "named, *truncated at byte N*, exit 3"),
    2: ("bit flip in `.nii.gz`", "every one of 200 found, exit 3"),
    3: ("bit flip in `.nii`, `.h5`, `.b2nd`, weights", "found by a noted hash, exit 6"),
    4: ("header claims 32767³ voxels", "refused before memory is taken, exit 3"),
    5: ("gzip bomb, 4 GiB in 4 MB", "refused in less than 256 MB, exit 3"),
    6: ("NaN and infinite voxels", "case and count, exit 3"),
    7: ("constant image, no foreground", "a warning; nothing is divided by zero"),
    8: ("singular affine, zero spacing", "field and value, exit 3"),
    9: ("shape or affine of labels differs", "both values, exit 3"),
    10: ("unknown, fractional, negative labels", "values and the expected ones, exit 3"),
    11: ("missing or wrong channels", "missing files by name, exit 3"),
    12: ("case twice, or in other capitals", "exit 3"),
    13: ("no case, one case, nobody held out", "the least number, exit 3"),
    14: ("2D for 3D, 4D, colour", "how to convert, exit 3"),
    15: ("DICOM", "not read: how to convert, exit 3"),
    16: ("wrong label file of a detector", "file and line, exit 3; an empty one is background"),
    17: ("box without area or outside of its crop", "left out; no overlap is NaN"),
    18: ("odd file names", "work, or are shown quoted, exit 3"),
    19: ("paths that lead out", "exit 6; nothing outside is opened"),
    20: ("pickles that run something", "never run, exit 6"),
    21: ("zip or tar for a run", "no archive is ever unpacked, exit 2"),
    22: ("hostile YAML and JSON", "no object, no unfolding, one line"),
    23: ("slips in options and plans", "one line, the nearest key, exit 2"),
    24: ("shell signs and markup in names", "literal in commands and in every report"),
    25: ("newest checkpoint damaged", "the one before is used, and that is said"),
    26: ("checkpoint of another network or version", "named differences, exit 6"),
    27: ("every checkpoint damaged", "exit 6; nothing starts over in silence"),
    28: ("SIGKILL of fit, augment, benchmark, tune", "goes on; the same result to the bit"),
    29: ("SIGKILL of writers and exports", "whole or absent, nothing left behind"),
    30: ("SIGINT, SIGTERM, SIGHUP", "checkpoint, exit 130, 143 or 129, goes on to the bit"),
    31: ("full disk, full `/dev/shm`", "exit 4 with bytes needed and free; the old stays"),
    32: ("folder closed, read-only or gone", "exit 4 before the first step"),
    33: ("read error, pipe for a file", "the file is named, exit 3 or 4; nobody waits"),
    34: ("worker or producer killed", "found within 10 s, started again or exit 4"),
    35: ("HDF5 opened before a fork", "each process opens its own; the same data"),
    36: ("two processes in one folder", "the second: *locked by pid N since*, exit 4"),
    37: ("no memory", "estimated before; exit 4"),
    38: ("NaN loss", "back to the last good, three times, then exit 5"),
    39: ("generator of bad samples", "real cases instead, counted, exit 5; no bit changes"),
    40: ("generator that raises or hangs", "real cases instead; the training never waits"),
    41: ("generator replaced while a host trains", "the old weights stay, and that is said"),
    42: ("broken plugin", "listed with its reason; the others work"),
    43: ("clock, locale, time zone, home, hash seed", "the same numbers, JSON in UTF-8"),
    44: ("no GPU, no torchvision, missing package", "exit 4 with what to install"),
}
WORDS = ("passed", "failed", "skipped")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", metavar="FILE", help="print the fault matrix, and write it there")
    parser.addoption("--kills", nargs="+", metavar="WHAT=N", help="SIGKILLs of fit, augment, ...")
    parser.addoption("--kills-json", metavar="FILE", help="write what became of them there")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--faults") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Matrix(Path(config.getoption("--faults"))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let reports carry their rows, which also come from workers."""
    for item in items:
        item.user_properties += [("fault", row) for row in sorted(rows_of(item))]


def rows_of(item: pytest.Item) -> set[int]:
    """The rows that a test's marks name; ``of="NaN|inf"`` means the cases that match alone."""
    case = item.name.partition("[")[2]
    marks = [m for m in item.iter_markers("fault") if re.search(m.kwargs.get("of", ""), case)]
    rows = {row for mark in marks for row in mark.args}
    assert rows <= ROWS.keys(), item.nodeid
    return rows


class Matrix:
    """Gathers outcomes by row."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.outcomes: dict[str, str] = {}
        self.rows: dict[int, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test as failed if any of its phases has failed, or was expected to."""
        test = report.nodeid
        for row in (value for key, value in report.user_properties if key == "fault"):
            self.rows[int(str(row))].add(test)
        before = self.outcomes.get(test, "passed")
        outcome = "failed" if hasattr(report, "wasxfail") else report.outcome
        self.outcomes[test] = before if outcome == "passed" else outcome

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for row, (fault, expected) in ROWS.items():
            tests = sorted(self.rows[row])
            counts = Counter(self.outcomes[test] for test in tests)
            holds = counts["passed"] > 0 and not counts["failed"]
            found.append(
                {"row": row, "fault": fault, "expected": expected, "holds": holds}
                | {word: counts[word] for word in WORDS}
                | {"tests": sorted({test.partition("[")[0] for test in tests})}
            )
        return found

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Exit with 1 unless every row holds."""
        if not all(line["holds"] for line in self.lines()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table and write it down."""
        lines, say = self.lines(), terminalreporter.write_line
        say(f"\n{'row':>3} {'':6} {'pass':>4} {'fail':>4} {'skip':>4}  fault: expected")
        for line in lines:
            counts = " ".join(f"{line[word]:4}" for word in WORDS)
            holds = "holds" if line["holds"] else "FAILED"
            say(f"{line['row']:3} {holds:6} {counts}  {line['fault']}: {line['expected']}")
        say(f"{sum(line['holds'] for line in lines)}/{len(lines)} rows hold")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n", "utf-8")
