"""The adapter of nnU-Net v2: unmodified, trained in a child process by its ``run_training``."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from gansynth.bank.training_bank import read_patience
from gansynth.core.adapter import Adapter, HostArrays, shortened
from gansynth.core.bank_options import BankCapacity
from gansynth.core.host_commands import ExportRequest, TrainingFolder, TrainingRequest
from gansynth.core.mix_config import Mix, MixConfig, TrainingResult
from gansynth.core.prediction import Prediction
from gansynth.core.schema import Sample
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.hosts.checks import check_drawing, plan_own_bank
from gansynth.hosts.launch import device_of, train_apart
from gansynth.hosts.record import mix_name, training_folder
from gansynth.hosts.sample_source import SampleSource
from gansynth.hosts.session import CachedResult, training_in
from gansynth.metrics.segmentation.results import account_of, asked_regions
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_json, write_bytes_atomic, write_json_atomic
from gansynth.runtime.options import read_settings
from gansynth_nnunet import variants
from gansynth_nnunet.class_locations import Key, encode, keys_of
from gansynth_nnunet.config import NnunetSettings, TrainerMix
from gansynth_nnunet.converter import SpaceConverter
from gansynth_nnunet.guards import check_origin, drawn_size, host_size, sample_bytes, takes_of
from gansynth_nnunet.launch import TRAINER, parse_options, with_ext_trainer
from gansynth_nnunet.session import (
    COMPARED,
    FINAL,
    LATEST,
    SIDECAR,
    SUMMARY,
    describe_session,
    newest_checkpoint,
    read_training_result,
)
from gansynth_nnunet.source import NnunetSource

CONFIG = "gansynth_config.json"  # file of a training's results that says how samples enter it
CHANGING = ("pretrained_weights", "val_best")  # options that change weights, or which are evaluated
WORKERS = "2"  # default number of nnU-Net's augmentation processes (`nnUNet_n_proc_DA`)


class NnunetAdapter(Adapter):
    """One nnU-Net data set, plans, configuration and fold to augment."""

    name: ClassVar[str] = "nnunet"
    title: ClassVar[str] = "nnU-Net"
    length_option: ClassVar[str] = "num_epochs"
    exports: ClassVar[Literal["nothing", "name", "folder"]] = "name"
    Options = NnunetSettings
    variables: ClassVar[tuple[str, ...]] = ("nnUNet_",)

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
        self._sample_source = CachedResult(self._check)

    @property
    def output_folder(self) -> Path:
        """Folder of nnU-Net's results of this training."""
        host = self.host
        model = f"{self.trainer}__{self._plans}__{host.configuration}"
        return self.results / host.dataset / model / f"fold_{host.request.fold}"

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
        if "plans" in source.space.host:
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

    def check(self, request: TrainingRequest) -> None:
        """Check settings, nnU-Net's options, and the generator or bank."""
        mix_config = request.mix_config
        self.check_ways(mix_config)
        self._config(request)
        variants.check(self.trainer)
        asked_regions(request.settings.get("regions", ""), self.source)
        if mix_config.ratio.p > 0:
            self._sample_source(mix_config)

    def training_folder(self, request: TrainingRequest) -> TrainingFolder:
        """Look into nnU-Net's folder of this training; see ``Adapter.training_folder``."""
        mix_config = request.mix_config
        config = self._config(request)
        sample_source = self._sample_source(mix_config) if mix_config.ratio.p > 0 else None
        return training_folder(
            *(self.output_folder, describe_session(config, sample_source), COMPARED),
            done=newest_checkpoint(self.output_folder)[0],
            total=_epochs(request.settings),
            result=str(SUMMARY),
            file=SIDECAR,
        )

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

    @classmethod
    def shortened(cls, settings: Mapping[str, str], share: float) -> dict[str, str]:
        """Return fewer epochs; for less than one, one of fewer iterations."""
        epochs = float(settings.get("num_epochs", 1))
        if share * epochs >= 1:
            return super().shortened(settings, share)
        one = shortened(settings, share * epochs, "num_iterations_per_epoch")
        return {**one, "num_epochs": "1"}

    def start(self, request: TrainingRequest) -> TrainingResult:
        """Train nnU-Net in a child process and wait for its end; see ``Adapter.start``."""
        self.validate()
        self.check(request)

        config = self._config(request)
        with training_in(lambda: self.training_folder(request), SIDECAR) as folder:
            if (more := self._to_do(folder, parse_options(request.options))) is not None:
                write_json_atomic(folder.path / CONFIG, config.to_json())
                self._train(folder.path / CONFIG, request, more)
            regions = asked_regions(request.settings.get("regions", ""), self.source)
            account = account_of(self.judged, self.source, self.output_folder, regions)
            return read_training_result(self.output_folder, account)

    def _to_do(self, folder: TrainingFolder, options: argparse.Namespace) -> list[str] | None:
        """Return options of nnU-Net with which it goes on; None if nothing is left to do."""
        if options.val:
            return []
        if folder.finished:
            return ["--val"] if options.npz else None
        if not folder.done:
            return []
        name = newest_checkpoint(folder.path)[1]
        if name == FINAL and read_json(folder.path / SIDECAR)["complete"]:
            return ["--val"]
        if name not in (FINAL, LATEST):  # nnU-Net prefers the latest one, though it may be older
            write_bytes_atomic(folder.path / LATEST, (folder.path / name).read_bytes())
        return ["--c"]

    def check_judged(self, settings: Mapping[str, str]) -> None:
        """Refuse files other than NIfTI, and a fold without held-out cases; see ``Adapter``."""
        from gansynth_nnunet.predictions import refuse_unmeasurable

        refuse_unmeasurable(self.host)

    @classmethod
    def saving_levels(cls) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return nnU-Net's own option for probabilities; see ``Adapter.saving_levels``."""
        return {}, ("--npz",)

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

    def _train(self, config: Path, request: TrainingRequest, more: Sequence[str]) -> None:
        host = self.host
        variables = {
            "nnUNet_n_proc_DA": WORKERS,
            "nnUNet_def_n_proc": str(min(8, os.cpu_count() or 1)),  # nnU-Net: 8 on any machine
            **with_ext_trainer(dict(os.environ)),
            **host.root.variables(),
            "nnUNet_results": str(self.results),
            TrainerMix.FILE: str(config),
        }
        command = [host.dataset, host.configuration, host.request.fold, "-p", self._plans]
        command += ["-tr", self.trainer, *request.options, *more]
        command += ["-device", device_of(parse_options(request.options).device)]
        train_apart(
            *("gansynth_nnunet.launch", command, self.output_folder, "nnU-Net's training"),
            variables=variables,
            reporter=request.reporter,
        )

    # -- before ----------------------------------------------------------------------------------

    def _config(self, request: TrainingRequest) -> TrainerMix:
        mix_config, options = request.mix_config, vars(parse_options(request.options))
        choices = read_settings(NnunetSettings, request.settings, self.name)
        self.trainer = variants.with_suffix(choices.trainer)
        own = self.host.root.results / mix_name(mix_config)
        self.results = own if choices.results is None else choices.results.absolute()
        return TrainerMix(
            mix_config=mix_config,
            settings=choices.attributes,
            options={k: v for k, v in options.items() if k in CHANGING and v},
            subjects=self.source.request.subjects,
            held_out=self.held_out if mix_config.ratio.p > 0 else (),
            patience=read_patience(),
        )

    def _check(self, mix_config: MixConfig) -> SampleSource:
        takes = takes_of(self.host, self.held_out, self.sample_size, read=True)
        sample_source = check_origin(mix_config, self.host, takes)
        check_drawing(self, mix_config)
        return sample_source

    def samples_drawn(self, request: TrainingRequest) -> int | None:
        """Return the slots of all batches of nnU-Net's default trainer; None for others."""
        epochs = _epochs(request.settings)
        batches = int(request.settings.get("num_iterations_per_epoch", 250))
        return None if epochs is None else epochs * batches * self.host.batch_size

    def bank_plan(self, mix_config: MixConfig) -> BankCapacity | None:
        """Return the size of the bank made from a run; see ``Adapter.bank_plan``."""
        return plan_own_bank(self, mix_config, self._sample_bytes)

    def _sample_bytes(self, manifest: Mapping[str, Any]) -> int:
        schemes = self.host.config["normalization_schemes"]
        return sample_bytes(
            drawn_size(manifest, self.host, self.sample_size),
            self.sample_size,
            len(self.source.space.host["channel_names"]),
            4 if "NoNormalization" in schemes else 2,
            len(self.source.space.host["labels"]) + 1,
        )

    # -- what nnU-Net knows ------------------------------------------------------------------------

    @functools.cached_property
    def keys(self) -> tuple[Key, ...]:
        """Labels or regions whose voxels nnU-Net needs to sample crops."""
        return keys_of(self.host.plans.doc, self.host.dataset_json)


def _epochs(settings: Mapping[str, str]) -> int | None:
    """Return the epochs of a training; None where another trainer than the default says."""
    if "trainer" in settings and "num_epochs" not in settings:
        return None
    return int(settings.get("num_epochs", 1000))
