"""What ``benchmark``, ``tune`` and ``papers`` take, and the requests of a benchmark's jobs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, NonNegativeInt

from gansynth.core.requests.base import File, Folder, Many, Opt, Request, Root, Text, Texts, Values
from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest

if TYPE_CHECKING:
    from gansynth.core.source import SourceRequest

AsText = AfterValidator(str)
RUN = "run"  # run folder of a fit, below the job's folder


class PlanRequest(Request):
    """A plan, its cases, and where its jobs run."""

    settings = ""
    plan: Annotated[File, Opt(argument=True, metavar="PLAN")] = Field(kw_only=False)
    """YAML file (docs/benchmark_plan.md)."""
    data: Annotated[str | None, Opt(metavar="KIND:WHERE")] = None
    """Cases to use instead of those in the plan."""
    out: Annotated[Folder | None, Opt(flags=("-o", "--out"), metavar="DIR", called="-o")] = None
    """Results. [default: runs/benchmarks/NAME]"""
    executor: Annotated[str, Opt(metavar="WHERE")] = "local"
    """local[:N] for N jobs at once, or here, in this process. On several machines: gansynth help
    clusters."""
    dry_run: bool = False
    """Check everything and print the plan; write nothing."""
    usual: ClassVar[str] = "benchmarks"

    @property
    def file(self) -> Path:
        """The plan's file."""
        return Path(self.plan)

    def folder(self, name: str) -> Path:
        """Return the folder of the results of a plan of this name."""
        return Path("runs") / self.usual / name if self.out is None else Path(self.out)


class NewPlanSection(Request):
    """A new plan, and how its cases are read."""

    heading: ClassVar[str] = "A new plan"
    new: Annotated[str | None, Opt(metavar="KIND:WHERE|FOLDER")] = None
    """Write a plan for these cases to PLAN, and run nothing."""
    hours: Annotated[float | None, Opt(metavar="H")] = Field(default=None, gt=0)
    """Say whether samples help the cases PLAN, KIND:WHERE or a folder, after about so many hours of
    fits and trainings. The same command goes on; more hours add training subsets."""
    configuration: Annotated[
        str | None, Opt(flags=("-c", "--configuration"), needs="new or hours")
    ] = None
    """Configuration of the target framework, e.g. 3d_fullres."""
    plans: Annotated[str | None, Opt(needs="new or hours")] = None
    """Name of the framework's plans."""
    subjects: Annotated[str | None, Opt(needs="new or hours")] = None
    """CSV (case,subject) or regular expression with one group."""
    read: Annotated[Values, Opt(example="spacing=1", needs="new or hours")] = {}
    """How to read the cases; gansynth options KIND lists the keys. May be repeated."""
    root: Annotated[Root | None, Opt(needs="new or hours")] = None
    """Folder with the framework's own folders, instead of its environment variables."""
    unlabelled: Annotated[Texts, Opt(metavar="KIND:WHERE", needs="new or hours")] = ()
    """Scans of other people: an arm draws lesions into them, as if they had none, and another one
    takes them with labels that a first training gives them. May be repeated."""
    generator: Annotated[
        str | None, Opt(metavar="NAME", names=("generators",), needs="new or hours")
    ] = None
    """Add an arm of this generator. [default: what augment chooses for these cases]"""


class BenchmarkRequest(NewPlanSection, PlanRequest):
    """Measure whether samples help, by how much, and how certain that is.

    Every experiment arm of a plan trains the target framework on several training subsets. The
    same command resumes after an interruption, or adds new seeds of the plan. Finished trainings
    are kept. A training that fails is named in the report, and tried again next time.
    """

    plan: Annotated[str | os.PathLike[str], AsText, Opt(argument=True, metavar="[PLAN]")] = Field(
        default="plan.yaml", kw_only=False
    )
    """YAML file (docs/benchmark_plan.md), or cases for --hours. [default: plan.yaml]"""
    arm: Annotated[Texts, Opt(metavar="NAME")] = ()
    """Run this experiment arm only; may be repeated."""
    test_set: bool = False
    """Evaluate on the sealed test set, once."""
    reopen_test_set: Annotated[str, Opt(metavar="REASON", needs="test_set")] = ""
    """Access the sealed test set although another plan has; every report will show it."""
    cache: Annotated[File | Sequence[File], Many, Opt(metavar="FILE")] = ()
    """results.json with trainings to reuse; may be repeated."""
    pictures: Annotated[bool, Opt(shown=False)] = True
    """Show the worst cases in the report (default), or keep patients' images out of it."""
    no_probe: Annotated[bool, Opt(needs="dry_run")] = False
    """Dry run: do not measure how long a training takes."""

    def check(self) -> None:
        """Refuse what does not fit together."""
        if self.new is not None:
            self.refuse_beside(
                "plan",
                *NewPlanSection.words(),
                message="--new with {}: nothing is run, expected only the cases and how they are "
                "read; leave it out",
            )
        if self.hours is not None:
            allowed = [name for name in NewPlanSection.words() if name != "new"]
            allowed += ["plan", "out", "executor", "pictures"]
            self.refuse_beside(
                *allowed,
                message="--hours with {}: expected beside --hours only the cases, how they are "
                "read, -o and --executor; leave out {}, or write a plan by --new",
            )


class TuneRequest(PlanRequest):
    """Choose generator, ratio and schedule by inner folds, or none.

    Experiment arms of a plan are trained briefly on every inner fold, the better ones longer
    (successive halving). The answer is "not known, use none" unless an arm beats training on real
    cases alone by more than a standard error. Subjects that the plan evaluates on, sealed or not,
    are not read.
    """

    usual = "tune"
    out: Annotated[Folder | None, Opt(flags=("-o", "--out"), metavar="DIR", called="-o")] = None
    """Results. [default: runs/tune/NAME]"""
    size: Annotated[int | None, Opt(metavar="N")] = Field(default=None, ge=2)
    """Choose for a training set of N subjects. [default: all but those evaluated on]"""
    draw: Annotated[int, Opt(needs="size")] = Field(default=0, ge=0)
    """Number of the subset."""


class PapersRequest(Request):
    """Reproduce a paper's table, with its numbers beside ours.

    Documented commands fit the recipe and train the experiment arms. All arms of a framework
    train for equally many optimiser steps. They are evaluated on real held-out cases. --dry-run
    prints the commands and the paper's table. Without -o only the table is left.
    """

    settings = ""
    plan: Annotated[str, Opt(argument=True, metavar="RECIPE|PLAN.yaml")] = Field(kw_only=False)
    """The name of a recipe with a table, or the YAML file of a plan."""
    data: Annotated[str, Opt(metavar="KIND:WHERE")]
    """Cases, e.g. nifti:brats/."""
    extra_source: Annotated[
        Values, Opt(metavar="NAME=KIND:WHERE", example="tissues=nifti:adni")
    ] = {}
    """Further source that a recipe needs, by its name; may be repeated."""
    read: Annotated[Values, Opt(example="spacing=1")] = {}
    """How to read the cases; gansynth options KIND lists the keys. May be repeated."""
    fold: Text = "0"
    """Fold of the data."""
    subjects: str | None = None
    """CSV (case,subject) or regular expression with one group."""
    root: Root | None = None
    """Folder with the framework's own folders, instead of its environment variables."""
    scale: str | None = None
    """A scale of the plan, e.g. tiny. [default: the paper's]"""
    seed: Annotated[NonNegativeInt | Sequence[NonNegativeInt], Many, Opt(shown=False)] = (0,)
    """May be repeated. [default: 0]"""
    only: Annotated[Texts, Opt(metavar="ARM")] = ()
    """Run this experiment arm only; may be repeated."""
    host: Annotated[Texts, Opt(metavar="NAME")] = ()
    """Use this framework only; may be repeated."""
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps of every arm."""
    epochs: float | None = Field(default=None, gt=0)
    """Epochs of the frameworks, instead."""
    fit_set: Annotated[Values, Opt(example="steps=200")] = {}
    """Change one setting of the generators; may be repeated."""
    host_set: Annotated[Values, Opt(example="steps=200")] = {}
    """Change one setting of the frameworks; may be repeated."""
    regions: str = ""
    """Regions of other labels: WT:1+2+3,TC:2+3,ET:3."""
    figures: Annotated[bool, Opt(needs="out")] = False
    """Also draw the paper's figures of our samples, beside real cases: PNG files that show
    patients."""
    dry_run: bool = False
    """Check everything and print the plan; write nothing."""
    out: Annotated[Folder | None, Opt(flags=("-o", "--out"), called="-o")] = None
    """Keep everything here, to resume later."""
    name: Annotated[str | None, Opt(needs="out")] = None
    """Name of the results, NAME.json in the folder. [default: papers_RECIPE]"""

    @property
    def kind(self) -> str:
        return self.data.partition(":")[0]


class CardRequest(Request):
    """Print the card of a fit, or how a training or benchmark was composed, for a paper.

    --methods prints a paragraph and a table of what was done: which real cases, label maps and
    scans, how often each was drawn, ratio, generator, seeds, versions, and what the guard compared.
    They are of the record and the log of draws, not of what was asked for. What is not recorded is
    said. --json has the draws of every case.
    """

    command: ClassVar[str] = "card"
    settings: ClassVar[str] = ""
    result: Annotated[str, Opt(argument=True, metavar="RESULT")] = Field(kw_only=False)
    """Folder of a fit, of the results of gansynth augment or benchmark, or results.json."""
    methods: bool = False
    """Print the paragraph and the table of a paper's methods."""


def data_words(request: SourceRequest, read: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the fields with which a request opens a source."""
    from gansynth.fitting.composite_spec import texts

    settings = dict(request.read)
    settings.update(read or {})
    words = {
        "data": f"{request.kind}:{request.where}",
        "fold": request.fold,
        "configuration": request.configuration,
        "plans": request.plans,
        "subjects": request.subjects,
        "root": request.root,
        "read": texts(settings),
    }
    return {key: value for key, value in words.items() if value}


def fit_request(
    generator: Mapping[str, Any], request: SourceRequest, seed: int, out: Path
) -> FitRequest:
    """Return the request of a fit.

    Args:
        generator: see ``gansynth_benchmark.plan.GeneratorPlan.document``.
    """
    words = dict(generator)
    words.update(data_words(request, generator.get("read")))
    words["set"] = dict(generator.get("set", {}), seed=seed)
    return FitRequest(**words, out=out)


def augment_request(
    spec: Mapping[str, Any], request: SourceRequest, run: Path | None, out: Path | None
) -> AugmentRequest:
    """Return the request of a training.

    Args:
        spec: of a training, with ``augment`` and ``seed``.
    """
    words = dict(spec["augment"])
    words.update(data_words(request))
    words["seed"] = spec["seed"]
    return AugmentRequest(**words, generator=run, out=out)
