"""What to type next for a data set: the generator that suits it, and the way to a framework."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from gansynth.core.registry import installed
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.organs import FEWEST, organ_labels
from gansynth.data.read_options import OF_ARRAYS, VolumeOptions, options_of

FREE = "500"  # id that hints name: nnU-Net's own tasks have lower ones

NO_GAIN = (
    "look like organs: no gain is shown for them (gansynth help results), so compare with a "
    "training without samples: augment --compare"
)


@dataclass(frozen=True)
class Rule:
    """What is done with data of one kind, and the evidence for it (docs/results.md)."""

    data: str
    generator: str
    ratio: str
    evidence: str


RULES: Mapping[str, Rule] = {
    str(kind): Rule(**rule)
    for kind, rule in yaml.safe_load(Path(__file__).with_name("rules.yaml").read_text()).items()
}
"""Kind of the data -> what ``gansynth augment KIND:WHERE`` chooses. At 1:0 no sample is drawn, and
the generator is that of a ratio which the user names."""


@dataclass(frozen=True)
class Contents:
    """What the labels of a data set are: a key of ``RULES``, and the names of each kind."""

    kind: str
    organs: tuple[str, ...] = ()
    lesions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suggestion:
    """What to type after ``gansynth fit``, and what to know of it; empty where nothing is."""

    words: tuple[str, ...]
    note: str = ""


def contents_of(source: CaseSource) -> Contents:
    """Return what the labels are; an organ is in nearly every case, see ``organ_labels``."""
    schema = source.schema
    if schema.box_classes:
        return Contents("boxes")
    if not schema.foreground:
        return Contents("images")
    organs = organ_labels(source)
    lesions = tuple(
        name
        for name, value in schema.labels.items()
        if value in schema.foreground and name not in organs
    )
    if not lesions:
        return Contents("organs", organs)
    return Contents("lesions" if len(source.train_ids) >= FEWEST else "few", organs, lesions)


def suggested_generator(source: CaseSource) -> Suggestion:
    """Return the generator that suits a data set, by ``RULES``; organs alone get a warning."""
    found = contents_of(source)
    words = [RULES[found.kind].generator]
    if found.organs and found.lesions:
        words += ["--set", f"lesions={','.join(found.lesions)}"]
    note = f"{', '.join(found.organs)} {NO_GAIN}" if found.kind == "organs" else ""
    return Suggestion(tuple(words), note)


def way_to(host: str, request: SourceRequest) -> str:
    """Return the command that makes a data set of a framework of other data."""
    known = installed()
    opener = known.load("sources", request.kind) if request.kind in known.names("sources") else None
    idle = OF_ARRAYS if opener and type(options_of(opener, request)) is VolumeOptions else ()
    read = [(key, text) for key, text in request.read.items() if key not in idle]
    pairs = [("--subjects", request.subjects), ("--root", request.root)]
    typed = [word for flag, value in pairs if value for word in (flag, value)]
    if request.kind == f"{host}-raw":  # it is one, and lies there
        return shlex.join(["gansynth", "prepare", f"{host}:{request.where}", *typed])
    typed += [word for key, text in read for word in ("--read", f"{key}={text}")]
    words = ["import", f"{request.kind}:{request.where}", f"{host}:{FREE}", *typed]
    return shlex.join(["gansynth", *words])
