"""``modelConfig.cfg``: the network that DeepMedic builds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.keys import ConfigKeys, Triple, is_whole
from gansynth_deepmedic.literals import read_literals

ACTIVATIONS = ("linear", "relu", "prelu", "elu", "selu")
_DEPRECATED = {
    "initializeClassic0orDelving1": "convWeightsInit",
    "relu0orPrelu1": "activationFunction",
}
_UNPADDED: tuple[str | None, ...] = ("VALID", "valid", "none", None)
_PADDED: tuple[str | None, ...] = ("MIRROR", "mirror", "ZERO", "zero", "SAME")


@dataclass(frozen=True)
class ModelConfig:
    """A network's configuration, with DeepMedic's defaults for missing keys."""

    path: Path | None  # the file, absolute; None for DeepMedic's own example (``deepMedic``)
    values: Mapping[str, Any]  # every assignment of the file
    classes: int  # numberOfOutputClasses, background included
    channels: int  # numberOfInputChannels
    features: tuple[int, ...]  # numberFMsPerLayerNormal
    kernels: tuple[Triple, ...]  # kernelDimPerLayerNormal
    residual: tuple[int, ...]  # layersWithResidualConnNormal, layers counted from 1
    # one tuple of feature numbers for each subsampled path; empty without
    low: tuple[tuple[int, ...], ...]
    # kernels of each subsampled path (those of the normal path)
    low_kernels: tuple[tuple[Triple, ...], ...]
    factors: tuple[Triple, ...]  # subsampleFactor of each subsampled path
    fc: tuple[int, ...]  # numberFMsPerLayerFC, without the classification layer
    fc_kernels: tuple[Triple, ...]  # kernelDimPerLayerFC, the classification layer's last
    fc_residual: tuple[int, ...]  # layersWithResidualConnFC
    dropout: tuple[float, ...]  # dropoutRatesFc, one for each FC layer and the classification layer
    activation: str  # activationFunction: linear, relu, prelu, elu, selu
    rolling: int  # rollAverageForBNOverThatManyBatches; 0 for no batch normalisation
    segment: Triple  # segmentsDimTrain
    segment_validation: Triple  # segmentsDimVal
    segment_inference: Triple  # segmentsDimInference
    # convWeightsInit as ("fanIn", 2) or ("normal", 0.01)
    initial: tuple[str, float] = field(default=("fanIn", 2.0))
    # padTypePerLayerNormal: whether each layer's input is padded, so that it keeps its size
    padded: tuple[bool, ...] = ()
    fc_padded: tuple[bool, ...] = ()  # padTypePerLayerFC, likewise, the classification layer's last

    @property
    def receptive(self) -> Triple:
        """Receptive field of the normal path in voxels, as DeepMedic's ``rec_field``."""
        return _receptive(self.kernels)

    @property
    def unpredicted(self) -> Triple:
        """Voxels along x, y, z by which a prediction is smaller than its segment."""
        sides = list(zip(self.kernels, self.padded or [False] * len(self.kernels), strict=True))
        last = self.fc_padded or [False] * len(self.fc_kernels)
        sides += zip(self.fc_kernels, last, strict=True)
        x, y, z = (sum(k[axis] - 1 for k, padded in sides if not padded) for axis in range(3))
        return x, y, z


def read_model_config(path: Path) -> ModelConfig:
    """Read a network's configuration.

    Raises:
        UsageFault: there is no such file.
        DataFault: code, or a missing, invalid or inconsistent key.
    """
    path = Path(os.path.abspath(path))
    keys = ConfigKeys(path, read_literals(path))
    for old, new in _DEPRECATED.items():
        if keys.has(old):
            raise DataFault(
                f"{path}: {old} is no longer read by DeepMedic, expected {new}; rename it"
            )
    model = model_of(keys)
    _refuse_small(model)
    return model


def model_of(keys: ConfigKeys) -> ModelConfig:
    """Return the network of some keys."""
    features = keys.wholes("numberFMsPerLayerNormal")
    kernels = _per_layer(keys, "kernelDimPerLayerNormal", len(features))
    low, factors = _subsampled(keys, features)
    fc = keys.wholes("numberFMsPerLayerFC", ())
    units: list[Triple] = [(1, 1, 1)] * (len(fc) + 1)
    fc_kernels = _per_layer(keys, "kernelDimPerLayerFC", len(fc) + 1, units)
    segment = keys.triple("segmentsDimTrain")
    return ModelConfig(
        keys.path,
        keys.values,
        classes=keys.whole("numberOfOutputClasses", least=2),
        channels=keys.whole("numberOfInputChannels"),
        features=features,
        kernels=kernels,
        residual=_layers(keys, "layersWithResidualConnNormal", len(features)),
        low=low,
        low_kernels=tuple(_low_kernels(keys, kernels, each) for each in low),
        factors=factors,
        fc=fc,
        fc_kernels=fc_kernels,
        fc_residual=_layers(keys, "layersWithResidualConnFC", len(fc)),
        dropout=_dropout(keys, len(fc) + 1),
        activation=str(keys.one_of("activationFunction", ACTIVATIONS, "prelu")),
        rolling=keys.whole("rollAverageForBNOverThatManyBatches", 60, least=0),
        segment=segment,
        segment_validation=keys.triple("segmentsDimVal", _receptive(kernels)),
        segment_inference=keys.triple("segmentsDimInference", segment),
        initial=_initial(keys),
        padded=_padded(keys, "padTypePerLayerNormal", kernels),
        fc_padded=_padded(keys, "padTypePerLayerFC", fc_kernels),
    )


def _refuse_small(model: ModelConfig) -> None:
    """Reject segments smaller than the receptive field, or without a predicted voxel."""
    least = [max(r, u + 1) for r, u in zip(model.receptive, model.unpredicted, strict=True)]
    for key, size in (
        ("segmentsDimTrain", model.segment),
        ("segmentsDimVal", model.segment_validation),
        ("segmentsDimInference", model.segment_inference),
    ):
        if any(n < minimum for n, minimum in zip(size, least, strict=True)):
            raise DataFault(
                f"{model.path}: {key} is {list(size)}, expected at least {least}, what the network "
                "needs to predict a voxel; enlarge it"
            )


def _receptive(kernels: Sequence[Triple]) -> Triple:
    x, y, z = (1 + sum(kernel[axis] - 1 for kernel in kernels) for axis in range(3))
    return x, y, z


def _per_layer(
    keys: ConfigKeys, key: str, layers: int, default: Sequence[Triple] | None = None
) -> tuple[Triple, ...]:
    kernels = keys.triples(key, default)
    if len(kernels) != layers:
        raise keys.odd(key, f"one kernel for each of {layers} layer(s)")
    return kernels


def _layers(keys: ConfigKeys, key: str, layers: int, least: int = 2) -> tuple[int, ...]:
    numbers = keys.wholes(key, ())
    if not all(least <= number <= layers for number in numbers):
        raise keys.odd(key, f"numbers of layers from {least} to {layers}")
    return numbers


def _subsampled(
    keys: ConfigKeys, features: tuple[int, ...]
) -> tuple[tuple[tuple[int, ...], ...], tuple[Triple, ...]]:
    """Return features and factors of each subsampled path; further paths repeat the last."""
    if not keys.flag("useSubsampledPathway", False):
        return (), ()
    factors = _nested(keys, "subsampleFactor", [3, 3, 3])
    if any(len(factor) != 3 for factor in factors):
        raise keys.odd("subsampleFactor", "three whole numbers from 1, or a list of such threes")
    low = list(_nested(keys, "numberFMsPerLayerSubsampled", list(features)))
    if len({len(path) for path in low}) != 1 or len(low) > len(factors):
        raise keys.odd(
            "numberFMsPerLayerSubsampled",
            f"as many layers in each path, and at most {len(factors)} path(s), as subsampleFactor "
            "has",
        )
    low += [low[-1]] * (len(factors) - len(low))
    return tuple(low), tuple((x, y, z) for x, y, z in factors)


def _nested(keys: ConfigKeys, key: str, default: list[int]) -> tuple[tuple[int, ...], ...]:
    """Return lists of whole numbers; a single list becomes a list of it."""
    value = keys.values.get(key)
    value = default if value is None else value
    expected = "a list of whole numbers from 1, or a list of such lists"
    if not isinstance(value, list | tuple) or not value:
        raise keys.odd(key, expected)
    rows = value if isinstance(value[0], list | tuple) else [value]
    for row in rows:
        fine = isinstance(row, list | tuple) and row and all(is_whole(n, 1) for n in row)
        if not fine:
            raise keys.odd(key, expected)
    return tuple(tuple(row) for row in rows)


def _low_kernels(
    keys: ConfigKeys, kernels: tuple[Triple, ...], features: tuple[int, ...]
) -> tuple[Triple, ...]:
    """Return the kernels of a subsampled path, with the receptive field of the normal one."""
    key = "kernelDimPerLayerSubsampled"
    same = kernels if len(features) == len(kernels) else None
    own_kernels = _per_layer(keys, key, len(features), same)
    if _receptive(own_kernels) != _receptive(kernels):
        raise keys.odd(key, f"the normal path's receptive field, {list(_receptive(kernels))}")
    return own_kernels


def _dropout(keys: ConfigKeys, layers: int) -> tuple[float, ...]:
    if not keys.has("dropoutRatesFc"):
        return (0.0,) * (layers > 1) + (0.5,) * (layers - (layers > 1))
    rates = keys.numbers("dropoutRatesFc", low=0)
    if len(rates) not in (0, layers) or not all(rate < 1 for rate in rates):
        raise keys.odd("dropoutRatesFc", f"a rate from 0 to below 1 for each of {layers} layer(s)")
    return rates or (0.0,) * layers


def _initial(keys: ConfigKeys) -> tuple[str, float]:
    value = keys.values.get("convWeightsInit")
    if value is None:
        return "fanIn", 2.0
    fine = isinstance(value, list | tuple) and len(value) == 2
    if fine and value[0] in ("normal", "fanIn") and isinstance(value[1], int | float):
        return str(value[0]), float(value[1])
    raise keys.odd("convWeightsInit", "['fanIn', 2] or ['normal', 0.01], say")


def _padded(keys: ConfigKeys, key: str, kernels: Sequence[Triple]) -> tuple[bool, ...]:
    """Return whether each layer is padded; None is rejected for kernels above one voxel."""
    value = keys.values.get(key)
    if value is None:
        return (False,) * len(kernels)
    if not isinstance(value, list | tuple) or len(value) not in (0, len(kernels)):
        raise keys.odd(key, f"a type of padding for each of {len(kernels)} layer(s)")
    kinds = list(value) or [None] * len(kernels)
    for kind, kernel in zip(kinds, kernels, strict=True):
        if kind not in _UNPADDED + _PADDED:
            raise keys.odd(key, "'VALID', 'mirror', 'zero' or 'SAME' for each layer")
        # DeepMedic takes None for VALID when it convolves, but not when it computes sizes.
        if kind in _UNPADDED[1:] and max(kernel) > 1:
            raise keys.odd(key, f"'VALID' or 'mirror' for a kernel of {list(kernel)}")
    return tuple(kind in _PADDED for kind in kinds)
