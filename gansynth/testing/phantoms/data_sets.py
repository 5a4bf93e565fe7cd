"""Phantoms as data sets on disk: nnU-Net's, DeepMedic's, YOLO's, and those of papers' recipes."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import ndimage

from gansynth.core.schema import Boxes
from gansynth.data.case_writer import write_volume, yolo_lines
from gansynth.data.nifti import interpolate_slices
from gansynth.report.png import png_bytes
from gansynth.runtime.files import disk_errors, whole_folder
from gansynth.runtime.machine import cores
from gansynth.testing.phantoms.brains import (
    CHANNELS,
    LABELS,
    TISSUES,
    Array,
    Phantom,
    PhantomOptions,
    make_phantom,
    make_tissues,
)
from gansynth.testing.phantoms.livers import LIVER_LABELS, make_liver

NOTE = (
    "PHANTOMS, NOT PATIENTS: simulated {}, made by gansynth. For demonstrations and software tests "
    "only; nothing here has any clinical meaning."
)
DESCRIPTION = NOTE.format("brain MR with simulated gliomas") + (
    " Anatomy derived from the MNI152 maps as shipped by nilearn; Copyright (C) 1993-2009 Louis "
    "Collins, McConnell Brain Imaging Centre, MNI, McGill University."
)
LICENCE = (
    "Derived from the MNI152 maps, whose licence nilearn states as unknown; other distributors of "
    "them carry the McGill notice, which permits use, copying, modification and distribution for "
    "any purpose and without fee, provided that the copyright notice appears in all copies."
)
BRAINS, TWO = PhantomOptions(), PhantomOptions(channels=("FLAIR", "T1c"))
T1, SLICES = PhantomOptions(channels=("T1",)), PhantomOptions(1.5, ("T1c",))


@dataclass(frozen=True)
class PhantomKind:
    """One kind of data set.

    ``write`` gets a folder, the number of subjects, the subjects one by one and their options; it
    returns further facts for the ``document``, a JSON file. ``opens``: what to open, in the folder.
    """

    write: Callable[[Path, int, Iterator[Phantom], PhantomOptions], Mapping[str, Any]]
    make: Callable[[int, int, PhantomOptions], Phantom] = make_phantom
    labels: Mapping[str, int] | None = None
    options: PhantomOptions = BRAINS
    document: str = "phantoms"
    opens: str = ""
    description: str = DESCRIPTION
    licence: str | None = LICENCE


def write_phantoms(
    kind: str,
    folder: Path,
    n: int,
    seed: int = 0,
    options: PhantomOptions | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Path:
    """Write `n` phantoms as a data set of one of `KINDS`, and return what opens it.

    The same arguments give the same bytes. ``advance`` is called after each subject.
    """
    chosen = KINDS[kind]
    options = options or chosen.options

    def made() -> Iterator[Phantom]:
        at_once = cores()
        with ThreadPoolExecutor(at_once) as pool:
            for first in range(0, n, at_once):  # no more of them in memory
                numbers = range(first, min(first + at_once, n))
                for phantom in pool.map(lambda index: chosen.make(index, seed, options), numbers):
                    yield phantom
                    advance()

    about: dict[str, Any] = {"description": chosen.description, "licence": chosen.licence}
    about |= {"labels": chosen.labels, "phantoms": {"seed": seed} | asdict(options)}
    with whole_folder(folder) as building, disk_errors(folder):
        about |= chosen.write(building, n, made(), options)
        text = json.dumps(about, indent=2) + "\n"
        (building / f"{chosen.document}.json").write_text(text, "utf-8")
    return folder / chosen.opens


# -- volumes with label maps ---------------------------------------------------------------------

BRATS_CHANNELS = dict(zip(CHANNELS, ("t1", "t1ce", "t2", "flair"), strict=True))
BRATS_LABELS = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
BRATS_VALUES = np.array([0, 2, 1, 4], np.int16)
"""BraTS's value of each of our labels: background, oedema, core (necrosis), enhancing."""
EVERY = 3
"""Every n-th slice of a liver is drawn by hand."""


def _numbered(
    name: str, folder: Path, n: int, made: Iterator[Phantom], options: PhantomOptions
) -> dict[str, Any]:
    """Write files as nnU-Net names them: `images/NAME_000_0000.nii.gz`, `labels/NAME_000.nii.gz`.

    Labels of livers simulate a reader who draws the slice with the most tumour and every third
    slice from there; the others are interpolated. `truth/liver_000.nii.gz` has the exact labels.
    """
    ending = "Tr" if name == "phantom" else ""
    for index, phantom in enumerate(made):
        case = f"{name}_{index:03d}"
        files = {f"images{ending}/{case}_{c:04d}": v for c, v in enumerate(phantom.image)}
        files[f"labels{ending}/{case}"] = labels = phantom.labels
        if name == "liver":
            first = int(labels.sum(axis=(1, 2)).argmax()) % EVERY
            drawn = np.zeros_like(labels)
            drawn[first::EVERY] = labels[first::EVERY]
            files |= {f"truth/{case}": labels}
            files[f"labels/{case}"] = interpolate_slices(drawn, every=EVERY)
        for file, volume in files.items():
            write_volume(folder / f"{file}.nii.gz", volume, phantom.affine)
    channels = ("CT",) if name == "liver" else options.channels
    names = {str(number): channel for number, channel in enumerate(channels)}
    return {"channel_names": names, "numTraining": n, "file_ending": ".nii.gz"}


def _brats(
    folder: Path, n: int, made: Iterator[Phantom], options: PhantomOptions
) -> dict[str, Any]:
    """Write `BraTS20_phantom_000/BraTS20_phantom_000_flair.nii.gz`, `t1` ..., and `seg`."""
    for index, phantom in enumerate(made):
        start = f"BraTS20_phantom_{index:03d}"
        names = [BRATS_CHANNELS[channel] for channel in options.channels] + ["seg"]
        volumes = [*phantom.image, BRATS_VALUES[phantom.labels]]
        for name, volume in zip(names, volumes, strict=True):
            write_volume(folder / start / f"{start}_{name}.nii.gz", volume, phantom.affine)
    return {}


# -- DeepMedic -----------------------------------------------------------------------------------

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


def _deepmedic(
    folder: Path, n: int, made: Iterator[Phantom], options: PhantomOptions
) -> dict[str, Any]:
    """Write `sub-003/FLAIR.nii.gz`, ..., `labels.nii.gz`, and `brain.nii.gz`: where to look.

    As in DeepMedic's examples, images have zero mean and unit deviation within the brain, and the
    normalised value of 0 outside. The first three quarters of the subjects are for training, the
    others for validation. `trainConfig.cfg` and `modelConfig.cfg` are for minutes on a CPU.
    """
    subjects = [f"sub-{index:03d}" for index in range(n)]
    train = n - max(1, round(HELD_OUT * n))
    parts = {"Training": subjects[:train], "Validation": subjects[train:]}
    for subject, phantom in zip(subjects, made, strict=True):
        brain = phantom.image[0] > 0
        volumes: dict[str, Any] = {"labels": phantom.labels, "brain": brain.astype(np.int16)}
        for channel, volume in zip(options.channels, phantom.image, strict=True):
            inside = volume[brain].astype(np.float64)
            volumes[channel] = ((volume - inside.mean()) / inside.std()).astype(np.float32)
        for name, volume in volumes.items():
            write_volume(folder / subject / f"{name}.nii.gz", volume, phantom.affine)
    keys: dict[str, Any] = {}
    for part, members in parts.items():
        lists = [
            _list(folder, part, members, name) for name in (*options.channels, "labels", "brain")
        ]
        keys[f"channels{part}"] = lists[:-2]
        keys[f"gtLabels{part}"], keys[f"roiMasks{part}"] = lists[-2:]
    names = "".join([f"{subject}.nii.gz\n" for subject in parts["Validation"]])
    (folder / "validation_names.cfg").write_text(names, "utf-8")
    model = dict(MODEL, numberOfInputChannels=len(options.channels))
    keys = dict(TRAIN) | keys
    for file, values in (("trainConfig.cfg", keys), ("modelConfig.cfg", model)):
        head = (
            "# Phantoms, not patients: simulated brains with simulated gliomas, made by gansynth.\n"
        )
        lines = [f"{key} = {value!r}\n" for key, value in values.items()]
        (folder / file).write_text(f"{head}{''.join(lines)}", "utf-8")
    return {"subjects": parts}


def _list(folder: Path, part: str, subjects: Sequence[str], name: str) -> str:
    """Write the list of one kind of file, and return its name as a configuration has it."""
    file = f"{part.lower()}_{name}.cfg"
    text = "".join([f"./{subject}/{name}.nii.gz\n" for subject in subjects])
    (folder / file).write_text(text, "utf-8")
    return f"./{file}"


# -- slices with boxes ---------------------------------------------------------------------------

LONGEST_MM = 192.0
"""Edge of the square slices: the length of the longest brain."""
SLICE_MM = 3.0
"""Distance between slices."""
FEWEST_PIXELS = 4
"""Minimum area of a lesion in a slice; slices with a smaller one are ambiguous and left out."""
LEAST_BRAIN = 0.15
"""Minimum brain area of a slice, as a share of the largest slice's."""
BRIGHTEST = 99.9
"""Percentile of the brain that becomes white; black is 0."""


def _yolo(folder: Path, n: int, made: Iterator[Phantom], options: PhantomOptions) -> dict[str, Any]:
    """Write slices of the first channel; a box is around the core and its rim of a glioma."""
    pairs = ((p.image[0], (p.labels >= LABELS["core"]).astype(np.int16)) for p in made)
    write_slices(folder, n, pairs, "glioma", options.spacing_mm, DESCRIPTION)
    return {}


def write_slices(
    folder: Path,
    n: int,
    made: Iterable[tuple[Array, NDArray[np.int16]]],
    name: str,
    spacing_mm: float,
    description: str,
) -> None:
    """Write slices of images with lesions by number, (D, H, W), as a YOLO data set of one class.

    Pictures are 8-bit grey PNG files named `sub-003_z014.png`. Subjects are split 70 : 10 : 20 into
    train, val and test, at least one each. Slices without a lesion have an empty text file.
    """
    val, test = max(1, round(0.1 * n)), max(1, round(0.2 * n))
    splits = ["train"] * (n - val - test) + ["val"] * val + ["test"] * test
    for index, (split, pair) in enumerate(zip(splits, made, strict=True)):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True, exist_ok=True)
        for z, pixels, boxes in _slices(*pair, spacing_mm):
            file = f"{split}/sub-{index:03d}_z{z:03d}"
            (folder / "images" / f"{file}.png").write_bytes(png_bytes(pixels))
            text = yolo_lines(boxes, pixels.shape)
            (folder / "labels" / f"{file}.txt").write_text(text, "utf-8")
    head = "".join([f"# {line}\n" for line in textwrap.wrap(description, 96)])
    content: dict[str, Any] = {split: f"images/{split}" for split in dict.fromkeys(splits)}
    content |= {"nc": 1, "names": {0: name}, "channels": 1}
    (folder / "data.yaml").write_text(head + yaml.safe_dump(content, sort_keys=False), "utf-8")


def _slices(
    image: Array, lesions: NDArray[np.int16], mm: float
) -> Iterator[tuple[int, NDArray[np.uint8], Boxes]]:
    """Yield slices with enough brain, front up, in which each lesion is large enough or absent."""
    edge = 8 * int(np.ceil(LONGEST_MM / mm / 8))
    brain = image > 0
    white = np.percentile(image[brain], BRIGHTEST)
    grey = np.rint(np.clip(image / white, 0, 1) * 255).astype(np.uint8)
    h, w = [(int(i.min()) + int(i.max()) + 1) // 2 for i in np.nonzero(brain)[1:]]
    area = brain.sum(axis=(1, 2))
    chosen = np.flatnonzero(area >= LEAST_BRAIN * area.max())[:: max(1, round(SLICE_MM / mm))]
    for number, z in enumerate(chosen):
        padded = [np.pad(volume[z], edge // 2) for volume in (grey, lesions)]
        pixels, seen = [plane[h : h + edge, w : w + edge][::-1] for plane in padded]
        sizes = np.bincount(seen.ravel())[1:]
        if (sizes[sizes > 0] >= FEWEST_PIXELS).all():
            places = [place for place in ndimage.find_objects(seen) if place is not None]
            coords = [[y.start, x.start, y.stop, x.stop] for y, x in places]
            shaped = np.array(coords, np.float32).reshape(-1, 4)
            yield number, pixels, Boxes(shaped, np.zeros(len(coords), np.int16))


HEALTHY = DESCRIPTION.replace("with simulated gliomas", "of healthy subjects")
ABDOMEN = NOTE.format("abdominal CT with simulated lesions of the liver")
KINDS = {
    "nnunet": PhantomKind(partial(_numbered, "phantom"), labels=LABELS, document="dataset"),
    "deepmedic": PhantomKind(_deepmedic, labels=LABELS, options=TWO, opens="trainConfig.cfg"),
    "brats": PhantomKind(_brats, labels=BRATS_LABELS),
    "tissues": PhantomKind(
        partial(_numbered, "healthy"), make_tissues, TISSUES, T1, "dataset", description=HEALTHY
    ),
    "livers": PhantomKind(
        partial(_numbered, "liver"), make_liver, LIVER_LABELS, BRAINS, "dataset", "", ABDOMEN, None
    ),
    "yolo": PhantomKind(_yolo, options=SLICES, opens="data.yaml"),
}
"""Kind -> how it is made and written."""
