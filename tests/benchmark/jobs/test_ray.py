import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from gansynth.runtime.errors import EnvironmentFault
from gansynth_benchmark.jobs.attempt import DONE, AttemptResult, AttemptSpec
from gansynth_benchmark.jobs.ray_executor import NOT_SHARED, RayExecutor, SharedFileProbe, _attempt
from tests.benchmark.jobs.small import FOREVER, Small, gone, key_of
from tests.expected import raises_fault
from tests.processes import until

MARK = "TEST_CLUSTER"


@dataclass
class Cluster:
    """A real Ray cluster on this machine, of nodes of one CPU each.

    Attributes:
        environ: variables of whoever connects; all processes of the cluster carry a mark in theirs.
    """

    environ: dict[str, str]

    def start(self, *options: str) -> psutil.Process:
        before = self.processes("raylet")
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options]
        command += ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--disable-usage-stats"]
        command += ["--object-store-memory=80000000"]
        environ = {key: value for key, value in self.environ.items() if key != "RAY_ADDRESS"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        (raylet,) = (raylet for raylet in self.processes("raylet") if raylet not in before)
        return raylet

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Everything, or all of a name, that was started by the cluster and by its nodes."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.environ[MARK]:
                    found += [process] * (name in ("", process.name()))
        return found

    def end(self) -> None:
        """Kill all of it; ``ray stop`` would end other people's clusters too."""
        for _ in range(10):
            left = self.processes()
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=5)
        assert not self.processes()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Of one node, in a temporary folder of its own; only who knows the token may use it."""
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


HANGING = """
time.sleep(2)
doomed = pathlib.Path("{doomed}")
if doomed.exists() and doomed.read_text() == os.environ["RAY_RAYLET_PID"]:
    pathlib.Path("{hangs}").touch()
    time.sleep(600)
document = [int(os.environ['RAY_RAYLET_PID'])]
"""


@pytest.mark.slow
@pytest.mark.extra("ray")
class TestCluster:
    def test_more_than_a_node_has_is_refused(self, small: Small, cluster: Cluster):
        small.add("one")
        with small.runner("ray:cpus=3", env=cluster.environ) as runner:
            _, err = runner.communicate(timeout=120)
        assert "a job needs 3 CPUs and 0 GPUs, and none of the" in err

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
    def test_jobs_end_with_the_run(self, small: Small, cluster: Cluster, number, code):
        small.add("long", FOREVER)
        small.add("queued", FOREVER)
        with small.runner("ray", env=cluster.environ) as runner:
            command = small.command_of("long")
            runner.send_signal(number)
            assert runner.wait(120) == code
            until(lambda: gone(command))
        until(lambda: not small.store.held(key_of("long")))
        assert small.runs("queued") == 0

    def test_all_results_come_though_a_node_is_lost(self, small: Small, cluster: Cluster):
        (first,) = cluster.processes("raylet")
        second = cluster.start(f"--address={cluster.environ['RAY_ADDRESS']}")
        names, hangs = [f"job{index}" for index in range(6)], small.tmp / "hangs"
        for name in names:
            small.add(name, HANGING.format(doomed=small.tmp / "doomed", hangs=hangs))

        def nodes() -> set[int]:
            return {small.document(n)[0] for n in names if small.store.at_hand(key_of(n))}

        with small.runner("ray", env=cluster.environ) as runner:
            until(lambda: second.pid in nodes(), 60)
            (small.tmp / "doomed").write_text(str(second.pid))
            until(hangs.exists, 60)
            second.kill()
            out, err = runner.communicate(timeout=120)
        assert runner.returncode == 0, err
        assert out == "6 jobs: 6 done\n"
        assert nodes() == {first.pid, second.pid}
        assert Counter(map(small.runs, names)) == {1: 5, 2: 1}
        assert "(raylet)" in (small.store.work / "ray.log").read_text()

    def test_a_run_ends_when_the_head_is_lost(self, small: Small, cluster: Cluster):
        """The last test that the cluster sees."""
        small.add("done")
        small.add("long", FOREVER, needs=["done"])
        with small.runner("ray", env=cluster.environ) as runner:
            small.command_of("long")
            (head,) = cluster.processes("gcs_server")
            head.kill()
            _, err = runner.communicate(timeout=58)  # before Ray ends it, with no word of ours
            assert runner.returncode == EnvironmentFault.exit_code
            assert "does not answer any more" in err.splitlines()[-1]
        assert small.store.at_hand(key_of("done"))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("no ray", "benchmark.ray-not-installed"),
        ("local", "benchmark.ray-address-malformed"),
        ("ray://127.0.0.1:10001", "benchmark.ray-address-malformed"),
        ("127.0.0.1:1", "benchmark.ray-address-not-answering"),
        ("", "benchmark.ray-address-not-answering"),
    ],
)
def test_no_cluster_is_ever_started_nor_waited_for(
    small: Small, monkeypatch, tmp_path, address, expected
):
    if address == "no ray":
        monkeypatch.setitem(sys.modules, "ray", None)
    else:
        pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    executor = RayExecutor()
    with raises_fault(expected):
        executor.open(small.store.folder)
    executor.close()


def attempted(small: Small, name: str, code: str = "") -> AttemptResult:
    """What a node does with a job, done here."""
    order = AttemptSpec(small.add(name, code), small.store.folder, Path.cwd(), "run")
    return _attempt(order, SharedFileProbe.write(small.store.folder), {})


def test_a_node_runs_a_job_and_says_how_it_ended(small: Small):
    assert attempted(small, "one") == AttemptResult(DONE)
    assert attempted(small, "bad", "sys.exit('no')").reason == "no"


def test_a_node_runs_nothing_without_the_token_in_the_store(small: Small, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("other")
    tokens = [SharedFileProbe(tmp_path / file, "mine") for file in ("token", "none")]
    assert not any(token.seen(patience=0) for token in tokens)
    assert SharedFileProbe(tmp_path / "token", "other").seen(patience=0)
    monkeypatch.setattr(SharedFileProbe, "seen", lambda token: False)
    result = attempted(small, "one")
    assert (result.code, small.runs("one")) == (NOT_SHARED, 0)
    assert f"does not see {small.store.work}" in result.reason
