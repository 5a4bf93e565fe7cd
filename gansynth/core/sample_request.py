"""What is asked of samples beside edits and boxes, and which of them are let in.

One value, so that a command line, a run, a bank and a producer process can hand it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gansynth.runtime.serialise import Document

SETTINGS = "settings"
"""Key of a sample's provenance, and mark of a draw log's line: what samples are drawn with."""


@dataclass(frozen=True)
class Asking(Document, later=("conditions", "lesions", "weights", "filters")):
    """See above; the usual one asks nothing special.

    Attributes:
        conditions: a ``SourceRequest`` as JSON: the cases whose label maps, or images, are drawn
            from or into, instead of the run's own training cases.
        lesions: how lesions are put into real images (``gansynth.conditions.lesion_placement``);
            None as usual.
        weights: file that says which conditions are drawn more often than others
            (``gansynth.evaluation.failures``), by its whole path; None draws all alike.
        filters: which samples are admitted to a bank (``gansynth.sampling.filters``), each ``NAME``
            or ``NAME:KEY=VALUE,...``; none admits all that the generator itself finds no flaw in.
    """

    conditions: Mapping[str, Any] | None = None
    lesions: str | None = None
    weights: str | None = None
    filters: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != Asking()
