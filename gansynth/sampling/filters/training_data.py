"""Cases to fit filters on: a run's training cases, some of them reserved for thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gansynth.core.case_pool import TrainingCases
from gansynth.core.filter import FilterTrainingData
from gansynth.core.run_folder import RunDescription
from gansynth.core.schema import Case, Schema
from gansynth.core.source import CaseSource
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.run import content_check

APART = 0.25  # share of the subjects that are reserved for thresholds; at least one of two


def learning_of(
    run: RunDescription, source: CaseSource, schema: Schema, device: str, reporter: Reporter
) -> FilterTrainingData:
    """Return the cases that a filter of a run may use."""
    lineage, space = run.lineage, run.space
    ids = sorted({case.id for case in lineage.cases}.intersection(source.train_ids))
    if not ids:
        raise UsageFault(
            f"{run.folder}: filters have no cases to be fitted on: {source.name} has no "
            "training case that the run was fitted on; expected its own training source"
        )
    check = content_check(run.folder, lineage)
    cases = TrainingCases(CaseCache(source), ids, check)
    crops = CaseBatches(cases, space)
    train, apart = split(ids, {case_id: source.header(case_id).subject for case_id in ids})
    size = space.size or crops.cut(ids[0], np.random.default_rng(0)).image.shape[1:]
    return FilterTrainingData(cases, crops, train, apart, schema, tuple(size), device, reporter)


def split(ids: Sequence[str], subjects: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Split cases by subject, for fitting and for thresholds; always the same way.

    With a single subject both are all its cases.
    """
    people = sorted(set(subjects[i] for i in ids))
    if len(people) == 1:
        return list(ids), list(ids)
    order = np.random.default_rng(0).permutation(len(people))
    apart = {people[n] for n in order[: max(1, round(APART * len(people)))].tolist()}
    return ([i for i in ids if subjects[i] not in apart], [i for i in ids if subjects[i] in apart])


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
            f"--filter {name}: {learning.cases.name} has no label maps, and {name} "
            "needs them; expected labelled cases. Leave the filter out"
        )
