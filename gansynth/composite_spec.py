"""How a composite run is asked for: a chain in a YAML file, or one model per channel.

A chain lists its parts in the order they are fitted and draw::

    edits: [elastic]                 # of the label maps; the first drawing part's own if left out
    parts:
      - name: tissues                # Shin et al. 2018: tissues of T1, learnt on other people
        generator: cgan3d
        data: nifti:tissues/
        set: {target: labels, given: [T1]}
      - name: t1
        generator: cgan3d
        channels: [T1]               # the image channels it sees; all if left out
        labels_by: tissues           # its label maps: tissues drawn from the images, and tumours
        set: {steps: 20000}
      - name: flair
        generator: cgan3d
        channels: [T1, FLAIR]
        labels_by: tissues
        set: {given: [T1]}           # given the T1 that the part before draws
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gansynth.errors import UsageFault
from gansynth.schema import Schema

EACH = "each"
"""``--per-channel`` without groups."""
MOST_BYTES = 1 << 20
_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")


class PartSpec(BaseModel):
    """One part, as asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", description="its folder's name")
    generator: str = Field(description="registered name")
    set: dict[str, Any] = Field(default_factory=dict, description="options, as after --set")
    channels: tuple[str, ...] | None = Field(
        None, description="image channels it sees; null: all it needs"
    )
    labels_by: str | None = Field(None, description="earlier part that draws its label maps")
    data: str | None = Field(None, description="KIND:WHERE of its own; null: the composite's")
    read: dict[str, str] = Field(default_factory=dict, description="how to read ``data``")
    configuration: str | None = Field(None, description="the host's configuration of ``data``")
    plans: str | None = Field(None, description="the host's plans of ``data``")
    fold: str = Field("0", description="fold of ``data``")
    subjects: str | None = Field(None, description="whose cases those of ``data`` are")

    def settings(self, over: Mapping[str, str]) -> dict[str, str]:
        """``set`` as texts, with what was typed on the command line put over it."""
        own = {k: v if isinstance(v, str) else json.dumps(v) for k, v in self.set.items()}
        return {**own, **over}


class ChainSpec(BaseModel):
    """All parts, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: tuple[PartSpec, ...] = Field(min_length=1, description="in the order they draw")
    edits: tuple[str, ...] | None = Field(None, description="condition edits by name")


@dataclass(frozen=True)
class PerChannel:
    """One part per channel, or per group of channels.

    Attributes:
        generator: registered name, of every part.
        groups: ``each``, or channels like ``T1+T2,FLAIR``.
    """

    generator: str
    groups: str = EACH

    def chain(self, schema: Schema) -> ChainSpec:
        """The parts, for a source's channels.

        Raises:
            UsageFault: a channel that is not there, is left out, or is named twice.
        """
        if self.groups == EACH:
            parts: list[tuple[str, ...]] = [(channel,) for channel in schema.channels]
        else:
            groups = self.groups.split(",")
            parts = [tuple(c.strip() for c in group.split("+")) for group in groups]
        named = [channel for part in parts for channel in part]
        if sorted(named) != sorted(schema.channels):
            raise UsageFault(
                f"--per-channel {self.groups}: expected every one of {', '.join(schema.channels)} "
                f"once, for example --per-channel {','.join(schema.channels)}"
            )
        names = [_folder_name("+".join(part)) for part in parts]
        _check_names("--per-channel", names)
        return ChainSpec(
            parts=tuple(
                PartSpec(name=name, generator=self.generator, channels=channels)
                for name, channels in zip(names, parts, strict=True)
            )
        )


def asked_for(name: str, groups: str | None) -> ChainSpec | PerChannel | None:
    """The composite run that a command line asks for; None for a run of one generator.

    Args:
        name: a generator's name, or a chain's file.
        groups: of ``--per-channel``, if that is given.

    Raises:
        UsageFault: the file is no chain's, or both are given.
    """
    if not name.endswith((".yaml", ".yml")):
        return None if groups is None else PerChannel(name, groups)
    if groups is not None:
        raise UsageFault(
            f"--per-channel {groups}: {name} says itself what its parts draw; leave one of them out"
        )
    return read_chain(Path(name))


def read_chain(path: Path) -> ChainSpec:
    """Read a chain's YAML file.

    Raises:
        UsageFault: no such file, not YAML, or not a chain: naming the key.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageFault(f"{path}: larger than {MOST_BYTES} bytes, expected a chain of parts")
        doc = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise UsageFault(f"{path}: cannot be read ({text}); expected YAML with 'parts'") from None
    try:
        spec = ChainSpec.model_validate(doc)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "all of it"
        raise UsageFault(
            f"{path}: {key} is {first['input']!r:.60}: {first['msg']}; expected 'parts', a list of "
            "name, generator, set, channels, labels_by, data"
        ) from None
    _check_names(str(path), [part.name for part in spec.parts])
    return spec


def _folder_name(channels: str) -> str:
    name = _UNFIT.sub("_", channels)
    return name if name[0].isalnum() else f"c{name}"


def _check_names(where: str, names: Sequence[str]) -> None:
    """Parts are folders: no two may have one name, also where case does not count."""
    folded = [name.casefold() for name in names]
    twice = next((n for n in names if folded.count(n.casefold()) > 1), None)
    if twice is not None:
        raise UsageFault(f"{where}: two parts are named {twice!r}, expected different names")
