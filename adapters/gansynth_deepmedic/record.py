"""A DeepMedic training job, its record, and its segmentations."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from gansynth.core.mix_config import MixConfig
from gansynth.core.prediction import Prediction
from gansynth.hosts import record
from gansynth.hosts.record import FILE, read_sessions, version_of
from gansynth.hosts.sample_source import SampleSource
from gansynth.metrics.segmentation.predictions import of_volumes
from gansynth.metrics.segmentation.regions import Regions
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth_deepmedic.config import DeepMedicChoices
from gansynth_deepmedic.configs import ListedCase, TrainConfig
from gansynth_deepmedic.engine.settings import EngineSettings
from gansynth_deepmedic.program import DeepMedicProgram
from gansynth_deepmedic.source import DeepMedicSource
from gansynth_deepmedic.subepoch_shares import SubepochShare

COMPARED = (*record.COMPARED, "data", "engine", "session", "model", "settings", "arguments")
OF_THE_MACHINE = ("device", "folderForOutput", "num_processes_sampling")
"""Settings that may change when a training goes on."""
MODELS = "saved_models"  # folder in the output for DeepMedic's checkpoints
SUFFIXES = "suffixForSegmAndProbsDictVal"
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
    program: DeepMedicProgram | None  # the real one; None for the torch engine
    engine: EngineSettings | None  # settings of the torch engine; None for the real program
    patience: float  # seconds that a phase without real cases waits for a sample

    @property
    def slots(self) -> int:
        """Most synthetic slots of a subepoch."""
        if self.mix_config.schedule.kind != "constant":
            return self.share.cases if self.mix_config.ratio.p > 0 else 0
        if self.share.synthetic is not None:
            return self.share.synthetic
        return min(self.share.cases, ceil(self.mix_config.ratio.p * self.share.cases))

    @property
    def total(self) -> int:
        """Subepochs of the whole training."""
        return self.config.epochs * self.config.subepochs


def describe(job: DeepMedicJob) -> dict[str, Any]:
    """Describe the data, mix and engine of one session."""
    choices = job.choices
    values = {**job.config.values, **choices.torch, "regions": choices.options.regions}
    return {
        **record.describe_session(job.mix_config, job.sample_source),
        "data": str(job.config.path),
        "engine": choices.engine,
        "session": job.config.session,
        "model": None if choices.model is None else str(choices.model),
        "subepochs": job.config.subepochs,
        "cases": job.share.cases,
        "segments": job.share.segments,
        "batch": job.config.batch,
        "settings": {k: v for k, v in values.items() if k not in OF_THE_MACHINE},
        "arguments": list(choices.arguments[2:]),  # behind -dev
        "said": list(job.share.notes),
        "versions": versions(job),
    }


def versions(job: DeepMedicJob) -> dict[str, Any]:
    """Return the versions of the engine's packages, and the commit of the checkout."""
    if job.program is None:
        names = {name: version_of(name) for name in ("torch", "numpy", "nibabel")}
        return {"python": platform.python_version(), **names}
    checkout = job.program.checkout
    return {**job.program.versions, "deepmedic": commit_of(checkout) or "unknown"}


def commit_of(checkout: Path) -> str | None:
    """Return the commit of a checkout, or None if it is unknown."""
    git = checkout / ".git"
    try:
        if git.is_file():
            git = checkout / git.read_text().partition("gitdir:")[2].strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head or None
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text().strip()
        packed = (line.split() for line in (git / "packed-refs").read_text().splitlines())
        return next((words[0] for words in packed if words[1:] == [name]), None)
    except (OSError, ValueError):
        return None


def checkpoint_of(output: Path) -> Path | None:
    """Return DeepMedic's checkpoint of the recorded epochs for ``-load``, or None."""
    last = read_sessions(output / FILE)[-1]
    named = last.get("checkpoint")
    if last["engine"] != "deepmedic" or last["epochs"][1] == 0 or named is None:
        return None
    checkpoint = output / str(named)
    if not _index(checkpoint).is_file():
        raise UsageFault(
            f"{_index(checkpoint)}: missing, expected the checkpoint of epoch "
            f"{last['epochs'][1]} to go on with; restore it, or take another folder: -o"
        )
    return checkpoint


def newest_checkpoint(output: Path) -> Path | None:
    """Return DeepMedic's last checkpoint relative to the output; None before the first."""
    indices = [
        path
        for path in (output / MODELS).rglob("*.model.ckpt.index")
        if ".initial." not in path.name and ".final." not in path.name
    ]
    if not indices:
        return None
    newest = max(indices, key=lambda path: (path.stat().st_mtime_ns, path.name))
    return newest.with_suffix("").relative_to(output)


def _index(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.index")


def refuse_unmeasurable(source: DeepMedicSource, settings: Mapping[str, str]) -> None:
    """Reject a training that would save no segmentations of validation cases."""
    config = source.config
    if settings.get("engine") != "torch":
        if not config.predictions or not config.values.get("saveSegmentationVal", True):
            raise UsageFault(
                f"{config.path}: saves no segmentations of validation cases, expected "
                "namesForPredictionsPerCaseVal, and not saveSegmentationVal = False"
            )
        return
    default = "yes" if config.values.get("saveSegmentationVal", True) else "no"
    if settings.get("save_predictions", default) == "no":
        raise UsageFault(
            f"{source.name}: no segmentations are saved, expected --set save_predictions=yes"
        )


def prediction_files(source: DeepMedicSource, folder: Path) -> dict[str, Prediction]:
    """Return validation case -> predicted and true label map, without unlabelled cases.

    The torch engine writes them at the training's end. The real program writes them after epochs
    with validation of whole volumes: ``numberOfEpochsBetweenFullInferenceOnValImages``.
    """
    sessions = read_sessions(folder / FILE)
    if not sessions:
        raise UsageFault(
            f"{folder}: has no {FILE}, expected a folder that gansynth augment --target deepmedic "
            "wrote"
        )
    torch = sessions[-1].get("engine") == "torch"
    predicted = dict(_of_engine(folder) if torch else _of_program(source, folder))
    pairs = {}
    for case in source.held_out_ids:
        listed = source.listed(case)
        image = _first(listed)
        if image not in predicted:
            raise DataFault(f"{folder}: lacks case {case!r}, expected it; {WAY_OUT}")
        pairs[case] = predicted[image], listed.labels
    if not pairs:
        raise UsageFault(
            f"{source.config.path}: has no validation case with labels, expected some; "
            "list them in gtLabelsValidation"
        )
    return of_volumes(source, pairs, WAY_OUT)


def _of_engine(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the first image of each case, and its segmentation by the torch engine."""
    from gansynth_deepmedic.engine.infer import PREDICTIONS
    from gansynth_deepmedic.engine.train import VALIDATION

    cases: list[Mapping[str, Any]] = read_json(folder / VALIDATION, hint=WAY_OUT)["cases"]
    for case in cases:
        if "prediction" not in case:
            raise UsageFault(
                f"{folder}: no segmentations were saved, expected --set save_predictions=yes. Only "
                f"the Dice of {folder / VALIDATION} is written"
            )
        yield os.path.realpath(case["image"]), folder / PREDICTIONS / case["prediction"]


def _of_program(source: DeepMedicSource, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the first image of each case, and its segmentation, named as in ``io.py``."""
    config = source.config
    refuse_unmeasurable(source, {"engine": "deepmedic"})
    suffix = (config.values.get(SUFFIXES) or {"segm": "Segm"})["segm"]
    home = folder / "predictions" / config.session / "predictions"
    for listed, name in zip(config.validation, config.predictions, strict=True):
        stem = name.removesuffix(".nii.gz").removesuffix(".nii")
        yield _first(listed), home / f"{stem}_{suffix}.nii.gz"


def _first(listed: ListedCase) -> str:
    """Return the first image of a case, by which the engine names it."""
    return os.path.realpath(next(file for file in listed.channels if file is not None))
