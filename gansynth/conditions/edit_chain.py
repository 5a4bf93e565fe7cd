"""Chains of edits: parsing, and edited label maps that a generator draws while it is trained.

An edit is one text (``elastic``, ``shift:max_mm=12,classes=1+2``) that command lines, runs, sample
banks and processes pass on. Doncenco 2022 (sec. 2.5) trains on pairs of patients: the generator
draws the tumour of A on the brain of B. The discriminator sees it beside B's image and label map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gansynth.core.case_pool import CaseContext, CasePool, PlacedCase
from gansynth.core.edit import Edit, EditContext
from gansynth.core.geometry import Rng
from gansynth.core.registry import installed
from gansynth.core.schema import Case, LabelArray
from gansynth.runtime.options import read_options

ContextFn = Callable[[Case], LabelArray]
"""Makes the context channels of a case in the generator's space."""


def build_edits(texts: Sequence[str]) -> list[Edit]:
    """Build edits from their texts, in order."""
    return [build_edit(text) for text in texts]


def build_edit(text: str) -> Edit:
    """Build one edit: ``NAME`` or ``NAME:KEY=VALUE,...``; several values of a key as ``1+2``."""
    name, colon, options = text.partition(":")
    cls = installed().edit(name)
    return cls(read_options(cls.Options, options, f"--edit {text}")) if colon else cls()


def drawn_edits(
    context: EditContext, edits: Sequence[Edit], rng: Rng
) -> Iterator[tuple[Edit, dict[str, Any], EditContext]]:
    """Draw and apply edits in order; yield each with its parameters and the context after it."""
    for edit in edits:
        if edit.options.share < 1 and rng.random() >= edit.options.share:
            continue
        params = edit.draw(context, rng)
        context = context.edited(edit, params)
        yield edit, params, context


def apply_edits(
    context: EditContext, edits: Sequence[Edit], rng: Rng
) -> tuple[EditContext, list[dict[str, Any]]]:
    """Draw and apply edits in order; return the context after all, and the recorded steps."""
    steps: list[dict[str, Any]] = []
    for edit, params, after in drawn_edits(context, edits, rng):
        context = after
        steps.append({"edit": edit.name, "params": params})
    return context, steps


@dataclass(frozen=True)
class EditedLabelMaps:
    """Edits the label maps of cases; equal keys give equal maps.

    Args:
        case_pool: the training cases, in the space that batches are cut in.
        edits: in order.
        context: makes context channels of a case in that space; None for none.
        follows: whether context is moved along with edits; else it is made of the edited case.
    """

    case_pool: CasePool
    edits: Sequence[Edit]
    _: KW_ONLY
    context: ContextFn | None = None
    follows: bool = True

    def __call__(
        self, case: Case, placed: PlacedCase, key: np.random.SeedSequence
    ) -> tuple[LabelArray, LabelArray | None]:
        """Return the edited label map of a case, int16, and its context.

        Args:
            case: in the generator's space, labels without the ignore value.
            placed: where it was cut.
            key: seeds everything random.
        """
        rng = np.random.default_rng(key)
        body = None if self.case_pool.space.cuts else partial(self.case_pool.body, case)
        case_context = CaseContext(
            case.own, placed.origin, placed.shape, 0, self.case_pool, None, body
        )
        moved = self.context(case) if self.context is not None and self.follows else None
        before = EditContext(case_context.labels, case_context.schema, case_context, moved)
        after, _ = apply_edits(before, self.edits, rng)
        labels = case.over(after.labels)
        if self.context is not None and not self.follows:
            return labels, self.context(replace(case, labels=labels))
        return labels, after.channels
