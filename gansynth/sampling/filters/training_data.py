"""Cases to fit filters on: a run's training cases, some of them reserved for thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from gansynth.core.filter import FilterTrainingData
from gansynth.core.lineage import Lineage
from gansynth.core.run_folder import RunDescription
from gansynth.core.schema import Case, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache, PlacedCase
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.run import check_case

APART = 0.25  # share of the subjects that are reserved for thresholds; at least one of two


class TrackedCases(CaseCache):
    """A run's training cases and no others, with a record of those that were read."""

    def __init__(self, source: CaseSource, lineage: Lineage, run: Path) -> None:
        super().__init__(source)
        self.run = run
        self.seen: set[str] = set()  # ids of the cases that were read
        self._wanted = {case.id: case.sha256 for case in lineage.cases}

    def __call__(self, case_id: str) -> Case:
        """See ``CaseCache``; refuses the same cases as ``place``."""
        self._look(case_id)
        return super().__call__(case_id)

    def place(self, case_id: str, space: Space, rng: np.random.Generator) -> PlacedCase:
        """See ``CaseCache``.

        Raises:
            IntegrityFault: it is not one of the run's training cases, or has changed.
        """
        self._look(case_id)
        return super().place(case_id, space, rng)

    def _look(self, case_id: str) -> None:
        """Record a case, and check it when it is read for the first time."""
        if case_id in self.seen:
            return
        expected, source = self._wanted.get(case_id), self.source
        if expected is None or case_id not in source.train_ids:
            raise IntegrityFault(
                f"{self.run}: a filter asks for case {case_id!r} of {source.name}, expected "
                "training cases of the run only"
            )
        check_case(self.run, source, case_id, expected, super().__call__)
        self.seen.add(case_id)


def learning_of(
    run: RunDescription, source: CaseSource, schema: Schema, device: str, reporter: Reporter
) -> tuple[FilterTrainingData, TrackedCases]:
    """Return the cases that a filter of a run may use, and the record of those it reads."""
    lineage, space = run.lineage, run.space
    cases = TrackedCases(source, lineage, run.folder)
    crops = CaseBatches(cases, space)
    ids = [case_id for case_id in source.train_ids if case_id in {c.id for c in lineage.cases}]
    if not ids:
        raise UsageFault(
            f"{run.folder}: filters have no cases to be fitted on: {source.name} has no "
            "training case that the run was fitted on; expected its own training source"
        )
    train, apart = split(ids, {case_id: source.subject(case_id) for case_id in ids})
    size = space.size or crops.cut(ids[0], np.random.default_rng(0)).image.shape[1:]
    return FilterTrainingData(crops, train, apart, schema, tuple(size), device, reporter), cases


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
            f"--filter {name}: {learning.crops.cache.source.name} has no label maps, and {name} "
            "needs them; expected labelled cases. Leave the filter out"
        )
