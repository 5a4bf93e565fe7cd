"""Fit a list of steps, each into its own run folder: parts of a composite run, sets of a recipe.

A file beside these folders holds the state of each step. It is written after every step, so that
the same command keeps finished steps and resumes the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Required, TypedDict, TypeVar

from gansynth.core.run_folder import MANIFEST
from gansynth.core.source import SourceRequest
from gansynth.runtime.devices import pick_device
from gansynth.runtime.distributed import ProcessGroup, process_group
from gansynth.runtime.errors import GansynthError
from gansynth.runtime.files import remove_temporaries, sha256_file
from gansynth.runtime.measuring import measuring
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.sampling.manifest import check_lockable, locked


class FitArguments(TypedDict, total=False):
    """Arguments of ``fit`` that are the same for all steps."""

    device: str
    memory: int | None
    init_from: Path | None
    resume: bool
    dry_run: bool
    tensorboard: bool
    reporter: Required[Reporter]


@dataclass(frozen=True)
class PipelineStep:
    """One run before it is fitted; ``folder`` is relative, ``.`` is the pipeline's own."""

    name: str
    folder: str
    generator: str
    settings: Mapping[str, str]
    request: SourceRequest


S = TypeVar("S", bound=PipelineStep)


class Pipeline(ABC, Generic[S]):
    """Steps below one folder, and a file there with the state of each.

    Attributes:
        title: name of a step in messages: a format of step, number, and count.
        start_message: for a step that is fitted now: a format of the step.
        skip_message: for a step that is not fitted again.
        tries_all: whether later steps are tried after a failure.
    """

    title: ClassVar[str]
    start_message: ClassVar[str]
    skip_message: ClassVar[str]
    tries_all: ClassVar[bool] = False

    def __init__(self, out: Path, steps: Sequence[S], how: FitArguments) -> None:
        self.out, self.steps, self.how = out, steps, how
        self.device, self.dry_run = how.get("device", "auto"), how.get("dry_run", False)

    @abstractmethod
    def open(self) -> list[str]:
        """Start the file, or continue an existing one; return the names of fitted steps.

        A dry run writes nothing. Raises UsageFault: the folder holds something else, or must not
        be resumed.
        """

    @abstractmethod
    def fit(self, step: S) -> dict[str, Any]:
        """Fit a step, or measure it in a dry run; return its report."""

    @abstractmethod
    def note(self, step: S, state: str, error: str | None = None) -> None:
        """Record that a step is running, complete, failed, or stopped."""

    @abstractmethod
    def report(self, reports: Mapping[str, Any]) -> dict[str, Any]:
        """Return the whole report, from reports by step; kept steps have none."""

    def failure(self, failures: Mapping[str, Exception]) -> Exception:
        """Return the error to raise, from the errors of the steps."""
        return next(iter(failures.values()))

    def ended_with(self, step: S, sha256: str | None) -> bool:
        """Return whether a step's run has the manifest of that hash."""
        path = self.out / step.folder / MANIFEST
        return path.is_file() and sha256_file(path) == sha256

    def run(self) -> dict[str, Any]:
        """Fit every step in order; finished ones are kept, the others are resumed.

        Returns:
            A JSON-able report; empty in all but the first of several processes.
        """
        with process_group(pick_device(self.device)) as processes:
            if self.dry_run:
                check_lockable(self.out)
            # A run in the pipeline's own folder locks it itself.
            own_folders = all(step.folder != "." for step in self.steps)
            hold = processes.is_main and own_folders and not self.dry_run
            with locked(self.out) if hold else nullcontext():
                if hold:
                    remove_temporaries(self.out)
                whole = processes.tell(self.open() if processes.is_main else [])
                reports = self._fit_all([] if self.dry_run else whole, processes)
                return self.report(reports) if processes.is_main else {}

    def _fit_all(
        self, whole: Collection[str], processes: ProcessGroup
    ) -> dict[str, dict[str, Any]]:
        silent = self.dry_run or not processes.is_main
        reporter = NullReporter() if silent else self.how["reporter"]
        note = (lambda *_: None) if silent else self.note
        reports: dict[str, dict[str, Any]] = {}
        failures: dict[str, Exception] = {}
        for number, step in enumerate(self.steps, 1):
            title = self.title.format(step, number, len(self.steps))
            if step.name in whole:
                reporter.say(f"{title}: {self.skip_message}")
                continue
            reporter.say(f"{title}: {self.start_message.format(step)}")
            note(step, "running")
            try:
                with measuring().within(1 / (len(self.steps) - number + 1)):
                    reports[step.name] = self.fit(step)
                note(step, "complete")
                processes.wait()
            except Exception as error:  # of any kind: the other steps must still be tried
                failures[step.name] = error
                note(step, "failed", _one_line(error))
                # Of several processes, the others may wait for this one within the step.
                if not self.tries_all or self.dry_run or processes.size > 1:
                    break
                if len(self.steps) > 1:
                    reporter.warn(f"{title}: {_one_line(error)}")
            except BaseException:
                note(step, "stopped")
                raise
        if failures:
            raise self.failure(failures)
        return reports


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, GansynthError) else f"{type(error).__name__}: {text}"
