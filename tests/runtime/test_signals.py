from __future__ import annotations

import os
import signal
import subprocess
import sys

from gansynth.runtime.signals import on_sigterm


def test_a_forked_child_dies_of_sigterm_whatever_its_parent_does_with_it():
    def stay(number, frame):
        """A handler whose exception is swallowed leaves the process alive."""

    restore = on_sigterm(stay)
    try:
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(tell, b"x")
            signal.pause()  # returns if a handler ran
            os._exit(0)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    finally:
        restore()
        os.close(ready)
        os.close(tell)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM


JUST_FORKED = """
import os, signal, sys
from gansynth.runtime.signals import on_sigterm

os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
on_sigterm(lambda number, frame: sys.exit(143))
child = os.fork()
if child == 0:
    os._exit(0)
_, status = os.waitpid(child, 0)
print(os.WIFSIGNALED(status) and os.WTERMSIG(status))
"""


def test_a_child_dies_of_sigterm_that_comes_before_its_default_action_is_set():
    """An exception of a hook is ignored, and a pool would wait for its worker forever."""
    ran = subprocess.run([sys.executable, "-c", JUST_FORKED], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == (f"{int(signal.SIGTERM)}\n", "")


def test_the_former_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    on_sigterm(lambda number, frame: None)()
    assert signal.getsignal(signal.SIGTERM) is before
