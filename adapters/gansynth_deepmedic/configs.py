"""DeepMedic's configurations: ``trainConfig.cfg``, ``modelConfig.cfg``, list files and csv tables.

DeepMedic executes configurations as Python. Here they are only parsed: a value is a literal, a
list that is added or repeated, or sums, products and small powers of numbers. Only keys that data
and samples depend on are checked; DeepMedic checks its network and schedule when it starts.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from gansynth.runtime.errors import DataFault, did_you_mean
from gansynth.runtime.files import reading
from gansynth_deepmedic.insertion import MISSING

MOST_BYTES = 1 << 20  # most bytes of a configuration, and most values of its literals
MOST_LIST_BYTES = 16 << 20  # most bytes of a list or csv
FORE_BACKGROUND, UNIFORM, WHOLE, PER_CLASS = range(4)
"""typeOfSampling: foreground and background; uniform; whole image (as uniform); per class."""
ON_SAMPLES = "performValidationOnSamplesThroughoutTraining"
ON_VOLUMES = "performFullInferenceOnValidationImagesEveryFewEpochs"
SHARES = "proportionOfSamplesToExtractPerCategoryTraining"
MAPS = "weightedMapsForSamplingEachCategoryTrain"
SCORES = "norm_zscore_prms"

# -- literals --------------------------------------------------------------------------------------

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

    ``room``: most values and characters; its parts share it, so that it also bounds the depth.
    """
    match node:
        case _ if room < 1:
            raise ValueError("too many values, or nested too deeply")
        case ast.Constant(value=None | str() as value):
            return value
        case ast.Constant(value=int() | float() as value):
            pass
        case ast.List(elts=items) | ast.Tuple(elts=items):
            values = [_value(item, room // len(items)) for item in items]
            return values if isinstance(node, ast.List) else tuple(values)
        case ast.Dict(keys=keys, values=items):
            pairs, room = zip(keys, items, strict=True), room // (2 * len(items) + 1)
            return {_value(key, room): _value(item, room) for key, item in pairs}
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _OPERATORS:
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
    if not math.isfinite(value) or (isinstance(value, int) and abs(value) >= 2**63):
        raise ValueError("no finite number, or a whole one of more than 63 bits")
    return value


def _read_text(path: Path, most: int) -> str:
    with reading(path), open(path, "rb") as stream:
        data = stream.read(most + 1)
    try:
        if len(data) > most:
            raise ValueError(f"more than {most} bytes")
        return data.decode()
    except ValueError as error:
        raise DataFault(f"{path}: {error}, expected a small text file in UTF-8") from None


def _excerpt(text: str) -> str:
    """Shorten text for a message: one line, printable, limited in length."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text[:300].split()))
    return line if len(line) <= 60 else f"{line[:57]}..."


# -- keys ------------------------------------------------------------------------------------------

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class ConfigFile:
    """The assignments of a configuration. A key of None counts as missing, as in DeepMedic."""

    path: Path  # absolute
    values: Mapping[str, Any]
    lines: Mapping[str, int]  # key -> number of its line

    @classmethod
    def read(cls, path: Path) -> ConfigFile:
        """Read a file (DataFault: no such file, or anything but literals)."""
        path = Path(os.path.abspath(path))
        text = _read_text(path, MOST_BYTES)
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
                source = f"{_excerpt(ast.get_source_segment(text, statement) or '')}: "
                targets = statement.targets if isinstance(statement, ast.Assign) else []
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                if not isinstance(statement, ast.Assign) or len(names) < len(targets):
                    raise ValueError(f"code ({type(statement).__name__})")
                value = _value(statement.value, MOST_BYTES // len(statements))
                values |= dict.fromkeys(names, value)
                lines |= dict.fromkeys(names, line)
        except _NO_LITERAL as error:
            line = getattr(error, "lineno", None) or line
            why = _excerpt(getattr(error, "msg", None) or str(error) or "nested too deeply")
            raise DataFault(
                f"{path}: line {line}: {source}{why}; expected KEY = a number, a text, True, "
                "False, None, or a list, tuple or dict of these; write the value itself: "
                "configurations are never executed here"
            ) from None
        return cls(path, values, lines)

    def odd(self, key: str, expected: str, within: str = "") -> DataFault:
        """Return the error for a missing or invalid key, or for a value within it."""
        if self.values.get(key) is None:
            near = did_you_mean(key, self.values)
            return DataFault(f"{self.path}: no {key}, expected {expected}; add it.{near}")
        value = within or f"{key} is {_excerpt(repr(self.values[key]))}"
        return DataFault(
            f"{self.path}: line {self.lines[key]}: {value}, expected {expected}; correct it"
        )

    def get(self, key: str, kind: Any) -> Any:
        """Return a key's value as a type (DataFault: it does not fit)."""
        try:
            return TypeAdapter(kind).validate_python(self.values.get(key))
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
        where = [*key, *first["loc"]]
        name, parts = str(where[0]), where[1:]
        place = "".join(f"[{part!r}]" for part in parts)
        within = f"{name}{place} is {_excerpt(repr(first['input']))}" if parts else ""
        expected = re.sub(r"^(\w+ should (be|have)|Value error,) ", "", first["msg"])
        return self.odd(name, expected, within)


def _as_flag(value: Any) -> Any:
    return bool(value) if isinstance(value, int) and value in (0, 1) else value


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("a text that prints on one line")
    return text


Triple = tuple[int, int, int]
Whole = Annotated[int, Field(strict=True, ge=1)]
Flag = Annotated[bool, BeforeValidator(_as_flag), Field(strict=True)]
Voxels = tuple[Whole, Whole, Whole]
Kind = Annotated[int, Field(strict=True, ge=0, le=3)]  # a type of sampling
Shares = tuple[Annotated[float, Field(strict=True, ge=0)], ...] | None  # of the categories
Text = Annotated[str, AfterValidator(_one_line)]
Pad = Literal["VALID", "valid", "none", "MIRROR", "mirror", "ZERO", "zero", "SAME"] | None


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True)

    path: Path  # the file, absolute
    values: Mapping[str, Any]  # every assignment of the file, in its order


class ModelConfig(_Config):
    """What samples depend on in ``modelConfig.cfg``. Sizes are voxels along x, y, z."""

    classes: Annotated[int, Field(strict=True, ge=2)] = Field(alias="numberOfOutputClasses")
    channels: Whole = Field(alias="numberOfInputChannels")
    kernels: tuple[Voxels, ...] = Field(alias="kernelDimPerLayerNormal", min_length=1)
    pads: tuple[Pad, ...] | None = Field(None, alias="padTypePerLayerNormal")
    # of the fully connected layers and the classification layer
    fc_kernels: tuple[Voxels, ...] = Field((), alias="kernelDimPerLayerFC")
    fc_pads: tuple[Pad, ...] | None = Field(None, alias="padTypePerLayerFC")
    segment: Voxels = Field(alias="segmentsDimTrain")
    validation: Voxels | None = Field(None, alias="segmentsDimVal")
    inference: Voxels | None = Field(None, alias="segmentsDimInference")

    @property
    def receptive(self) -> Triple:
        """Receptive field of the normal path, as DeepMedic's ``rec_field``."""
        return _receptive(self.kernels)

    @property
    def segments(self) -> Mapping[str, Triple]:
        """Key -> size of a segment to train or to validate on, and of a tile of a whole volume."""
        return {
            "segmentsDimTrain": self.segment,
            "segmentsDimVal": self.validation or self.receptive,
            "segmentsDimInference": self.inference or self.segment,
        }

    @property
    def unpredicted(self) -> Triple:
        """Voxels along x, y, z by which a prediction is smaller than its segment."""
        pads = [*(self.pads or (None,) * len(self.kernels)), *(self.fc_pads or ())]
        layers = zip_longest(self.kernels + self.fc_kernels, pads)
        unpadded = [kernel for kernel, pad in layers if pad in ("VALID", "valid", "none", None)]
        x, y, z = _receptive(unpadded)
        return x - 1, y - 1, z - 1


def _receptive(kernels: Sequence[Triple]) -> Triple:
    x, y, z = (1 + sum(kernel[axis] - 1 for kernel in kernels) for axis in range(3))
    return x, y, z


def read_model_config(path: Path) -> ModelConfig:
    """Read a network's configuration.

    Raises:
        DataFault: no such file, code, a missing or invalid key, or segments without a prediction.
    """
    file = ConfigFile.read(path)
    model = file.parse(ModelConfig)
    for part, layers, pads in (
        ("Normal", len(model.kernels), model.pads),
        ("FC", len(model.fc_kernels), model.fc_pads if model.fc_kernels else None),
    ):
        if pads and len(pads) != layers:
            raise file.odd(f"padTypePerLayer{part}", f"one for each of {layers} layer(s)")
    least = [max(r, u + 1) for r, u in zip(model.receptive, model.unpredicted, strict=True)]
    for key, size in model.segments.items():
        if any(n < minimum for n, minimum in zip(size, least, strict=True)):
            raise file.odd(key, f"at least {least}, what the network needs to predict a voxel")
    return model


# -- the training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListedCase:
    """One case of the list files (or the csv): absolute paths, not opened."""

    channels: tuple[Path | None, ...]  # None for a missing one (``-``), but for the first
    labels: Path
    roi: Path | None  # region of interest
    line: int = field(compare=False)  # number of the entry, from 1, for messages

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case."""
        return tuple(file for file in (*self.channels, self.labels, self.roi) if file is not None)


class ZScoreKeys(BaseModel):
    """``norm_zscore_prms``."""

    apply_to_all_channels: Flag | None = False
    apply_per_channel: tuple[Flag, ...] | None = None


class TrainConfig(_Config):
    """``trainConfig.cfg`` and its lists, with DeepMedic's defaults."""

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
    schedule: Text = Field(alias="typeOfLearningRateSchedule")
    sampling: Kind = Field(PER_CLASS, alias="typeOfSamplingForTraining")
    sampling_validation: Kind = Field(UNIFORM, alias="typeOfSamplingForVal")
    shares: Shares = Field(None, alias=SHARES)
    shares_validation: Shares = Field(None, alias="proportionOfSamplesToExtractPerCategoryVal")
    validates_on_samples: Flag = Field(False, alias=ON_SAMPLES)
    validates_on_volumes: Flag = Field(False, alias=ON_VOLUMES)
    pad: Flag = Field(True, alias="padInputImagesBool")
    session: Text = Field("trainSession", alias="sessionName")
    zscore: ZScoreKeys = Field(ZScoreKeys(), alias=SCORES)

    @property
    def proportions(self) -> tuple[float, ...] | None:
        """Shares of the categories, None for equal ones; DeepMedic uses them for types 0 and 3."""
        return self.shares if self.sampling in (FORE_BACKGROUND, PER_CLASS) else None

    @property
    def weighted(self) -> bool:
        """Whether sampling maps are set."""
        return self.values.get(MAPS) is not None

    @property
    def normalised(self) -> tuple[bool, ...]:
        """Of each channel, whether DeepMedic itself normalises it."""
        every = (bool(self.zscore.apply_to_all_channels),) * len(self.channels)
        return every if self.zscore.apply_per_channel is None else self.zscore.apply_per_channel


def read_train_config(path: Path) -> TrainConfig:
    """Read a training's configuration and its list files or csv; no image is opened.

    Raises:
        DataFault: no such file, code, an invalid or missing key, a missing list file, lists of
            unequal length, or a missing first channel.
    """
    file = ConfigFile.read(path)
    train = _read_part(file, "Training", "dataframe_train")
    held = _Lists(train.where, train.channels, [], [])
    if any(file.get(key, Flag | None) for key in (ON_SAMPLES, ON_VOLUMES)):
        held = _read_part(file, "Validation", "dataframe_val")
    alike = set(train.channels) == set(held.channels) and train.channels != held.channels
    if alike or len(train.channels) != len(held.channels):
        raise file.odd("channelsValidation", f"as to train on: {', '.join(train.channels)}")
    once, held_once = train.once(), held.once()
    repeated = [case for case in train.cases if once[case] != case.line - 1]
    config = file.parse(
        TrainConfig,
        channels=train.channels,
        train=tuple(once),
        validation=tuple(held_once),
        predictions=[held.predictions[n] for n in held_once.values() if held.predictions],
        repeated=[*repeated, *(case for case in held.cases if held_once[case] != case.line - 1)],
        train_list=train.where,
        validation_list=held.where if held.cases else None,
    )
    shares, count = config.proportions, len(config.channels)
    if shares is not None and (
        not sum(shares) > 0 or (config.sampling == FORE_BACKGROUND and len(shares) != 2)
    ):
        raise file.odd(SHARES, "numbers that do not sum up to 0, two for fore- and background")
    if len(config.normalised) != count:
        raise file.odd(SCORES, f"apply_per_channel with True or False for {count} channel(s)")
    return config


# -- list files and tables -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lists:
    """The cases of training or of validation."""

    where: Path  # file that names the first channels
    channels: tuple[str, ...]  # their names
    cases: list[ListedCase]
    predictions: list[str]  # names of the cases' predictions; empty if there are none

    def once(self) -> dict[ListedCase, int]:
        """Return each case, and the index of its first entry."""
        first: dict[ListedCase, int] = {}
        for number, case in enumerate(self.cases):
            first.setdefault(case, number)
        return first


def _read_part(file: ConfigFile, part: str, table: str) -> _Lists:
    folder = file.path.parent
    if file.values.get(table) is not None:
        return _read_table(joined(folder, file.get(table, Text)))
    channels = file.get(f"channels{part}", Annotated[tuple[Text, ...], Field(min_length=1)])
    labels, roi = file.get(f"gtLabels{part}", Text), file.get(f"roiMasks{part}", Text | None)
    key = "namesForPredictionsPerCaseVal"
    names = file.get(key, Text | None) if part == "Validation" else None
    paths = [joined(folder, name) for name in (*channels, labels, roi, names) if name is not None]
    texts = [_read_text(path, MOST_LIST_BYTES).split("\n") for path in paths]
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
    count, cases = len(channels), []
    for number, row in enumerate(zip(*columns, strict=True), start=1):
        places = [(path, f"entry {number}") for path in paths]
        cases.append(_listed(places, row, number, count, optional=range(1, count)))
    return _Lists(paths[0], told_apart(paths[:count]), cases, predictions)


def _listed(
    places: Sequence[tuple[Path, str]],
    entries: Sequence[str],
    number: int,
    channels: int,
    optional: Sequence[int] = (),
) -> ListedCase:
    """Return a case of entries: of its channels, its label map, and perhaps its region."""
    files: list[Any] = []
    for index, ((path, place), entry) in enumerate(zip(places, entries, strict=False)):
        missing = entry in ("", MISSING)
        if not entry.isprintable() or (missing and index not in optional):
            raise DataFault(
                f"{path}: {place} is {_excerpt(entry)!a}, expected a path (only further channels "
                "of list files may be '-', missing); add the file, or remove the case from every "
                "list"
            )
        files.append(None if missing else joined(path.parent, entry))
    labels, *roi = files[channels:]
    return ListedCase(tuple(files[:channels]), labels, roi[0] if roi else None, number)


def _read_table(path: Path) -> _Lists:
    text = _read_text(path, MOST_LIST_BYTES).removeprefix("\ufeff")
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        header = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataFault(f"{path}: not readable as CSV: {error}; save it again") from None
    channels = sorted(name for name in header if name.startswith("channel_"))
    columns = [*channels, "ground_truth", *({"roi_mask"} & {*header})]
    if not channels or "ground_truth" not in header or len({*header}) < len(header) or not rows:
        raise DataFault(
            f"{path}: columns are {_excerpt(str(header))}, {len(rows)} row(s), expected "
            "channel_NAME and ground_truth, each once, and a row for each case; correct it"
        )
    cases, predictions = [], []
    for number, (line, row) in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataFault(f"{path}: line {line}: expected {len(header)} cells as in its header")
        places = [(path, f"line {line}: {name}") for name in columns]
        cases.append(_listed(places, [row[name] for name in columns], number, len(channels)))
        predictions += [row["prediction_filename"]] if "prediction_filename" in header else []
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
        parts = ["_".join(words) for words in each]
        if all(parts) and len({part.casefold() for part in parts}) == len(parts):
            return tuple(parts)
    return tuple(f"channel {number}" for number in range(len(paths)))
