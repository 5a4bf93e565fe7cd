"""Settings of the torch engine beyond cases and segments, read from both configurations.

Keys of ``trainConfig.cfg`` and their defaults are DeepMedic's (``trainSessionParams.py`` of commit
e10ba7c). Unsupported keys are rejected, not ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from gansynth.core.adapter import HostOptions
from gansynth.metrics.segmentation.regions import Regions, read_regions
from gansynth.runtime.errors import DataFault
from gansynth.runtime.option_kinds import Device
from gansynth.runtime.options import read_settings as read_options
from gansynth.runtime.serialise import Document
from gansynth_deepmedic.engine.configs import (
    ConfigFile,
    ModelConfig,
    Number,
    Share,
    TrainConfig,
    Weight,
    Whole,
)
from gansynth_deepmedic.engine.geometry import SegmentGeometry, Which


class TorchSettings(HostOptions):
    """Keys of ``--set`` for the torch engine, beside those of every DeepMedic training."""

    device: Device = Field("auto", description="training device: auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="fp32, bf16, or auto: bf16 where the device computes it natively"
    )
    regions: str = Field(
        "",
        description="regions to report Dice and HD95 of, as unions of labels: WT:1+2+3+4,TC:1+3+4",
    )
    save_predictions: bool | None = Field(
        None,
        description="write the segmentations of the validation cases (as the configuration's "
        "saveSegmentationVal, else yes)",
    )


OptimiserKind = Literal["sgd", "adam", "rmsprop"]
ScheduleKind = Literal["stable", "predef", "poly", "auto", "expon"]


@dataclass(frozen=True)
class Optimisation:
    """Settings of the optimiser."""

    kind: OptimiserKind = "rmsprop"  # sgd0orAdam1orRms2
    rate: float = 1e-3  # learningRate, at the start
    momentum: float = 0.6  # momentumValue; not of Adam
    nesterov: bool = True  # classicMom0OrNesterov1
    normalised: bool = True  # momNonNorm0orNormalized1: steps are multiplied by 1 - momentum
    rho: float = 0.9  # rhoRms
    eps: float = 1e-4  # epsilonRms or epsilonAdam
    b1: float = 0.9  # b1Adam
    b2: float = 0.999  # b2Adam
    l1: float = 1e-6  # L1_reg, of the weights of convolutions
    l2: float = 1e-4  # L2_reg, likewise


@dataclass(frozen=True)
class RateSchedule:
    """Schedule of the learning rate over epochs."""

    kind: ScheduleKind = "poly"  # typeOfLearningRateSchedule
    epochs: int = 35  # of the whole training
    wait: float = 35 / 3  # numEpochsToWaitBeforeLoweringLr
    divide: float = 2.0  # whenDecreasingDivideLrBy
    at: tuple[float, ...] = ()  # predefinedSchedule: epochs after which the rate is divided
    least_gain: float = 0.0  # min_incr_of_val_acc_considered
    last_rate: float = 1 / 2**8  # of paramsForExpSchedForLrAndMom
    last_momentum: float = 0.9  # likewise


@dataclass(frozen=True)
class Losses:
    """Weights of the losses; a weight of 0 leaves a loss out."""

    xentr: float = 1.0  # weight of the cross-entropy
    iou: float = 0.0  # weight of 1 - intersection over union
    dsc: float = 0.0  # weight of 1 - Dice
    # class weights of the cross-entropy: ``freq`` by inverse frequency in the batch, ``per_c`` by
    # ``weights``, empty for none
    reweight: Literal["", "freq", "per_c"] = ""
    weights: tuple[float, ...] = ()  # one for each class
    # (first, last) epoch between which class weights fade to 1
    until: tuple[float, float] = (0.0, 35.0)


@dataclass(frozen=True)
class Validation:
    """Settings of validation on real cases."""

    samples: bool = False  # whether segments are evaluated before each subepoch
    segments: int = 3000  # numberValidationSegmentsLoadedOnGpuPerSubep
    batch: int = 50  # batchsize_val_samples
    # whether whole volumes are evaluated every ``every`` epochs; always at the end of the training
    volumes: bool = False
    every: int = 1  # numberOfEpochsBetweenFullInferenceOnValImages
    batch_volumes: int = 10  # batchsize_val_whole
    save: bool = True  # whether segmentations are written


@dataclass(frozen=True)
class EngineSettings(Document, whole=True):
    """All settings of the torch engine."""

    classes: int  # background included
    channels: int  # of the image
    device: str = "auto"  # see ``gansynth.runtime.devices.pick_device``
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # ``auto``, ``bf16`` or ``fp32``
    regions: Regions = ()  # names and their labels, to report Dice of
    optimisation: Optimisation = field(default_factory=Optimisation)  # of the weights
    rates: RateSchedule = field(default_factory=RateSchedule)  # of the learning rate
    losses: Losses = field(default_factory=Losses)  # of the network's output
    validation: Validation = field(default_factory=Validation)  # on real cases


def read_settings(
    settings: Mapping[str, str], train: TrainConfig, model: ModelConfig
) -> EngineSettings:
    """Read and check all settings of the engine.

    Args:
        settings: keys of ``TorchSettings`` only, as typed.

    Raises:
        UsageFault: an unknown or invalid setting.
        DataFault: an invalid or unsupported key of a configuration.
    """
    options = read_options(TorchSettings, settings, "the torch engine")
    refuse_unable(train, model)
    for which in get_args(Which):
        SegmentGeometry.from_model(model, which)
    values = ConfigFile(train.path, train.values)
    save = values.get("saveSegmentationVal", Annotated[bool, Field(strict=True)], True)
    return EngineSettings(
        classes=model.classes,
        channels=model.channels,
        device=options.device,
        precision=options.precision,
        regions=read_regions(
            options.regions,
            range(1, model.classes),
            expected=f"numbers from 1 to {model.classes - 1}",
        ),
        optimisation=_optimisation(values),
        rates=_rates(values, train),
        losses=_losses(values, train, model.classes),
        validation=_validation(
            values, train, save if options.save_predictions is None else options.save_predictions
        ),
    )


_UNABLE = (
    "layersToFreezeNormal",
    "layersToFreezeSubsampled",
    "layersToFreezeFC",
    "cnnModelFilePath",
    "weightedMapsForSamplingEachCategoryTrain",
    "weightedMapsForSamplingEachCategoryVal",
)
_LOW_RANK = ("lowerRankLayersNormal", "lowerRankLayersSubsampled")


def refuse_unable(train: TrainConfig, model: ModelConfig) -> None:
    """Reject features of DeepMedic that the torch engine does not support."""
    where = "the model configuration" if model.path is None else model.path
    for path, config, keys in ((train.path, train, _UNABLE), (where, model, _LOW_RANK)):
        for key in keys:
            if config.values.get(key) not in (None, [], ""):
                raise DataFault(
                    f"{path}: {key} = {config.values[key]!r}, which the torch engine does not "
                    "support; remove it, or train the real program (--engine deepmedic)"
                )
    for key in ("padTypePerLayerNormal", "padTypePerLayerSubsampled"):
        for pad in model.values.get(key) or ():
            if pad not in (None, "none", "valid", "VALID"):
                raise DataFault(
                    f"{where}: {key} has {pad!r}; the torch engine convolves these paths without "
                    "padding: expected 'VALID' for each layer, or no such key"
                )


def _optimisation(values: ConfigFile) -> Optimisation:
    kinds: tuple[OptimiserKind, ...] = ("sgd", "adam", "rmsprop")
    kind = kinds[values.get("sgd0orAdam1orRms2", Literal[0, 1, 2], 2)]
    eps = ("epsilonAdam", Weight, 1e-8) if kind == "adam" else ("epsilonRms", Weight, 1e-4)
    return Optimisation(
        kind=kind,
        rate=values.get("learningRate", Weight, 1e-3),
        momentum=values.get("momentumValue", Share, 0.6),
        nesterov=values.get("classicMom0OrNesterov1", Literal[0, 1], 1) == 1,
        normalised=values.get("momNonNorm0orNormalized1", Literal[0, 1], 1) == 1,
        rho=values.get("rhoRms", Share, 0.9),
        eps=values.get(*eps),
        b1=values.get("b1Adam", Share, 0.9),
        b2=values.get("b2Adam", Share, 0.999),
        l1=values.get("L1_reg", Weight, 1e-6),
        l2=values.get("L2_reg", Weight, 1e-4),
    )


def _rates(values: ConfigFile, train: TrainConfig) -> RateSchedule:
    kind = train.schedule
    wait_key = "numEpochsToWaitBeforeLoweringLr"
    wait = values.get(wait_key, Weight, 5 if kind == "auto" else train.epochs / 3)
    if kind in ("poly", "expon") and wait >= train.epochs:
        raise values.odd(wait_key, f"less than the {train.epochs} epochs of the training")
    at = values.get("predefinedSchedule", tuple[Number, ...], ())
    if kind == "predef" and (not at or list(at) != sorted(set(at))):
        raise values.odd("predefinedSchedule", "epochs in rising order, as [17, 22, 27]")
    last = values.get("paramsForExpSchedForLrAndMom", tuple[Number, Number], (1 / 2**8, 0.9))
    return RateSchedule(
        kind=kind,
        epochs=train.epochs,
        wait=wait,
        divide=values.get("whenDecreasingDivideLrBy", Annotated[Number, Field(gt=0)], 2.0),
        at=at,
        least_gain=values.get("min_incr_of_val_acc_considered", Weight, 0.0),
        last_rate=last[0],
        last_momentum=last[1],
    )


def _losses(values: ConfigFile, train: TrainConfig, classes: int) -> Losses:
    weights = values.get("losses_and_weights", dict[str, Any], {"xentr": 1.0})
    for name, weight in weights.items():
        if name not in ("xentr", "iou", "dsc") or not _is_weight(weight):
            raise values.odd(
                "losses_and_weights", "weights from 0 on, or None, of xentr, iou and dsc"
            )
    if not any(weights.values()):
        raise values.odd("losses_and_weights", "at least one loss with a weight")
    terms = {name: float(weights.get(name) or 0) for name in ("xentr", "iou", "dsc")}
    again = values.get("reweight_classes_in_cost", dict[str, Any], {"type": None})
    kind, until = again.get("type"), again.get("schedule", [0, train.epochs])
    per_class: Any = again.get("prms") if kind == "per_c" else ()
    fits = (
        kind in (None, "freq", "per_c")
        and _is_list(until, 2)
        and until[0] < until[1]
        and (kind != "per_c" or _is_list(per_class, classes))
    )
    if not fits:
        raise values.odd(
            "reweight_classes_in_cost",
            f"'type' None, 'freq' or 'per_c', with {classes} numbers as 'prms' for 'per_c', and "
            "'schedule' as [first epoch, last epoch]",
        )
    return Losses(
        **terms,
        reweight=kind or "",
        weights=tuple(float(weight) for weight in per_class),
        until=(float(until[0]), float(until[1])),
    )


def _is_weight(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and value >= 0)


def _is_list(value: object, length: int) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == length
        and all(isinstance(n, (int, float)) for n in value)
    )


def _validation(values: ConfigFile, train: TrainConfig, save: bool) -> Validation:
    return Validation(
        samples=train.validates_on_samples,
        segments=values.get("numberValidationSegmentsLoadedOnGpuPerSubep", Whole, 3000),
        batch=values.get("batchsize_val_samples", Whole, 50),
        volumes=train.validates_on_volumes,
        every=values.get("numberOfEpochsBetweenFullInferenceOnValImages", Whole, 1),
        batch_volumes=values.get("batchsize_val_whole", Whole, 10),
        save=save,
    )
