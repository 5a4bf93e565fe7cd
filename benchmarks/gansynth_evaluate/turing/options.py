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
MOST = 1000  # most images of each kind in a study
LONGEST = 4000  # most characters of the instructions


@dataclass(frozen=True)
class TuringOptions(Document):
    """How real and synthetic images are chosen and shown."""

    n: int = 50  # images of each kind; with `per_class` of each kind and class
    # real cases: held-out ones, training cases, or all. None takes the held-out ones if there are
    # enough, else all.
    origin: Origin | None = None
    # cases of another source, as JSON of a `SourceRequest`; None for the run's own
    real: Mapping[str, Any] | None = None
    # most images cut from one real case; above one only where the generator's space cuts crops or
    # slices
    per_case: int = 1
    classes: tuple[str, ...] = ()  # names of the classes of both kinds; empty for all
    per_class: bool = False  # whether each class has as many images
    channel: str | None = None  # the only channel shown; None for all, side by side
    # display window: `real` for percentiles of all real images, the same for every image; `own` for
    # each image's own
    contrast: Contrast = "real"
    seed: int | None = None  # of the samples; None for a random one
    # conditions of the samples, and which are accepted
    samples: SampleRequest = field(default_factory=SampleRequest)
    instructions: str = ""  # text that raters read before they begin

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
