"""``--read KEY=VALUE``: each kind of source has a model of its own keys; no other is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from gansynth.core.source import SourceRequest
from gansynth.data.name_patterns import NamePattern, Pattern, read_pattern
from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth.runtime.option_kinds import Size3, parts_of
from gansynth.runtime.options import Needs, OptionModel, flag_of, read_model, refuse_idle
from gansynth.runtime.volumes import LEAST_MM, MOST_MM

INNER = "inner."  # prefix of keys that go to the inner source, even where both have the key


class ReadOptions(OptionModel):
    """Base of every kind's options; ``passes_on``: other keys are those of a source behind."""

    passes_on: ClassVar[bool] = False
    of_arrays: ClassVar[frozenset[str]] = frozenset()
    """Keys that change arrays as they are read: without effect where files are copied."""

    @classmethod
    def behind(cls, request: SourceRequest) -> SourceRequest | None:
        """The request of the source behind, which gets the keys that this one passes on."""
        return None


Options = TypeVar("Options", bound=ReadOptions)
Opener = TypeVar("Opener", bound=Callable[..., Any])


def register_read_options(model: type[ReadOptions]) -> Callable[[Opener], Opener]:
    """Attach the model of ``--read`` keys to an opener of sources; without it, there are none."""

    def mark(opener: Opener) -> Opener:
        opener.read_options = model  # type: ignore[attr-defined]
        return opener

    return mark


def options_of(opener: Callable[..., Any], request: SourceRequest) -> ReadOptions:
    """Parse the ``--read`` options of a request. Raises UsageFault: as ``parse_read``."""
    model: type[ReadOptions] = getattr(opener, "read_options", ReadOptions)
    return parse_read(model, request)


def refuse_idle_read(request: SourceRequest, typed: Collection[str]) -> None:
    """Refuse (UsageFault) ``--read`` keys typed by a user that have no effect."""
    from gansynth.core.registry import installed

    opener = installed().load("sources", request.kind)
    try:
        options = options_of(opener, request)
    except UsageFault:
        return
    keys = options.model_fields_set.intersection(typed)
    refuse_idle(keys, options, options.needs, partial(_as_typed, request))
    behind = options.behind(request)
    if behind is not None:
        refuse_idle_read(behind, [key.removeprefix(INNER) for key in set(typed) - keys])


def parse_read(model: type[Options], request: SourceRequest) -> Options:
    """Read a request's ``--read`` values; UsageFault: an unknown key, or a value that is unfit."""
    fields = model.model_fields
    for key, text in request.read.items():
        if key not in fields and not model.passes_on:
            flag = f" Did you mean: {flag_of(key)} '{text}'?"
            hint = flag if key in NOT_READ else did_you_mean(key, fields)
            raise UsageFault(
                "read-options.key-unknown",
                f"--read {key}={text}: {request.kind}: has no such key, expected one of: "
                f"{', '.join(fields) or 'none'}.{hint} See: gansynth options {request.kind}",
            )
    values = {key: text for key, text in request.read.items() if key in fields}
    return read_model(model, values, partial(_as_typed, request))


def _as_typed(request: SourceRequest, key: str) -> str:
    return f"--read {key or ','.join(request.read)}={request.read.get(key, '')}"


NOT_READ = ("subjects", "fold", "configuration", "plans", "root")
"""Fields of a request that are options of their own."""
OF_BOXES: Needs = {"least": "boxes"}
OF_SPLITS: Needs = {"folds": "!splits", "seed": "!splits"}
"""Keys that these shared keys need beside them."""
DIVIDING = frozenset({"splits", *OF_SPLITS})
"""Keys that say which cases are held out, and nothing of how one is read."""


def how_read(request: SourceRequest, *more: object) -> str:
    """Return all that a case depends on beside its files, as a text.

    Args:
        more: of it, that the request does not say.
    """
    read = {key: text for key, text in request.read.items() if key not in DIVIDING}
    return json.dumps([request.kind, read, *more], sort_keys=True)


# -- kinds of values -----------------------------------------------------------------------------


def positive(value: Any, count: int, expected: str) -> Any:
    """Read sizes of voxels in mm; one alone stands for all ``count`` of them."""
    try:
        parts = parts_of(value, numbers=True) if isinstance(value, str) else value
        numbers = tuple(map(float, parts))
    except (TypeError, ValueError):
        numbers = ()
    numbers = numbers * count if len(numbers) == 1 else numbers
    if len(numbers) != count or not all(LEAST_MM <= v <= MOST_MM for v in numbers):
        raise ValueError(f"{expected}, in mm from {LEAST_MM:g} to {MOST_MM:g}")
    return numbers


def _spacing(value: Any) -> Any:
    if value in (None, "native"):
        return value
    return positive(value, 3, "expected native, one positive number, or three: z,y,x")


def _pair(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    low, colon, high = value.partition(":")
    try:
        pair = float(low), float(high)
    except ValueError:
        pair = (0.0, 0.0)
    if not colon or not -float("inf") < pair[0] < pair[1] < float("inf"):
        raise ValueError("expected LOW:HIGH, two numbers, the lower one first")
    return pair


def _label_names(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    named: dict[str, int] = {}
    for word in parts_of(value):
        name, colon, number = word.rpartition(":")
        if not (colon and name.strip() and number.isdecimal() and int(number) < 2**15):
            raise ValueError(f"{word!r} is not NAME:NUMBER, expected NAME:NUMBER,NAME:NUMBER,...")
        if name.strip() in named or int(number) in named.values():
            raise ValueError(f"{word!r} occurs twice, expected each name and number once")
        named[name.strip()] = int(number)
    for name, label in named.items():
        if label == 0 and "background" not in map(str.casefold, named):
            raise ValueError(f"{name!r} is 0, but 0 is always background; leave it out")
    return complete_labels(named)


def complete_labels(named: Mapping[str, int]) -> dict[str, int]:
    """Labels by increasing value, with a background of 0 where none is named."""
    labels = {} if 0 in named.values() else {"background": 0}
    labels.update(named)
    return dict(sorted(labels.items(), key=lambda item: item[1]))


def _boxes_asked(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.casefold() in ("yes", "no"):
        return "yes" if value.casefold() == "yes" else None
    named: dict[str, tuple[int, ...]] = {}
    for word in parts_of(value):
        name, colon, numbers = word.rpartition(":")
        each = [number.strip() for number in numbers.split("+")]
        if not (colon and name.strip() and all(n.isdecimal() and 0 < int(n) < 2**15 for n in each)):
            raise ValueError(
                f"{word!r} is not NAME:NUMBER+NUMBER+..., expected yes, or for example "
                "tumour:1+2+3+4,core:4"
            )
        if name.strip() in named:
            raise ValueError(f"{name.strip()!r} occurs twice, expected each name once")
        named[name.strip()] = tuple(sorted({int(n) for n in each}))
    return named


LabelNames = Annotated[dict[str, int], BeforeValidator(_label_names)]
Modality = Literal["mr", "ct", "none"]
Modalities = tuple[Modality, ...]
Window = Annotated[tuple[float, float], BeforeValidator(_pair)]
Spacing = Annotated[tuple[float, float, float] | Literal["native"], BeforeValidator(_spacing)]
BoxesAsked = Literal["yes"] | dict[str, tuple[int, ...]]
"""``yes``: a class for each label; else names of classes, and the label numbers of each."""
OfLabels = Annotated[
    BoxesAsked | None,
    BeforeValidator(_boxes_asked),
    Field(
        description="`yes`: a box around each connected part of each label, with the label's name "
        "as class. `NAME:1+2+4,NAME:3`: around parts of these labels together. Default: no boxes"
    ),
]
LeastVoxels = Annotated[
    int, Field(ge=1, description="least voxels of a part that gets a box; see `boxes`")
]
"""Smallest part with a box."""
ClipWindow = Annotated[
    Window | None,
    Field(
        description="LOW:HIGH that CT channels are clipped to, in HU; else the 0.5 and 99.5 "
        "percentiles of the training cases' foreground"
    ),
]
CropSize = Annotated[
    Size3 | None,
    Field(
        description="voxels along z,y,x (or one number) of the crops a generator works on. "
        "Default: the training cases' median, at most 128, a multiple of 8"
    ),
]
Frame = Annotated[
    Size3 | None,
    Field(
        description="voxels along z,y,x (or one number) around the middle of every case, which a "
        "generator sees instead of crops of `size`. A smaller case repeats its border"
    ),
]
Whole = Annotated[
    Size3 | None,
    Field(
        description="voxels along z,y,x (or one number) that every case, or its `frame`, is "
        "resampled to, instead of crops of `size`. Samples are resampled back to the case's grid"
    ),
]
SplitsFile = Annotated[
    str | None,
    Field(
        description='JSON list of folds, each `{"train": [cases], "val": [cases]}`, which '
        "overrides all other splits"
    ),
]
Resampling = Annotated[
    Literal["linear", "nearest"],
    Field(
        description="how `whole` resamples images, there and back; labels always take the nearest "
        "voxel"
    ),
]
"""Of ``whole``; `nearest` makes no new values."""


class CaseOptions(ReadOptions):
    """How volumes become a generator's arrays; common to all kinds of volumes."""

    needs: ClassVar[Needs] = {**OF_BOXES, "resampling": "whole"}

    channels: tuple[str, ...] | None = Field(
        None, description="names of the channels; where the source names its own, those to read"
    )
    labels: LabelNames | None = Field(
        None,
        description="NAME:NUMBER,... of the labels; what the source says, else the values found in "
        "the training cases",
    )
    modality: Modalities | None = Field(
        None,
        description="`mr` (z-score over the case's nonzero voxels), `ct` (clip, then z-score, by "
        "the training cases' foreground) or `none`. One for all channels or one for each. Default: "
        "`ct` for a channel called CT, else `mr`",
    )
    window: ClipWindow = None
    spacing: Spacing | None = Field(
        None,
        description="voxel size in mm along z,y,x (or one number) that cases are resampled to, or "
        "`native`: never. Default: the training cases' median; cases within 1 % of it stay",
    )
    size: CropSize = None
    frame: Frame = None
    whole: Whole = None
    resampling: Resampling = "linear"
    splits: SplitsFile = None
    boxes: OfLabels = None
    least: LeastVoxels = 1

    @model_validator(mode="after")
    def _background_is_0(self) -> Self:
        if (self.labels or {}).get("background"):
            raise ValueError("0 is always background in volumes; renumber the label maps")
        return self

    @model_validator(mode="after")
    def _crops_or_whole(self) -> Self:
        option = "frame" if self.whole is None else "whole"
        if self.size is not None and not (self.frame is None and self.whole is None):
            raise ValueError(
                f"size is of crops, {option} of whole volumes, expected one of them; leave the "
                "other out"
            )
        return self


class VolumeOptions(CaseOptions):
    """How volumes are read; common to all kinds that read NIfTI files."""

    needs: ClassVar[Needs] = {**CaseOptions.needs, **OF_SPLITS}
    of_arrays: ClassVar[frozenset[str]] = frozenset(
        {"window", "spacing", "size", "frame", "whole", "resampling", "between", "boxes"}
    )

    folds: int = Field(
        5,
        ge=2,
        description="number of folds, where the source has no split; by default not more than "
        "subjects",
    )
    seed: int = Field(12345, ge=0, description="seed of the split of subjects into folds")
    allow_absolute: bool = Field(
        False, description="`yes`: files may lie outside of the source's folder"
    )
    between: int | None = Field(
        None,
        ge=2,
        description="N: only every N-th slice along z is labelled. Slices between two labelled "
        "ones, at most N apart, are filled by linear interpolation of shapes. Default: as stored",
    )


class FileOptions(VolumeOptions):
    """How volumes are read, and which files they are."""

    needs: ClassVar[Needs] = VolumeOptions.needs

    image: Pattern | None = Field(
        None,
        description="pattern of the images' paths below the folder, with {case} and, where each "
        "channel has a file, {channel}: `volume-{case}.nii`, `{case}/{channel}.nii.gz`. * and ? "
        "fit as in a shell. Default: a layout that is known",
    )
    label: str | None = Field(
        None,
        description="the label maps: with `image` a pattern with {case} (and {label}, {rater}, "
        "{part}), else what their names end in after the case's, `seg` or `label-lesion_mask`. "
        "Default: what is usual",
    )

    @model_validator(mode="after")
    def _label_of_a_kind(self) -> Self:
        if self.label is None or (self.image is None) != ("{case" in self.label):
            _ = self.label_pattern  # raises where it is odd
            return self
        if self.image is None:
            raise ValueError("label is a pattern, expected one of image beside it: --read image=")
        raise ValueError(f"label {self.label!r} has no {{case}}, expected a pattern as image is")

    @property
    def label_pattern(self) -> NamePattern | None:
        """The pattern of label maps, beside that of images."""
        if self.label is None or self.image is None:
            return None
        return read_pattern(self.label, of_labels=True)
