"""Small jobs in Python, which leave a file each time they run, and runs of them in a process."""

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from gansynth_benchmark.jobs.attempt import Executor
from gansynth_benchmark.jobs.executor import HereExecutor
from gansynth_benchmark.jobs.graph import GraphReport, run_jobs
from gansynth_benchmark.jobs.store import JobSpec, ResultStore
from tests.processes import until

HEAD = """
import json, os, pathlib, signal, subprocess, sys, time
marks.joinpath(f"{name}-{time.time_ns()}-{os.getpid()}").touch()
"""
FOREVER = "time.sleep(600)"
FIRST_TIME_FOREVER = f"sum(1 for _ in marks.glob(name + '-*')) > 1 or {FOREVER}"
RUNNER = """
import json, sys
from gansynth_benchmark.jobs.executor import parse_executor
from gansynth_benchmark.jobs.graph import run_jobs
from gansynth_benchmark.jobs.store import JobSpec
from gansynth_benchmark.jobs.store import ResultStore

store, executor, grace = sys.argv[1:]
jobs = [JobSpec.from_json(doc) for doc in json.load(sys.stdin)]
report = run_jobs(jobs, ResultStore(store), parse_executor(executor), grace=float(grace))
print(*report.lines(), sep="\\n")
sys.exit(0 if report.ok else 5)
"""


def execute(document, folder: Path):
    """Run a job's code, which may set ``document``."""
    names = {"work": folder, "marks": Path(document["marks"]), "name": document["name"]}
    exec(HEAD + document["code"], names)
    return names.get("document")


def key_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


@dataclass
class Small:
    tmp: Path
    jobs: list[JobSpec] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = ResultStore(self.tmp / "store")
        self.marks = self.tmp / "marks"
        self.marks.mkdir()

    def add(self, name: str, code: str = "", *, needs: Sequence[str] = (), **more) -> JobSpec:
        """A job that runs some code; ``needs`` are names of others."""
        job = JobSpec(
            key_of(name),
            name,
            "toy",
            "tests.benchmark.jobs.small:execute",
            document={"code": code, "marks": str(self.marks), "name": name},
            needs=tuple(map(key_of, needs)),
            **more,
        )
        self.jobs = [other for other in self.jobs if other.key != job.key] + [job]
        return job

    def run(self, executor: Executor | None = None, **more) -> GraphReport:
        return run_jobs(self.jobs, self.store, executor or HereExecutor(), **more)

    def runs(self, name: str) -> int:
        return len(list(self.marks.glob(f"{name}-*")))

    def document(self, name: str):
        return self.store.result(key_of(name))["document"]

    @contextlib.contextmanager
    def runner(
        self, executor: str = "local:2", grace: float = 5, env: dict[str, str] | None = None
    ) -> Iterator["subprocess.Popen[str]"]:
        command = [sys.executable, "-c", RUNNER, str(self.store.folder), executor, str(grace)]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env
        ) as process:
            assert process.stdin is not None
            process.stdin.write(json.dumps([job.to_json() for job in self.jobs]))
            process.stdin.close()
            process.stdin = None
            try:
                yield process
            finally:
                process.kill()

    def command_of(self, name: str) -> psutil.Process:
        until(lambda: self.runs(name) > 0)
        newest = max(self.marks.glob(f"{name}-*"), key=lambda path: path.stat().st_mtime_ns)
        return psutil.Process(int(newest.name.rpartition("-")[2]))


def gone(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True
