"""The user's DeepMedic as a child process of one training, followed by its own log."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.hosts.host import Job
from gansynth.hosts.record import LOG
from gansynth.runtime import errors
from gansynth.runtime.child import WARNING
from gansynth.runtime.errors import EnvironmentFault, GansynthError, TrainingFault, UsageFault
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.runtime.processes import ProcessResult, raise_if_failed, raise_if_stopped, run
from gansynth_deepmedic.configs import TrainConfig
from gansynth_deepmedic.program import DeepMedicProgram, command, environ_of
from gansynth_deepmedic.subepochs import TrainingOrder

ORDER = "gansynth_order.json"
CHECKPOINT = "gansynth_checkpoint.json"
"""File in the output folder: DeepMedic's newest checkpoint, and the subepochs before it."""
_JOB = r"\[TRA\|JOB:(\d+)\|PID:\d+\]"
_LINES = {
    "case": re.compile(rf"{_JOB} gansynth: subepoch (\d+): (real|synthetic|fallback) (.+)"),
    "spread": re.compile(rf"{_JOB} gansynth: no segment fits"),
    "segments": re.compile(rf"{_JOB} Done. Samples per category: (.*)"),
    "began": re.compile(r"=+ Training the CNN model =+"),
    "step": re.compile(r"\[TRAINING\] Processed (\d+)/\d+ batches"),
    "trained": re.compile(r"TIMING: Training on batches of this subepoch"),
    "epoch": re.compile(r"TIMING: Whole Epoch #(\d+) lasted"),
    "dice": re.compile(r"average DICE Coefficients .* DICE2=\[ (.*?) ?\]"),
    "final": re.compile(r"Saving the final model at:(.+)"),
    "ended": re.compile(r"The whole do_training\(\) function has finished"),
}
_FAULT = re.compile(r"^gansynth\.runtime\.errors\.(\w+): (.+)", re.MULTILINE)
_EXCEPTION = re.compile(
    r"^(?:    (?P<code>\S.*)\n(?:[ ^~]+\n)?)?(?P<error>[\w.]*(?:Error|Exception)\b.*)", re.MULTILINE
)
_ERROR = re.compile(r"\bERROR\b[:\s]*(\S.*)")


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
        KeyboardInterrupt, SystemExit: a signal, which was passed on to the program.
        GansynthError: the training failed.
    """
    write_json_atomic(job.folder / ORDER, order.to_json())
    if job.stop():
        raise SystemExit(128 + job.stop())
    watch = _Watch(job, config)
    words, file = command(program, job.folder / ORDER), job.folder / LOG
    ended = run(words, environ_of(), file, show=lambda line: watch.look())
    watch.look()
    raise_if_stopped(ended)
    if not watch.log.complete:
        raise watch.log.fault(ended, file)


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
        if name == "step":  # steps since DeepMedic's last line about them count as equally long
            now, (before, began) = time.monotonic(), self._last
            each = (now - began) / max(1, int(value) - before)
            for number in range(int(value) - before):  # none at the beginning of a subepoch
                self.job.took(began + number * each, began + (number + 1) * each)
            self._last = int(value), now
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


def dice_of(text: str) -> dict[str, float]:
    """Return the mean Dice of each label from DeepMedic's list; "N/A" is left out.

    Predictions are limited to the region of interest, and so is this Dice: DICE2. Class 0 stands
    for the union of all others.
    """
    values = dict(enumerate(text.split()))
    return {str(n or "foreground"): float(v) for n, v in values.items() if v != "N/A"}


# -- its log ---------------------------------------------------------------------------------------


@dataclass
class SampledCase:
    """A case of a subepoch, with its segments."""

    kind: str  # real, synthetic, or fallback: a real case for a missing sample
    name: str  # of the sample or case
    segments: int = 0
    spread: bool = False  # a synthetic case with segments anywhere in it


class ProgramLog:
    """Follows the log of one session of a training.

    Args:
        file: DeepMedic's log, to which further sessions are appended.
        first: subepochs of earlier sessions.
    """

    def __init__(self, file: Path, first: int) -> None:
        self.file, self.trained = file, first
        self._read = file.stat().st_size if file.exists() else 0
        self._subepochs: dict[int, dict[str, SampledCase]] = {}
        self._sampling: dict[str, int] = {}  # job -> its subepoch
        self._seen: dict[str, str] = {}

    def new(self) -> Iterator[tuple[str, str]]:
        """Yield the events in new whole lines: name (``_LINES``) and value."""
        if not self.file.exists():
            return
        with self.file.open("rb") as stream:
            stream.seek(self._read)
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            for name, pattern in _LINES.items():
                if found := pattern.search(line):
                    self._count(name, *found.groups(""))
                    yield name, found.group(found.lastindex or 0)

    def _count(self, name: str, first: str = "", *more: str) -> None:
        if name == "case":  # again, if DeepMedic repeats a job
            subepoch = self._sampling[first] = int(more[0])
            self._subepochs.setdefault(subepoch, {})[first] = SampledCase(more[1], more[2])
        elif name in ("segments", "spread"):
            case = self._subepochs[self._sampling[first]][first]
            case.spread |= name == "spread"
            if name == "segments":
                case.segments = sum(map(int, re.findall(r": (\d+)/\d+\]", more[0])))
        else:
            self.trained += name == "trained"
            self._seen[name] = first

    def counts(self, subepoch: int) -> dict[str, int]:
        """Return the cases and segments of a subepoch, counted from 0."""
        cases = self._subepochs.get(subepoch, {}).values()
        synthetic = [case for case in cases if case.kind == "synthetic"]
        real = [case for case in cases if case.kind != "synthetic"]
        return {
            "cases_real": len(real),
            "cases_synthetic": len(synthetic),
            "cases_fell_back": sum(case.kind == "fallback" for case in real),
            "segments_real": sum(case.segments for case in real),
            "segments_synthetic": sum(case.segments for case in synthetic),
            "samples": len({case.name for case in synthetic}),
            "spread": sum(case.spread for case in cases),
        }

    @property
    def complete(self) -> bool:
        """Whether the training has ended, and its final checkpoint is there."""
        final = Path(f"{self._seen.get('final', '')}.model.ckpt.index")
        return "ended" in self._seen and final.is_file()

    def fault(self, ended: ProcessResult, log: Path) -> GansynthError:
        """Return the cause of a training that is not complete; DeepMedic's exit code is always 0.

        Raises:
            TrainingFault: a signal ended the process.
        """
        if ended.code < 0:
            raise_if_failed(ended, f"{log}: the training")
        for kind, message in _FAULT.findall(ended.errors)[-1:]:
            fault: GansynthError = getattr(errors, kind)(message)
            return fault
        before, _, after = ended.errors.rpartition("\nFinished.")  # then only its forks complain
        text = before or after
        said = [
            error if ":" in error or not code else f"{error}: {code}"
            for code, error in _EXCEPTION.findall(text)
        ]
        said = said or _ERROR.findall(text) or ended.last or ["it did not say why"]
        why = textwrap.shorten(said[-1], 400)
        if "began" in self._seen:
            return TrainingFault(f"DeepMedic failed: {why}; {log} says more")
        if re.match("ImportError|ModuleNotFoundError", why):
            return EnvironmentFault(
                f"DeepMedic cannot be imported: {why}; gansynth doctor says what is missing"
            )
        return UsageFault(f"DeepMedic rejects its configuration: {why}; {log} says more")
