"""Inner folds: a fold's training cases dealt out again, and nothing else that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gansynth.core.schema import Case, Schema
from gansynth.core.source import CaseSource, Split
from gansynth.core.space import Space
from gansynth.data.subjects import grouped_splits
from gansynth.runtime.errors import IntegrityFault


def inner_folds(source: CaseSource, folds: int, seed: int) -> list[Split]:
    """A fold's training cases in inner folds in which nobody is on both sides.

    Args:
        folds: how many, at least 2.

    Raises:
        DataFault: fewer subjects than folds.
    """
    subject_of = {case: source.subject(case) for case in source.train_ids}
    return grouped_splits(source.train_ids, subject_of, folds, seed)


class InnerSource(CaseSource):
    """An inner fold of a source; a case that the outer fold holds out cannot be read through it."""

    def __init__(self, outer: CaseSource, split: Split) -> None:
        self.outer = outer
        self.request = outer.request
        self._train, self._held_out = tuple(sorted(split["train"])), tuple(sorted(split["val"]))
        self._known = frozenset((*self._train, *self._held_out))
        self._refuse(self._known - set(outer.train_ids))

    @property
    def name(self) -> str:
        """The outer source's."""
        return self.outer.name

    @property
    def schema(self) -> Schema:
        """The outer source's."""
        return self.outer.schema

    @property
    def space(self) -> Space:
        """The outer source's."""
        return self.outer.space

    @property
    def train_ids(self) -> tuple[str, ...]:
        """Training cases of the inner fold."""
        return self._train

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """Training cases of the outer fold that the inner one holds out."""
        return self._held_out

    @property
    def unit(self) -> str:
        """The outer source's."""
        return self.outer.unit

    @property
    def places(self) -> tuple[Path, ...]:
        """The outer source's."""
        return self.outer.places

    def subject(self, case_id: str) -> str:
        """The person a case belongs to."""
        return self.outer.subject(case_id)

    def shape(self, case_id: str) -> tuple[int, ...]:
        """Spatial shape of a case."""
        self._refuse({case_id} - self._known)
        return self.outer.shape(case_id)

    def load(self, case_id: str) -> Case:
        """Read a training case of the outer fold.

        Raises:
            IntegrityFault: another one.
        """
        self._refuse({case_id} - self._known)
        return self.outer.load(case_id)

    def _refuse(self, cases: Sequence[str] | set[str] | frozenset[str]) -> None:
        if cases:
            raise IntegrityFault(
                f"{self.name} fold {self.fold}: {min(cases)!r} is no training case, expected those "
                "only: held-out cases must not steer what is drawn. Take other inner folds"
            )
