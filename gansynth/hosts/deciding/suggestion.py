"""What the labels of a data set are, and what suits them: the rules, and the generator to fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gansynth.core.source import CaseSource
from gansynth.data.organs import FEWEST, organ_labels

NO_GAIN = (
    "of one size and in one place, as organs are; no gain is shown for organs (gansynth help "
    "results), so compare with a training without samples: augment --compare"
)


@dataclass(frozen=True)
class Rule:
    """What is fitted on data of one kind; ``data``: in words."""

    data: str
    generator: str


RULES: Mapping[str, Rule] = {
    str(kind): Rule(**rule)
    for kind, rule in yaml.safe_load(Path(__file__).with_name("rules.yaml").read_text()).items()
}
"""Kind of the data -> the generator that ``gansynth augment KIND:WHERE`` fits, if it draws any."""


@dataclass(frozen=True)
class Contents:
    """What the labels of a data set are: a key of ``RULES``, and the names of each kind."""

    kind: str
    organs: tuple[str, ...] = ()
    lesions: tuple[str, ...] = ()

    @property
    def rule(self) -> Rule:
        """What is done with such data."""
        return RULES[self.kind]

    @property
    def settings(self) -> dict[str, str]:
        """What to set of a generator of lesions: their labels, where there are organs, too."""
        return {"lesions": ",".join(self.lesions)} if self.organs and self.lesions else {}


@dataclass(frozen=True)
class Suggestion:
    """A generator, what to set of it, and what to know of it; empty where nothing is."""

    generator: str
    settings: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def contents_of(source: CaseSource) -> Contents:
    """Return what the labels are; an organ is in nearly every case, see ``organ_labels``."""
    if source.schema.box_classes:
        return Contents("boxes")
    if not source.schema.foreground:
        return Contents("images")
    return _of_label_maps(source)


def _of_label_maps(source: CaseSource) -> Contents:
    schema = source.schema
    organs = organ_labels(source)
    lesions = []
    for name, value in schema.labels.items():
        if value in schema.foreground and name not in organs:
            lesions.append(name)
    if not lesions:
        return Contents("organs", organs)
    kind = "lesions" if len(source.train_ids) >= FEWEST else "few"
    return Contents(kind, organs, tuple(lesions))


def suggested_generator(source: CaseSource) -> Suggestion:
    """Return the generator that suits a data set, by its kind; organs alone get a warning."""
    # Label maps say more than boxes, unless boxes of them are asked for.
    boxes = not source.schema.foreground or "boxes" in source.request.read
    found = contents_of(source) if boxes else _of_label_maps(source)
    note = f"{', '.join(found.organs)}: {NO_GAIN}" if found.kind == "organs" else ""
    return Suggestion(found.rule.generator, found.settings, note)
