"""Plans of papers' tables: what is fitted, which segmenters learn from it, and what was reported.

A plan is a YAML file, in ``tables/`` beside the recipe's own and of its name. It names a recipe and
never repeats what that says: settings, how cases are read, edits and the paper's figures are the
recipe's. The table is every arm on every host::

    name: mmgan2020
    table: Sun et al. 2020, table I
    data: BraTS 2017
    recipe: mmgan2020
    generators: {MM-GAN: pool}               # name in this plan -> set of the recipe
    regions: {WT: 1+2+4, TC: 1+4, ET: "4"}   # sums of labels; all: every label above background
    figures: mean                            # what each figure of the recipe's report is
    hosts:
      unet:
        title: 3D U-Net
        target: segmenter                    # of gansynth augment
        set: {network: unet, epochs: 200}    # as after --set
        figures: dice/3D U-Net               # where its figures stand in the recipe's report
      cascade: {title: ..., code: others, why: ..., instead: ..., figures: ...}
    arms:
      - {name: 100% R, ratio: "1:0", figures: R}
      - {name: 300% F + 100% R, ratio: "1:3", generator: MM-GAN, bank: 3x, figures: R+3F}
    open: [What the paper does not say, and what was chosen.]
    scales: {tiny: {hosts: {unet: {steps: 100}}}}

A detector's table has ``columns`` in place of regions: heading -> the figure's key in what
``gansynth.metrics.detection.measuring.summary`` returns.

Unknown keys are refused, and so are arms of unknown generators. Every arm of a host trains for as
many optimiser steps: its length stands with the host, and an arm has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from gansynth.benchmark.plan import Closed, Settings
from gansynth.core.bank_options import BankSize
from gansynth.core.ratio import Ratio
from gansynth.core.registry import installed
from gansynth.core.schedule import Schedule
from gansynth.fitting.recipe import Recipe, find_recipe
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import read_yaml

FOLDER = "tables"
"""Beside a recipe's file: the plans of its tables."""
ALL = "all"
"""Formula of every label above background, which hosts report as ``foreground``."""

Formula = Annotated[str, Field(pattern=r"^(all|\d+(\+\d+)*)$")]


class Host(Closed):
    """What learns from real and synthetic cases: a column, or half of the table's rows."""

    title: str = Field(min_length=1, description="as the paper has it")
    code: Literal["ours", "others"] = Field("ours", description="others: it is not shipped")
    why: str = Field("", description="others: why it is not run")
    instead: str = Field("", description="others: what to run instead")
    target: Literal["segmenter", "deepmedic", "yolo"] | None = Field(
        None, description="of gansynth augment; deepmedic is its torch engine"
    )
    kinds: tuple[str, ...] = Field((), description="kinds of data it takes; none: any")
    stands_in_for: str | None = Field(
        None, description="another host, in whose place it comes where that cannot take the data"
    )
    set: Settings = Field(default_factory=dict, description="as after --set")
    usual_augmentation: bool = Field(True, description="the host's own, of every arm")
    real_in_generator_space: bool = Field(
        False, description="real training cases go through the generator's space, too"
    )
    figures: str | None = Field(
        None, description="where in the recipe's report its figures stand, with / between keys"
    )
    deviations: dict[str, tuple[float, ...]] = Field(
        default_factory=dict,
        description="an arm's figures -> deviations in the order of the regions, where the report "
        "has means alone",
    )

    @model_validator(mode="after")
    def _ours_or_others(self) -> Host:
        if self.code == "others":
            if self.target or self.set or not (self.why and self.instead):
                raise ValueError("code: others has why and instead, and neither target nor set")
        elif self.target is None or self.why or self.instead:
            raise ValueError("a host of ours has a target, and neither why nor instead")
        return self


class Arm(Closed):
    """One training of every host."""

    name: str = Field(min_length=1, description="as in the table")
    ratio: str = Field(description="real:synthetic")
    generator: str | None = Field(None, description="one of the plan's; none: real cases alone")
    bank: str = Field("1x", pattern=r"^[\d.]+x$", description="synthetic samples, finite")
    schedule: str = Field("constant", description="as after --schedule")
    edits: tuple[str, ...] | None = Field(None, description="other edits than the recipe's")
    figures: str | None = Field(None, description="its key among a host's figures")
    optional: bool = Field(False, description="trained only if it is named (--only)")

    @model_validator(mode="after")
    def _fits(self) -> Arm:
        Schedule.parse(self.schedule)
        BankSize.parse(self.bank)
        if (Ratio.parse(self.ratio).p > 0) != (self.generator is not None):
            raise ValueError(f"{self.name}: {self.ratio} and generator {self.generator}")
        return self


class Scale(Closed):
    """Other settings for another amount of work, beside the recipe's scale of the same name."""

    summary: str = Field("", description="what it is for")
    hosts: dict[str, Settings] = Field(default_factory=dict, description="over a host's")


class Figure(Closed):
    """One number of a paper."""

    mean: float
    deviation: float | None = None

    def __str__(self) -> str:
        more = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.mean:.4f}".removesuffix("0") + more


class Plan(Closed):
    """A table of a paper."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    table: str = Field(min_length=1, description="which table of which paper")
    data: str = Field(description="what the paper took, in words")
    recipe: str = Field(description="registered name")
    set: Settings = Field(default_factory=dict, description="over the recipe's, as after --set")
    generators: dict[str, str] = Field(min_length=1, description="name here -> the recipe's set")
    regions: dict[str, Formula] = Field(
        default_factory=dict, description="name -> sum of labels, or all"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="of a detector's table: heading -> figure"
    )
    figures: Literal["mean", "mean and deviation"] = Field(
        "mean", description="what an entry of the report is: means of the regions, or both of one"
    )
    hosts: dict[str, Host] = Field(min_length=1)
    arms: tuple[Arm, ...] = Field(min_length=1)
    open: tuple[str, ...] = Field((), description="what the paper left open, and what was chosen")
    scales: dict[str, Scale] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_fit(self) -> Plan:
        if bool(self.regions) == bool(self.columns):
            raise ValueError("expected regions or columns")
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"two arms of one name among {', '.join(names)}")
        for what, named, known in self._named():
            if named not in known:
                raise ValueError(f"{what} {named!r}, expected one of {', '.join(known)}")
        return self

    def _named(self) -> Iterator[tuple[str, str, Sequence[str]]]:
        """What names something, the name, and what there is."""
        for arm in self.arms:
            if arm.generator is not None:
                yield f"arm {arm.name}: generator", arm.generator, list(self.generators)
        for name, host in self.hosts.items():
            if host.stands_in_for is not None:
                yield f"hosts.{name}: stands_in_for", host.stands_in_for, list(self.hosts)
            for key in host.deviations:
                yield f"hosts.{name}: deviations of", key, [str(arm.figures) for arm in self.arms]
        for name, scale in self.scales.items():
            for host_name in scale.hosts:
                yield f"scales.{name}: host", host_name, list(self.hosts)

    @cached_property
    def spec(self) -> Recipe:
        """The recipe, checked.

        Raises:
            UsageFault: there is none of that name.
        """
        return find_recipe(self.recipe)

    @property
    def measures(self) -> list[str]:
        """Names of what is measured of every arm."""
        return list(self.regions or self.columns)

    def figure(self, host: str, arm: Arm, measure: str) -> Figure | None:
        """What the paper reports there; None for nothing.

        Raises:
            KeyError: the recipe's report has no such place.
        """
        where = self.hosts[host].figures
        if where is None or arm.figures is None:
            return None
        found: Any = self.spec.spec.reports
        for key in (*where.split("/"), arm.figures):
            found = found[key]
        if self.figures == "mean and deviation":
            return Figure(mean=found[0], deviation=found[1])
        index = self.measures.index(measure)
        more = self.hosts[host].deviations.get(arm.figures)
        return Figure(mean=found[index], deviation=None if more is None else more[index])

    def hosts_for(self, kind: str, asked: Sequence[str] = ()) -> list[str]:
        """Hosts of ours that are run on data of a kind: all that can, each stand-in only in need.

        Raises:
            UsageFault: one of those that is not there, is others' code, or cannot take the data.
        """
        able = [name for name, host in self.hosts.items() if _takes(host, kind)]
        for name in asked:
            if name not in able:
                raise UsageFault(
                    f"--host {name}: not to be run on {kind}: data, expected among: "
                    f"{', '.join(able)}"
                )
        if asked:
            return list(asked)
        return [name for name in able if self.hosts[name].stands_in_for not in able]

    def others(self) -> list[str]:
        """Hosts that are other people's code."""
        return [name for name, host in self.hosts.items() if host.code == "others"]


def _takes(host: Host, kind: str) -> bool:
    return host.code == "ours" and (not host.kinds or kind in host.kinds)


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        UsageFault: it is none: naming the file and the key.
    """
    document, _ = read_yaml(path, "a plan in YAML")
    try:
        plan = Plan.model_validate(document)
    except ValidationError as error:
        raise UsageFault(f"{path}: {_first(error)}; correct it") from None
    sets = {run.name for run in plan.spec.spec.runs}
    for name, of in plan.generators.items():
        if of not in sets:
            raise UsageFault(
                f"{path}: generators.{name} is {of!r}, expected a set of the recipe {plan.recipe}: "
                f"{', '.join(sorted(sets))}"
            )
    return plan


def find_plan(text: str) -> Plan:
    """The plan that somebody names: a recipe's, or a file.

    Raises:
        UsageFault: no such recipe or file, or a recipe without a plan.
    """
    if text.endswith((".yaml", ".yml")):
        return read_plan(Path(text))
    path = _plan_of(find_recipe(text))
    if not path.is_file():
        known = (
            name for name in installed().names("recipes") if _plan_of(find_recipe(name)).is_file()
        )
        raise UsageFault(
            f"{text}: the recipe has no table of trainings, expected one of {', '.join(known)}, or "
            "a file of your own"
        )
    return read_plan(path)


def _plan_of(recipe: Recipe) -> Path:
    return recipe.path.parent / FOLDER / f"{recipe.name}.yaml"


def read_formulas(text: str, regions: Mapping[str, str]) -> dict[str, str]:
    """The plan's regions with other formulas, ``WT:1+2+3,ET:3``; those not named stay.

    Raises:
        UsageFault: it is not like that.
    """
    found = dict(regions)
    for part in filter(None, text.split(",")):
        name, _, formula = (word.strip() for word in part.partition(":"))
        if name not in regions or not re.fullmatch(r"all|\d+(\+\d+)*", formula):
            raise UsageFault(
                f"--regions {part}: expected NAME:1+2 or NAME:all, with a name of "
                f"{', '.join(regions)}"
            )
        found[name] = formula
    return found


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    said = first["msg"].removeprefix("Value error, ")
    return f"{key}: {said}" if key else said
