"""What a user requests of samples, and the filters that admit them.

``gansynth.sampling.request_parsing.read_request`` reads one from a command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from gansynth.runtime.serialise import Document

SETTINGS = "settings"
"""Key in a sample's provenance and in a draw log's line: the request it was generated with."""


@dataclass(frozen=True)
class SampleRequest(Document):
    """A request of samples; the default sets no constraints.

    Attributes:
        seed: seeds conditions and latents.
        edits: condition edits as texts, in order; None for the run's own.
        boxes: rule for the samples' boxes (``gansynth.conditions.boxes``); None for the usual
            ones.
        classes: names of the classes to generate; None for all.
        conditions: a ``SourceRequest`` as JSON: cases that provide label maps or images instead of
            the run's own training cases.
        prevalence: share of samples with a lesion; None for the share of the training cases.
        lesions: how lesions are put into real images (``gansynth.conditions.lesion_placement``);
            None as usual.
        weights: file of weights by which some conditions are drawn more often
            (``gansynth_evaluate.hard_cases``), absolute path; None draws all alike.
        filters: filters of samples (``gansynth.sampling.filters``), each ``NAME`` or
            ``NAME:KEY=VALUE,...``; none admits all that the generator itself does not reject.
        keep_flawed: admit samples that the generator itself rejects, too.
    """

    seed: int = 0
    edits: tuple[str, ...] | None = None
    boxes: str | None = None
    classes: tuple[str, ...] | None = None
    conditions: Mapping[str, Any] | None = None
    prevalence: float | None = None
    lesions: str | None = None
    weights: str | None = None
    filters: tuple[str, ...] = ()
    keep_flawed: bool = False

    @classmethod
    def among(cls, doc: Mapping[str, Any]) -> Self:
        """Read the request from a document that has other keys, too."""
        return cls.from_json({f.name: doc[f.name] for f in fields(cls) if f.name in doc})
