"""Phantoms as a DeepMedic data set: volumes, list files, and both configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.data.case_writer import write_volume
from gansynth.testing.phantoms._folders import (
    DESCRIPTION,
    LICENCE,
    Progress,
    counted,
    new_folder,
    write_json,
)
from gansynth.testing.phantoms._options import LABELS, PhantomOptions
from gansynth.testing.phantoms._phantom import Phantom, make_phantom

HELD_OUT = 0.25
"""Share of the subjects for validation."""
TRAIN: Mapping[str, Any] = {
    "sessionName": "phantoms",
    "folderForOutput": "./output",
    "numberOfEpochs": 4,
    "numberOfSubepochs": 2,
    "numOfCasesLoadedPerSubepoch": 12,
    "numberTrainingSegmentsLoadedOnGpuPerSubep": 240,
    "batchsize_train": 10,
    "num_processes_sampling": 0,
    "typeOfLearningRateSchedule": "poly",
    "augm_sample_prms_tr": {
        "hist_dist": {"shift": {"mu": 0.0, "std": 0.05}, "scale": {"mu": 1.0, "std": 0.01}},
        "reflect": (0.5, 0.0, 0.0),
        "rotate90": None,
    },
    "performValidationOnSamplesThroughoutTraining": True,
    "performFullInferenceOnValidationImagesEveryFewEpochs": True,
    "numberValidationSegmentsLoadedOnGpuPerSubep": 200,
    "batchsize_val_samples": 50,
    "numberOfEpochsBetweenFullInferenceOnValImages": 4,
    "namesForPredictionsPerCaseVal": "./validation_names.cfg",
}
"""Training configuration for minutes on a CPU."""
MODEL: Mapping[str, Any] = {
    "modelName": "small",
    "folderForOutput": "./output",
    "numberOfOutputClasses": len(LABELS),
    "numberFMsPerLayerNormal": [10, 12, 14, 16],
    "kernelDimPerLayerNormal": [[3, 3, 3]] * 4,
    "useSubsampledPathway": True,
    "subsampleFactor": [[3, 3, 3]],
    "numberFMsPerLayerFC": [24],
    "segmentsDimTrain": [17, 17, 17],
    "segmentsDimVal": [17, 17, 17],
    "segmentsDimInference": [25, 25, 25],
}
"""A network for minutes on a CPU: receptive field 9."""


def write_deepmedic(
    folder: Path,
    n: int,
    seed: int = 0,
    options: PhantomOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write `n` phantoms in DeepMedic's format and return `trainConfig.cfg`.

    Files are `sub-003/FLAIR.nii.gz`, ..., `labels.nii.gz` and `brain.nii.gz`, the region of
    interest. As in DeepMedic's examples, images have zero mean and unit deviation within the brain,
    and the normalised value of 0 outside. The first three quarters of the subjects are for
    training, the others for validation. `trainConfig.cfg` and `modelConfig.cfg` are for minutes on
    a CPU. The same arguments give the same bytes.

    Raises:
        UsageFault: `n` is below 2, or the folder exists and is not empty.
    """
    options = options or PhantomOptions(channels=("FLAIR", "T1c"))
    subjects = [f"sub-{index:03d}" for index in range(n)]
    train = n - max(1, round(HELD_OUT * n))
    needed = "subjects: one to train, one to validate on"
    with new_folder(folder, n, 2, needed) as building:
        for index in counted(n, progress):
            phantom = make_phantom(index, seed, options)
            _write_subject(building / subjects[index], phantom, options.channels)
        keys = {
            **_lists(building, "Training", subjects[:train], options.channels),
            **_lists(building, "Validation", subjects[train:], options.channels),
        }
        names = "".join(f"{subject}.nii.gz\n" for subject in subjects[train:])
        (building / "validation_names.cfg").write_text(names, "utf-8")
        _write_config(building / "trainConfig.cfg", {**TRAIN, **keys})
        model = {**MODEL, "numberOfInputChannels": len(options.channels)}
        _write_config(building / "modelConfig.cfg", model)
        about = {
            "description": DESCRIPTION,
            "licence": LICENCE,
            "labels": LABELS,
            "subjects": {"train": subjects[:train], "validation": subjects[train:]},
            "phantoms": {"seed": seed, **asdict(options)},
        }
        write_json(building / "phantoms.json", about)
    return folder / "trainConfig.cfg"


def _write_subject(folder: Path, phantom: Phantom, channels: Sequence[str]) -> None:
    brain = phantom.image[0] > 0
    for channel, volume in zip(channels, phantom.image, strict=True):
        inside = volume[brain].astype(np.float64)
        normal = ((volume - inside.mean()) / inside.std()).astype(np.float32)
        write_volume(folder / f"{channel}.nii.gz", normal, phantom.affine)
    for name, labels in (("labels", phantom.labels), ("brain", brain.astype(np.int16))):
        write_volume(folder / f"{name}.nii.gz", labels, phantom.affine)


def _lists(
    folder: Path, part: str, subjects: Sequence[str], channels: Sequence[str]
) -> dict[str, Any]:
    """Write the list files of one part, and return the keys that name them."""

    def listed(name: str) -> str:
        file = f"{part.lower()}_{name}.cfg"
        text = "".join(f"./{subject}/{name}.nii.gz\n" for subject in subjects)
        (folder / file).write_text(text, "utf-8")
        return f"./{file}"

    return {
        f"channels{part}": [listed(channel) for channel in channels],
        f"gtLabels{part}": listed("labels"),
        f"roiMasks{part}": listed("brain"),
    }


def _write_config(path: Path, values: Mapping[str, Any]) -> None:
    head = "# Phantoms, not patients: simulated brains with simulated gliomas, made by gansynth.\n"
    lines = (f"{key} = {value!r}\n" for key, value in values.items())
    path.write_text(head + "".join(lines), "utf-8")
