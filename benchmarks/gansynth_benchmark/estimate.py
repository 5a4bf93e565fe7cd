"""Cost estimate of a plan before it is run: jobs, hours, disk."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from gansynth.core.registry import installed
from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.files import folder_bytes, free_bytes, in_units
from gansynth.runtime.progress import Reporter
from gansynth_benchmark.access_log import AccessLog
from gansynth_benchmark.jobs.attempt import DONE, AttemptSpec
from gansynth_benchmark.jobs.executor import LocalExecutor, parse_executor
from gansynth_benchmark.jobs.store import JobSpec, ResultStore
from gansynth_benchmark.plan import BenchmarkPlan
from gansynth_benchmark.requests import RUN, BenchmarkRequest
from gansynth_benchmark.running import look_of, open_study
from gansynth_benchmark.study import FIT, TRAIN, TUNE, BenchmarkStudy, ComputationSpec

PROBES = (0.02, 0.06)
"""Shares of a training's steps that are timed, to separate time per step from overhead."""
FEWEST_STEPS = 4  # minimum steps of a probe
WORKER = "gansynth_benchmark.worker:run_job"


def estimate(plan: BenchmarkPlan, request: BenchmarkRequest, reporter: Reporter) -> dict[str, Any]:
    """Estimate jobs by kind, finished jobs, sequential hours, and disk space.

    Times come from finished jobs. Without any, a few steps of a training and a fit are run in a
    temporary folder, unless ``no_probe``. Nothing is written elsewhere.

    Raises:
        GansynthError: data or plan cannot be used, or a probe failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        real = (request.folder(plan.name) / "jobs").is_dir()
        executor = parse_executor(request.executor)
        study = open_study(plan, request if real else request.replace(out=scratch))
        whole = (study.look, plan.hash, study.people, study.arms)
        AccessLog(request.file).look(*whole, request.reopen_test_set, dry_run=True)
        specs = study.specs()
        # An arm that is not chosen yet is most likely one that is trained anyway.
        left = [spec for spec in specs.values() if study.result(spec.key) is None]
        sizes = {kind: _known(study, specs.values(), kind) for kind in (FIT, TRAIN, TUNE)}
        if not request.no_probe:
            on_a_cluster = request.executor.startswith("ray")
            with closing(LocalExecutor() if on_a_cluster else executor) as here:
                for kind in (FIT, TRAIN):
                    if not sizes[kind] and kind in [spec.kind for spec in left]:
                        reporter.say(f"measuring a few steps of: {kind}")
                        probe = _Probe(study, left, Path(scratch) / kind, here)
                        sizes[kind] = probe.fits() if kind == FIT else probe.trainings()
        if not sizes[TUNE] and sizes[TRAIN]:
            sizes[TUNE] = [_tuning(plan, sizes)]
        jobs: dict[str, Any] = {}
        hours, size, complete = 0.0, 0.0, True
        for kind in (FIT, TUNE, TRAIN):
            all_of = [spec.kind for spec in specs.values()].count(kind)
            open_ones = [spec.kind for spec in left].count(kind)
            if not all_of:
                continue
            seconds = bytes_ = None
            if sizes[kind]:
                seconds, bytes_ = map(statistics.fmean, zip(*sizes[kind], strict=True))
                seconds = round(seconds, 1)
            jobs[kind] = {"all": all_of, "left": open_ones, "seconds_each": seconds}
            complete = complete and (seconds is not None or not open_ones)
            hours += open_ones * (seconds or 0.0) / 3600
            size += open_ones * (bytes_ or 0.0)
        # Only a running cluster knows how many jobs it runs at once.
        slots = executor.slots if request.executor.startswith("local") else None
        return {
            "dry_run": True,
            "plan": plan.name,
            "plan_hash": plan.hash,
            "look": look_of(request),
            "data": study.source.name,
            "subjects": {
                "pool": len(study.division.pool),
                "development": len(study.division.development),
                "sealed": len(study.division.sealed),
            },
            "arms": list(study.arms),
            "trainings_of_the_report": len(list(study.places())),
            "jobs": jobs,
            "hours_one_after_the_other": round(hours, 2) if complete else None,
            "at_once": slots,
            "hours": round(hours / slots, 2) if complete and slots else None,
            "disk_bytes": round(size) if complete else None,
            "disk_free_bytes": free_bytes(request.folder(plan.name)),
            "memory": "not known: trainings run in separate processes",
        }


Size = tuple[float, float]  # seconds and bytes


def _known(study: BenchmarkStudy, specs: Any, kind: str) -> list[Size]:
    """Return seconds and bytes of finished jobs."""
    sizes = []
    for spec in specs:
        if spec.kind == kind and study.store.at_hand(spec.key):
            seconds = study.store.result(spec.key).get("seconds")
            if seconds:
                sizes.append((float(seconds), float(folder_bytes(study.store.folder / spec.key))))
    return sizes


class _Probe:
    """Times short jobs, which run as the executor runs them: each in a process of its own."""

    def __init__(
        self, study: BenchmarkStudy, left: Sequence[ComputationSpec], folder: Path, executor: Any
    ) -> None:
        self.study, self.left, self.folder, self.executor = study, left, folder, executor

    def fits(self) -> list[Size]:
        """Return the size of each fit; what has no training steps is fitted whole."""
        specs = [spec for spec in self.left if spec.kind == FIT]
        learnt = learning(specs)
        others = [spec for spec in specs if spec not in learnt]
        sizes: list[Size] = []
        if learnt:
            steps = int(learnt[0].document["generator"].get("set", {}).get("steps") or 1000)
            sizes += [self._extrapolated(learnt[0], steps)[0]] * len(learnt)
        if others:
            seconds, folder = self._timed(others[0], None, 1)
            sizes += [(seconds, float(folder_bytes(folder)))] * len(others)
        return sizes

    def trainings(self) -> list[Size]:
        """Return the size of each training; those with samples also wait for their first ones."""
        trainings = [spec for spec in self.left if spec.kind == TRAIN]
        alone = [spec for spec in trainings if not spec.needs]
        if not alone:
            return []
        (seconds, size), least, shortest = self._extrapolated(alone[0], self.study.plan.host.steps)
        mixed = [spec for spec in trainings if spec.needs]
        waited = max(0.0, self._with_samples(mixed[0], least) - shortest) if mixed else 0.0
        return [(seconds, size)] * len(alone) + [(seconds + waited, size)] * len(mixed)

    def _extrapolated(self, spec: ComputationSpec, steps: int) -> tuple[Size, int, float]:
        """Return the size of a job, and steps and seconds of the shortest one that was tried."""
        tried = sorted(
            {
                min(steps, max(FEWEST_STEPS * (n + 1), round(steps * p)))
                for n, p in enumerate(PROBES)
            }
        )
        points = [(count, *self._timed(spec, count, steps)) for count in tried]
        (a, first, _), (b, second, folder) = points[0], points[-1]
        each = max(0.0, (second - first) / (b - a)) if b > a else 0.0
        return (first + each * (steps - a), float(folder_bytes(folder))), a, first

    def _with_samples(self, spec: ComputationSpec, steps: int) -> float:
        """Return the seconds of a short training with samples of a generator of few steps."""
        fit = self.study.specs()[spec.needs[0]]
        _, run = self._timed(fit, FEWEST_STEPS if learning([fit]) else None, FEWEST_STEPS)
        return self._timed(spec, steps, self.study.plan.host.steps, run / RUN)[0]

    def _timed(
        self, spec: ComputationSpec, count: int | None, steps: int, run: Path | None = None
    ) -> tuple[float, Path]:
        """Run a job with ``count`` of its steps; return the seconds it took, and its folder.

        Raises EnvironmentFault: it failed; its log is shown.
        """
        name = "generator" if spec.kind == FIT else "augment"
        part, store = dict(spec.document[name]), ResultStore(self.folder / f"{spec.key}_{count}")
        if spec.kind != FIT:
            part["set"] = self.study.trials.shortened(part["set"], (count or 1) / steps)
        elif count is not None:
            part["set"] = dict(part.get("set", {}), steps=str(count))
        places = {
            "request": self.study.request.to_json(),
            "division": str(store.folder / "data"),
            "held_out": list(self.study.test_cases),
        }
        if run is not None:
            places["run"] = str(run)
        document = {"spec": dict(spec.document) | {name: part}, "places": places}
        env = {} if spec.kind == FIT else dict(self.study.plan.host.env)
        job = JobSpec(spec.key, spec.title, spec.kind, WORKER, document=document, env=env)
        began = time.monotonic()
        order = AttemptSpec(job, store.folder, Path.cwd(), "estimate")
        result = self.executor.submit(order).result()
        seconds = time.monotonic() - began
        if result.code != DONE:
            log = store.log(spec.key)
            sys.stderr.write(log.read_text("utf-8", "replace") if log.is_file() else "")
            raise EnvironmentFault(
                "benchmark.measuring-steps-failed",
                f"measuring a few steps of {spec.title}: {result.reason}; correct that, or leave "
                "measuring out: --no-probe",
            )
        return seconds, store.folder / spec.key


def learning(fits: Sequence[ComputationSpec]) -> list[ComputationSpec]:
    """Return the fits with training steps, those whose plan sets steps first."""
    from gansynth.core.generator import capabilities_of

    generators = {fit.key: fit.document["generator"] for fit in fits}
    registry = installed()
    plugins = {key: registry.generator(each["generator"]) for key, each in generators.items()}
    trained = [fit for fit in fits if capabilities_of(plugins[fit.key]).trains]
    return sorted(trained, key=lambda fit: "steps" not in generators[fit.key].get("set", {}))


def _tuning(plan: BenchmarkPlan, sizes: Mapping[str, Sequence[Size]]) -> Size:
    """Return the size of one choice: inner trainings of every rung, and the fits."""
    most = max((len(arm.tune) for arm in plan.arms), default=0)
    count, trained = float(most), 0.0
    for share in plan.tune.rungs:
        trained += count * share
        count = max(1.0, count * plan.tune.keep)
    train, train_bytes = sizes[TRAIN][0]
    fit, fit_bytes = sizes[FIT][0] if sizes[FIT] else (0.0, 0.0)
    folds = plan.tune.folds
    seconds = folds * (trained * train + most * plan.tune.fit_share * fit)
    return seconds, folds * most * (train_bytes + fit_bytes)


def lines_of_estimate(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield an estimate as readable lines."""
    subjects = document["subjects"]
    yield f"{document['plan']} ({document['plan_hash']}), {document['look']} split"
    yield f"data   {document['data']}"
    yield (
        f"split  {subjects['pool']} subjects in the pool, {subjects['development']} for "
        f"development, {subjects['sealed']} sealed"
    )
    for kind, jobs in document["jobs"].items():
        each = jobs["seconds_each"]
        took = "unknown until the first is done" if each is None else f"{each:.0f} s each"
        yield f"{kind:5}  {jobs['all']:5} jobs, {jobs['left']} left, {took}"
    hours = document["hours"]
    if hours is not None:
        yield f"hours  {hours:.2f} at {document['at_once']} job(s) at once"
    elif document["hours_one_after_the_other"] is not None:
        yield f"hours  {document['hours_one_after_the_other']:.2f} one after the other"
    if document["disk_bytes"] is not None:
        yield (
            f"disk   {in_units(document['disk_bytes'])} of "
            f"{in_units(document['disk_free_bytes'])} free"
        )
