"""DeepMedic's configurations: ``trainConfig.cfg``, ``modelConfig.cfg``, list files and csv tables.

DeepMedic executes configurations as Python. Here they are only parsed: a value is a literal, a
list that is added or repeated, or sums, products and small powers of numbers.
"""

from __future__ import annotations

import ast
import csv
import io
import math
import operator
import os
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from gansynth.runtime.errors import DataFault, did_you_mean
from gansynth.runtime.files import reading
from gansynth_deepmedic.insertion import MISSING

MOST_BYTES = 1 << 20  # most bytes of a configuration; most values and characters of its literals
MOST_LIST_BYTES = 16 << 20  # most bytes of a list or csv
SAMPLINGS = FORE_BACKGROUND, UNIFORM, WHOLE, PER_CLASS = range(4)
"""typeOfSampling: foreground and background; uniform; whole image (as uniform); per class."""
ON_SAMPLES = "performValidationOnSamplesThroughoutTraining"
ON_VOLUMES = "performFullInferenceOnValidationImagesEveryFewEpochs"
SCHEDULE = "typeOfLearningRateSchedule"
SHARES = "proportionOfSamplesToExtractPerCategoryTraining"
_NAMES = "namesForPredictionsPerCaseVal"
_SCORES = "norm_zscore_prms"

# -- literals --------------------------------------------------------------------------------------

_LITERAL = (
    "expected KEY = a number, a text, True, False, None, or a list, tuple or dict of these; write "
    "the value itself: configurations are never executed here"
)
_NO_LITERAL = (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError)
_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def _value(node: ast.AST | None, room: int) -> Any:
    """Return an expression's value (ValueError, TypeError ...: it has none).

    Args:
        room: most values and characters; its parts share it, so that it also bounds the depth.
    """
    match node:
        case _ if room < 1:
            raise ValueError("too many values, or nested too deeply")
        case ast.Constant(value=None | str() | int() | float() as value):
            pass
        case ast.List(elts=items) | ast.Tuple(elts=items):
            values = [_value(item, room // len(items)) for item in items]
            return values if isinstance(node, ast.List) else tuple(values)
        case ast.Dict(keys=keys, values=items):
            pairs, room = zip(keys, items, strict=True), room // (2 * len(items) + 1)
            return {_value(key, room): _value(item, room) for key, item in pairs}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _OPERATORS[type(sign)](_value(operand, room // 2))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            match _value(left, room // 2), sign, _value(right, room // 2):
                case list() as items, ast.Add(), list() as others:
                    return items + others
                case (list() as items, ast.Mult(), int() as n) | (int() as n, _, list() as items):
                    if not isinstance(sign, ast.Mult) or n * len(repr(items)) > room:
                        raise ValueError("a list that is repeated too often")
                    return items * n
                case int() | float() as x, _, int() | float() as y:
                    if isinstance(sign, ast.Pow) and abs(y) > 64:
                        raise ValueError("a power of more than 64")
                    value = _OPERATORS[type(sign)](x, y)
                case _:
                    raise ValueError("calculated from what is no number")
        case _:
            raise ValueError(f"code ({type(node).__name__})")
    if isinstance(value, str) and len(value) > room:
        raise ValueError("a text that is too long")
    infinite = isinstance(value, float) and not math.isfinite(value)
    if infinite or isinstance(value, complex) or (isinstance(value, int) and abs(value) >= 2**63):
        raise ValueError("no finite number, or a whole one of more than 63 bits")
    return value


def read_text(path: Path, most: int) -> str:
    """Read a small text file in UTF-8 (DataFault: missing, no file, too large, or no text)."""
    with reading(path):
        if path.is_dir() or not path.exists():
            kind = "is a folder" if path.is_dir() else "no such file"
            raise DataFault(f"{path}: {kind}, expected a text file; correct the path")
        with open(path, "rb") as stream:
            data = stream.read(most + 1)
    if len(data) > most:
        raise DataFault(f"{path}: expected a text file of at most {most} bytes; is it the right?")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataFault(
            f"{path}: line {line}: holds byte {data[error.start]:#04x}, expected UTF-8 text; save "
            "it as UTF-8"
        ) from None


def excerpt(text: str) -> str:
    """Shorten text for a message: one line, printable, limited in length."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text[:300].split()))
    return line if len(line) <= 60 else f"{line[:57]}..."


# -- keys ------------------------------------------------------------------------------------------

Model = TypeVar("Model", bound=BaseModel)
_REQUIRED: Any = object()
_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "True or False",
    "string_type": "a text",
    "tuple_type": "a list",
    "dict_type": "a dictionary",
    "model_type": "a dictionary",
    "missing": "a value more",
    "extra_forbidden": "no such key",
}
"""Types of pydantic's errors in plain words."""


@dataclass(frozen=True)
class ConfigFile:
    """The assignments of a configuration. A key of None counts as missing, as in DeepMedic."""

    path: Path | None  # the file; None for values without one
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)  # key -> number of its line

    @classmethod
    def read(cls, path: Path) -> ConfigFile:
        """Read a file; its path becomes absolute.

        Raises:
            DataFault: no such file, or anything but literals.
        """
        path = Path(os.path.abspath(path))
        text = read_text(path, MOST_BYTES)
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        line, source = 1, ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd backslashes, which Python only warns of
                statements = ast.parse(text).body
            for statement in statements:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    continue  # a text, which is a comment
                line = statement.lineno
                source = f"{excerpt(ast.get_source_segment(text, statement) or '')}: "
                targets = statement.targets if isinstance(statement, ast.Assign) else []
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                if not isinstance(statement, ast.Assign) or len(names) < len(targets):
                    raise ValueError(f"code ({type(statement).__name__})")
                value = _value(statement.value, MOST_BYTES // len(statements))
                values |= dict.fromkeys(names, value)
                lines |= dict.fromkeys(names, line)
        except _NO_LITERAL as error:
            line = getattr(error, "lineno", None) or line
            why = excerpt(getattr(error, "msg", None) or str(error) or "nested too deeply")
            raise DataFault(f"{path}: line {line}: {source}{why}; {_LITERAL}") from None
        return cls(path, values, lines)

    def odd(self, key: str, expected: str, within: str = "") -> DataFault:
        """Return the error for a missing or invalid key, or for a value within it."""
        where = "" if self.path is None else f"{self.path}: "
        where += f"line {self.lines[key]}: " if key in self.lines else ""
        if self.values.get(key) is None:
            near = did_you_mean(key, self.values)
            return DataFault(f"{where}no {key}, expected {expected}; add it.{near}")
        value = within or f"{key} is {excerpt(repr(self.values[key]))}"
        return DataFault(f"{where}{value}, expected {expected}; correct it")

    def get(self, key: str, kind: Any, default: Any = _REQUIRED) -> Any:
        """Return a key's value as a type, as pydantic validates it; or a missing one's default.

        Raises:
            DataFault: the value does not fit, or is missing without a default.
        """
        value = self.values.get(key)
        if value is None and default is not _REQUIRED:
            return default
        try:
            return TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            raise self._fault(error, key) from None

    def parse(self, model: type[Model], **further: Any) -> Model:
        """Return a model of the keys that its aliases name, and of further fields."""
        required = [field.alias for field in model.model_fields.values() if field.is_required()]
        given: dict[Any, Any] = dict.fromkeys(required)
        given |= {key: value for key, value in self.values.items() if value is not None}
        given |= {**further, "path": self.path, "values": self.values}
        try:
            return model.model_validate(given)
        except ValidationError as error:
            raise self._fault(error) from None

    def _fault(self, error: ValidationError, *key: str) -> DataFault:
        first = error.errors()[0]
        odd = first.get("ctx", {}).get("error")
        if isinstance(odd, OddKey):
            return self.odd(*odd.args)
        where = [*key, *first["loc"]]
        expected = _WANTED.get(first["type"]) or re.sub(
            r"^(\w+ should (be|have)|Value error,) ", "", first["msg"]
        )
        name = str(where[0]) + "".join(f"[{part!r}]" for part in where[1:])
        within = f"{name} is {excerpt(repr(first['input']))}" if where[1:] else ""
        return self.odd(str(where[0]), expected, within)


class OddKey(ValueError):
    """Raised by validators: a key, and what was expected in view of others."""


def _refuse(key: str, expected: str, wrong: bool) -> None:
    if wrong:
        raise OddKey(key, expected)


def _as_flag(value: Any) -> Any:
    return bool(value) if isinstance(value, int) and value in (0, 1) else value


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("a text that prints on one line")
    return text


def _as_rows(value: Any) -> Any:
    """Make a list of a single row."""
    alone = isinstance(value, list | tuple) and value and not isinstance(value[0], list | tuple)
    return [value] if alone else value


Triple = tuple[int, int, int]
Whole = Annotated[int, Field(strict=True, ge=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
Wholes = tuple[Whole, ...]
Flag = Annotated[bool, BeforeValidator(_as_flag), Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Weight = Annotated[float, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Voxels = tuple[Whole, Whole, Whole]  # along x, y, z
_Kind = Annotated[int, Field(strict=True, ge=0, le=3)]  # one of ``SAMPLINGS``
Text = Annotated[str, AfterValidator(_one_line)]
Pad = Literal["VALID", "valid", "none", "MIRROR", "mirror", "ZERO", "zero", "SAME"] | None
_UNPADDED: tuple[str | None, ...] = ("VALID", "valid", "none", None)


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True)

    path: Path | None  # the file, absolute; None for values without a file
    values: Mapping[str, Any]  # every assignment of the file, in its order


# -- the network -----------------------------------------------------------------------------------


class ModelConfig(_Config):
    """``modelConfig.cfg``: the network, with DeepMedic's defaults. Sizes are along x, y, z."""

    classes: Annotated[int, Field(strict=True, ge=2)] = Field(alias="numberOfOutputClasses")
    channels: Whole = Field(alias="numberOfInputChannels")
    features: Wholes = Field(alias="numberFMsPerLayerNormal", min_length=1)
    kernels: tuple[Voxels, ...] = Field(alias="kernelDimPerLayerNormal")
    residual: Wholes = Field((), alias="layersWithResidualConnNormal")  # layers counted from 1
    pads: tuple[Pad, ...] | None = Field(None, alias="padTypePerLayerNormal")
    subsampled: Flag = Field(False, alias="useSubsampledPathway")
    # features and factors of each subsampled path, empty without; kernels of all of them
    low: Annotated[tuple[Wholes, ...], BeforeValidator(_as_rows)] = Field(
        (), alias="numberFMsPerLayerSubsampled"
    )
    factors: Annotated[tuple[Voxels, ...], BeforeValidator(_as_rows)] = Field(
        ((3, 3, 3),), alias="subsampleFactor"
    )
    low_kernel: tuple[Voxels, ...] = Field((), alias="kernelDimPerLayerSubsampled")
    fc: Wholes = Field((), alias="numberFMsPerLayerFC")  # without the classification layer
    # of the FC layers and the classification layer, as are their pads and rates of dropout
    fc_kernels: tuple[Voxels, ...] = Field((), alias="kernelDimPerLayerFC")
    fc_residual: Wholes = Field((), alias="layersWithResidualConnFC")
    fc_pads: tuple[Pad, ...] | None = Field(None, alias="padTypePerLayerFC")
    dropout: tuple[Share, ...] = Field((), alias="dropoutRatesFc")
    activation: Literal["linear", "relu", "prelu", "elu", "selu"] = Field(
        "prelu", alias="activationFunction"
    )
    # batches of the rolling statistics; 0 for no batch normalisation
    rolling: Count = Field(60, alias="rollAverageForBNOverThatManyBatches")
    segment: Voxels = Field(alias="segmentsDimTrain")
    segment_validation: Voxels = Field((1, 1, 1), alias="segmentsDimVal")
    segment_inference: Voxels = Field((1, 1, 1), alias="segmentsDimInference")
    # distribution of the first weights
    initial: tuple[Literal["fanIn", "normal"], Number] = Field(
        ("fanIn", 2.0), alias="convWeightsInit"
    )

    @property
    def low_kernels(self) -> tuple[tuple[Triple, ...], ...]:
        """Kernels of each subsampled path."""
        return (self.low_kernel,) * len(self.low)

    @property
    def padded(self) -> tuple[bool, ...]:
        """Whether each layer's input is padded, so that it keeps its size."""
        return tuple(pad not in _UNPADDED for pad in self.pads or [None] * len(self.kernels))

    @property
    def fc_padded(self) -> tuple[bool, ...]:
        """Likewise for FC layers and the classification layer."""
        return tuple(pad not in _UNPADDED for pad in self.fc_pads or [None] * len(self.fc_kernels))

    @property
    def receptive(self) -> Triple:
        """Receptive field of the normal path in voxels, as DeepMedic's ``rec_field``."""
        return _receptive(self.kernels)

    @property
    def unpredicted(self) -> Triple:
        """Voxels along x, y, z by which a prediction is smaller than its segment."""
        layers = zip(self.kernels + self.fc_kernels, self.padded + self.fc_padded, strict=True)
        x, y, z = _receptive([kernel for kernel, padded in layers if not padded])
        return x - 1, y - 1, z - 1

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Set the defaults that depend on other keys, and refuse contradictions."""
        layers, hidden = len(self.fc) + 1, bool(self.fc)
        low = self.low if "low" in self.model_fields_set else (self.features,)
        defaults = {
            "low_kernel": self.kernels,
            "fc_kernels": ((1, 1, 1),) * layers,
            "dropout": (0.0,) * hidden + (0.5,) * (layers - hidden),
            "segment_validation": self.receptive,
            "segment_inference": self.segment,
        }
        update = {k: v for k, v in defaults.items() if k not in self.model_fields_set}
        if not self.subsampled:
            update |= {"low": (), "factors": ()}
        else:  # further paths repeat the last
            update["low"] = low + low[-1:] * (len(self.factors) - len(low))
        if not self.dropout and "dropout" not in update:
            update["dropout"] = (0.0,) * layers
        whole = self.model_copy(update=update)
        whole._refuse_contradictions()
        return whole

    def _refuse_contradictions(self) -> None:
        for part, kernels, pads, residual, layers in (
            ("Normal", self.kernels, self.pads, self.residual, len(self.features)),
            ("FC", self.fc_kernels, self.fc_pads, self.fc_residual, len(self.fc) + 1),
        ):
            key, most = f"padTypePerLayer{part}", layers - (part == "FC")
            each = f"one for each of {layers} layer(s)"
            _refuse(f"kernelDimPerLayer{part}", each, len(kernels) != layers)
            _refuse(key, each, len(pads or ()) not in (0, layers))
            # DeepMedic takes None for VALID when it convolves, but not when it computes sizes.
            types = [] if pads is None else pads or [None] * layers
            larger = [pad for pad, size in zip(types, kernels, strict=False) if max(size) > 1]
            valid = "'VALID' or 'mirror' for kernels of more than a voxel"
            _refuse(key, valid, any(pad in _UNPADDED[1:] for pad in larger))
            key, outside = f"layersWithResidualConn{part}", {*residual} - {*range(2, most + 1)}
            _refuse(key, f"numbers of layers from 2 to {most}", bool(outside))
        if self.subsampled:
            paths, lengths = len(self.factors), {*map(len, self.low)}
            _refuse(
                "numberFMsPerLayerSubsampled",
                f"as many layers in each path, and at most {paths} path(s), as subsampleFactor has",
                len(lengths) != 1 or 0 in lengths or len(self.low) != paths,
            )
            _refuse(
                "kernelDimPerLayerSubsampled",
                f"{max(lengths)} layers of the normal path's receptive field, "
                f"{list(self.receptive)}",
                {len(self.low_kernel)} != lengths or _receptive(self.low_kernel) != self.receptive,
            )
        _refuse(
            "dropoutRatesFc",
            f"a rate from 0 to below 1 for each of {len(self.fc) + 1} layer(s)",
            len(self.dropout) != len(self.fc) + 1 or 1 in self.dropout,
        )
        least = [max(r, u + 1) for r, u in zip(self.receptive, self.unpredicted, strict=True)]
        for key, size in (
            ("segmentsDimTrain", self.segment),
            ("segmentsDimVal", self.segment_validation),
            ("segmentsDimInference", self.segment_inference),
        ):
            small = any(n < minimum for n, minimum in zip(size, least, strict=True))
            _refuse(key, f"at least {least}, what the network needs to predict a voxel", small)


def _receptive(kernels: Sequence[Triple]) -> Triple:
    x, y, z = (1 + sum(kernel[axis] - 1 for kernel in kernels) for axis in range(3))
    return x, y, z


def read_model_config(path: Path) -> ModelConfig:
    """Read a network's configuration.

    Raises:
        DataFault: no such file, code, or a missing, invalid or inconsistent key.
    """
    file = ConfigFile.read(path)
    for old, new in (
        ("initializeClassic0orDelving1", "convWeightsInit"),
        ("relu0orPrelu1", "activationFunction"),
    ):
        if file.values.get(old) is not None:
            raise file.odd(old, f"{new}, as DeepMedic no longer reads {old}")
    return file.parse(ModelConfig)


# -- the training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListedCase:
    """One case of the list files (or the csv): absolute paths, not opened."""

    channels: tuple[Path | None, ...]  # None for a missing one (``-``)
    labels: Path | None  # None where the lists name none (validation by whole volumes)
    roi: Path | None  # region of interest
    line: int  # number of the entry, from 1, for messages

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case."""
        named = (*self.channels, self.labels, self.roi)
        return tuple(file for file in named if file is not None)


class ZScoreKeys(BaseModel):
    """``norm_zscore_prms``."""

    apply_to_all_channels: Flag | None = False
    apply_per_channel: tuple[Flag, ...] | None = None


class TrainConfig(_Config):
    """``trainConfig.cfg`` and its lists, with DeepMedic's defaults."""

    path: Path
    # names of the channels: the csv's columns, else distinguishing parts of the list files' names
    channels: tuple[str, ...]
    train: tuple[ListedCase, ...]  # each once
    validation: tuple[ListedCase, ...]  # each once; empty without validation
    # names for the validation cases' predictions; empty if there are none
    predictions: tuple[str, ...]
    repeated: tuple[ListedCase, ...]  # entries of the lists that repeat a case
    train_list: Path  # file that names the training cases' first channels
    validation_list: Path | None  # the same for validation; None without validation
    epochs: Whole = Field(35, alias="numberOfEpochs")
    subepochs: Whole = Field(20, alias="numberOfSubepochs")
    cases: Whole = Field(50, alias="numOfCasesLoadedPerSubepoch")
    segments: Whole = Field(1000, alias="numberTrainingSegmentsLoadedOnGpuPerSubep")
    batch: Whole = Field(alias="batchsize_train")
    processes: Annotated[int, Field(strict=True, ge=-1)] = Field(0, alias="num_processes_sampling")
    schedule: Literal["stable", "predef", "poly", "auto", "expon"] = Field(alias=SCHEDULE)
    sampling: _Kind = Field(3, alias="typeOfSamplingForTraining")
    sampling_validation: _Kind = Field(1, alias="typeOfSamplingForVal")
    shares: tuple[Weight, ...] | None = Field(None, alias=SHARES)
    validates_on_samples: Flag = Field(False, alias=ON_SAMPLES)
    validates_on_volumes: Flag = Field(False, alias=ON_VOLUMES)
    pad: Flag = Field(True, alias="padInputImagesBool")
    session: Text = Field("trainSession", alias="sessionName")
    zscore: ZScoreKeys = Field(ZScoreKeys(), alias=_SCORES)

    @property
    def proportions(self) -> tuple[float, ...] | None:
        """Shares of the categories, None for equal ones; DeepMedic uses them for types 0 and 3."""
        return self.shares if self.sampling in (FORE_BACKGROUND, PER_CLASS) else None

    @property
    def weighted(self) -> bool:
        """Whether sampling maps are set."""
        return self.values.get("weightedMapsForSamplingEachCategoryTrain") is not None

    @property
    def normalised(self) -> tuple[bool, ...]:
        """Of each channel, whether DeepMedic itself normalises it."""
        every = bool(self.zscore.apply_to_all_channels)
        each = self.zscore.apply_per_channel
        return (every,) * len(self.channels) if each is None else each

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        get, shares, scores = self.values.get, self.proportions, self.zscore
        maps = get("saveProbMapsForEachClassVal")
        saves = get("saveSegmentationVal") not in (False, 0) or get("saveIndividualFmsVal")
        saves = saves or maps in (None, [], ()) or (isinstance(maps, list | tuple) and True in maps)
        _refuse(
            "predefinedSchedule",
            f"a list of epochs, as {SCHEDULE} is 'predef'",
            self.schedule == "predef" and get("predefinedSchedule") is None,
        )
        _refuse(
            SCHEDULE,
            f"{ON_SAMPLES} = True with it, or another schedule",
            self.schedule == "auto" and not self.validates_on_samples,
        )
        if shares is not None:
            _refuse(SHARES, "numbers from 0 that do not sum up to 0", not sum(shares) > 0)
            two = self.sampling == FORE_BACKGROUND
            _refuse(SHARES, "two, for foreground and background", two and len(shares) != 2)
        _refuse(
            _SCORES,
            f"apply_per_channel to be True or False for each of {len(self.channels)} channel(s), "
            "and apply_to_all_channels False beside it",
            len(self.normalised) != len(self.channels)
            or bool(scores.apply_per_channel and scores.apply_to_all_channels),
        )
        _refuse(
            _NAMES,
            f"a file with a name for each validation case's prediction, as {ON_VOLUMES} is True",
            self.validates_on_volumes and not self.predictions and bool(saves),
        )
        return self


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
        DataFault: no such file, code, an invalid or missing key, a missing list file, lists of
            unequal length, or a missing first channel.
    """
    file = ConfigFile.read(path)
    train = _read_part(file, "Training", "dataframe_train")
    held = _Lists(train.where, train.channels, [], [])
    if file.get(ON_SAMPLES, Flag, False) or file.get(ON_VOLUMES, Flag, False):
        held = _read_part(file, "Validation", "dataframe_val", _NAMES)
    alike = set(train.channels) == set(held.channels) and train.channels != held.channels
    if alike or len(train.channels) != len(held.channels):
        raise file.odd("channelsValidation", f"as to train on: {', '.join(train.channels)}")
    first: dict[tuple[object, ...], int] = {}
    each = [*train.cases, *held.cases]
    for index, case in enumerate(each):
        validates = index >= len(train.cases)
        first.setdefault((validates, case.channels, case.labels, case.roi), index)
    kept, count = set(first.values()), len(train.cases)
    return file.parse(
        TrainConfig,
        channels=train.channels,
        train=[case for index, case in enumerate(each) if index in kept and index < count],
        validation=[case for index, case in enumerate(each) if index in kept and index >= count],
        predictions=[name for n, name in enumerate(held.predictions, count) if n in kept],
        repeated=[case for index, case in enumerate(each) if index not in kept],
        train_list=train.where,
        validation_list=held.where if held.cases else None,
    )


# -- list files and tables -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lists:
    """The cases of training or of validation."""

    where: Path  # file that names the first channels
    channels: tuple[str, ...]  # their names
    cases: list[ListedCase]
    predictions: list[str]  # names of the cases' predictions; empty if there are none


def _read_part(file: ConfigFile, part: str, table: str, names_key: str = "") -> _Lists:
    assert file.path is not None
    folder = file.path.parent
    if file.values.get(table) is not None:
        return _read_table(joined(folder, file.get(table, Text)))
    channels = file.get(f"channels{part}", Annotated[tuple[Text, ...], Field(min_length=1)])
    roi, names = file.get(f"roiMasks{part}", Text, None), file.get(names_key, Text, None)
    wanted = [*channels, file.get(f"gtLabels{part}", Text), roi, names]
    paths = [joined(folder, name) for name in wanted if name is not None]
    texts = [read_text(path, MOST_LIST_BYTES).split("\n") for path in paths]
    columns = [[s.strip() for s in lines if s.strip() and s[0] != "#"] for lines in texts]
    for path, entries in zip(paths, columns, strict=True):
        if len(entries) != len(columns[0]) or not entries:
            raise DataFault(
                f"{path}: lists {len(entries)} case(s), but {paths[0]} lists {len(columns[0])}; "
                "expected as many and at least one, because line i is case i (DeepMedic silently "
                "cuts the longer list). Complete it"
            )
    predictions = columns.pop() if names is not None else []
    if not all(map(str.isprintable, predictions)):
        raise DataFault(f"{paths[-1]}: holds unprintable characters, expected names; correct it")
    cases = []
    for number, row in enumerate(zip(*columns, strict=True), start=1):
        places = [(path, f"entry {number}") for path in paths]
        cases.append(_listed(places, row, number, len(channels), range(1, len(channels))))
    return _Lists(paths[0], told_apart(paths[: len(channels)]), cases, predictions)


def _listed(
    places: Sequence[tuple[Path, str]],
    entries: Sequence[str],
    number: int,
    channels: int,
    optional: Collection[int] = (),
) -> ListedCase:
    """Return a case of entries: of its channels, its label map, and perhaps its region."""
    files: list[Path | None] = []
    for index, ((path, place), entry) in enumerate(zip(places, entries, strict=False)):
        missing = entry in ("", MISSING)
        if not entry.isprintable() or (missing and index not in optional):
            raise DataFault(
                f"{path}: {place} is {excerpt(entry)!a}, expected a path (only further channels of "
                "list files may be '-', missing); add the file, or remove the case from every list"
            )
        files.append(None if missing else joined(path.parent, entry))
    roi = files[channels + 1] if len(files) > channels + 1 else None
    return ListedCase(tuple(files[:channels]), files[channels], roi, number)


def _read_table(path: Path) -> _Lists:
    text = read_text(path, MOST_LIST_BYTES).removeprefix("\ufeff")
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DataFault(
            f"{path}: line {reader.line_num}: not readable as CSV: {error}; save it again"
        ) from None
    header = rows[0][1] if rows else []
    channels = sorted(name for name in header if name.startswith("channel_"))
    columns = [*channels, "ground_truth", *({"roi_mask"} & {*header})]
    if not channels or "ground_truth" not in header or len({*header}) < len(header):
        raise DataFault(
            f"{path}: columns are {excerpt(str(header))}, expected channel_NAME and ground_truth, "
            "each once; correct the header"
        )
    cases, predictions = [], []
    for number, (line, row) in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise DataFault(
                f"{path}: line {line}: {len(row)} cell(s), expected {len(header)} as in its header;"
                " correct the line"
            )
        cell = dict(zip(header, row, strict=True))
        places = [(path, f"line {line}: {name}") for name in columns]
        cases.append(_listed(places, [cell[name] for name in columns], number, len(channels)))
        predictions += [cell["prediction_filename"]] if "prediction_filename" in cell else []
    if not cases:
        raise DataFault(f"{path}: has no rows, expected one for each case; add some")
    names = tuple(name.removeprefix("channel_") for name in channels)
    return _Lists(path, names, cases, predictions)


def joined(folder: Path, path: str) -> Path:
    """Join a path to a folder unless it is absolute; ``..`` is resolved by name."""
    return Path(os.path.normpath(folder / path))


def told_apart(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the distinguishing parts of file names, else with folders, else ``channel 0``, ...

    For example ``flair`` and ``t1c`` of ``trainChannels_flair.cfg`` and ``trainChannels_t1c.cfg``.
    """
    for depth in (1, 2) if len(paths) > 1 else ():
        names = ["/".join((*path.parts[-depth:-1], path.stem)) for path in paths]
        each = [[word for word in re.split(r"[\W_]+", name) if word] for name in names]
        while min(map(len, each)) > 1 and len({words[0] for words in each}) == 1:
            each = [words[1:] for words in each]
        while min(map(len, each)) > 1 and len({words[-1] for words in each}) == 1:
            each = [words[:-1] for words in each]
        joined = ["_".join(words) for words in each]
        if all(joined) and len({name.casefold() for name in joined}) == len(joined):
            return tuple(joined)
    return tuple(f"channel {number}" for number in range(len(paths)))
