"""The user's DeepMedic as a child process of one training, followed by its own log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from gansynth.hosts.host import Job
from gansynth.hosts.record import LOG
from gansynth.runtime.child import WARNING
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.runtime.processes import run
from gansynth.runtime.signals import Interrupted
from gansynth_deepmedic.configs import TrainConfig
from gansynth_deepmedic.program import DeepMedicProgram, command, environ_of
from gansynth_deepmedic.program_log import ProgramLog, dice_of
from gansynth_deepmedic.subepochs import TrainingOrder

ORDER = "gansynth_order.json"
CHECKPOINT = "gansynth_checkpoint.json"
"""File in the output folder: DeepMedic's newest checkpoint, and the subepochs before it."""


def checkpoint_in(output: Path) -> dict[str, Any]:
    """Return the newest checkpoint (``file``), its ``subepochs``, and the ``dice`` after it."""
    path = output / CHECKPOINT
    return read_json(path) if path.is_file() else {"subepochs": 0, "file": None, "dice": {}}


def check_checkpoint(output: Path) -> None:
    """Refuse to go on without the files of the checkpoint."""
    known = checkpoint_in(output)
    index = output / f"{known['file']}.index"
    if known["file"] is not None and not index.is_file():
        raise UsageFault(
            f"{index}: missing, expected the checkpoint of subepoch {known['subepochs']} to go on "
            "with; restore it, or take another folder: -o"
        )


def newest_checkpoint(output: Path) -> str | None:
    """Return DeepMedic's last checkpoint relative to the output; None before the first."""
    indices = [
        path
        for path in (output / "saved_models").rglob("*.model.ckpt.index")
        if ".initial." not in path.name and ".final." not in path.name
    ]
    if not indices:
        return None
    newest = max(indices, key=lambda path: (path.stat().st_mtime_ns, path.name))
    return str(newest.with_suffix("").relative_to(output))


def run_program(
    job: Job, order: TrainingOrder, program: DeepMedicProgram, config: TrainConfig
) -> None:
    """Train by an order, to its end.

    Raises:
        Interrupted: by a signal, which was passed on to the program.
        GansynthError: the training failed.
    """
    write_json_atomic(job.folder / ORDER, order.to_json())
    if job.stop():
        raise Interrupted(job.stop.number)
    watch = _Watch(job, config)
    words, environ = command(program, job.folder / ORDER), environ_of(program)
    ended = run(words, environ, job.folder / LOG, show=lambda line: watch.look())
    watch.look()
    if ended.stopped:
        raise Interrupted(ended.stopped)
    if not watch.log.complete:
        raise watch.log.fault(ended, job.folder / LOG)


class _Watch:
    """Passes on what DeepMedic's log says, which has every line that it prints."""

    def __init__(self, job: Job, config: TrainConfig) -> None:
        self.job, self.subepochs = job, config.subepochs
        self.log = ProgramLog(job.folder / "logs" / f"{config.session}.txt", job.first)
        self._known = checkpoint_in(job.folder)
        self._last = 0, 0.0  # batches of the subepoch, and when they were done
        self._failed = False

    def look(self) -> None:
        """Take what is new in the log."""
        try:
            for name, value in self.log.new():
                self._take(name, value)
        except Exception as error:  # training continues without complete counts
            if not self._failed:
                self._failed = True
                self.job.say(
                    f"{WARNING}the training continues, but its progress is not completely counted: "
                    f"{type(error).__name__}: {error}"
                )

    def _take(self, name: str, value: str) -> None:
        if name == "step":
            self._steps_done(int(value))
        elif name == "trained":
            self.job.round(self.log.trained, self.log.counts(self.log.trained - 1))
        elif name == "epoch":
            done = (int(value) + 1) * self.subepochs
            self._know(subepochs=done, file=newest_checkpoint(self.job.folder))
        elif name == "dice":
            self._know(dice=dice_of(value))

    def _know(self, **news: Any) -> None:
        self._known |= news
        write_json_atomic(self.job.folder / CHECKPOINT, self._known)

    def _steps_done(self, count: int) -> None:
        """Note the steps since DeepMedic's last line about them, as equally long."""
        now = time.monotonic()
        before, began = self._last
        self._last = count, now
        each = (now - began) / max(1, count - before)
        for number in range(count - before):  # none at the beginning of a subepoch
            self.job.took(began + number * each, began + (number + 1) * each)
