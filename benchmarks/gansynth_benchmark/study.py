"""A plan opened on its data: its jobs, and the result of each place of the design."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from gansynth.core.source import CaseSource, SourceRequest
from gansynth.hosts.host import Framework
from gansynth.metrics.segmentation.evaluation import ALARMS, equal_alarms
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.run_source import open_source
from gansynth_benchmark.jobs.store import JobSpec, ResultStore
from gansynth_benchmark.plan import BenchmarkPlan
from gansynth_benchmark.requests import RUN
from gansynth_benchmark.specs import (
    FIT,
    BenchmarkDesign,
    ComputationSpec,
    TrainingPoint,
)
from gansynth_benchmark.subject_split import SEALED, SubjectSplit, split_subjects

JOBS = "jobs"


class BenchmarkStudy:
    """A plan on one test split.

    Args:
        look: ``development`` or ``sealed``.
        arms: use only these and the control; all if empty.
        cached: results of the same jobs elsewhere, key -> document.
    """

    def __init__(
        self,
        plan: BenchmarkPlan,
        look: str,
        folder: Path,
        *,
        arms: Sequence[str] = (),
        cached: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.plan, self.look, self.folder = plan, look, folder.absolute()
        self.cached = dict(cached or {})
        self.arms = _chosen(plan, arms)
        self.request = request_of(plan)
        self.source: CaseSource = open_source(self.request)
        self.division: SubjectSplit = split_subjects(self.source, plan)
        self.judged = self.division.judged(look)
        adapter = host_of(plan, self.source)
        self.design = BenchmarkDesign(plan, self.source, self.division, self.judged, adapter)

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
        return None if trained is None else self.design.train(trained)

    def _trained(self, place: TrainingPoint) -> TrainingPoint | None:
        chosen = self.chosen(place) if self.plan.arm(place.arm).tune else place.arm
        return None if chosen is None else replace(place, arm=chosen)

    def threshold(self, place: TrainingPoint) -> int | None:
        """Return the number of the threshold at which a place's arm raises equal false alarms.

        As many as the control at its own threshold, both on the inner folds of their training
        subset. None without an operating point, or while a training is missing.
        """
        trained, rates = self._trained(place), []
        if trained is None or self.plan.operating_point is None:
            return None
        for point in (trained, replace(place, arm=self.plan.compared_with)):
            results = [self.result(self.design.train(p).key) for p in self.design.inner(point)]
            tables = [result["document"]["at_thresholds"][ALARMS] for result in results if result]
            if len(tables) < len(results):
                return None
            values = [alarms for table in tables for alarms in table.values()]
            rates.append([mean(each) for each in zip(*values, strict=True)])
        return equal_alarms(*rates)

    def chosen(self, place: TrainingPoint) -> str | None:
        """Return the arm chosen by inner folds for a training subset; None if not chosen yet."""
        result = self.result(self.design.tune(replace(place, seed=0)).key)
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
            if trained is None or self.design.train(trained).key in self.cached:
                continue
            for point in (trained, *self.design.inner(trained)):
                for spec in (self.design.fit_of(point), self.design.train(point)):
                    if spec is not None:
                        specs.setdefault(spec.key, spec)
        for place in self.choices():
            spec = self.design.tune(place)
            if spec.key not in self.cached:
                specs.setdefault(spec.key, spec)
        return specs

    def jobs(self, specs: Iterable[ComputationSpec]) -> list[JobSpec]:
        """Return specs as jobs."""
        env, request = self.plan.host.env, self.request.to_json()
        jobs = JobFactory(self.folder, self.store, request, env)
        return [jobs.of(spec, self.judged) for spec in specs]


def host_of(plan: BenchmarkPlan, source: CaseSource) -> Framework:
    """Open the adapter of the plan's host on its cases."""
    adapter = plan.host.adapter(source)
    if not plan.host.finds_boxes:  # they are evaluated separately
        adapter.check_judged(plan.host.set)
    if plan.operating_point is not None:
        adapter.saving_levels()  # refused before anything is trained
    return adapter


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
            raise UsageFault(f"--arm {name}: not in the plan, expected one of {', '.join(names)}")
    if not arms:
        return tuple(names)
    return tuple(name for name in names if name in {*arms, plan.compared_with})


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
        """Return the job of a spec."""
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
