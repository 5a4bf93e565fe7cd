"""Test bench: a generator on toy cases, and the conditions of its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from gansynth.conditions.lesion_placement import PlacedLesion, lesion_drawer
from gansynth.core.case_pool import CaseContext, CasePool, TrainingCases
from gansynth.core.generator import Generator, capabilities_of, context_of, given_of, learn
from gansynth.core.schema import Boxes, Case, Condition, LabelArray, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.cache import CaseCache
from gansynth.runtime.devices import seeded
from gansynth.runtime.errors import UsageFault
from gansynth.testing.case_readers import GuardedSource
from gansynth.testing.report import CheckFailed, CheckSkipped, ConformanceReport
from gansynth.testing.toy import without_blobs

Fit = Callable[["Generator", Sequence[Case], int], object]
"""(generator, training cases in its space, steps): trains it in place."""
PLACES = "where=anywhere,inside=0.6,tries=100"  # lesion placement for the small toy bodies
TRIES = 50


class GeneratorBench:
    """One generator on toy cases of one number of axes."""

    def __init__(
        self,
        report: ConformanceReport,
        cls: type[Generator],
        options: dict[str, Any],
        axes: int,
        side: int | None = None,
    ) -> None:
        self.report, self.cls, self.options, self.side = report, cls, options, side
        self.generator: Generator
        self._use(GuardedSource(axes, boxes=True, side=side))
        self.train_cases: list[Case] = []
        self.held_out: list[Case] = []
        self.reference: list[Case] = []
        self.lesions: LesionCases | None = None
        self.state: dict[str, Any] = {}

    def _use(self, source: GuardedSource) -> None:
        self.source, self.space = source, source.space
        self.schema: Schema = source.schema

    @property
    def heeds_boxes(self) -> bool:
        return "boxes" in self.generator.capabilities.takes

    def check(self, name: str, function: Callable[[], object]) -> bool:
        return self.report.run(f"{self.source.schema.ndim}d: {name}", function)

    def build(self) -> None:
        """Build the networks; they have parameters unless there is nothing to train."""
        can = capabilities_of(self.cls, self.cls.Options(**self.options))
        if "boxes" not in can.takes:  # most data sets have no boxes
            self._use(GuardedSource(self.schema.ndim, side=self.side))
        if can.range == "tanh":
            self.space = self.space.with_window(map(self.source.load, self.source.train_ids))
            self.schema = self.space.generator_schema(self.source.schema)
        generator = self.new()
        parameters = sum(p.numel() for net in generator.nets.values() for p in net.parameters())
        if generator.phases() and not parameters:
            raise CheckFailed("has phases to train but no parameters")
        if bool(generator.phases()) != can.trains:
            raise CheckFailed(f"trains is {can.trains}, expected True with phases and only then")
        self.generator = generator
        self.train_cases = [
            self.space.to_generator(c) for c in map(self.source.load, self.source.train_ids)
        ]
        self.held_out = [
            self.space.to_generator(c) for c in map(self.source.load, self.source.held_out_ids)
        ]
        self.reference = self.held_out
        if "lesion" in can.takes:
            self.lesions = LesionCases(generator, self.source, self.space, len(self.held_out))
            self.held_out = self.lesions.cases
        self.source.closed = True

    def new(self) -> Generator:
        # Initial weights come from torch's global random state, which is seeded here.
        with seeded(0):
            try:
                return self.cls(self.schema, self.space.size, self.cls.Options(**self.options))
            except UsageFault as refusal:
                raise CheckSkipped(f"refused: {refusal}") from refusal

    def train(self, fit: Fit, steps: int) -> None:
        self.state = learn(self.generator, self.train_cases)
        made = partial(context_of, self.generator)
        self.check("context has few values", lambda: list(map(made, self.train_cases)))
        fit(self.generator, self.train_cases, steps)

    def condition(self, case: Case, seed: int) -> Condition:
        if self.lesions is not None:
            return self.lesions.condition(case, seed)
        return Condition(
            labels=copied(case.labels),
            boxes=copied_boxes(case.boxes) if self.heeds_boxes else None,
            label_class=case.label_class,
            context=context_of(self.generator, case),
            given=given_of(self.generator, case),
            moved=case.image.copy() if "image" in self.generator.capabilities.takes else None,
            latent_seed=seed,
            provenance={"case": case.id},
        )


class LesionCases:
    """Lesions of toy training cases, placed into held-out toy bodies without lesions."""

    def __init__(self, generator: Generator, source: CaseSource, space: Space, count: int) -> None:
        self._sampler = lesion_drawer(PLACES, generator.capabilities.lesions)
        self._case_pool = CasePool(TrainingCases(CaseCache(source)), space)
        bodies = [without_blobs(source.load(i), n) for n, i in enumerate(source.held_out_ids)]
        self.bodies = [space.to_generator(body) for body in bodies[:count]]
        self._shape = source.load(source.train_ids[0]).image.shape[1:]
        self.inserted = [self._insert(n, body) for n, body in enumerate(self.bodies)]

    def _insert(self, number: int, body: Case) -> PlacedLesion:
        case_context = CaseContext(
            body, Placement((0,) * len(self._shape)), self._shape, number, self._case_pool
        )
        for attempt in range(TRIES):
            inserted = self._sampler.draw(
                case_context, (), np.random.default_rng((number, attempt))
            )
            if set(np.unique(inserted.lesion)) >= set(self._case_pool.schema.foreground):
                return inserted
        raise CheckSkipped(f"no place for a lesion in {TRIES} tries of {self._sampler.options}")

    @property
    def cases(self) -> list[Case]:
        """Backgrounds with the requested label maps."""
        pairs = zip(self.bodies, self.inserted, strict=True)
        return [replace(body, labels=inserted.labels) for body, inserted in pairs]

    def condition(self, case: Case, seed: int) -> Condition:
        """Return a new condition of one of ``cases``."""
        number = [body.id for body in self.bodies].index(case.id)
        body, inserted = self.bodies[number], self.inserted[number]
        return Condition(
            labels=inserted.labels.copy(),
            background=body.image.copy(),
            lesion=inserted.lesion.copy(),
            donor=inserted.donor.copy(),
            region=None if inserted.region is None else inserted.region.copy(),
            latent_seed=seed,
            provenance={"case": case.id, "lesions": inserted.told},
        )


def copied(labels: LabelArray | None) -> LabelArray:
    assert labels is not None, "toy cases have labels"
    return labels.copy()


def copied_boxes(boxes: Boxes | None) -> Boxes:
    """Return a copy of boxes."""
    assert boxes is not None, "toy cases for such generators have boxes"
    return Boxes(boxes.coords.copy(), boxes.labels.copy())
