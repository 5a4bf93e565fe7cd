"""What is asked of samples beside edits and boxes, and which of them are let in.

One value, so that a command line, a run, a bank and a producer process can hand it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SETTINGS = "settings"
"""Key of a sample's provenance, and mark of a draw log's line: what samples are drawn with."""


@dataclass(frozen=True)
class Asking:
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

    def to_json(self) -> dict[str, Any]:
        """A JSON document that ``from_json`` reads back; only what is not as usual is in it."""
        usual = Asking()
        document: dict[str, Any] = {}
        for key in ("conditions", "lesions", "weights", "filters"):
            value = getattr(self, key)
            if value != getattr(usual, key):
                document[key] = list(value) if key == "filters" else value
        return document

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Asking:
        """Read what ``to_json`` wrote.

        Raises:
            TypeError: an unknown key.
        """
        return cls(**{**doc, "filters": tuple(doc.get("filters", ()))})


"""First cell of a line that says what the samples of the lines below it were drawn with."""
