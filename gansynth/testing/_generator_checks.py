"""The checks of a generator: it is fitted on toy cases, and its samples of others are judged."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gansynth.conditions.lesion_placement import PlacedLesion, lesion_drawer
from gansynth.core.capabilities import REAL
from gansynth.core.case_pool import CaseContext, CasePool, TrainingCases, body_of
from gansynth.core.conformance import CheckFailed, CheckSkipped, ConformanceReport
from gansynth.core.generator import (
    Generator,
    capabilities_of,
    context_of,
    generated,
    given_of,
    handed,
    learn,
    move,
)
from gansynth.core.schema import (
    OUTSIDE,
    Boxes,
    Case,
    Condition,
    FloatArray,
    LabelArray,
    Mask,
    Sample,
    lesion_mask,
)
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement, Space
from gansynth.data.batches import CaseCache
from gansynth.data.label_statistics import label_share
from gansynth.imaging.blending import hole, rim_voxels
from gansynth.runtime.devices import seeded
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.deidentify import MOST_REPEATED, repeated_share
from gansynth.testing.case_readers import GuardedSource
from gansynth.testing.toy import contrasts, without_blobs

Fit = Callable[["Generator", Sequence[Case], int], object]
"""(generator, training cases in its space, steps): trains it in place."""
PLACES = "where=anywhere,inside=0.6,tries=100"  # lesion placement for the small toy bodies
TRIES = 50


class GeneratorBench:
    """One generator on toy cases of one number of axes."""

    def __init__(
        self,
        report: ConformanceReport,
        cls: type[Generator],
        options: dict[str, Any],
        axes: int,
        side: int | None = None,
    ) -> None:
        self.report, self.cls, self.options = report, cls, options
        self.axes, self.side = axes, side
        self.generator: Generator
        self.train_cases: list[Case] = []
        self.held_out: list[Case] = []
        self.reference: list[Case] = []
        self.lesions: LesionCases | None = None
        self.state: dict[str, Any] = {}

    @property
    def heeds_boxes(self) -> bool:
        return "boxes" in self.generator.capabilities.takes

    def check(self, name: str, function: Callable[[], object]) -> bool:
        return self.report.run(f"{self.axes}d: {name}", function)

    def build(self) -> None:
        """Build the networks; they have parameters unless there is nothing to train."""
        can = capabilities_of(self.cls, self.cls.Options(**self.options))
        # Most data sets have no boxes and no classes.
        given = {"boxes": "boxes" in can.takes, "classes": "class" in can.takes}
        self.source = GuardedSource(self.axes, side=self.side, **given)
        self.space, self.schema = self.source.space, self.source.schema
        if can.range == "tanh":
            self.space = self.space.with_window(map(self.source.load, self.source.train_ids))
            self.schema = self.space.generator_schema(self.source.schema)
        generator = self.new()
        parameters = [p for net in generator.nets.values() for p in net.parameters()]
        if generator.phases() and not sum([p.numel() for p in parameters]):
            raise CheckFailed("has phases to train but no parameters")
        if bool(generator.phases()) != can.trains:
            raise CheckFailed(f"trains is {can.trains}, expected True with phases and only then")
        self.generator = generator
        self.train_cases = [
            self.space.to_generator(c) for c in map(self.source.load, self.source.train_ids)
        ]
        self.held_out = [
            self.space.to_generator(c) for c in map(self.source.load, self.source.held_out_ids)
        ]
        self.reference = self.held_out
        if "lesion" in can.takes:
            self.lesions = LesionCases(generator, self.source, self.space, len(self.held_out))
            self.held_out = self.lesions.cases
        self.source.closed = True

    def new(self) -> Generator:
        # Initial weights come from torch's global random state, which is seeded here.
        with seeded(0):
            try:
                return self.cls(self.schema, self.space.size, self.cls.Options(**self.options))
            except UsageFault as refusal:
                raise CheckSkipped(f"refused: {refusal}") from refusal

    def train(self, fit: Fit, steps: int) -> None:
        self.state = learn(self.generator, self.train_cases, unlabelled(self.train_cases))
        made = partial(context_of, self.generator)
        self.check("context has few values", lambda: list(map(made, self.train_cases)))
        fit(self.generator, self.train_cases, steps)

    def condition(self, case: Case, seed: int) -> Condition:
        if self.lesions is not None:
            return handed(self.generator, self.lesions.condition(case, seed))
        condition = Condition(
            labels=copied(case.labels),
            boxes=copied_boxes(case.boxes) if self.heeds_boxes else None,
            label_class=case.label_class,
            context=context_of(self.generator, case),
            given=given_of(self.generator, case),
            moved=case.image.copy() if "image" in self.generator.capabilities.takes else None,
            latent_seed=seed,
        )
        return handed(self.generator, condition)


class LesionCases:
    """Lesions of toy training cases, placed into held-out toy bodies without lesions."""

    def __init__(self, generator: Generator, source: CaseSource, space: Space, count: int) -> None:
        self._sampler = lesion_drawer(PLACES, generator.capabilities.lesions)
        self._case_pool = CasePool(TrainingCases(CaseCache(source)), space)
        bodies = [without_blobs(source.load(i), n) for n, i in enumerate(source.held_out_ids)]
        self.bodies = [space.to_generator(body) for body in bodies[:count]]
        self._shape = source.load(source.train_ids[0]).image.shape[1:]
        self.inserted = [self._insert(n, body) for n, body in enumerate(self.bodies)]

    def _insert(self, number: int, body: Case) -> PlacedLesion:
        case_context = CaseContext(
            body, Placement((0,) * len(self._shape)), self._shape, number, self._case_pool
        )
        for attempt in range(TRIES):
            inserted = self._sampler.draw(
                case_context, (), np.random.default_rng((number, attempt))
            )
            if set(np.unique(inserted.lesion)) >= set(self._case_pool.schema.foreground):
                return inserted
        raise CheckSkipped(f"no place for a lesion in {TRIES} tries of {self._sampler.options}")

    @property
    def cases(self) -> list[Case]:
        """Backgrounds with the requested label maps."""
        pairs = zip(self.bodies, self.inserted, strict=True)
        return [replace(body, labels=inserted.labels) for body, inserted in pairs]

    def condition(self, case: Case, seed: int) -> Condition:
        """Return a new condition of one of ``cases``."""
        number = [body.id for body in self.bodies].index(case.id)
        body, inserted = self.bodies[number], self.inserted[number]
        return Condition(
            labels=inserted.labels.copy(),
            background=body.image.copy(),
            lesion=inserted.lesion.copy(),
            donor=inserted.donor.copy(),
            body=body_of(body).copy(),
            region=None if inserted.region is None else inserted.region.copy(),
            latent_seed=seed,
        )


def unlabelled(cases: Sequence[Case]) -> list[Case]:
    """Return cases as scans of another site that looks as this one: images alone."""
    return [Case(case.id, case.subject, case.image) for case in cases]


def copied(labels: LabelArray | None) -> LabelArray:
    assert labels is not None, "toy cases have labels"
    return labels.copy()


def copied_boxes(boxes: Boxes | None) -> Boxes:
    """Return a copy of boxes."""
    assert boxes is not None, "toy cases for such generators have boxes"
    return Boxes(boxes.coords.copy(), boxes.labels.copy())


# -- samples ---------------------------------------------------------------------------------------


SAME = 1e-4
"""Samples are equal if they differ by less than this share of the real images' deviation."""
GROWTH = 1.1  # most bytes of a state over those for smaller cases
VISIBLE = 1e-3  # samples differ if their root mean square difference exceeds this share of it
FAITHFUL = 0.5  # minimum variance between labels in samples, as a share of that in real images
CONTRAST = 0.5  # minimum correlation of the labels' mean intensities in samples with the real ones
DRAWN = 4  # number of samples from held-out label maps
ASKED_CASES = 4  # cases whose realness is computed
SAME_NUMBER = 1e-3  # scores are equal if they differ by less than this share of the largest


class SampleChecks:
    """Samples of held-out label maps and their checks, one method each."""

    def __init__(self, bench: GeneratorBench) -> None:
        self.bench = bench
        self.generator, self.schema = bench.generator, bench.schema
        self.cases = bench.held_out[:DRAWN]
        self.seeds = [101 + i for i in range(len(self.cases))]
        self.requested = [copied(case.labels) for case in self.cases]
        self.real = [case.image for case in bench.train_cases]
        self.deviation = float(np.mean([image.std() for image in self.real]))
        self.samples: list[Sample] = []
        self.inputs: list[Condition] = []
        self.touched: list[str] = []

    def conditions(self) -> list[Condition]:
        """Return new conditions for each call, in case the last call modified its own."""
        pairs = zip(self.cases, self.seeds, strict=True)
        return [self.bench.condition(case, seed) for case, seed in pairs]

    def draw(self) -> None:
        conditions = self.inputs = self.conditions()
        with seeded_oddly():
            before = random_states()
            self.samples = list(self.generator.sample(conditions, self.seeds))
            after = random_states()
        self.touched = [name for name in before if before[name] != after[name]]
        if len(self.samples) != len(conditions):
            raise CheckFailed(f"{len(self.samples)} samples of {len(conditions)} conditions")

    def shape(self) -> None:
        expected = (len(self.schema.channels), *self.bench.space.size)
        for sample in self.samples:
            if sample.image.shape != expected or sample.image.dtype != np.float32:
                raise CheckFailed(
                    f"image is {sample.image.dtype} {sample.image.shape}, "
                    f"expected float32 {expected}"
                )

    def finite(self) -> None:
        bad = sum(int((~np.isfinite(sample.image)).sum()) for sample in self.samples)
        if bad:
            raise CheckFailed(f"{bad} NaN or infinite voxel(s), expected finite values")

    def not_constant(self) -> None:
        for channel, name in enumerate(self.schema.channels):
            least = min(float(sample.image[channel].std()) for sample in self.samples)
            if least <= VISIBLE * self.deviation:
                raise CheckFailed(f"channel {name!r} has deviation {least:.3g}, expected an image")

    def labels_kept(self) -> None:
        self._needs_asked_labels()
        self._known_labels()
        for sample, requested in zip(self.samples, self.requested, strict=True):
            if not np.array_equal(copied(sample.labels), requested):
                raise CheckFailed("labels differ from the condition's (int16, -1 included)")

    def labels_drawn(self) -> None:
        """Each image has its own label map, or none, according to ``draws``."""
        can = self.generator.capabilities
        count = len([sample for sample in self.samples if sample.labels is not None])
        expected = len(self.samples) if can.labelled else 0
        if count != expected:
            raise CheckFailed(
                f"{count} of {len(self.samples)} samples have labels, expected {expected} from a "
                f"generator that draws {can.draws!r}"
            )
        self._known_labels()

    def outside(self) -> None:
        self._needs_labels()
        self._needs_drawn_images()
        fill = np.array(self.schema.outside_fill, np.float32)[:, None]
        for sample, labels in zip(self.samples, self.labels(), strict=True):
            difference = np.abs(sample.image[:, labels == OUTSIDE] - fill)
            if difference.max(initial=0) > SAME * self.deviation:
                raise CheckFailed(
                    f"images differ by {difference.max():.3g} from schema.outside_fill where "
                    f"labels are {OUTSIDE}, expected that constant"
                )

    def repeatable(self) -> None:
        again = self.generator.sample(self.conditions(), self.seeds)
        self.same(again, self.samples, "the same call again")

    def batch_independent(self) -> None:
        alone = [
            self.generator.sample([c], [s])[0]
            for c, s in zip(self.conditions(), self.seeds, strict=True)
        ]
        self.same(alone, self.samples, "one at a time instead of all at once")
        turned = self.generator.sample(self.conditions()[::-1], self.seeds[::-1])
        self.same(turned[::-1], self.samples, "in another order")

    def seeds_matter(self) -> None:
        self._needs_drawn_images()
        condition, seed = self.conditions()[0], self.seeds[0]
        second = self.generator.sample([replace(condition, latent_seed=seed + 1)], [seed + 1])[0]
        if "image" in self.generator.capabilities.takes and np.array_equal(
            second.image, self.samples[0].image
        ):
            raise CheckSkipped("the condition holds all randomness")
        self.differ(second, self.samples[0], "two seeds with the same labels")

    def labels_matter(self) -> None:
        self._needs_asked_labels()
        seed = self.seeds[0]
        second = self.generator.sample([replace(self.conditions()[1], latent_seed=seed)], [seed])[0]
        self.differ(second, self.samples[0], "two label maps with the same seed")

    def held_out(self) -> tuple[list[FloatArray], list[LabelArray]]:
        """Return as many real images and label maps as there are samples."""
        cases = self.bench.reference[: len(self.samples)]
        return [case.image for case in cases], [copied(case.labels) for case in cases]

    def faithful(self) -> None:
        self._needs_labels()
        real = label_share(zip(*self.held_out(), strict=True))
        drawn = label_share(
            zip([sample.image for sample in self.samples], self.labels(), strict=True)
        )
        if not drawn >= FAITHFUL * real:
            raise CheckFailed(
                f"labels explain {drawn:.2f} of the samples' variance and {real:.2f} of the real "
                f"images'; expected at least {FAITHFUL * real:.2f}"
            )

    def contrast(self) -> None:
        self._needs_labels()
        real = contrasts(*self.held_out())
        labels = self.labels()
        sampled, requested = _values(labels), _values(self.requested)
        if sampled != requested:
            raise CheckFailed(f"samples show the labels {sampled} in all, expected {requested}")
        drawn = contrasts([sample.image for sample in self.samples], labels)
        norms = float(np.linalg.norm(real) * np.linalg.norm(drawn))
        agreement = float(real @ drawn) / norms if norms > 0 else 0.0
        if not agreement >= CONTRAST:
            raise CheckFailed(
                f"the labels' mean intensities correlate {agreement:.2f} with the real ones, "
                f"expected at least {CONTRAST}"
            )

    def inputs_untouched(self) -> None:
        for lent, own in zip(self.inputs, self.conditions(), strict=True):
            for field in fields(Condition):
                before, after = (
                    _arrays(getattr(own, field.name)),
                    _arrays(getattr(lent, field.name)),
                )
                if not all(map(np.array_equal, after, before)):
                    raise CheckFailed(f"sample() wrote into a condition's {field.name}")

    def provenance_kept(self) -> None:
        for sample in self.samples:
            if sample.provenance:
                raise CheckFailed(
                    "sample() returns provenance of its own, which is the core's and is dropped; "
                    "expected it in Sample.notes"
                )
            json.dumps(dict(sample.notes))

    def random_state_untouched(self) -> None:
        if self.touched:
            raise CheckFailed(
                f"sample() changed the global random state of {', '.join(self.touched)}"
            )

    def state_reloads(self) -> None:
        twin = self.bench.new()
        for name, net in self.generator.nets.items():
            twin.nets[name].load_state_dict(net.state_dict())
        twin.load_state(json.loads(json.dumps(self.bench.state)))
        move(twin, self.generator.device)
        twin.precision = self.generator.precision
        again = twin.sample(self.conditions(), self.seeds)
        self.same(again, self.samples, "a new generator with the same weights and state")

    def state_does_not_grow(self) -> None:
        sizes, side = [], self.bench.space.size[0]
        for larger in (side, side * 3 // 2):
            twin = GeneratorBench(
                self.bench.report, self.bench.cls, self.bench.options, self.schema.ndim, larger
            )
            twin.build()
            learnt = learn(twin.generator, twin.train_cases, unlabelled(twin.train_cases))
            sizes.append(len(json.dumps(learnt)))
        if sizes[1] > GROWTH * sizes[0]:
            raise CheckFailed(
                f"observe() returns {sizes[0]} bytes as JSON, and {sizes[1]} for cases of one and "
                "a half times the side, expected the same: it may hold no image"
            )

    def takes_what_it_says(self) -> None:
        """What is declared changes the sample; the rest is not made, and changes nothing."""
        takes = self.generator.capabilities.takes
        if "context" not in takes and self.generator.context(self.cases[0]) is not None:
            raise CheckFailed(
                "context() returns an array, but its capabilities take no 'context'; expected both "
                "or neither, as samples are given only what is declared"
            )
        first, *others = self.conditions()
        for name in ("given", "context", "moved", "background", "label_class"):
            own = getattr(first, name)
            values = [getattr(condition, name) for condition in others]
            differing = [value for value in values if not np.array_equal(value, own)]
            if not differing or differing[0] is None:
                continue
            other = replace(first, **{name: differing[0]})
            changed = self.generator.sample([other], self.seeds[:1])[0]
            self.differ(changed, self.samples[0], f"two values of {name!r} of a condition")

    def copies_nothing(self) -> None:
        """Samples repeat no real image, unless the generator declares that it takes some."""
        if REAL & self.generator.capabilities.takes:
            return
        for sample, case in zip(self.samples, self.cases, strict=True):
            share = repeated_share(sample.image, [case.image, *self.real])
            if share > MOST_REPEATED:
                raise CheckFailed(
                    f"a sample repeats {share:.0%} of the textured blocks of a real image, "
                    f"expected at most {MOST_REPEATED:.0%}, or what it takes in its capabilities"
                )

    def labels(self) -> list[LabelArray]:
        """Return the samples' labels: the requested ones, or those the generator produced."""
        if self.generator.capabilities.from_labels:
            return self.requested
        return [copied(sample.labels) for sample in self.samples]

    def _needs_drawn_images(self) -> None:
        if self.generator.capabilities.draws == "labels":
            raise CheckSkipped("it draws label maps of images that are given")

    def _needs_labels(self) -> None:
        if self.samples[0].labels is None:
            raise CheckSkipped("generates no labels")

    def _needs_asked_labels(self) -> None:
        self._needs_labels()
        if not self.generator.capabilities.from_labels:
            raise CheckSkipped("generates its own labels")

    def _known_labels(self) -> None:
        values = set(self.schema.label_values)
        for labels in [sample.labels for sample in self.samples if sample.labels is not None]:
            unknown = sorted(set(np.unique(labels).tolist()) - values)
            if unknown:
                raise CheckFailed(
                    f"label value(s) {unknown} unknown, expected among {sorted(values)}"
                )
            if labels.dtype != np.int16 or labels.shape != self.bench.space.size:
                raise CheckFailed(
                    f"labels are {labels.dtype} {labels.shape}, expected int16 "
                    f"{self.bench.space.size}"
                )

    def same(self, actual: Sequence[Sample], expected: Sequence[Sample], when: str) -> None:
        pairs = zip(actual, expected, strict=True)
        difference = max([float(np.abs(a.image - b.image).max()) for a, b in pairs])
        if not difference <= SAME * self.deviation:
            raise CheckFailed(
                f"samples differ by {difference:.3g} for {when}, expected at most "
                f"{SAME * self.deviation:.3g}"
            )

    def differ(self, first: Sample, second: Sample, inputs: str) -> None:
        difference = float(np.sqrt(np.mean((first.image - second.image) ** 2)))
        if not difference > VISIBLE * self.deviation:
            raise CheckFailed(
                f"{inputs} give images that differ by {difference:.3g} (root mean square), "
                f"expected more than {VISIBLE * self.deviation:.3g}"
            )


def _arrays(value: Any) -> list[Any]:
    return [value.coords, value.labels] if isinstance(value, Boxes) else [value]


def check_realness(generator: Generator, cases: Sequence[Case]) -> None:
    """Check realness(): one finite score per case, independent of the batch, no side effects."""
    accepted = [case for case in cases if generator.accepts(case)][:ASKED_CASES]
    before = _state(generator)
    with seeded_oddly():
        states = random_states()
        numbers = _ask(generator, accepted)
        touched = [name for name, value in random_states().items() if value != states[name]]
    if numbers is None:
        raise CheckSkipped("no discriminator with realness")
    if tuple(numbers.shape) != (len(accepted),):
        raise CheckFailed(
            f"{tuple(numbers.shape)} for {len(accepted)} cases, expected ({len(accepted)},)"
        )
    if not numbers.isfinite().all():
        raise CheckFailed("NaN or infinite, expected finite numbers")
    alone = [_ask(generator, [case]) for case in accepted]
    turned = _ask(generator, accepted[::-1])
    _same(
        numbers,
        [number for number in alone if number is not None],
        "one at a time instead of at once",
    )
    _same(numbers, [] if turned is None else [turned.flip(0)], "in another order")
    after = _state(generator)
    touched += [name for name in before if before[name] != after.get(name)]
    if touched:
        raise CheckFailed(f"realness() changed {touched[0]}, expected no side effects")


def _ask(generator: Generator, cases: Sequence[Case]) -> Tensor | None:
    from gansynth.data.batches import batch_of

    stage = generator.stages()[-1]
    batch = batch_of(cases, partial(context_of, generator)).to(generator.device)
    return generator.realness(batch, stage)


def _same(expected: Tensor, parts: Sequence[Tensor], when: str) -> None:
    together = torch.cat(list(parts)) if parts else expected[:0]
    if together.shape != expected.shape:
        raise CheckFailed(f"{len(together)} numbers {when}, expected {len(expected)}")
    difference = float((together - expected).abs().max())
    most = SAME_NUMBER * float(expected.abs().max())
    if not difference <= most:
        raise CheckFailed(f"numbers differ by {difference:.3g} {when}, expected at most {most:.3g}")


def _values(maps: Sequence[LabelArray]) -> list[int]:
    """Return all label values of some maps but the outside, sorted."""
    values = {int(value) for labels in maps for value in np.unique(labels)}
    return sorted(values - {OUTSIDE})


def _state(generator: Generator) -> dict[str, bytes]:
    held = {
        f"{name}/{key}": value
        for name, net in generator.nets.items()
        for key, value in net.state_dict().items()
    }
    for name, memory in generator.buffers.items():
        held.update({f"{name}/{key}": value for key, value in memory.state().items()})
    state = {name: value.cpu().numpy().tobytes() for name, value in held.items()}
    for name, net in generator.nets.items():
        state[f"the mode of {name}"] = bytes(module.training for module in net.modules())
    return state


@contextmanager
def seeded_oddly() -> Iterator[None]:
    """Set unusual seeds of the global random generators; restore their states afterwards."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - put back below
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(8_589_934_583)
            np.random.seed(2_147_483_629)  # noqa: NPY002
            random.seed(2_147_483_587)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def random_states() -> dict[str, bytes]:
    """Return the states of the global random generators by name."""
    numpy_state = np.random.get_state(legacy=True)  # noqa: NPY002 - the global one is watched
    numbers, position = np.asarray(numpy_state[1]).tolist(), numpy_state[2:]  # type: ignore[index]
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": repr((numbers, position)).encode(),
        "random": repr(random.getstate()).encode(),
    }


# -- samples with lesions: requested by boxes, or generated into a real image ----------------------


TIGHTENED = "tightened_to"
"""Key of notes of samples with shrunk boxes: the remaining share of each box."""
CHANGED = "background"
"""Key of notes of samples whose whole image was changed; its value is ``changed``."""
SEEDS = 6  # seeds of which at least two must give different images
LEAST_CONTRAST = 0.5  # minimum share of the real lesions' contrast


class BoxSampleChecks:
    """Checks of samples with boxes, one method each."""

    def __init__(self, draws: SampleChecks) -> None:
        self.draws = draws
        self.requested = [copied_boxes(case.boxes) for case in draws.cases]

    def boxes_kept(self) -> None:
        """Boxes equal the condition's, or lie within them and its notes record it."""
        for sample, requested in zip(self.draws.samples, self.requested, strict=True):
            if sample.boxes is None:
                raise CheckFailed("a sample has no boxes, expected the condition's")
            boxes = sample.boxes
            if not np.array_equal(boxes.labels, requested.labels):
                raise CheckFailed(
                    f"box classes are {boxes.labels.tolist()}, expected the condition's "
                    f"{requested.labels.tolist()} in their order"
                )
            axes = requested.coords.shape[1] // 2
            within = (boxes.coords[:, :axes] >= requested.coords[:, :axes]).all()
            within &= (boxes.coords[:, axes:] <= requested.coords[:, axes:]).all()
            same = np.array_equal(boxes.coords, requested.coords)
            if not same and not (within and TIGHTENED in sample.notes):
                raise CheckFailed(
                    "boxes differ from the condition's, expected the same, or smaller ones within "
                    f"them with {TIGHTENED!r} in the sample's notes"
                )

    def boxes_matter(self) -> None:
        """Different boxes give different images, and so do no boxes."""
        condition, seed = self.draws.conditions()[0], self.draws.seeds[0]
        second = self.draws.conditions()[1].boxes
        none = Boxes(self.requested[0].coords[:0], self.requested[0].labels[:0])
        for boxes, label in ((second, "two lists of boxes"), (none, "boxes and none")):
            changed = replace(condition, boxes=boxes, latent_seed=seed)
            drawn = self.draws.generator.sample([changed], [seed])[0]
            self.draws.differ(drawn, self.draws.samples[0], f"{label} with the same seed")

    def boxes_act_in_place(self) -> None:
        """Boxes change the image mostly inside them.

        A GAN of a few steps draws no lesions yet; the metric ``lesions`` measures those of a run.
        """
        draws = self.draws
        bare = [
            replace(c, boxes=Boxes(requested.coords[:0], requested.labels[:0]))
            for c, requested in zip(draws.conditions(), self.requested, strict=True)
        ]
        changes: list[list[float]] = [[], []]
        without = draws.generator.sample(bare, draws.seeds)
        for sample, plain, requested in zip(draws.samples, without, self.requested, strict=True):
            change = np.abs(sample.image - plain.image).mean(axis=0)
            inside = _inside(requested, change.shape)
            for values, where in zip(changes, (inside, ~inside), strict=True):
                values.append(float(change[where].mean()))
        within, elsewhere = [float(np.mean(values)) for values in changes]
        if not within > elsewhere:
            raise CheckFailed(
                f"with boxes instead of none images change by {within:.3g} in the boxes and by "
                f"{elsewhere:.3g} elsewhere, expected more in them"
            )


def _inside(boxes: Boxes, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return a mask of voxels in any of the boxes."""
    inside, axes = np.zeros(shape, bool), len(shape)
    for row in boxes.coords.astype(int):
        box = [slice(low, high) for low, high in zip(row[:axes], row[axes:], strict=True)]
        inside[tuple(box)] = True
    return inside


class LesionSampleChecks:
    """Checks of samples with lesions in real images, one method each."""

    def __init__(self, draws: SampleChecks, cases: LesionCases) -> None:
        self.draws, self.cases = draws, cases
        self.requested = [cases.condition(case, 0) for case in draws.cases]

    @cached_property
    def holes(self) -> list[Mask]:
        """Mask of the voxels that may change, for each sample."""
        draws = self.draws
        rim = rim_voxels(draws.generator.capabilities.rim_mm, draws.schema.spacing)
        masks = [torch.from_numpy(lesion_mask(c))[None, None] for c in self.requested]
        return [hole(mask, rim)[0, 0].numpy() for mask in masks]

    def background_kept(self) -> None:
        """Beyond the rim the sample equals the background exactly."""
        if all(s.notes.get(CHANGED) == "changed" for s in self.draws.samples):
            raise CheckSkipped("the whole image is changed")
        for sample, requested, hollow in zip(
            self.draws.samples, self.requested, self.holes, strict=True
        ):
            where = ~hollow & (requested.required("labels") != OUTSIDE)
            differing = int(
                (sample.image != requested.required("background"))[:, where].any(axis=0).sum()
            )
            if differing:
                raise CheckFailed(
                    f"{differing} voxel(s) beyond the rim differ from the background, expected "
                    f"identical values, or {CHANGED!r}: 'changed' in the notes"
                )

    def lesion_shown(self) -> None:
        """Inside the lesion the sample differs from the background."""
        for sample, requested in zip(self.draws.samples, self.requested, strict=True):
            where = lesion_mask(requested)
            change = (sample.image - requested.required("background"))[:, where]
            difference = float(np.sqrt(np.mean(change**2)))
            if not difference > VISIBLE * self.draws.deviation:
                raise CheckFailed(
                    f"lesions differ from the background by {difference:.3g}, expected more"
                )

    def lesion_contrast(self) -> None:
        """Lesions contrast with the background like those of the training cases."""
        real, drawn = [[self._standing_out(*pair) for pair in pairs] for pairs in self._pairs()]
        real_means, drawn_means = np.mean(real, axis=0), np.mean(drawn, axis=0)
        share = float((real_means * drawn_means).sum() / np.square(real_means).sum())
        if not share >= LEAST_CONTRAST:
            raise CheckFailed(
                f"lesions have {share:.2f} of the real lesions' contrast to the background, "
                f"expected at least {LEAST_CONTRAST}"
            )

    def _pairs(
        self,
    ) -> tuple[list[tuple[FloatArray, Condition]], list[tuple[FloatArray, Condition]]]:
        train = self.draws.bench.train_cases
        real = [(case.image, Condition(labels=case.labels)) for case in train]
        images = [sample.image for sample in self.draws.samples]
        return real, list(zip(images, self.requested, strict=True))

    def _standing_out(self, image: FloatArray, condition: Condition) -> FloatArray:
        """Return the mean of each class minus that of the background, (classes, C)."""
        labels = condition.required("labels")
        bare = image[:, labels == 0].mean(axis=1)
        values = self.draws.schema.foreground
        means = [image[:, labels == v].mean(axis=1) - bare for v in values if (labels == v).any()]
        if len(means) < len(values):
            return np.zeros((len(values), len(image)), np.float32)
        return np.stack(means)

    def seeds_matter(self) -> None:
        """Different seeds give different images, unless the condition holds all randomness."""
        condition, first = self.draws.conditions()[0], self.draws.samples[0]
        seeds = [self.draws.seeds[0] + 1 + n for n in range(SEEDS)]
        drawn = [
            self.draws.generator.sample([replace(condition, latent_seed=s)], [s])[0] for s in seeds
        ]
        if all(np.array_equal(sample.image, first.image) for sample in drawn):
            raise CheckSkipped("the condition holds all randomness")
        differences = [np.sqrt(np.mean((sample.image - first.image) ** 2)) for sample in drawn]
        if not max(differences) > SAME * self.draws.deviation:
            raise CheckFailed(f"{SEEDS} seeds give images that differ by {max(differences):.3g}")

    def lesion_missing(self) -> None:
        """A sample that was requested without a lesion is accepted."""
        sample = self.draws.generator.sample([self._bare(0)], self.draws.seeds[:1])[0]
        reason = self.draws.generator.reject_reason(sample)
        if reason:
            raise CheckFailed(f"reject_reason() of a sample without a lesion is {reason!r}")

    def lesion_not_labelled(self) -> None:
        """Where the labels of a condition lack its lesion, tissue is drawn, without contrast."""
        real, _ = self._pairs()
        contrast = np.mean([self._standing_out(*pair) for pair in real], axis=0)
        shams = [
            replace(self._bare(number), lesion=requested.lesion)
            for number, requested in enumerate(self.requested)
        ]
        samples = self.draws.generator.sample(shams, self.draws.seeds)
        changes = [
            (sample.image - sham.required("background"))[:, lesion_mask(sham)].mean(axis=1)
            for sample, sham in zip(samples, shams, strict=True)
        ]
        change, most = np.abs(np.mean(changes, axis=0)).max(), np.abs(contrast).max()
        if not change < LEAST_CONTRAST * most:
            raise CheckFailed(
                f"a lesion that is not in the labels changes its place by {change:.2f}, training "
                f"lesions stand out by {most:.2f}; expected less than {LEAST_CONTRAST} of that"
            )

    def margin_suffices(self) -> None:
        """Windows of conditions give the samples of whole ones."""
        draws = self.draws
        windowed = generated(draws.generator, draws.conditions(), draws.seeds)
        draws.same(windowed, draws.samples, "windows with the margin of lesion_margin()")

    def _bare(self, number: int) -> Condition:
        body = self.cases.bodies[number]
        return replace(
            self.requested[number],
            labels=copied(body.labels),
            lesion=np.zeros_like(self.requested[number].required("labels")),
            background=body.image.copy(),
            donor=body.image.copy(),
            region=None,
        )
