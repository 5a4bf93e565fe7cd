"""What samples are asked to be, and which of them are let in: one value that is handed on.

``gansynth.sampling.request_parsing.read_request`` makes one of what a command line or the
environment says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from gansynth.runtime.serialise import Document

SETTINGS = "settings"
"""Key of a sample's provenance, and mark of a draw log's line: what samples are drawn with."""


@dataclass(frozen=True)
class SampleRequest(Document):
    """See above; the usual one asks nothing special.

    Attributes:
        seed: seeds conditions and latents.
        edits: condition edits as texts, in order; None for the run's own.
        boxes: which boxes samples are asked to have (``gansynth.conditions.boxes``); None for the
            usual ones.
        classes: names of the classes to draw samples of; None for all.
        conditions: a ``SourceRequest`` as JSON: the cases whose label maps, or images, are drawn
            from or into, instead of the run's own training cases.
        lesions: how lesions are put into real images (``gansynth.conditions.lesion_placement``);
            None as usual.
        weights: file that says which conditions are drawn more often than others
            (``gansynth.evaluation.failures``), by its whole path; None draws all alike.
        filters: which samples are let in (``gansynth.sampling.filters``), each ``NAME`` or
            ``NAME:KEY=VALUE,...``; none lets in all that the generator itself finds no flaw in.
        keep_flawed: samples that the generator itself finds flawed are let in, too.
    """

    seed: int = 0
    edits: tuple[str, ...] | None = None
    boxes: str | None = None
    classes: tuple[str, ...] | None = None
    conditions: Mapping[str, Any] | None = None
    lesions: str | None = None
    weights: str | None = None
    filters: tuple[str, ...] = ()
    keep_flawed: bool = False

    @classmethod
    def among(cls, doc: Mapping[str, Any]) -> Self:
        """Read it from a document that has other keys, too."""
        return cls.from_json({f.name: doc[f.name] for f in fields(cls) if f.name in doc})
