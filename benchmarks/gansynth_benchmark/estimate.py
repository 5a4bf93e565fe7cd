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
from gansynth.runtime.files import (
    folder_bytes,
    free_bytes,
    in_units,
    read_json,
    write_json_atomic,
)
from gansynth.runtime.measuring import dry_run, measuring
from gansynth.runtime.progress import NullReporter
from gansynth_benchmark.access_log import AccessLog
from gansynth_benchmark.jobs.attempt import DONE, AttemptSpec, Executor
from gansynth_benchmark.jobs.executor import parse_executor
from gansynth_benchmark.jobs.store import JobSpec, ResultStore
from gansynth_benchmark.plan import BenchmarkPlan
from gansynth_benchmark.requests import RUN, BenchmarkRequest
from gansynth_benchmark.running import look_of, open_study
from gansynth_benchmark.study import FIT, TRAIN, TUNE, BenchmarkStudy, ComputationSpec
from gansynth_benchmark.worker import WorkerJob, execute

SHARES = {FIT: 1.0, TRAIN: 0.6}
"""Shares of the time left in which a job may tell what it takes; trainings do so first."""
LONGEST = 3600.0  # seconds for a job to tell it
ENDING = 2.0  # seconds of them in which its process ends
PROBE = "gansynth_benchmark.estimate:probe"


def estimate(plan: BenchmarkPlan, request: BenchmarkRequest) -> dict[str, Any]:
    """Estimate jobs by kind, finished jobs, sequential hours, and disk space.

    Times come from finished jobs. Without any, a training and a fit tell theirs by a dry run,
    unless ``no_probe``; their mean is that of all. Nothing is written but to a temporary folder.
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
            with closing(executor) as here:
                for kind in (TRAIN, FIT):
                    of_kind = [spec for spec in left if spec.kind == kind]
                    if of_kind and not sizes[kind]:
                        sizes[kind] = _Probe(study, Path(scratch) / kind, here).sizes(of_kind)
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
        slots = executor.slots
        return {
            "dry_run": True,
            "not_measured": list(measuring().missing),
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
            "hours": round(hours / slots, 2) if complete else None,
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
    """Has jobs tell what they take, as ``fit`` and ``augment`` do with ``--dry-run``.

    Each does so in a process of its own, as the executor runs it.
    """

    def __init__(self, study: BenchmarkStudy, folder: Path, executor: Executor) -> None:
        self.study, self.folder, self.executor = study, folder, executor

    def sizes(self, specs: Sequence[ComputationSpec]) -> list[Size]:
        """Return the size of each job of a kind, or nothing if there was no time to tell it."""
        chosen = [spec for spec in specs if not spec.needs]
        if specs[0].kind == FIT:
            chosen = learning(specs) or chosen
        found = self._told(chosen[0]) if chosen else None
        if found is None:
            return []
        seconds, size, start = found
        # One with samples waits for another process, which draws the first ones. Self-training has
        # a training before it.
        return [(seconds * _trainings(spec) + start * bool(spec.needs), size) for spec in specs]

    def _told(self, spec: ComputationSpec) -> tuple[float, float, float] | None:
        """Return seconds and bytes of a job, and the seconds in which its process starts."""
        clock, share, store = measuring(), SHARES[spec.kind], ResultStore(self.folder)
        file = self.folder / f"{spec.key}.json"
        places = {
            "request": self.study.request.to_json(),
            "held_out": list(self.study.test_cases),
        }
        document: dict[str, Any] = {"spec": spec.document, "places": places, "file": str(file)}
        document["until"] = time.monotonic() + min(LONGEST, share * clock.left) - ENDING
        env = {} if spec.kind == FIT else dict(self.study.plan.host.env)
        job = JobSpec(spec.key, spec.title, spec.kind, PROBE, document=document, env=env)
        order = AttemptSpec(job, store.folder, Path.cwd(), "estimate", grace=1.0)
        began = time.monotonic()
        result = clock.part(spec.title, lambda: self.executor.submit(order).result(), share)
        taken = time.monotonic() - began
        if result is None:
            self.executor.cancel()
        elif result.code != DONE:
            log = store.log(spec.key)
            sys.stderr.write(log.read_text("utf-8", "replace") if log.is_file() else "")
            raise EnvironmentFault(
                "benchmark.measuring-steps-failed",
                f"measuring {spec.title}: {result.reason}; correct that, or leave measuring out: "
                "--no-probe",
            )
        if not file.is_file():
            return None
        told = read_json(file)
        clock.missing += told["missing"]
        start = max(0.0, taken - told["took"])
        return None if told["seconds"] is None else (told["seconds"] + start, told["bytes"], start)


def probe(document: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Tell, in the process of a job, what the job takes: ``seconds``, None if not known."""
    began, job = time.monotonic(), WorkerJob(document, folder)
    with dry_run(NullReporter(), document["until"] - began, whole=True) as clock:
        request, out = job.divided(folder / "data"), folder / RUN
        asked = job.asked(request, out)
        told = execute(asked.replace(dry_run=True))[1]
    seconds = told.get("estimated_seconds")
    if job.spec["kind"] != FIT and not isinstance(told["training_hours"], str):
        seconds = 3600 * told["training_hours"]
    answer = {
        "seconds": seconds,
        "bytes": float(told.get("disk_bytes", 0.0)),
        "missing": clock.missing,
        "took": time.monotonic() - began,
    }
    write_json_atomic(Path(document["file"]), answer)
    return answer


def learning(fits: Sequence[ComputationSpec]) -> list[ComputationSpec]:
    """Return the fits with training steps, those whose plan sets steps first."""
    from gansynth.core.generator import capabilities_of

    generators = {fit.key: fit.document["generator"] for fit in fits}
    registry = installed()
    plugins = {key: registry.generator(each["generator"]) for key, each in generators.items()}
    trained = [fit for fit in fits if capabilities_of(plugins[fit.key]).trains]
    return sorted(trained, key=lambda fit: "steps" not in generators[fit.key].get("set", {}))


def _trainings(spec: ComputationSpec) -> int:
    return 2 if spec.document.get("augment", {}).get("self_train") else 1


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
    known = ("hours", "hours_one_after_the_other", "disk_bytes")
    if document["not_measured"] and any(document[key] is not None for key in known):
        yield "at least, for not all was measured:"
    if hours is not None:
        yield f"hours  {hours:.2f} at {document['at_once']} job(s) at once"
    if document["disk_bytes"] is not None:
        yield (
            f"disk   {in_units(document['disk_bytes'])} of "
            f"{in_units(document['disk_free_bytes'])} free"
        )
