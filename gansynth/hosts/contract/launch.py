"""Start a training in a process of its own, and show what it sends."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gansynth.core.lineage import CaseRecord
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.hosts.contract.record import LOG, TrainingFolder
from gansynth.runtime import processes
from gansynth.runtime.child import NAME, SHOWN_PREFIX, SHOWS, WARNING
from gansynth.runtime.progress import ProgressTask, Reporter
from gansynth.runtime.serialise import Document


@dataclass(frozen=True)
class TrainingHandover(Document):
    """A training that was checked, on its way to its process."""

    request: AugmentRequest
    source: Mapping[str, Any] = field(default_factory=dict)  # what was checked, a `SourceRequest`
    held_out: tuple[CaseRecord, ...] = ()  # which need not be read again
    folder: TrainingFolder | None = None  # which was checked and is locked


def run_training_process(
    module: str,
    arguments: Sequence[str],
    output: Path,
    label: str,
    *,
    variables: Mapping[str, str],
    reporter: Reporter,
) -> None:
    """Run ``python -m MODULE`` until it ends; its output goes to a log file.

    Args:
        reporter: shows what the process sends with ``gansynth.runtime.child.show``.

    Raises:
        Interrupted: by a signal, once the process has ended.
        GansynthError: its own typed fault, or TrainingFault for any other failure.
    """
    words, log = [sys.executable, "-m", module, *arguments], output / LOG
    reporter.say(f"{label}; its own words: {LOG} in its folder")
    with closing(TrainingDisplay(reporter)) as display:
        ended = processes.run(words, dict(variables) | {SHOWS: "1"}, log, show=display.line)
    ended.raise_if_failed(f"{log}: {label}")


class TrainingDisplay:
    """Shows samples that are waited for, epochs, lines and warnings of a training.

    It shows nothing of the host's own words.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._open = reporter, ExitStack()
        self._task: ProgressTask | None = None
        self._work = "", 0  # unit and number of what the task counts
        self._done = 0.0
        self.close = self._open.close

    def line(self, text: str) -> None:
        """Take a line of the training process: see ``gansynth.runtime.child.show``."""
        _, sent, message = text.partition(SHOWN_PREFIX)
        if sent:
            self.show(**json.loads(message))
        elif text.startswith(NAME):
            self.show(say=text.strip().removeprefix(NAME))

    def show(self, **message: Any) -> None:
        """Show a line (``say``), or units ``done``, also in part, of ``total``, and values."""
        text = message.get("say")
        if text is None:
            self._advance(**message)
        elif text.startswith(WARNING):
            self._reporter.warn(text.removeprefix(WARNING))
        else:
            self._reporter.say(text)

    def _advance(self, unit: str, done: float, total: int, **values: object) -> None:
        if self._task is None or self._work != (unit, total):
            self.close()
            self._task = self._open.enter_context(self._reporter.task(total, unit, done))
            self._work, self._done = (unit, total), done
        self._task.advance(done - self._done, **values)
        self._done = done
        if done >= total:
            self.close()
