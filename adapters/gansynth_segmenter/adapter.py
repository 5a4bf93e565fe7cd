"""The papers' segmenters as a target framework for gansynth's own volume sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

from gansynth.bank.training_bank import read_patience
from gansynth.core.adapter import Adapter, HostArrays, Mix, MixConfig, TrainingResult
from gansynth.core.bank_options import BankCapacity
from gansynth.core.host_commands import TrainingFolder, TrainingRequest
from gansynth.core.mix_config import MixerConfig
from gansynth.core.prediction import Prediction
from gansynth.core.schema import Sample
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.hosts.checks import check_drawing, plan_own_bank
from gansynth.hosts.record import (
    FILE,
    default_output,
    read_sessions,
    training_folder,
    training_result_of,
)
from gansynth.hosts.session import CachedResult, training_in
from gansynth.metrics.segmentation.results import asked_regions
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.options import refuse_unaugmented
from gansynth_segmenter.guards import open_sample_source
from gansynth_segmenter.mixed import MixedCases, TrainingCrops, training_space
from gansynth_segmenter.options import AUGMENTATION, RUNS, SegmenterOptions
from gansynth_segmenter.record import COMPARED, METRICS, SegmenterJob, describe, newest_step
from gansynth_segmenter.session import SegmenterSession

SAYS = 4096  # bytes for a sample's metadata


class SegmenterAdapter(Adapter):
    """A U-Net or a pix2pix, trained on the cases of one source and fold."""

    name: ClassVar[str] = "segmenter"
    Options = SegmenterOptions
    needs: ClassVar[Literal["labels", "boxes"]] = "labels"

    def __init__(self, source: CaseSource) -> None:
        super().__init__(source)
        self._job = CachedResult(self._new_job)

    @property
    def sample_size(self) -> tuple[int, ...]:
        """One voxel: the least size is a setting, which is checked with the others."""
        return (1,) * self.schema.ndim

    def finalise(self, sample: Sample) -> HostArrays:
        """Return no arrays beside image and labels."""
        if sample.labels is None:
            raise DataFault(
                "sample: no labels, expected them, because a segmenter learns from labels"
            )
        return {}

    def validate(self) -> None:
        """Reject fold ``all``, slices, and cases without labels above background."""
        source = self.source
        if not source.held_out_ids:
            raise UsageFault(
                f"--fold {source.request.fold}: {source.name} holds no case out, expected a fold "
                "with held-out cases to evaluate the segmenter on; choose one, such as --fold 0"
            )
        if source.space.grid == "slice":
            training_space(source, SegmenterOptions())
        if not source.schema.foreground:
            raise UsageFault(
                f"{source.name}: its label maps have no label above background, expected at least "
                "one"
            )

    def check(self, request: TrainingRequest) -> None:
        """Check settings, and the generator or bank."""
        self._checked_job(request)

    @classmethod
    def heavier(cls, settings: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return wider augmentation; still wider deformations would fold label maps."""
        return {"rotate": "30", "shift": "0.1", "elastic": "3"}, ()

    def lasting(
        self, steps: int, mixes: Sequence[Mix], settings: Mapping[str, str], cases: int
    ) -> list[dict[str, str]]:
        """Return the steps, whatever the mix."""
        return [{"steps": str(steps)} for _ in mixes]

    def planned(self, request: TrainingRequest) -> Mapping[str, Any]:
        """Describe the network, its steps and its training space for a dry run."""
        job = self._job(request)
        return {
            "network": job.options.network,
            "steps": job.steps,
            "samples_of_a_step": job.options.batch_size,
            "trained_on": {"grid": job.space.grid, "size": list(job.space.size)},
            "judged_on": "real held-out cases, whole, on their own grid",
            "regions": {name: list(labels) for name, labels in job.regions},
        }

    def samples_drawn(self, request: TrainingRequest) -> int:
        """Return the samples of all steps."""
        job = self._job(request)
        return job.steps * job.options.batch_size

    def bank_plan(self, mix_config: MixConfig) -> BankCapacity | None:
        """Plan the sample bank of a run; see ``Adapter.bank_plan``."""
        return plan_own_bank(self, mix_config, self._sample_bytes)

    def _sample_bytes(self, manifest: Mapping[str, Any]) -> int:
        """Return the most bytes of a run's sample: image (float16) and labels (int16)."""
        space = Space.from_json(manifest["space"])
        if space.cuts or space.frame:
            voxels = prod(space.host_shape(()))
        else:
            voxels = max(prod(self.source.header(case).shape) for case in self.source.train_ids)
        return voxels * (2 * len(manifest["schema"]["channels"]) + 2) + SAYS

    def inject(self, dataset: Any, plan: MixerConfig[str], *, batch_size: int) -> MixedCases:
        """Return the slots of batches, for a user's training loop. Nothing is augmented."""
        cutter = TrainingCrops(self.source, training_space(self.source, SegmenterOptions()))
        cases = self.source.train_ids if dataset is None else dataset
        return MixedCases(cutter, plan, cases, batch_size)

    def start(self, request: TrainingRequest) -> TrainingResult:
        """Train, evaluate on the real held-out cases, and write both to the output folder.

        Raises:
            Interrupted: by SIGTERM or SIGINT. A checkpoint is written, and no process or bank is
                left.
        """
        self.validate()
        job = self._checked_job(request)
        with training_in(lambda: self.training_folder(request)) as folder:
            if not folder.finished:
                SegmenterSession(job, request.reporter).run()
            sessions = read_sessions(job.output / FILE)
            metrics = sessions[-1]["metrics_on_real_cases"]
            return training_result_of(sessions, job.output, metrics)

    def training_folder(self, request: TrainingRequest) -> TrainingFolder:
        """Look into the output folder; see ``Adapter.training_folder``."""
        job = self._job(request)
        return training_folder(
            *(job.output, describe(job), COMPARED),
            done=newest_step(job.output),
            total=job.steps,
            unit="step",
            result=METRICS,
        )

    def check_judged(self, settings: Mapping[str, str]) -> None:
        """Reject cases without files, and ``save_predictions=no``; see ``Adapter``."""
        from gansynth_segmenter.evaluation import refuse_unmeasurable

        saved = SegmenterOptions.read(settings).save_predictions
        refuse_unmeasurable(self.source, saved=saved)

    @classmethod
    def saving_levels(cls) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return the setting that writes levels; see ``Adapter.saving_levels``."""
        return {"save_levels": "yes"}, ()

    def judged(self, folder: Path) -> Mapping[str, Prediction]:
        """Return the label maps of the held-out cases; see ``Adapter.judged``."""
        from gansynth_segmenter.evaluation import prediction_files

        return prediction_files(self.source, folder)

    # -- one training ------------------------------------------------------------------------------

    def _checked_job(self, request: TrainingRequest) -> SegmenterJob:
        self.check_ways(request.mix_config)
        job = self._job(request)
        check_drawing(self, request.mix_config)
        return job

    def _new_job(self, request: TrainingRequest) -> SegmenterJob:
        mix_config = request.mix_config
        from gansynth.runtime.devices import pick_device, resolve

        if request.options:
            raise UsageFault(
                f"-- {request.options[0]}: segmenter has no command line of its own, expected "
                "--set KEY=VALUE; leave what follows -- out"
            )
        choices = SegmenterOptions.read(request.settings)
        refuse_unaugmented(request.settings, AUGMENTATION, usual=mix_config.usual_augmentation)
        source = self.source
        space = training_space(source, choices)
        regions = asked_regions(choices.regions, source)
        resolve(choices.precision, pick_device(choices.device))
        output = Path(choices.output).expanduser() if choices.output else None
        drawn = mix_config.ratio.p > 0
        sample_source = open_sample_source(
            mix_config, source, space, self.held_out if drawn else ()
        )
        run = None if sample_source is None else sample_source.run
        return SegmenterJob(
            mix_config=mix_config,
            options=choices,
            source=source,
            space=space,
            regions=regions,
            steps=choices.steps_for(len(source.train_ids)),
            output=(output or default_output(RUNS, source.name, mix_config)).absolute(),
            sample_source=sample_source,
            sample_bytes=0 if run is None else self._sample_bytes(run.manifest),
            patience=read_patience(),
        )
