"""Takes from each Python on whose path it lies what only POSIX has, as far as that can be had.

The libraries of a POSIX Python end processes by SIGKILL; they do so by its number here.
"""

import multiprocessing
import multiprocessing.context
import multiprocessing.popen_fork
import os
import select
import signal
import subprocess
import sys

import psutil

KILL = 9
LACKING = {
    os: "killpg setsid getsid setpgid getpgid getpgrp fork forkpty nice "
    "sched_getaffinity posix_fallocate",
    select: "poll epoll",
    signal: "SIGKILL SIGHUP SIGUSR1 SIGUSR2 SIGALRM alarm setitimer pthread_sigmask",
}

subprocess.Popen.kill = lambda process: process.send_signal(KILL)  # type: ignore[assignment]
psutil.Process.kill = lambda process: process.send_signal(KILL)  # type: ignore[assignment]
popen = multiprocessing.popen_fork.Popen
popen.kill = lambda process: process._send_signal(KILL)  # type: ignore[assignment, attr-defined]
multiprocessing.set_start_method("spawn")
for method in ("fork", "forkserver"):
    del multiprocessing.context._concrete_contexts[method]  # type: ignore[attr-defined]
for module, names in LACKING.items():
    for name in names.split():
        delattr(module, name)
for name in ("fcntl", "resource"):
    sys.modules[name] = None  # type: ignore[assignment]
