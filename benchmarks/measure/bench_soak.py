"""A real nnU-Net training whose producer is killed again and again: what is left, what grows.

``gansynth augment`` trains nnU-Net on preprocessed phantoms with a live bank and two augmentation
workers; every half minute the producer is killed with SIGKILL. At the end the training is stopped
by SIGTERM. Reported: restarts, what was drawn, the memory of every process over time, processes and
files that outlived the training. Then the same training without synthetic samples, as a control: an
nnU-Net process grows a little by itself.

    python benchmarks/measure/bench_soak.py [--minutes 10] [--every 30] [--control-minutes 4]
    python benchmarks/measure/bench_soak.py --minutes 30 --every 3600 --name soak_30  # no kill
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import print_table, write
from hosts import PLANS, fit_generator, prepare_data

FLAT_MIB_PER_MINUTE = 2.0
"""Growth of one process below which its memory counts as flat."""
WARM_UP_SECONDS = 90
SHM = Path("/dev/shm")
TRAINING = "gansynth.hosts.contract.training_process"


def start(root: Path, run: Path, scratch: Path, ratio: str) -> subprocess.Popen[bytes]:
    """The training, as a user types it; it would go on for days."""
    command = [
        sys.executable,
        "-m",
        "gansynth_cli",
        "augment",
        "--target",
        "nnunet",
        "--data",
        "nnunet:999",
        "-c",
        "3d_fullres",
        "--plans",
        PLANS,
        "--root",
        str(root),
        "--generator",
        str(run),
        "--ratio",
        ratio,
        "--bank-dir",
        str(scratch),
        "--bank-size",
        "32",
        "--device",
        "cpu",
        "--json",
        "--set",
        "num_epochs=100000",
        "--set",
        "num_iterations_per_epoch=100",
        "--set",
        "num_val_iterations_per_epoch=1",
        "--",
        "-device",
        "cpu",
    ]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "2"}
    log = open(root / "augment.log", "wb")  # noqa: SIM115 - the child's, for as long as it lives
    with log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environ
        )


def producer_of(scratch: Path) -> int | None:
    """Process id of the bank's producer, if it lives."""
    for heartbeat in scratch.glob("*/heartbeat.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = int(json.loads(heartbeat.read_bytes())["pid"])
            return pid if psutil.pid_exists(pid) else None
    return None


class Watch:
    """Memory of a process and all its descendants, by what they are."""

    def __init__(self, root: int) -> None:
        self.root = psutil.Process(root)
        self.seen: dict[int, float] = {}
        self.memory: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.began = time.monotonic()

    def look(self) -> None:
        """Note the memory of all of them now."""
        now = time.monotonic() - self.began
        family = [self.root]
        with contextlib.suppress(psutil.Error):
            family += self.root.children(recursive=True)
        for process in family:
            with contextlib.suppress(psutil.Error):
                self.seen[process.pid] = process.create_time()
                mib = process.memory_info().rss / 2**20
                self.memory[kind_of(process)].append((now, mib))

    def survivors(self) -> list[str]:
        """Processes seen that still live."""
        alive = []
        for pid, created in self.seen.items():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.create_time() == created and process.status() != "zombie":
                    alive.append(kind_of(process))
        return alive

    def growth(self, killed: bool = True) -> dict[str, Any]:
        """MiB after the warm-up, every half minute, and MiB gained a minute (median slope)."""
        from scipy.stats import theilslopes

        found: dict[str, Any] = {}
        for kind, points in self.memory.items():
            time_, mib = np.array([p for p in points if p[0] >= WARM_UP_SECONDS] or points).T
            new = killed and kind == "producer"  # another one after each kill
            flat = new or len(time_) < 3
            found[kind] = {
                "mib_median": float(np.median(mib)),
                "mib_every_half_minute": [round(float(m)) for m in mib[::15]],
                "mib_per_minute": 0.0 if flat else 60 * float(theilslopes(mib, time_).slope),
            }
        return found


def kind_of(process: psutil.Process) -> str:
    """What a process of the family is."""
    words = " ".join(process.cmdline())
    if "gansynth.bank.producer" in words:
        return "producer"
    if "gansynth.hosts.contract.training_process" in words:
        parent = process.parent()
        inside = parent is not None and "gansynth.hosts.contract.training_process" in " ".join(
            parent.cmdline()
        )
        return f"worker {process.pid}" if inside else "trainer"
    return "augment" if "gansynth_cli" in words else "other"


def soak(training: subprocess.Popen[bytes], scratch: Path, minutes: float, every: float) -> Any:
    """Kill the producer every so often while the training runs."""
    watch, kills, latencies = Watch(training.pid), 0, []
    while producer_of(scratch) is None and training.poll() is None:
        time.sleep(0.5)
    end = time.monotonic() + 60 * minutes
    due = time.monotonic() + every
    killed_at, killed_pid = 0.0, 0
    while time.monotonic() < end and training.poll() is None:
        watch.look()
        pid = producer_of(scratch)
        if killed_at and pid not in (None, killed_pid):
            latencies.append(time.monotonic() - killed_at)
            killed_at = 0.0
        if time.monotonic() >= due and pid is not None:
            os.kill(pid, signal.SIGKILL)
            kills, killed_at, killed_pid = kills + 1, time.monotonic(), pid
            due += every
        time.sleep(2.0)
    return watch, kills, latencies


def control(root: Path, run: Path, scratch: Path, minutes: float) -> Watch:
    """The same training without synthetic samples."""
    training = start(root, run, scratch, "1:0")
    watch = Watch(training.pid)
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end and training.poll() is None:
        watch.look()
        time.sleep(2.0)
    training.send_signal(signal.SIGTERM)
    training.wait(300)
    return watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between kills")
    parser.add_argument("--control-minutes", type=float, default=4.0)
    parser.add_argument("--name", default="soak")
    args = parser.parse_args()
    base = SHM if os.access(SHM, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory(prefix="soak-", dir=base) as scratch_folder,
    ):
        root, scratch = Path(folder), Path(scratch_folder)
        run = fit_generator(prepare_data(root, 32), root / "run")
        before = {p.name for p in SHM.iterdir()} if base else set()
        training = start(root, run, scratch, "1:1")
        watch, kills, latencies = soak(training, scratch, args.minutes, args.every)
        early = training.poll()
        training.send_signal(signal.SIGTERM)
        code = training.wait(300)
        time.sleep(3)
        left = watch.survivors()
        files = [str(p.relative_to(scratch)) for p in scratch.rglob("*")]
        after = {p.name for p in SHM.iterdir()} if base else set()
        stale = [str(p) for p in root.rglob("*.tmp-*")] + sorted(after - before)
        sidecar = next((root / "nnUNet_results").rglob("gansynth_session.json"))
        session = json.loads(sidecar.read_text())["sessions"][-1]
        log = (root / "augment.log").read_text("utf-8", "replace")
        alone = control(root, run, scratch, args.control_minutes).growth()
    growth = watch.growth(kills > 0)
    by_itself = alone.get("trainer", {}).get("mib_per_minute", 0.0)
    growth["trainer"]["mib_per_minute_by_itself"] = by_itself
    passed = (
        early is None
        and code == 143
        and not (left or files or stale)
        and kills >= int(60 * args.minutes / args.every) - 1
        and all(
            g["mib_per_minute"] - max(0.0, g.get("mib_per_minute_by_itself", 0.0))
            < FLAT_MIB_PER_MINUTE
            for g in growth.values()
        )
    )
    document = {
        "minutes": args.minutes,
        "seconds_between_kills": args.every,
        "kills": kills,
        "seconds_until_the_next_producer": latencies,
        "ended_by_itself": early,
        "exit_code": code,
        "drawn": session["drawn"],
        "supply": session.get("supply"),
        "processes_left": left,
        "bank_files_left": files,
        "stale_files": stale,
        "memory": growth,
        "memory_without_synthetic_samples": alone,
        "flat_below_mib_per_minute": FLAT_MIB_PER_MINUTE,
        "passed": passed,
    }
    write(args.name, document)
    rows = [(k, v["mib_median"], v["mib_per_minute"]) for k, v in growth.items()]
    print_table([("process", "MiB", "MiB/min"), *rows])
    print(f"the trainer by itself: {by_itself:.2f} MiB/min")
    print(f"{kills} kills; next producer after {np.round(latencies, 1).tolist()} s")
    print(f"left: {left or 'no process'}, {files + stale or 'no file'}; exit code {code}")
    print(json.dumps(session["drawn"]))
    if not passed:
        raise SystemExit(f"not passed; the log ends:\n{log[-2000:]}")


if __name__ == "__main__":
    main()
