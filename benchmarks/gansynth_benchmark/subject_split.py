"""Split of subjects into training pool, development and sealed test set; fixed by the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gansynth.core.source import CaseSource
from gansynth.data.folds import cases_of_sites
from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean
from gansynth_benchmark.plan import BenchmarkPlan, SplitPlan

DEVELOPMENT, SEALED = "development", "sealed"


@dataclass(frozen=True)
class SubjectSplit:
    """The subjects of a data set, split into pool, development and sealed."""

    pool: tuple[str, ...]  # subjects that training subsets are sampled from, in shuffled order
    development: tuple[str, ...]
    sealed: tuple[str, ...]
    cases: Mapping[str, tuple[str, ...]]  # subject -> its cases, sorted
    seed: int  # seeds the sampling of training subsets
    target_pool: tuple[str, ...] = ()  # subjects of the target site that may train, shuffled

    @property
    def parts(self) -> tuple[tuple[str, ...], ...]:
        """The subjects for development, of the pool, and the sealed ones."""
        return self.development, self.pool, self.sealed

    def test_cases(self, look: str) -> tuple[str, ...]:
        """Return the evaluated cases of a split, sorted."""
        subjects = self.sealed if look == SEALED else self.development
        if not subjects:
            raise UsageFault(
                "benchmark.split-without-subjects",
                f"split.{look}: 0 subjects, expected at least 1 to evaluate on; set it in the plan"
                + (", or use the sealed split: --test-set" if look == DEVELOPMENT else ""),
            )
        return self.cases_of(subjects)

    def cases_of(self, subjects: Sequence[str]) -> tuple[str, ...]:
        cases = [case for subject in subjects for case in self.cases[subject]]
        return tuple(sorted(cases))

    def training_set(
        self, size: int, draw: int, least: int, largest: int, *, at_target: bool = False
    ) -> tuple[str, ...]:
        """Return the subjects of one training subset.

        Subsets are disjoint until the pool is used up. From then on only the smallest subsets are,
        until they have used it up too; then it is reshuffled. A smaller subset of the same draw
        lies within the larger ones.

        Args:
            draw: number of the training subset, from 0.
            least: subjects of the smallest training subset.
            largest: subjects of the largest training subset.
            at_target: of the target site's subjects, not of the pool.
        """
        pool = self.target_pool if at_target else self.pool
        count = len(pool)
        rounds = count // largest if count >= 2 * largest else 0
        again, place, step = 0, draw, largest
        if draw >= rounds:
            again, place = divmod(draw - rounds, count // least)
            again, step = again + (rounds > 0), least
        order = np.random.default_rng((self.seed, 1, again)).permutation(count)
        chosen = order[(place * step + np.arange(size)) % count]
        return tuple(sorted([pool[i] for i in chosen]))


def split_subjects(source: CaseSource, plan: BenchmarkPlan) -> SubjectSplit:
    """Split a data set's subjects as the plan says."""
    cases: dict[str, list[str]] = {}
    for case in sorted({*source.train_ids, *source.held_out_ids}):
        cases.setdefault(source.header(case).subject, []).append(case)
    by_subject = {subject: tuple(ids) for subject, ids in cases.items()}
    split, of_target = plan.split, tuple[str, ...]()
    if split.sites is not None:
        pool, development, sealed, of_target = _of_sites(source, split, by_subject)
    elif split.fold is not None:
        pool, development, sealed = _of_fold(source, split)
    else:
        pool, development, sealed = _dealt(sorted(by_subject), split)
    found = SubjectSplit(pool, development, sealed, by_subject, split.seed, of_target)
    _check_sizes(found, plan, source.name)
    return found


def _check_sizes(found: SubjectSplit, plan: BenchmarkPlan, data: str) -> None:
    """Refuse training subsets that are larger than what they are sampled from."""
    needed = max(largest_set(plan), plan.split.pool or 0)
    if len(found.pool) < needed:
        raise DataFault(
            "benchmark.too-few-subjects-for-training",
            f"{data}: {len(found.cases)} subject(s), {len(found.development)} for development and "
            f"{len(found.sealed)} sealed. This leaves {len(found.pool)} for training sets, "
            f"expected at least {needed}; lower sizes, real or split of the plan",
        )
    at_target = [max(plan.sizes) * arm.real for arm in plan.arms if arm.at_target]
    if max(at_target, default=0) > len(found.target_pool):
        raise DataFault(
            "benchmark.too-few-subjects-of-target",
            f"{data}: {len(found.target_pool)} subject(s) of site {plan.split.target!r} are left "
            f"to train the arm with at_target, expected at least {max(at_target)}; lower sizes or "
            "split of the plan, or leave the arm out",
        )


def largest_set(plan: BenchmarkPlan) -> int:
    """Return the number of subjects of the largest training subset of any arm."""
    return max(plan.sizes) * max([arm.real for arm in plan.arms if not arm.at_target], default=1)


def _dealt(subjects: Sequence[str], split: SplitPlan) -> tuple[tuple[str, ...], ...]:
    """Return pool, development, sealed. Sealed ones come first, so no other key affects them."""
    order = np.random.default_rng((split.seed, 0)).permutation(len(subjects))
    shuffled = [subjects[i] for i in order]
    assert split.sealed is not None
    first, second = split.sealed, split.sealed + _developed(split, split.sealed)
    last = len(subjects) if split.pool is None else second + split.pool
    return tuple(shuffled[second:last]), tuple(shuffled[first:second]), tuple(shuffled[:first])


def _of_fold(source: CaseSource, split: SplitPlan) -> tuple[tuple[str, ...], ...]:
    """Return pool and development from the training cases, sealed from the held-out ones."""
    sealed = tuple(sorted({source.header(case).subject for case in source.held_out_ids}))
    subjects = sorted({source.header(case).subject for case in source.train_ids} - set(sealed))
    order = np.random.default_rng((split.seed, 0)).permutation(len(subjects))
    shuffled = [subjects[i] for i in order]
    count = _developed(split, len(sealed))
    return tuple(shuffled[count:]), tuple(shuffled[:count]), sealed


def _developed(split: SplitPlan, sealed: int) -> int:
    return sealed if split.development is None else split.development


def _of_sites(
    source: CaseSource, split: SplitPlan, cases: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], ...]:
    """Return the pool of the other sites; the target's development, sealed and other subjects."""
    subject_of = {case: subject for subject, ids in cases.items() for case in ids}
    sites = cases_of_sites(str(split.sites), subject_of)
    if split.target not in sites:
        raise DataFault(
            "benchmark.target-site-unknown",
            f"split.target {split.target!r}: {source.name} has the sites {', '.join(sites)}; "
            f"expected one of them.{did_you_mean(str(split.target), sites)}",
        )
    at_target = sorted({subject_of[case] for case in sites[split.target]})
    assert split.sealed is not None
    evaluated = split.sealed + _developed(split, split.sealed)
    if len(at_target) < evaluated:
        raise DataFault(
            "benchmark.too-few-subjects-to-evaluate",
            f"{source.name}: site {split.target!r} has {len(at_target)} subject(s), expected at "
            f"least {evaluated}, for split.development and split.sealed; lower them",
        )
    others = sorted(set(cases) - set(at_target))
    order = np.random.default_rng((split.seed, 2)).permutation(len(others))
    pool = tuple([others[i] for i in order][: split.pool])
    left, development, sealed = _dealt(at_target, split.model_copy(update={"pool": None}))
    return pool, development, sealed, left
