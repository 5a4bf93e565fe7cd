"""What a newcomer types, counted and timed; ``make newcomer`` prints the table.

Seconds are those of the clock or of the CPU, whichever are fewer. The CPU seconds of a command and
its children do not grow while other programs run, as the clock's do. On an idle machine with two
cores the clock's are fewer where both cores work. One thread, as in all tests. Beside other workers
of pytest a task may take twice its seconds: two threads of one core each get half of it, and the
CPU's clock doesn't show that.
"""

import contextlib
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import filelock
import pytest

TABLE = pytest.StashKey[list["Task"]]()
PATIENCE = 600
"""Seconds of the clock after which a command is taken to hang."""


@dataclass
class Task:
    """One task: the lines typed in a folder, and what they may cost."""

    name: str
    most_seconds: float
    folder: Path = field(repr=False)
    commands: list[str] = field(default_factory=list)
    seconds: float = 0.0
    clock: float = 0.0

    def __call__(self, line: str, *codes: int, until: str = "", scripts: Path | None = None):
        """Type a line; Ctrl-C once there is a new file ``until``. Returns both its outputs."""
        there = {*self.folder.glob(until)} if until else set()
        scripts = scripts or Path(sys.executable).parent
        self.commands.append(line)
        environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
        if scripts != Path(sys.executable).parent:
            environment.pop("PYTHONPATH", None)  # an environment of its own
        before, began = self._cpu(), time.perf_counter()
        program = subprocess.Popen(
            [str(scripts / shlex.split(line)[0]), *shlex.split(line)[1:]],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        while until and program.poll() is None and there.issuperset(self.folder.glob(until)):
            time.sleep(0.1)
        if until:
            program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=PATIENCE)
        clock = time.perf_counter() - began
        self.clock += clock
        self.seconds += min(clock, self._cpu() - before)
        assert program.returncode in (codes or (0,)), said[-3000:]
        return said

    @staticmethod
    def _cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


@pytest.fixture
def task(request):
    """``with task(NAME, commands=, seconds=) as type_in``: a task, and what it may cost."""

    @contextlib.contextmanager
    def started(
        name: str, *, commands: int, seconds: float, folder: Path | None = None
    ) -> Iterator[Task]:
        done = Task(name, seconds, folder or request.getfixturevalue("folder"))
        yield done
        request.config.stash.setdefault(TABLE, []).append(done)
        assert len(done.commands) <= commands
        beside_others = "PYTEST_XDIST_WORKER" in os.environ
        assert done.seconds <= seconds * (2 if beside_others else 1), done

    return started


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Where the newcomer types: prepared phantoms in ``nnunet/``, a run of six steps."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    home: Path = shared / "newcomer"
    with filelock.FileLock(home.with_suffix(".lock")):
        if not home.exists():
            type_in = Task("", 0, shared)
            type_in("gansynth demo --phantoms nnunet -o newcomer")
            type_in.folder = home
            type_in("gansynth prepare nnunet:999 --set small=yes --set voxels=1000000")
            type_in(f"gansynth fit cgan3d {DATA} -o runs/small {SMALL} --set steps=6")
    return home


DATA = "--data nnunet:999 --plans gansynthSmallPlans --fold 0"
SMALL = "--set width=12 --set d_width=12 --set levels=4"


def pytest_addoption(parser):
    parser.addoption("--newcomer", type=Path, help="file for the table of the newcomer's tasks")


def pytest_terminal_summary(terminalreporter, config):
    from benchmarks.measure.common import machine
    from gansynth.runtime.files import write_json_atomic

    path = config.getoption("newcomer", None)
    tasks = config.stash.get(TABLE, [])
    if path is None or not tasks:
        return
    row = "{:<44}{:>10}{:>10}{:>10}".format
    terminalreporter.write_line(row("task", "commands", "seconds", "at most"))
    for done in tasks:
        numbers = len(done.commands), f"{done.seconds:.1f}", f"{done.most_seconds:g}"
        terminalreporter.write_line(row(done.name, *numbers))
    rounded = {"seconds", "clock"}
    rows = [
        {k: round(v, 2) if k in rounded else v for k, v in asdict(done).items() if k != "folder"}
        for done in tasks
    ]
    document = {"benchmark": "newcomer", "command": "make newcomer", "date": time.strftime("%F")}
    write_json_atomic(path, {**document, "machine": machine(), "tasks": rows})
