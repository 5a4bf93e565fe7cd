"""The user's DeepMedic as a child process of one training, followed by its own log."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.hosts.host import Job
from gansynth.hosts.record import LOG
from gansynth.runtime.child import WARNING
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.runtime.processes import run
from gansynth.runtime.progress import NullReporter
from gansynth.runtime.signals import Interrupted
from gansynth_deepmedic.config import AUGMENTATION
from gansynth_deepmedic.insertion import HostCase
from gansynth_deepmedic.layout import TRAIN, write_layout
from gansynth_deepmedic.program import command, environ_of
from gansynth_deepmedic.program_log import ProgramLog, dice_of
from gansynth_deepmedic.real_space import training_cases
from gansynth_deepmedic.training_order import ORDER, TrainingOrder

if TYPE_CHECKING:
    from gansynth_deepmedic.adapter import DeepMedicAdapter

CHECKPOINT = "gansynth_checkpoint.json"
"""File in the output folder: DeepMedic's newest checkpoint, and the subepochs before it."""
_PATIENCE = 45.0
"""Seconds that a forked process waits for a sample; after 60 DeepMedic asks for its case again."""


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


def train(host: DeepMedicAdapter, job: Job) -> None:
    """Run the program to its end.

    Raises:
        Interrupted: by a signal, which was passed on to the program.
        GansynthError: the training failed.
    """
    cases = training_cases(host.source, host.mix_config, job.folder, NullReporter())
    order = _order(host, job, cases)
    write_json_atomic(job.folder / ORDER, order.to_json())
    if job.stop():
        raise Interrupted(job.stop.number)
    watch = _Watch(host, job)
    words, environ = command(host.program, job.folder / ORDER), environ_of(host.program)
    ended = run(words, environ, job.folder / LOG, show=lambda line: watch.look())
    watch.look()
    if ended.stopped:
        raise Interrupted(ended.stopped)
    if not watch.log.complete:
        raise watch.log.fault(ended, job.folder / LOG)


def _order(host: DeepMedicAdapter, job: Job, cases: tuple[HostCase, ...]) -> TrainingOrder:
    config, own = host.source.config, dict(host.own)
    off = () if host.mix_config.usual_augmentation else AUGMENTATION
    values = {**host.options.changed(), "folderForOutput": str(job.folder)}
    values |= dict.fromkeys(key for key in off if config.values.get(key))
    write_layout(config, job.folder, host.share, cases, 0, values=values)
    if job.first:  # in place of the user's, with what it says of the epochs
        own.pop("resetopt", None)
        own["load"] = str(job.folder / checkpoint_in(job.folder)["file"])
    files = "-model", host.model, "-train", str(job.folder / TRAIN)
    arguments = [*files, "-dev", host.device]
    if "load" in own:
        arguments += ["-load", own["load"]]
    if "resetopt" in own:
        arguments.append("-resetopt")
    plan, processes = job.rounds.plan, host.config.processes
    patience = min(plan.patience, _PATIENCE) if processes > 0 else plan.patience
    return TrainingOrder(
        checkout=host.program.checkout,
        arguments=tuple(arguments),
        plan=replace(plan, patience=patience, workers=max(1, processes)),
        cases=cases,
        count=host.share.cases,
        first=job.first,
        total=job.steps,
        seed=job.seed,
        augment_synthetic=host.mix_config.augment_synthetic,
    )


class _Watch:
    """Passes on what DeepMedic's log says, which has every line that it prints."""

    def __init__(self, host: DeepMedicAdapter, job: Job) -> None:
        self.job, self.subepochs = job, host.config.subepochs
        self.log = ProgramLog(job.folder / "logs" / f"{host.config.session}.txt", job.first)
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


def gpus_of(device: str) -> tuple[int, ...]:
    """Return the CUDA devices of ``-dev``."""
    match = re.fullmatch(r"cuda(\d*)", device)
    return () if match is None else (int(match[1] or 0),)
