"""``check_edit`` and ``check_filter``: conformance checks of what reads training cases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gansynth.core.case_pool import CaseContext, CasePool, TrainingCases
from gansynth.core.conformance import CheckFailed, ConformanceReport
from gansynth.core.edit import Edit, EditContext
from gansynth.core.filter import Filter, FilterRequest, FilterTrainingData
from gansynth.core.schema import OUTSIDE, Case, Condition, Sample
from gansynth.core.space import Placement
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.runtime.errors import IntegrityFault
from gansynth.runtime.progress import NullReporter
from gansynth.testing.toy import SIDES, ToySource

MOST_GROWTH = (
    1.1  # factor on the bytes that a filter learns, if cases have twice the voxels or more
)
FREE_BYTES = 1024  # on top of that growth


class GuardedSource(ToySource):
    """Toy cases; once ``closed``, held-out ones are not read, and who asks for them is noted."""

    def __init__(self, ndim: int, **options: Any) -> None:
        super().__init__(ndim, **options)
        self.closed, self.refused = False, set[str]()

    def load(self, case_id: str) -> Case:
        """Return a case. Raises IntegrityFault: a held-out one, once closed."""
        if self.closed and case_id in self.held_out_ids:
            self.refused.add(case_id)
            raise IntegrityFault(
                "testing.held-out-case-read",
                f"case {case_id!r} is held out, expected training cases only",
            )
        return super().load(case_id)

    def check_unread(self, *cases: TrainingCases) -> None:
        """Fail a check if a held-out case was asked for, here or of the training cases."""
        asked = self.refused.union(*(each.refused for each in cases))
        if asked:
            raise CheckFailed(f"asks for {sorted(asked)}, expected training cases only")


def check_edit(
    cls: type[Edit], *, options: Mapping[str, Any] | None = None, ndim: Sequence[int] = (3, 2)
) -> ConformanceReport:
    """Draw and apply an edit on every toy training case, for each number of axes."""
    report = ConformanceReport(getattr(cls, "name", cls.__name__))
    for axes in ndim:
        edit = cls(cls.Options(**dict(options or {})))
        pool, source = _pool_of_closed_source(axes)
        report.run(f"{axes}d: edits", partial(_edit_all, edit, source, pool))
        report.run(f"{axes}d: reads training cases only", partial(source.check_unread, pool.cases))
    return report


def _edit_all(edit: Edit, source: ToySource, pool: CasePool) -> None:
    """Check that an edit is reproducible, and that its labels keep type, shape and values."""
    known = set(source.schema.label_values)
    for number, case in enumerate(map(source.load, source.train_ids)):  # their arrays are read-only
        shape = case.image.shape[1:]
        scene = CaseContext(case, Placement((0,) * len(shape)), shape, number, pool, 0)
        context = EditContext(scene.labels, source.schema, scene)
        texts = [json.dumps(edit.draw(context, np.random.default_rng(number))) for _ in range(2)]
        if texts[0] != texts[1]:
            raise CheckFailed("draw() differs the second time, expected it to use ``rng`` alone")
        labels, again = [edit.apply(context, json.loads(text)).labels for text in texts]
        if not np.array_equal(labels, again):
            raise CheckFailed("apply() of the same parameters differs the second time")
        if labels.dtype != np.int16 or labels.shape != shape:
            raise CheckFailed(f"labels are {labels.dtype} {labels.shape}, expected int16 {shape}")
        unknown = sorted(set(np.unique(labels).tolist()) - known)
        if unknown:
            raise CheckFailed(f"label value(s) {unknown} unknown, expected among {sorted(known)}")
        if not np.array_equal(labels == OUTSIDE, context.labels == OUTSIDE):
            raise CheckFailed(f"changes which voxels are {OUTSIDE} (outside), expected the same")


def check_filter(
    cls: type[Filter], *, options: Mapping[str, Any] | None = None, ndim: Sequence[int] = (3, 2)
) -> ConformanceReport:
    """Let a filter learn from toy cases, load what it has learnt, and judge toy cases."""
    report = ConformanceReport(getattr(cls, "name", cls.__name__))
    for axes in ndim:
        new = partial(cls, cls.Options(**dict(options or {})))
        with TemporaryDirectory() as home:
            trial = _FilterTrial(new, axes, Path(home))
            if report.run(f"{axes}d: learns", trial.learn):
                report.run(f"{axes}d: judges", trial.judge)
                report.run(f"{axes}d: core's provenance kept", trial.provenance_kept)
                report.run(f"{axes}d: files and state do not grow", trial.does_not_grow)
            unread = partial(trial.source.check_unread, trial.pool.cases)
            report.run(f"{axes}d: reads training cases only", unread)
    return report


class _FilterTrial:
    """A filter that learns from and judges toy cases, a check a method; ``learn`` comes first."""

    def __init__(self, new: Any, axes: int, home: Path) -> None:
        self.new, self.axes, self.home = new, axes, home
        self.pool, self.source = _pool_of_closed_source(axes)
        self.folder = home  # of the filter's files; its own for each size of cases
        self.state: Any = None  # what the filter has learnt, as it is read from JSON
        self.bytes = 0  # of state and files
        self.judged_samples: list[tuple[Sample, Mapping[str, Any]]] = []

    def learn(self) -> None:
        ids, schema, space = self.source.train_ids, self.source.schema, self.source.space
        to_learn_from, for_thresholds = ids[:9], ids[9:]
        self.folder = self.home / str(space.size[0])
        self.folder.mkdir()
        learning = FilterTrainingData(
            self.pool.cases,
            CaseBatches(self.pool.cases, space),
            to_learn_from,
            for_thresholds,
            schema,
            space.size,
            "cpu",
            NullReporter(),
        )
        text = json.dumps(dict(self.new().learn(learning, self.folder)))
        sizes = [path.stat().st_size for path in self.folder.rglob("*") if path.is_file()]
        self.state, self.bytes = json.loads(text), len(text) + sum(sizes)

    def judge(self) -> None:
        judging = self.new()
        judging.load(self.state, self.folder, self.source.schema, "cpu")
        for number, case in enumerate(map(self.source.load, self.source.train_ids)):
            own = {"case": case.id, "index": number, "edits": []}
            sample = Sample(case.image, case.labels, provenance=deepcopy(own))
            condition = Condition(labels=case.labels, provenance=deepcopy(own))
            base = partial(self.source.load, case.id)
            judging.judge(sample, FilterRequest(condition, base, self.pool))
            self.judged_samples.append((sample, own))

    def provenance_kept(self) -> None:
        if any(sample.provenance != own for sample, own in self.judged_samples):
            raise CheckFailed("judge() wrote into a sample's provenance, which is the core's")

    def does_not_grow(self) -> None:
        larger = _FilterTrial(self.new, self.axes, self.home)
        longer_side = SIDES[self.axes] * 3 // 2  # 1.5 ** 2 is more than twice the voxels
        larger.pool, larger.source = _pool_of_closed_source(self.axes, longer_side)
        larger.learn()
        if larger.bytes > MOST_GROWTH * self.bytes + FREE_BYTES:
            raise CheckFailed(
                f"{self.bytes} bytes learnt become {larger.bytes} if cases have more voxels, "
                "expected as many: a filter keeps no image"
            )


def _pool_of_closed_source(axes: int, side: int | None = None) -> tuple[CasePool, GuardedSource]:
    source = GuardedSource(axes, side=side)
    source.closed = True
    return CasePool(TrainingCases(CaseCache(source)), source.space), source
