"""Plans of papers' tables: generators, the hosts trained with them, and reported figures.

A plan is a YAML file in ``tables/`` beside the recipe, with the same name. It names a recipe.
Settings, reads, edits and the paper's figures come from the recipe. The table has every experiment
arm on every host::

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
    pictures:                                # of --figures: row above row, the same cases in each
      - name: fig6
        of: Sun et al. 2020, fig. 6
        cases: 2
        rows:
          - {name: real, shows: real}
          - {name: synthetic, generator: MM-GAN}
          - {name: turned, generator: MM-GAN, edits: [rotate]}

A detector's table has ``columns`` instead of regions: heading -> key of the figure in
``gansynth.metrics.detection.measures.summary``. One of raters has ``raters``, and no hosts.

Unknown keys and arms of unknown generators are refused. All arms of a host train for the same
number of optimiser steps, which is a setting of the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from gansynth.core.bank_options import BankSize
from gansynth.core.registry import installed
from gansynth.core.schedule import Mix
from gansynth.fitting.recipe import Recipe, find_recipe
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.yaml_text import read_yaml
from gansynth_benchmark.plan import ClosedModel, Settings, Target

FOLDER = "tables"  # folder beside a recipe's file with the plans of its tables
ALL = "all"  # formula of all foreground labels, which hosts report as `foreground`

Formula = Annotated[str, Field(pattern=r"^(all|\d+(\+\d+)*)$")]


class PaperHost(ClosedModel):
    """A network trained on real and synthetic cases: a part of the table."""

    title: str = Field(min_length=1, description="as in the paper")
    code: Literal["ours", "others"] = Field("ours", description="others: not shipped")
    why: str = Field("", description="others: why it is not run")
    instead: str = Field("", description="others: what to run instead")
    target: Target | None = Field(None, description="registered name, as after augment --target")
    kinds: tuple[str, ...] = Field((), description="kinds of data it takes; none: any")
    stands_in_for: str | None = Field(
        None, description="host that it replaces if that one cannot take the data"
    )
    optional: bool = Field(False, description="run only if named (--host)")
    set: Settings = Field(default_factory=dict, description="as after --set")
    usual_augmentation: bool = Field(True, description="the host's augmentation, in all arms")
    figures: str | None = Field(
        None, description="path of its figures in the recipe's report, with / between keys"
    )
    deviations: dict[str, tuple[float, ...]] = Field(
        default_factory=dict,
        description="an arm's figures -> deviations in the order of the regions, if the report "
        "has means only",
    )

    @model_validator(mode="after")
    def _ours_or_others(self) -> PaperHost:
        if self.code == "others":
            if self.target or self.set or not (self.why and self.instead):
                raise ValueError("code: others needs why and instead, and neither target nor set")
        elif self.target is None or self.why or self.instead:
            raise ValueError("code: ours needs a target, and neither why nor instead")
        return self


class PaperArm(ClosedModel):
    """An experiment arm: one training of every host."""

    name: str = Field(min_length=1, description="as in the table")
    ratio: str = Field(description="real:synthetic")
    generator: str | None = Field(None, description="one of the plan's; none: real cases alone")
    bank: str = Field("1x", pattern=r"^[\d.]+x$", description="synthetic samples, finite")
    schedule: str = Field("constant", description="as after --schedule")
    edits: tuple[str, ...] | None = Field(None, description="other edits than the recipe's")
    figures: str | None = Field(None, description="its key among a host's figures")
    optional: bool = Field(False, description="trained only if named (--only)")

    @model_validator(mode="after")
    def _fits(self) -> PaperArm:
        mix = Mix.parse(self.ratio, self.schedule)
        BankSize.parse(self.bank)
        if mix.synthetic != (self.generator is not None):
            raise ValueError(f"{self.name}: {self.ratio} and generator {self.generator}")
        return self


class PaperScale(ClosedModel):
    """Settings for another amount of work, beside the recipe's scale of the same name."""

    summary: str = Field("", description="what it is for")
    hosts: dict[str, Settings] = Field(default_factory=dict, description="over a host's")


class PictureRow(ClosedModel):
    """A row of a picture: samples, or what stands beside them."""

    name: str = Field(min_length=1, description="above the row")
    shows: Literal["samples", "real", "donors", "truth", "detections"] = Field(
        "samples",
        description="real: the cases that the first row of samples was drawn of; donors: those "
        "that lent their tumours to it. truth, detections: boxes in images of the evaluation",
    )
    generator: str | None = Field(
        None, description="of samples: one of the plan's; of raters none, which is every set"
    )
    edits: tuple[str, ...] = Field((), description="of samples, as after --edit; none: no edit")
    label_source: str | None = Field(
        None, description="of samples: a further source of the recipe, whose cases are drawn"
    )
    label_source_read: Settings = Field(default_factory=dict, description="as the option's")
    arm: str | None = Field(None, description="of detections: the arm whose detector is shown")
    crop: int | None = Field(
        None, ge=8, description="of 2D samples and real cases: pixels around the largest box alone"
    )


class PaperPicture(ClosedModel):
    """A figure of the paper, made of our samples."""

    name: str = Field(pattern=r"^[a-z0-9]+$", description="end of the file's name")
    of: str = Field(min_length=1, description="which figure of which paper")
    cases: int = Field(1, ge=1, le=16, description="in each row")
    planes: Literal[1, 3] = Field(1, description="of a volume: the axial one, or all three")
    body: bool = Field(False, description="what is not background is a class of the label maps")
    rows: tuple[PictureRow, ...] = Field(min_length=1)


class ReportedNumber(ClosedModel):
    """One number of a paper."""

    mean: float
    deviation: float | None = None

    def __str__(self) -> str:
        suffix = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.mean:.4f}".removesuffix("0") + suffix


class PaperTablePlan(ClosedModel):
    """A table of a paper."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    table: str = Field(min_length=1, description="which table of which paper")
    data: str = Field(description="the paper's data, in words")
    recipe: str = Field(description="registered name")
    set: Settings = Field(default_factory=dict, description="over the recipe's, as after --set")
    generators: dict[str, str] = Field({}, description="name here -> the recipe's set")
    raters: str = Field("", description="of raters: key of the recipe's report with its figures")
    regions: dict[str, Formula] = Field(
        default_factory=dict, description="name -> sum of labels, or all"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="of a detector's table: heading -> figure"
    )
    figures: Literal["mean", "mean and deviation"] = Field(
        "mean", description="what an entry of the report is: means of the regions, or both of one"
    )
    hosts: dict[str, PaperHost] = Field(default_factory=dict)
    arms: tuple[PaperArm, ...] = ()
    open: tuple[str, ...] = Field((), description="what the paper left open, and what was chosen")
    scales: dict[str, PaperScale] = Field(default_factory=dict)
    pictures: tuple[PaperPicture, ...] = Field((), description="of --figures")

    @model_validator(mode="after")
    def _names_fit(self) -> PaperTablePlan:
        if [bool(self.regions), bool(self.columns), bool(self.raters)].count(True) != 1:
            raise ValueError("expected one of regions, columns and raters")
        if bool(self.raters) == bool(self.hosts and self.arms and self.generators):
            raise ValueError("expected hosts, arms and generators, or raters")
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"two arms of one name among {', '.join(names)}")
        for place, named, choices in self._named():
            if named not in choices:
                raise ValueError(f"{place} {named!r}, expected one of {', '.join(choices)}")
        return self

    def _named(self) -> Iterator[tuple[str, str, Sequence[str]]]:
        names_of_arms = [arm.name for arm in self.arms]
        for arm in self.arms:
            if arm.generator is not None:
                yield f"arm {arm.name}: generator", arm.generator, list(self.generators)
        for row in self.picture_rows:
            if row.generator is not None or (row.shows == "samples" and not self.raters):
                yield f"row {row.name}: generator", str(row.generator), list(self.generators)
            if row.label_source is not None:
                yield f"row {row.name}: label_source", row.label_source, list(self.spec.spec.needs)
            if row.shows == "detections":
                yield f"row {row.name}: arm", str(row.arm), names_of_arms
        for name, host in self.hosts.items():
            if host.stands_in_for is not None:
                yield f"hosts.{name}: stands_in_for", host.stands_in_for, list(self.hosts)
            for key in host.deviations:
                yield f"hosts.{name}: deviations of", key, [str(arm.figures) for arm in self.arms]
        for name, scale in self.scales.items():
            for host_name in scale.hosts:
                yield f"scales.{name}: host", host_name, list(self.hosts)

    @property
    def picture_rows(self) -> list[PictureRow]:
        return [row for picture in self.pictures for row in picture.rows]

    @cached_property
    def spec(self) -> Recipe:
        """The recipe, checked."""
        return find_recipe(self.recipe)

    @property
    def measures(self) -> list[str]:
        """Names of the measures of every arm."""
        return list(self.regions or self.columns)

    def figure(self, host: str, arm: PaperArm, measure: str) -> ReportedNumber | None:
        """Return the paper's figure; None if it reports none.

        Raises:
            KeyError: the recipe's report lacks the path.
        """
        where = self.hosts[host].figures
        if where is None or arm.figures is None:
            return None
        report: Any = self.spec.spec.reports
        for key in (*where.split("/"), arm.figures):
            report = report[key]
        if self.figures == "mean and deviation":
            return ReportedNumber(mean=report[0], deviation=report[1])
        index = self.measures.index(measure)
        deviations = self.hosts[host].deviations.get(arm.figures)
        return ReportedNumber(
            mean=report[index], deviation=None if deviations is None else deviations[index]
        )

    def hosts_for(self, kind: str, requested: Sequence[str] = ()) -> list[str]:
        """Return the hosts to run on a kind of data; a stand-in only if its host cannot run."""
        able = [name for name, host in self.hosts.items() if _takes(host, kind)]
        for name in requested:
            if name not in able:
                raise UsageFault(
                    "papers.host-unfit-for-data",
                    f"--host {name}: cannot run on {kind}: data, "
                    f"expected one of: {', '.join(able)}",
                )
        if requested:
            return list(requested)
        usual = [name for name in able if not self.hosts[name].optional]
        return [name for name in usual if self.hosts[name].stands_in_for not in able]

    def others(self) -> list[str]:
        """Return the hosts that are not shipped."""
        return [name for name, host in self.hosts.items() if host.code == "others"]


def _takes(host: PaperHost, kind: str) -> bool:
    return host.code == "ours" and (not host.kinds or kind in host.kinds)


def read_plan(path: Path) -> PaperTablePlan:
    """Read a plan from a file."""
    document, _ = read_yaml(path, "a plan in YAML")
    try:
        plan = PaperTablePlan.model_validate(document)
    except ValidationError as error:
        raise UsageFault(
            "papers.plan-value-refused", f"{path}: {_first(error).rstrip('.')}; correct it"
        ) from None
    sets = {run.name for run in plan.spec.spec.runs}
    for name, of in plan.generators.items():
        if of not in sets:
            raise UsageFault(
                "papers.generator-set-unknown",
                f"{path}: generators.{name} is {of!r}, expected a set of the recipe {plan.recipe}: "
                f"{', '.join(sorted(sets))}",
            )
    return plan


def find_plan(text: str) -> PaperTablePlan:
    """Return a plan by its recipe's name or by its file."""
    if text.endswith((".yaml", ".yml")):
        return read_plan(Path(text))
    path = _plan_of(find_recipe(text))
    if not path.is_file():
        names = [n for n in installed().names("recipes") if _plan_of(find_recipe(n)).is_file()]
        raise UsageFault(
            "papers.recipe-without-table",
            f"{text}: the recipe has no table of trainings, expected one of {', '.join(names)}, or "
            "a plan file",
        )
    return read_plan(path)


def _plan_of(recipe: Recipe) -> Path:
    return recipe.path.parent / FOLDER / f"{recipe.name}.yaml"


def read_formulas(text: str, regions: Mapping[str, str]) -> dict[str, str]:
    """Return the plan's regions with the formulas of ``WT:1+2+3,ET:3``; other regions stay."""
    formulas = dict(regions)
    for part in filter(None, text.split(",")):
        name, _, formula = [word.strip() for word in part.partition(":")]
        if name not in regions or not re.fullmatch(r"all|\d+(\+\d+)*", formula):
            raise UsageFault(
                "papers.regions-malformed",
                f"--regions {part}: expected NAME:1+2 or NAME:all, with a name of "
                f"{', '.join(regions)}",
            )
        formulas[name] = formula
    return formulas


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
