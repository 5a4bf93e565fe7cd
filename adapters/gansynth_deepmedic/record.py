"""A DeepMedic training, its record, its checkpoints and its segmentations."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from gansynth.core.mix_config import MixConfig
from gansynth.core.prediction import Prediction
from gansynth.hosts import record
from gansynth.hosts.record import FILE, read_sessions
from gansynth.hosts.sample_source import SampleSource
from gansynth.metrics.segmentation.predictions import of_volumes
from gansynth.metrics.segmentation.regions import Regions
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_deepmedic.config import DeepMedicChoices
from gansynth_deepmedic.configs import TrainConfig
from gansynth_deepmedic.program import DeepMedicProgram
from gansynth_deepmedic.source import DeepMedicSource
from gansynth_deepmedic.subepoch_shares import SubepochShare

COMPARED = (*record.COMPARED, "data", "session", "model", "settings", "arguments")
OF_THE_MACHINE = ("folderForOutput", "num_processes_sampling")
"""Settings that may change when a training goes on."""
WAY_OUT = "train it again, to its end"


@dataclass(frozen=True)
class DeepMedicJob:
    """One training that has passed every check."""

    mix_config: MixConfig  # the mix and its options
    choices: DeepMedicChoices  # the user's choices
    source: DeepMedicSource  # the training cases
    config: TrainConfig  # the user's file with changed numbers
    share: SubepochShare  # cases and segments of a subepoch
    output: Path  # folder for results
    sample_source: SampleSource | None  # generator or bank; None without synthetic samples
    regions: Regions  # regions for Dice and HD95
    program: DeepMedicProgram
    patience: float  # seconds that a phase without real cases waits for a sample

    @property
    def most_synthetic(self) -> int:
        """Most synthetic cases of a subepoch."""
        if self.mix_config.schedule.kind != "constant":
            return self.share.cases if self.mix_config.ratio.p > 0 else 0
        if self.share.synthetic is not None:
            return self.share.synthetic
        return min(self.share.cases, ceil(self.mix_config.ratio.p * self.share.cases))

    @property
    def total(self) -> int:
        """Subepochs of the whole training."""
        return self.config.epochs * self.config.subepochs

    def describe(self) -> dict[str, Any]:
        """Describe the data, mix and settings of one session."""
        choices, program = self.choices, self.program
        values = {**self.config.values, "regions": choices.options.regions}
        return {
            **record.describe_session(self.mix_config, self.sample_source),
            "data": str(self.config.path),
            "session": self.config.session,
            "model": str(choices.model),
            "subepochs": self.config.subepochs,
            "cases": self.share.cases,
            "segments": self.share.segments,
            "batch": self.config.batch,
            "settings": {k: v for k, v in values.items() if k not in OF_THE_MACHINE},
            "arguments": list(choices.arguments[2:]),  # behind -dev
            "said": list(self.share.notes),
            "versions": {**program.versions, "deepmedic": commit_of(program.checkout)},
        }


def commit_of(checkout: Path) -> str:
    """Return the commit of a checkout, if git knows it."""
    words = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def checkpoint_of(output: Path) -> str:
    """Return DeepMedic's checkpoint of the recorded epochs, relative to the output."""
    last = read_sessions(output / FILE)[-1]
    checkpoint = str(last["checkpoint"])
    index = output / f"{checkpoint}.index"
    if not index.is_file():
        raise UsageFault(
            f"{index}: missing, expected the checkpoint of epoch {last['epochs'][1]} to go on "
            "with; restore it, or take another folder: -o"
        )
    return checkpoint


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


def refuse_unmeasurable(source: DeepMedicSource) -> None:
    """Reject a training that would save no segmentations of validation cases."""
    config = source.config
    if not config.predictions or not config.values.get("saveSegmentationVal", True):
        raise UsageFault(
            f"{config.path}: saves no segmentations of validation cases, expected "
            "namesForPredictionsPerCaseVal, and not saveSegmentationVal = False"
        )


def prediction_files(source: DeepMedicSource, folder: Path) -> dict[str, Prediction]:
    """Return validation case -> predicted and true label map, without unlabelled cases.

    DeepMedic writes them after epochs with validation of whole volumes
    (``numberOfEpochsBetweenFullInferenceOnValImages``), named as in its ``io.py``.
    """
    if not read_sessions(folder / FILE):
        raise UsageFault(
            f"{folder}: has no {FILE}, expected a folder that gansynth augment --target deepmedic "
            "wrote"
        )
    config = source.config
    refuse_unmeasurable(source)
    suffix = (config.values.get("suffixForSegmAndProbsDictVal") or {"segm": "Segm"})["segm"]
    home = folder / "predictions" / config.session / "predictions"
    predicted = {}
    for listed, name in zip(config.validation, config.predictions, strict=True):
        stem = name.removesuffix(".nii.gz").removesuffix(".nii")
        predicted[_first(listed.channels)] = home / f"{stem}_{suffix}.nii.gz"
    pairs = {}
    for case in source.held_out_ids:
        listed = source.listed(case)
        image = _first(listed.channels)
        if image not in predicted:
            raise DataFault(f"{folder}: lacks case {case!r}, expected it; {WAY_OUT}")
        pairs[case] = predicted[image], listed.labels
    if not pairs:
        raise UsageFault(
            f"{source.config.path}: has no validation case with labels, expected some; "
            "list them in gtLabelsValidation"
        )
    return of_volumes(source, pairs, WAY_OUT)


def _first(channels: tuple[Path | None, ...]) -> str:
    return os.path.realpath(next(file for file in channels if file is not None))
