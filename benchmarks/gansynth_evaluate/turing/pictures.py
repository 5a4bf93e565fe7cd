"""Real and synthetic images, processed alike: same crops, windows and eight bits, in random order.

A rater's page has these bytes only, equally many for each image.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth.core.identity import matches
from gansynth.core.lineage import Lineage
from gansynth.core.schema import FloatArray, Schema, content_hash
from gansynth.core.source import CaseSource, case_record
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.data.held_out import held_out_of
from gansynth.report.png import scaled
from gansynth.runtime.errors import DataFault, TrainingFault, UsageFault, did_you_mean
from gansynth.runtime.files import in_units
from gansynth.runtime.progress import Reporter
from gansynth.sampling.manifest import Run
from gansynth.sampling.quality_gate import reject_reason_of, validate_sample
from gansynth.sampling.run_source import open_real
from gansynth_evaluate.turing.image_selection import (
    REAL,
    SYNTHETIC,
    ChosenImage,
    TuringOptions,
    choose,
)

if TYPE_CHECKING:
    from gansynth.sampling.sampler import Sampler

Bytes = npt.NDArray[np.uint8]
LARGEST = 256 << 20  # most bytes of all images: a page holds them, and a browser opens it
MEASURED = 64  # most real images used for the display window
AT_ONCE = {2: 16, 3: 2}  # batch size of sampling, by the number of axes
DRAWN = 4  # most samples generated for each one shown; the others are rejected


@dataclass(frozen=True)
class StudyImages:
    """The shown images, and their secret key."""

    images: Bytes  # uint8 (N, C, D, H, W), in random order; D is 1 for slices
    key: list[dict[str, Any]]  # truth of each image, JSON-able
    schema: Schema
    about: dict[str, Any]  # origin of the images, JSON-able; nothing in it is of a single image


def gather(run: Run, source: CaseSource, options: TuringOptions, reporter: Reporter) -> StudyImages:
    """Cut real images, generate as many samples, and shuffle them."""
    maker = _ImageMaker(run, source, options)
    with reporter.task(2 * options.n, "image") as bar:
        maker.measure()
        maker.draw(bar.advance)
        maker.cut(bar.advance)
    order = list(range(len(maker.images)))
    secrets.SystemRandom().shuffle(order)
    channels = [maker.schema.channels[i] for i in maker.kept]
    schema = replace(maker.schema, channels=tuple(channels))
    return StudyImages(
        _stacked([maker.images[i] for i in order]),
        [maker.key[i] for i in order],
        schema,
        maker.about,
    )


class _ImageMaker:
    """Makes both kinds of images of a run: ``measure``, ``draw``, then ``cut``."""

    def __init__(self, run: Run, source: CaseSource, options: TuringOptions) -> None:
        self.run, self.own_source, self.options = run, source, options
        self.seed = secrets.randbelow(2**31) if options.seed is None else options.seed
        self.rng = np.random.default_rng(secrets.randbits(128))
        self.schema: Schema = run.generator.schema
        self.kept = _channels(self.schema, options.channel)
        self.images: list[Bytes] = []
        self.key: list[dict[str, Any]] = []
        self.about: dict[str, Any] = {"rejected": 0}
        self._used: set[str] = set()

    @cached_property
    def real(self) -> CaseSource:
        own_source = self._sampler.source
        return own_source if self.options.real is None else open_real(self.options.real, own_source)

    def measure(self) -> None:
        """Fit the display window on real images of the same pool, not on those shown."""
        self._check_bytes()
        chosen, _ = choose(self.real, self.options, self.rng)
        cut = RealImageCutter(self.real, self.run, self.rng)
        order = self.rng.permutation(len(chosen))[:MEASURED].tolist()
        measured = {chosen[i].case: chosen[i] for i in order}
        self.windows = find_windows([cut(case) for case in measured])

    def draw(self, advance: Callable[[int], None]) -> None:
        """Generate samples, and skip rejected ones."""
        sampler, n = self._sampler, self.options.n
        reject_reasons = Counter[str]()
        at_once = AT_ONCE[self.schema.ndim]
        made = first = 0
        while made < n:
            if first > DRAWN * n + at_once:
                raise TrainingFault(
                    "turing-test.samples-mostly-rejected",
                    _mostly_flawed(self.run, first, reject_reasons),
                )
            for sample in sampler.draw_raw(first, min(at_once, n - made)):
                first += 1
                try:
                    validate_sample(sample, self.schema, (), "float32")
                except DataFault as fault:
                    reject_reasons[reject_reason_of(fault)] += 1
                    continue
                self._used.add(str(sample.provenance.get("case")))
                self._add(sample.image, SYNTHETIC, {"seed": self.seed, "index": first - 1})
                made += 1
                advance(1)
        self.about["rejected"] += reject_reasons.total()

    def cut(self, advance: Callable[[int], None]) -> None:
        """Cut the real images, if possible from cases that no sample is based on."""
        chosen, origin = choose(self.real, self.options, self.rng, used=self._used)
        cut = RealImageCutter(self.real, self.run, self.rng)
        for image in chosen:
            self._add(cut(image.case), REAL, asdict(image))
            advance(1)
        self.about |= self._about(chosen, origin)

    def _about(self, chosen: Sequence[ChosenImage], origin: str) -> dict[str, Any]:
        sequences = Counter(image.sequence for image in chosen if image.sequence is not None)
        cases = {image.case for image in chosen}
        return {
            "source": self.real.name,
            "from": origin,
            "subjects": len({image.subject for image in chosen}),
            "cases": len(cases),
            "seen_by_run": len(seen_by_run(self.real, chosen, self.run.lineage)),
            "shared_with_samples": len(cases & self._used),
            "sequences": dict(sorted(sequences.items())),
            "windows": [list(self.windows[i]) for i in self.kept],
        }

    def _add(self, image: FloatArray, truth: str, provenance: dict[str, Any]) -> None:
        """Convert an image to eight bits, in the same way for both kinds."""
        size = self.run.space.size
        if size and image.shape[1:] != size:
            raise DataFault(
                "turing-test.image-sizes-differ",
                f"{self.run.folder}: a {truth} image has {image.shape[1:]} voxels, expected {size} "
                "of both kinds; this run cannot be tested",
            )
        image = np.asarray(image[self.kept], np.float32)
        windows = [self.windows[i] for i in self.kept]
        if self.run.space.oriented:  # the head and the front up, the patient's left on the right
            image = np.flip(image, axis=tuple(range(1, image.ndim)))
        flat = scaled(image.reshape(len(image), 1, -1), windows, 8)[0]
        shape = (len(image), *[1] * (4 - image.ndim), *image.shape[1:])
        self.images.append(flat.reshape(shape))
        self.key.append({"truth": truth} | provenance)

    @cached_property
    def _sampler(self) -> Sampler:
        from gansynth.sampling.sampler import Sampler

        classes = self.options.classes or None
        request = replace(self.options.samples, seed=self.seed, classes=classes)
        return Sampler(self.run, self.own_source, request)

    def _check_bytes(self) -> None:
        """Refuse more images than a browser opens at once, before sampling."""
        count = 2 * self.options.n
        size = count * len(self.kept) * prod(self.run.space.size)
        if size > LARGEST:
            raise UsageFault(
                "turing-test.images-too-large",
                f"-n {self.options.n}: {count} images of {in_units(size)} in all, expected "
                f"{in_units(LARGEST)} at most; use fewer, or one --channel",
            )


def _channels(schema: Schema, name: str | None) -> list[int]:
    """Indices of the shown channels."""
    if name is None:
        return list(range(len(schema.channels)))
    if name not in schema.channels:
        raise UsageFault(
            "turing-test.channel-unknown",
            f"--channel {name}: unknown, expected one of: {', '.join(schema.channels)}."
            f"{did_you_mean(name, schema.channels)}",
        )
    return [schema.channels.index(name)]


def _stacked(images: Sequence[Bytes]) -> Bytes:
    """Stack images (C, D, H, W) of any sizes, padding smaller ones with black."""
    shape = np.max([image.shape for image in images], axis=0).tolist()
    whole = np.zeros((len(images), *shape), np.uint8)
    for number, image in enumerate(images):
        starts = [(n - m) // 2 for n, m in zip(shape, image.shape, strict=True)]
        at = [slice(s, s + m) for s, m in zip(starts, image.shape, strict=True)]
        whole[number][tuple(at)] = image
    return whole


def _mostly_flawed(run: Run, drawn: int, reject_reasons: Counter[str]) -> str:
    most = [f"{count} times {reason}" for reason, count in reject_reasons.most_common(3)]
    reasons = "; ".join(most)
    return (
        f"{run.folder}: {reject_reasons.total()} of {drawn} samples are rejected ({reasons}), "
        "expected "
        "images to show. Look at them: gansynth sample RUN --sheet; train longer, or use "
        "--filter none"
    )


# -- real images -----------------------------------------------------------------------------------

PERCENTILES = (0.5, 99.5)  # intensities of black and white in the display window
VOXELS = 50_000  # most voxels of a channel of an image used for its window
TRIES = 50  # random positions tried in a case for a new crop that training would accept
Windows = tuple[tuple[float, float], ...]


class RealImageCutter:
    """Cuts distinct real images in a run's space, at positions that training accepts."""

    def __init__(self, source: CaseSource, run: Run, rng: np.random.Generator) -> None:
        self._crops = CaseBatches(CaseCache(source), run.space)
        self._accepts, self._cuts = run.generator.accepts, run.space.cuts
        self._rng = rng
        self._seen: set[str] = set()

    def __call__(self, case_id: str) -> FloatArray:
        """An image of a case: float32 (C, D, H, W) or (C, H, W)."""
        fallback: FloatArray | None = None
        for _ in range(TRIES if self._cuts else 1):
            case = self._crops.cut(case_id, self._rng)
            if not np.isfinite(case.image).all():
                raise DataFault(
                    "turing-test.case-not-finite",
                    f"case {case_id!r}: holds NaN or infinite voxels, expected finite ones; see "
                    "gansynth check",
                )
            if content_hash(case.image) in self._seen:
                continue
            fallback = case.image
            if self._accepts(case):
                break
        if fallback is None:
            raise UsageFault(
                "turing-test.case-images-repeated",
                f"case {case_id!r}: yields only images that are shown already, expected different "
                "ones; lower -n, or check the cases with gansynth check",
            )
        self._seen.add(content_hash(fallback))
        return fallback


def find_windows(images: Sequence[FloatArray]) -> Windows:
    """Intensities of black and white in each channel of images (C, ...); never empty."""
    parts = []
    for image in images:
        flat = image.reshape(len(image), -1)
        parts.append(flat[:, :: -(-flat.shape[1] // VOXELS)])
    low, high = np.percentile(np.concatenate(parts, axis=1), PERCENTILES, axis=1)
    ends = zip(low.tolist(), high.tolist(), strict=True)
    return tuple((float(a), float(max(b, a + 1e-6))) for a, b in ends)


def seen_by_run(
    source: CaseSource, chosen: Sequence[ChosenImage], lineage: Lineage
) -> Collection[str]:
    """The chosen cases that the run or its ancestors were trained on."""
    cases = [case_record(source, case) for case in {image.case for image in chosen}]
    asked = held_out_of(source, cases)
    matched = [matches(maker, asked) for maker in lineage.everyone()]
    return {case for image in matched for case, match in image.items() if match.kind != "subject"}
