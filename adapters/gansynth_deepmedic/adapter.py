"""DeepMedic as a target framework: data sets extended on disk, or training fed on the fly.

On the fly, the user's unmodified checkout trains in its own Python, as a child process. This
process owns the sample bank and its producer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from gansynth.bank.training_bank import read_patience
from gansynth.core.adapter import Adapter, HostArrays
from gansynth.core.bank_options import BankCapacity
from gansynth.core.host_commands import ExportRequest, TrainingFolder, TrainingRequest
from gansynth.core.mix_config import Mix, MixConfig, TrainingResult
from gansynth.core.prediction import Prediction
from gansynth.core.schema import Sample
from gansynth.core.source import CaseSource
from gansynth.hosts.checks import check_drawing, plan_own_bank
from gansynth.hosts.record import FILE, default_output, read_sessions, training_folder
from gansynth.hosts.session import CachedResult, training_in
from gansynth.metrics.segmentation.results import FILE as METRICS
from gansynth.metrics.segmentation.results import asked_regions
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth_deepmedic.config import (
    RUNS,
    DeepMedicChoices,
    DeepMedicSettings,
    absolute,
)
from gansynth_deepmedic.configs import read_model_config
from gansynth_deepmedic.guards import SMALLEST, open_sample_source, sample_bytes
from gansynth_deepmedic.program import find_program
from gansynth_deepmedic.record import (
    COMPARED,
    WAY_OUT,
    DeepMedicJob,
    prediction_files,
    refuse_unmeasurable,
)
from gansynth_deepmedic.session import DeepMedicSession
from gansynth_deepmedic.source import DeepMedicSource
from gansynth_deepmedic.subepoch_shares import same_segments, share_on_the_fly


class DeepMedicAdapter(Adapter):
    """Augments the training of one DeepMedic configuration."""

    name: ClassVar[str] = "deepmedic"
    title: ClassVar[str] = "DeepMedic"
    length_option: ClassVar[str] = "epochs"
    Options = DeepMedicSettings
    needs: ClassVar[Literal["labels", "boxes"]] = "labels"
    rewrites_real: ClassVar[bool] = True

    def __init__(self, source: CaseSource) -> None:
        super().__init__(source)
        if not isinstance(source, DeepMedicSource):
            raise UsageFault(
                f"--data {source.request.kind}:{source.request.where}: DeepMedic trains by its own "
                "configuration, expected deepmedic:trainConfig.cfg"
            )
        self.host = source
        self._job = CachedResult(self._new_job)
        self._looked: set[Path] = set()

    @property
    def sample_size(self) -> tuple[int, ...]:
        """Least size (D, H, W) with voxels left inside the faded border."""
        return SMALLEST

    def finalise(self, sample: Sample) -> HostArrays:
        """Return no arrays beside image and labels."""
        if sample.labels is None:
            raise DataFault(
                "sample: no labels, expected them, because DeepMedic learns from labels"
            )
        return {}

    def validate(self) -> None:
        """Reject fold ``all``, and resampled cases."""
        host = self.host
        if host.request.fold == "all":
            raise UsageFault(
                "--fold all: leaves no case to validate DeepMedic on; expected fold 0, the lists "
                f"of {host.config.path}"
            )
        if host.options.spacing != "native":
            raise UsageFault(
                f"--read spacing={host.request.read.get('spacing', host.options.spacing)}: "
                "DeepMedic reads voxels as stored, and resampled samples cannot be converted back "
                "exactly; expected native. Leave it out, here and for the generator"
            )

    def check(self, request: TrainingRequest) -> None:
        """Check settings, the program and its options, and the generator or bank."""
        self._checked_job(request)

    def planned(self, request: TrainingRequest) -> Mapping[str, Any]:
        """Describe cases and segments of a subepoch, and roundings for a dry run."""
        job = self._job(request)
        share = job.share
        each = share.segments // share.cases
        cases: dict[str, Any] = {"all": share.cases, "synthetic_at_most": job.most_synthetic}
        segments: dict[str, Any] = {"all": share.segments, "of_each_case": each}
        if share.real is not None and share.synthetic is not None:
            cases = {"real": share.real, "synthetic": share.synthetic}
            segments = {key: each * count for key, count in cases.items()}
        return {
            "model": str(job.choices.model),
            "epochs": job.config.epochs,
            "subepochs_of_an_epoch": job.config.subepochs,
            "cases_per_subepoch": cases,
            "segments_per_subepoch": segments,
            "said": list(share.notes),
            "real_in_generator_space": request.mix_config.real_in_generator_space,
            "versions": job.describe()["versions"],
        }

    @classmethod
    def heavier(cls, settings: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return DeepMedic's own affine deformations for half of the segments."""
        return {"affine": "0.5"}, ()

    def lasting(
        self, steps: int, mixes: Sequence[Mix], settings: Mapping[str, str], cases: int
    ) -> list[dict[str, str]]:
        """Return epochs, and the least segments of a subepoch that fit all ratios exactly."""
        config = self.host.config
        segments = int(settings.get("segments", config.segments))
        kinds = [(ratio, schedule.kind == "constant") for ratio, schedule in mixes]
        segments = same_segments(kinds, config.cases, segments, config.batch, real=cases)
        each = int(settings.get("subepochs", config.subepochs)) * (segments // config.batch)
        length = {"segments": str(segments), "epochs": str(max(1, round(steps / each)))}
        return [length for _ in mixes]

    def start(self, request: TrainingRequest) -> TrainingResult:
        """Train in a child process, and wait for its end; see ``Adapter.start``."""
        self.validate()
        job = self._checked_job(request)
        with training_in(lambda: self.training_folder(request)) as folder:
            session = DeepMedicSession(job, request.reporter)
            if not folder.finished:
                session.run()
            return session.outcome()

    def training_folder(self, request: TrainingRequest) -> TrainingFolder:
        """Look into the output folder; see ``Adapter.training_folder``."""
        job = self._job(request)
        described = (job.output, job.describe(), COMPARED)
        return training_folder(*described, total=job.config.epochs)

    def check_judged(self, settings: Mapping[str, str]) -> None:
        """Reject a training that saves no segmentations; see ``Adapter.check_judged``."""
        refuse_unmeasurable(self.host)

    def judged(self, folder: Path) -> Mapping[str, Prediction]:
        """Return the label maps of the held-out cases; see ``Adapter.judged``."""
        return prediction_files(self.host, folder)

    @classmethod
    def scores(cls, folder: Path) -> dict[str, Any]:
        """Return the steps of a training, and the Dice of every case."""
        sessions = read_sessions(folder / FILE)
        trained = [k for session in sessions for k in session["per_subepoch"] if k["trained"]]
        segments = (k["segments_real"] + k["segments_synthetic"] for k in trained)
        measured = read_json(folder / METRICS, hint=WAY_OUT)["per_case"]
        return {
            "steps": sum(count // sessions[-1]["batch"] for count in segments),
            "per_case": {case: scores["dice"] for case, scores in measured.items()},
        }

    def export(self, request: ExportRequest) -> Mapping[str, Any]:
        """Write a folder that stock DeepMedic trains on; see ``Adapter.export``."""
        from gansynth_deepmedic.export import DeepMedicExport

        self.validate()
        open_sample_source(request.mix_config, self.host, self.held_out)
        check_drawing(self, request.mix_config)
        return DeepMedicExport(self.host, request).run()

    def samples_drawn(self, request: TrainingRequest) -> int:
        """Return the cases of all subepochs."""
        job = self._job(request)
        return job.total * job.share.cases

    def bank_plan(self, mix_config: MixConfig) -> BankCapacity | None:
        """Plan the sample bank of a run; see ``Adapter.bank_plan``."""
        return plan_own_bank(self, mix_config, lambda manifest: sample_bytes(manifest, self.host))

    # -- one training ------------------------------------------------------------------------------

    def _checked_job(self, request: TrainingRequest) -> DeepMedicJob:
        self.check_ways(request.mix_config)
        job = self._job(request)
        check_drawing(self, request.mix_config)
        return job

    def _new_job(self, request: TrainingRequest) -> DeepMedicJob:
        mix_config, model = request.mix_config, self.host.model
        choices = DeepMedicChoices.read(
            request.settings, request.options, None if model is None else model.path
        )
        config = choices.asked(self.host.config)
        options = choices.options
        self._check_data(choices.model, draws=mix_config.ratio.p > 0)
        generates = mix_config.ratio.p > 0 or mix_config.real_in_generator_space
        return DeepMedicJob(
            mix_config=mix_config,
            choices=choices,
            source=self.host,
            config=config,
            share=share_on_the_fly(
                *(mix_config.ratio, config.cases, config.segments, config.batch),
                real=len(self.source.train_ids),
                constant=mix_config.schedule.kind == "constant",
            ),
            output=absolute(options.output) or default_output(RUNS, self.host.name, mix_config),
            sample_source=open_sample_source(
                mix_config, self.host, self.held_out if generates else ()
            ),
            regions=asked_regions(options.regions, self.host),
            program=find_program(options.deepmedic, options.deepmedic_python),
            patience=read_patience(),
        )

    def _check_data(self, model: Path, *, draws: bool) -> None:
        """Reject configurations that no sample fits, and check the network once with all data."""
        from gansynth_deepmedic.check import refuse_unusable

        config = self.host.config
        if config.weighted:
            raise DataFault(
                f"{config.path}: weightedMapsForSamplingEachCategoryTrain is set, but synthetic "
                "cases have no such maps; expected sampling by labels (typeOfSamplingForTraining). "
                "Remove that key"
            )
        if draws and any(config.normalised):
            raise DataFault(
                f"{config.path}: norm_zscore_prms is set, so DeepMedic normalises each case within "
                "its region of interest, which is the sample of a synthetic case. Expected images "
                "that are normalised already; remove that key"
            )
        if model not in self._looked:
            refuse_unusable(self.host, read_model_config(model))
            self._looked.add(model)
