"""The parts of a plan; see ``gansynth.benchmark.plan``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gansynth.core.bank_options import BankSize
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.fitting.recipe import texts
from gansynth.runtime.errors import UsageFault


def _texts(value: Any) -> Any:
    return texts(value or {}) if isinstance(value, Mapping | None) else value


Settings = Annotated[dict[str, str], BeforeValidator(_texts)]
Formula = Annotated[
    str,
    BeforeValidator(lambda v: str(v) if isinstance(v, int) else v),
    Field(pattern=r"^\d+(\+\d+)*$"),
]
Count = Annotated[int, Field(ge=1)]
Words = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, int) else v)]


def _quoted(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError('YAML reads R:S as a number of minutes; write it in quotes: "1:1"')
    return value


Parts = Annotated[str, BeforeValidator(_quoted)]
STEPS = ("steps", "num_epochs", "epochs")
"""Settings that say how long a host trains, the first that is there."""
LENGTHS = frozenset({*STEPS, "num_iterations_per_epoch", "segments", "subepochs", "batch"})
"""Settings of hosts that decide how many steps they take, which are the same for all arms."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"


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
