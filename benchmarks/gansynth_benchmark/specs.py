"""Specs of a benchmark's jobs and their keys: equal keys are the same computation.

A spec is a JSON document without folders, titles or dates. Two arms with the same training are one
job. A result computed elsewhere is reused if nothing that could change it differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gansynth.core.lineage import CaseRecord
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.core.source import CaseSource, FoldSplit, case_record
from gansynth.data.folds import grouped_splits
from gansynth.hosts.host import Framework
from gansynth.metrics.segmentation.evaluation import THRESHOLDS
from gansynth.metrics.segmentation.measures import regions_of, with_labels
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.version import __version__
from gansynth_benchmark.plan import ArmPlan, BenchmarkPlan
from gansynth_benchmark.subject_split import SubjectSplit, largest_set

FORMAT = 1
FIT, TRAIN, TUNE = "fit", "train", "tune"
SEEDS_OF_A_DRAW = 1000
"""Seed offset between training subsets, so that their trainings have different seeds."""


@dataclass(frozen=True)
class TrainingPoint:
    """One training of the design: arm, size, training subset, seed; or on an inner fold of it."""

    arm: str
    n: int
    draw: int
    seed: int
    fold: int | None = None

    @property
    def random(self) -> int:
        """Seed of the training."""
        return self.draw * SEEDS_OF_A_DRAW + self.seed

    def __str__(self) -> str:
        inner = "" if self.fold is None else f", inner fold {self.fold + 1}"
        return f"{self.arm}, N={self.n}, draw {self.draw}, seed {self.seed}{inner}"


@dataclass(frozen=True)
class ComputationSpec:
    """One computation."""

    kind: str  # `fit`, `train` or `tune`
    document: Mapping[str, Any]
    title: str
    needs: tuple[str, ...] = field(default=())

    @cached_property
    def key(self) -> str:
        """Content address, 20 hexadecimal digits."""
        text = json.dumps(self.document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def fit_spec(
    data: Mapping[str, Any], generator: Mapping[str, Any], seed: int, title: str
) -> ComputationSpec:
    """Fit a generator on the training cases of ``data``."""
    return ComputationSpec(FIT, {**data, "kind": FIT, "generator": generator, "seed": seed}, title)


def train_spec(
    document: Mapping[str, Any], fit: ComputationSpec | None, title: str
) -> ComputationSpec:
    """Train the host, with samples of a generator if one is fitted."""
    key = None if fit is None else fit.key
    needs = () if key is None else (key,)
    return ComputationSpec(TRAIN, {**document, "kind": TRAIN, "generator": key}, title, needs)


class BenchmarkDesign:
    """All computations of a plan on a data set.

    Args:
        judged: cases that trainings are evaluated on; empty for inner folds.
        adapter: of the host, opened on the source; it converts steps to the host's settings.

    Raises:
        UsageFault: the label maps lack a region or the primary measure's region.
    """

    def __init__(
        self,
        plan: BenchmarkPlan,
        source: CaseSource,
        division: SubjectSplit,
        judged: Sequence[str],
        adapter: Framework,
    ) -> None:
        self.plan, self.source, self.division = plan, source, division
        self.judged, self.adapter = tuple(judged), adapter
        self._records: dict[str, CaseRecord] = {}
        self._images: dict[str, CaseRecord] = {}  # the first case with each image
        _check_regions(plan, source)

    # -- cases -----------------------------------------------------------------------------------

    def training_cases(self, size: int, draw: int) -> tuple[str, ...]:
        """Return the cases of a training subset, sorted."""
        least, largest = self.plan.sizes[0], largest_set(self.plan)
        subjects = self.division.training_set(size, draw, least, largest)
        return self.division.cases_of(subjects)

    def cases_of(self, place: TrainingPoint) -> tuple[str, ...]:
        """Return the training cases of a place, with the arm's factor on the subjects."""
        if place.fold is not None:
            return tuple(sorted(self._inner_fold(place)["train"]))
        return self.training_cases(place.n * self.plan.arm(place.arm).real, place.draw)

    def inner(self, place: TrainingPoint) -> list[TrainingPoint]:
        """Return the trainings on inner folds that choose the threshold of all seeds of a place."""
        point = self.plan.operating_point
        return [replace(place, seed=0, fold=n) for n in range(point.folds if point else 0)]

    def _inner_fold(self, place: TrainingPoint) -> FoldSplit:
        cases = self.cases_of(replace(place, fold=None))
        subjects = {case: self.source.header(case).subject for case in cases}
        assert place.fold is not None
        assert self.plan.operating_point is not None
        folds = grouped_splits(cases, subjects, self.plan.operating_point.folds, place.random)
        return folds[place.fold]

    def _known(self, cases: Sequence[str]) -> list[list[str]]:
        """Return id, subject and SHA-256 of cases."""
        for case in cases:
            if case not in self._records:
                self._records[case] = record = case_record(self.source, case)
                self._refuse_twin(record)
        return [
            [record.id, record.subject, record.sha256]
            for record in (self._records[case] for case in cases)
        ]

    def _refuse_twin(self, record: CaseRecord) -> None:
        """Refuse subjects that share an image: one could train, the other be evaluated on."""
        first = self._images.setdefault(record.image or record.id, record)
        if first.subject != record.subject:
            raise IntegrityFault(
                f"leakage: {self.source.name}: cases {first.id} and {record.id} have the same "
                "image, but are of two subjects; remove one, or give them one subject: subjects: "
                "in the plan"
            )

    @cached_property
    def _data(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "format": FORMAT,
            "gansynth": __version__,
            "data": self.source.name.rpartition("/")[2],
            "configuration": plan.configuration,
            "plans": plan.plans,
            "read": plan.read,
        }

    # -- specs -----------------------------------------------------------------------------------

    def fit(self, generator: str, cases: Sequence[str], seed: int, title: str) -> ComputationSpec:
        """Fit a generator on training cases."""
        data = {**self._data, "train": self._known(cases)}
        options = self.plan.generator(generator).document
        return fit_spec(data, options, seed, f"fit {generator}, {title}")

    def fit_of(self, place: TrainingPoint) -> ComputationSpec | None:
        """Return the fit of a place's generator; None without a generator."""
        arm = self.plan.arm(place.arm)
        if arm.generator is None:
            return None
        per_seed = self.plan.fits == "seed"
        seed = place.random if per_seed else TrainingPoint("", place.n, place.draw, 0).random
        title = f"N={place.n}, draw {place.draw}" + (f", seed {place.seed}" if per_seed else "")
        title += "" if place.fold is None else f", inner fold {place.fold + 1}"
        return self.fit(arm.generator, self.cases_of(place), seed, title)

    def train(self, place: TrainingPoint) -> ComputationSpec:
        """Return the training of a place."""
        arm, cases = self.plan.arm(place.arm), self.cases_of(place)
        judged = self.judged if place.fold is None else sorted(self._inner_fold(place)["val"])
        host, cut = self.host(arm, len(cases)), {}
        if self.plan.operating_point is not None:
            settings, options = self.adapter.saving_levels()
            host |= {"set": {**host["set"], **settings}, "options": [*host["options"], *options]}
            cut = {"thresholds": list(THRESHOLDS)}
        document = {
            **self._data,
            **cut,
            "train": self._known(cases),
            "judged": self._known(judged),
            "augment": host,
            "regions": self.plan.regions,
            "measures": list(self.plan.measures),
            "seed": place.random,
        }
        return train_spec(document, self.fit_of(place), f"train {place}")

    def tune(self, place: TrainingPoint) -> ComputationSpec:
        """Return the choice among arms by inner folds of a training subset."""
        names = self.plan.arm(place.arm).tune
        seed = TrainingPoint("", place.n, place.draw, 0).random
        title = f"choose {place.arm}, N={place.n}, draw {place.draw}"
        return self.choice(names, self.training_cases(place.n, place.draw), seed, title)

    def choice(
        self, names: Sequence[str], cases: Sequence[str], seed: int, title: str
    ) -> ComputationSpec:
        """Return the choice among arms by inner folds of the given training cases."""
        plan = self.plan
        used = sorted({plan.arm(name).generator for name in names} - {None}, key=str)
        document = {
            **self._data,
            "kind": TUNE,
            "train": self._known(cases),
            "arms": {
                name: {
                    "augment": self.host(plan.arm(name), len(cases)),
                    "generator": plan.arm(name).generator,
                }
                for name in names
            },
            "generators": {str(name): plan.generator(str(name)).document for name in used},
            "tune": plan.tune.model_dump(mode="json"),
            "regions": plan.regions,
            "by": plan.judged_by,
            "seed": seed,
        }
        return ComputationSpec(TUNE, document, title)

    # -- the host --------------------------------------------------------------------------------

    def _length(self, name: str, cases: int) -> dict[str, str]:
        """Return settings that give every arm the same number of steps on ``cases`` cases.

        Raises:
            UsageFault: an arm sets the length itself.
        """
        arms = [arm for arm in self.plan.arms if not arm.tune]
        mixes = [(Ratio.parse(arm.ratio), Schedule.parse(arm.schedule)) for arm in arms]
        host = self.plan.host
        given_settings = {**host.set, **self.plan.arm(name).set}
        lengths = self.adapter.lasting(host.steps, mixes, given_settings, cases)
        arm, length = next(pair for pair in zip(arms, lengths, strict=True) if pair[0].name == name)
        if own := sorted(length.keys() & arm.set.keys()):
            raise UsageFault(
                f"arms.{name}.set.{own[0]}: {arm.set[own[0]]!r}, expected no length of its "
                "own, which is the same for every arm; set it in host.set"
            )
        return length

    def host(self, arm: ArmPlan, cases: int) -> dict[str, Any]:
        """Return the request of an arm on ``cases`` cases, as JSON, without data and places."""
        host = self.plan.host
        settings = {**host.set, **self._length(arm.name, cases)}
        options = self.adapter.impartial(host.options, host.set)
        if arm.heavier:
            extra, words = self.adapter.heavier(host.set)
            settings, options = {**settings, **extra}, (*options, *words)
        named = {"regions": formulas(self.plan.regions)} if self._takes_regions else {}
        return {
            **arm.document,
            "target": host.target,
            "set": {**settings, **arm.set, **named},
            "options": [*options, *arm.options],
        }

    @property
    def _takes_regions(self) -> bool:
        return bool(self.plan.regions) and "regions" in self.adapter.Options.model_fields


def _check_regions(plan: BenchmarkPlan, source: CaseSource) -> None:
    if plan.host.finds_boxes:
        return
    labels = source.schema.foreground
    regions = [name for name, _ in with_labels(regions_of(plan.regions, labels), labels)]
    if "mean" in regions:
        raise UsageFault("regions: 'mean' is reserved for the mean of labels; use another name")
    regions += ["mean"] if len(labels) > 1 else []
    if plan.judged_by.partition("/")[2] not in regions:
        raise UsageFault(
            f"primary {plan.judged_by}: no such region in {source.name}, expected "
            f"{' or '.join(f'{plan.measures[0]}/{name}' for name in regions)}"
        )


def formulas(regions: Mapping[str, str]) -> str:
    """Return regions in the hosts' format: ``WT:1+2,ET:3``."""
    return ",".join(f"{name}:{formula}" for name, formula in regions.items())
