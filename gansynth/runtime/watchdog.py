"""Removes a scratch bank after its process has ended, however it ended.

A producer becomes ``python -I -S watchdog.py PARENT BANK`` once a frozen bank is complete. It
imports next to nothing: a waiting producer with torch would take too much memory.
"""

import os
import signal
import sys
import time

POLL_SECONDS = 1.0


def watch(parent: int, bank: str) -> None:
    """Wait until the parent has ended, then remove the bank; or until the bank was removed."""
    while os.getppid() == parent:
        if not os.path.isdir(bank):
            return
        time.sleep(POLL_SECONDS)
    import shutil

    shutil.rmtree(bank, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.closerange(3, 1 << 16)
    watch(int(sys.argv[1]), sys.argv[2])
