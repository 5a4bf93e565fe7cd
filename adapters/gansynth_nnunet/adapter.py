"""The adapter of nnU-Net v2: unmodified, trained in a child process by its ``run_training``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from gansynth.bank.training_bank import read_patience
from gansynth.core.adapter import (
    Adapter,
    CommandReport,
    DoctorRequest,
    ExportRequest,
    HostArrays,
    ImportRequest,
    Mix,
    MixConfig,
    PrepareRequest,
    SplitsRequest,
    TrainingResult,
)
from gansynth.core.bank_options import BankCapacity
from gansynth.core.host_commands import TrainingRequest
from gansynth.core.mix_config import MixerConfig
from gansynth.core.prediction import Prediction
from gansynth.core.ratio import Ratio
from gansynth.core.schema import Sample
from gansynth.core.source import CaseSource, FoldSplit
from gansynth.core.space import Space
from gansynth.hosts.checks import check_drawing, plan_own_bank
from gansynth.hosts.launch import device_of, train_apart
from gansynth.hosts.record import compare, read_sessions
from gansynth.hosts.sample_source import SampleSource
from gansynth.metrics.segmentation.results import account_of, asked_regions
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import disk_errors, read_json, write_json_atomic
from gansynth.runtime.machine import DoctorLine
from gansynth.runtime.options import read_settings
from gansynth.sampling.run import locked
from gansynth_nnunet import variants
from gansynth_nnunet.class_locations import Key, encode, keys_of
from gansynth_nnunet.config import NnunetSettings, TrainerMix
from gansynth_nnunet.converter import SpaceConverter
from gansynth_nnunet.guards import check_origin, drawn_size, host_size, sample_bytes, takes_of
from gansynth_nnunet.launch import TRAINER, parse_options, with_ext_trainer
from gansynth_nnunet.mixed import MixedNnunetDataset
from gansynth_nnunet.plans import PrepareSettings
from gansynth_nnunet.session import (
    ANEW,
    CHECKPOINTS,
    SIDECAR,
    describe_session,
    read_training_result,
)
from gansynth_nnunet.source import NnunetSource
from gansynth_nnunet.splits import make_splits

CONFIG = "gansynth_config.json"  # file of a training's results that says how samples enter it
WORKERS = "2"  # default number of nnU-Net's augmentation processes (`nnUNet_n_proc_DA`)


class NnunetAdapter(Adapter):
    """One nnU-Net data set, plans, configuration and fold to augment."""

    name: ClassVar[str] = "nnunet"
    exports: ClassVar[Literal["nothing", "name", "folder"]] = "name"
    Options = NnunetSettings
    PrepareOptions = PrepareSettings
    goes_on: ClassVar[tuple[str, ...]] = ("--", "--c")

    def __init__(self, source: CaseSource) -> None:
        super().__init__(source)
        if not isinstance(source, NnunetSource):
            raise UsageFault(
                f"--data {source.request.kind}:{source.request.where}: nnU-Net trains on its own "
                "data sets, expected nnunet:ID"
            )
        self.host = source
        self.trainer = TRAINER
        """Name of the trainer class for nnU-Net, set after ``check`` has read the settings."""
        self.results = source.root.results
        """Folder of nnU-Net's results, set likewise."""

    @property
    def output_folder(self) -> Path:
        """Folder of nnU-Net's results of this training."""
        host = self.host
        model = f"{self.trainer}__{self._plans}__{host.configuration}"
        return self.results / host.dataset / model / f"fold_{host.fold}"

    @property
    def _plans(self) -> str:
        """Name of the plans' file, the argument of nnU-Net's ``-p``."""
        return self.host.plans.path.stem

    @property
    def sample_size(self) -> tuple[int, ...]:
        """The patch in voxels, (D, H, W); in 2D one slice, (1, H, W)."""
        return host_size(self.host.patch_size)

    def finalise(self, sample: Sample) -> HostArrays:
        """Return voxels per label or region, on which nnU-Net centres crops."""
        if sample.labels is None:
            raise DataFault("sample: no labels, expected them: nnU-Net learns from nothing else")
        return encode(sample.labels, self.keys)

    def bring(self, source: CaseSource, space: Space) -> Callable[[Sample], Sample]:
        """Return nnU-Net's own preprocessing of samples of raw scans; see ``Converter``."""
        if "plans" in source.host:
            return super().bring(source, space)

        return SpaceConverter(source, space, self.host)

    def validate(self) -> None:
        """Check the files that nnU-Net needs beside the cases, which the source has checked."""
        plans, folder = self.host.plans, self.host.plans.folder
        if plans.doc["plans_name"] != self._plans:
            raise DataFault(
                f"{plans.path}: plans_name is {plans.doc['plans_name']!r}, expected its own name"
            )
        for name in ("dataset_fingerprint.json", "gt_segmentations"):
            if not (folder / name).exists():
                raise DataFault(
                    f"{folder / name}: missing, expected it from nnU-Net's preprocessing; "
                    f"run: gansynth prepare nnunet:{self.host.dataset[7:10]} -c "
                    f"{self.host.configuration}"
                )

    def inject(
        self, dataset: Any, plan: MixerConfig[str], *, batch_size: int
    ) -> MixedNnunetDataset:
        """Wrap an nnU-Net training data set; for users with their own trainer."""
        return MixedNnunetDataset(dataset, plan, batch_size, len(self.schema.channels), self.keys)

    def check(self, request: TrainingRequest) -> None:
        """Check settings, nnU-Net's options, and the generator or bank."""
        mix_config = request.mix_config
        self.check_ways(mix_config)
        parsed = parse_options(request.options)
        config = self._config(mix_config, request.settings)
        variants.check(self.trainer)
        asked_regions(request.settings.get("regions", ""), self.source)
        sample_source = self._check(mix_config) if mix_config.ratio.p > 0 else None
        if parsed.c and any((self.output_folder / name).exists() for name in CHECKPOINTS):
            for session in read_sessions(self.output_folder / SIDECAR)[-1:]:
                compare(session, describe_session(config, sample_source), None, anew=ANEW)

    @classmethod
    def impartial(cls, options: Sequence[str], settings: Mapping[str, str]) -> tuple[str, ...]:
        """Return no options: nnU-Net keeps its last weights unless its best ones are requested."""
        if "--val_best" in options:
            raise UsageFault(
                "host.options: --val_best chooses weights by the cases of the evaluation, "
                "expected the last ones; leave it out"
            )
        return tuple(options)

    @classmethod
    def heavier(cls, settings: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return nnU-Net's own DA5, with the elastic deformation that it leaves out."""
        return {"trainer": "nnUNetTrainerDA5", "elastic": "0.3"}, ()

    def lasting(
        self, steps: int, mixes: Sequence[Mix], settings: Mapping[str, str], cases: int
    ) -> list[dict[str, str]]:
        """Return epochs of as many iterations as set, else of nnU-Net's 250, or of fewer."""
        each = int(settings.get("num_iterations_per_epoch", min(steps, 250)))
        epochs, remainder = divmod(steps, each)
        if remainder:
            raise UsageFault(
                f"steps {steps}: no whole number of epochs of {each} iterations, expected a "
                "multiple of that, or other num_iterations_per_epoch"
            )
        length = {"num_epochs": str(epochs), "num_iterations_per_epoch": str(each)}
        return [length for _ in mixes]

    def start(self, request: TrainingRequest) -> TrainingResult:
        """Train nnU-Net in a child process and wait for its end; see ``Adapter.start``."""
        self.validate()
        self.check(request)

        config = self._config(request.mix_config, request.settings)
        with locked(self.output_folder, "take -o FOLDER, or other --plans or --fold"):
            self._train(self._write(config), request)
            regions = asked_regions(request.settings.get("regions", ""), self.source)
            account = account_of(self.judged, self.source, self.output_folder, regions)
            return read_training_result(self.output_folder, account)

    def check_judged(self, settings: Mapping[str, str]) -> None:
        """Refuse files other than NIfTI, and a fold without held-out cases; see ``Adapter``."""
        from gansynth_nnunet.predictions import refuse_unmeasurable

        refuse_unmeasurable(self.host)

    def judged(self, folder: Path) -> Mapping[str, Prediction]:
        """Return label maps of the held-out cases; see ``Adapter.judged``."""
        from gansynth_nnunet.predictions import prediction_files

        return prediction_files(self.host, folder)

    def export(self, request: ExportRequest) -> Mapping[str, Any]:
        """Write an nnU-Net data set; see ``Adapter.export``."""
        from gansynth_nnunet.export import NnunetExport

        self.validate()
        self.check(TrainingRequest(request.mix_config, {}, ()))
        return NnunetExport(self.host, request).run()

    @classmethod
    def import_dataset(cls, request: ImportRequest) -> CommandReport:
        """Copy labelled cases of any source as a raw data set; see ``Adapter.import_dataset``."""
        from gansynth_nnunet.importing import import_raw

        return import_raw(request)

    @classmethod
    def prepare(cls, request: PrepareRequest) -> CommandReport:
        """Run nnU-Net's own planning and preprocessing; see ``Adapter.prepare``."""
        from gansynth_nnunet.prepare import prepare

        return prepare(request)

    @classmethod
    def make_splits(cls, request: SplitsRequest) -> Sequence[FoldSplit]:
        """Write ``splits_final.json``; see ``Adapter.make_splits``."""
        return make_splits(request)

    @classmethod
    def doctor(cls, request: DoctorRequest) -> Iterator[DoctorLine]:
        """Check nnU-Net's folders, its workers, and gansynth's trainer."""
        from gansynth.runtime.machine import cores
        from gansynth_nnunet.doctor import lines

        return lines(request.root, quick=request.quick, cores=cores())

    def _train(self, config: Path, request: TrainingRequest) -> None:
        """Run nnU-Net in a child process until it ends."""
        host = self.host
        variables = {
            "nnUNet_n_proc_DA": WORKERS,
            "nnUNet_def_n_proc": str(min(8, os.cpu_count() or 1)),  # nnU-Net: 8 on any machine
            **with_ext_trainer(dict(os.environ)),
            **host.root.variables(),
            "nnUNet_results": str(self.results),
            TrainerMix.FILE: str(config),
        }
        command = [host.dataset, host.configuration, host.fold, "-p", self._plans]
        command += ["-tr", self.trainer, *request.options]
        command += ["-device", device_of(parse_options(request.options).device)]
        train_apart(
            *("gansynth_nnunet.launch", command, self.output_folder, "nnU-Net's training"),
            scratch=request.mix_config.scratch,
            variables=variables,
            reporter=request.reporter,
        )

    # -- before ----------------------------------------------------------------------------------

    def _config(self, mix_config: MixConfig, settings: Mapping[str, str]) -> TrainerMix:
        """Return the configuration for the child process."""
        choices = read_settings(NnunetSettings, settings, self.name)
        self.trainer = variants.with_suffix(choices.trainer)
        self.results = self._own_results(mix_config.ratio, choices.results)
        return TrainerMix(
            mix_config=mix_config,
            settings=choices.attributes,
            subjects=self.source.request.subjects,
            held_out=self.held_out if mix_config.ratio.p > 0 else (),
            patience=read_patience(),
        )

    def _own_results(self, ratio: Ratio, asked: Path | None) -> Path:
        """Return the folder of results; one of its own for a ratio beside another's training."""
        self.results = self.host.root.results if asked is None else asked.absolute()
        config = self.output_folder / CONFIG
        if asked is None and config.is_file():
            earlier = read_json(config, hint="remove it").get("mix_config", {})
            if earlier.get("ratio") != str(ratio):
                return self.results / f"ratio-{ratio}".replace(":", "-")
        return self.results

    def _check(self, mix_config: MixConfig) -> SampleSource:
        """Return the checked generator or bank of the samples."""
        takes = takes_of(self.host, self.held_out, self.sample_size, read=True)
        sample_source = check_origin(mix_config, self.host, takes)
        check_drawing(self, mix_config)
        return sample_source

    def samples_drawn(self, request: TrainingRequest) -> int | None:
        """Return the slots of all batches of nnU-Net's default trainer; None for others."""
        if "trainer" in request.settings and "num_epochs" not in request.settings:
            return None
        epochs = int(request.settings.get("num_epochs", 1000))
        batches = int(request.settings.get("num_iterations_per_epoch", 250))
        return epochs * batches * self.host.batch_size

    def bank_plan(self, mix_config: MixConfig) -> BankCapacity | None:
        """Return the size of the bank made from a run; see ``Adapter.bank_plan``."""
        return plan_own_bank(self, mix_config, self._sample_bytes)

    def _sample_bytes(self, manifest: Mapping[str, Any]) -> int:
        schemes = self.host.config["normalization_schemes"]
        return sample_bytes(
            drawn_size(manifest, self.host, self.sample_size),
            self.sample_size,
            len(self.source.host["channel_names"]),
            4 if "NoNormalization" in schemes else 2,
            len(self.source.host["labels"]) + 1,
        )

    def _write(self, config: TrainerMix) -> Path:
        file = self.output_folder / CONFIG
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(file, config.to_json())
        return file

    # -- what nnU-Net knows ------------------------------------------------------------------------

    @functools.cached_property
    def keys(self) -> tuple[Key, ...]:
        """Labels or regions whose voxels nnU-Net needs to sample crops."""
        return keys_of(self.host.plans.doc, self.host.dataset_json)
