"""Filters and their fitted state, which is stored in the run's folder.

``RUN/filters/NAME-DIGEST/`` holds ``filter.json`` and a filter's weights, if any. The digest is
that of its options. A filter is fitted once, on training cases of the run's fold alone, some of
them reserved for thresholds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.case_pool import TrainingCases
from gansynth.core.filter import Filter, FilterRequest, FilterTrainingData
from gansynth.core.lineage import Lineage
from gansynth.core.registry import installed
from gansynth.core.run_folder import RunDescription, RunFolder
from gansynth.core.schema import Case, Sample, Schema
from gansynth.core.source import CaseSource
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault, UsageFault
from gansynth.runtime.files import (
    check_sha256,
    digest_of,
    disk_errors,
    path_inside,
    read_own,
    remove_temporaries,
    sha256_file,
    whole_folder,
    write_json_atomic,
)
from gansynth.runtime.options import read_options
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.runtime.version import build, check_format
from gansynth.sampling.manifest import content_check
from gansynth.sampling.run_source import source_of_run, viewed

THRESHOLD_SHARE = 0.25
"""Share of the subjects that are reserved for thresholds; at least one of two."""


def learning_of(
    run: RunDescription, source: CaseSource, schema: Schema, device: str, reporter: Reporter
) -> FilterTrainingData:
    """Return the cases that a filter of a run may use."""
    lineage, space = run.lineage, run.space
    ids = sorted({case.id for case in lineage.cases}.intersection(source.train_ids))
    if not ids:
        raise UsageFault(
            "sampling.no-cases-to-fit-filters",
            f"{run.folder}: filters have no cases to be fitted on: {source.name} has no "
            "training case that the run was fitted on; expected its own training source",
        )
    check = content_check(run.folder, lineage)
    cases = TrainingCases(CaseCache(source), ids, check)
    crops = CaseBatches(cases, space)
    train, calibration = split_by_subject(
        ids, {case_id: source.header(case_id).subject for case_id in ids}
    )
    size = space.size or crops.cut(ids[0], np.random.default_rng(0)).image.shape[1:]
    return FilterTrainingData(
        cases, crops, train, calibration, schema, tuple(size), device, reporter
    )


def split_by_subject(
    ids: Sequence[str], subjects: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Split cases by subject, for fitting and for thresholds; always the same way.

    With a single subject both are all its cases.
    """
    people = sorted({subjects[i] for i in ids})
    if len(people) == 1:
        return list(ids), list(ids)
    order = np.random.default_rng(0).permutation(len(people))
    reserved = {people[n] for n in order[: max(1, round(THRESHOLD_SHARE * len(people)))].tolist()}
    return (
        [i for i in ids if subjects[i] not in reserved],
        [i for i in ids if subjects[i] in reserved],
    )


def drawn(
    learning: FilterTrainingData, ids: Sequence[str], count: int, seed: int
) -> Iterator[Case]:
    """Yield crops of cases in turn, each as often as the others.

    Args:
        count: number of crops; a space with one crop per case gives each case at most once.
    """
    rng = np.random.default_rng((seed, len(ids)))
    order = rng.permutation(len(ids)).tolist()
    if learning.crops.space.grid in ("native", "resample"):
        count = min(count, len(ids))
    for number in range(count):
        yield learning.crops.cut(ids[order[number % len(ids)]], rng)


def labelled(name: str, learning: FilterTrainingData) -> None:
    """Refuse cases without label maps, for filters that need them."""
    case = learning.crops.cut(learning.train_ids[0], np.random.default_rng(0))
    if case.labels is None or not learning.schema.foreground:
        raise UsageFault(
            "sampling.filter-without-label-maps",
            f"--filter {name}: {learning.cases.name} has no label maps, and {name} "
            "needs them; expected labelled cases. Leave the filter out",
        )


# -- fitted filters --------------------------------------------------------------------------------


FOLDER, STATE = "filters", "filter.json"
VERSION = 1
ADMITTED = "admitted"  # provenance key of the filters' results
WAIT_SECONDS = 1800.0  # time to wait for another process that fits the same filter
_LEARN_AGAIN = "delete it, and it is learnt again"


def build_filters(texts: Sequence[str]) -> list[Filter]:
    """Build the requested filters, in order; none of them is fitted yet.

    Args:
        texts: each ``NAME`` or ``NAME:KEY=VALUE,...``; several values of a key as ``1+2``.
    """
    built: list[Filter] = []
    for text in texts:
        name, colon, options = text.partition(":")
        if name in [item.name for item in built]:
            raise UsageFault(
                "sampling.filter-given-twice",
                f"--filter {text}: {name} is given twice, expected each once",
            )
        cls = installed().filter(name)
        if colon:
            built.append(cls(read_options(cls.Options, options, f"--filter {text}")))
        else:
            built.append(cls())
    return built


@dataclass(frozen=True)
class LearntFilters:
    """Fitted filters."""

    filters: Sequence[Filter]
    lineage: Lineage | None  # of the cases that they were fitted on; None without filters

    @classmethod
    def load(
        cls, run: RunDescription, texts: Sequence[str], schema: Schema, device: str = "cpu"
    ) -> LearntFilters:
        """Load the fitted filters of a run's folder."""
        filters = build_filters(texts)
        lineage: Lineage | None = None
        for item in filters:
            folder = folder_of(run.folder, item)
            doc = _read(folder, item, run.manifest, schema)
            try:
                item.load(doc["state"], folder, schema, device)
            except (KeyError, TypeError, ValueError, DataFault) as error:
                raise IntegrityFault(
                    "sampling.filter-state-not-loadable",
                    f"{folder}: filter {item.name!r} cannot be loaded ({error}), expected "
                    f"state of this version of it; {_LEARN_AGAIN}",
                ) from error
            learnt = Lineage.from_json(doc["lineage"])
            if lineage is None:
                lineage = learnt
            else:
                each = {case.id: case for case in lineage.cases + learnt.cases}
                lineage = replace(lineage, cases=tuple(each[key] for key in sorted(each)))
        return cls(filters, lineage)

    def judge(self, sample: Sample, request: FilterRequest) -> dict[str, Any]:
        """Return the filters' results for the provenance of a sample.

        ``admitted`` has the number of each filter. The first flaw ends the checks, and is stored
        under ``reject_reason``.
        """
        scores: dict[str, float] = {}
        results: dict[str, Any] = {ADMITTED: scores} if self.filters else {}
        for item in self.filters:
            verdict = item.judge(sample, request)
            if verdict.found is not None:
                scores[item.name] = round(float(verdict.found), 4)
            if verdict.reject_reason:
                results["reject_reason"] = f"filter {item.name!r}: {verdict.reject_reason}"
                break
        return results


def ensure_learnt(
    run: RunDescription,
    source: CaseSource,
    filters: Sequence[str],
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> LearntFilters:
    """Fit the filters that a run's folder lacks, and load all of them.

    If another process fits them at the same time, this one waits and loads its result.
    """
    if not filters:
        return LearntFilters((), None)
    folder = run.folder
    source = viewed(source, run.request.view)
    schema = run.space.generator_schema(source.schema)
    if to_learn(folder, filters):
        with _locked(folder / FOLDER):
            for item in to_learn(folder, filters):
                _learn(run, source, schema, item, device, reporter or NullReporter())
    return LearntFilters.load(run, filters, schema, device)


def to_learn(run: Path, filters: Sequence[str]) -> list[Filter]:
    """Return the filters that a run's folder lacks."""
    return [item for item in build_filters(filters) if not folder_of(run, item).exists()]


def folder_of(run: Path, item: Filter) -> Path:
    """Return the folder of a filter with its options."""
    text = json.dumps(item.options.model_dump(mode="json"), sort_keys=True)
    return run / FOLDER / f"{item.name}-{sha256(text.encode()).hexdigest()[:12]}"


def _learn(
    run: RunDescription,
    source: CaseSource,
    schema: Schema,
    item: Filter,
    device: str,
    reporter: Reporter,
) -> None:
    lineage = run.lineage
    learning = learning_of(run, source, schema, device, reporter)
    with whole_folder(folder_of(run.folder, item)) as folder:
        state = dict(item.learn(learning, folder))
        cases = tuple(case for case in lineage.cases if case.id in learning.cases.seen)
        doc = {
            "version": VERSION,
            "gansynth": build(),
            "filter": item.name,
            "options": item.options.model_dump(mode="json"),
            "lineage": replace(lineage, cases=cases).to_json(),
            "schema": schema.to_json(),
            "space": run.manifest["space"],
            "state": state,
            "files": {path.name: sha256_file(path) for path in sorted(folder.iterdir())},
        }
        doc["sha256"] = digest_of(doc, "sha256")
        write_json_atomic(folder / STATE, doc)


def _read(
    folder: Path, item: Filter, manifest: Mapping[str, Any], schema: Schema
) -> Mapping[str, Any]:
    """Read and check a filter's state; raises like ``LearntFilters.load``."""
    path = folder / STATE
    if not folder.exists():
        raise UsageFault(
            "sampling.filter-not-learnt",
            f"{folder}: filter {item.name!r} has not been learnt there; learn it first",
        )
    doc = read_own(path, hint=_LEARN_AGAIN)
    again = f"remove {folder} and it is learnt again"
    check_format(path, doc.get("version"), VERSION, doc.get("gansynth"), again)
    if doc.get("sha256") != digest_of(doc, "sha256"):
        raise IntegrityFault(
            "sampling.filter-state-damaged",
            f"{path}: damaged, expected what was learnt; {again}",
        )
    for name, expected in doc["files"].items():
        file = path_inside(folder, name, key=f"{path}: key 'files'")
        check_sha256(file, expected, f"{STATE}; {again}")
    _check_cases(path, doc, manifest, schema)
    return doc


def _check_cases(
    path: Path, doc: Mapping[str, Any], manifest: Mapping[str, Any], schema: Schema
) -> None:
    run, learnt = Lineage.from_json(manifest["lineage"]), Lineage.from_json(doc["lineage"])
    run_cases = set(run.cases)
    foreign = [case.id for case in learnt.cases if case not in run_cases]
    if not learnt.within(run):
        which = f"{len(foreign)} case(s), first {foreign[0]}," if foreign else "a fold"
        raise IntegrityFault(
            "sampling.filter-of-other-cases",
            f"{path}: filter {doc['filter']!r} was fitted on {which} new to the run, "
            f"expected its training cases of {run.dataset} fold {run.fold}; remove "
            f"{path.parent} and it is learnt again",
        )
    same = doc["space"] == manifest["space"] and doc["schema"] == schema.to_json()
    if not same:
        raise IntegrityFault(
            "sampling.filter-of-other-space",
            f"{path}: filter {doc['filter']!r} was learnt in another space than the run's, "
            f"expected the same size, channels and labels; remove {path.parent} and it is learnt "
            "again",
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder of a run's filters; EnvironmentFault if that fails or takes too long."""
    from filelock import FileLock, Timeout

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=WAIT_SECONDS)
        except Timeout:
            raise EnvironmentFault(
                "sampling.filters-being-learnt-elsewhere",
                f"{folder}: another process has been learning filters there for "
                f"{WAIT_SECONDS:g} s; wait for it, or end it",
            ) from None
    try:
        remove_temporaries(folder)
        yield
    finally:
        lock.release()


# -- before sampling, in the process that the user watches, with progress --------------------------
# A producer would fit missing filters itself, but without visible progress.


def learn_ahead(
    run: RunFolder | None,
    filters: Sequence[str],
    host: CaseSource,
    *,
    target: str = "",
    device: str = "auto",
    reporter: Reporter | None = None,
) -> None:
    """Fit the filters that a run's folder lacks, and check those that it has.

    Args:
        run: the run; None where samples come from a bank, which are already checked.
    """
    if run is None or not filters:
        return
    from gansynth.core.registry import installed
    from gansynth.runtime.devices import pick_device

    any_size = bool(target) and installed().host(target).Intake.any_size
    missing = to_learn(run.folder, filters)
    if missing and reporter is not None:
        names = [item.name for item in missing]
        reporter.say(f"{run}: fitting filters to its training cases, once: {', '.join(names)}")
    source = source_of_run(run, host, any_size=any_size)
    ensure_learnt(run, source, filters, str(pick_device(device)), reporter)


def planned_filters(run: RunFolder | None, filters: Sequence[str]) -> dict[str, Any]:
    """Return a dry run's report: each filter, and whether it must be fitted first."""
    if run is None or not filters:
        return {}
    ready = {True: "learnt", False: "would learn first, from the run's training cases"}
    built = build_filters(filters)
    return {"filters": {item.name: ready[folder_of(run.folder, item).exists()] for item in built}}
