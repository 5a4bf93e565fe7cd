"""Real trainings with a live bank whose processes, folders, clock and checkpoints are troubled.

``gansynth augment`` trains nnU-Net and the segmenter on phantoms, as a user types it. At random
moments of a fixed seed a process is killed or stopped, the bank's disk fills up, the results turn
read-only, the clock jumps, the same command is typed beside it, or a bit of the newest checkpoint
flips. Where the command ends, it is typed again. Counted for each training: exit codes, steps, real
and synthetic items of the batches that the host trained on, and what is left behind.

What is real is known by content, not by what gansynth says: augmentation is off, so a real crop has
values of the training cases, and a generator's has others. Each host writes it into its own log:
nnU-Net for each batch of ``train_step``, the segmenter for each batch of its loop.

    python benchmarks/measure/bench_process_faults.py [--only nnunet: killed ...] [--events 1]

The clock is that of a library which is loaded before libc (``LD_PRELOAD``) and shifts the wall
clock; the monotonic one and the times of files are the kernel's. Needs Linux, root (it mounts),
ext4 and ``cc``.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from common import RESULTS, gansynth, hooked, print_table, write
from hosts import PLANS, fit_generator, prepare_data

HOOK = """
import importlib.abc, importlib.util, sys
import numpy as np

class Values:
    known = None

    def count(self, images, cases):
        if self.known is None:
            self.known = np.unique(np.concatenate([np.unique(case) for case in cases()]))
        shares = [np.isin(np.unique(image), self.known).mean() for image in images]
        unsure = [share for share in shares if 0.2 < share < 0.99]
        return f"{sum(share > 0.5 for share in shares)} of {len(shares)} real, {len(unsure)} unsure"

values = Values()

def nnunet(module):
    trainer = module.nnUNetTrainer
    step = trainer.train_step

    def counted(self, batch):
        def cases():
            folder = self.preprocessed_dataset_folder
            data = self.dataset_class(folder, self.do_split()[0])
            return [np.asarray(data.load_case(case)[0][:]) for case in data.identifiers]
        self.counted = (self.current_epoch, getattr(self, "counted", (-1, 0)))
        epoch, (before, number) = self.counted
        number = number + 1 if before == epoch else 0
        self.counted = (epoch, number)
        found = values.count(batch["data"].numpy(), cases)
        done = step(self, batch)
        at = epoch * self.num_iterations_per_epoch + number
        self.print_to_log_file(f"batch {at}: {found}", also_print_to_console=False)
        return done

    trainer.train_step = counted

def segmenter(module):
    make = module.batch_of

    def counted(job, step, stage, which):
        from gansynth.hosts.mixing.training_data import uncut
        source, space = job.host.source, uncut(job.host.space)
        cases = lambda: [space.to_generator(source.load(case)).image for case in source.train_ids]
        batch = make(job, step, stage, which)
        job.note(f"batch {step}: {values.count(batch.image.numpy(), cases)}")
        return batch

    module.batch_of = counted

HOOKED = {"nnunetv2.training.nnUNetTrainer.nnUNetTrainer": nnunet,
          "gansynth_segmenter.host": segmenter}

class Wrap(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in HOOKED:
            return None
        change = HOOKED.pop(name)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def loaded(module):
            load(module)
            change(module)
        spec.loader.exec_module = loaded
        return spec

sys.meta_path.insert(0, Wrap())
"""
BATCH = re.compile(r"batch (\d+): (\d+) of (\d+) real, (\d+) unsure")
BEGINS = re.compile(r"gansynth: the training (?:starts|resumes)")
CLOCK = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
    const char *path = getenv("CLOCK");
    char text[32] = {0};
    int file = path ? open(path, O_RDONLY) : -1;
    if (file >= 0 && read(file, text, sizeof text - 1) < 0) text[0] = 0;
    if (file >= 0) close(file);
    return atol(text);
}
int clock_gettime(clockid_t id, struct timespec *now) {
    int code = syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME) now->tv_sec += shift();
    return code;
}
int gettimeofday(struct timeval *now, void *zone) {
    int code = syscall(SYS_gettimeofday, now, zone);
    now->tv_sec += shift();
    return code;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""
SHM = Path("/dev/shm")
BANK_MB = 48
TYPED = 4
"""Times that a command is typed again at most after the last event."""


# -- hosts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """A batch that a host has trained on."""

    step: int
    real: int
    size: int
    unsure: int


def batches_in(text: str) -> list[Batch]:
    """The batches of a log."""
    return [Batch(*map(int, numbers)) for numbers in BATCH.findall(text)]


class Host(ABC):
    """A framework on phantoms: its command, and what its own log says."""

    name: str
    steps: int

    def __init__(self, root: Path, run: Path) -> None:
        self.root, self.run = root, run

    @abstractmethod
    def words(self, folder: Path) -> list[str]:
        """The command's words, its results in a folder."""

    @abstractmethod
    def output(self, folder: Path) -> Path:
        """The folder of the results."""

    @abstractmethod
    def sessions(self, folder: Path) -> list[list[Batch]]:
        """The batches of each session, in order."""

    @abstractmethod
    def trained(self, folder: Path) -> int:
        """The steps that the finished training has, by the host's own account."""

    @abstractmethod
    def checkpoint(self, folder: Path) -> Path | None:
        """The largest file of the newest checkpoint."""

    def roles(self, command: psutil.Process) -> dict[str, psutil.Process]:
        """The processes of a command by what they are."""
        found = {"command": command}
        for process in command.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                words = " ".join(process.cmdline())
                if "gansynth.bank.producer" in words:
                    found["producer"] = process
                elif "watchdog.py" in words:
                    found["watchdog"] = process
                elif (
                    "gansynth.hosts.contract.training_process" in words
                    and process.ppid() == command.pid
                ):
                    found["trainer"] = process
        found.setdefault("trainer", command)
        return found


class Nnunet(Host):
    """nnU-Net; the command starts its trainer, which supervises the producer."""

    name = "nnunet"
    epochs, iterations = 5, 12
    steps = epochs * iterations

    def words(self, folder: Path) -> list[str]:
        settings = (
            f"num_epochs={self.epochs}",
            f"num_iterations_per_epoch={self.iterations}",
            "num_val_iterations_per_epoch=1",
            "save_every=1",
        )
        return [
            "--target",
            "nnunet",
            "--data",
            "nnunet:999",
            "-c",
            "3d_fullres",
            "--plans",
            PLANS,
            "--root",
            str(self.root),
            "-o",
            str(folder),
            *(f"--set={one}" for one in settings),
            "--",
            "-device",
            "cpu",
        ]

    def output(self, folder: Path) -> Path:
        trainer = f"nnUNetTrainerGANSynth__{PLANS}__3d_fullres"
        return folder / "Dataset999_Phantom" / trainer / "fold_0"

    def sessions(self, folder: Path) -> list[list[Batch]]:
        logs = self.output(folder).glob("training_log_*.txt")
        texts = [log.read_text() for log in sorted(logs, key=lambda log: log.stat().st_mtime)]
        return [batches_in(text) for text in texts if BATCH.search(text)]

    def trained(self, folder: Path) -> int:
        import torch

        final = self.output(folder) / "checkpoint_final.pth"
        epochs = int(torch.load(final, weights_only=False)["current_epoch"])
        return epochs * self.iterations

    def checkpoint(self, folder: Path) -> Path | None:
        found = self.output(folder).glob("checkpoint_*.pth")
        return max(found, key=lambda file: file.stat().st_mtime, default=None)


class Segmenter(Host):
    """The segmenter; the command is the trainer, and supervises the producer."""

    name = "segmenter"
    steps = 300

    def words(self, folder: Path) -> list[str]:
        settings = (
            f"steps={self.steps}",
            "checkpoint_every=10",
            "batch_size=2",
            "width=4",
            "levels=2",
            "log_every=1",
            "device=cpu",
        )
        return [
            "--target",
            "segmenter",
            "--data",
            "nnunet-raw:999",
            "--root",
            str(self.root),
            "--read",
            "size=32",
            "-o",
            str(folder),
            *(f"--set={one}" for one in settings),
        ]

    def output(self, folder: Path) -> Path:
        return folder

    def sessions(self, folder: Path) -> list[list[Batch]]:
        log = folder / "gansynth_launch.log"
        texts = BEGINS.split(log.read_text()) if log.exists() else []
        return [batches_in(text) for text in texts if BATCH.search(text)]

    def trained(self, folder: Path) -> int:
        with (folder / "metrics.csv").open() as stream:
            steps = [int(row["step"]) for row in csv.DictReader(stream)]
        return len(steps) if steps == sorted(set(steps)) else -1

    def checkpoint(self, folder: Path) -> Path | None:
        newest = max((folder / "checkpoints").glob("step-*/state.json"), default=None)
        files = [] if newest is None else list(newest.parent.glob("*"))
        return max(files, key=lambda file: file.stat().st_size, default=None)


# -- one training --------------------------------------------------------------------------------


@dataclass
class Training:
    """A training that is troubled; its command is typed until it is finished."""

    host: Host
    folder: Path
    rng: random.Random
    bank: Path
    environ: dict[str, str]
    before: tuple[str, ...] = ()
    """Words before the command, as of ``unshare``."""
    banked: tuple[str, ...] = ()
    """Where the bank lies."""
    ratio: str = "1:1"
    shared: bool = False
    """Whether the bank lies in the command's own /dev/shm."""
    command: psutil.Popen | None = None
    typed: int = 0
    codes: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[int, psutil.Process] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        """What the commands have said."""
        return self.folder.with_suffix(".said")

    def words(self) -> list[str]:
        """The command."""
        own = self.host.words(self.folder)
        at = own.index("--") if "--" in own else len(own)
        mixing = ("--generator", str(self.host.run), "--ratio", self.ratio, *self.banked)
        mixing += ("--bank-size", "32", "--no-host-augmentation", "--device", "cpu")
        start = (*self.before, sys.executable, "-m", "gansynth_cli", "augment")
        return [*start, *own[:at], *mixing, *own[at:]]

    def type(self) -> psutil.Popen:
        """Type the command."""
        with self.log.open("ab") as log:
            found = psutil.Popen(
                self.words(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ,
                start_new_session=True,
            )
        self.typed += 1
        return found

    def start(self) -> None:
        """Type the command, and wait until a live bank has samples, or it has ended."""
        self.command = self.type()
        while self.command.poll() is None and not self.samples():
            time.sleep(0.05)

    def place(self) -> Path | None:
        """Where the bank lies; None while there is no such disk."""
        if not self.shared:
            return self.bank
        assert self.command is not None
        inside = Path(f"/proc/{self.command.pid}/root{SHM}")
        with contextlib.suppress(OSError):
            if inside.stat().st_dev != SHM.stat().st_dev:  # it is mounted by now
                return inside
        return None

    def samples(self) -> bool:
        """Whether there is a bank with samples."""
        place = self.place()
        return place is not None and any(place.glob("gansynth-*/sample-*"))

    def roles(self) -> dict[str, psutil.Process]:
        """Its processes."""
        assert self.command is not None
        with contextlib.suppress(psutil.Error):
            for process in [self.command, *self.command.children(recursive=True)]:
                self.seen[process.pid] = process
            return self.host.roles(self.command)
        return {}

    def rest(self, least: float = 0.2, most: float = 4.0) -> bool:
        """Wait for a random moment; whether it still runs then."""
        end = time.monotonic() + self.rng.uniform(least, most)
        while time.monotonic() < end and self.running():
            time.sleep(0.05)
        self.roles()
        return self.running()

    def running(self) -> bool:
        """Whether the command runs."""
        return self.command is not None and self.command.poll() is None

    def note(self, fault: str, code: int | None = None, **more: Any) -> None:
        """Write down an event, and the exit code that it led to."""
        steps = sum(map(len, self.host.sessions(self.folder)))
        self.events.append({"fault": fault, "code": code, "batches_so_far": steps, **more})
        print(f"  {self.host.name} {fault}: {code} {more}", flush=True)

    def ended(self, seconds: float = 300) -> int:
        """Wait for the command's end; its exit code, -1000 if it hangs."""
        assert self.command is not None
        end = time.monotonic() + seconds
        while self.command.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
            self.roles()
        code = self.command.poll()
        if code is None:
            self.note("HANGS", stacks=[" ".join(p.cmdline()) for p in self.roles().values()])
            for process in self.roles().values():
                process.kill()
            code = -1000
        self.codes.append(code)
        lines = self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []
        if code:
            last = next((line for line in reversed(lines) if line.startswith("error")), "")
            self.said.append(re.sub(r"\S*/out/", "out/", last))  # wherever it lay
        return int(code)

    def finish(self) -> None:
        """Let it end, typing the command again where it does not."""
        if not self.running():
            self.start()
        for _ in range(TYPED):
            if self.ended() == 0:
                return
            time.sleep(1)  # one that is about to end may hold the lock
            self.start()

    def left(self) -> list[str]:
        """Processes and files that outlive it."""
        end = time.monotonic() + 15
        while time.monotonic() < end and (self.alive() or self.banks()):
            time.sleep(0.2)
        temporary = [p.name for p in self.folder.rglob("*") if ".tmp" in p.name]
        holder = [p.name for p in self.folder.rglob(".holder")]
        return [*self.alive(), *self.banks(), *temporary, *holder]

    def alive(self) -> list[str]:
        """Processes of it that live."""
        found = []
        for process in self.seen.values():
            with contextlib.suppress(psutil.Error):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline())[:200])
        return found

    def banks(self) -> list[str]:
        """Banks that are there."""
        place = self.place()
        return [] if place is None else [path.name for path in place.glob("gansynth-*")]

    def result(self) -> dict[str, Any]:
        """What came of it."""
        sessions = self.host.sessions(self.folder)
        last = {batch.step: batch for session in sessions for batch in session}
        resumed = [batch for session in sessions[1:] for batch in session]
        counted = resumed or [batch for session in sessions for batch in session]
        real = sum(batch.real for batch in counted)
        share = {"1:1": 0.5, "0:1": 0.0, "1:0": 1.0}[self.ratio]
        off = [batch for batch in counted if batch.real != share * batch.size]
        return {
            "host": self.host.name,
            "events": self.events,
            "codes": self.codes,
            "said": self.said,
            "sessions": len(sessions),
            "steps_asked": self.host.steps,
            "steps_done": self.host.trained(self.folder) if not self.codes[-1] else None,
            "steps_in_log": len(last),
            "resumed": bool(resumed),
            "real": real,
            "synthetic": sum(batch.size for batch in counted) - real,
            "batches_off": len(off),
            "unsure": sum(batch.unsure for batch in counted),
            "left": self.left(),
        }


# -- faults --------------------------------------------------------------------------------------


def kill(training: Training, role: str, times: int) -> None:
    """Kill a process so many times, and type the command again where it ends by that.

    Every second time at once, else when all its processes have gone.
    """
    for number in range(times):
        if not training.running():
            training.start()
        training.rest(0.2, 12)
        process = training.roles().get(role)
        if not training.running() or process is None:
            continue
        others = [p for p in training.seen.values() if p.pid != process.pid]
        process.kill()
        if role in ("producer", "watchdog"):
            training.note(f"{role} killed")
            continue
        code, waited = training.ended(), None
        if number % 2 == 0:
            began = time.monotonic()
            psutil.wait_procs(others, timeout=30)
            waited = round(time.monotonic() - began, 1)
        training.note(f"{role} killed", code, others_gone_after=waited)


def orphaned(training: Training, times: int) -> None:
    """Kill the watchdog of the bank, then the trainer: nobody is left to remove the bank."""
    for _ in range(times):
        kill(training, "watchdog", 1)
        kill(training, "trainer", 1)


def stop(training: Training, roles: Sequence[str], times: int) -> None:
    """Stop a process and let it go on after some seconds."""
    for number in range(times):
        if not training.running():
            return
        training.rest(0.2, 1.5)
        process = training.roles().get(roles[number % len(roles)])
        if process is None or not training.running():
            continue
        with contextlib.suppress(psutil.Error):
            process.suspend()
            time.sleep(training.rng.uniform(0.5, 3.0))
            process.resume()
        training.note(f"{roles[number % len(roles)]} stopped and continued")


def fill(training: Training, times: int) -> None:
    """Fill a disk to its last byte for some seconds."""
    for _ in range(times):
        if not training.running():
            training.start()
        training.rest()
        place = training.place()
        if not training.running() or place is None:
            continue
        ballast = place / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        training.rest(2, 5)
        ended = None if training.running() else training.ended()
        with contextlib.suppress(OSError):  # its disk may have gone with the command
            ballast.unlink()
        training.note("disk of the bank full", ended)


def compiled(folder: Path) -> Path:
    """A library whose wall clock is shifted by the seconds in a file that ``CLOCK`` names.

    The monotonic clock and the times of files are the kernel's.
    """
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(CLOCK)
    command = ["cc", "-shared", "-fPIC", "-O2", "-w", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


def jump(training: Training, clock: Path, times: int) -> None:
    """Let the wall clock jump."""
    for _ in range(times):
        training.rest(1, 4)
        hours = training.rng.choice((-48, -1, 1, 24, 24 * 400))
        clock.write_text(f"{3600 * hours:+d}\n")
        if training.running():
            training.note("clock jumps", hours=hours)
            training.rest(1, 2)


def beside(training: Training, times: int) -> None:
    """Type the same command while it trains."""
    for _ in range(times):
        training.rest(0.2, 2)
        if training.running():
            second = training.type()
            code = second.wait(120)
            training.note("the same command typed beside it", code)


def immutable(training: Training, times: int) -> None:
    """Let nothing be made in, renamed to or removed from the results."""
    for _ in range(times):
        if not training.running():
            training.start()
        training.rest()
        folders = [training.host.output(training.folder)]
        folders += [path for path in folders[0].rglob("*") if path.is_dir()]
        there = [str(path) for path in folders if path.is_dir()]
        if not there or not training.running():
            continue
        subprocess.run(["chattr", "+i", *there], check=True)
        try:
            code = training.ended(120)
        finally:
            subprocess.run(["chattr", "-i", *there], check=True)
        training.note("results immutable while it trains", code)


def read_only(training: Training) -> None:
    """Type the command where its results are read-only from the start."""
    output = training.folder
    output.mkdir(parents=True, exist_ok=True)
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    before, training.before = training.before, ("unshare", "-m", "sh", "-c", mount, str(output))
    training.command = training.type()
    training.note("results read-only from the start", training.ended())
    training.before, training.command = before, None


def flip(training: Training, times: int) -> None:
    """Kill the trainer, and flip a bit of the newest checkpoint before the command is typed."""
    for _ in range(times):
        if not training.running():
            training.start()
        while training.running() and training.host.checkpoint(training.folder) is None:
            time.sleep(0.1)
        kill(training, "trainer", 1)
        path = training.host.checkpoint(training.folder)
        if training.running() or path is None:
            continue
        data = bytearray(path.read_bytes())
        bit = training.rng.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        training.start()
        training.rest(6, 8)
        if training.running():
            said = [x for x in training.log.read_text().splitlines() if path.parent.name in x]
            training.note("bit of a checkpoint flipped", at=bit / 8 / len(data), said=said[-1:])
            continue
        training.note("bit of a checkpoint flipped", training.ended(), at=bit / 8 / len(data))
        path.unlink()  # the way out that the message names


# -- all of it -----------------------------------------------------------------------------------


@dataclass
class Place:
    """Where trainings, banks and clocks lie."""

    folder: Path
    hosts: dict[str, Host]
    events: float
    clock: Path
    """A library that shifts the clock of who loads it."""

    def times(self, number: int) -> int:
        """So many events, or fewer in a rehearsal."""
        return max(1, round(number * self.events))

    @contextlib.contextmanager
    def training(self, host: str, name: str, seed: int, **more: Any) -> Iterator[Training]:
        """A training with a bank on a small disk of its own."""
        here = self.folder / re.sub(r"\W+", "-", f"{host} {name}")
        here.mkdir()
        bank = here / "bank"
        bank.mkdir()
        environ = hooked(HOOK, here, OMP_NUM_THREADS="1", nnUNet_n_proc_DA="2", nnUNet_compile="f")
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={BANK_MB}m", "tmpfs", str(bank)], check=True
        )
        made = {"banked": ("--bank-dir", str(bank)), "environ": environ, "bank": bank, **more}
        try:
            yield Training(self.hosts[host], here / "out", random.Random(seed), **made)
        finally:
            subprocess.run(["umount", "-l", str(bank)], check=False)


def campaigns(place: Place) -> dict[str, Callable[[str, str], Training]]:
    """Each fault by its name."""

    def plain(trouble: Callable[[Training], None], **more: Any) -> Any:
        def run(host: str, name: str) -> Training:
            seed = sum(map(ord, name))
            with place.training(host, name, seed, **more) as training:
                training.start()
                trouble(training)
                training.finish()
                training.outcome = training.result()
                return training

        return run

    def refused(host: str, name: str) -> Training:
        with place.training(host, name, 6) as training:
            read_only(training)
            immutable(training, place.times(2))
            training.finish()
            training.outcome = training.result()
            return training

    def clock(host: str, name: str) -> Training:
        with place.training(host, name, 7) as training:
            file = training.folder.with_suffix(".clock")
            training.environ |= {"LD_PRELOAD": str(place.clock), "CLOCK": str(file)}
            training.start()
            jump(training, file, place.times(5))
            training.finish()
            training.outcome = training.result()
            return training

    times = place.times
    # Its own /dev/shm, which holds the bank and what nnU-Net's workers hand over.
    mount = f'mount -t tmpfs -o size=96m tmpfs {SHM} && exec "$@"'
    own = {"before": ("unshare", "-m", "sh", "-c", mount, "sh"), "banked": (), "shared": True}
    return {
        "no fault, 0:1": plain(lambda t: None, ratio="0:1"),
        "no fault, 1:0": plain(lambda t: None, ratio="1:0"),
        "trainer killed": plain(lambda t: kill(t, "trainer", times(6))),
        "command killed": plain(lambda t: kill(t, "command", times(4))),
        "producer killed": plain(lambda t: kill(t, "producer", times(5))),
        "watchdog and trainer killed": plain(lambda t: orphaned(t, times(2))),
        "stopped and continued": plain(
            lambda t: stop(t, ("producer", "trainer", "command"), times(6))
        ),
        "bank's disk full": plain(lambda t: fill(t, times(3))),
        "/dev/shm full": plain(lambda t: fill(t, times(2)), **own),
        "results read-only": refused,
        "clock jumps": clock,
        "two trainings in one folder": plain(lambda t: beside(t, times(2))),
        "bit of a checkpoint flipped": plain(lambda t: flip(t, times(3))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of HOST: FAULT")
    parser.add_argument("--events", type=float, default=1.0, help="share of the events")
    parser.add_argument("--home", type=Path, help="keep data and generators here")
    parser.add_argument("--name", default="process_faults")
    args = parser.parse_args()
    if os.geteuid():
        print("skipped: it mounts small disks, which takes root")
        return
    kept = RESULTS / f"{args.name}.json"
    found = json.loads(kept.read_text("utf-8"))["trainings"] if kept.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = args.home or folder / "data"
        if not (root / "run" / "manifest.json").exists():
            fit_generator(prepare_data(root, 32, spacing=4.0), root / "run")
            where = ("--data", "nnunet-raw:999", "--root", str(root), "--read", "size=32")
            small = ("--set", "steps=2", "--set", "width=8", "--set", "d_width=8")
            gansynth("fit", "cgan3d", *where, "-o", str(root / "crops"), *small, quiet=True)
        hosts = {"nnunet": Nnunet(root, root / "run"), "segmenter": Segmenter(root, root / "crops")}
        place = Place(folder, hosts, args.events, compiled(folder))
        for fault, run in campaigns(place).items():
            for host in hosts:
                key = f"{host}: {fault}"
                if not key.startswith(tuple(args.only)):
                    continue
                if host == "segmenter" and fault == "command killed":
                    continue  # it is the trainer
                print(key, flush=True)
                began = time.monotonic()
                training = run(host, fault)
                outcome = {**training.outcome, "seconds": round(time.monotonic() - began)}
                found[key] = outcome
                print(json.dumps({k: v for k, v in outcome.items() if k != "events"}), flush=True)
                write(args.name, {"trainings": found})
    rows: list[Sequence[object]] = [("training", "events", "codes", "steps", "real:synthetic")]
    for key, one in found.items():
        codes = dict(Counter(one["codes"]))
        steps = f"{one['steps_done']}/{one['steps_asked']}"
        rows.append((key, len(one["events"]), codes, steps, f"{one['real']}:{one['synthetic']}"))
    print_table(rows)


if __name__ == "__main__":
    main()
