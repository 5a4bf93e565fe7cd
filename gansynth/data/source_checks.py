"""``check_source``: conformance checks of a source of cases, on a data set of its own.

They stand in for the check of files that a kind of source does not register.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from gansynth.core.conformance import CheckFailed, ConformanceReport
from gansynth.core.registry import installed
from gansynth.core.schema import Case
from gansynth.core.source import (
    CaseSource,
    CheckReport,
    Finding,
    SourceRequest,
    case_content,
    case_records,
)
from gansynth.core.space import Placement
from gansynth.runtime.errors import GansynthError

CASES = 16  # most cases that are read
NOWHERE = "nowhere/at-all"
Opener = Callable[[SourceRequest], CaseSource]
CHECKS = (
    "cases_are_listed",
    "headers_agree",
    "nobody_is_on_both_sides",
    "cases_are_cut",
    "recorded",
    "known_with_one_thread",
    "opened_again",
    "refuses_what_is_not_there",
)


def check_source(opener: Opener, request: SourceRequest) -> ConformanceReport:
    """Open a data set by a source, and read cases of it as commands do.

    Args:
        opener: what the plugin registers.
        request: a data set with training and held-out cases; at most 16 are read.
    """
    return _SourceTrial(opener, request).report()


def check_data(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Check a data set by its kind's check; without one, read cases as ``check_source`` does."""
    registry = installed()
    kind = request.kind
    if kind in registry.loaders["checks"] or kind not in registry.loaders["sources"]:
        return registry.check(kind)(request, progress)
    trial = _SourceTrial(registry.load("sources", kind), request)
    source = trial.source
    findings = [
        Finding("error", None, Path(request.where), f"{kind}: {check.name}: {check.message}")
        for check in trial.report().failed
    ]
    cases = len(source.train_ids) + len(source.held_out_ids)
    return CheckReport(source.name, cases, findings)


class _SourceTrial:
    def __init__(self, opener: Opener, request: SourceRequest) -> None:
        self.opener, self.request = opener, request

    @cached_property
    def source(self) -> CaseSource:
        return self.opener(self.request)

    @cached_property
    def ids(self) -> list[str]:
        source = self.source
        return [*source.train_ids[: CASES // 2], *source.held_out_ids[: CASES // 2]]

    def report(self) -> ConformanceReport:
        """Run all checks; those of cases only if they are read."""
        report = ConformanceReport(self.request.kind)
        if report.run("opens", self.opens) and report.run("cases are read", self.cases_are_read):
            for name in CHECKS:
                report.run(name.replace("_", " "), getattr(self, name))
        return report

    def cases(self) -> list[Case]:
        return [self.source.load(case_id) for case_id in self.ids]

    def opens(self) -> None:
        source = self.source
        if not isinstance(source, CaseSource):
            raise CheckFailed(f"the opener returns {type(source).__name__}, expected a CaseSource")
        if source.request.kind != self.request.kind:
            raise CheckFailed(f"request is {source.request}, expected that of the data set")
        if not source.train_ids:
            raise CheckFailed("has no training case, expected some; name another data set")

    def cases_are_read(self) -> None:
        for case_id, case, again in zip(self.ids, self.cases(), self.cases(), strict=True):
            case.validate(self.source.schema)
            if case.id != case_id:
                raise CheckFailed(f"load({case_id!r}) returns case {case.id!r}, expected itself")
            same = np.array_equal(case.image, again.image)
            if not same or not np.array_equal(np.array(case.labels), np.array(again.labels)):
                raise CheckFailed(f"case {case_id!r} is another one the second time")
            self._labels_agree(case)

    def _labels_agree(self, case: Case) -> None:
        alone = self.source.labels_of(case.id)
        if case.labels is not None and alone is not None and case.labels.shape != alone.shape:
            return  # resampled by ``load``
        if not np.array_equal(np.array(case.labels), np.array(alone)):
            raise CheckFailed(f"labels_of({case.id!r}) returns others than the case has")

    def cases_are_listed(self) -> None:
        sides = self.source.train_ids, self.source.held_out_ids
        for ids in sides:
            if not isinstance(ids, tuple) or list(ids) != sorted(set(ids)):
                raise CheckFailed(f"ids are {ids!r:.80}, expected a sorted tuple, each once")
        both = set(sides[0]) & set(sides[1])
        if both:
            raise CheckFailed(f"{sorted(both)[0]!r} is a training case and held out")

    def headers_agree(self) -> None:
        for case in self.cases():
            header = self.source.header(case.id)
            stated, read = (header.subject, header.shape), (case.subject, case.image.shape[1:])
            if stated != read:
                raise CheckFailed(f"header of {case.id!r} says {stated}, the case is {read}")

    def nobody_is_on_both_sides(self) -> None:
        trained = {self.source.header(case).subject for case in self.source.train_ids}
        held_out = {self.source.header(case).subject for case in self.source.held_out_ids}
        both = trained & held_out
        if both:
            raise CheckFailed(f"subject {sorted(both)[0]!r} has cases on both sides of the fold")

    def cases_are_cut(self) -> None:
        """As a fit cuts them, in the generator's space."""
        space, rng = self.source.space, np.random.default_rng(0)
        schema = space.generator_schema(self.source.schema)
        for case in self.cases():
            placement = space.place(case, rng) if space.cuts else Placement()
            space.to_generator(case, placement).validate(schema)

    def recorded(self) -> None:
        found = {record.id for record in case_records(self.source, self.ids)}
        missing = set(self.ids) - found
        if missing:
            raise CheckFailed(f"no record of {sorted(missing)[0]!r} is made, expected one of each")

    def known_with_one_thread(self) -> None:
        """A run is fitted with all threads, and drawn from by processes that have one."""
        from threadpoolctl import threadpool_limits

        usual = {case_id: case_content(self.source, case_id) for case_id in self.ids}
        with threadpool_limits(1):
            for case_id, content in usual.items():
                if case_content(self.source, case_id) != content:
                    raise CheckFailed(
                        f"{case_id!r} is another case with one thread: its values are products "
                        "of matrices, whose terms are added in another order. Return what its "
                        "files hold from decode(), or add in a fixed order"
                    )

    def opened_again(self) -> None:
        """Another process opens the data set by the request alone, as JSON."""
        request = SourceRequest(**json.loads(json.dumps(asdict(self.source.request))))
        other = self.opener(request)
        if (other.name, other.train_ids) != (self.source.name, self.source.train_ids):
            raise CheckFailed(f"its request opens {other.name!r} with other cases")
        if other.schema != self.source.schema or other.space != self.source.space:
            raise CheckFailed("its request opens another schema or space")

    def refuses_what_is_not_there(self) -> None:
        try:
            cases = self.opener(replace(self.request, where=NOWHERE)).train_ids
        except GansynthError:
            return
        raise CheckFailed(
            f"opens {NOWHERE!r} with {len(cases)} cases, expected a UsageFault or DataFault"
        )
