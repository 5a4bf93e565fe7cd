"""What must hold of samples that have a lesion drawn into a real image."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from gansynth.conditions.case_pool import Room
from gansynth.conditions.lesion_placement import Inserted, lesion_drawer
from gansynth.core.geometry import Mask
from gansynth.core.scene import Scene
from gansynth.core.schema import OUTSIDE, Case, Condition, FloatArray, LabelArray
from gansynth.core.space import Placement
from gansynth.data.blending import drawn_in, hole, rim_voxels
from gansynth.testing._sample_checks import SAME, VISIBLE, Draws
from gansynth.testing.report import Broken, Skip
from gansynth.testing.toy import without_blobs

if TYPE_CHECKING:
    from gansynth.core.generator import Generator
    from gansynth.core.source import CaseSource
    from gansynth.core.space import Space

USUAL_RIM_MM = 3.0
"""How far beyond a lesion images may change, of a generator without an option ``rim_mm``."""
CHANGED = "background"
"""Key of a sample's provenance, with the value ``changed``, where the whole image was changed."""
PLACES = "where=anywhere,inside=0.6,tries=100"
"""Toy bodies are small."""
SEEDS = 6
"""Seeds of which two at least must give different images, if any do."""
TRIES = 50
LEAST = 0.5
"""Least share of the real lesions' contrast."""


class LesionCases:
    """Lesions of toy training cases, put into held-out toy bodies that have none.

    Args:
        generator: says how lesions are put.
        source: the toy cases.
        space: the generator's.
        count: how many.
    """

    def __init__(self, generator: Generator, source: CaseSource, space: Space, count: int) -> None:
        self._drawer = lesion_drawer(PLACES, generator.default_lesions)
        self._room = Room(source, space)
        bodies = [without_blobs(source.load(i), n) for n, i in enumerate(source.held_out_ids)]
        self.bodies = [space.to_generator(body) for body in bodies[:count]]
        self._shape = source.load(source.train_ids[0]).image.shape[1:]
        self.inserted = [self._insert(n, body) for n, body in enumerate(self.bodies)]

    def _insert(self, number: int, body: Case) -> Inserted:
        scene = Scene(body, Placement((0,) * len(self._shape)), self._shape, number, self._room)
        for tried in range(TRIES):
            found = self._drawer.draw(scene, (), np.random.default_rng((number, tried)))
            if set(np.unique(found.lesion)) >= set(self._room.schema.foreground):
                return found
        raise Skip(f"no lesion found a place in {TRIES} tries of {self._drawer.options}")

    @property
    def cases(self) -> list[Case]:
        """Backgrounds with the label maps that are asked for."""
        pairs = zip(self.bodies, self.inserted, strict=True)
        return [replace(body, labels=inserted.labels) for body, inserted in pairs]

    def condition(self, case: Case, seed: int) -> Condition:
        """A fresh condition of one of ``cases``."""
        number = [body.id for body in self.bodies].index(case.id)
        body, inserted = self.bodies[number], self.inserted[number]
        return Condition(
            labels=inserted.labels.copy(),
            background=body.image.copy(),
            lesion=inserted.lesion.copy(),
            donor=inserted.donor.copy(),
            region=None if inserted.region is None else inserted.region.copy(),
            latent_seed=seed,
            provenance={"case": case.id, "lesions": inserted.told},
        )


class LesionDraws:
    """One method for each thing that must hold of samples with lesions in real images."""

    def __init__(self, draws: Draws, cases: LesionCases) -> None:
        self.draws, self.cases = draws, cases
        self.asked = [cases.condition(case, 0) for case in draws.cases]

    @cached_property
    def holes(self) -> list[Mask]:
        """Of each sample, all that may change."""
        draws = self.draws
        rim_mm = getattr(draws.generator.options, "rim_mm", USUAL_RIM_MM)
        rim = rim_voxels(rim_mm, draws.schema.spacing)
        masks = [torch.from_numpy(drawn_in(c))[None, None] for c in self.asked]
        return [hole(mask, rim)[0, 0].numpy() for mask in masks]

    def kept(self) -> None:
        """Beyond the rim the sample is the background, to the bit."""
        if all(s.provenance.get(CHANGED) == "changed" for s in self.draws.samples):
            raise Skip("says that it changes the whole image")
        for sample, asked, hollow in zip(self.draws.samples, self.asked, self.holes, strict=True):
            where = ~hollow & (_labels(asked) != OUTSIDE)
            differing = int((sample.image != _image(asked))[:, where].any(axis=0).sum())
            if differing:
                raise Broken(
                    f"{differing} voxel(s) beyond the rim differ from the background, expected the "
                    f"background's own to the bit, or {CHANGED!r}: 'changed' in the provenance"
                )

    def shown(self) -> None:
        """Where the lesion is, the sample is not the background."""
        for sample, asked in zip(self.draws.samples, self.asked, strict=True):
            where = drawn_in(asked)
            change = (sample.image - _image(asked))[:, where]
            apart = float(np.sqrt(np.mean(change**2)))
            if not apart > VISIBLE * self.draws.deviation:
                raise Broken(f"lesions differ from the background by {apart:.3g}, expected more")

    def contrast(self) -> None:
        """Lesions stand out of the background as the training cases' own do."""
        real, drawn = ([self._standing_out(*pair) for pair in pairs] for pairs in self._pairs())
        wanted, found = np.mean(real, axis=0), np.mean(drawn, axis=0)
        share = float((wanted * found).sum() / np.square(wanted).sum())
        if not share >= LEAST:
            raise Broken(
                f"lesions stand out of the background by {share:.2f} of what real ones do, "
                f"expected at least {LEAST}"
            )

    def _pairs(
        self,
    ) -> tuple[list[tuple[FloatArray, Condition]], list[tuple[FloatArray, Condition]]]:
        train = self.draws.bench.train_cases
        real = [(case.image, Condition(labels=case.labels)) for case in train]
        images = [sample.image for sample in self.draws.samples]
        return real, list(zip(images, self.asked, strict=True))

    def _standing_out(self, image: FloatArray, asked: Condition) -> FloatArray:
        """Mean of each class minus that of the background, (classes, C)."""
        labels = _labels(asked)
        bare = image[:, labels == 0].mean(axis=1)
        values = self.draws.schema.foreground
        means = [image[:, labels == v].mean(axis=1) - bare for v in values if (labels == v).any()]
        if len(means) < len(values):
            return np.zeros((len(values), len(image)), np.float32)
        return np.stack(means)

    def seeds_matter(self) -> None:
        """Two seeds give two images, unless all that is random is in the condition."""
        condition, first = self.draws.conditions()[0], self.draws.samples[0]
        seeds = [self.draws.seeds[0] + 1 + n for n in range(SEEDS)]
        drawn = [
            self.draws.generator.sample([replace(condition, latent_seed=s)], [s])[0] for s in seeds
        ]
        if all(np.array_equal(sample.image, first.image) for sample in drawn):
            raise Skip("all that is random is in the condition")
        apart = [np.sqrt(np.mean((sample.image - first.image) ** 2)) for sample in drawn]
        if not max(apart) > SAME * self.draws.deviation:
            raise Broken(f"{SEEDS} seeds give images that differ by {max(apart):.3g}")

    def nothing(self) -> None:
        """Without a lesion, there being no room, the sample has a flaw."""
        condition, seed = self.draws.conditions()[0], self.draws.seeds[0]
        bare = self.cases.bodies[0]
        told = {**condition.provenance, "lesions": {"where": "prior", "room": False}}
        empty = replace(
            condition,
            labels=_labels(Condition(labels=bare.labels)).copy(),
            lesion=np.zeros_like(_labels(condition)),
            donor=bare.image.copy(),
            region=None,
            provenance=told,
        )
        sample = self.draws.generator.sample([empty], [seed])[0]
        sample = replace(sample, provenance={**told, **sample.provenance})
        if not self.draws.generator.flaw(sample):
            raise Broken(
                "a sample without a lesion, for which there was no room, has no flaw; expected one "
                "(gansynth.conditions.lesion_placement.no_room), it may be the copy of a real case"
            )

    def untouched(self) -> None:
        """Conditions are read only."""
        for given, asked in zip(self.draws.given, self.asked, strict=True):
            for name in ("background", "lesion", "donor", "region"):
                if not _equal(getattr(given, name), getattr(asked, name)):
                    raise Broken(f"sample() wrote into a condition's {name}")


def _labels(condition: Condition) -> LabelArray:
    assert condition.labels is not None, "toy conditions have labels"
    return condition.labels


def _image(condition: Condition) -> FloatArray:
    assert condition.background is not None, "toy conditions have a background"
    return condition.background


def _equal(one: object, other: object) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))
