"""What a training has done, from DeepMedic's own log file and the last words of its process."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gansynth.runtime import errors
from gansynth.runtime.errors import EnvironmentFault, GansynthError, TrainingFault, UsageFault
from gansynth.runtime.processes import ProcessResult, raise_if_failed

FOREGROUND = "foreground"
"""Name of the union of all labels but 0, which DeepMedic reports as class 0."""
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
        self._subepochs: dict[int, dict[int, SampledCase]] = {}
        self._sampling: dict[int, int] = {}  # job -> its subepoch
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
                    self._count(name, found.groups(""))
                    yield name, found.group(found.lastindex or 0)

    def _count(self, name: str, values: tuple[str, ...]) -> None:
        if name == "case":
            job, subepoch = int(values[0]), int(values[1])
            self._sampling[job] = subepoch
            cases = self._subepochs.setdefault(subepoch, {})
            cases[job] = SampledCase(values[2], values[3])  # again, if DeepMedic repeats a job
        elif name in ("segments", "spread"):
            job = int(values[0])
            case = self._subepochs[self._sampling[job]][job]
            if name == "spread":
                case.spread = True
            else:
                case.segments = sum(map(int, re.findall(r": (\d+)/\d+\]", values[1])))
        else:
            self.trained += name == "trained"
            self._seen[name] = values[0] if values else ""

    def counts(self, subepoch: int) -> dict[str, int]:
        """Return the cases and segments of a subepoch, counted from 0."""
        cases = list(self._subepochs.get(subepoch, {}).values())
        kinds = Counter(case.kind for case in cases)
        segments = Counter[bool]()
        for case in cases:
            segments[case.kind == "synthetic"] += case.segments
        return {
            "cases_real": kinds["real"] + kinds["fallback"],
            "cases_synthetic": kinds["synthetic"],
            "cases_fell_back": kinds["fallback"],
            "segments_real": segments[False],
            "segments_synthetic": segments[True],
            "samples": len({case.name for case in cases if case.kind == "synthetic"}),
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
        said = [_words(found) for found in _EXCEPTION.finditer(text)]
        said = said or _ERROR.findall(text) or ended.last or ["it did not say why"]
        why = textwrap.shorten(said[-1], 400)
        if "began" in self._seen:
            return TrainingFault(f"DeepMedic failed: {why}; {log} says more")
        if re.match("ImportError|ModuleNotFoundError", why):
            return EnvironmentFault(
                f"DeepMedic cannot be imported: {why}; gansynth doctor says what is missing"
            )
        return UsageFault(f"DeepMedic rejects its configuration: {why}; {log} says more")


def _words(exception: re.Match[str]) -> str:
    error, code = exception["error"], exception["code"]
    return error if ":" in error or not code else f"{error}: {code}"


def dice_of(text: str) -> dict[str, float]:
    """Return the mean Dice of each label from DeepMedic's list; "N/A" is left out.

    Predictions are limited to the region of interest, and so is this Dice: DICE2.
    """
    values = text.split()
    names = [FOREGROUND, *map(str, range(1, len(values)))]
    return {name: float(v) for name, v in zip(names, values, strict=True) if v != "N/A"}
