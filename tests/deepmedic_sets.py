"""A tiny DeepMedic data set of phantoms: a head with a lesion of nested classes, two channels."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from gansynth.core.source import SourceRequest
from gansynth_deepmedic.configs import read_values
from gansynth_deepmedic.source import DeepMedicSource, open_deepmedic

CHANNELS = ("flair", "t1c")
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""As most brains are stored: x and y run against nibabel's axes."""
BRATS_FILES = {
    "flair": "Flair_subtrMeanDivStd.nii.gz",
    "t1c": "T1c_subtrMeanDivStd.nii.gz",
    "labels": "OTMultiClass.nii.gz",
    "roi": "brainmask.nii.gz",
}
"""Of a real subject in ``../shared/data/brats2015_deepmedic``."""
TRAIN_VALUES: Mapping[str, Any] = {
    "sessionName": "toy",
    "folderForOutput": "./output",
    "numberOfEpochs": 1,
    "numberOfSubepochs": 3,
    "numOfCasesLoadedPerSubepoch": 6,
    "numberTrainingSegmentsLoadedOnGpuPerSubep": 60,
    "batchsize_train": 5,
    "num_processes_sampling": -1,
    "typeOfLearningRateSchedule": "poly",
}
VALIDATED: Mapping[str, Any] = {
    "performValidationOnSamplesThroughoutTraining": True,
    "performFullInferenceOnValidationImagesEveryFewEpochs": True,
    "numberValidationSegmentsLoadedOnGpuPerSubep": 40,
    "batchsize_val_samples": 10,
    "numberOfEpochsBetweenFullInferenceOnValImages": 1,
    "namesForPredictionsPerCaseVal": "./names.cfg",
}
MODEL_VALUES: Mapping[str, Any] = {
    "modelName": "toyCnn",
    "folderForOutput": "./output",
    "numberOfOutputClasses": 3,
    "numberOfInputChannels": 2,
    "numberFMsPerLayerNormal": [4, 5, 6],
    "kernelDimPerLayerNormal": [[3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "useSubsampledPathway": True,
    "subsampleFactor": [[3, 3, 3]],
    "numberFMsPerLayerFC": [8],
    "segmentsDimTrain": [13, 13, 13],
    "segmentsDimVal": [13, 13, 13],
    "segmentsDimInference": [19, 19, 19],
}
"""Receptive field 7, so 13 voxels give 7 labels."""


@dataclass(frozen=True)
class Toy:
    """Where it is: the folder of everything."""

    folder: Path

    @property
    def train(self) -> Path:
        return self.folder / "trainConfig.cfg"

    @property
    def model(self) -> Path:
        return self.folder / "modelConfig.cfg"

    def file(self, name: str, case: str = "pat_00") -> Path:
        """``flair``, ``t1c``, ``labels`` or ``roi`` of a case."""
        return self.folder / "data" / case / f"{name}.nii.gz"

    def change(self, **values: Any) -> None:
        write_config(self.train, read_values(self.train) | values)

    def source(self, **asked: Any) -> DeepMedicSource:
        return open_deepmedic(SourceRequest("deepmedic", str(self.train), **asked))

    def copied(self, folder: Path) -> Toy:
        """A copy that a test may change."""
        return Toy(shutil.copytree(self.folder, folder))


def stored(path: Path | str) -> npt.NDArray[Any]:
    """A file's array, as DeepMedic reads it."""
    return np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj)


def store(path: Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64] = AFFINE) -> None:
    nib.save(nib.Nifti1Image(array, affine), path)


def toy_deepmedic(
    folder: Path,
    *,
    train: int = 4,
    val: int = 2,
    shape: Sequence[int] = (36, 32, 28),
    roi: bool = True,
    affine: npt.NDArray[np.float64] = AFFINE,
    values: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Toy:
    """Write ``data/pat_NN/{flair,t1c,labels,roi}.nii.gz``, lists, and both configurations.

    The first case has this shape along x, y, z, later ones differ by a few voxels. ``values``
    are further or other values of the training's configuration; None leaves a key out.
    """
    rng, cases = np.random.default_rng(seed), [f"pat_{number:02d}" for number in range(train + val)]
    for number, case in enumerate(cases):
        home = folder / "data" / case
        home.mkdir(parents=True, exist_ok=True)
        image, labels, region = phantom(rng, tuple(n + 2 * (number % 3) for n in shape))
        files = {**dict(zip(CHANNELS, image, strict=True)), "labels": labels, "roi": region}
        for name, array in files.items():
            store(home / f"{name}.nii.gz", array, affine)
    wanted = dict(TRAIN_VALUES)
    for part, listed in {"Training": cases[:train], "Validation": cases[train:]}.items():
        if not listed:
            continue
        for name in (*CHANNELS, "labels", *(["roi"] if roi else [])):
            lines = "".join(f"./data/{case}/{name}.nii.gz\n" for case in listed)
            (folder / f"{part.lower()}_{name}.cfg").write_text(f"# {name}\n{lines}")
        wanted[f"channels{part}"] = [f"./{part.lower()}_{name}.cfg" for name in CHANNELS]
        wanted[f"gtLabels{part}"] = f"./{part.lower()}_labels.cfg"
        wanted |= {f"roiMasks{part}": f"./{part.lower()}_roi.cfg"} if roi else {}
    if val:
        wanted |= VALIDATED
        names = "".join(f"pred_{case.removeprefix('pat_')}.nii.gz\n" for case in cases[train:])
        (folder / "names.cfg").write_text(names)
    toy = Toy(folder)
    write_config(toy.train, {**wanted, **(values or {})})
    write_config(toy.model, MODEL_VALUES)
    return toy


def write_config(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a configuration; keys of None are left out."""
    lines = [f"{key} = {value!r}\n" for key, value in values.items() if value is not None]
    path.write_text("# a comment\n" + "".join(lines))
    return path


def phantom(rng: np.random.Generator, shape: Sequence[int]) -> tuple[npt.NDArray[Any], ...]:
    """Image (C, X, Y, Z), labels (0 none, 1 rim, 2 core) and region of interest of one head."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).astype(np.float32)

    def distance(centre: npt.NDArray[Any], radii: npt.NDArray[Any]) -> npt.NDArray[Any]:
        scaled = (grid - centre[:, None, None, None]) / radii[:, None, None, None]
        return np.asarray(np.sqrt((scaled**2).sum(axis=0)))

    middle = (np.array(shape) - 1) / 2
    head = distance(middle, np.array(shape) * 0.44) < 1
    radius = rng.uniform(0.14, 0.2) * min(shape)
    centre = middle + rng.uniform(-0.12, 0.12, 3) * shape
    lesion = distance(centre, np.full(3, radius))
    labels = np.zeros(shape, np.int16)
    labels[(lesion < 1) & head] = 1
    labels[(lesion < 0.55) & head] = 2
    noise = rng.normal(0, 0.25, (len(CHANNELS), *shape))
    # Without folds of its own every head would look like the next one to the guard.
    own = np.random.default_rng(int(1e9 * abs(noise[0, 0, 0, 0])))
    folds = gaussian_filter(own.normal(0, 1, noise.shape), (0, 1.5, 1.5, 1.5))
    noise += 0.5 * folds / folds.std()
    shade = (grid[2] / shape[2] - 0.5)[None] * np.array([0.6, -0.6])[:, None, None, None]
    bright = np.array([[0.0, 2.0, 1.0], [0.0, -0.8, 2.5]])[:, labels]
    image = np.where(head, noise + shade + bright, -1.2).astype(np.float32)
    return image, labels, head.astype(np.int16)
