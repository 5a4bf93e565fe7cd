"""A real Ray cluster on this machine, for tests: started for them, and ended by pid."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

MARK = "TEST_CLUSTER"


@dataclass
class Cluster:
    """Nodes of one CPU each, which only those who know the token may use.

    Attributes:
        environ: variables of whoever connects; all processes of the cluster carry a mark in theirs.
    """

    environ: dict[str, str]

    def start(self, *options: str) -> psutil.Process:
        before = self.raylets()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options]
        command += ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--disable-usage-stats"]
        command += ["--object-store-memory=80000000"]
        environ = {key: value for key, value in self.environ.items() if key != "RAY_ADDRESS"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        (raylet,) = (raylet for raylet in self.raylets() if raylet not in before)
        return raylet

    def second(self) -> psutil.Process:
        return self.start(f"--address={self.environ['RAY_ADDRESS']}")

    def processes(self) -> list[psutil.Process]:
        """Everything that was started by the cluster and by its nodes."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.environ[MARK]:
                    found.append(process)
        return found

    def raylets(self) -> list[psutil.Process]:
        return [process for process in self.processes() if process.name() == "raylet"]

    def end(self) -> None:
        """Kill all of it; ``ray stop`` would end other people's clusters too."""
        for _ in range(10):
            left = self.processes()
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=5)
            if not self.processes():
                return
        raise AssertionError(f"still there: {self.processes()}")


@contextmanager
def running_head() -> Iterator[Cluster]:
    """A cluster with one node, in a temporary folder of its own; more may be started."""
    folder = tempfile.mkdtemp(prefix="r")  # short: paths of sockets must be
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_TMPDIR": folder, MARK: secrets.token_hex(8)}
    cluster = Cluster({**os.environ, **token, **own})
    try:
        cluster.start("--head", f"--port={port}", "--include-dashboard=false")
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)
