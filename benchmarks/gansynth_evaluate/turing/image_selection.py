"""Options of a Visual Turing Test, and its real images: balanced over subjects and sequences.

Where each sequence of a slice is its own case (``--read concat=yes``), a generator is trained on
all sequences alike. Its samples have no sequence. They are compared with real images of every
sequence in equal numbers (Han et al. 2018, section 3.3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import CaseSource
from gansynth.data.folds import class_numbers
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.serialise import Document

REAL, SYNTHETIC = "real", "synthetic"
Origin = Literal["held-out", "training", "all"]
MOST_IMAGES = 1000  # most images of each kind in a study
MOST_CHARACTERS = 4000  # most characters of the instructions


@dataclass(frozen=True)
class TuringOptions(Document):
    """How real and synthetic images are chosen and shown."""

    n: int = 50  # images of each kind
    # real cases: held-out ones, training cases, or all. None takes the held-out ones if there are
    # enough, else all.
    origin: Origin | None = None
    # cases of another source, as JSON of a `SourceRequest`; None for the run's own
    real: Mapping[str, Any] | None = None
    classes: tuple[str, ...] = ()  # names of the classes of both kinds; empty for all
    channel: str | None = None  # the only channel shown; None for all, side by side
    seed: int | None = None  # of the samples; None for a random one
    # conditions of the samples, and which are accepted
    samples: SampleRequest = field(default_factory=SampleRequest)
    instructions: str = ""  # text that raters read before they begin

    def __post_init__(self) -> None:
        if not 1 <= self.n <= MOST_IMAGES:
            raise UsageFault(
                "turing-test.image-count-out-of-range",
                f"-n {self.n}: expected 1 to {MOST_IMAGES} images of each kind",
            )
        if len(self.instructions) > MOST_CHARACTERS:
            raise UsageFault(
                "turing-test.instructions-too-long",
                f"--instructions: {len(self.instructions)} characters, expected {MOST_CHARACTERS} "
                "at most; tell the raters the rest in person",
            )
        if len(set(self.classes)) < len(self.classes):
            raise UsageFault(
                "turing-test.classes-not-different",
                f"--class {' --class '.join(self.classes)}: expected different ones",
            )


@dataclass(frozen=True)
class ChosenImage:
    """A selected real image."""

    case: str
    subject: str
    sequence: str | None = None  # name of the sequence if sequences are separate cases, else None


def sequences_of(source: CaseSource) -> tuple[str, ...]:
    """Names of sequences that are separate cases; empty if they are channels."""
    slices = source.space.host.get("slices") or {}
    if not slices.get("concat"):
        return ()
    return tuple(source.schema.channels[0].split("+"))


def choose(
    source: CaseSource,
    options: TuringOptions,
    rng: np.random.Generator,
    *,
    used: Collection[str] = (),
) -> tuple[list[ChosenImage], Origin]:
    """Choose real images.

    Args:
        options: number, side of the fold and classes.
        used: cases that samples are based on; others are preferred.

    Returns:
        The requested images, and the origin of their cases.
    """
    origins: Sequence[Origin] = ("held-out", "all") if options.origin is None else [options.origin]
    if options.real is not None and options.origin is None:
        origins = ("all",)
    for origin in origins:
        pool = _ImagePool.of(source, _ids(source, origin), options)
        if pool.size >= options.n:
            return pool.without(used, options.n).draw(options.n, rng), origin
    raise UsageFault("turing-test.too-few-images", _too_few(source, options, origins[-1], pool))


def _ids(source: CaseSource, origin: Origin) -> tuple[str, ...]:
    if origin == "held-out":
        return source.held_out_ids
    return source.train_ids if origin == "training" else (*source.train_ids, *source.held_out_ids)


@dataclass(frozen=True)
class _ImagePool:
    """Cases to show; with several sequences of a slice, the slice."""

    people: dict[str, list[str]]
    sequences: tuple[str, ...]

    @classmethod
    def of(cls, source: CaseSource, ids: Iterable[str], options: TuringOptions) -> _ImagePool:
        classes = options.classes
        numbers = class_numbers(source, classes, asked="--class") if classes else None
        cases = [i for i in ids if numbers is None or source.header(i).label_class in numbers]
        sequences = sequences_of(source)
        people: dict[str, list[str]] = {}
        for case in cases:
            plane = _plane(case, sequences)
            if not sequences or case.endswith(f"/{sequences[0]}"):
                people.setdefault(source.header(case).subject, []).append(plane)
        return cls(people, sequences)

    @property
    def size(self) -> int:
        """Number of available images."""
        return sum(map(len, self.people.values()))

    def without(self, used: Collection[str], n: int) -> _ImagePool:
        """The pool without some cases; unchanged if fewer than ``n`` images would remain."""
        planes = {_plane(case, self.sequences) for case in used}
        left = {who: [p for p in cases if p not in planes] for who, cases in self.people.items()}
        pool = replace(self, people={who: cases for who, cases in left.items() if cases})
        return pool if pool.size >= n else self

    def draw(self, n: int, rng: np.random.Generator) -> list[ChosenImage]:
        """Select ``n`` images, balanced over subjects, then cases, then sequences."""
        planes = [
            (who, plane)
            for who, count in _quotas({w: len(f) for w, f in self.people.items()}, n, rng).items()
            for plane in _spread_cases(self.people[who], count, rng)
        ]
        names: list[str | None] = [*self.sequences] or [None]
        order = rng.permutation(len(names)).tolist()
        dealt = [names[order[i % len(order)]] for i in range(n)]
        shuffled = [dealt[i] for i in rng.permutation(n).tolist()]
        return [
            ChosenImage(plane if name is None else f"{plane}/{name}", who, name)
            for (who, plane), name in zip(planes, shuffled, strict=True)
        ]


def _plane(case: str, sequences: Sequence[str]) -> str:
    """The slice of a case that is one of its sequences; otherwise the case itself."""
    for name in sequences:
        if case.endswith(f"/{name}"):
            return case.removesuffix(f"/{name}")
    return case


def _quotas(sizes: dict[str, int], n: int, rng: np.random.Generator) -> dict[str, int]:
    """Images of each subject: balanced as far as their cases allow, ``n`` of them in all."""
    people = sorted(sizes)
    order = [people[i] for i in rng.permutation(len(people)).tolist()]
    quotas, left = dict.fromkeys(people, 0), n
    while left:
        takers = [who for who in order if quotas[who] < sizes[who]][:left]
        for who in takers:
            quotas[who] += 1
        left -= len(takers)
    return {who: count for who, count in quotas.items() if count}


def _spread_cases(cases: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Cases of one subject, one from each of ``count`` equal parts: neighbours look alike."""
    ordered = sorted(cases)
    edges = np.linspace(0, len(ordered), count + 1).astype(int)
    return [
        ordered[int(rng.integers(first, last))]
        for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]


def _too_few(source: CaseSource, options: TuringOptions, origin: Origin, pool: _ImagePool) -> str:
    kind = {"held-out": "held-out ", "training": "training ", "all": ""}[origin]
    ways = [f"use -n {pool.size}"] if pool.size else []
    if origin != "all":
        ways.append("take others with --from all")
    ways = ways or ["name another source with --real KIND:WHERE"]
    return (
        f"-n {options.n}: {source.name} has {pool.size} {kind}image(s) to show, "
        f"expected at least {options.n}; {', or '.join(ways)}"
    )
