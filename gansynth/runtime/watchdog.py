"""Removes a scratch bank after its process has ended, however it ended.

A supervisor starts ``python -I -S watchdog.py PARENT BANK`` beside its producer. It imports next to
nothing, so it takes little memory.
"""

import os
import signal
import sys
import time

POLL_SECONDS = 0.2  # what a killed training leaves is itself killed after a second
TRIES = 50  # an orphaned producer may write for some seconds


def watch(parent: int, bank: str) -> None:
    """Wait until the parent has ended, then remove the bank."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    import shutil

    for _ in range(TRIES):
        shutil.rmtree(bank, ignore_errors=True)
        if not os.path.isdir(bank):
            return
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.setpgid(0, 0)  # a failed training's process group is killed, and the bank still goes
    os.closerange(3, 1 << 16)
    watch(int(sys.argv[1]), sys.argv[2])
