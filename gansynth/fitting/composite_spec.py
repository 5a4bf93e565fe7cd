"""Specification of a composite run: a chain in a YAML file, one model per channel or class.

A chain lists its parts in the order of fitting and sampling::

    edits: [elastic]                 # of the label maps; default: those of the first image part
    parts:
      - name: tissues                # Shin et al. 2018: tissues of T1, learnt on other subjects
        generator: cgan3d-labels
        data: nifti:tissues/
        set: {given: [T1]}
      - name: t1
        generator: cgan3d
        channels: [T1]               # image channels it sees; default: all
        labels_by: tissues           # its label maps: tissues of the images, and tumours
        set: {steps: 20000}
      - name: flair
        generator: cgan3d
        channels: [T1, FLAIR]
        labels_by: tissues
        set: {given: [T1]}           # given the T1 of the part before
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gansynth.core.registry import installed
from gansynth.core.schema import Schema
from gansynth.core.source import CaseSource
from gansynth.data.folds import class_numbers
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import folder_name
from gansynth.runtime.options import overlay
from gansynth.runtime.yaml_text import read_yaml

EACH = "each"
"""``--per-channel`` and ``--per-class`` without groups."""
LEAST_CASES = 2
"""Least training cases of a class; a single one would be memorised."""


def texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Convert values from YAML to texts as after ``--set``."""
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}


def _own_options(generator: str) -> Collection[str]:
    return installed().generator(generator).Options.model_fields


class PartSpec(BaseModel):
    """Specification of one part."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", description="its folder's name")
    generator: str = Field(description="registered name")
    set: dict[str, Any] = Field(default_factory=dict, description="options, as after --set")
    channels: tuple[str, ...] | None = Field(
        None, description="image channels it sees; null: all it needs"
    )
    labels_by: str | None = Field(None, description="earlier part that draws its label maps")
    init_from: str | None = Field(
        None,
        description="earlier part whose weights it starts from, channel by channel of one name; "
        "that part draws nothing itself",
    )
    data: str | None = Field(None, description="KIND:WHERE of its own; null: the composite's")
    read: dict[str, str] = Field(default_factory=dict, description="how to read ``data``")
    names: dict[str, str] = Field(
        default_factory=dict,
        description="channels that ``data`` calls otherwise than the composite's cases: "
        "theirs -> its",
    )
    configuration: str | None = Field(None, description="the host's configuration of ``data``")
    plans: str | None = Field(None, description="the host's plans of ``data``")
    fold: str = Field("0", description="fold of ``data``")
    subjects: str | None = Field(None, description="whose cases those of ``data`` are")

    def settings(self, over: Mapping[str, str], parts: Sequence[PartSpec]) -> dict[str, str]:
        """Return ``set`` as texts, overridden by what is set for all ``parts``.

        Options that only the generators of other parts have are left out. One that none has stays,
        to be refused.
        """
        others = {part.generator for part in parts} - {self.generator}
        known = others.intersection(installed().names("generators"))
        elsewhere = {key for name in known for key in _own_options(name)}
        foreign = elsewhere.difference(_own_options(self.generator))
        return overlay(texts(self.set), {k: v for k, v in over.items() if k not in foreign})


class ChainSpec(BaseModel):
    """Specification of all parts, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: tuple[PartSpec, ...] = Field(min_length=1, description="in the order they draw")
    edits: tuple[str, ...] | None = Field(None, description="condition edits by name")


@dataclass(frozen=True)
class PerChannel:
    """One part per channel (``each``), or per group of channels like ``T1+T2,FLAIR``."""

    generator: str
    groups: str = EACH

    def chain(self, schema: Schema) -> ChainSpec:
        """Return the parts. Raises UsageFault: a channel is unknown, left out, or named twice."""
        parts = _grouped(self.groups, schema.channels)
        named = [channel for part in parts for channel in part]
        if sorted(named) != sorted(schema.channels):
            raise UsageFault(
                "fitting.per-channel-not-every-channel",
                f"--per-channel {self.groups}: expected every one of {', '.join(schema.channels)} "
                f"once, for example --per-channel {','.join(schema.channels)}",
            )
        found = [
            {"name": name, "generator": self.generator, "channels": channels}
            for name, channels in _named("--per-channel", parts).items()
        ]
        return ChainSpec.model_validate({"parts": found})


@dataclass(frozen=True)
class PerClass:
    """One part per class of whole cases, or per group of classes (Frid-Adar et al. 2018).

    ``groups``: ``each`` (class with a training case), or classes like
    ``cyst,metastasis+haemangioma``; others are left out.
    """

    generator: str
    groups: str = EACH

    def classes(self, source: CaseSource) -> dict[str, tuple[str, ...]]:
        """Return the names of the parts, and the classes of each."""
        option = f"--per-class {self.groups}"
        class_numbers(source, (), asked="--per-class")
        counts = Counter(source.header(case).label_class for case in source.train_ids)
        every = enumerate(source.schema.classes)
        parts = _grouped(self.groups, [name for number, name in every if counts[number]])
        named = [name for part in parts for name in part]
        class_numbers(source, named, asked=option)
        twice = named_twice(named)
        if twice is not None:
            raise UsageFault(
                "fitting.class-named-twice",
                f"{option}: class {twice!r} is named twice, expected one part that draws it",
            )
        for part in parts:
            numbers = class_numbers(source, part, asked=option)
            cases = sum([counts[number] for number in numbers])
            if cases < LEAST_CASES:
                others = ",".join(["+".join(p) for p in parts if p != part]) or "other classes"
                raise UsageFault(
                    "fitting.class-with-few-cases",
                    f"{option}: {cases} training case(s) of class {'+'.join(part)!r} in "
                    f"{source.name} fold {source.request.fold}, expected at least {LEAST_CASES}; "
                    f"leave it out (--per-class {others}), or join it with another: a+b",
                )
        return _named("--per-class", parts)


Spec = ChainSpec | PerChannel | PerClass


def asked_for(name: str, groups: str | None, classes: str | None = None) -> Spec | None:
    """Return the composite run of a command line; None for a run of one generator.

    ``name``: a generator or a chain's file. ``groups``: of ``--per-channel``. ``classes``: of
    ``--per-class``. Raises UsageFault: the file is not a chain, or more than one of them is given.
    """
    if groups is not None and classes is not None:
        raise UsageFault(
            "fitting.per-class-with-per-channel",
            f"--per-class {classes}: cannot be combined with --per-channel {groups}, expected one "
            "of them; leave the other out",
        )
    chain = name.endswith((".yaml", ".yml"))
    for option, value in (("--per-channel", groups), ("--per-class", classes)):
        if chain and value is not None:
            raise UsageFault(
                "fitting.chain-defines-its-parts",
                f"{option} {value}: {name} defines its own parts; leave one of them out",
            )
    if chain:
        return read_chain(Path(name))
    if classes is not None:
        return PerClass(name, classes)
    return None if groups is None else PerChannel(name, groups)


def read_chain(path: Path) -> ChainSpec:
    """Read a chain's YAML file."""
    doc, _ = read_yaml(path, "YAML with 'parts'")
    try:
        spec = ChainSpec.model_validate(doc)
    except ValidationError as error:
        raise UsageFault(
            "fitting.chain-file-malformed",
            f"{path}: {first_fault(error)}; expected 'parts', a list of name, generator, set, "
            "channels, labels_by, data",
        ) from None
    _check_names(str(path), [part.name for part in spec.parts])
    return spec


def first_fault(error: ValidationError) -> str:
    """Return key, value and fault of the first error in a file."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"])) or "all of it"
    return f"{key} is {first['input']!r:.60}: {first['msg'].removeprefix('Value error, ')}"


def _grouped(groups: str, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Parse ``a+b,c`` as [(a, b), (c,)]; one group per name for ``each``."""
    if groups == EACH:
        return [(name,) for name in names]
    return [tuple(map(str.strip, group.split("+"))) for group in groups.split(",")]


def _named(option: str, parts: Sequence[tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    names = [folder_name("+".join(part)) for part in parts]
    _check_names(option, names)
    return dict(zip(names, parts, strict=True))


def named_twice(names: Sequence[str], key: Callable[[str], str] = str) -> str | None:
    """Return the first of several names with the same key, if there are any."""
    keys = [key(name) for name in names]
    for name in names:
        if keys.count(key(name)) > 1:
            return name
    return None


def _check_names(where: str, names: Sequence[str]) -> None:
    twice = named_twice(names, str.casefold)
    if twice is not None:
        raise UsageFault(
            "fitting.two-parts-of-one-name",
            f"{where}: two parts are named {twice!r}, expected different names",
        )
