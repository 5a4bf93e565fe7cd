"""Who is trained on and who is judged on: people, never cases, and always the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gansynth.benchmark.plan import Plan, SplitPlan
from gansynth.core.source import CaseSource
from gansynth.runtime.errors import DataFault, UsageFault

DEVELOPMENT, SEALED = "development", "sealed"


@dataclass(frozen=True)
class Division:
    """People of a data set, dealt out.

    Attributes:
        pool: that training sets are drawn from, in the order they were dealt.
        cases: of every person, sorted.
        seed: draws training sets.
    """

    pool: tuple[str, ...]
    development: tuple[str, ...]
    sealed: tuple[str, ...]
    cases: Mapping[str, tuple[str, ...]]
    seed: int

    def judged(self, look: str) -> tuple[str, ...]:
        """Cases that a look judges on, sorted.

        Raises:
            UsageFault: the plan has nobody for it.
        """
        people = self.sealed if look == SEALED else self.development
        if not people:
            raise UsageFault(
                f"split.{look}: 0 subjects, expected some to judge on; say how many in the plan"
                + (", or look at the sealed split: --sealed" if look == DEVELOPMENT else "")
            )
        return self.cases_of(people)

    def cases_of(self, people: Sequence[str]) -> tuple[str, ...]:
        """All cases of some people, sorted."""
        return tuple(sorted(case for person in people for case in self.cases[person]))

    def training_set(self, size: int, draw: int, largest: int) -> tuple[str, ...]:
        """People of one training set.

        Draws are disjoint as long as the pool lasts, then it is shuffled anew. Smaller sets of a
        draw lie within its larger ones.

        Args:
            draw: number of the draw, from 0.
        """
        rounds = len(self.pool) // largest
        again, place = divmod(draw, rounds)
        order = np.random.default_rng((self.seed, 1, again)).permutation(len(self.pool))
        chosen = order[place * largest : place * largest + size]
        return tuple(sorted(self.pool[i] for i in chosen))


def divide(source: CaseSource, plan: Plan) -> Division:
    """Deal a data set's people out as a plan says.

    Raises:
        DataFault: fewer people than that.
    """
    cases: dict[str, list[str]] = {}
    for case in sorted({*source.train_ids, *source.held_out_ids}):
        cases.setdefault(source.subject(case), []).append(case)
    known = {person: tuple(found) for person, found in cases.items()}
    split = plan.split
    dealt = _of_fold(source, split) if split.fold is not None else _dealt(sorted(known), split)
    pool, development, sealed = dealt
    needed = max(largest_set(plan), split.pool or 0)
    if len(pool) < needed:
        raise DataFault(
            f"{source.name}: {len(known)} subject(s), {len(development)} for development and "
            f"{len(sealed)} sealed, leave {len(pool)} to draw training sets from, expected at "
            f"least {needed}; lower sizes, real or split of the plan"
        )
    return Division(pool, development, sealed, known, split.seed)


def largest_set(plan: Plan) -> int:
    """People of the largest training set of any arm."""
    return max(plan.sizes) * max(arm.real for arm in plan.arms)


def _dealt(people: Sequence[str], split: SplitPlan) -> tuple[tuple[str, ...], ...]:
    """Pool, development, sealed; the sealed ones first, so that nothing else changes them."""
    order = np.random.default_rng((split.seed, 0)).permutation(len(people))
    shuffled = [people[i] for i in order]
    assert split.sealed is not None
    first, second = split.sealed, split.sealed + split.development
    last = len(people) if split.pool is None else second + split.pool
    return tuple(shuffled[second:last]), tuple(shuffled[first:second]), tuple(shuffled[:first])


def _of_fold(source: CaseSource, split: SplitPlan) -> tuple[tuple[str, ...], ...]:
    """Pool and development out of the training cases, sealed the held-out ones."""
    sealed = tuple(sorted({source.subject(case) for case in source.held_out_ids}))
    people = sorted({source.subject(case) for case in source.train_ids} - set(sealed))
    order = np.random.default_rng((split.seed, 0)).permutation(len(people))
    shuffled = [people[i] for i in order]
    return tuple(shuffled[split.development :]), tuple(shuffled[: split.development]), sealed
