"""Removes a scratch bank when the process that made it is gone, however it ended.

``python -I -S watchdog.py PARENT BANK`` is what a producer turns into once a frozen bank is
complete. It imports next to nothing: a producer with torch in memory is too much to wait for that.
"""

import os
import signal
import sys
import time

POLL_SECONDS = 1.0


def watch(parent: int, bank: str) -> None:
    """Return when the parent has gone, and the bank with it; or when the bank was removed."""
    while os.getppid() == parent:
        if not os.path.isdir(bank):
            return
        time.sleep(POLL_SECONDS)
    import shutil

    shutil.rmtree(bank, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    os.closerange(3, 1 << 16)
    watch(int(sys.argv[1]), sys.argv[2])
