"""The plan of a benchmark: a YAML file that says what is compared with what, on which cases.

    name: hippocampus
    data: nnunet:004                    # as after --data; paths are relative to this file
    configuration: 3d_fullres
    host: {target: nnunet, steps: 500}
    generators:
      cgan: {plugin: cgan3d, set: {steps: 400}}
    arms:
      - default                         # by name: see gansynth.benchmark.arms
      - {name: unedited, generator: cgan, edits: [identity], ratio: "1:1", bank: 3x}
    sizes: [6, 12]                      # training subjects
    draws: 3
    seeds: 2
    split: {pool: 72, development: 10, sealed: 30}

Unknown keys are refused, and so is an arm of a generator that is neither in the plan nor installed.
Every arm trains for as many optimiser steps.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from gansynth.benchmark.arms import PRESET_GENERATORS, PRESETS
from gansynth.benchmark.plan_check import check_names
from gansynth.benchmark.plan_parts import (
    NAME,
    ArmPlan,
    Closed,
    Count,
    Formula,
    GeneratorPlan,
    HostPlan,
    PaperPlan,
    Settings,
    SplitPlan,
    TunePlan,
    checked,
)
from gansynth.metrics.segmentation.table import MEASURES, SEGMENTATION, check_asked, measure_of
from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth.runtime.files import read_yaml

__all__ = [
    "ArmPlan",
    "GeneratorPlan",
    "HostPlan",
    "PaperPlan",
    "Plan",
    "SplitPlan",
    "TunePlan",
    "read_plan",
]

SHOWN = "a plan in YAML: see docs/benchmark.md"


class Plan(Closed):
    """A benchmark."""

    name: str = Field(pattern=NAME, description="of the benchmark, and of its folder")
    title: str = Field("", description="of the report")
    data: str = Field(
        description="KIND:WHERE, as after --data; a path starts at this file's folder"
    )
    read: Settings = Field(default_factory=dict, description="as after --read")
    configuration: str | None = Field(None, description="the host's: 2d, 3d_fullres")
    plans: str | None = Field(None, description="name of the host's plans")
    subjects: str | None = Field(None, description="CSV or regular expression, as --subjects")
    root: str | None = Field(None, description="folder of the host's folders, as --root")
    host: HostPlan = Field(description="what learns: see below")
    generators: dict[str, GeneratorPlan] = Field(
        default_factory=dict, description="name -> what is fitted: see below"
    )
    arms: tuple[ArmPlan, ...] = Field(min_length=1, description="what is compared: see below")
    control: str = Field("", description="what the others are held against; the first arm")
    sizes: tuple[Count, ...] = Field(min_length=1, description="training subjects")
    draws: Count = Field(3, description="training sets of each size, each within the larger one")
    seeds: Count = Field(2, description="trainings of each arm on each of them")
    fits: Literal["draw", "seed"] = Field(
        "seed", description="generators are fitted anew for each seed, or once for each draw"
    )
    split: SplitPlan = Field(description="who is judged on: see below")
    regions: dict[str, Formula] = Field(default_factory=dict, description="name -> 1+2+4")
    measures: tuple[str, ...] = Field(("dice",), description="see docs/measures.md")
    primary: str = Field("", description="what the verdict is about; dice/foreground")
    margin: float | None = Field(
        None, gt=0, description="differences within it make none; 0.005 of Dice and the like"
    )
    tune: TunePlan = Field(default_factory=TunePlan, description="how arms are chosen: see below")
    paper: PaperPlan | None = Field(None, description="whose table is shown beside: see below")
    open: tuple[str, ...] = Field((), description="what should be known of this plan")

    @model_validator(mode="before")
    @classmethod
    def _named_arms(cls, values: Any) -> Any:
        """Arms by name, and those that build on one."""
        if not isinstance(values, dict) or not isinstance(values.get("arms"), list):
            return values
        return {**values, "arms": [_arm(entry) for entry in values["arms"]]}

    @model_validator(mode="after")
    def _fits(self) -> Plan:
        names = [arm.name for arm in self.arms]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"arms: two of the name {twice[0]!r}")
        for arm in self.arms:
            for other in arm.tune:
                if other not in names or self.arm(other).tune or other == arm.name:
                    raise ValueError(f"arms.{arm.name}: tune names {other!r}, expected other arms")
                if self.arm(other).real != arm.real:
                    raise ValueError(
                        f"arms.{arm.name}: tune names {other!r}, which has "
                        f"{self.arm(other).real} times the subjects, expected arms of {arm.real}"
                    )
        if self.control and self.control not in names:
            raise ValueError(f"control {self.control!r}: expected one of {', '.join(names)}")
        for name in self.paper.rows if self.paper else ():
            if name not in names:
                raise ValueError(f"paper.rows: {name!r}, expected one of {', '.join(names)}")
        self._check_measures()
        if self.margin is None and measure_of(self.judged_by).margin is None:
            raise ValueError(f"margin: {self.judged_by} has no usual one, expected a number")
        if self.arm(self.compared_with).candidate or self.arm(self.compared_with).tune:
            raise ValueError(f"control {self.compared_with!r}: expected an arm that is trained")
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes {list(self.sizes)}: expected rising numbers of subjects")
        if any(arm.tune for arm in self.arms) and self.sizes[0] < self.tune.folds:
            few = f"{self.sizes[0]} subjects for {self.tune.folds} inner folds"
            raise ValueError(f"sizes: {few}, expected as many; lower tune.folds")
        return self

    def _check_measures(self) -> None:
        boxes = self.host.target == "yolo"
        checked(check_asked, self.measures, MEASURES if boxes else SEGMENTATION)
        checked(measure_of, self.judged_by)
        if not boxes and self.judged_by.partition("/")[0] not in self.measures:
            names = ", ".join(self.measures)
            raise ValueError(f"primary {self.judged_by}: expected one of the measures: {names}")

    def arm(self, name: str) -> ArmPlan:
        """An arm by name."""
        return next(arm for arm in self.arms if arm.name == name)

    def generator(self, name: str) -> GeneratorPlan:
        """A generator by the name that an arm has for it."""
        preset = {"plugin": name, **PRESET_GENERATORS.get(name, {})}
        return self.generators.get(name) or GeneratorPlan(**preset)

    @property
    def compared_with(self) -> str:
        """Name of the arm that all others are held against."""
        return self.control or self.arms[0].name

    @property
    def judged_by(self) -> str:
        """Key of the primary measure."""
        if self.primary:
            return self.primary
        return "froc" if self.host.target == "yolo" else f"{self.measures[0]}/foreground"

    @property
    def equal_within(self) -> float:
        """Differences of the primary measure that make none."""
        found = self.margin or measure_of(self.judged_by).margin
        assert found is not None  # see _fits
        return found

    @property
    def hash(self) -> str:
        """Of all that can change a number; titles and remarks cannot, nor where things lie."""
        doc = self.model_dump(mode="json", exclude={"title", "open", "paper", "root", "data"})
        doc["host"].pop("title")
        for arm in doc["arms"]:
            arm.pop("title"), arm.pop("what")
        if self.subjects is not None and Path(self.subjects).is_absolute():
            doc["subjects"] = Path(self.subjects).name
        data = self.data.rstrip("/").rpartition("/")[2]
        text = json.dumps({**doc, "data": data}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_plan(path: Path, data: str | None = None) -> Plan:
    """Read a plan; relative paths in it start at its folder.

    Args:
        path: the YAML file.
        data: KIND:WHERE in place of the plan's; a relative path in it starts where we are.

    Raises:
        UsageFault: it is none: naming the file and the key.
    """
    values, _ = read_yaml(path, SHOWN)
    if not isinstance(values, dict):
        raise UsageFault(f"{path}: holds {type(values).__name__}, expected {SHOWN}")
    if data is not None:
        values["data"] = data
    try:
        plan = Plan(**values)
    except ValidationError as error:
        raise UsageFault(f"{path}: {_first(error)}") from None
    except TypeError as error:
        raise UsageFault(f"{path}: {error}; expected {SHOWN}") from None
    changes = {"data": _placed_data(plan.data, path.parent if data is None else Path())}
    for key in ("root", "subjects"):
        value = getattr(plan, key)
        if value is not None and (path.parent / value).exists():
            changes[key] = str((path.parent / value).absolute())
    plan = plan.model_copy(update=changes)
    check_names(plan, path)
    return plan


def _placed_data(text: str, folder: Path) -> str:
    """KIND:WHERE whose WHERE is an existing path relative to a folder, made absolute."""
    kind, colon, where = text.partition(":")
    if colon and where and not Path(where).is_absolute() and (folder / where).exists():
        return f"{kind}:{(folder / where).absolute()}"
    return text


def _arm(entry: Any) -> Any:
    """An arm as a mapping: a preset by its name, or one with changes."""
    if isinstance(entry, str):
        entry = {"name": entry, "from": entry}
    if not isinstance(entry, Mapping):
        return entry
    entry = dict(entry)
    base = entry.pop("from", None)
    if base is None:
        return entry
    if base not in PRESETS:
        raise ValueError(
            f"arms: {base!r} is no known arm, expected one of {', '.join(PRESETS)}, or a mapping "
            f"with a name.{did_you_mean(str(base), PRESETS)}"
        )
    return {"name": base, **PRESETS[base], **entry}


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    said = first["msg"].removeprefix("Value error, ")
    found = "" if isinstance(first["input"], dict | list) else f" (found {first['input']!r})"
    return f"{key}: {said}{found}; expected {SHOWN}" if key else f"{said}; expected {SHOWN}"
