"""A tiny DeepMedic data set of phantoms: a head with a lesion of nested classes, two channels.

``toy_deepmedic(folder)`` writes volumes, list files and both configurations; any test may call it
for a folder of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

CHANNELS = ("flair", "t1c")
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""As most brains are stored: x and y run against nibabel's axes."""
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
    """Where it is.

    Attributes:
        folder: of everything.
        train: ``trainConfig.cfg``.
        model: ``modelConfig.cfg``.
    """

    folder: Path
    train: Path
    model: Path


def toy_deepmedic(
    folder: Path,
    *,
    train: int = 4,
    val: int = 2,
    shape: Sequence[int] = (36, 32, 28),
    roi: bool = True,
    affine: npt.NDArray[np.float64] = AFFINE,
    values: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Toy:
    """Write ``data/pat_NN/{flair,t1c,labels,roi}.nii.gz``, lists, and both configurations.

    Args:
        folder: made where it is missing.
        train: training cases.
        val: validation cases; with some, both validations are on.
        shape: voxels along x, y, z of the first case; later ones differ by a few.
        roi: list regions of interest, int16.
        affine: of every file.
        values: further or other values of ``trainConfig.cfg``; None leaves a key out.
        model: further or other values of ``modelConfig.cfg``.
        seed: of everything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(train + val):
        size = tuple(n + 2 * (number % 3) for n in shape)
        _write(folder / "data" / f"pat_{number:02d}", phantom(rng, size), affine)
    wanted: dict[str, Any] = dict(TRAIN_VALUES)
    wanted |= _lists(folder, "Training", range(train), roi)
    if val:
        wanted |= {
            "performValidationOnSamplesThroughoutTraining": True,
            "performFullInferenceOnValidationImagesEveryFewEpochs": True,
            "numberValidationSegmentsLoadedOnGpuPerSubep": 40,
            "batchsize_val_samples": 10,
            "numberOfEpochsBetweenFullInferenceOnValImages": 1,
            "namesForPredictionsPerCaseVal": "./names.cfg",
        }
        wanted |= _lists(folder, "Validation", range(train, train + val), roi)
        names = "".join(f"pred_{n:02d}.nii.gz\n" for n in range(train, train + val))
        (folder / "names.cfg").write_text(names)
    wanted |= values or {}
    return Toy(
        folder,
        write_config(folder / "trainConfig.cfg", wanted),
        write_config(folder / "modelConfig.cfg", {**MODEL_VALUES, **(model or {})}),
    )


def write_config(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a configuration; keys of None are left out."""
    lines = [f"{key} = {value!r}\n" for key, value in values.items() if value is not None]
    path.write_text("# a comment\n" + "".join(lines))
    return path


Phantom = tuple[npt.NDArray[np.float32], npt.NDArray[np.int16], npt.NDArray[np.int16]]


def phantom(rng: np.random.Generator, shape: Sequence[int]) -> Phantom:
    """Image (C, X, Y, Z), labels (0 none, 1 rim, 2 core) and region of interest of one head.

    In the head images have about zero mean and unit deviation; outside they are a constant.
    """
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).astype(np.float32)
    middle = (np.array(shape) - 1) / 2
    head = _distance(grid, middle, np.array(shape) * 0.44) < 1
    radius = rng.uniform(0.14, 0.2) * min(shape)
    centre = middle + rng.uniform(-0.12, 0.12, 3) * shape
    lesion = _distance(grid, centre, np.full(3, radius))
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


def _distance(
    grid: npt.NDArray[np.float32], centre: npt.NDArray[Any], radii: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    scaled = (grid - centre[:, None, None, None]) / radii[:, None, None, None]
    distance: npt.NDArray[Any] = np.sqrt((scaled**2).sum(axis=0))
    return distance


def _write(folder: Path, case: Phantom, affine: npt.NDArray[np.float64]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image, labels, roi = case
    for name, array in (*zip(CHANNELS, image, strict=True), ("labels", labels), ("roi", roi)):
        nib.save(nib.Nifti1Image(array, affine), folder / f"{name}.nii.gz")


def _lists(folder: Path, part: str, numbers: Sequence[int], roi: bool) -> dict[str, Any]:
    """Write the list files of one part, relative paths; the keys that name them."""
    return write_lists(
        folder, part, roi, lambda name: [f"./data/pat_{n:02d}/{name}.nii.gz" for n in numbers]
    )


def write_lists(
    folder: Path, part: str, roi: bool, paths: Callable[[str], Sequence[str]]
) -> dict[str, Any]:
    """Write the list files of one part; the keys that name them.

    Args:
        folder: to write into.
        part: ``Training`` or ``Validation``.
        roi: list regions of interest, too.
        paths: of a channel, of ``labels`` or of ``roi``.
    """

    def listed(name: str) -> str:
        text = "".join(f"{path}\n" for path in paths(name))
        (folder / f"{part.lower()}_{name}.cfg").write_text(f"# {name}\n{text}")
        return f"./{part.lower()}_{name}.cfg"

    keys: dict[str, Any] = {
        f"channels{part}": [listed(name) for name in CHANNELS],
        f"gtLabels{part}": listed("labels"),
    }
    return keys | ({f"roiMasks{part}": listed("roi")} if roi else {})
