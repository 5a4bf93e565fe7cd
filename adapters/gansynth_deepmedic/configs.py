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
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat, zip_longest
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gansynth import CaseFiles, DataFault
from gansynth.core.volumes import volume_stem
from gansynth.runtime.errors import did_you_mean
from gansynth.runtime.files import reading
from gansynth_deepmedic.insertion import MISSING

MOST_BYTES = 1 << 16  # most bytes of a configuration
MOST_REPEATED = 1 << 12  # most characters of a list that is repeated
MOST_LIST_BYTES = 16 << 20  # most bytes of a list or csv
DEEPEST = 4  # most parent folders in a case's name
FORE_BACKGROUND, UNIFORM, WHOLE, PER_CLASS = range(4)
"""typeOfSampling: foreground and background; uniform; whole image (as uniform); per class."""
ON_SAMPLES: Final = "performValidationOnSamplesThroughoutTraining"
ON_VOLUMES: Final = "performFullInferenceOnValidationImagesEveryFewEpochs"
BETWEEN: Final = "numberOfEpochsBetweenFullInferenceOnValImages"
SHARES: Final = "proportionOfSamplesToExtractPerCategoryTraining"
MAPS: Final = "weightedMapsForSamplingEachCategoryTrain"
VALIDATION_MAPS = "weightedMapsForSamplingEachCategoryVal"
SCORES: Final = "norm_zscore_prms"
NAMES: Final = "namesForPredictionsPerCaseVal"
CASES: Final = "numOfCasesLoadedPerSubepoch"
SEGMENTS: Final = "numberTrainingSegmentsLoadedOnGpuPerSubep"
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


def _value(node: ast.AST | None) -> Any:
    """Return an expression's value (ValueError, TypeError ...: it has none)."""
    match node:
        case ast.Constant(value=None | str() as value):
            return value
        case ast.Constant(value=int() | float() as value):
            pass
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(map(_value, items))
        case ast.Dict(keys=keys, values=items):
            return dict(zip(map(_value, keys), map(_value, items), strict=True))
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _OPERATORS:
            value = _OPERATORS[type(sign)](_value(operand))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            match _value(left), sign, _value(right):
                case list() as items, ast.Add(), list() as others:
                    return items + others
                case (list() as items, _, int() as n) | (int() as n, _, list() as items) if (
                    isinstance(sign, ast.Mult)
                ):
                    if n * len(repr(items)) > MOST_REPEATED:
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
        raise DataFault(
            "deepmedic.configuration-unreadable",
            f"{path}: {error}, expected a small text file in UTF-8",
        ) from None


def _excerpt(text: str) -> str:
    """Shorten text for a message: one line, printable, limited in length."""
    words = " ".join(text[:300].split())
    line = "".join([c if c.isprintable() else "?" for c in words])
    return line if len(line) <= 60 else f"{line[:57]}..."


# -- keys ------------------------------------------------------------------------------------------

Model = TypeVar("Model", bound=BaseModel)


def trains(path: Path) -> bool:
    """Whether a file is the configuration of a training, by its keys of cases."""
    if path.suffix != ".cfg" or not path.is_file():
        return False
    with reading(path), open(path, "rb") as stream:
        text = stream.read(MOST_BYTES)
    return b"channelsTraining" in text or b"dataframe_train" in text


def read_values(path: Path) -> dict[str, Any]:
    """Return the assignments of a configuration (DataFault: no file, or more than literals)."""
    text = _read_text(path, MOST_BYTES)
    values: dict[str, Any] = {}
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
            values |= dict.fromkeys(names, _value(statement.value))
    except _NO_LITERAL as error:
        line = getattr(error, "lineno", None) or line
        why = _excerpt(getattr(error, "msg", None) or str(error) or "nested too deeply")
        raise DataFault(
            "deepmedic.configuration-value-not-literal",
            f"{path}: line {line}: {source}{why}; expected KEY = a number, a text, True, False, "
            "None, or a list, tuple or dict of these; write the value itself: configurations are "
            "never executed here",
        ) from None
    return values


def _parse(model: type[Model], path: Path, values: Mapping[str, Any], ending: str = "") -> Model:
    """Return a model of its keys; one that is None counts as missing, as in DeepMedic.

    ``ending``: of the keys in the file.
    """
    given: dict[str, Any] = {"path": path, "values": values}
    given |= {key.removesuffix(ending): v for key, v in values.items() if v is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
    name, *parts = first["loc"]
    key = f"{name}{ending}" + "".join([f"[{part!r}]" for part in parts])
    if first["type"] == "missing" and not parts:
        raise DataFault(
            "deepmedic.configuration-key-missing",
            f"{path}: no {key}, expected one; add it.{did_you_mean(key, values)}",
        )
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
    raise DataFault(
        "deepmedic.configuration-value-invalid",
        f"{path}: {key} is {_excerpt(repr(first['input']))}: {message}; correct it",
    )


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
    pads: tuple[Pad, ...] = Field((), alias="padTypePerLayerNormal")
    # of the fully connected layers and the classification layer
    fc_kernels: tuple[Voxels, ...] = Field((), alias="kernelDimPerLayerFC")
    fc_pads: tuple[Pad, ...] = Field((), alias="padTypePerLayerFC")
    segment: Voxels = Field(alias="segmentsDimTrain")
    validation: Voxels | None = Field(None, alias="segmentsDimVal")
    inference: Voxels | None = Field(None, alias="segmentsDimInference")

    @property
    def segments(self) -> Mapping[str, Triple]:
        """Key -> size of a segment to train or to validate on, and of a tile of a whole volume."""
        return {
            "segmentsDimTrain": self.segment,
            "segmentsDimVal": self.validation or _receptive(self.kernels),
            "segmentsDimInference": self.inference or self.segment,
        }

    @property
    def unpredicted(self) -> Triple:
        """Voxels along x, y, z by which a prediction is smaller than its segment."""
        layers = [
            *zip_longest(self.kernels, self.pads[: len(self.kernels)]),
            *zip_longest(self.fc_kernels, self.fc_pads[: len(self.fc_kernels)]),
        ]
        unpadded = [kernel for kernel, pad in layers if pad in ("VALID", "valid", "none", None)]
        x, y, z = _receptive(unpadded)
        return x - 1, y - 1, z - 1


def _receptive(kernels: Sequence[Triple]) -> Triple:
    x = y = z = 1
    for kernel in kernels:
        x, y, z = x + kernel[0] - 1, y + kernel[1] - 1, z + kernel[2] - 1
    return x, y, z


def read_model_config(path: Path) -> ModelConfig:
    """Read a network's configuration (DataFault: no such file, code, or an invalid key)."""
    path = Path(os.path.abspath(path))
    return _parse(ModelConfig, path, read_values(path))


# -- the training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListedCase(CaseFiles):
    """One case of the list files (or the csv): absolute paths, not opened."""

    labels: Path
    channels: tuple[Path | None, ...] = ()  # None for a missing one (``-``), but for the first
    roi: Path | None = None  # region of interest

    @property
    def everything(self) -> tuple[Path, ...]:
        """All files of the case, with its region of interest."""
        return super().everything if self.roi is None else (*super().everything, self.roi)

    @property
    def columns(self) -> tuple[Path | None, ...]:
        return (*self.channels, self.labels, self.roi)


class ListKeys(BaseModel):
    """The list files of training or of validation."""

    channels: tuple[Text, ...] = Field(min_length=1)
    labels: Text = Field(alias="gtLabels")
    roi: Text | None = Field(None, alias="roiMasks")


class TrainConfig(_Config):
    """``trainConfig.cfg`` and its lists, with DeepMedic's defaults."""

    # names of the channels: the csv's columns, else distinguishing parts of the list files' names
    channels: tuple[str, ...] = ()
    train: tuple[ListedCase, ...] = ()  # each once, of part ``train``; others of part ``val``
    validation: tuple[ListedCase, ...] = ()  # each once; empty without validation
    repeated: int = 0  # entries of the lists that repeat a case
    train_table: Text | None = Field(None, alias="dataframe_train")
    validation_table: Text | None = Field(None, alias="dataframe_val")
    names: Text | None = Field(None, alias=NAMES)
    epochs: Whole = Field(35, alias="numberOfEpochs")
    subepochs: Whole = Field(20, alias="numberOfSubepochs")
    cases: Whole = Field(50, alias=CASES)
    segments: Whole = Field(1000, alias=SEGMENTS)
    batch: Whole = Field(alias="batchsize_train")
    processes: Annotated[int, Field(strict=True, ge=-1)] = Field(0, alias="num_processes_sampling")
    sampling: Kind = Field(PER_CLASS, alias="typeOfSamplingForTraining")
    sampling_validation: Kind = Field(UNIFORM, alias="typeOfSamplingForVal")
    shares: Shares = Field(None, alias=SHARES)
    shares_validation: Shares = Field(None, alias="proportionOfSamplesToExtractPerCategoryVal")
    validates_on_samples: Flag = Field(False, alias=ON_SAMPLES)
    validates_on_volumes: Flag = Field(False, alias=ON_VOLUMES)
    # epochs from one full inference to the next; DeepMedic takes 0 where there are none
    between: Annotated[int, Field(strict=True, ge=0)] = Field(1, alias=BETWEEN)
    pad: Flag = Field(True, alias="padInputImagesBool")
    session: Text = Field("trainSession", alias="sessionName")
    zscore: Mapping[str, Any] = Field({}, alias=SCORES)

    @property
    def listed(self) -> tuple[ListedCase, ...]:
        """All cases, in the order of the lists."""
        return (*self.train, *self.validation)

    @property
    def weighted(self) -> bool:
        """Whether sampling maps are set."""
        return self.values.get(MAPS) is not None

    @property
    def normalised(self) -> tuple[bool, ...]:
        """Of each channel, whether DeepMedic itself normalises it."""
        each: Any = self.zscore.get("apply_per_channel")
        every = bool(self.zscore.get("apply_to_all_channels"))
        listed = isinstance(each, list | tuple)
        return tuple(map(bool, each)) if listed else (every,) * len(self.channels)


def read_train_config(path: Path) -> TrainConfig:
    """Read a training's configuration and its list files or csv; no image is opened."""
    path = Path(os.path.abspath(path))
    config = _parse(TrainConfig, path, read_values(path))
    channels, train = _read_lists(config, "Training", config.train_table)
    held_channels, held = channels, list[ListedCase]()
    if config.validates_on_samples or config.validates_on_volumes:
        tables = config.validation_table, config.names
        held_channels, held = _read_lists(config, "Validation", *tables)
    alike = set(channels) == set(held_channels) and channels != held_channels
    if alike or len(channels) != len(held_channels):
        raise DataFault(
            "deepmedic.validation-channels-differ",
            f"{path}: channelsValidation lists {', '.join(held_channels)}, expected the channels "
            f"to train on in the same order: {', '.join(channels)}; correct it",
        )
    once, held_once = dict.fromkeys(train), dict.fromkeys(held)
    names = iter(case_ids([*once, *held_once], channels[0]))
    trained = [replace(case, case=next(names), part="train") for case in once]
    validation = [replace(case, case=next(names), part="val") for case in held_once]
    lists = {
        "channels": channels,
        "train": tuple(trained),
        "validation": tuple(validation),
        "repeated": len(train) + len(held) - len(once) - len(held_once),
    }
    return config.model_copy(update=lists)


# -- list files and tables -------------------------------------------------------------------------


Lists = tuple[tuple[str, ...], list[ListedCase]]
"""Names of the channels, and the cases of training or of validation."""


def _read_lists(
    config: TrainConfig, part: str, table: str | None, names: str | None = None
) -> Lists:
    folder = config.path.parent
    if table is not None:
        return _read_table(joined(folder, table))
    keys = _parse(ListKeys, config.path, config.values, part)
    count = len(keys.channels)
    files = [*keys.channels, keys.labels, keys.roi, names]
    paths = [joined(folder, file) for file in files if file is not None]
    texts = [_read_text(path, MOST_LIST_BYTES).split("\n") for path in paths]
    columns = [[s.strip() for s in lines if s.strip() and s[0] != "#"] for lines in texts]
    for path, entries in zip(paths, columns, strict=True):
        if len(entries) != len(columns[0]) or not entries:
            raise DataFault(
                "deepmedic.list-lengths-differ",
                f"{path}: lists {len(entries)} case(s), but {paths[0]} lists {len(columns[0])}; "
                "expected as many and at least one, because line i is case i (DeepMedic silently "
                "cuts the longer list). Complete it",
            )
    read = count + 1 + (keys.roi is not None)  # names of predictions are only counted
    each = [
        _paths(path, entries, optional=0 < number < count)
        for number, (path, entries) in enumerate(zip(paths[:read], columns, strict=False))
    ]
    return told_apart(paths[:count]), _cases(each[:count], *each[count:])


def _read_table(path: Path) -> Lists:
    text = _read_text(path, MOST_LIST_BYTES).removeprefix("\ufeff")
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        rows, header = list(reader), list(reader.fieldnames or ())
    except csv.Error as error:
        raise DataFault(
            "deepmedic.table-not-csv", f"{path}: not readable as CSV: {error}; save it again"
        ) from None
    channels = sorted(name for name in header if name.startswith("channel_"))
    uneven = not rows or any(None in (*row, *row.values()) for row in rows)
    if not channels or "ground_truth" not in header or len({*header}) < len(header) or uneven:
        raise DataFault(
            "deepmedic.table-columns-wrong",
            f"{path}: columns are {_excerpt(str(header))}, expected channel_NAME and ground_truth, "
            "each once, and a row of as many cells for each case; correct it",
        )
    named = [*channels, "ground_truth"]
    if "roi_mask" in header:
        named.append("roi_mask")
    each = [_paths(path, [row[name] for row in rows], f" of {name}") for name in named]
    names = tuple(name.removeprefix("channel_") for name in channels)
    return names, _cases(each[: len(names)], *each[len(names) :])


def _paths(
    file: Path, entries: Sequence[str], column: str = "", *, optional: bool = False
) -> list[Any]:
    """Return the paths in a list or a csv's column; None for one that is missing, if it may be."""
    found: list[Path | None] = []
    for number, entry in enumerate(entries, start=1):
        none = entry in ("", MISSING)
        if not entry.isprintable() or (none and not optional):
            raise DataFault(
                "deepmedic.list-entry-not-path",
                f"{file}: entry {number}{column} is {_excerpt(entry)!a}, expected a path (only "
                "further channels of list files may be '-', missing); add the file, or remove the "
                "case from every list",
            )
        found.append(None if none else joined(file.parent, entry))
    return found


def _cases(
    channels: Sequence[Sequence[Path | None]], labels: Sequence[Path], roi: Sequence[Path] = ()
) -> list[ListedCase]:
    images = zip(*channels, strict=True)
    return [
        ListedCase("", tuple(filter(None, files)), truth, channels=files, roi=region)
        for files, truth, region in zip(images, labels, roi or repeat(None), strict=False)
    ]


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
        for end in (0, -1):
            while min(map(len, each)) > 1 and len({words[end] for words in each}) == 1:
                for words in each:
                    words.pop(end)
        parts = ["_".join(words) for words in each]
        if all(parts) and len({part.casefold() for part in parts}) == len(parts):
            return tuple(parts)
    return tuple(f"channel {number}" for number in range(len(paths)))


def case_ids(cases: Sequence[ListedCase], channel: str) -> tuple[str, ...]:
    """Return the shortest unique names of cases: of the folder, of the file, of both, ..."""
    ending = f"_{channel}".casefold()

    def within(case: ListedCase, depth: int) -> str:
        """Return the name of its file and of some folders around it."""
        file = case.images[0]
        name, folders = volume_stem(file.name) or file.stem, file.parent.parts
        name = name[: -len(ending)] if name.casefold().endswith(ending) else name
        return "_".join((*folders[max(0, len(folders) - depth) :], name))

    namings = [
        [case.labels.parent.name for case in cases],
        [case.images[0].parent.name for case in cases],
    ]
    namings += [[within(case, depth) for case in cases] for depth in range(DEEPEST + 1)]
    for names in namings:
        alike = {unicodedata.normalize("NFC", name).casefold() for name in names}
        if all(names) and len(alike) == len(names):
            return tuple(name.replace(os.sep, "_") for name in names)
    return tuple([f"case_{number:04d}" for number in range(len(cases))])
