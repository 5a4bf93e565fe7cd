"""One detector training's bank, producer, counts and record; watches the training."""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gansynth.bank.draw_log import Counts, Tally
from gansynth.bank.spec import SPEC
from gansynth.bank.supply import Demand, Supply
from gansynth.core.adapter import Outcome
from gansynth.core.injection import MixPlan
from gansynth.core.lineage import CaseRecord
from gansynth.hosts import record
from gansynth.hosts.epoch_plan import count_places
from gansynth.hosts.record import Origin, SessionRecord
from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth_yolo.config import YoloConfig
from gansynth_yolo.detectors import DetectorJob
from gansynth_yolo.guards import open_origin, sample_bytes
from gansynth_yolo.mixed import PARTNERS, Slots
from gansynth_yolo.source import YoloSource

FILE = "gansynth_session.json"
"""Beside the results: what each session mixed in."""
COMPARED = (*record.COMPARED, "imgsz", "batch", "options")
ANEW = "start anew without resume, into another --set output"
LICENCES: Mapping[str, str] = {
    "libreyolo": "MIT",
    "ultralytics": "AGPL-3.0: its terms apply to this training and to the weights it has made",
}
"""Detector -> its licence, and what that means for a training."""


class MixSession:
    """Checks a generator or bank, makes the bank if there is none, keeps count: a ``Watch``.

    Args:
        config: what is mixed into what.
        source: the detector's data set.
        job: what the detector does.
        say: writes a line to the log.

    Attributes:
        slots: the places of the training set.

    Raises:
        IntegrityFault: leakage, or a generator or bank made for something else.
        UsageFault, DataFault: see ``guards`` and ``gansynth.hosts.record``.
        EnvironmentFault: no room for the bank.
        TrainingFault: the bank does not fill.
    """

    def __init__(
        self, config: YoloConfig, source: YoloSource, job: DetectorJob, say: Callable[[str], None]
    ) -> None:
        self.config, self.source, self.job, self.say = config, source, job, say
        self._first = self._done = epochs_done(config.output) if job.resume else 0
        self._pid = os.getpid()
        self._closed = False
        self._supply: Supply | None = None
        self._tallies: tuple[Tally, Tally] | None = None
        self._epochs: list[dict[str, Any]] = []
        atexit.register(self.close)
        try:
            self.slots = self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> Slots:
        """Check, start the producer, and wait for samples."""
        config = self.config
        origin = open_origin(config.injection, self.source, self._held_out())
        self._record = SessionRecord(
            config.output / FILE,
            self._first,
            describe(config, origin),
            self.job.epochs,
            compared=COMPARED,
            anew=ANEW,
        )
        for change in self._record.changes:
            self.say(f"gansynth: WARNING: since the last session: {change}")
        schedule = config.injection.schedule
        if note := schedule.tuning_note(self.job.epochs, "epoch", ours=False):
            self.say(f"gansynth: {note}")
        self._supply = supply = Supply(self._demand(origin))
        if self._first < self.job.epochs:
            supply.start()
            supply.wait()
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}-{self._pid}"
        log = config.output / "gansynth_draws" / stamp
        self._plan = self._make_plan(log)
        self._tallies = (Tally(log), Tally(log / PARTNERS))
        supply.steer(lambda: self.counts()[0], lambda: self.counts()[1].synthetic)
        return Slots(self._plan, len(self.source.train_ids), self.job.channels, self._first)

    def _held_out(self) -> tuple[CaseRecord, ...]:
        """Records of held-out images, unless the adapter has just read them, or nobody asks."""
        if self.config.held_out or self.config.injection.ratio.p == 0:
            return self.config.held_out
        return self.source.records(self.source.held_out_ids)

    def _demand(self, origin: Origin | None) -> Demand:
        manifest = None if origin is None else origin.manifest
        injection = self.config.injection
        return Demand(
            injection=injection,
            target="yolo",
            request=self.source.request.to_json(),
            run_id=None if manifest is None else str(manifest["run_id"]),
            cases=len(self.source.train_ids),
            sample_bytes=0 if manifest is None else sample_bytes(manifest),
            batch_size=self.job.batch,
            samples=self.job.epochs * count_places(injection.ratio, len(self.source.train_ids)),
            output=self.config.output,
            say=self.say,
            progress=min(1.0, self._first / self.job.epochs),
            gpus=_gpus(self.job.device),
        )

    def _make_plan(self, log: Path) -> MixPlan[int]:
        assert self._supply is not None
        bank = self._supply.bank
        ids = self.source.train_ids
        plan: MixPlan[int] = self.config.injection.plan(
            bank if bank is not None and (bank / SPEC).exists() else None,
            log,
            batches=self.job.epochs,
            subjects={index: self.source.subject(case) for index, case in enumerate(ids)},
            done=self._first,
        )
        # Tables are keyed by epoch: those of a training that is continued go on, too.
        return replace(plan, stream=(0,), patience=self.config.patience)

    # -- while training --------------------------------------------------------------------------

    def step(self, begin: float, end: float) -> None:
        """Note a training step, ``time.monotonic()`` at its begin and end; never raises."""
        if self._supply is not None:
            self._supply.step(begin, end)

    def epoch(self, done: int, metrics: Mapping[str, float]) -> None:
        """Tell the log what was drawn, and what has happened to the producer."""
        assert self._supply is not None
        self._done = done
        before = self._epochs[-1]["so_far"] if self._epochs else {}
        so_far = self._so_far()
        drawn = {key: count - before.get(key, 0) for key, count in so_far.items()}
        synthetic = int(self.slots.places.table(done - 1).synthetic.sum())
        places = {"places_real": len(self.slots) - synthetic, "places_synthetic": synthetic}
        self._epochs.append({"epoch": done, **places, **drawn, "so_far": so_far})
        for said in self._supply.messages():
            self.say(f"gansynth: {said}")
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in _worth_saying(metrics).items())
        self.say(
            f"gansynth: epoch {done} of {self.job.epochs} had places for {places['places_real']} "
            f"real and {synthetic} synthetic images; drawn meanwhile: {_drawn_in(drawn)}"
        )
        self.say(f"gansynth: so far {self.sentence()}{f'; {numbers}' if numbers else ''}")
        self._supply.pause(done / self.job.epochs)
        self._write(complete=False)

    def sentence(self) -> str:
        """What was drawn, and what the producer did, in words."""
        said = self.counts()[0].sentence(self.asked())
        more = "" if self._supply is None else self._supply.sentence()
        return f"{said}, {more}" if more else said

    def asked(self) -> float:
        """Share of synthetic samples asked for, from this session's beginning until now."""
        begin, now = (min(1.0, done / self.job.epochs) for done in (self._first, self._done))
        return self.config.injection.schedule.share_of(self.config.injection.ratio, begin, now)

    def counts(self) -> tuple[Counts, Counts]:
        """What was drawn so far by all workers: for places of their own, and as partners."""
        if self._tallies is None:
            return Counts(), Counts()
        primaries, partners = self._tallies
        return primaries.update(), partners.update()

    def stopped(self) -> str:
        """Why drawing stopped, in any worker; empty if it did not."""
        why = next((counts.stopped for counts in self.counts() if counts.stopped), "")
        ended = self._supply and self._supply.keeper and self._supply.keeper.ended
        return f"{why}. The producer had ended: {ended}" if why and ended else why

    # -- the end ---------------------------------------------------------------------------------

    def close(self, complete: bool = False) -> None:
        """Stop the producer, write the record, remove the bank if it was made here.

        Args:
            complete: whether the training has reached its end.
        """
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self.close)
        if self._supply is None:
            return
        self._supply.close()
        if self._tallies is not None:
            with contextlib.suppress(OSError):  # nobody may be listening any more
                self._write(complete)
                self.say(f"gansynth: in all {self.sentence()}")

    def __enter__(self) -> MixSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _so_far(self) -> dict[str, int]:
        own, partners = self.counts()
        return {
            "real": own.real,
            "synthetic": own.synthetic,
            "fell_back": own.fell_back,
            "partners_real": partners.real,
            "partners_synthetic": partners.synthetic,
            "partners_fell_back": partners.fell_back,
        }

    def _write(self, complete: bool) -> None:
        assert self._supply is not None
        own, partners = self.counts()
        per_epoch = [{k: v for k, v in one.items() if k != "so_far"} for one in self._epochs]
        try:
            self._record.write(
                self._done,
                own,
                complete=complete,
                asked=self.asked(),
                supply=self._supply.summary(own),
                chosen=[self.source.train_ids[index] for index in self._plan.chosen],
                more={"partners": partners.to_json(), "per_epoch": per_epoch},
            )
        except EnvironmentFault as error:  # the training itself is not harmed
            self.say(f"gansynth: WARNING: {error}")


def _drawn_in(drawn: Mapping[str, int]) -> str:
    """What was drawn in one epoch, in words; workers draw ahead, some detectors' for epochs."""
    said = f"{drawn['real']} real, {drawn['synthetic']} synthetic"
    if drawn["partners_real"] or drawn["partners_synthetic"]:
        said += (
            f", with {drawn['partners_real']} real, {drawn['partners_synthetic']} synthetic "
            "partners in mosaics"
        )
    if missing := drawn["fell_back"] + drawn["partners_fell_back"]:
        said += f"; {missing} of the real ones in place of a missing synthetic one"
    return said


def _worth_saying(metrics: Mapping[str, float]) -> dict[str, float]:
    """Losses and mean average precision, of all that a detector tells."""
    short = {key.removesuffix("(B)").removeprefix("metrics/"): n for key, n in metrics.items()}
    return {
        key: value
        for key, value in short.items()
        if key.startswith("train/") or key in ("mAP50", "mAP50-95")
    }


def _gpus(device: str) -> tuple[int, ...]:
    """CUDA devices a training has for itself."""
    kind, _, number = device.partition(":")
    return (int(number or 0),) if kind == "cuda" else ()


# -- the record ------------------------------------------------------------------------------------


def describe(config: YoloConfig, origin: Origin | None) -> dict[str, Any]:
    """What one session mixes into what.

    Args:
        config: what it is told.
        origin: what samples are drawn of; None if nothing synthetic is drawn.
    """
    choices = asdict(config.choices)
    detector = config.choices.detector
    return {
        **record.describe_session(config.injection, origin),
        "data": config.request["where"],
        **{key: choices[key] for key in ("detector", "model", "imgsz", "batch", "options")},
        "licence": LICENCES[detector],
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("torch", "torchvision", detector)},
        },
    }


def epochs_done(output: Path) -> int:
    """How many epochs the training in a folder has done.

    Raises:
        UsageFault: there is none.
        IntegrityFault: its record is damaged.
    """
    return int(_last(output)["epochs"][1])


def check_resumable(config: YoloConfig) -> None:
    """Refuse to go on with another training than the one that was begun.

    Raises:
        UsageFault: there is none, it is of another detector or model, or it has ended.
        IntegrityFault: its record is damaged.
    """
    last, output = _last(config.output), config.output
    for key in ("detector", "model"):
        before, now = last.get(key), getattr(config.choices, key)
        if before != now:
            raise UsageFault(
                f"{output}: holds a training of the {key} {before}, not of {now}, expected the "
                f"same to go on with; name that one, or {ANEW}"
            )
    epochs, complete = last["of_epochs"], bool(read_json(output / FILE).get("complete"))
    if complete and epochs != config.choices.epochs:
        raise UsageFault(
            f"--set epochs={config.choices.epochs}: the training in {output} has ended, as asked, "
            f"after {epochs}; expected that number (its weights are only looked at again). To "
            f"train longer, {ANEW}"
        )


def _last(output: Path) -> dict[str, Any]:
    """The last session of the training in a folder."""
    earlier = record.read_sessions(output / FILE)
    if not earlier:
        raise UsageFault(
            f"{output}: holds no {FILE}, expected a training to go on with; start it without resume"
        )
    return earlier[-1]


def read_outcome(output: Path, metrics: Mapping[str, Any]) -> Outcome:
    """What a training came to, over all its sessions.

    Args:
        output: folder of its results.
        metrics: on real validation images.
    """
    return record.outcome_of(record.read_sessions(output / FILE), output, metrics)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
