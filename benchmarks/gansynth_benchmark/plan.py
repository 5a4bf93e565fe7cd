"""The plan of a benchmark: a YAML file with the experiment arms, the data and the host.

docs/benchmark_plan.md has one to copy.

Unknown keys are refused. So are arms with a generator that is neither in the plan nor installed.
All arms train for the same number of optimiser steps.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gansynth.core.registry import installed
from gansynth.core.requests.base import Folder, Opt, Texts, in_python
from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.requests.sections import ReadSection
from gansynth.fitting.composite_spec import texts
from gansynth.hosts.contract.host import Framework, framework
from gansynth.hosts.deciding.trials import Levels, trials_of
from gansynth.metrics.segmentation.measures import (
    AT_ALARMS,
    LESIONS,
    MEASURES,
    SEGMENTATION,
    check_asked,
    measure_of,
)
from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth_benchmark.arms import preset, preset_generators, preset_names

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"


def _texts(value: Any) -> Any:
    return texts(value or {}) if isinstance(value, Mapping | None) else value


def _listed(value: Any) -> Any:
    """Return a value alone, or values with commas between them, as a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, int | float) else value


def _quoted(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError('YAML reads R:S as a number of minutes; write it in quotes: "1:1"')
    return value


def _registered(target: str) -> str:
    checked(installed().host, target)
    return target


Target = Annotated[str, AfterValidator(_registered)]
Settings = Annotated[dict[str, str], BeforeValidator(_texts)]
Formula = Annotated[
    str,
    BeforeValidator(lambda v: str(v) if isinstance(v, int) else v),
    Field(pattern=r"^\d+(\+\d+)*$"),
]
Count = Annotated[int, Field(ge=1)]
Words = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, int) else v)]
Parts = Annotated[str, BeforeValidator(_quoted)]
Listed = BeforeValidator(_listed)


def checked(check: Callable[..., object], *words: object) -> None:
    """Run a check and turn its UsageFault into the ValueError that pydantic expects."""
    try:
        check(*words)
    except UsageFault as fault:
        raise ValueError(str(fault)) from None


class ClosedModel(BaseModel):
    """A frozen model that refuses unknown keys; a key without a value is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _know_keys(cls, values: Any) -> Any:
        """Refuse unknown keys before missing ones: a mistyped key is both."""
        if not isinstance(values, dict):
            return values
        for key in values:
            if key not in cls.model_fields:
                raise ValueError(f"{key}: unknown.{did_you_mean(str(key), cls.model_fields)}")
        return {key: value for key, value in values.items() if value is not None}


class HostPlan(ClosedModel):
    """The framework that is trained, e.g. nnU-Net: the same for all arms."""

    target: Target = Field(description="registered name, as after gansynth augment --target")
    steps: Count = Field(description="optimiser steps of every training")
    title: str = Field("", description="in reports; default: derived from the target")
    set: Settings = Field(default_factory=dict, description="options of the target")
    options: tuple[str, ...] = Field((), description="as after --")
    env: Settings = Field(default_factory=dict, description="environment variables of its training")

    @property
    def shown(self) -> str:
        """The title in reports."""
        return self.title or self.framework.title or self.target

    @property
    def framework(self) -> type[Framework]:
        """The registered class. Raises UsageFault: there is none."""
        return framework(self.target)

    @property
    def finds_boxes(self) -> bool:
        """Whether the host is a detector, whose boxes are evaluated."""
        return self.framework.Intake.needs == "boxes"


OF_DATA = ("data", *ReadSection.words())
OF_PLACES = ("out", "dry_run", "quiet", "resume")


class GeneratorPlan(FitRequest):
    """A generator that is fitted on each training subset: all that ``gansynth fit`` takes.

    What follows from the study itself is refused.
    """

    of_study: ClassVar[frozenset[str]] = frozenset({*OF_DATA, *OF_PLACES}) - {"read"}
    data: Annotated[str, Opt(hidden=True)] = ""
    out: Annotated[Folder, Opt(hidden=True)] = ""

    @property
    def document(self) -> dict[str, Any]:
        """What is fitted, without the defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)


class ArmPlan(AugmentRequest):
    """An experiment arm: one way to train the host, with all that ``gansynth augment`` takes.

    What follows from the study itself is refused.
    """

    of_study: ClassVar[frozenset[str]] = frozenset(
        {
            *OF_DATA,
            *OF_PLACES,
            "target",
            "bank",
            "seed",
            "export",
            "round_ratio",
            "content",
            "compare",
        }
    )
    target: Annotated[str, Opt(hidden=True)] = ""
    name: str = Field(pattern=NAME)
    """In tables and on the command line."""
    title: str = ""
    """In reports."""
    what: str = ""
    """One sentence."""
    generator: str | None = None
    """One of the plan's, or an installed plugin."""
    ratio: Parts = "1:0"
    """Real:synthetic; default: 1:1 with a generator, else 1:0."""
    heavier: bool = False
    """Augment more than the host usually does."""
    real: int = Field(default=1, ge=1)
    """Factor on the number of real training subjects."""
    at_target: bool = False
    """Train on as many subjects of split.target, with their labels."""
    again: bool = False
    """Train with other random numbers than arms without this."""
    tune: Texts = ()
    """Chosen among these arms by inner folds."""
    candidate: bool = False
    """Used only as a choice of tune, not trained itself."""

    def check(self) -> None:
        """Refuse what does not fit together."""
        if self.mix.synthetic != (self.generator is not None):
            raise UsageFault(
                "benchmark.ratio-and-generator-not-both",
                f"ratio {self.ratio!r}, generator {self.generator!r}: expected both or neither; "
                "synthetic samples need both",
            )
        if self.tune and self.generator:
            raise UsageFault(
                "benchmark.tune-and-generator-both",
                "tune and generator: expected one of them; tune names other arms",
            )
        if self.heavier and not self.host_augmentation:
            raise UsageFault(
                "benchmark.heavier-without-host-augmentation",
                "heavier and host_augmentation=False: expected one of them",
            )
        super().check()

    @property
    def document(self) -> dict[str, Any]:
        """What is trained, without the defaults and without what only the study knows."""
        own = {"name", "title", "what", "generator", "heavier", "real"}
        own |= {"again", "tune", "candidate", "at_target"}
        document = self.model_dump(mode="json", exclude_defaults=True, exclude=own)
        document["ratio"] = self.ratio
        return document


def without_folders(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an arm's or a generator's document with the names alone of folders of scans."""
    named = dict(section)
    if "unlabelled" in named:
        named["unlabelled"] = [_last(folder) for folder in named["unlabelled"]]
    if "target_scans" in named:
        named["target_scans"] = _last(named["target_scans"])
    return named


def _last(folder: str) -> str:
    return folder.rstrip("/").rpartition("/")[2]


RENAMED = {
    "plugin": "it is called generator now",
    "edits": "it is called edit now",
    "filters": "it is called filter now",
    "augmentation": "write host_augmentation: no, or heavier: yes",
    "bank": "write offline: yes, bank_size: 3x; without both, samples are drawn on the fly",
}
"""Keys of older plans, and of an arm's own bank."""
Section = TypeVar("Section", GeneratorPlan, ArmPlan)


def section_of(model: type[Section], entry: Any, where: str) -> Section:
    """Return a section of a plan; its errors name it, as ``arms.2: ``."""
    if not isinstance(entry, Mapping):
        raise UsageFault(
            "benchmark.plan-section-not-mapping", f"{where}: {entry!r}: expected a mapping"
        )
    with in_python(model, f"{where}: "):
        for key in entry:
            if key in RENAMED:
                raise UsageFault("benchmark.plan-key-renamed", f"{key}: unknown; {RENAMED[key]}")
            if key in model.of_study:
                raise UsageFault(
                    "benchmark.plan-key-set-by-study", f"{key}: the study sets it; leave it out"
                )
        return model(**{str(key): value for key, value in entry.items() if value is not None})


class SplitPlan(ClosedModel):
    """The split into training pool, development subjects and sealed test subjects.

    Either numbers of subjects, or ``fold`` of the data, whose held-out cases are the sealed ones.
    """

    pool: Count | None = Field(None, description="subjects that training subsets are sampled from")
    development: int | None = Field(
        None,
        ge=0,
        description="subjects for evaluation during development; default: as many as are sealed",
    )
    sealed: Count | None = Field(
        None, description="test subjects, evaluated once; required without fold"
    )
    fold: Words | None = Field(
        None, description="of the data: its held-out cases are sealed, the others are the pool"
    )
    sites: Words | None = Field(
        None, description="CSV (case,site) or expression, as --sites; the pool is of the others"
    )
    target: Words | None = Field(None, description="the site whose subjects are evaluated")
    seed: int = Field(0, ge=0, description="of the split and of the training subsets")

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what a plan without sites lacks: its hash is that of earlier versions."""
        document: dict[str, Any] = dump(self)
        if self.sites is None:
            for key in ("sites", "target"):
                document.pop(key, None)
        return document

    @model_validator(mode="after")
    def _one_way(self) -> SplitPlan:
        if (self.fold is None) != (self.sealed is not None):
            raise ValueError("expected sealed (a number of subjects), or fold")
        if self.fold is not None and self.pool is not None:
            raise ValueError("pool and fold: expected only one of them")
        if (self.sites is None) != (self.target is None):
            raise ValueError("sites and target: expected both or neither")
        if self.fold is not None and self.sites is not None:
            raise ValueError("sites and fold: expected only one of them")
        return self


class TunePlan(ClosedModel):
    """Choice of an arm by successive halving on inner folds (Jamieson and Talwalkar 2016)."""

    folds: int = Field(3, ge=2, description="inner folds of the training subjects")
    rungs: Annotated[tuple[float, ...], Listed] = Field(
        (0.25, 1.0), description="shares of the host's steps"
    )
    keep: float = Field(0.5, gt=0, lt=1, description="share of the arms kept for the next rung")
    fit_share: float = Field(1.0, gt=0, le=1, description="share of the generators' steps")

    @model_validator(mode="after")
    def _rise(self) -> TunePlan:
        if list(self.rungs) != sorted(set(self.rungs)) or not all(0 < r <= 1 for r in self.rungs):
            raise ValueError(f"rungs {list(self.rungs)}: expected rising shares of at most 1")
        return self


class PaperPlan(ClosedModel):
    """A paper's table that the report shows beside our results."""

    title: str = Field(min_length=1, description="which table of which paper")
    columns: dict[str, str] = Field(min_length=1, description="column -> measure, `WT: dice/WT`")
    rows: dict[str, tuple[float, ...]] = Field(min_length=1, description="arm -> its numbers")

    @model_validator(mode="after")
    def _even(self) -> PaperPlan:
        for arm, numbers in self.rows.items():
            if len(numbers) != len(self.columns):
                raise ValueError(f"{arm}: {len(numbers)} numbers for {len(self.columns)} columns")
        return self


def _generators(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {key: section_of(GeneratorPlan, v, f"generators.{key}") for key, v in values.items()}


def _arms(entries: Any) -> Any:
    if not isinstance(entries, list):
        return entries
    sections = []
    for number, entry in enumerate(entries):
        words = _expanded(entry)
        if isinstance(words, Mapping):
            words = {"ratio": "1:1" if words.get("generator") else "1:0"} | dict(words)
        sections.append(section_of(ArmPlan, words, f"arms.{number}"))
    return sections


def _expanded(entry: Any) -> Any:
    """Return an arm as a mapping: a preset by its name, or a preset with changes."""
    if isinstance(entry, str):
        entry = {"name": entry, "from": entry}
    if not isinstance(entry, Mapping):
        return entry
    entry = dict(entry)
    base = entry.pop("from", None)
    if base is None:
        return entry
    names = preset_names()
    if base not in names:
        raise UsageFault(
            "benchmark.plan-arm-unknown",
            f"arms: {base!r} is not a known arm, expected one of {', '.join(names)}, or a "
            f"mapping with a name.{did_you_mean(str(base), names)}",
        )
    words = {"name": base}
    words.update(preset(base))
    words.update(entry)
    return words


class BenchmarkPlan(ClosedModel):
    """A benchmark."""

    name: str = Field(pattern=NAME, description="of the benchmark and its folder")
    title: str = Field("", description="of the report")
    gansynth: str | None = Field(None, description="version it was written with, or for")
    data: str = Field(description="KIND:WHERE, as after --data; paths are relative to this file")
    read: Settings = Field(default_factory=dict, description="as after --read")
    configuration: str | None = Field(None, description="the host's: 2d, 3d_fullres")
    plans: str | None = Field(None, description="name of the host's plans")
    subjects: str | None = Field(None, description="CSV or regular expression, as --subjects")
    root: str | None = Field(None, description="folder of the host's folders, as --root")
    host: HostPlan = Field(description="the framework that is trained: see below")
    generators: Annotated[dict[str, GeneratorPlan], BeforeValidator(_generators)] = Field(
        default_factory=dict, description="name -> generator to fit: see below"
    )
    arms: Annotated[tuple[ArmPlan, ...], BeforeValidator(_arms)] = Field(
        min_length=1, description="experiment arms: see below"
    )
    control: str = Field(
        "", description="arm that the others are compared with; default: the first"
    )
    sizes: Annotated[tuple[Count, ...], Listed] = Field(
        min_length=1, description="numbers of training subjects"
    )
    draws: Count = Field(3, description="training subsets of each size, nested across sizes")
    seeds: Count = Field(2, description="trainings of each arm on each subset")
    fits: Literal["draw", "seed"] = Field(
        "seed", description="fit generators once for each seed, or once for each draw"
    )
    split: SplitPlan = Field(description="training pool and test subjects: see below")
    regions: dict[str, Formula] = Field(default_factory=dict, description="name -> 1+2+4")
    measures: Annotated[tuple[str, ...], Listed] = Field(
        ("dice", *LESIONS),
        description="see: gansynth help measures; those of lesions are always taken, too",
    )
    primary: str = Field(
        "",
        description="measure of the verdict; default: the first measure, of the foreground; of "
        "detectors froc",
    )
    margin: float | None = Field(
        None,
        gt=0,
        description="equivalence margin; default: 0.005 for Dice and NSD, 0.01 for FROC",
    )
    tune: TunePlan = Field(
        default_factory=lambda: TunePlan.model_validate({}),
        description="how arms are chosen: see below",
    )
    paper: PaperPlan | None = Field(None, description="a paper's table for comparison: see below")
    open: tuple[str, ...] = Field((), description="remarks on this plan, shown in the report")

    @model_validator(mode="after")
    def _fits(self) -> BenchmarkPlan:
        names = [arm.name for arm in self.arms]
        duplicates = [name for name, count in Counter(names).items() if count > 1]
        if duplicates:
            raise ValueError(f"arms: two have the name {duplicates[0]!r}")
        for arm in self.arms:
            self._check_tune(arm)
        if self.control and self.control not in names:
            raise ValueError(f"control {self.control!r}: expected one of {', '.join(names)}")
        for name in self.paper.rows if self.paper else ():
            if name not in names:
                raise ValueError(f"paper.rows: {name!r}, expected one of {', '.join(names)}")
        self._check_measures()
        if self.margin is None and measure_of(self.primary_measure).margin is None:
            raise ValueError(f"margin: {self.primary_measure} has no default, expected a number")
        if self.arm(self.compared_with).candidate or self.arm(self.compared_with).tune:
            raise ValueError(f"control {self.compared_with!r}: expected an arm that is trained")
        self._check_sizes()
        return self

    def _check_tune(self, arm: ArmPlan) -> None:
        """Refuse candidates that are missing, tuned themselves, or of another number of cases."""
        names = [other.name for other in self.arms]
        for candidate in arm.tune:
            if candidate not in names or self.arm(candidate).tune or candidate == arm.name:
                raise ValueError(f"arms.{arm.name}: tune names {candidate!r}, expected other arms")
            if self.arm(candidate).real != arm.real:
                raise ValueError(
                    f"arms.{arm.name}: tune names {candidate!r} with real "
                    f"{self.arm(candidate).real}, expected arms with real {arm.real}"
                )
        if arm.tune and all(self.arm(candidate).generator for candidate in arm.tune):
            raise ValueError(
                f"arms.{arm.name}: tune names no arm without a generator, expected one: what "
                "is not shown to be better than real cases alone is not used"
            )

    def _check_sizes(self) -> None:
        """Refuse sizes that do not rise, or are too small for the inner folds."""
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes {list(self.sizes)}: expected rising numbers of subjects")
        if any(arm.tune for arm in self.arms) and self.sizes[0] < self.tune.folds:
            text = f"{self.sizes[0]} subjects for {self.tune.folds} inner folds"
            raise ValueError(f"sizes: {text}, expected as many; lower tune.folds")

    def _check_measures(self) -> None:
        boxes = self.host.finds_boxes
        checked(check_asked, self.measures, MEASURES if boxes else SEGMENTATION)
        checked(measure_of, self.primary_measure)
        if self.primary_measure in AT_ALARMS:
            if any(arm.tune for arm in self.arms):
                raise ValueError(
                    f"primary {self.primary_measure}: expected no arm with tune, which chooses at "
                    "the host's own threshold"
                )
            if self.levels is None:
                raise ValueError(
                    f"primary {self.primary_measure}: {self.host.target} keeps no probabilities of "
                    "held-out cases, expected dice/foreground or a host that does"
                )
        elif not boxes and self.primary_measure.partition("/")[0] not in self.measured:
            names = ", ".join(self.measured)
            raise ValueError(
                f"primary {self.primary_measure}: expected one of the measures: {names}"
            )

    def arm(self, name: str) -> ArmPlan:
        return next(arm for arm in self.arms if arm.name == name)

    def generator(self, name: str) -> GeneratorPlan:
        """Return a generator by the name an arm uses for it."""
        if name in self.generators:
            return self.generators[name]
        words = {"generator": name}
        words.update(preset_generators().get(name, {}))
        return section_of(GeneratorPlan, words, f"generators.{name}")

    @property
    def compared_with(self) -> str:
        """Name of the control arm."""
        return self.control or self.arms[0].name

    @property
    def measured(self) -> tuple[str, ...]:
        """The plan's measures, and of label maps those of lesions, which stand beside each gain."""
        more = () if self.host.finds_boxes else LESIONS
        return tuple(dict.fromkeys((*self.measures, *more)))

    @property
    def primary_measure(self) -> str:
        """Key of the primary measure."""
        if self.primary:
            return self.primary
        return "froc" if self.host.finds_boxes else f"{self.measures[0]}/foreground"

    @property
    def levels(self) -> Levels | None:
        """Settings and options of the host with which it keeps levels; None if it keeps none."""
        return trials_of(self.host.target).saving_levels()

    @property
    def equal_within(self) -> float:
        """Equivalence margin of the primary measure."""
        margin = self.margin or measure_of(self.primary_measure).margin
        assert margin is not None  # see _fits
        return margin

    @property
    def hash(self) -> str:
        """Hash of everything that can change a result, so without titles, remarks and folders."""
        left_out = {"title", "gansynth", "open", "paper", "root", "data", "arms", "generators"}
        document = self.model_dump(mode="json", exclude=left_out)
        # Without defaults, so that a new option changes no hash.
        document["arms"] = [
            without_folders(
                arm.model_dump(mode="json", exclude_defaults=True, exclude={"title", "what"})
            )
            for arm in self.arms
        ]
        document["generators"] = {
            name: without_folders(each.document) for name, each in self.generators.items()
        }
        document["host"].pop("title")
        if self.subjects is not None and Path(self.subjects).is_absolute():
            document["subjects"] = Path(self.subjects).name
        document["data"] = self.data.rstrip("/").rpartition("/")[2]
        text = json.dumps(document, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
