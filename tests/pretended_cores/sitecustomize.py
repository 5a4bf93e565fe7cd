"""Gives a Python process, and all it starts, as many cores as PRETENDED_CORES says.

Python imports ``sitecustomize`` by itself at its start. Another one, further down the path, still
runs. Libraries in C count for themselves: torch's own number of threads stays that of the machine.
"""

import importlib.util
import multiprocessing
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path


def pretend(count: int) -> None:
    """Let every way to ask Python for the cores answer this number."""
    os.cpu_count = lambda: count
    multiprocessing.cpu_count = lambda: count
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        os.process_cpu_count = lambda: count
    if hasattr(os, "sched_getaffinity"):
        os.sched_getaffinity = lambda pid: set(range(count))


def run_next() -> None:
    """Run the ``sitecustomize`` that this one hides."""
    here = Path(__file__).resolve().parent
    others = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


pretend(int(os.environ["PRETENDED_CORES"]))
run_next()
