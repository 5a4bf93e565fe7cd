import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gansynth.runtime import processes, torchvision_compat
from gansynth.runtime.child import cpu_threads, keep_to_cores
from gansynth.runtime.errors import FAULTS, UNNAMED, TrainingFault
from tests.expected import raises_fault
from tests.processes import until


def run(code: str, log: Path) -> processes.ProcessResult:
    return processes.run([sys.executable, "-c", code], os.environ, log)


SAID = "error: why\\nTraceback\\nRuntimeError: x\\n"  # its threads go on talking


@pytest.mark.parametrize(
    ("code", "expected", "fault", "quoted"),
    [
        *(
            (f"sys.stderr.write('{SAID}'); sys.exit({n})", UNNAMED, FAULTS[n], "why")
            for n in (2, 6)
        ),
        ("sys.stderr.write('what and why'); sys.exit(5)", UNNAMED, TrainingFault, "what and why"),
        ("print('x'); raise OSError('odd')", "processes.command-failed", TrainingFault,
         "training failed (exit 1): OSError: odd"),
    ],
)  # fmt: skip
def test_a_childs_typed_fault_is_ours_and_any_other_failure_quotes_its_last_line(
    tmp_path, code, expected, fault, quoted
):
    ended = run(f"import sys; {code}", tmp_path / "log")
    with raises_fault(expected) as caught:
        ended.raise_if_failed("training")
    assert type(caught.value) is fault
    assert str(caught.value) == quoted


def test_a_program_that_cannot_be_run_is_named(tmp_path):
    ended = processes.run(["/no/such/program"], os.environ, tmp_path / "log")
    assert ended.code == processes.NOT_FOUND
    assert ended.output == "/no/such/program: cannot be run: No such file or directory"
    assert (tmp_path / "log").read_text() == f"{ended.output}\n"


IN_PIECES = """
import sys, time
for word in ["from", " 0\\n", "last\\n"]:
    print(word, end="", file=sys.stderr)
    time.sleep(0.1)
print("x" * 500_000, end="")
"""


def test_lines_in_pieces_and_without_an_end_are_whole_in_the_log(tmp_path):
    assert run(IN_PIECES, tmp_path / "log").code == 0
    assert (tmp_path / "log").read_text().splitlines() == ["from 0", "last", "x" * 500_000]


SHARED = """
import os, signal
from multiprocessing.shared_memory import SharedMemory
print(SharedMemory(create=True, size=8).name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="looks into /dev/shm")
@pytest.mark.fault(34)
def test_shared_memory_of_a_killed_child_is_freed(tmp_path):
    ended = run(SHARED, tmp_path / "log")
    assert ended.code == -signal.SIGKILL
    until(lambda: not Path("/dev/shm", ended.output.split()[0]).exists(), 20)


@pytest.mark.fault(34)
def test_a_killed_child_is_not_waited_for_by_its_workers(tmp_path):
    code = (
        "import os, signal, subprocess, sys;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)']);"
        "print(p.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = run(code, tmp_path / "log")
    with raises_fault("processes.command-failed"):
        ended.raise_if_failed("training")
    until(lambda: not Path(f"/proc/{int(ended.last[0])}/exe").exists())


PARENT = """
import os, sys
from pathlib import Path
from gansynth.runtime import processes
code = 'import time; print(1, flush=True); time.sleep(60)'
ended = processes.run([sys.executable, '-c', code], os.environ, Path(sys.argv[1]))
try:
    ended.raise_if_failed('training')
except BaseException as error:
    print(type(error).__name__, getattr(error, 'code', ''), ended.code)
"""


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, ["Interrupted", "130"]), (signal.SIGTERM, ["Interrupted", "143"])],
)
def test_a_signal_reaches_the_child_and_ends_us_too(tmp_path, number, expected):
    log = tmp_path / "log"
    command = [sys.executable, "-c", PARENT, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        until(lambda: log.exists() and log.read_text() != "")
        parent.send_signal(number)
        *said, code = parent.communicate(timeout=60)[0].split()
    assert said == expected
    assert code in (f"-{number.value}", "1")


def test_threads_follow_the_users_wish_else_one_core_is_left_over(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("gansynth.runtime.child.cores", lambda: 8)
    assert cpu_threads() == 7


def test_torch_takes_no_more_threads_than_a_container_has_cores(monkeypatch):
    taken: list[int] = []
    said: list[str] = []
    monkeypatch.setattr("torch.set_num_threads", taken.append)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    monkeypatch.setattr("gansynth.runtime.child.cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    keep_to_cores(said.append)
    assert (taken, said) == ([], [])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    keep_to_cores(said.append)
    assert taken == [2]
    assert "2 threads, not 8" in said[0]


def test_the_folder_for_a_cpu_torch_runs_another_sitecustomize_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.seen = True")
    path = os.pathsep.join((str(torchvision_compat.CPU_TORCH), str(tmp_path)))
    command = [sys.executable, "-c", "import sys; assert sys.seen"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True)


@pytest.mark.fault(44)
@pytest.mark.slow
def test_torchvision_imports_with_the_folder_for_a_cpu_torch_on_the_path():
    environ = {**os.environ, "PYTHONPATH": str(torchvision_compat.CPU_TORCH)}
    code = "import sys; assert 'torch' not in sys.modules; import torchvision.ops"
    subprocess.run([sys.executable, "-c", code], env=environ, check=True)
