"""The quick tests on pretended machines, as users have them: threads, cores, processors, accounts.

``python -m tests.machines [NAME ...]`` runs them on those named, or on all, one after the other;
``--turn NUMBER`` an eighth of them on the one whose turn it is, ``--list`` prints all. Before its
tests, a machine is looked at from a child of a child process: a pretence that does not hold is an
error.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CORES = Path(__file__).with_name("pretended_cores")
TESTS = ("-m", "not slow", "--dist", "loadfile", "--no-loadscope-reorder", "-q", "--progress")
WORKERS = min(2, os.cpu_count() or 1)
EIGHTHS = 8
NOBODY = 1000
"""Anybody but root."""


@dataclass(frozen=True)
class Machine:
    """What differs from the machine that runs the tests.

    Attributes:
        about: what is pretended, in words.
        variables: of the environment; of those that any machine sets, no other is there.
        cores: that Python counts.
        user: whether to run as another user than root, who owns the files all the same.
        new_home: whether HOME is an empty folder.
        sees: what ``look`` must find.
        workers: processes that test side by side.
    """

    about: str
    variables: Mapping[str, str] = field(default_factory=dict)
    cores: int | None = None
    user: bool = False
    new_home: bool = False
    sees: Mapping[str, Any] = field(default_factory=dict)
    workers: int = WORKERS


def of_cores(count: int) -> Machine:
    return Machine(f"cores: {count}", cores=count, sees={"cores": [count]})


def of_threads(count: int, workers: int) -> Machine:
    return Machine(
        f"OMP_NUM_THREADS={count}",
        {"OMP_NUM_THREADS": str(count)},
        sees={"threads": count},
        workers=workers,
    )


def of_processor(blas: str, kernels: str, **variables: str) -> Machine:
    """A processor by the kernels that OpenBLAS has for it, under the name it tells them by."""
    return Machine(
        f"the processor {blas}",
        {"OPENBLAS_CORETYPE": blas, **variables},
        sees={"kernels": [kernels]},
    )


MACHINES = {
    "plain": Machine("no variable set"),
    "one-thread": of_threads(1, WORKERS),
    "two-threads": of_threads(2, 1),
    "one-core": of_cores(1),
    "twelve-cores": of_cores(12),
    "many-cores": of_cores(64),
    # OpenBLAS takes Zen for Haswell, and Prescott for Katmai. SkylakeX needs AVX-512.
    "haswell": of_processor("Haswell", "Haswell"),
    "sandybridge": of_processor("Sandybridge", "Sandybridge"),
    "prescott": of_processor(
        "Prescott", "Katmai", ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41"
    ),
    "user": Machine("another user than root", user=True, sees={"root": False}),
    "bare": Machine(
        "an empty HOME, the locale C, strings hashed alike every time",
        {"LANG": "C", "LC_ALL": "C", "PYTHONHASHSEED": "0"},
        new_home=True,
        sees={"locale": "C", "home": []},
    ),
}
SETTABLE = {name for machine in MACHINES.values() for name in machine.variables}
OTHER_SETTINGS = {"MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"}


@contextlib.contextmanager
def environment(machine: Machine) -> Iterator[dict[str, str]]:
    """The environment of a process on a machine, and of those it starts."""
    hidden = SETTABLE | OTHER_SETTINGS
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    environ.update(machine.variables)
    if machine.cores is not None:
        paths = [str(CORES), environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        environ["PRETENDED_CORES"] = str(machine.cores)
    with tempfile.TemporaryDirectory(prefix="home-") as home:
        if machine.new_home:
            environ["HOME"] = home
        yield environ


def command(machine: Machine, words: Sequence[str]) -> list[str]:
    """A command that runs Python with these words."""
    python = [sys.executable, *words]
    if not machine.user or os.getuid() != 0:
        return python
    return ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", *python]


def look() -> dict[str, Any]:
    """What this process sees of its machine."""
    home = sorted(os.listdir(Path.home()))

    import locale

    import numpy  # noqa: F401  # loads OpenBLAS
    import threadpoolctl
    import torch

    counts = {os.cpu_count(), multiprocessing.cpu_count()}
    if hasattr(os, "sched_getaffinity"):
        counts.add(len(os.sched_getaffinity(0)))
    pools = threadpoolctl.threadpool_info()
    return {
        "cores": sorted(map(int, filter(None, counts))),
        "threads": torch.get_num_threads(),
        "kernels": sorted({pool["architecture"] for pool in pools if "architecture" in pool}),
        "root": os.getuid() == 0,
        "home": home,
        "locale": locale.setlocale(locale.LC_MESSAGES, ""),
    }


LOOK = "import json, tests.machines as m; print(json.dumps(m.look()))"
CHILD = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"


def differences(machine: Machine, environ: Mapping[str, str]) -> list[str]:
    """What a child of a child process sees of a machine that is not as it must be."""
    words = command(machine, ["-c", CHILD, LOOK])
    done = subprocess.run(words, env=environ, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return [f"cannot be looked at: {done.stderr.strip()}"]
    seen = json.loads(done.stdout)
    return [
        f"{what} is {seen[what]}, not {expected}"
        for what, expected in machine.sees.items()
        if seen[what] != expected
    ]


def run(name: str, tests: Sequence[str]) -> bool:
    """Run tests on a machine, and print what came of it."""
    machine, began = MACHINES[name], time.monotonic()
    print(f"-- machine {name}: {machine.about}", flush=True)
    with environment(machine) as environ:
        if found := differences(machine, environ):
            print(f"-- machine {name}: not as pretended: {'; '.join(found)}", flush=True)
            return False
        words = ["-m", "pytest", "-n", str(machine.workers), *TESTS, *tests]
        passed = subprocess.call(command(machine, words), env=environ, cwd=ROOT) == 0
    seconds = time.monotonic() - began
    said = "passed" if passed else f"failed; again: make machines ARGS={name}"
    print(f"-- machine {name}: {seconds:.0f} s, {said}", flush=True)
    return passed


def in_turn(turn: int) -> tuple[str, list[str]]:
    """A machine, and every eighth test file; all pairs of a machine and an eighth have a turn."""
    rounds, place = divmod(turn, len(MACHINES))
    files = sorted(path.relative_to(ROOT) for path in ROOT.glob("tests/**/test_*.py"))
    return list(MACHINES)[place], list(map(str, files[rounds % EIGHTHS :: EIGHTHS]))


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.machines", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MACHINES, []], metavar="NAME")
    parser.add_argument("--turn", type=int, help="any number; the next one is the next machine's")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--tests", default="", help="words for pytest: files, -k, -x")
    asked = parser.parse_args(words)
    if asked.list:
        print("\n".join(f"{name:14} {machine.about}" for name, machine in MACHINES.items()))
        return 0
    names, tests = asked.names or list(MACHINES), shlex.split(asked.tests)
    if asked.turn is not None:
        name, files = in_turn(asked.turn)
        names, tests = [name], [*files, *tests]
    failed = [name for name in names if not run(name, tests)]
    print(f"-- {len(names) - len(failed)} of {len(names)} machines passed", *failed, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
