"""Samples of a run or a sample bank, and real crops to compare with, in one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.lineage import Lineage, matches
from gansynth.core.schema import Case, Sample, Schema
from gansynth.core.source import CaseSource, case_record
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.metrics.comparison import Comparison, Effort, check_images
from gansynth.runtime.errors import DataFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.run import Run

TRIES = 20  # random positions tried in a case before it counts as empty
FEWEST = 4  # fewest samples for an evaluation


@dataclass
class KnownSubjects:
    """The cases of a source that were trained on, and those that were not."""

    members: tuple[str, ...]  # ids of cases in the lineage, by id or by image
    others: tuple[str, ...]  # ids of cases of subjects that are not in the lineage
    people: dict[str, str]

    @classmethod
    def of(cls, source: CaseSource, lineage: Lineage, cache: CaseCache) -> KnownSubjects:
        """Look up all cases of a source in a lineage and its ancestors."""
        ids = (*source.train_ids, *source.held_out_ids)
        people = {i: source.header(i).subject for i in ids}
        records = [case_record(source, i, cache) for i in ids]
        matched = [matches(parent_run, records, source.name) for parent_run in lineage.everyone()]
        members = [
            i
            for i in ids
            if any(i in parent_run and parent_run[i].kind != "subject" for parent_run in matched)
        ]
        theirs = {people[i] for i in members}
        others = [i for i in ids if people[i] not in theirs]
        return cls(tuple(members), tuple(others), people)

    def like(self, samples: Sequence[Sample], source: CaseSource) -> KnownSubjects:
        """Select the classes of the samples, where each sample has one."""
        classes = {sample.provenance.get("class") for sample in samples}
        if not source.schema.classes or None in classes:
            return self
        numbers = {n for n, name in enumerate(source.schema.classes) if name in classes}

        def kept(ids: Sequence[str]) -> tuple[str, ...]:
            return tuple(i for i in ids if source.header(i).label_class in numbers)

        subset = KnownSubjects(kept(self.members), kept(self.others), self.people)
        if not subset.members and not subset.others:
            raise DataFault(
                f"{source.name}: has no case of the samples' classes "
                f"({', '.join(sorted(map(str, classes)))}), expected some; name other cases with "
                "--real"
            )
        return subset


@dataclass
class EvaluationData:
    """The evaluated samples, and the real cases they are compared with."""

    kind: str  # `run` or `bank`
    name: str  # of its folder
    generator: str
    samples: Sequence[Sample]  # in the generator's space (of a bank: as stored)
    drawn_of: Sequence[str]  # the subject whose case a sample is based on, or a unique name
    source: CaseSource
    space: Space
    schema: Schema
    known: KnownSubjects
    lineage: Lineage
    cache: CaseCache
    run: Run | None = None  # the opened run; None for a bank
    rejected: int = 0
    empty: int = 0  # skipped real crops: constant, or not what the generator learns from
    # the real case of each sample, at its place; none where no lesion was put into it
    beside: Sequence[Case | None] = ()

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial size of a sample in voxels."""
        return tuple(self.samples[0].image.shape[1:])

    @cached_property
    def crops(self) -> CaseBatches:
        """Cuts cases as in training; whole resampled cases are cached."""
        return CaseBatches(self.cache, self.space)

    @property
    def reference(self) -> tuple[str, ...]:
        """Real cases to compare with: training cases, or all if there are none."""
        return self.known.members or self.known.others

    def cut(self, case_id: str, rng: np.random.Generator) -> Case:
        """A random crop that training would accept, if the case has one."""
        case = self.crops.cut(case_id, rng)
        for _ in range(TRIES if self.space.cuts else 0):
            constant = float(case.image.max()) == float(case.image.min())
            if not constant and (self.run is None or self.run.generator.accepts(case)):
                break
            case = self.crops.cut(case_id, rng)
            self.empty += 1
        return case

    def real(self, ids: Sequence[str], number: int, rng: np.random.Generator) -> list[Case]:
        """Crops of cases, balanced over subjects.

        Args:
            number: number of crops; fewer where a case yields one crop only.
            rng: of order and positions.
        """
        turns: dict[str, list[str]] = {}
        for n in rng.permutation(len(ids)).tolist():
            turns.setdefault(self.known.people[ids[n]], []).append(ids[n])
        most = number if self.space.cuts else min(number, len(ids))
        crops: list[Case] = []
        turn = 0
        while len(crops) < most:
            for subject_cases in list(turns.values()):
                if len(crops) < most and (self.space.cuts or turn < len(subject_cases)):
                    crops.append(self.cut(subject_cases[turn % len(subject_cases)], rng))
            turn += 1
        return [case for case in crops if float(case.image.max()) != float(case.image.min())]

    def comparison(
        self, number: int, seed: int, effort: Effort, device: str, reporter: Reporter
    ) -> Comparison:
        """Samples, and crops of the reference."""
        if len(self.samples) < FEWEST:
            raise DataFault(
                f"{self.name}: {len(self.samples)} sample(s), expected at least {FEWEST} to "
                "evaluate; generate more with -n"
            )
        with reporter.task(number, "real crops") as bar:
            real = self.real(self.reference, number, np.random.default_rng((seed, 1)))
            bar.advance(number)
        names = [f"sample {n}" for n in range(len(self.samples))]
        check_images([s.image for s in self.samples], names, self.schema, self.size)
        names = [f"case {case.id!r}" for case in real]
        check_images([case.image for case in real], names, self.schema, self.size)
        people = [self.known.people[case.id] for case in real]
        return Comparison(
            *(self.samples, real, self.schema, self.drawn_of, self.beside, people),
            *(seed, effort, device, reporter),
        )

    def told(self, comparison: Comparison) -> dict[str, Any]:
        """``of``, ``data`` and ``images`` of the document."""
        cases, people = self.known, self.known.people
        members = bool(cases.members)
        return {
            "of": {"kind": self.kind, "name": self.name, "generator": self.generator},
            "data": {
                "name": self.source.name,
                "fold": self.source.request.fold,
                "reference": "training cases" if members else "cases of another source",
                "subjects": len({people[i] for i in self.reference}),
                "cases": len(self.reference),
                "held_out_subjects": len({people[i] for i in cases.others}) if members else 0,
                "held_out_cases": len(cases.others) if members else 0,
            },
            "images": {
                "samples": len(self.samples),
                "rejected": self.rejected,
                "real": len(comparison.real),
                "empty": self.empty,
                "axes": self.schema.axes,
                "size": list(self.size),
                "spacing": list(self.schema.spacing),
                "channels": list(self.schema.channels),
                "labels": dict(self.schema.labels),
                "seed": comparison.seed,
            },
        }


def own_names(samples: Sequence[Sample], lineage: Lineage) -> list[str]:
    """Subject of each sample by its provenance; a unique name if there is none."""
    people = {case.id: case.subject for lin in lineage.everyone() for case in lin.cases}
    names = []
    for number, sample in enumerate(samples):
        case = sample.provenance.get("case")
        names.append(f"sample {number}" if case is None else people.get(str(case), str(case)))
    return names


def folder_kind(folder: Path) -> str:
    """``bank`` for a folder with ``bank.json``, else ``run``."""
    return "bank" if (folder / "bank.json").is_file() else "run"
