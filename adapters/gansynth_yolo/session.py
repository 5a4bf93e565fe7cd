"""Sample bank, producer, counts and record of one detector training."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gansynth.bank.draw_log import DrawCounter, DrawCounts
from gansynth.bank.training_bank import BankRequirements
from gansynth.core.lineage import CaseRecord
from gansynth.core.mix_config import MixerConfig
from gansynth.core.source import case_records
from gansynth.hosts import record
from gansynth.hosts.epoch_plan import count_places
from gansynth.hosts.sample_source import SampleSource
from gansynth.hosts.session import HostSession
from gansynth.runtime.child import NAME
from gansynth_yolo.config import YoloConfig
from gansynth_yolo.detectors import DetectorJob
from gansynth_yolo.guards import open_sample_source, sample_bytes
from gansynth_yolo.mixed import PARTNERS, EpochSlots
from gansynth_yolo.source import YoloSource

CHOSEN = ("detector", "model", "imgsz", "batch", "options")
COMPARED = (*record.COMPARED, "data", "read", "fold", "of_epochs", *CHOSEN)
LICENCES: Mapping[str, str] = {
    "libreyolo": "MIT",
    "ultralytics": "AGPL-3.0: its terms apply to this training and to the weights it has made",
}
"""Detector -> its licence and the consequences for a training."""


class YoloSession(HostSession[int]):
    """Checks generator or bank, creates a missing bank, and counts draws: a ``Watch``.

    Raises:
        IntegrityFault: leakage, or a generator or bank of other data.
        UsageFault, DataFault: see ``guards`` and ``gansynth.hosts.record``.
        EnvironmentFault: too little disk space for the bank.
        TrainingFault: the bank does not fill.
    """

    compared = COMPARED

    def __init__(self, config: YoloConfig, source: YoloSource, job: DetectorJob) -> None:
        self.config, self.source, self.job = config, source, job
        first = record.epochs_done(config.output)
        super().__init__(config.mix_config, config.output, first, job.epochs)
        self._partners = DrawCounter(self.log / PARTNERS)
        self._epochs: list[dict[str, Any]] = []
        try:
            self._sample_source = open_sample_source(config.mix_config, source, self._held_out())
            self.open()
            if note := config.mix_config.schedule.tuning_note(job.epochs, "epoch", ours=False):
                self.say(note)
            self.start()
            self.steer()
        except BaseException:
            self.close()
            raise
        self.slots = EpochSlots(self.plan, len(source.train_ids), job.channels, first)
        self.batches = math.ceil(len(self.slots) / job.batch)

    def _held_out(self) -> tuple[CaseRecord, ...]:
        """Return the records of held-out images; read them only if needed and not read yet."""
        if self.config.held_out or self.mix_config.ratio.p == 0:
            return self.config.held_out
        return case_records(self.source, self.source.held_out_ids)

    # -- what it says of itself ------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """See ``HostSession.describe``."""
        return describe(self.config, self._sample_source)

    def demand(self) -> BankRequirements:
        """See ``HostSession.demand``."""
        run = None if self._sample_source is None else self._sample_source.run
        images = len(self.source.train_ids)
        return BankRequirements(
            mix_config=self.mix_config,
            target="yolo",
            request=self.source.request.to_json(),
            run_id=None if self._sample_source is None else self._sample_source.run_id,
            cases=images,
            sample_bytes=0 if run is None else sample_bytes(run.manifest),
            batch_size=self.job.batch,
            samples=self.total * count_places(self.mix_config.ratio, images),
            output=self.output,
            say=self.say,
            progress=self.now(),
            gpus=_gpus(self.job.device),
        )

    def make_plan(self) -> MixerConfig[int]:
        """See ``HostSession.make_plan``."""
        ids = self.source.train_ids
        plan: MixerConfig[int] = self.mix_config.plan(
            self.bank,
            self.log,
            batches=self.total,
            subjects={index: self.source.header(case).subject for index, case in enumerate(ids)},
            done=self.first,
        )
        # Tables are keyed by epoch: those of a training that is continued go on, too.
        return replace(plan, stream=(0,), patience=self.config.patience)

    def case(self, key: int) -> str:
        """See ``HostSession.case``."""
        return self.source.train_ids[key]

    def more(self) -> dict[str, Any]:
        """See ``HostSession.more``."""
        per_epoch = [{k: v for k, v in entry.items() if k != "so_far"} for entry in self._epochs]
        return {"partners": self.partners().to_json(), "per_epoch": per_epoch}

    # -- while training --------------------------------------------------------------------------

    def epoch(self, done: int, metrics: Mapping[str, float]) -> None:
        """Log the draws of an epoch and the producer's state."""
        worth = _worth_saying(metrics)
        self.finish_epoch(done, {k.removeprefix("train/"): n for k, n in worth.items()})
        before = self._epochs[-1]["so_far"] if self._epochs else {}
        so_far = self._so_far()
        drawn = {key: count - before.get(key, 0) for key, count in so_far.items()}
        synthetic = int(self.slots.places.table(done - 1).synthetic.sum())
        places = {"places_real": len(self.slots) - synthetic, "places_synthetic": synthetic}
        self._epochs.append({"epoch": done, **places, **drawn, "so_far": so_far})
        self.report()
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in worth.items())
        self.note(
            f"{NAME}epoch {done} of {self.total} had places for {places['places_real']} real and "
            f"{synthetic} synthetic images; drawn meanwhile: {_drawn_in(drawn)}"
        )
        self.note(f"{NAME}so far {self.sentence()}{f'; {numbers}' if numbers else ''}")
        self.pause()
        self.write()

    def partners(self) -> DrawCounts:
        """Return the counts of mosaic partners."""
        return self._partners.update()

    def _so_far(self) -> dict[str, int]:
        primaries, partners = self.counts(), self.partners()
        return {
            "real": primaries.real,
            "synthetic": primaries.synthetic,
            "fell_back": primaries.fell_back,
            "partners_real": partners.real,
            "partners_synthetic": partners.synthetic,
            "partners_fell_back": partners.fell_back,
        }


def _drawn_in(drawn: Mapping[str, int]) -> str:
    """Describe the draws during an epoch; workers draw ahead, some by epochs."""
    text = f"{drawn['real']} real, {drawn['synthetic']} synthetic"
    if drawn["partners_real"] or drawn["partners_synthetic"]:
        text += (
            f", with {drawn['partners_real']} real, {drawn['partners_synthetic']} synthetic "
            "partners in mosaics"
        )
    if missing := drawn["fell_back"] + drawn["partners_fell_back"]:
        text += f"; {missing} of the real ones in place of a missing synthetic one"
    return text


def _worth_saying(metrics: Mapping[str, float]) -> dict[str, float]:
    """Select losses and mean average precision from a detector's metrics."""
    short = {key.removesuffix("(B)").removeprefix("metrics/"): n for key, n in metrics.items()}
    return {
        key: value
        for key, value in short.items()
        if key.startswith("train/") or key in ("mAP50", "mAP50-95")
    }


def _gpus(device: str) -> tuple[int, ...]:
    """Return the CUDA devices that the training occupies."""
    kind, _, number = device.partition(":")
    return (int(number or 0),) if kind == "cuda" else ()


# -- the record ------------------------------------------------------------------------------------


def describe(config: YoloConfig, sample_source: SampleSource | None) -> dict[str, Any]:
    """Describe the data, mix and detector of one session.

    Args:
        sample_source: generator or bank of the samples; None without synthetic samples.
    """
    choices = config.choices.model_dump()
    detector = config.choices.detector
    return {
        **record.describe_session(config.mix_config, sample_source),
        "data": config.request["where"],
        **{key: config.request[key] for key in ("read", "fold")},
        "of_epochs": choices["epochs"],
        **{key: choices[key] for key in CHOSEN},
        "licence": LICENCES[detector],
        "versions": {
            "python": platform.python_version(),
            **{name: record.version_of(name) for name in ("torch", "torchvision", detector)},
        },
    }
