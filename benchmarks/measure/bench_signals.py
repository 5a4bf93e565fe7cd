"""Processes of real commands that are killed and told to stop at random instants.

``gansynth COMMAND``, found on PATH, is started as a shell starts it, in a session of its own. At a
random instant of a fixed seed SIGKILL, SIGTERM, SIGINT or SIGHUP is sent to the command itself, to
one of its processes at random, to the one with the most memory, as a system without memory does,
or to the whole process group, as a terminal does. Then the same command is typed again; after a
few signals it is left to finish, and compared with a command that was never signalled. Noted for
each signal: exit code, seconds until the end, the last line, what is left (processes, shared
memory, temporary files), and what the next command did.

    python benchmarks/measure/bench_signals.py [--only predict ...] [--rounds 2] [--home DIR]

/dev/shm and the temporary folder are the script's own. DeepMedic's program is the small one of
``tests/adapters/deepmedic``. Needs Linux and root (it mounts).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from bench_process_faults import Nnunet
from common import RESULTS, gansynth, print_table, write
from hosts import fit_generator, prepare_data

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
SHM = Path("/dev/shm")
MOUNT = f'mount -t tmpfs tmpfs {SHM} && exec "$@"'
MARK = "GANSYNTH_BENCH_SIGNALS"
"""Variable by whose value all processes of one command are found, also those that escaped."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TARGETS = ("command", "group", "a child", "largest child")
PATIENCE = 60.0
"""Seconds in which a command ends that was told to; after these it hangs."""
LINGER = 15.0
"""Seconds in which nothing of an ended command is left."""
TYPED = 4
"""Times that a command is typed at most until it is finished."""


@dataclass(frozen=True)
class Command:
    """A command on tiny data.

    Attributes:
        words: those behind ``gansynth``, by the folder of its results.
        result: of a finished folder, what must be that of a command without signals.
        environ: further variables.
        alone: it starts no processes of its own.
    """

    name: str
    words: Callable[[Path], Sequence[object]]
    result: Callable[[Path], Any]
    environ: dict[str, str] = field(default_factory=dict)
    alone: bool = False


@dataclass
class Shot:
    """A signal, and what came of it.

    Attributes:
        hit: what the process was that got it.
        after: seconds from the command's start to the signal.
        ended_after: seconds from the signal to the command's end; None: it hung.
        code: exit code, -N for signal N.
        gone_after: seconds from the command's end until nothing was left of it.
        following: exit code and last line of the next command.
        wrong: what should not have been.
    """

    command: str
    signal: str
    target: str
    hit: str = ""
    after: float = 0.0
    ended_after: float | None = None
    code: int | None = None
    last: str = ""
    gone_after: float | None = None
    left: list[str] = field(default_factory=list)
    following: dict[str, Any] | None = None
    wrong: list[str] = field(default_factory=list)


# -- one command that runs -----------------------------------------------------------------------


class Run:
    """A command that was typed, its processes and what it said."""

    def __init__(self, command: Command, folder: Path, shm: set[str]) -> None:
        self.mark, self.shm, self.folder = f"{time.monotonic_ns()}", shm, folder
        self.log = folder.with_name(f"{folder.name}-{self.mark}.said")
        environ = {**os.environ, "OMP_NUM_THREADS": "1", **command.environ, MARK: self.mark}
        words = ["gansynth", *map(str, command.words(folder))]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        self.began = time.monotonic()

    def family(self) -> list[psutil.Process]:
        """Its processes that live, itself left out."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get(MARK) == self.mark
                alive = process.status() != psutil.STATUS_ZOMBIE
                if ours and alive and process.pid != self.process.pid:
                    found.append(process)
        return found

    def rest(self, seconds: float) -> bool:
        """Wait so long; whether it runs then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, seconds))
        return self.process.poll() is None

    def send(self, shot: Shot, rng: random.Random) -> bool:
        """Send a signal to its target; whether there was one."""
        number = signal.Signals[shot.signal]
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if shot.target == "command":
                self.process.send_signal(number)
                shot.hit = "the command"
            elif shot.target == "group":
                os.killpg(self.process.pid, number)
                shot.hit = "its process group"
            else:
                family = sorted(self.family(), key=lambda process: process.pid)
                if not family:
                    return False
                largest = max(family, key=lambda process: process.memory_info().rss)
                hit = largest if shot.target == "largest child" else rng.choice(family)
                shot.hit = role(hit)
                hit.send_signal(number)
            return True
        return False

    def gone(self) -> float | None:
        """Wait until its processes have ended; after how many seconds, None if they have not."""
        began = time.monotonic()
        while self.family():
            if time.monotonic() - began > LINGER:
                return None
            time.sleep(0.1)
        return round(time.monotonic() - began, 1)

    def left(self) -> list[str]:
        """Its processes, banks and temporary files that are there."""
        found = [f"process: {role(process)}" for process in self.family()]
        found += [f"shared memory: {name}" for name in sorted(within(SHM) - self.shm)]
        found += [f"temporary file: {n}" for n in sorted(within(Path(tempfile.gettempdir())))]
        return found

    def end(self) -> None:
        """Kill what is left of it."""
        if self.process.poll() is None:
            self.process.kill()
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()

    def last(self) -> str:
        """The last line that it has said."""
        lines = [x.strip() for x in self.log.read_text(errors="replace").splitlines() if x.strip()]
        return hidden(lines[-1])[:300] if lines else ""


def within(folder: Path) -> set[str]:
    """Names in a folder, but for the cache of torch's compiler, and multiprocessing's sockets."""
    names = {path.name for path in folder.iterdir()}
    return {name for name in names if not name.startswith(("torchinductor_", "pymp-"))}


def hidden(line: str) -> str:
    """A line with files by their last name: where they lay on this machine is nobody's business."""
    return re.sub(r"(?:^|(?<=[\s=:]))/\S*/", "", line)


def role(process: psutil.Process) -> str:
    """What a process is, by its command line."""
    words = process.cmdline()
    line = " ".join(words)
    roles = {
        "gansynth.bank.producer": "producer",
        "watchdog.py": "watchdog",
        "gansynth.hosts.contract.training_process": "trainer",
        "deepMedicRun": "DeepMedic",
        "resource_tracker": "resource tracker",
        "spawn_main": "spawned worker",
        "forkserver": "fork server",
        "gansynth_benchmark.jobs": "job",
        "gansynth_deepmedic": "DeepMedic's launcher",
    }
    for part, name in roles.items():
        if part in line:
            parent = process.parent()
            forked = parent is not None and parent.cmdline() == words
            return f"worker of {name}" if forked else name
    return "worker" if "gansynth" in line else Path(words[0]).name if words else "?"


# -- signals -------------------------------------------------------------------------------------


def expected(shot: Shot) -> set[int]:
    """Exit codes that a command may have."""
    number = int(signal.Signals[shot.signal])
    if number == signal.SIGKILL and shot.target in ("command", "group"):
        return {-9}
    stopped = {0, -number, 128 + number}
    return stopped if shot.target in ("command", "group") else stopped | {4, 5}


def shoot(run: Run, shot: Shot, rng: random.Random, seconds: float) -> bool:
    """Let a command run for some time and send a signal; False if it has ended before."""
    if not run.rest(seconds):
        return False
    while not run.send(shot, rng):
        if not run.rest(0.02):
            return False
    sent = time.monotonic()
    shot.after = round(sent - run.began, 2)
    patience = PATIENCE if "child" not in shot.target else 5 * PATIENCE  # it may well go on
    if not run.rest(patience):
        shot.ended_after = round(time.monotonic() - sent, 2)
        shot.code = run.process.returncode
    shot.gone_after = run.gone()
    shot.last, shot.left = run.last(), run.left()
    if shot.ended_after is None:
        shot.wrong.append("hangs")
    elif shot.code not in expected(shot):
        shot.wrong.append(f"exit code {shot.code}")
    if "Traceback" in run.log.read_text(errors="replace"):
        shot.wrong.append("a traceback is printed")
    if shot.code not in (0, -9) and not shot.last:
        shot.wrong.append("says nothing")
    shot.wrong += shot.left
    run.end()
    return True


@dataclass
class Campaign:
    """All signals to one command."""

    command: Command
    home: Path
    rng: random.Random
    found: list[Shot] = field(default_factory=list)
    finished: int = 0

    def type(self, folder: Path) -> Run:
        for path in Path(tempfile.gettempdir()).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return Run(self.command, folder, within(SHM))

    def whole(self) -> tuple[float, Any]:
        """Seconds and result of a command without signals."""
        run = self.type(self.home / "whole")
        if run.rest(600) or run.process.returncode:
            raise SystemExit(f"{self.command.name}: {run.log.read_text()}")
        seconds = time.monotonic() - run.began
        print(f"{self.command.name}: {seconds:.0f} s, {run.gone()} s {run.left()}", flush=True)
        return seconds, self.command.result(self.home / "whole")

    def fire(self, shots: Sequence[Shot], note: Callable[[], None]) -> None:
        """Send the signals, a few to each folder, which then is finished and compared."""
        self.home.mkdir(parents=True)
        seconds, wanted = self.whole()
        left = list(shots)
        while left:
            folder, here = self.home / str(self.finished), list[Shot]()
            while left and len(here) < len(SIGNALS):
                run = self.type(folder)
                shot = left[0]
                if not shoot(run, shot, self.rng, self.rng.uniform(0.2, 0.9 * seconds)):
                    self.follow(here, run)
                    break
                self.follow(here, run)
                here.append(left.pop(0))
                self.found.append(shot)
                print(f"  {shot}", flush=True)
                if shot.code == 0:
                    break
            self.finish(folder, here, wanted)
            self.finished += 1
            note()

    def follow(self, here: list[Shot], run: Run) -> None:
        """Note what the command did that followed a signal."""
        if here and here[-1].following is None:
            here[-1].following = {"code": run.process.returncode, "last": run.last()}

    def finish(self, folder: Path, here: list[Shot], wanted: Any) -> None:
        """Type the command until it is finished, and compare."""
        if not here:
            return
        wrong = []
        for _ in range(TYPED):
            run = self.type(folder)
            code = -1000 if run.rest(600) else run.process.returncode
            run.gone()
            self.follow(here, run)
            wrong = [f"afterwards: {what}" for what in run.left()]
            run.end()
            if code == 0:
                break
        else:
            wrong.append(f"cannot be finished: {code}: {run.last()}")
        if not wrong and self.command.result(folder) != wanted:
            wrong.append("another result than without signals")
        wrong += [f"temporary file: {p.name}" for p in folder.rglob("*") if ".tmp" in p.name]
        here[-1].wrong += wrong
        print(f"  finished: {code} {wrong}", flush=True)


# -- commands ------------------------------------------------------------------------------------


def record_of(folder: Path) -> Any:
    """What a training's record says of its last session."""
    (path,) = folder.rglob("gansynth_session.json")
    document = json.loads(path.read_text())
    last = document["sessions"][-1]
    return document["complete"], last["epochs"][1], last["drawn"]["fell_back"]


def contents(folder: Path) -> dict[str, bytes]:
    """Arrays of the images that are predicted."""
    import numpy as np

    from gansynth.core.volumes import read_volume

    files = sorted(folder.rglob("*.nii.gz"))
    return {file.name: np.asarray(read_volume(file).array).tobytes() for file in files}


def scores(folder: Path) -> Any:
    document = json.loads((folder / "results.json").read_text())
    return [(run["arm"], run["status"], run["scores"]) for run in document["runs"]]


def choice(folder: Path) -> Any:
    from gansynth_benchmark.tuning import CHOICE

    document = json.loads((folder / CHOICE).read_text())
    return document["chosen"], [rung["scores"] for rung in document["rungs"]]


def figures(folder: Path) -> Any:
    """All figures of an evaluation."""
    (path,) = folder.rglob("evaluation.json")
    document = json.loads(path.read_text())
    return {key: document[key] for key in document if key not in ("seconds", "date", "created")}


class ShortNnunet(Nnunet):
    epochs, iterations = 2, 3


def prepared(home: Path) -> None:
    """Data and generators, once."""
    from tests.benchmark.test_end_to_end import plan_in
    from tests.deepmedic_sets import toy_deepmedic

    if (home / "ready").exists():
        return
    fit_generator(prepare_data(home / "nnunet", 32, spacing=4.0), home / "run")
    toy = toy_deepmedic(home / "toy")
    small = ("steps=2", "batch_size=1", "width=4", "d_width=4", "levels=2")
    settings = [f"--set={one}" for one in small]
    where = ("--data", f"deepmedic:{toy.train}", "--read", "size=16")
    gansynth("fit", "cgan3d", *where, "-o", str(home / "crops"), *settings, quiet=True)
    plan = home / "plan"
    plan.mkdir()
    arm = {"name": "copy-paste", "from": "copy-paste", "offline": "yes", "bank_size": "8"}
    plan_in(plan, "pictures", arm)
    (home / "images").mkdir()
    for file in (home / "nnunet").glob("nnUNet_raw/*/imagesTr/*_000_*.nii.gz"):
        shutil.copy(file, home / "images")
    (home / "ready").touch()


def commands(home: Path, checkout: Path) -> Iterator[Command]:
    """The commands; ``predict`` uses what nnU-Net has trained in ``home``."""
    mixed = ("--ratio", "1:1", "--bank-size", "16", "--device", "cpu")
    nnunet = ShortNnunet(home / "nnunet", home / "run")
    own = nnunet.words(Path("OUT"))
    at = own.index("--")

    def augment_nnunet(folder: Path) -> list[object]:
        words = [str(folder) if word == "OUT" else word for word in own]
        return ["augment", *words[:at], "--generator", home / "run", *mixed, *words[at:]]

    processes = {"nnUNet_n_proc_DA": "2", "nnUNet_compile": "f"}
    yield Command("augment nnunet", augment_nnunet, record_of, processes)

    def augment_deepmedic(folder: Path) -> list[object]:
        toy = home / "toy"
        program = {"deepmedic": checkout, "deepmedic_python": checkout / "python"}
        short = {"epochs": 3, "subepochs": 3, "cases": 4, "segments": 8, "batch": 4}
        pairs = {**program, "model": toy / "modelConfig.cfg", **short}.items()
        return [
            *("augment", "--target", "deepmedic", "--data", f"deepmedic:{toy / 'trainConfig.cfg'}"),
            *("--read", "size=16", "-o", folder, "--generator", home / "crops", *mixed),
            *(f"--set={key}={value}" for key, value in pairs),
        ]

    yield Command("augment deepmedic", augment_deepmedic, record_of, {"FAKE": "slow"})
    plan = home / "plan" / "plan.yaml"
    two = ("--executor", "local:2")
    yield Command("benchmark", lambda folder: ["benchmark", plan, "-o", folder, *two], scores)
    yield Command("tune", lambda folder: ["tune", plan, "-o", folder, *two], choice)
    short = ("-n", 8, "--only", "realism", "--metric", "appearance", "--metric", "spectrum")
    evaluate = ("evaluate", home / "crops", *short, "--device", "cpu")
    yield Command("evaluate", lambda folder: [*evaluate, "-o", folder], figures, alone=True)
    trained = nnunet.output(home / "trained")
    predict = ("predict", trained, home / "images", "--device", "cpu")
    yield Command("predict", lambda folder: [*predict, "-o", folder], contents, alone=True)


def shots_of(command: Command, number: int, rounds: int) -> list[Shot]:
    """Every signal so often; targets in turn, so that every signal gets every target."""
    targets = TARGETS[:2] if command.alone else TARGETS
    shots = []
    for round in range(rounds):
        first = number + round * len(targets) // 2
        for index, one in enumerate(SIGNALS, first):
            shots.append(Shot(command.name, one.name, targets[index % len(targets)]))
    return shots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only",
        nargs="*",
        default=[""],
        help="beginnings of commands; predict uses what nnunet trained in --home",
    )
    parser.add_argument("--rounds", type=int, default=2, help="times each signal is sent")
    parser.add_argument("--home", type=Path, help="keep data and generators here")
    parser.add_argument("--name", default="signals")
    args = parser.parse_args()
    if os.geteuid():
        print("skipped: it mounts a /dev/shm of its own, which takes root")
        return
    if os.environ.get(MARK) != "mounted":
        line = ["unshare", "-m", "sh", "-c", MOUNT, "sh", sys.executable, *sys.argv]
        os.execvpe(line[0], line, {**os.environ, MARK: "mounted"})
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    kept = RESULTS / f"{args.name}.json"
    found = json.loads(kept.read_text("utf-8"))["commands"] if kept.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = (args.home or folder / "home").resolve()
        home.mkdir(exist_ok=True)
        prepared(home)
        from tests.adapters.deepmedic.fake_deepmedic import write_fake

        checkout = write_fake(folder / "fake")
        (folder / "tmp").mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
        for number, command in enumerate(commands(home, checkout)):
            if not command.name.startswith(tuple(args.only)):
                continue
            campaign = Campaign(command, folder / command.name, random.Random(number))

            def note(campaign: Campaign = campaign) -> None:
                shots = [asdict(shot) for shot in campaign.found]
                found[campaign.command.name] = {"finished": campaign.finished, "signals": shots}
                write(args.name, {"commands": found})

            campaign.fire(shots_of(command, number, args.rounds), note)
            if command.name == "augment nnunet" and not (home / "trained").exists():
                shutil.copytree(campaign.home / "whole", home / "trained")
    rows: list[Sequence[object]] = [("command", "signals", "wrong")]
    for name, one in found.items():
        rows.append((name, len(one["signals"]), sum(bool(s["wrong"]) for s in one["signals"])))
    print_table(rows)


if __name__ == "__main__":
    main()
