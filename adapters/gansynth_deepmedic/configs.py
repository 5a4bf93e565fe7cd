"""``trainConfig.cfg`` and ``modelConfig.cfg``: literals, never executed.

DeepMedic executes them as Python; ``literals`` describes what is read here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.keys import ConfigKeys
from gansynth_deepmedic.lists import CaseLists, ListedCase, read_part
from gansynth_deepmedic.literals import read_literals
from gansynth_deepmedic.model_config import ModelConfig, read_model_config

__all__ = [
    "ListedCase",
    "ModelConfig",
    "TrainConfig",
    "read_literals",
    "read_model_config",
    "read_train_config",
]

SCHEDULES = ("stable", "predef", "poly", "auto", "expon")
SAMPLINGS = FORE_BACKGROUND, UNIFORM, WHOLE, PER_CLASS = range(4)
"""typeOfSampling: foreground and background; uniform; whole image (as uniform); per class."""
ON_SAMPLES = "performValidationOnSamplesThroughoutTraining"
ON_VOLUMES = "performFullInferenceOnValidationImagesEveryFewEpochs"
_NAMES = "namesForPredictionsPerCaseVal"
_SCORES = "norm_zscore_prms"


@dataclass(frozen=True)
class TrainConfig:
    """A training's configuration, with DeepMedic's defaults for missing keys."""

    path: Path  # the file, absolute
    values: Mapping[str, Any]  # every assignment of the file, in its order
    # names of the channels: the csv's columns, else distinguishing parts of the list files' names
    channels: tuple[str, ...]
    train: tuple[ListedCase, ...]  # training cases, each once
    # validation cases, each once; empty without validation
    validation: tuple[ListedCase, ...]
    # names for the validation cases' predictions; empty if there are none
    predictions: tuple[str, ...]
    epochs: int  # numberOfEpochs (35)
    subepochs: int  # numberOfSubepochs (20)
    cases: int  # numOfCasesLoadedPerSubepoch (50)
    segments: int  # numberTrainingSegmentsLoadedOnGpuPerSubep (1000)
    batch: int  # batchsize_train
    processes: int  # num_processes_sampling (0)
    # typeOfSamplingForTraining (3): 0 foreground/background, 1 uniform, 2 whole image, 3 per class
    sampling: int
    # proportionOfSamplesToExtractPerCategoryTraining; None for equal ones
    proportions: tuple[float, ...] | None
    sampling_validation: int  # typeOfSamplingForVal (1)
    validates_on_samples: bool  # performValidationOnSamplesThroughoutTraining
    validates_on_volumes: bool  # performFullInferenceOnValidationImagesEveryFewEpochs
    weighted: bool  # weightedMapsForSamplingEachCategoryTrain is set
    normalise: bool  # DeepMedic normalises some channel itself (norm_zscore_prms)
    pad: bool  # padInputImagesBool (True)
    normalised: tuple[bool, ...] = ()  # of each channel, whether DeepMedic normalises it itself
    # entries of the training and validation lists that repeat a case
    repeated: tuple[ListedCase, ...] = ()
    train_list: Path = Path()  # file that names the training cases' first channels
    validation_list: Path | None = None  # the same for validation; None without validation
    session: str = "trainSession"  # sessionName (trainSession)


def category_masks(
    kind: int, labels: npt.NDArray[np.int16], classes: int
) -> list[npt.NDArray[np.bool_]]:
    """Return the mask of each category of a type of sampling, in the shape of the labels."""
    if kind == FORE_BACKGROUND:
        return [labels > 0, labels <= 0]
    if kind == PER_CLASS:
        return [labels == value for value in range(classes)]
    return [np.ones(labels.shape, np.bool_)]


def read_train_config(path: Path) -> TrainConfig:
    """Read a training's configuration and its list files or csv; no image is opened.

    Raises:
        UsageFault: there is no such file.
        DataFault: code, an invalid or missing key, a missing list file, lists of unequal length, or
            a missing first channel.
    """
    path = Path(os.path.abspath(path))
    return _config(path, ConfigKeys(path, read_literals(path)))


def _config(path: Path, keys: ConfigKeys) -> TrainConfig:
    on_samples, on_volumes = keys.flag(ON_SAMPLES, False), keys.flag(ON_VOLUMES, False)
    _refuse_schedule(keys, on_samples)
    train, held = _read_parts(keys, on_samples, on_volumes)
    sampling = int(keys.one_of("typeOfSamplingForTraining", SAMPLINGS, 3))
    normalised = _normalised(keys, len(train.channels))
    return TrainConfig(
        path,
        keys.values,
        train.channels,
        train.cases,
        held.cases,
        held.predictions,
        epochs=keys.whole("numberOfEpochs", 35),
        subepochs=keys.whole("numberOfSubepochs", 20),
        cases=keys.whole("numOfCasesLoadedPerSubepoch", 50),
        segments=keys.whole("numberTrainingSegmentsLoadedOnGpuPerSubep", 1000),
        batch=keys.whole("batchsize_train"),
        processes=keys.whole("num_processes_sampling", 0, least=-1),
        sampling=sampling,
        proportions=_proportions(keys, sampling),
        sampling_validation=int(keys.one_of("typeOfSamplingForVal", SAMPLINGS, 1)),
        validates_on_samples=on_samples,
        validates_on_volumes=on_volumes,
        weighted=keys.has("weightedMapsForSamplingEachCategoryTrain"),
        normalise=any(normalised),
        pad=keys.flag("padInputImagesBool", True),
        normalised=normalised,
        repeated=train.repeated + held.repeated,
        train_list=train.where,
        validation_list=held.where if held.cases else None,
        session=keys.text("sessionName", "trainSession"),
    )


def _read_parts(
    keys: ConfigKeys, on_samples: bool, on_volumes: bool
) -> tuple[CaseLists, CaseLists]:
    train = read_part(keys, "Training", "dataframe_train")
    if not (on_samples or on_volumes):
        return train, CaseLists(train.where, train.channels, ())
    held = read_part(keys, "Validation", "dataframe_val", _NAMES)
    _compare(keys, train, held)
    if on_volumes and not held.predictions:
        _refuse_nameless(keys)
    return train, held


def _refuse_schedule(keys: ConfigKeys, on_samples: bool) -> None:
    """Reject a missing or incomplete learning-rate schedule, at which DeepMedic stops."""
    key = "typeOfLearningRateSchedule"
    kind = keys.one_of(key, SCHEDULES)
    if kind == "predef" and not keys.has("predefinedSchedule"):
        raise keys.odd("predefinedSchedule", f"a list of epochs, as {key} is 'predef'")
    if kind == "auto" and not on_samples:
        raise DataFault(
            f"{keys.path}: {key} is 'auto', expected {ON_SAMPLES} = True with it; set it, or "
            "choose another schedule"
        )


def _refuse_nameless(keys: ConfigKeys) -> None:
    """Reject validation on whole volumes that saves predictions without names."""
    maps = keys.values.get("saveProbMapsForEachClassVal")
    saves = keys.flag("saveSegmentationVal", True) or keys.flag("saveIndividualFmsVal", False)
    if saves or maps in (None, [], ()) or (isinstance(maps, list | tuple) and True in maps):
        raise DataFault(
            f"{keys.path}: no {_NAMES}, expected a file that lists a name for each validation "
            f"case's prediction, as {ON_VOLUMES} is True; add it, or save nothing"
        )


def _compare(keys: ConfigKeys, train: CaseLists, held: CaseLists) -> None:
    """Reject parts with different channels or orders of channels."""
    if len(train.channels) != len(held.channels):
        raise DataFault(
            f"{keys.path}: {len(held.channels)} channel(s) to validate on ({held.where}), but "
            f"{len(train.channels)} to train on ({train.where}); expected as many; correct the "
            "lists"
        )
    if set(train.channels) == set(held.channels) and train.channels != held.channels:
        raise DataFault(
            f"{keys.path}: channels to validate on are {', '.join(held.channels)}, but to train on "
            f"{', '.join(train.channels)}; expected the same order; reorder channelsValidation"
        )


def _proportions(keys: ConfigKeys, sampling: int) -> tuple[float, ...] | None:
    """Read the shares of the categories, which DeepMedic uses for types 0 and 3 only."""
    key = "proportionOfSamplesToExtractPerCategoryTraining"
    if sampling not in (0, 3):
        return None
    shares = keys.numbers(key, low=0) if keys.has(key) else None
    if shares is not None and not sum(shares) > 0:
        raise keys.odd(key, "numbers from 0 that do not sum up to 0")
    if shares is not None and sampling == 0 and len(shares) != 2:
        raise keys.odd(key, "two numbers, for foreground and background")
    return shares


def _normalised(keys: ConfigKeys, channels: int) -> tuple[bool, ...]:
    """Return which channels DeepMedic itself normalises to zero mean and unit variance."""
    table = keys.values.get(_SCORES)
    if table is None:
        return (False,) * channels
    if not isinstance(table, dict):
        raise keys.odd(_SCORES, "a dict")
    each, every = table.get("apply_per_channel"), table.get("apply_to_all_channels")
    if each is None:
        return (bool(every),) * channels
    if every or not isinstance(each, list) or len(each) != channels:
        raise DataFault(
            f"{keys.path}: {_SCORES}: apply_per_channel has to be True or False for each of "
            f"{channels} channel(s) and apply_to_all_channels False; correct them"
        )
    return tuple(bool(flag) for flag in each)
