"""The papers' segmenters as a target framework for gansynth's own volume sources."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gansynth import CropHost, FloatArray, Job, LabelArray, UsageFault
from gansynth.hosts.mixing.training_data import CentredCrops
from gansynth.runtime.option_kinds import size_text
from gansynth_segmenter.options import AUGMENTATION, SegmenterOptions

if TYPE_CHECKING:
    from gansynth import Batch, FitOptions, Generator, Schema, Stage
    from gansynth_segmenter.inference import Segmenter

Pair = tuple[FloatArray, LabelArray]  # an item's image and labels
_LOOP = ("precision", "decay", "checkpoint_every", "log_every")
"""Options that are passed on to the loop."""


class SegmenterHost(CropHost):
    """A U-Net, a pix2pix or DeepMedic's network, trained on the cases of one source and fold."""

    name: ClassVar[str] = "segmenter"
    Options = SegmenterOptions
    length_options = ("steps", "epochs")
    may_change = ("log_every", "epochs")
    augmentation = AUGMENTATION
    options: SegmenterOptions
    _trained: Segmenter | None = None

    @property
    def patch(self) -> tuple[int, ...] | None:
        return self.options.patch_of(self.schema.ndim)

    @property
    def length(self) -> tuple[int, int]:
        """The options ``steps`` or ``epochs``, and ``batch_size``."""
        steps = self.options.steps_for(len(self.source.train_ids))
        return steps, int(self.options.own("batch_size"))

    @property
    def foreground(self) -> float:
        return self.options.foreground

    def open(self) -> None:
        """Reject crops that the network cannot take; centre them, if the options say so."""
        from gansynth import pick_device
        from gansynth.runtime.devices import resolve

        super().open()
        resolve(self.options.precision, pick_device(self.options.device))
        deep, centred = self.options.network == "deepmedic", self.options.centred
        if deep:  # before samples are checked, which takes long
            self._check_crops()
        if deep if centred is None else centred:
            self.space = CentredCrops(**vars(self.space))

    def _check_crops(self) -> None:
        if self.schema.ndim != 3 or not self.space.cuts:
            raise UsageFault(
                "segmenter.deepmedic-without-crops",
                f"--network deepmedic: has paths of several resolutions in 3D, {self.source.name} "
                "is read as pictures or as whole resampled cases; expected crops of volumes. Name "
                "--patch 64, or train --network unet",
            )
        from gansynth.hosts.mixing.segments import segment_margin
        from gansynth_segmenter.dual_path import RECEPTIVE

        least = 2 * segment_margin(RECEPTIVE, self.options.factors) + 1
        if min(self.space.size) >= least:
            return
        factors, edge = ",".join(map(str, self.options.factors)), -(-least // 32) * 32
        run = self.request.run if self.request.mix.synthetic else None
        way_out = f"name a larger one: --patch {edge}"
        if run is not None and run.space.cuts and min(run.space.size) < edge:
            again = run.fit_again(self.source.request, (edge,))
            way_out = f"samples of {run.folder} are as small: {again}; then name its run here"
        raise UsageFault(
            "segmenter.deepmedic-crops-too-small",
            f"--network deepmedic: crops have {size_text(self.space.size)} voxels, expected at "
            f"least {least} on each axis, which the paths of --factors {factors} see; {way_out}",
        )

    def describe_training(self) -> Mapping[str, Any]:
        return {"network": self.options.network}

    def done(self, folder: Path) -> int:
        """Return the step of the newest checkpoint of the loop."""
        from gansynth.training import checkpoint

        newest = checkpoint.latest(folder / "checkpoints")
        return 0 if newest is None else int(newest.state["step"])

    def augment(self, image: FloatArray, labels: LabelArray, rng: np.random.Generator) -> Pair:
        return (image, labels) if self._usual is None else self._usual(image, labels, rng)

    @functools.cached_property
    def _usual(self) -> Callable[[FloatArray, LabelArray, np.random.Generator], Pair] | None:
        schema, outside = self.space.generator_schema(self.schema), self.space.pad_label
        fill = self.space.padding_values(len(schema.channels))
        if self.options.augmentation == "nnunet":
            from gansynth import installed

            installed().host("nnunet")  # says how to install it, if it is not
            from gansynth_segmenter.as_nnunet import NnunetAugmentation

            return NnunetAugmentation(self.space.size, fill, outside)
        from gansynth_segmenter.augmentation import AugmentationWarp

        return AugmentationWarp.of(self.options, schema.spacing, fill, outside)

    def network(self, schema: Schema) -> Generator:
        """Build the untrained network; its weights depend on ``torch``'s seed."""
        from gansynth_segmenter.networks import build

        return build(self.options, schema, self.space.size)

    def batch(self, job: Job, step: int, stage: Stage, which: range) -> Batch:
        """Return samples of one step on the CPU: image (B, C, D, H, W), labels (B, D, H, W)."""
        import torch

        from gansynth import Batch

        items = self.drawn(job, step, which)
        image = torch.from_numpy(np.stack([item["image"] for item in items]))
        labels = torch.from_numpy(np.stack([item["labels"] for item in items]).astype(np.int64))
        return Batch(image, labels)

    def drawn(self, job: Job, step: int, which: range) -> list[dict[str, Any]]:
        """Return the items of a batch, real ones and samples."""
        return [job.data[step * job.batch_size + number] for number in which]

    def loop(self, job: Job) -> FitOptions:
        from gansynth import FitOptions

        return FitOptions(
            steps=job.steps,
            batch_size=job.batch_size,
            **{key: getattr(self.options, key) for key in _LOOP},
            seed=job.seed,
            diversity=0,
        )

    def train(self, job: Job) -> None:
        from gansynth import TrainingCallbacks
        from gansynth.runtime.devices import seeded
        from gansynth.training.loop import train
        from gansynth_segmenter.inference import Segmenter, remember

        options, schedule = self.options, self.request.mix.schedule
        with seeded(job.seed):
            generator = self.network(job.schema)
        trained = Segmenter(generator, self.schema, self.space, self.regions, options)
        self._trained = trained
        count = sum(p.numel() for p in generator.nets["generator"].parameters())
        job.say(
            f"{options.network} of {count} parameters on {job.device}; steps {job.first} to "
            f"{job.steps} of {job.batch_size} samples of {' x '.join(map(str, self.space.size))} "
            "voxels"
        )

        def checkpointed(path: Path, step: int) -> None:
            remember(trained, job.folder, path, step, self.source.train_ids)
            job.checkpoint(step)

        loop = self.loop(job)
        report = train(
            generator,
            functools.partial(self.batch, job),
            loop,
            rate=lambda step: loop.rate(schedule.restarted(step, job.steps)),
            device=job.device,
            folder=job.folder,
            resume=job.first > 0,
            callbacks=TrainingCallbacks(checkpointed, reporter=_StepListener(job), stop=job.stop),
        )
        for note in report.notes:  # such as a damaged checkpoint that was passed over
            job.warn(note)

    def predict(self, image: FloatArray, folder: Path) -> LabelArray:
        segmenter = self._segmenter(folder)
        return segmenter.likeliest(segmenter.scores(image))

    def predict_levels(self, image: FloatArray, folder: Path) -> tuple[LabelArray, LabelArray]:
        """Return the likeliest labels, and levels of the foreground."""
        segmenter = self._segmenter(folder)
        scores = segmenter.scores(image)
        return segmenter.likeliest(scores), segmenter.levels(scores)

    def _segmenter(self, folder: Path) -> Segmenter:
        from gansynth_segmenter.inference import load_segmenter

        if self._trained is None:
            self._trained = load_segmenter(folder, self.options.device)
        return self._trained


class _StepListener:
    """Passes the loop's steps and warnings on to the job."""

    def __init__(self, job: Job) -> None:
        self._job, self.say, self.warn = job, job.say, job.warn

    @contextmanager
    def task(self, total: int, title: str, done: float = 0) -> Iterator[_StepListener]:
        yield self

    def advance(self, n: float = 1, **figures: Any) -> None:
        numbers = {name: value for name, value in figures.items() if not isinstance(value, str)}
        self._job.step(**numbers)
