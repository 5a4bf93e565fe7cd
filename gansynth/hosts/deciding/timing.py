"""How long a target framework trains here: its training is begun, in a process of its own.

``python -m gansynth.hosts.deciding.timing FILE`` makes the short training of the file, and notes in
the file when it begins, goes on, and ends.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gansynth.core.ratio import Ratio
from gansynth.core.requests.hosts import AugmentRequest, BankSection
from gansynth.core.requests.sections import SampleSection
from gansynth.core.schedule import Mix
from gansynth.core.source import CaseSource, FoldSplit
from gansynth.hosts.contract.host import Framework, framework
from gansynth.hosts.contract.launch import TrainingHandover
from gansynth.hosts.contract.session import Session
from gansynth.hosts.contract.training_process import session_of
from gansynth.hosts.deciding.trials import trials_of
from gansynth.runtime import processes
from gansynth.runtime.child import entry
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.runtime.measuring import measuring
from gansynth.runtime.options import overlay
from gansynth.runtime.progress import NullReporter, ProgressTask

OF_SAMPLES = (*BankSection.words(), *SampleSection.words(), "augment_synthetic", "device")
"""Fields about samples."""
MANY = 1_000_000  # steps, to compare the lengths of epochs
STEPS, EPOCHS = 8, 2  # of a training whose pace is measured
JUDGED = 3  # held-out cases of it
SHARE = 0.9  # of the time that is left to measure
PAUSE = 0.3  # seconds between two notes of a training's time


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
    """Return the hours of a training on real cases alone, by a short one from start to end.

    It is judged on a few of the held-out cases. Nothing is written but to a temporary folder. Empty
    where it doesn't begin soon enough.
    """
    request, host = alone.request, alone.host
    if not host.Options.output_key:
        return {}
    # A process of the training may still write into the folder when it is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        own = short(host, request.set, alone.total)
        own[host.Options.output_key] = str(Path(scratch) / "training")
        begun = request.replace(set=own)
        file = Path(scratch) / "timing.json"
        source, judged = alone.source, alone.source.held_out_ids[:JUDGED]
        cases, times = source.request, 1.0
        if judged:
            split = FoldSplit(train=sorted(source.train_ids), val=sorted(judged))
            cases = replace(source.divided([split], Path(scratch) / "data"), fold="0")
            times = len(source.held_out_ids) / len(judged)
        write_json_atomic(file, TrainingHandover(begun, cases.to_json()).to_json())
        words = [sys.executable, "-m", "gansynth.hosts.deciding.timing", str(file)]
        return pace(noted_by(words, os.environ, file), alone.total, times)


def noted_by(words: Sequence[str], environ: Mapping[str, str], file: Path) -> Mapping[str, Any]:
    """Return what a process notes in a file, with ``began``, when it was begun, monotonic.

    It is ended once the time for measuring is over; what it has noted until then counts.
    """
    run = partial(processes.run, words, environ, file.with_suffix(".log"), show=lambda line: None)
    began = time.monotonic()
    ended = measuring().part("a whole training", run, SHARE)
    if ended is not None:
        ended.raise_if_failed("a short training")
    return dict(read_json(file), began=began)


def short(host: Framework, settings: Mapping[str, str], total: int) -> dict[str, str]:
    """Return settings for a training of a few of ``total`` units, whose pace can be told."""
    option = host.length_options[0]
    if option not in host.Options.model_fields:
        return dict(settings)
    return overlay(settings, {option: str(min(total, STEPS if host.unit == "step" else EPOCHS))})


def pace(noted: Mapping[str, Any], total: int, times: float) -> Mapping[str, Any]:
    """Return the hours of a training of ``total`` units; empty if it has not come far enough.

    Args:
        noted: what a ``Timeline`` has noted of a shorter one, and when its process ``began``.
        times: how many times as many cases it is judged on.
    """
    if "first" not in noted or noted["units"] == noted["before"]:
        return {}
    each = (noted["last"] - noted["first"]) / (noted["units"] - noted["before"])
    start = max(0.0, noted["first"] - noted["began"] - noted["before"] * each)
    end = noted["end"] - noted["last"] if "end" in noted else 0.0
    hours = (start + each * total + end * times) / 3600
    return {"training_hours": round(hours, 4), "seconds_to_start": round(start, 1)}


class Timeline(NullReporter):
    """Notes in a file how far a training has come, and when; seconds, monotonic.

    Args:
        unit: of the training; other tasks are not noted.
    """

    def __init__(self, file: Path, unit: str) -> None:
        self._file, self._unit = file, unit
        self._noted: dict[str, float] = {}
        self._written = 0.0

    @contextmanager
    def task(self, total: int, title: str, done: float = 0) -> Iterator[ProgressTask]:
        if title == self._unit:
            yield self
            return
        with super().task(total, title, done) as silent:
            yield silent

    def advance(self, n: float = 1, **values: object) -> None:
        """Note a report; the time before the first one is that of loading."""
        if not n:
            return
        now = time.monotonic()
        units = self._noted.get("units", 0.0) + n
        if not self._noted:
            self._noted.update(first=now, before=units)
        self._noted.update(last=now, units=units)
        if now - self._written > PAUSE:
            self._write()

    def end(self) -> None:
        """Note the end, after the evaluation."""
        self._noted["end"] = time.monotonic()
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        write_json_atomic(self._file, self._noted)


def measure(file: Path) -> None:
    """Train, and note the time in the file."""
    training = TrainingHandover.from_json(read_json(file))
    timeline = Timeline(file, framework(training.request.target).unit)
    session_of(training, timeline).start()
    timeline.end()


if __name__ == "__main__":
    sys.exit(entry(lambda: measure(Path(sys.argv[1]))))
