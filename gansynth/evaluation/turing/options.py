"""Options of a Visual Turing Test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gansynth.core.sample_request import SampleRequest
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.serialise import Document

REAL, SYNTHETIC = "real", "synthetic"
Origin = Literal["held-out", "training", "all"]
Contrast = Literal["real", "own"]
MOST = 1000
"""Most images of each kind in a session."""
LONGEST = 4000
"""Most characters of the instructions."""


@dataclass(frozen=True)
class TuringOptions(Document):
    """How real and synthetic images are chosen and shown.

    Attributes:
        n: images of each kind; with ``per_class`` of each kind and class.
        origin: real cases: held-out ones, training cases, or all. None takes the held-out ones if
            there are enough, else all.
        real: cases of another source, as JSON of a ``SourceRequest``; None for the run's own.
        per_case: most images cut from one real case; above one only where the generator's space
            cuts crops or slices.
        classes: names of the classes of both kinds; empty for all.
        per_class: whether each class has as many images.
        channel: the only channel shown; None for all, side by side.
        contrast: display window: ``real`` for percentiles of all real images, the same for every
            image; ``own`` for each image's own.
        seed: of the samples; None for a random one.
        samples: conditions of the samples, and which are accepted.
        instructions: text that raters read before they begin.
        show_results: whether raters see their own table after the last answer.
    """

    n: int = 50
    origin: Origin | None = None
    real: Mapping[str, Any] | None = None
    per_case: int = 1
    classes: tuple[str, ...] = ()
    per_class: bool = False
    channel: str | None = None
    contrast: Contrast = "real"
    seed: int | None = None
    samples: SampleRequest = field(default_factory=SampleRequest)
    instructions: str = ""
    show_results: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.n <= MOST:
            raise UsageFault(f"-n {self.n}: expected 1 to {MOST} images of each kind")
        if self.per_case < 1:
            raise UsageFault(f"--per-case {self.per_case}: expected at least 1")
        if len(self.instructions) > LONGEST:
            raise UsageFault(
                f"--instructions: {len(self.instructions)} characters, expected {LONGEST} at most; "
                "tell the raters the rest in person"
            )
        if len(set(self.classes)) < len(self.classes):
            raise UsageFault(f"--class {' --class '.join(self.classes)}: expected different ones")
