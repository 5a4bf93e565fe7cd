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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gansynth.benchmark.arms import PRESET_GENERATORS, PRESETS
from gansynth.core.bank_options import BankSize
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.fitting.composite_spec import texts
from gansynth.metrics.segmentation.table import MEASURES, SEGMENTATION, check_asked, measure_of
from gansynth.runtime.errors import UsageFault, did_you_mean

STEPS = ("steps", "num_epochs", "epochs")
"""Settings that say how long a host trains, the first that is there."""
LENGTHS = frozenset({*STEPS, "num_iterations_per_epoch", "segments", "subepochs", "batch"})
"""Settings of hosts that decide how many steps they take, which are the same for all arms."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"


def _texts(value: Any) -> Any:
    return texts(value or {}) if isinstance(value, Mapping | None) else value


def _quoted(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError('YAML reads R:S as a number of minutes; write it in quotes: "1:1"')
    return value


Settings = Annotated[dict[str, str], BeforeValidator(_texts)]
Formula = Annotated[
    str,
    BeforeValidator(lambda v: str(v) if isinstance(v, int) else v),
    Field(pattern=r"^\d+(\+\d+)*$"),
]
Count = Annotated[int, Field(ge=1)]
Words = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, int) else v)]
Parts = Annotated[str, BeforeValidator(_quoted)]


def checked(check: Callable[..., object], *words: object) -> None:
    """Let whoever reads some words later on check them now; pydantic knows ValueError only."""
    try:
        check(*words)
    except UsageFault as fault:
        raise ValueError(str(fault)) from None


class Closed(BaseModel):
    """Keys that are not known are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HostPlan(Closed):
    """What learns from real and synthetic cases: the same for all arms."""

    target: str = Field(description="of gansynth augment: nnunet, segmenter, deepmedic, yolo")
    steps: Count = Field(description="optimiser steps of every training")
    title: str = Field("", description="for people; else made of the target")
    engine: str | None = Field(None, description="deepmedic: torch, or deepmedic")
    detector: str | None = Field(None, description="yolo: libreyolo, or ultralytics")
    set: Settings = Field(default_factory=dict, description="as after --set")
    options: tuple[str, ...] = Field((), description="as after --")
    env: Settings = Field(default_factory=dict, description="environment variables of its training")

    @property
    def shown(self) -> str:
        """Its title."""
        made = {"nnunet": "nnU-Net", "yolo": "YOLO", "deepmedic": "DeepMedic"}
        return self.title or made.get(self.target, self.target)


class GeneratorPlan(Closed):
    """What is fitted on the training cases of every draw."""

    plugin: str = Field(description="registered name")
    recipe: str | None = Field(None, description="registered name, as after --recipe")
    scale: str | None = Field(None, description="of the recipe, as after --scale")
    only: str | None = Field(None, description="a recipe's set")
    set: Settings = Field(default_factory=dict, description="as after --set")
    read: Settings = Field(default_factory=dict, description="as after --read, over the plan's")


class ArmPlan(Closed):
    """One way of training the host."""

    name: str = Field(pattern=NAME, description="in tables and on the command line")
    title: str = Field("", description="for people")
    what: str = Field("", description="one sentence")
    generator: str | None = Field(None, description="one of the plan's, or an installed plugin")
    ratio: Parts = Field("", description='real:synthetic; "1:1" with a generator')
    bank: Words = Field("live", description="live; 3x: finite, three for each training case; 64")
    schedule: str = Field("constant", description="as after --schedule")
    edits: tuple[str, ...] = Field((), description="as after --edit; none: the generator's own")
    boxes: str | None = Field(None, description="as after --boxes")
    lesions: str | None = Field(None, description="as after --lesions")
    filters: tuple[str, ...] = Field((), description="as after --filter")
    augmentation: Literal["usual", "none", "heavier"] = Field("usual", description="the host's own")
    augment_synthetic: bool = Field(True, description="augment synthetic samples as real ones")
    real: Count = Field(1, description="times as many real subjects as the others have")
    set: Settings = Field(default_factory=dict, description="of the host, over the plan's")
    tune: tuple[str, ...] = Field((), description="chosen among these arms by inner folds")
    candidate: bool = Field(False, description="there to be chosen only, and not trained else")

    @model_validator(mode="after")
    def _fits(self) -> ArmPlan:
        checked(lambda: Schedule.parse(self.schedule).check(Ratio.parse(self.asked_ratio)))
        if self.bank != "live":
            checked(BankSize.parse, self.bank)
        if (Ratio.parse(self.asked_ratio).p > 0) != (self.generator is not None):
            raise ValueError(
                f"ratio {self.ratio!r}, generator {self.generator!r}: expected both, for synthetic "
                "samples, or neither"
            )
        if self.tune and self.generator:
            raise ValueError("tune and generator: expected one of them; tune names other arms")
        if LENGTHS & set(self.set):
            raise ValueError("set: the length is the host's, and the same for every arm")
        return self

    @property
    def asked_ratio(self) -> str:
        """Real:synthetic, the usual one if none is given."""
        return self.ratio or ("1:1" if self.generator else "1:0")


class SplitPlan(Closed):
    """Who is trained on, who is looked at while things are tried, and who is looked at once.

    Numbers of subjects, or ``fold``: the data's own, whose held-out cases are the sealed ones.
    """

    pool: Count | None = Field(None, description="subjects that training sets are drawn from")
    development: int = Field(0, ge=0, description="subjects judged on while things are tried")
    sealed: Count | None = Field(None, description="subjects judged on once")
    fold: Words | None = Field(None, description="of the data: training cases are the pool")
    seed: int = Field(0, ge=0, description="deals the subjects out, and draws training sets")

    @model_validator(mode="after")
    def _one_way(self) -> SplitPlan:
        if (self.fold is None) != (self.sealed is not None):
            raise ValueError("expected sealed (a number of subjects), or fold")
        if self.fold is not None and self.pool is not None:
            raise ValueError("pool and fold: expected one of them")
        return self


class TunePlan(Closed):
    """How an arm is chosen: successive halving on inner folds (Jamieson and Talwalkar 2016)."""

    folds: int = Field(3, ge=2, description="inner folds of the training subjects")
    rungs: tuple[float, ...] = Field((0.25, 1.0), description="shares of the host's steps")
    keep: float = Field(0.5, gt=0, lt=1, description="share of the arms that goes on to a rung")
    fit_share: float = Field(1.0, gt=0, le=1, description="share of the generators' steps")

    @model_validator(mode="after")
    def _rise(self) -> TunePlan:
        if list(self.rungs) != sorted(set(self.rungs)) or not all(0 < r <= 1 for r in self.rungs):
            raise ValueError(f"rungs {list(self.rungs)}: expected rising shares of at most 1")
        return self


class PaperPlan(Closed):
    """A paper's table, which the report shows ours beside."""

    title: str = Field(min_length=1, description="which table of which paper")
    columns: dict[str, str] = Field(min_length=1, description="column -> measure, `WT: dice/WT`")
    rows: dict[str, tuple[float, ...]] = Field(min_length=1, description="arm -> its numbers")

    @model_validator(mode="after")
    def _even(self) -> PaperPlan:
        for arm, numbers in self.rows.items():
            if len(numbers) != len(self.columns):
                raise ValueError(f"{arm}: {len(numbers)} numbers for {len(self.columns)} columns")
        return self


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
