"""``trainConfig.cfg`` and ``modelConfig.cfg``: literals, never executed.

DeepMedic executes its configuration files as Python. Here they are parsed: assignments of literals
(and sums of numbers) are read, anything else is refused by file and line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Listed:
    """One case as the list files (or the csv) name it: absolute paths, not opened.

    Attributes:
        channels: one for each channel; None for one that the case lacks (``-``).
        labels: ground truth; None where the lists name none (validation by whole volumes).
        roi: region of interest; None where there is none.
        line: number of the entry, from 1, for messages.
    """

    channels: tuple[Path | None, ...]
    labels: Path | None
    roi: Path | None
    line: int


@dataclass(frozen=True)
class TrainConfig:
    """A training's configuration, with DeepMedic's defaults where the file says nothing.

    Attributes:
        path: the file, absolute.
        values: every assignment of the file, in its order.
        channels: names of the channels: of the csv's columns, else what tells the list files' names
            apart.
        train: training cases.
        validation: cases that are validated on; empty if the file validates on none.
        predictions: names for the validation cases' predictions; empty if there are none.
        epochs: numberOfEpochs (35).
        subepochs: numberOfSubepochs (20).
        cases: numOfCasesLoadedPerSubepoch (50).
        segments: numberTrainingSegmentsLoadedOnGpuPerSubep (1000).
        batch: batchsize_train.
        processes: num_processes_sampling (0).
        sampling: typeOfSamplingForTraining (3): 0 foreground/background, 1 uniform, 2 whole image,
            3 per class.
        proportions: proportionOfSamplesToExtractPerCategoryTraining; None for equal ones.
        sampling_validation: typeOfSamplingForVal (1).
        validates_on_samples: performValidationOnSamplesThroughoutTraining.
        validates_on_volumes: performFullInferenceOnValidationImagesEveryFewEpochs.
        weighted: weightedMapsForSamplingEachCategoryTrain is set.
        normalise: DeepMedic normalises some channel itself (norm_zscore_prms).
        pad: padInputImagesBool (True).
    """

    path: Path
    values: Mapping[str, Any]
    channels: tuple[str, ...]
    train: tuple[Listed, ...]
    validation: tuple[Listed, ...]
    predictions: tuple[str, ...]
    epochs: int
    subepochs: int
    cases: int
    segments: int
    batch: int
    processes: int
    sampling: int
    proportions: tuple[float, ...] | None
    sampling_validation: int
    validates_on_samples: bool
    validates_on_volumes: bool
    weighted: bool
    normalise: bool
    pad: bool


@dataclass(frozen=True)
class ModelConfig:
    """A network's configuration, with DeepMedic's defaults where the file says nothing.

    Attributes:
        path: the file, absolute; None for DeepMedic's own example (``deepMedic``).
        values: every assignment of the file.
        classes: numberOfOutputClasses, background included.
        channels: numberOfInputChannels.
        features: numberFMsPerLayerNormal.
        kernels: kernelDimPerLayerNormal.
        residual: layersWithResidualConn, layers counted from 1.
        lower_rank: lowerRankLayersNormal.
        low: one tuple of feature numbers for each subsampled path; empty without.
        low_kernels: kernels of the subsampled paths (those of the normal path).
        factors: subsampleFactor of each subsampled path.
        fc: numberFMsPerLayerFC, without the classification layer.
        fc_kernels: kernelDimPerLayerFC, the classification layer's last.
        fc_residual: layersWithResidualConnFC.
        dropout: dropoutRatesFC, one for each FC layer and the classification layer.
        activation: activationFunction: linear, relu, prelu, elu, selu.
        rolling: rollAverageForBNOverThatManyBatches; 0 for no batch normalisation.
        segment: segmentsDimTrain.
        segment_validation: segmentsDimVal.
        segment_inference: segmentsDimInference.
        initial: convWeightsInit as ("fanIn", 2) or ("normal", 0.01).
    """

    path: Path | None
    values: Mapping[str, Any]
    classes: int
    channels: int
    features: tuple[int, ...]
    kernels: tuple[tuple[int, int, int], ...]
    residual: tuple[int, ...]
    lower_rank: tuple[int, ...]
    low: tuple[tuple[int, ...], ...]
    low_kernels: tuple[tuple[tuple[int, int, int], ...], ...]
    factors: tuple[tuple[int, int, int], ...]
    fc: tuple[int, ...]
    fc_kernels: tuple[tuple[int, int, int], ...]
    fc_residual: tuple[int, ...]
    dropout: tuple[float, ...]
    activation: str
    rolling: int
    segment: tuple[int, int, int]
    segment_validation: tuple[int, int, int]
    segment_inference: tuple[int, int, int]
    initial: tuple[str, float] = field(default=("fanIn", 2.0))

    @property
    def receptive(self) -> tuple[int, int, int]:
        """Receptive field of the normal path in voxels, as DeepMedic's ``rec_field``."""
        raise NotImplementedError


def read_literals(path: Path) -> dict[str, Any]:
    """Every assignment of a configuration file, in its order; nothing is executed.

    Raises:
        UsageFault: there is no such file.
        DataFault: it is not text, no Python, or holds anything but assignments of literals: file,
            line, and what was found.
    """
    raise NotImplementedError


def read_train_config(path: Path) -> TrainConfig:
    """Read a training's configuration and its list files or csv; no image is opened.

    Raises:
        UsageFault: there is no such file.
        DataFault: code, a key that is missing or of another type, a list file that is missing,
            lists of unequal length, a first channel that is missing.
    """
    raise NotImplementedError


def read_model_config(path: Path) -> ModelConfig:
    """Read a network's configuration.

    Raises:
        UsageFault: there is no such file.
        DataFault: code, or a key that is missing, of another type, or does not fit the others.
    """
    raise NotImplementedError
