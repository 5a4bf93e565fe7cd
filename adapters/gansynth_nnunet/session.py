"""Bank, producer, counts and record of one nnU-Net training, and its outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.training_bank import BankRequirements
from gansynth.core.mix_config import MixerConfig, TrainingResult
from gansynth.hosts import record
from gansynth.hosts.record import read_sessions, training_result_of
from gansynth.hosts.sample_source import SampleSource
from gansynth.hosts.session import HostSession
from gansynth.runtime.child import NAME
from gansynth.runtime.errors import IntegrityFault
from gansynth.runtime.files import read_json
from gansynth_nnunet.config import TrainerMix, TrainingInfo
from gansynth_nnunet.guards import drawn_size, open_host, open_sample_source, sample_bytes
from gansynth_nnunet.mixed import MixedNnunetDataset
from gansynth_nnunet.ranks import Tick, lead, wait_for_all

SIDECAR = "gansynth.json"
"""File beside nnU-Net's checkpoints: what each session of a training mixed in."""
FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"
CHECKPOINTS = (FINAL, LATEST, "checkpoint_best.pth")
"""Checkpoints from which nnU-Net continues a training, in order of preference."""
SUMMARY = Path("validation") / "summary.json"
COMPARED = (*record.COMPARED, "settings", "options")
OWN = "nnunet_validation"
"""Key of nnU-Net's own summary: Dice is 0 if the truth lacks the label and it is predicted."""


@dataclass(frozen=True)
class RankInfo:
    """Message of rank 0 to the other ranks: folders, and the subject of each training case."""

    log: Path
    bank: Path | None
    subjects: Mapping[str, str]


class NnunetSession(HostSession[str]):
    """Checks a generator or bank, makes the bank if there is none, and counts samples.

    In a data-parallel training rank 0 does this for the others, which only draw.
    """

    file = SIDECAR
    compared = COMPARED

    def __init__(self, config: TrainerMix, training: TrainingInfo) -> None:
        self.config, self.training = config, training
        super().__init__(config.mix_config, training.output, training.epoch, training.epochs)
        self.batches = training.batches
        try:
            self._shared = lead(training.rank, training.ranks, self._lead)
            self.log = self._shared.log
            self.steer()
        except BaseException:
            self.close()
            raise

    def _lead(self, tick: Tick) -> RankInfo:
        """Check, start the producer, and wait for samples; on rank 0."""
        training, mixing = self.training, self.mix_config.ratio.p > 0
        self._source = source = open_host(self.config, training) if mixing else None
        self._sample_source = (
            None if source is None else open_sample_source(self.config, training, source)
        )
        self.open()
        if mixing and not training.held_out_ids:
            self.say(
                "fold 'all' trains on every case: nothing is held out, so leakage cannot be "
                "checked, and the validation Dice is one on training cases"
            )
        # A finished training draws, too: its loaders fetch batches ahead.
        self.training_bank.start()
        self.training_bank.wait(tick)
        ids = training.train_ids
        subjects = {case: case if source is None else source.header(case).subject for case in ids}
        return RankInfo(self.log, self.bank, subjects)

    def wrap(self, real: Any) -> MixedNnunetDataset:
        """Return the training data set with synthetic samples mixed in."""
        training = self.training
        return MixedNnunetDataset(
            real, self.plan, training.batch_size, training.channels, training.keys
        )

    # -- its description -------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """See ``HostSession.describe``."""
        return describe_session(self.config, self._sample_source)

    def demand(self) -> BankRequirements:
        """See ``HostSession.demand``."""
        training, source = self.training, self._source
        return BankRequirements(
            mix_config=self.mix_config,
            target="nnunet",
            request={} if source is None else source.request.to_json(),
            run_id=None if self._sample_source is None else self._sample_source.run_id,
            cases=len(training.train_ids),
            sample_bytes=self._sample_bytes(),
            batch_size=training.batch_size,
            samples=training.epochs * training.batches * training.batch_size * training.ranks,
            output=training.output,
            say=self.say,
            dtype=training.dtype,
            progress=training.progress,
            gpus=training.gpus,
        )

    def _sample_bytes(self) -> int:
        training, source, sample_source = self.training, self._source, self._sample_source
        if source is None or sample_source is None or sample_source.run is None:  # no bank is made
            return 0
        size = drawn_size(sample_source.run.manifest, source, training.patch)
        width = np.dtype(training.dtype).itemsize
        return sample_bytes(size, training.patch, training.channels, width, len(training.keys))

    def make_plan(self) -> MixerConfig[str]:
        """See ``HostSession.make_plan``."""
        from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

        training = self.training
        plan: MixerConfig[str] = self.mix_config.plan(
            self._shared.bank,
            self.log,
            batches=training.epochs * training.batches,
            subjects=self._shared.subjects,
            done=training.epoch * training.batches,
            rank=training.rank,
        )
        workers = max(1, get_allowed_n_proc_DA())
        return replace(plan, patience=self.config.patience, workers=workers)

    def note(self, text: str) -> None:
        """Write into nnU-Net's log."""
        self.training.say(text)

    # -- while training --------------------------------------------------------------------------

    def epoch(self, done: int, values: Mapping[str, float]) -> None:
        """Log the draws so far, and the producer's state; on rank 0."""
        self.finish_epoch(done, values)
        self.report()
        self.note(f"{NAME}{self.sentence()}")
        self.pause()
        self.write()

    def now(self) -> float:
        """Return the progress of drawing, which is slightly ahead of training."""
        return 1.0 if self.plan.batch_counter is None else self.plan.batch_counter.now()

    def close(self, complete: bool = False) -> None:
        """See ``HostSession.close``; if the training is complete, all ranks must call this."""
        if complete and not self._closed:  # other ranks' workers may still be drawing
            wait_for_all(self.training.ranks)
        super().close(complete)


def describe_session(config: TrainerMix, sample_source: SampleSource | None) -> dict[str, Any]:
    """Return what is mixed in and how; see ``gansynth.hosts.record``."""
    return {
        **record.describe_session(config.mix_config, sample_source),
        "options": dict(config.options),
        "settings": {k: v for k, v in config.settings.items() if k != "save_every"},
    }


def newest_checkpoint(folder: Path) -> tuple[int, str]:
    """Return the epochs done by nnU-Net's newest checkpoint, and its name; 0 without one."""
    import torch

    scalar: Any = np.float64().__reduce__()[0]
    numbers = [scalar, np.dtype, *(type(np.dtype(kind)) for kind in "fd")]
    found = [(0, "")]
    for path in (folder / name for name in CHECKPOINTS):
        if not path.is_file():
            continue
        try:
            with torch.serialization.safe_globals(numbers):  # nnU-Net's means; nothing else is run
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            found.append((int(loaded["current_epoch"]), path.name))
        except Exception as error:  # torch raises anything for a damaged file
            raise IntegrityFault(
                f"{path}: {type(error).__name__}, expected a checkpoint of nnU-Net; remove it to "
                "go on from an older one"
            ) from error
    return max(found, key=lambda one: one[0])


# -- the outcome -----------------------------------------------------------------------------------


def read_training_result(
    folder: Path, account: tuple[Mapping[str, Any], str] = ({}, "")
) -> TrainingResult:
    """Return counts over all sessions of a training, and its validation on held-out cases.

    Args:
        account: measures of the held-out cases, and why there are none; see ``account_of``.
    """
    measured, why = account
    record = _own(folder)
    metrics = {**measured, **({OWN: record} if record else {})}
    training_result = training_result_of(read_sessions(folder / SIDECAR), folder, metrics)
    return replace(training_result, warnings=(*training_result.warnings, *filter(None, [why])))


def _own(folder: Path) -> dict[str, Any]:
    """Return ``dice`` and ``dice_per_label`` of nnU-Net's validation, by its own rules."""
    path = folder / SUMMARY
    if not path.is_file():
        return {}
    summary = read_json(path)
    per_label = {str(k): _number(v["Dice"]) for k, v in summary["mean"].items()}
    return {"dice": _number(summary["foreground_mean"]["Dice"]), "dice_per_label": per_label}


def _number(value: float) -> float | None:
    """Return None for nnU-Net's NaN (a label that no held-out case has)."""
    return float(value) if math.isfinite(value) else None
