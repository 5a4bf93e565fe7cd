import os
import signal
import subprocess
import sys

import pytest

from gansynth.runtime.signals import on_sigterm

FORKING = """
import os, signal, sys, time
from gansynth.runtime.signals import on_sigterm

{hook}
on_sigterm(lambda number, frame: sys.exit(143))
ends = set()
for _ in range(40):
    child = os.fork()
    if child == 0:
        time.sleep(0.5)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    ends.add(os.waitpid(child, 0)[1])
time.sleep(1)
print(ends)
"""
HOOK = "os.register_at_fork({}=lambda: os.kill(os.getpid(), signal.SIGTERM))"


@pytest.mark.parametrize(
    ("hook", "code", "printed"),
    [
        ("", 0, "{15}\n"),
        (HOOK.format("after_in_child"), 0, "{15}\n"),
        (HOOK.format("before"), 143, ""),
    ],
    ids=["child just forked", "child in a hook", "parent in a hook"],
)
def test_no_signal_is_lost_that_comes_with_a_fork(hook, code, printed):
    """A pool would wait for its worker forever, and a scheduler for its job."""
    words = [sys.executable, "-c", FORKING.format(hook=hook)]
    ran = subprocess.run(words, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (code, printed, "")


INTERRUPTED = """
import os, signal
from gansynth.runtime.signals import interrupt_outside_forks

os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT))
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupt_outside_forks()
try:
    for _ in range(3):
        child = os.fork()
        if child == 0:
            signal.pause()
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_no_ctrl_c_is_lost_that_comes_with_a_fork():
    words = [sys.executable, "-c", INTERRUPTED]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "interrupted\n", "")


def test_the_former_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    on_sigterm(lambda number, frame: None)()
    assert signal.getsignal(signal.SIGTERM) is before


INTERRUPTING = "import os, signal; os.kill(os.getpid(), signal.SIGINT); raise SystemExit(7)"


@pytest.mark.parametrize(
    ("handler", "code", "says"),
    [(signal.default_int_handler, 130, "interrupted\n"), (signal.SIG_IGN, 7, "")],
    ids=["in front", "in background"],
)
def test_ctrl_c_while_a_command_is_imported_ends_it_in_one_line(tmp_path, handler, code, says):
    (tmp_path / "click.py").write_text(INTERRUPTING)
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    ran = subprocess.run(
        [sys.executable, "-m", "gansynth_cli", "fit", "--help"],
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (code, "", says)
