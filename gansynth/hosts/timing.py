"""How long a target framework trains here: its training is begun, in a process of its own.

``python -m gansynth.hosts.timing FILE`` begins the training of the file, measures how fast it goes
on, and writes that into the file.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gansynth.core.ratio import Ratio
from gansynth.core.requests.hosts import AugmentRequest, BankSection
from gansynth.core.requests.sections import SampleSection
from gansynth.core.schedule import Mix
from gansynth.core.source import CaseSource
from gansynth.hosts.host import framework
from gansynth.hosts.launch import TrainingHandover
from gansynth.hosts.session import Session
from gansynth.hosts.training_process import session_of
from gansynth.hosts.trials import trials_of
from gansynth.runtime import processes
from gansynth.runtime.child import entry
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.runtime.progress import NullReporter, ProgressTask

OF_SAMPLES = (*BankSection.words(), *SampleSection.words(), "augment_synthetic", "device")
"""Fields about samples."""
MANY = 1_000_000  # steps, to compare the lengths of epochs
MEASURED, FEWEST = 3.0, 3  # seconds, and reports of progress, that are enough
LONGEST = 90.0  # seconds after which the training is ended all the same


def as_long_alone(
    request: AugmentRequest, source: CaseSource, settings: Mapping[str, str]
) -> AugmentRequest:
    """Return the training on real cases alone that takes as many steps as one with samples.

    Epochs of a detector are longer with samples; where all are equally long, only the samples are
    left out. The generator stays: the data may be its own.

    Args:
        source: the real cases.
        settings: of the target; in them only the length is changed.
    """
    host = framework(request.target)
    option = host.length_options[0]
    usual = host.Options.model_fields.get(option)
    length = settings.get(option, usual and usual.default)
    own = dict(settings)
    if length is not None:
        mixes = [Mix(request.mix.ratio), Mix(Ratio(1, 0))]
        cases = len(source.train_ids)
        lengths = trials_of(request.target).settings_for_steps(source, MANY, mixes, settings, cases)
        mixed, real = [int(found.get(option, 1)) for found in lengths]
        if mixed != real:
            own[option] = str(round(int(length) * real / mixed))
    left_out = {*OF_SAMPLES, "schedule", "compare", "out"} - {"generator"}
    return request.replace(without=left_out, ratio="1:0", set=own)


def pace_of(alone: Session) -> Mapping[str, Any]:
    """Return the hours of a training on real cases alone, by the pace of its first seconds.

    Nothing is written but to a temporary folder. Empty where the training doesn't begin within
    ``LONGEST`` seconds.
    """
    request, output_key = alone.request, alone.host.Options.output_key
    if not output_key:
        return {}
    # A process of the training may still write into the folder when it is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        own = dict(request.set) | {output_key: str(Path(scratch) / "training")}
        begun = request.replace(set=own)
        file, log = Path(scratch) / "timing.json", Path(scratch) / "timing.log"
        write_json_atomic(file, TrainingHandover(begun, alone.source.request.to_json()).to_json())
        words = [sys.executable, "-m", "gansynth.hosts.timing", str(file)]
        ended = processes.run(words, os.environ, log, show=lambda line: None)
        processes.raise_if_stopped(ended)
        found = read_json(file)
    if "seconds" not in found:
        return {}
    seconds = found["seconds"] / found["units"] * alone.total
    return {"training_hours": round(seconds / 3600, 3)}


def measure(file: Path) -> None:
    """Begin the training, and end this process once enough of it is done."""
    training = TrainingHandover.from_json(read_json(file))
    clock = _Clock(file)
    session = session_of(training, clock)
    late = threading.Timer(LONGEST, clock.end)
    late.daemon = True
    late.start()
    session.start()
    clock.end()


class _Clock(NullReporter):
    """Notes how far a training has come, and when; ends its process once that is enough."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._noted: list[tuple[float, float]] = []  # seconds and units done, all together

    @contextmanager
    def task(self, total: int, title: str, done: float = 0) -> Iterator[ProgressTask]:
        yield self

    def advance(self, n: float = 1, **values: object) -> None:
        """Note a report; the time before the first one is that of loading."""
        if not n:
            return
        self._noted.append((time.monotonic(), n + (self._noted[-1][1] if self._noted else 0.0)))
        if len(self._noted) >= FEWEST and self._noted[-1][0] - self._noted[0][0] >= MEASURED:
            self.end()

    def end(self) -> None:
        """Write what was measured, and end this process; those it has started end with it."""
        if len(self._noted) > 1:
            (began, before), (now, done) = self._noted[0], self._noted[-1]
            write_json_atomic(self._file, {"seconds": now - began, "units": done - before})
        os._exit(0)


if __name__ == "__main__":
    sys.exit(entry(lambda: measure(Path(sys.argv[1]))))
