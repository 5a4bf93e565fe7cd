from __future__ import annotations

import os
import signal

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


def test_the_former_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    on_sigterm(lambda number, frame: None)()
    assert signal.getsignal(signal.SIGTERM) is before
