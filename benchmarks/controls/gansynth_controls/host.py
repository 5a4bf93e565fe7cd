"""The segmenter with self-training, a mean teacher, pseudo-labels, an autoencoder, or CutMix."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from gansynth import CaseSource, FloatArray, Job, LabelArray, Schema, UsageFault
from gansynth.conditions.condition_source import differing_images, open_other
from gansynth.conditions.unlabelled import open_unlabelled
from gansynth.core.geometry import mask_of
from gansynth.core.sample_request import SampleRequest
from gansynth.fitting.target_scans import TargetScans
from gansynth.hosts.mixing.training_data import Pair
from gansynth.runtime.errors import describe_error
from gansynth_segmenter.host import SegmenterHost
from gansynth_segmenter.options import SegmenterOptions

if TYPE_CHECKING:
    from gansynth import Batch, Generator, Stage
    from gansynth_segmenter.inference import Segmenter

_SCANS, _MIXED, _RECTANGLES = 21, 22, 23
"""Numbers in the seeds."""


class ControlsOptions(SegmenterOptions):
    """Settings of the segmenter and of the controls."""

    scans: str = Field("", description="KIND:WHERE of unlabelled scans, an absolute path")
    target_scans: str = Field(
        "",
        description="in place of scans: those of the site where the host is used, which keep their "
        "grey values and show nobody who is judged",
    )
    use: Literal["teacher", "pseudo", "self", "masked"] = Field(
        "teacher",
        description="what is made of the scans: a mean teacher's consistency; a share of each "
        "batch with labels that a first training predicts (pseudo), where it is unsure without "
        "(self); a start from a masked autoencoder",
    )
    share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="pseudo and self: share of a batch, in place of its last real samples",
    )
    sure: float = Field(
        0.9,
        gt=0.5,
        lt=1,
        description="self: least probability of foreground or background that becomes a label",
    )
    consistency: float = Field(0.1, gt=0, description="teacher: weight of the consistency")
    cutmix: float = Field(
        0.0, ge=0, le=1, description="share of the samples that get a rectangle of another one"
    )

    @model_validator(mode="after")
    def _of_one_kind(self) -> ControlsOptions:
        if self.scans and self.target_scans:
            raise ValueError("scans and target_scans: expected one of them")
        return self


class ControlsHost(SegmenterHost):
    """A U-Net on real cases, and on what a control makes of unlabelled scans."""

    name: ClassVar[str] = "controls"
    Options = ControlsOptions
    options: ControlsOptions
    _pseudo: list[LabelArray] | None = None

    @cached_property
    def scans(self) -> list[FloatArray]:
        """Unlabelled scans as the network sees them."""
        source = self._opened()
        found, rng = [], np.random.default_rng(0)
        for name in source.train_ids:
            case = source.load(name)
            placed = self.space.to_generator(case, self.space.place(case, rng))
            found.append(np.array(placed.image, np.float32))
        return found

    @property
    def _named(self) -> str:
        return self.options.scans or self.options.target_scans

    def _opened(self) -> CaseSource:
        """Open the scans; but for those of a target site in the intensities of training cases."""
        kind, _, where = self._named.partition(":")
        asked = {"kind": kind, "where": where, "fold": "all"}
        if not self.options.target_scans:
            request = SampleRequest(unlabelled=(asked,))
            [source] = open_unlabelled(request, self.source, self.source.schema.foreground)
            return source
        with describe_error("--label-source", "--set target_scans"):
            scans = TargetScans(asked, open_other(asked, self.source, like=True))
        differ = differing_images(scans.source, self.source)
        if differ:
            raise UsageFault(
                "controls.target-scans-differ",
                f"--set target_scans={self._named}: {differ}; name scans of the same channels",
            )
        scans.seen(self.source)  # refuses people who are judged
        return scans.source

    def network(self, schema: Schema) -> Generator:
        """Build the segmenter, the student of a teacher, or one with an autoencoder's weights."""
        from gansynth_controls.networks import StudentNetwork, start_from_scans

        options = self.options
        if self._named and options.use == "self" and schema.ignore is None:
            unsure = max(schema.label_values) + 1
            labels = {**schema.labels, "unsure": unsure}
            schema = replace(schema, labels=labels, ignore=unsure)
        network = super().network(schema)
        if not self._named:
            return network
        if options.network != "unet":
            raise UsageFault(
                "controls.network-given", "--set scans: controls train a U-Net; leave network out"
            )
        if options.use == "masked":
            start_from_scans(network, self.scans, self.length[0], int(options.own("batch_size")))
        if options.use == "teacher":
            draw = partial(self._of_scans, self.request.seed)
            return StudentNetwork.of(network, draw, options.consistency, self.length[0])
        return network

    def _of_scans(self, seed: int, step: int, count: int) -> FloatArray:
        """Draw scans, augmented as real cases are: (count, C, ...)."""
        rng = np.random.default_rng((seed, _SCANS, step))
        chosen = [self.scans[int(rng.integers(len(self.scans)))] for _ in range(count)]
        nothing = np.zeros(self.space.size, np.int16)
        return np.stack([self.augment(image, nothing, rng)[0] for image in chosen])

    def train(self, job: Job) -> None:
        """Predict the scans by a first training on real cases, if they get pseudo-labels."""
        if self._named and self.options.use in ("pseudo", "self"):
            self._pseudo = self._predicted(job)
        super().train(job)

    def _predicted(self, job: Job) -> list[LabelArray]:
        """Return the label maps that a training on real cases alone predicts for the scans."""
        from gansynth.runtime.devices import seeded
        from gansynth.training.loop import train
        from gansynth_segmenter.inference import Segmenter

        file = job.folder / "pseudo_labels.npz"
        if not file.exists():
            with seeded(job.seed):
                first = super().network(job.schema)
            train(first, partial(super().batch, job), self.loop(job), device=job.device)
            segmenter = Segmenter(first, self.schema, self.space, self.regions, self.options)
            maps = [self._marked(segmenter, image) for image in self.scans]
            np.savez(file, *maps)
            lesions = [bool(mask_of(labels, self.schema.foreground).any()) for labels in maps]
            job.say(f"pseudo-labels of {len(maps)} scans, {sum(lesions)} of them with a lesion")
        with np.load(file) as held:
            return [held[key] for key in held.files]

    def _marked(self, segmenter: Segmenter, image: FloatArray) -> LabelArray:
        """Return a scan's likeliest labels; for self-training, an ignore value where unsure."""
        scores = segmenter.scores(image)
        labels = segmenter.likeliest(scores)
        if self.options.use == "self":
            foreground = scores[[value > 0 for value in segmenter.values]].sum(0)
            unsure = np.maximum(foreground, 1 - foreground) < self.options.sure
            labels[unsure] = max(segmenter.values) + 1
        return labels

    def drawn(self, job: Job, step: int, which: range) -> list[dict[str, Any]]:
        """Return the items of a batch, the last real ones replaced by scans with their labels."""
        items = super().drawn(job, step, which)
        if self._pseudo is not None:
            rng = np.random.default_rng((job.seed, _MIXED, step))
            real = [number for number, item in enumerate(items) if not item["synthetic"]]
            for number in real[len(real) - round(self.options.share * len(items)) :]:
                image, labels = self._pseudo_labelled(rng)
                items[number] = {"image": image, "labels": labels, "synthetic": False}
        return items

    def batch(self, job: Job, step: int, stage: Stage, which: range) -> Batch:
        """Return the samples of one step, perhaps with rectangles of others."""
        found = super().batch(job, step, stage, which)
        if self.options.cutmix:
            rng = np.random.default_rng((job.seed, _RECTANGLES, step))
            _mix(found, self.options.cutmix, rng)
        return found

    def _pseudo_labelled(self, rng: np.random.Generator) -> Pair:
        assert self._pseudo is not None
        number = int(rng.integers(len(self.scans)))
        return self.augment(self.scans[number], self._pseudo[number].astype(np.int16), rng)

    def done(self, folder: Path) -> int:
        """A control is not resumed: what it has learnt of the scans is in no checkpoint."""
        done = super().done(folder)
        return done if done == self.length[0] else 0


def _mix(batch: Batch, share: float, rng: np.random.Generator) -> None:
    """CutMix (Yun et al. 2019) with label maps (French et al. 2020), in place.

    A sample gets a box of the next one's image and labels. The box's share is uniform, its place
    too; it is cut at the border.
    """
    assert batch.labels is not None
    images, labels, size = batch.image.clone(), batch.labels.clone(), batch.labels.shape[1:]
    for number in range(len(images)):
        if rng.random() >= share:
            continue
        edge = rng.random() ** (1 / len(size))
        box = []
        for length in size:
            middle, half = rng.integers(length), edge * length / 2
            box.append(slice(max(0, round(middle - half)), min(length, round(middle + half))))
        other = (number + 1) % len(images)
        batch.image[(number, slice(None), *box)] = images[(other, slice(None), *box)]
        batch.labels[(number, *box)] = labels[(other, *box)]
