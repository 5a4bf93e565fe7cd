"""Classifier two-sample tests: can a classifier tell samples from real people?

Lopez-Paz & Oquab 2017 (arXiv:1610.06545), which Han et al. 2018 asked for. Two classifiers: k
nearest neighbours by the trained network's features, and a small convolutional network on slices.
Their accuracy is 0.5 where nobody can tell. Images of one person, and samples drawn of that
person's labels, are alike for reasons of their own, so none is a witness for another, none is
trained on to judge another, and those of one side change sides together when sides are permuted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Case, Sample, Schema
from gansynth.metrics.comparison import Evaluated, Image
from gansynth.metrics.estimate import LEVEL, Figure, Floats, Indices, halves
from gansynth.metrics.sides import Sides

PERMUTATIONS = 999
DRAWN = 1000
"""Bootstrap samples of people."""

Bools = npt.NDArray[np.bool_]


class C2ST(Evaluated):
    """A classifier's accuracy, its p by permuting, its interval by people drawn anew.

    Attributes:
        said: which classifier.
        rounds: splits of the real people in two that tell what accuracy real people have.
    """

    said: ClassVar[str]
    rounds: ClassVar[int]
    least = 16

    @abstractmethod
    def judged(
        self, images: Sequence[Image], synthetic: Bools, owners: Sequence[str], sides: Sides
    ) -> Judged:
        """What the classifier makes of images that lie on one of two sides.

        Args:
            images: of both sides.
            synthetic: (N,), on which side each is.
            owners: whose each is.
            sides: for features, seed, device.
        """

    def __call__(
        self, samples: Sequence[Sample], real: Sequence[Case], schema: Schema
    ) -> Mapping[str, float]:
        """Accuracy and p."""
        sides = Sides(samples, real, schema)
        found = self._judge(sides)
        return {"accuracy": found.accuracy, "p": found.p(sides.rng("c2st"))}

    def figures(self, sides: Sides) -> list[Figure]:
        """The accuracy."""
        self.check(sides)
        found = self._judge(sides)
        low, high = found.interval(sides.rng("c2st people"))
        reals = [
            self._between(sides, split.other, split.real).accuracy
            for split in halves(sides.drawn_of, sides.people, self.rounds, sides.rng("c2st halves"))
        ]
        # Of few rounds their spread is no interval: what chance gives people as few as these.
        apart = 2 * found.error
        return [
            Figure(
                "", "accuracy", self.title, f"accuracy of {self.said}; 0.5 is chance", "half",
                found.accuracy, low, high, float(np.mean(reals)),
                min(*reals, 0.5 - apart), max(*reals, 0.5 + apart),
                p=found.p(sides.rng("c2st")), images=found.count // 2, splits=self.rounds,
            )
        ]  # fmt: skip

    def _judge(self, sides: Sides) -> Judged:
        """As many samples as real crops."""
        count = min(len(sides.samples), len(sides.real))
        some = np.sort(sides.rng("c2st samples").permutation(len(sides.samples))[:count])
        real = np.sort(sides.rng("c2st real").permutation(len(sides.real))[:count])
        images = [*(sides.samples[n] for n in some), *(sides.real[n] for n in real)]
        owners = [*(sides.drawn_of[n] for n in some), *(sides.people[n] for n in real)]
        return self.judged(images, np.arange(2 * count) < count, owners, sides)

    def _between(self, sides: Sides, one: Indices, other: Indices) -> Judged:
        """Real people against real people."""
        numbers = [*one, *other]
        images = [sides.real[n] for n in numbers]
        owners = [sides.people[n] for n in numbers]
        return self.judged(images, np.arange(len(numbers)) < len(one), owners, sides)


class Judged:
    """What a classifier said of images, and how sure one can be of its accuracy.

    Args:
        synthetic: (N,), on which side each image is.
        says: what it says of each image if these were the sides: above 0 synthetic, below 0 real;
            0 counts half.
        owners: whose each image is.
    """

    def __init__(
        self, synthetic: Bools, says: Callable[[Bools], Floats], owners: Sequence[str]
    ) -> None:
        self.synthetic, self.says = synthetic, says
        self.whose = np.unique(np.array(owners), return_inverse=True)[1]
        self.count = len(synthetic)

    def scores(self, synthetic: Bools) -> Floats:
        """1 where it is right, 0 where it is wrong, 0.5 where it does not know."""
        said = np.sign(self.says(synthetic))
        return np.asarray((1 + np.where(synthetic, said, -said)) / 2)

    @property
    def accuracy(self) -> float:
        """Mean over both sides, each counting half."""
        return _balanced(self.scores(self.synthetic), self.synthetic)

    def p(self, rng: np.random.Generator) -> float:
        """Share of permutations of sides, blocks of a person together, that are as accurate."""
        own, as_good = self.accuracy, 0
        for _ in range(PERMUTATIONS):
            sides = permuted(self.synthetic, self.whose, rng)
            as_good += _balanced(self.scores(sides), sides) >= own - 1e-12
        return (1 + as_good) / (1 + PERMUTATIONS)

    def interval(self, rng: np.random.Generator) -> tuple[float, float]:
        """95 % interval of the accuracy: people drawn anew."""
        low, high = np.percentile(self._drawn(rng), [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
        return float(low), float(high)

    @property
    def error(self) -> float:
        """Standard error of the accuracy."""
        return float(np.std(self._drawn(np.random.default_rng(0))))

    def _drawn(self, rng: np.random.Generator) -> Floats:
        scores, people = self.scores(self.synthetic), int(self.whose.max()) + 1
        found = []
        for _ in range(DRAWN):
            weights = np.bincount(rng.integers(people, size=people), minlength=people)[self.whose]
            if weights[self.synthetic].any() and weights[~self.synthetic].any():
                found.append(_balanced(scores, self.synthetic, weights))
        return np.array(found)


def _balanced(scores: Floats, synthetic: Bools, weights: Floats | Indices | None = None) -> float:
    parts = []
    for side in (synthetic, ~synthetic):
        own = None if weights is None else weights[side]
        parts.append(float(np.average(scores[side], weights=own)) if side.any() else 0.5)
    return sum(parts) / 2


def permuted(synthetic: Bools, whose: Indices, rng: np.random.Generator) -> Bools:
    """Sides dealt out anew, all images of a person on one side changing together.

    Of a person on both sides (a real case, and samples drawn of its labels) the two blocks change
    places or not; the blocks of all others are shuffled.
    """
    people = int(whose.max()) + 1
    images, drawn = np.bincount(whose, minlength=people), np.bincount(whose, synthetic, people)
    both = (drawn > 0) & (drawn < images)
    side = drawn > 0
    alone = np.flatnonzero((images > 0) & ~both)
    side[alone] = side[rng.permutation(alone)]
    swapped = rng.random(people) < 0.5
    return np.where(both[whose], synthetic ^ swapped[whose], side[whose])
