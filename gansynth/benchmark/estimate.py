"""What a plan will cost, before it is run: jobs, hours, disk."""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.benchmark.jobs.executor import parse_executor
from gansynth.benchmark.looks import Looks
from gansynth.benchmark.plan import Plan
from gansynth.benchmark.running import Asked, open_study
from gansynth.benchmark.specs import FIT, TRAIN, TUNE, Spec
from gansynth.benchmark.study import Study
from gansynth.benchmark.tuning import shortened
from gansynth.runtime.files import folder_bytes, free_bytes

if TYPE_CHECKING:
    from gansynth.runtime.progress import Reporter

PROBES = (0.02, 0.06)
"""Shares of a training's steps that are tried, to know what a step takes and what the rest."""
LEAST = 4
"""Steps of a probe at least."""


def estimate(plan: Plan, asked: Asked, *, probe: bool, reporter: Reporter) -> dict[str, Any]:
    """Jobs by kind, those that are done, hours of one job after the other, and disk.

    What has been done says how long the rest will take; else a training and a fit are begun, for a
    few steps, in a temporary folder (``probe``). Nothing is written elsewhere.

    Raises:
        GansynthError: data or plan that cannot be used; a probe that failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        real = (asked.folder / "jobs").is_dir()
        parse_executor(asked.executor)
        study = open_study(plan, asked if real else replace(asked, folder=Path(scratch)))
        whole = (study.look, plan.hash, study.people, study.arms)
        Looks(asked.file).look(*whole, asked.again, dry_run=True)
        specs = study.specs()
        # An arm that is still to be chosen is most likely one of those that are trained anyway.
        left = [spec for spec in specs.values() if study.result(spec.key) is None]
        sizes = {kind: _known(study, specs.values(), kind) for kind in (FIT, TRAIN, TUNE)}
        if probe:
            for kind in (FIT, TRAIN):
                if not sizes[kind] and any(spec.kind == kind for spec in left):
                    reporter.say(f"measuring a few steps of: {kind}")
                    sizes[kind] = _probe(study, left, kind, Path(scratch) / kind)
        if not sizes[TUNE] and sizes[TRAIN]:
            sizes[TUNE] = [_tuning(plan, sizes)]
        return _told(plan, asked, study, specs, left, sizes)


Size = tuple[float, float]
"""Seconds and bytes."""


def _told(
    plan: Plan,
    asked: Asked,
    study: Study,
    specs: Mapping[str, Spec],
    left: Sequence[Spec],
    sizes: Mapping[str, Sequence[Size]],
) -> dict[str, Any]:
    jobs: dict[str, Any] = {}
    hours, size, known = 0.0, 0.0, True
    for kind in (FIT, TUNE, TRAIN):
        all_of = sum(spec.kind == kind for spec in specs.values())
        open_ones = sum(spec.kind == kind for spec in left)
        if not all_of:
            continue
        seconds, bytes_ = _typical(sizes[kind])
        jobs[kind] = {"all": all_of, "left": open_ones, "seconds_each": seconds}
        known = known and (seconds is not None or not open_ones)
        hours += open_ones * (seconds or 0.0) / 3600
        size += open_ones * (bytes_ or 0.0)
    slots = _slots(asked)
    return {
        "dry_run": True,
        "plan": plan.name,
        "plan_hash": plan.hash,
        "look": asked.look,
        "data": study.source.name,
        "subjects": {
            "pool": len(study.division.pool),
            "development": len(study.division.development),
            "sealed": len(study.division.sealed),
        },
        "arms": list(study.arms),
        "trainings_of_the_report": sum(1 for _ in study.places()),
        "jobs": jobs,
        "hours_one_after_the_other": round(hours, 2) if known else None,
        "at_once": slots,
        "hours": round(hours / slots, 2) if known and slots else None,
        "disk_bytes": round(size) if known else None,
        "disk_free_bytes": free_bytes(asked.folder),
        "memory": "not known: trainings are measured in processes of their own",
    }


def _slots(asked: Asked) -> int | None:
    """Jobs at once; None where only a running cluster knows."""
    if not asked.executor.startswith("local"):
        return None
    return parse_executor(asked.executor).slots


def _typical(sizes: Sequence[Size]) -> tuple[float | None, float | None]:
    if not sizes:
        return None, None
    seconds, bytes_ = zip(*sizes, strict=True)
    return round(statistics.median(seconds), 1), statistics.median(bytes_)


def _known(study: Study, specs: Any, kind: str) -> list[Size]:
    """Seconds and bytes of what is done."""
    found = []
    for spec in specs:
        if spec.kind == kind and study.store.at_hand(spec.key):
            seconds = study.store.result(spec.key).get("seconds")
            if seconds:
                found.append((float(seconds), float(folder_bytes(study.store.folder / spec.key))))
    return found


def _probe(study: Study, left: Sequence[Spec], kind: str, folder: Path) -> list[Size]:
    """Seconds and bytes of one whole job, extrapolated from two short ones.

    Trainings are probed without synthetic samples: those of a full bank cost next to nothing. None
    where there is no such training left.
    """
    from gansynth.benchmark.worker import Work

    alone = (spec for spec in left if spec.kind == kind and (kind == FIT or not spec.needs))
    spec = next(alone, None)
    if spec is None:
        return []
    name = "generator" if kind == FIT else "host"
    steps = _steps(study, spec, kind)
    tried = sorted(
        {min(steps, max(LEAST * (n + 1), round(steps * p))) for n, p in enumerate(PROBES)}
    )
    points = []
    for count in tried:
        part = dict(spec.document[name])
        part["set"] = _with_steps(part["set"], count, steps)
        places = {
            "request": study.request.to_json(),
            "division": str(folder / "data" / str(count)),
            "held_out": list(study.judged),
        }
        work = {"spec": {**spec.document, name: part}, "places": places}
        began = time.monotonic()
        _quietly(Work(work, folder / str(count)).run)
        points.append((count, time.monotonic() - began))
    (a, first), (b, second) = points[0], points[-1]
    each = max(0.0, (second - first) / (b - a)) if b > a else 0.0
    return [(first + each * (steps - a), float(folder_bytes(folder / str(tried[-1]))))]


def _quietly(run: Callable[[], object]) -> None:
    """Do something whose words are of no interest unless it fails."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            run()
    except BaseException:
        sys.stderr.write(said.getvalue())
        raise


def _with_steps(settings: Mapping[str, str], count: int, steps: int) -> dict[str, str]:
    if "num_iterations_per_epoch" in settings:
        return {**settings, "num_epochs": "1", "num_iterations_per_epoch": str(count)}
    found = shortened(settings, count / steps)
    return found if found != settings else {**settings, "steps": str(count)}


def _steps(study: Study, spec: Spec, kind: str) -> int:
    """Steps of a whole job."""
    if kind == TRAIN:
        return study.plan.host.steps
    given = spec.document["generator"]["set"].get("steps")
    return int(given) if given else 1000


def _tuning(plan: Plan, sizes: Mapping[str, Sequence[Size]]) -> Size:
    """Of one choice: inner trainings of every rung, and the fits."""
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


def lines_of_estimate(found: Mapping[str, Any]) -> Iterator[str]:
    """An estimate for people."""
    people = found["subjects"]
    yield (
        f"{found['plan']} ({found['plan_hash']}), {found['look']} look at {found['data']}: "
        f"{people['pool']} subjects to draw from, {people['development']} for development, "
        f"{people['sealed']} sealed"
    )
    for kind, jobs in found["jobs"].items():
        each = jobs["seconds_each"]
        took = "unknown until the first is done" if each is None else f"{each:.0f} s each"
        yield f"{kind:5}  {jobs['all']:5} jobs, {jobs['left']} left, {took}"
    hours = found["hours"]
    if hours is not None:
        yield f"hours  {hours:.2f} at {found['at_once']} job(s) at once"
    elif found["hours_one_after_the_other"] is not None:
        yield f"hours  {found['hours_one_after_the_other']:.2f} one after the other"
    if found["disk_bytes"] is not None:
        yield (
            f"disk   {found['disk_bytes'] / 1e9:.2f} GB of {found['disk_free_bytes'] / 1e9:.0f} GB "
            "free"
        )
