"""A host that trains a segmenter on crops, and predicts whole cases: four members of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from pydantic import Field

from gansynth.core.host_options import HostOptions
from gansynth.core.intake import Intake
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Sample
from gansynth.hosts.contract.host import Framework, FrameworkOptions
from gansynth.hosts.contract.job import CHECKPOINTS, Job
from gansynth.hosts.contract.prediction import PredictJob, write_labels
from gansynth.hosts.mixing.mixer import MixerConfig
from gansynth.hosts.mixing.training_data import (
    Pair,
    TrainingData,
    misfit,
    training_space,
)
from gansynth.metrics.segmentation.evaluation import headline
from gansynth.metrics.segmentation.held_out_scores import (
    LEVELS,
    METRICS,
    PREDICTIONS,
    evaluate_held_out,
)
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import write_json_atomic


class TrainingOptions(FrameworkOptions):
    """Options that every ``CropHost`` has; a host's ``Options`` extend them."""

    regions: str = Field(
        "",
        description="regions to report Dice and HD95 of, as unions of labels: WT:1+2+4,TC:1+4,ET:4",
    )
    save_predictions: bool = Field(
        True, description="write label maps of the held-out cases, where the source has files"
    )
    save_levels: bool = Field(
        False,
        description="write the level of each voxel's foreground probability beside its label "
        "map, for a benchmark at equal false alarms",
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")


class CropIntake(Intake):
    """Samples of a host that trains on crops: at least as large as these, or of their grid."""

    def check_run(self, run: RunFolder, asked: SampleRequest) -> None:
        space, why = self.space, ""
        if run.space.grid == "slice":
            why = "generates slices, expected a generator of volumes"
        elif space.grid == "resample" and run.space.cuts:
            why = (
                f"generates crops of {run.space.size} voxels, expected whole cases (--read whole=)"
            )
        elif run.space.cuts or run.space.frame:
            why = misfit(space, run.space.host_shape(()))
        if why:
            own_size = space.size if space.size != self.source.space.size else ()
            raise UsageFault(
                "hosts.run-samples-misfit-crops",
                f"{run.folder}: {why}; train on smaller crops (--set patch=), or fit the generator "
                f"in the space of the training: {run.fit_again(self.source.request, own_size)}",
            )

    def check_sample(self, sample: Sample) -> None:
        super().check_sample(sample)
        why = misfit(self.space, sample.image.shape[1:])
        if why:
            raise UsageFault("hosts.sample-misfits-crops", f"{why}; see --set patch=")


class CropHost(Framework):
    """One training of a segmenter on crops; a subclass has four members of its own."""

    Options: ClassVar[type[HostOptions]] = TrainingOptions
    Intake: ClassVar[type[Intake]] = CropIntake
    unit: ClassVar[str] = "step"
    restarts_rate: ClassVar[bool] = True

    # -- what a host defines ---------------------------------------------------------------------

    @property
    @abstractmethod
    def patch(self) -> tuple[int, ...] | None:
        """Voxels (D, H, W) or (H, W) of a training crop; None for those of the source's space."""

    @property
    @abstractmethod
    def length(self) -> tuple[int, int]:
        """Optimiser steps of the whole training, and samples of a step."""

    @abstractmethod
    def train(self, job: Job) -> None:
        """Train from step ``job.first`` to the end, on the items of ``job.data``.

        Call ``job.step`` after each step, then ``job.checkpoint``. The order of items, and all
        random numbers of the host, must depend on ``job.seed`` and the step alone: then an
        interrupted training has the weights of an undisturbed one. It is also called to load a
        training that has no step left.
        """

    @abstractmethod
    def predict(self, image: FloatArray, folder: Path) -> LabelArray:
        """Return the label map of a whole case by the training in ``folder``.

        Called for one case after another, after ``train`` or without it.

        Args:
            image: float32 (C, D, H, W) or (C, H, W) of any size, in the units of the items.

        Returns:
            Values of ``self.schema.labels``, of the image's spatial shape; ``OUTSIDE`` counts as
            background.
        """

    def predict_levels(self, image: FloatArray, folder: Path) -> tuple[LabelArray, LabelArray]:
        """Return what ``predict`` does, and levels of the foreground's probability; optional.

        Raises:
            UsageFault: the host has no probabilities.
        """
        raise UsageFault(
            "hosts.no-probabilities-to-save",
            f"--set save_levels=yes: {self.name} has no probabilities, expected a host that has; "
            "leave it out",
        )

    def augment(self, image: FloatArray, labels: LabelArray, rng: np.random.Generator) -> Pair:
        """Augment one item (C, D, H, W) and (D, H, W) into new arrays; optional.

        Called for the items to augment only, so ``--no-host-augmentation`` and
        ``--augment-synthetic`` hold. A host that augments elsewhere cannot honour them.
        """
        return image, labels

    @property
    def foreground(self) -> float:
        """Share of the real samples that are drawn from cases with foreground."""
        return 0.0

    def done(self, folder: Path) -> int:
        """Return the step of the newest checkpoint; for hosts that write their own."""
        found = self.checkpoint(folder)
        return 0 if found is None else int(found.stem.removeprefix("step-"))

    # -- what follows from it --------------------------------------------------------------------

    @final
    def checkpoint(self, folder: Path) -> Path | None:
        """Return the newest file that ``Job.checkpoint`` has saved in a training's folder."""
        return max((folder / CHECKPOINTS).glob("step-*.ckpt"), default=None)

    @final
    def items(self, plan: MixerConfig[str], steps: int, batch_size: int) -> TrainingData:
        """Return the items of the whole training, real and synthetic as a plan says."""
        return TrainingData(
            self.source,
            self.space,
            plan,
            steps=steps,
            batch_size=batch_size,
            augment=self.augment if self.request.host_augmentation else None,
            augment_synthetic=self.request.augment_synthetic,
            foreground=self.foreground,
        )

    @property
    def round_size(self) -> int:
        return self.length[1]

    def validate(self) -> None:
        """Reject fold ``all``, and cases without labels above background."""
        source = self.source
        if not source.held_out_ids:
            raise UsageFault(
                "hosts.fold-without-held-out-cases",
                f"--fold {source.request.fold}: {source.name} holds no case out, expected a fold "
                f"with held-out cases to evaluate {self.name} on; choose one, such as --fold 0",
            )
        if not source.schema.foreground:
            raise UsageFault(
                "hosts.no-label-above-background",
                f"{source.name}: its label maps have no label above background, expected at least "
                "one",
            )

    def open(self) -> None:
        self.space = training_space(self.source, self.patch)
        self.intake = self.Intake(self.source, self.name, self.space)
        self.regions = self.asked_regions()
        if self.options.save_levels and type(self).predict_levels is CropHost.predict_levels:
            self.predict_levels(np.empty(0, np.float32), Path())  # refuses

    def planned(self, usual: Mapping[str, Any]) -> Mapping[str, Any]:
        return dict(usual) | {
            "trained_on": {"grid": self.space.grid, "size": list(self.space.size)},
            "judged_on": "real held-out cases, whole, on their own grid",
            "regions": {name: list(labels) for name, labels in self.regions},
        }

    def recorded(self, usual: Mapping[str, Any]) -> Mapping[str, Any]:
        settings = dict(usual["settings"], space=list(self.space.size), grid=self.space.grid)
        return dict(usual, settings=settings)

    def evaluate(self, job: Job) -> Mapping[str, Any]:
        """Predict the held-out cases, write their label maps, Dice and HD95."""
        options, source, output = self.options, self.source, job.folder
        job.say(f"evaluating on {len(source.held_out_ids)} real held-out cases")

        def predicted(image: FloatArray) -> list[LabelArray]:
            if options.save_levels:
                labels, *levels = self.predict_levels(image, output)
            else:
                labels, levels = self.predict(image, output), []
            return [np.where(labels == OUTSIDE, 0, labels).astype(np.int16), *levels]

        def on_grid(image: FloatArray) -> list[LabelArray]:
            return self.space.on_own_grid(source.schema, image, predicted)

        folder = output / PREDICTIONS if options.save_predictions else None
        levels = output / LEVELS if options.save_levels else None
        metrics = evaluate_held_out(
            source, self.regions, on_grid, folder, job.say, count=job.count, levels=levels
        )
        write_json_atomic(output / METRICS, {"steps": job.steps} | metrics)
        return headline(metrics)

    @classmethod
    def predicts_levels(cls) -> bool:
        """Whether the host has probabilities."""
        return cls.predict_levels is not CropHost.predict_levels

    @classmethod
    def predict_images(cls, job: PredictJob) -> Sequence[Path]:
        """Predict each image in the units and the spacing of the training cases."""
        host = cls.reopened(job)
        ignore = host.source.schema.ignore
        job.check_sure(ignore)
        images = job.opened(host.source.schema.channels, host.source)
        trained = host.source.files(host.source.train_ids[0])
        numbers = {} if trained is None else trained.numbers
        labels = {k: numbers.get(v, v) for k, v in host.source.schema.labels.items()}
        job.begin(target=cls.name, labels=labels)

        def predicted(image: FloatArray) -> list[LabelArray]:
            if job.sure is None or ignore is None:
                found = host.predict(image, job.folder)
            else:
                found = job.with_unsure(*host.predict_levels(image, job.folder), ignore)
            return [np.where(found == OUTSIDE, 0, found).astype(np.int16)]

        files = []
        with job.reporter.task(len(images.train_ids), "case") as task:
            for case in images.train_ids:
                image = images.load(case).image
                found = host.space.on_own_grid(host.source.schema, image, predicted)[0]
                files.append(write_labels(images, case, found, job.out, numbers))
                task.advance(1)
        return files
