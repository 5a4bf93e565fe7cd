"""``check_generator``: what every generator must do, tried on toy cases in memory."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.errors import UsageFault
from gansynth.schema import OUTSIDE, Case, Condition, LabelArray, Sample, Schema
from gansynth.testing.report import Broken, CheckReport, Skip
from gansynth.testing.toy import ToySource, contrasts, label_share

if TYPE_CHECKING:
    from gansynth.generator import Batch, Generator, Stage

Fit = Callable[["Generator", Sequence[Case], int], object]
"""(generator, training cases in its space, steps): trains it in place."""

SAME = 1e-4
"""Two samples are the same if they differ by less than this share of the real images' deviation."""
VISIBLE = 1e-3
"""Two samples differ if they differ by more than this share of it (root mean square)."""
FAITHFUL = 0.5
"""Least share of variance between labels in samples, as a part of the real images' own."""
CONTRAST = 0.5
"""Least correlation of the labels' mean intensities in samples with the real ones."""
DRAWN = 4
"""Samples drawn of held-out label maps."""


def check_generator(
    cls: type[Generator],
    *,
    options: Mapping[str, Any] | None = None,
    ndim: Sequence[int] = (3, 2),
    steps: int = 60,
    fit: Fit | None = None,
) -> CheckReport:
    """Fit a generator briefly on toy cases and check what it draws of held-out label maps.

    A generator that refuses a number of axes by ``UsageFault`` is not checked there.

    Args:
        cls: the generator's class.
        options: its own options, small ones for speed; its defaults if None.
        ndim: numbers of spatial axes to try: cases of 16 x 16 x 16 (3) and 32 x 32 voxels (2).
        steps: optimiser steps.
        fit: trains the generator; the real training loop if None.

    Returns:
        Named checks, ``3d: faithful`` say; what a failure makes pointless is left out.
    """
    report = CheckReport(getattr(cls, "name", cls.__name__))
    for axes in ndim:
        bench = _Bench(report, cls, dict(options or {}), ToySource(axes))
        if bench.check("builds", bench.build) and bench.check(
            "trains", partial(bench.train, fit or fit_briefly, steps)
        ):
            _check_samples(bench)
    return report


def fit_briefly(generator: Generator, cases: Sequence[Case], steps: int) -> object:
    """Train on cases in memory with the real training loop, on the CPU, in fp32."""
    from gansynth.training import FitOptions, train

    def batches(step: int, stage: Stage, which: range) -> Batch:
        chosen = [int(np.random.default_rng((7, step, i)).integers(len(cases))) for i in which]
        return _batch(generator, [cases[i] for i in chosen])

    return train(
        generator, batches, FitOptions.model_validate({"steps": steps, "precision": "fp32"})
    )


def _batch(generator: Generator, picked: Sequence[Case]) -> Batch:
    import torch

    from gansynth.generator import Batch

    context = [generator.context(case) for case in picked]
    return Batch(
        image=torch.stack([torch.tensor(case.image) for case in picked]),
        labels=torch.stack([torch.tensor(case.labels, dtype=torch.int64) for case in picked]),
        context=None
        if context[0] is None
        else torch.stack([torch.tensor(c, dtype=torch.int64) for c in context]),
    )


class _Bench:
    """One generator on toy cases of one number of axes."""

    def __init__(
        self, report: CheckReport, cls: type[Generator], options: dict[str, Any], source: ToySource
    ) -> None:
        self.report, self.cls, self.source = report, cls, source
        self.options = options
        self.space = source.space
        self.schema: Schema = source.schema
        self.generator: Generator
        self.train_cases: list[Case] = []
        self.held_out: list[Case] = []

    def check(self, name: str, function: Callable[[], object]) -> bool:
        return self.report.run(f"{self.source.schema.ndim}d: {name}", function)

    def build(self) -> None:
        """Networks build and have parameters, unless there is nothing to train."""
        generator = self.new()
        if generator.intensity == "tanh":
            self.space = self.space.with_window(self.source.cases())
            self.schema = self.space.generator_schema(self.source.schema)
            generator = self.new()
        parameters = sum(p.numel() for net in generator.nets.values() for p in net.parameters())
        if generator.phases() and not parameters:
            raise Broken("has phases to train but no parameters")
        self.generator = generator
        self.train_cases = [self.space.to_generator(c) for c in self.source.cases()]
        self.held_out = [
            self.space.to_generator(c) for c in self.source.cases(self.source.held_out_ids)
        ]

    def new(self) -> Generator:
        import torch

        # Weights come from torch's global generator: seed a copy of it.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                return self.cls(self.schema, self.space.size, self.cls.Options(**self.options))
            except UsageFault as refusal:
                raise Skip(f"refused: {refusal}") from refusal

    def train(self, fit: Fit, steps: int) -> None:
        self.generator.observe(self.train_cases)
        fit(self.generator, self.train_cases, steps)

    def condition(self, case: Case, seed: int) -> Condition:
        return Condition(
            labels=_copy(case.labels),
            context=self.generator.context(case),
            latent_seed=seed,
            provenance={"case": case.id},
        )


def _check_samples(bench: _Bench) -> None:
    draws = _Draws(bench)
    # Each of these three makes the rest pointless if it fails.
    for name, check in (("draws", draws.draw), ("shape", draws.shape), ("finite", draws.finite)):
        if not bench.check(name, check):
            return
    bench.check("not constant", draws.not_constant)
    bench.check("labels kept", draws.labels_kept)
    bench.check("outside", draws.outside)
    bench.check("repeatable", draws.repeatable)
    bench.check("batch-independent", draws.batch_independent)
    bench.check("seeds matter", draws.seeds_matter)
    bench.check("labels matter", draws.labels_matter)
    bench.check("faithful", draws.faithful)
    bench.check("contrast", draws.contrast)
    bench.check("inputs untouched", draws.inputs_untouched)
    bench.check("random state untouched", draws.random_state_untouched)
    bench.check("state reloads", draws.state_reloads)


class _Draws:
    """Samples of held-out label maps, and one method for each thing that must hold of them."""

    def __init__(self, bench: _Bench) -> None:
        self.bench = bench
        self.generator, self.schema = bench.generator, bench.schema
        self.cases = bench.held_out[:DRAWN]
        self.seeds = [101 + i for i in range(len(self.cases))]
        self.asked = [_copy(case.labels) for case in self.cases]
        self.real = [case.image for case in bench.train_cases]
        self.deviation = float(np.mean([image.std() for image in self.real]))
        self.samples: list[Sample] = []
        self.touched: list[str] = []
        self.tampered = False

    def conditions(self) -> list[Condition]:
        """Fresh ones for each call, whatever the last call did to its own."""
        pairs = zip(self.cases, self.seeds, strict=True)
        return [self.bench.condition(case, seed) for case, seed in pairs]

    def draw(self) -> None:
        conditions = self.conditions()
        with _seeded_oddly():
            before = _random_states()
            self.samples = list(self.generator.sample(conditions, self.seeds))
            after = _random_states()
        self.touched = [name for name in before if before[name] != after[name]]
        self.tampered = any(
            not np.array_equal(_copy(c.labels), asked)
            for c, asked in zip(conditions, self.asked, strict=True)
        )
        if len(self.samples) != len(conditions):
            raise Broken(f"{len(self.samples)} samples of {len(conditions)} conditions")

    def shape(self) -> None:
        wanted = (len(self.schema.channels), *self.bench.space.size)
        for sample in self.samples:
            if sample.image.shape != wanted or sample.image.dtype != np.float32:
                raise Broken(
                    f"image is {sample.image.dtype} {sample.image.shape}, expected float32 {wanted}"
                )

    def finite(self) -> None:
        bad = sum(int((~np.isfinite(sample.image)).sum()) for sample in self.samples)
        if bad:
            raise Broken(f"{bad} NaN or infinite voxel(s), expected finite values")

    def not_constant(self) -> None:
        for channel, name in enumerate(self.schema.channels):
            least = min(float(sample.image[channel].std()) for sample in self.samples)
            if least <= VISIBLE * self.deviation:
                raise Broken(f"channel {name!r} has deviation {least:.3g}, expected an image")

    def labels_kept(self) -> None:
        known = set(self.schema.label_values)
        for sample, asked in zip(self.samples, self.asked, strict=True):
            if sample.labels is None:
                raise Skip("draws no labels")
            unknown = sorted(set(np.unique(sample.labels).tolist()) - known)
            if unknown:
                raise Broken(f"label value(s) {unknown} unknown, expected among {sorted(known)}")
            if sample.labels.dtype != np.int16 or not np.array_equal(sample.labels, asked):
                raise Broken("labels differ from the condition's (int16, -1 included)")

    def outside(self) -> None:
        self._needs_labels()
        fill = np.array(self.schema.outside_fill, np.float32)[:, None]
        for sample, asked in zip(self.samples, self.asked, strict=True):
            apart = np.abs(sample.image[:, asked == OUTSIDE] - fill)
            if apart.max() > SAME * self.deviation:
                raise Broken(
                    f"images differ by {apart.max():.3g} from schema.outside_fill where labels are "
                    f"{OUTSIDE}, expected that constant"
                )

    def repeatable(self) -> None:
        again = self.generator.sample(self.conditions(), self.seeds)
        self._same(again, self.samples, "the same call again")

    def batch_independent(self) -> None:
        alone = [
            self.generator.sample([c], [s])[0]
            for c, s in zip(self.conditions(), self.seeds, strict=True)
        ]
        self._same(alone, self.samples, "one at a time instead of all at once")
        turned = self.generator.sample(self.conditions()[::-1], self.seeds[::-1])
        self._same(turned[::-1], self.samples, "in another order")

    def seeds_matter(self) -> None:
        condition, seed = self.conditions()[0], self.seeds[0]
        other = self.generator.sample([replace(condition, latent_seed=seed + 1)], [seed + 1])[0]
        self._differ(other, self.samples[0], "two seeds with the same labels")

    def labels_matter(self) -> None:
        self._needs_labels()
        seed = self.seeds[0]
        other = self.generator.sample([replace(self.conditions()[1], latent_seed=seed)], [seed])[0]
        self._differ(other, self.samples[0], "two label maps with the same seed")

    def faithful(self) -> None:
        self._needs_labels()
        held_out = self.bench.held_out[: len(self.samples)]
        real = label_share([case.image for case in held_out], self.asked)
        drawn = label_share([sample.image for sample in self.samples], self.asked)
        if not drawn >= FAITHFUL * real:
            raise Broken(
                f"labels explain {drawn:.2f} of the samples' variance and {real:.2f} of the real "
                f"images'; expected at least {FAITHFUL * real:.2f}"
            )

    def contrast(self) -> None:
        self._needs_labels()
        held_out = self.bench.held_out[: len(self.samples)]
        real = contrasts([case.image for case in held_out], self.asked)
        drawn = contrasts([sample.image for sample in self.samples], self.asked)
        norms = float(np.linalg.norm(real) * np.linalg.norm(drawn))
        agreement = float(real @ drawn) / norms if norms > 0 else 0.0
        if not agreement >= CONTRAST:
            raise Broken(
                f"the labels' mean intensities correlate {agreement:.2f} with the real ones, "
                f"expected at least {CONTRAST}"
            )

    def inputs_untouched(self) -> None:
        if self.tampered:
            raise Broken("sample() wrote into a condition's labels")

    def random_state_untouched(self) -> None:
        if self.touched:
            raise Broken(f"sample() changed the global random state of {', '.join(self.touched)}")

    def state_reloads(self) -> None:
        twin = self.bench.new()
        for name, net in self.generator.nets.items():
            twin.nets[name].load_state_dict(net.state_dict())
        twin.load_state(json.loads(json.dumps(self.generator.state())))
        twin.to(self.generator.device).precision = self.generator.precision
        again = twin.sample(self.conditions(), self.seeds)
        self._same(again, self.samples, "a new generator with the same weights and state()")

    def _needs_labels(self) -> None:
        if self.samples[0].labels is None:
            raise Skip("draws no labels")

    def _same(self, found: Sequence[Sample], wanted: Sequence[Sample], when: str) -> None:
        apart = max(
            float(np.abs(a.image - b.image).max()) for a, b in zip(found, wanted, strict=True)
        )
        if not apart <= SAME * self.deviation:
            raise Broken(
                f"samples differ by {apart:.3g} for {when}, expected at most "
                f"{SAME * self.deviation:.3g}"
            )

    def _differ(self, one: Sample, other: Sample, what: str) -> None:
        apart = float(np.sqrt(np.mean((one.image - other.image) ** 2)))
        if not apart > VISIBLE * self.deviation:
            raise Broken(
                f"{what} give images that differ by {apart:.3g} (root mean square), expected more "
                f"than {VISIBLE * self.deviation:.3g}"
            )


def _copy(labels: LabelArray | None) -> LabelArray:
    assert labels is not None, "toy cases have labels"
    return labels.copy()


@contextmanager
def _seeded_oddly() -> Iterator[None]:
    """Global generators at seeds that no plugin uses by chance; as before afterwards."""
    import torch

    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - put back below
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(8_589_934_583)
            np.random.seed(2_147_483_629)  # noqa: NPY002
            random.seed(2_147_483_587)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _random_states() -> dict[str, bytes]:
    import torch

    numpy_state = np.random.get_state(legacy=True)  # noqa: NPY002 - the global one is watched
    numbers, rest = np.asarray(numpy_state[1]).tolist(), numpy_state[2:]  # type: ignore[index]
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": repr((numbers, rest)).encode(),
        "random": repr(random.getstate()).encode(),
    }
