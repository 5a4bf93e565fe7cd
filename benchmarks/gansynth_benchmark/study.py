"""A plan opened on its data: its computations and jobs, and the result of each place of the design.

The spec of a computation is a JSON document without folders, titles or dates, and its key is of
that: equal keys are the same computation. Two arms with the same training are one job. A result
computed elsewhere is reused if nothing that could change it differs.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gansynth.conditions.condition_source import inherited_request
from gansynth.core.identity import Door, HeldOut, matches, refuse_seen
from gansynth.core.intake import intake_of
from gansynth.core.lineage import CaseRecord, Lineage, some_names
from gansynth.core.source import CaseSource, FoldSplit, SourceRequest, case_record, lineage_of
from gansynth.data.folds import grouped_splits
from gansynth.data.held_out import held_out_of
from gansynth.hosts.deciding.trials import Trials, trials_of
from gansynth.metrics.segmentation.evaluation import (
    THRESHOLDS,
    NearestAlarms,
    alarms_of,
    equal_alarms,
)
from gansynth.metrics.segmentation.measures import regions_of, with_labels
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.version import __version__
from gansynth.sampling.replay import SAMPLING
from gansynth.sampling.run_source import open_source
from gansynth_benchmark.jobs.store import JobSpec, ResultStore
from gansynth_benchmark.plan import ArmPlan, BenchmarkPlan, without_folders
from gansynth_benchmark.requests import RUN
from gansynth_benchmark.subject_split import SEALED, SubjectSplit, largest_set, split_subjects

JOBS = "jobs"
FORMAT = 1
FIT, TRAIN, TUNE = "fit", "train", "tune"
log = logging.getLogger("gansynth")
SEEDS_OF_A_DRAW, SEEDS_OF_AN_ARM = 1000, 500
"""Seed offset between training subsets, so that their trainings have different seeds."""


@dataclass(frozen=True)
class TrainingPoint:
    """One training of the design: arm, size, training subset, seed."""

    arm: str
    n: int
    draw: int
    seed: int

    @property
    def random(self) -> int:
        return self.draw * SEEDS_OF_A_DRAW + self.seed

    def __str__(self) -> str:
        return f"{self.arm}, N={self.n}, draw {self.draw}, seed {self.seed}"


@dataclass(frozen=True)
class ComputationSpec:
    """One computation."""

    kind: str  # `fit`, `train` or `tune`
    document: Mapping[str, Any]
    title: str
    needs: tuple[str, ...] = field(default=())

    @cached_property
    def key(self) -> str:
        """Content address, 20 hexadecimal digits; of unlabelled scans only their folder's name."""
        document = dict(self.document)
        for part in ("augment", "generator"):
            if isinstance(document.get(part), Mapping):
                document[part] = without_folders(document[part])
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def fit_spec(
    data: Mapping[str, Any], generator: Mapping[str, Any], seed: int, title: str
) -> ComputationSpec:
    """Fit a generator on the training cases of ``data``."""
    document = dict(data) | {"kind": FIT, "generator": generator, "seed": seed}
    document["sampling"] = SAMPLING  # results with older samples are not used again
    return ComputationSpec(FIT, document, title)


def train_spec(
    document: Mapping[str, Any], fit: ComputationSpec | None, title: str
) -> ComputationSpec:
    """Train the host, with samples of a generator if one is fitted."""
    key = None if fit is None else fit.key
    needs = () if key is None else (key,)
    whole = dict(document) | {"kind": TRAIN, "generator": key}
    return ComputationSpec(TRAIN, whole, title, needs)


class BenchmarkStudy:
    """A plan on one test split: all its computations.

    Args:
        look: ``development`` or ``sealed``; empty for choices on inner folds alone.
        arms: use only these and the control; all if empty.
        cached: results of the same jobs elsewhere, key -> document.
        source: the plan's cases, if they are open already.
    """

    def __init__(
        self,
        plan: BenchmarkPlan,
        look: str,
        folder: Path,
        *,
        arms: Sequence[str] = (),
        cached: Mapping[str, Mapping[str, Any]] | None = None,
        source: CaseSource | None = None,
    ) -> None:
        self.plan, self.look, self.folder = plan, look, folder.absolute()
        self.cached = dict(cached or {})
        self.arms = _chosen(plan, arms)
        self.request = request_of(plan)
        self.source: CaseSource = source or open_source(self.request)
        self.division: SubjectSplit = split_subjects(self.source, plan)
        self.test_cases = self.division.test_cases(look) if look else ()
        self.trials = _trials_of(plan, self.source)
        self._records: dict[str, CaseRecord] = {}
        self._images: dict[str, CaseRecord] = {}  # the first case with each image
        # Judged cases -> cases that may train beside them, for no image is near-identical.
        self._without_neighbours: dict[tuple[str, ...], set[str]] = {}
        _check_regions(plan, self.source)

    @property
    def people(self) -> tuple[str, ...]:
        """The test subjects of this split."""
        return self.division.sealed if self.look == SEALED else self.division.development

    # -- the design ------------------------------------------------------------------------------

    def places(self) -> Iterator[TrainingPoint]:
        """Yield all trainings, subset by subset, so that early results cover all arms."""
        plan = self.plan
        for draw in range(plan.draws):
            for n in plan.sizes:
                for seed in range(plan.seeds):
                    for arm in self.arms:
                        yield TrainingPoint(arm, n, draw, seed)

    def choices(self) -> Iterator[TrainingPoint]:
        """Yield the places where an arm is chosen: one for each training subset."""
        for place in self.places():
            if self.plan.arm(place.arm).tune and place.seed == 0:
                yield place

    def spec(self, place: TrainingPoint) -> ComputationSpec | None:
        """Return the training of a place; None while its arm is not chosen."""
        trained = self._trained(place)
        return None if trained is None else self.train(trained)

    def _trained(self, place: TrainingPoint) -> TrainingPoint | None:
        chosen = self.chosen(place) if self.plan.arm(place.arm).tune else place.arm
        return None if chosen is None else replace(place, arm=chosen)

    def threshold(self, place: TrainingPoint) -> NearestAlarms | None:
        """Return the threshold at which a place's arm raises equal false alarms, or the nearest.

        As many as the control of the same draw and seed at its own threshold, on the cases that
        are judged. None where the host keeps no levels, or while a training is missing.
        """
        rates = []
        for point in (self._trained(place), self.control_of(place)):
            result = None if point is None else self.result(self.train(point).key)
            table = {} if result is None else result["document"].get("at_thresholds") or {}
            if not table:
                return None
            rates.append(alarms_of(table))
        return equal_alarms(*rates)

    def control_of(self, place: TrainingPoint) -> TrainingPoint:
        """Return the training of the control that a place is compared with."""
        return replace(place, arm=self.plan.compared_with)

    def chosen(self, place: TrainingPoint) -> str | None:
        """Return the arm chosen by inner folds for a training subset; None if not chosen yet."""
        result = self.result(self.tune(replace(place, seed=0)).key)
        return None if result is None else str(result["document"]["chosen"])

    # -- jobs ------------------------------------------------------------------------------------

    @cached_property
    def store(self) -> ResultStore:
        """Results of all jobs."""
        return ResultStore(self.folder / JOBS)

    def result(self, key: str) -> Mapping[str, Any] | None:
        """Return the result of a job from the store or the cache; None if it is missing."""
        return self.store.result(key) if self.store.at_hand(key) else self.cached.get(key)

    def specs(self) -> dict[str, ComputationSpec]:
        """Return all computations known so far, by key; dependencies come first."""
        specs: dict[str, ComputationSpec] = {}
        for place in self.places():
            trained = self._trained(place)
            if trained is None or self.train(trained).key in self.cached:
                continue
            for spec in (self.fit_of(trained), self.train(trained)):
                if spec is not None:
                    specs.setdefault(spec.key, spec)
        for place in self.choices():
            spec = self.tune(place)
            if spec.key not in self.cached:
                specs.setdefault(spec.key, spec)
        self.refuse_neighbours([s for s in specs.values() if self.result(s.key) is None])
        return specs

    def jobs(self, specs: Iterable[ComputationSpec]) -> list[JobSpec]:
        env, request = self.plan.host.env, self.request.to_json()
        jobs = JobFactory(self.folder, self.store, request, env)
        return [jobs.of(spec, self.test_cases) for spec in specs]

    # -- cases -----------------------------------------------------------------------------------

    def training_cases(self, size: int, draw: int, *, at_target: bool = False) -> tuple[str, ...]:
        """Return the cases of a training subset, sorted."""
        least, largest = self.plan.sizes[0], largest_set(self.plan)
        subjects = self.division.training_set(size, draw, least, largest, at_target=at_target)
        return self.division.cases_of(subjects)

    def cases_of(self, place: TrainingPoint) -> tuple[str, ...]:
        """Return the training cases of a place, with the arm's factor on the subjects."""
        arm = self.plan.arm(place.arm)
        return self.training_cases(place.n * arm.real, place.draw, at_target=arm.at_target)

    def _known(self, cases: Sequence[str]) -> list[list[str]]:
        for case in cases:
            if case not in self._records:
                self._records[case] = record = case_record(self.source, case)
                self._refuse_twin(record)
        records = [self._records[case] for case in cases]
        return [[record.id, record.subject, record.sha256] for record in records]

    def _refuse_twin(self, record: CaseRecord) -> None:
        """Refuse subjects that share an image: one could train, the other be evaluated on."""
        first = self._images.setdefault(record.image or record.id, record)
        if first.subject != record.subject:
            raise IntegrityFault(
                "benchmark.same-image-of-two-subjects",
                f"leakage: {self.source.name}: cases {first.id} and {record.id} have the same "
                "image, but are of two subjects; remove one, or give them one subject: subjects: "
                "in the plan",
            )

    def refuse_neighbours(self, specs: Iterable[ComputationSpec]) -> None:
        """Refuse near-identical images of two subjects where a training's guard would, hours later.

        It compares what a training's generator has seen with what the training is judged on; of a
        choice, on each of its inner folds.

        Args:
            specs: those that are to be run.
        """
        # Of each training: cases that train, cases that are judged.
        sides: dict[tuple[tuple[str, ...], ...], None] = {}
        for spec in specs:
            sides |= dict.fromkeys(_sides(spec))
        pairs: dict[str, None] = {}
        for test_cases in dict.fromkeys([test_cases for _, test_cases in sides]):
            # Most plans have no such images, which one look at all cases that train shows.
            every = {
                case
                for training_cases, other in sides
                if other == test_cases
                for case in training_cases
            }
            known = self._without_neighbours.setdefault(test_cases, set())
            if not self._near(sorted(every - known), test_cases):
                known |= every
                continue
            for training_cases, other in sides:
                if other == test_cases:
                    pairs |= dict.fromkeys(self._near(training_cases, test_cases))
        if pairs:
            raise IntegrityFault(
                "benchmark.nearly-identical-case-trains",
                f"leakage: {self.source.name}: {len(pairs)} case(s) would be judged where another "
                f"subject's nearly identical one trains: {some_names([*pairs])}; remove one of "
                "both, or give them one subject: subjects: in the plan",
            )
        self._refuse_judged_people([case for _, test_cases in sides for case in test_cases])

    def _refuse_judged_people(self, judged: Iterable[str]) -> None:
        """Refuse other sources of arms that show people who are judged, as a training does."""
        asked: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for name in self.arms:
            samples = self.plan.arm(name).samples
            for scans in samples.unlabelled:
                asked[repr(scans)] = "unlabelled", scans
            if samples.label_source is not None:
                asked[repr(samples.label_source)] = "label_source", samples.label_source
        if not asked:
            return
        records = [self._records[case] for case in dict.fromkeys(judged)]
        held_out = held_out_of(self.source, records)
        for option, request in asked.values():
            door = Door(
                f"--{option.replace('_', '-')}",
                f"Leave these cases out, or name others: {option}: in the plan",
                f"{option}_read: [subjects='{{}}']".format,
                "subjects: FILE in the plan",
            )
            opened = open_source(inherited_request(request, self.request))
            for text in refuse_seen(lineage_of(opened), held_out, door).warnings:
                log.warning("%s", text)

    def _near(self, training_cases: Iterable[str], test_cases: Iterable[str]) -> list[str]:
        """Return, in words, the test cases that are near-identical to ones that train."""
        lineage = Lineage(
            self.source.name, "", tuple([self._records[case] for case in training_cases])
        )
        judged = tuple([self._records[case] for case in test_cases])
        found = matches(lineage, HeldOut(judged, same=lambda lineage: True))
        return [f"{case} ({match})" for case, match in found.items()]

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
        data = dict(self._data, train=self._known(cases))
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
        return self.fit(arm.generator, self.cases_of(place), seed, title)

    def train(self, place: TrainingPoint) -> ComputationSpec:
        arm, cases = self.plan.arm(place.arm), self.cases_of(place)
        host, document = self.host(arm, len(cases)), dict(self._data)
        if self.plan.levels is not None:
            settings, options = self.plan.levels
            host["set"].update(settings)
            host["options"].extend(options)
            document["thresholds"] = list(THRESHOLDS)
        document |= {
            "train": self._known(cases),
            "judged": self._known(self.test_cases),
            "augment": host,
            "regions": self.plan.regions,
            "measures": list(self.plan.measured),
            "seed": place.random + SEEDS_OF_AN_ARM * arm.again,
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
        document = dict(self._data)
        document |= {
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
            "by": plan.primary_measure,
            "seed": seed,
        }
        return ComputationSpec(TUNE, document, title)

    # -- the host --------------------------------------------------------------------------------

    def _length(self, name: str, cases: int) -> dict[str, str]:
        """Return settings that give every arm the same number of steps on ``cases`` cases."""
        arms = [arm for arm in self.plan.arms if not arm.tune]
        host = self.plan.host
        given_settings = dict(host.set)
        given_settings.update(self.plan.arm(name).set)
        mixes = [arm.mix for arm in arms]
        lengths = self.trials.settings_for_steps(
            self.source, host.steps, mixes, given_settings, cases
        )
        position = [arm.name for arm in arms].index(name)
        arm, length = arms[position], lengths[position]
        own = sorted(length.keys() & arm.set.keys())
        if own:
            raise UsageFault(
                "benchmark.arm-sets-own-length",
                f"arms.{name}.set.{own[0]}: {arm.set[own[0]]!r}, expected no length of its "
                "own, which is the same for every arm; set it in host.set",
            )
        return length

    def host(self, arm: ArmPlan, cases: int) -> dict[str, Any]:
        """Return the request of an arm on ``cases`` cases, as JSON, without data and places."""
        host = self.plan.host
        settings = dict(host.set)
        settings.update(self._length(arm.name, cases))
        options = self.trials.without_selection(host.options, host.set)
        if arm.heavier:
            extra, words = self.trials.strong_augmentation(host.set)
            settings.update(extra)
            options = (*options, *words)
        settings.update(arm.set)
        if self.plan.regions and "regions" in host.framework.Options.model_fields:
            settings["regions"] = formulas(self.plan.regions)
        document = dict(arm.document)
        document |= {"target": host.target, "set": settings}
        document["options"] = [*options, *arm.options]
        return document


def inner_folds(choice: Mapping[str, Any]) -> list[FoldSplit]:
    """Return the inner folds of the document of a choice among arms."""
    subjects = {case: subject for case, subject, _ in choice["train"]}
    return grouped_splits(list(subjects), subjects, choice["tune"]["folds"], choice["seed"])


def _sides(spec: ComputationSpec) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Yield the cases that train and that are judged, of each training with a generator."""
    document = spec.document
    if spec.kind == TRAIN and spec.needs:
        yield tuple([tuple([case for case, *_ in document[side]]) for side in ("train", "judged")])
    if spec.kind == TUNE and document["generators"]:
        for fold in inner_folds(document):
            yield tuple(sorted(fold["train"])), tuple(sorted(fold["val"]))


def _trials_of(plan: BenchmarkPlan, source: CaseSource) -> Trials:
    """Return what the study asks of the plan's host; what it cannot do is refused now."""
    trials = trials_of(plan.host.target)
    intake_of(plan.host.target, source)  # refuses cases that the host cannot read
    if not plan.host.finds_boxes:  # they are evaluated separately
        trials.check_predictions(source, plan.host.set)
    return trials


def request_of(plan: BenchmarkPlan) -> SourceRequest:
    """Return the request that opens a plan's data."""
    return SourceRequest.parse(
        plan.data,
        fold=plan.split.fold or "0",
        configuration=plan.configuration,
        plans=plan.plans,
        subjects=plan.subjects,
        root=plan.root,
        read=plan.read,
    )


def _chosen(plan: BenchmarkPlan, arms: Sequence[str]) -> tuple[str, ...]:
    names = [arm.name for arm in plan.arms if not arm.candidate]
    for name in arms:
        if name not in names:
            raise UsageFault(
                "benchmark.arm-not-in-plan",
                f"--arm {name}: not in the plan, expected one of {', '.join(names)}",
            )
    if not arms:
        return tuple(names)
    return tuple([name for name in names if name in arms or name == plan.compared_with])


def _check_regions(plan: BenchmarkPlan, source: CaseSource) -> None:
    if plan.host.finds_boxes:
        return
    labels = source.schema.foreground
    regions = [name for name, _ in with_labels(regions_of(plan.regions, labels), labels)]
    if "mean" in regions:
        raise UsageFault(
            "benchmark.region-named-mean",
            "regions: 'mean' is reserved for the mean of labels; use another name",
        )
    regions += ["mean"] if len(labels) > 1 else []
    if plan.primary_measure.partition("/")[2] not in regions:
        known = [f"{plan.measures[0]}/{name}" for name in regions]
        raise UsageFault(
            "benchmark.primary-region-unknown",
            f"primary {plan.primary_measure}: no such region in {source.name}, expected "
            f"{' or '.join(known)}",
        )


def formulas(regions: Mapping[str, str]) -> str:
    """Return regions in the hosts' format: ``WT:1+2,ET:3``."""
    return ",".join([f"{name}:{formula}" for name, formula in regions.items()])


# -- jobs ------------------------------------------------------------------------------------------

DATA = "data"


@dataclass(frozen=True)
class JobFactory:
    """Factory of jobs that share a folder and a data set."""

    folder: Path  # for case lists
    store: ResultStore
    request: Mapping[str, Any]  # the source request as JSON
    env: Mapping[str, str]  # environment variables of all processes except fits of generators

    def of(self, spec: ComputationSpec, held_out: Sequence[str]) -> JobSpec:
        places: dict[str, Any] = {"request": self.request}
        if spec.kind == FIT:
            # Outside the job's folder: a run stores the path of its cases.
            places["division"] = str(self.folder / DATA / spec.key)
            places["held_out"] = sorted(held_out)
        elif spec.needs:
            places["run"] = str(self.store.folder / spec.needs[0] / RUN)
        return JobSpec(
            spec.key,
            spec.title,
            spec.kind,
            "gansynth_benchmark.worker:run_job",
            document={"spec": dict(spec.document), "places": places},
            needs=spec.needs,
            env={} if spec.kind == FIT else dict(self.env),
        )
