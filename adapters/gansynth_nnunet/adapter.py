"""The adapter of nnU-Net v2: unmodified, trained in a child process by its own command."""

# ruff: noqa: D102 - methods that override those of Adapter

from __future__ import annotations

import argparse
import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gansynth.bank.training_bank import read_patience
from gansynth.core.adapter import Adapter, HostArrays, shortened
from gansynth.core.bank_options import BankCapacity
from gansynth.core.host_commands import ExportRequest, TrainingFolder, TrainingRequest
from gansynth.core.mix_config import Mix, MixConfig, TrainingResult
from gansynth.core.prediction import Prediction
from gansynth.core.schema import Sample
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.hosts import record
from gansynth.hosts.checks import check_drawing, plan_own_bank
from gansynth.hosts.launch import device_of, train_apart
from gansynth.hosts.sample_source import SampleSource
from gansynth.hosts.session import CachedResult, training_in
from gansynth.metrics.segmentation.results import account_of, asked_regions
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json, write_bytes_atomic, write_json_atomic
from gansynth.runtime.options import read_settings
from gansynth_nnunet.config import FILE, NnunetSettings, TrainerConfig
from gansynth_nnunet.converter import SpaceConverter
from gansynth_nnunet.guard import check_origin, drawn_size, host_size, sample_bytes
from gansynth_nnunet.launch import EXT_TRAINER, SUFFIX, TRAINER, parse_options, with_ext_trainer
from gansynth_nnunet.mixed import Key, encode, keys_of
from gansynth_nnunet.source import NnunetSource
from gansynth_nnunet.variants import check_trainer

CONFIG = "gansynth_config.json"  # file of a training's results that says how samples enter it
CHANGING = ("pretrained_weights", "val_best")  # options that change weights, or which are evaluated
WORKERS = "2"  # default number of nnU-Net's augmentation processes (`nnUNet_n_proc_DA`)
SIDECAR = "gansynth.json"
"""File beside nnU-Net's checkpoints: what each session of a training mixed in."""
FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"
CHECKPOINTS = (FINAL, LATEST, "checkpoint_best.pth")
"""Checkpoints from which nnU-Net continues a training, in order of preference."""
SUMMARY = Path("validation") / "summary.json"
COMPARED = (*record.COMPARED, "settings", "options")
OWN = "nnunet_validation"
"""Key of nnU-Net's own summary: Dice is 0 if the truth lacks the label and it is predicted."""


class NnunetAdapter(Adapter):
    """One nnU-Net data set, plans, configuration and fold to augment."""

    name: ClassVar[str] = "nnunet"
    title: ClassVar[str] = "nnU-Net"
    length_option: ClassVar[str] = "num_epochs"
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
        model = f"{self.trainer}__{host.plans.path.stem}__{host.configuration}"
        return self.results / host.dataset / model / f"fold_{host.request.fold}"

    @functools.cached_property
    def keys(self) -> tuple[Key, ...]:
        """Labels or regions whose voxels nnU-Net needs to sample crops."""
        return keys_of(self.host)

    # -- samples ---------------------------------------------------------------------------------

    @property
    def sample_size(self) -> tuple[int, ...]:
        return host_size(self.host.patch_size)

    def finalise(self, sample: Sample) -> HostArrays:
        if sample.labels is None:
            raise DataFault("sample: no labels, expected them: nnU-Net learns from nothing else")
        return encode(sample.labels, self.keys)

    def bring(self, source: CaseSource, space: Space) -> Callable[[Sample], Sample]:
        if "plans" in source.space.host:
            return super().bring(source, space)
        return SpaceConverter(source, space, self.host)

    def samples_drawn(self, request: TrainingRequest) -> int | None:
        epochs = _epochs(request.settings)
        batches = int(request.settings.get("num_iterations_per_epoch", 250))
        return None if epochs is None else epochs * batches * self.host.batch_size

    def bank_plan(self, mix_config: MixConfig) -> BankCapacity | None:
        return plan_own_bank(self, mix_config, self.sample_bytes)

    def sample_bytes(self, manifest: Mapping[str, Any]) -> int:
        """Return an upper bound of the bytes of a run's sample in a bank."""
        host = self.host
        return sample_bytes(
            drawn_size(manifest, host, self.sample_size),
            self.sample_size,
            len(host.schema.channels),
            4 if "NoNormalization" in host.config["normalization_schemes"] else 2,
            len(host.schema.labels) + 1,
        )

    # -- a training ------------------------------------------------------------------------------

    def validate(self) -> None:
        plans, folder = self.host.plans, self.host.plans.folder
        if plans.doc["plans_name"] != plans.path.stem:
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
        mix_config = request.mix_config
        self.check_ways(mix_config)
        self._config(request)
        check_trainer(self.trainer)
        asked_regions(request.settings.get("regions", ""), self.source)
        if mix_config.ratio.p > 0:
            self._sample_source(mix_config)

    def _check(self, mix_config: MixConfig) -> SampleSource:
        sample_source = check_origin(mix_config, self.host, self.held_out, read=True)
        check_drawing(self, mix_config)
        return sample_source

    def training_folder(self, request: TrainingRequest) -> TrainingFolder:
        mix_config = request.mix_config
        config = self._config(request)
        sample_source = self._sample_source(mix_config) if mix_config.ratio.p > 0 else None
        return record.training_folder(
            *(self.output_folder, describe_session(config, sample_source), COMPARED),
            done=newest_checkpoint(self.output_folder)[0],
            total=_epochs(request.settings),
            result=str(SUMMARY),
            file=SIDECAR,
        )

    def planned(self, request: TrainingRequest) -> Mapping[str, Any]:
        file = self._settings(request).settings_file
        if file is None:
            return {}
        # Whoever trains later reads the held-out cases as they are then.
        config = self._config(request).model_copy(update={"held_out": ()})
        _write_config(file.absolute(), config)
        host = self.host
        place = f"{host.dataset} {host.configuration} {host.request.fold}"
        return {
            "settings_file": str(file.absolute()),
            "then": f"nnUNet_extTrainer={EXT_TRAINER} {FILE}={file.absolute()} nnUNetv2_train "
            + " ".join([place, f"-p {host.plans.path.stem} -tr {self.trainer}", *request.options]),
        }

    def start(self, request: TrainingRequest) -> TrainingResult:
        self.validate()
        self.check(request)
        if (file := self._settings(request).settings_file) is not None:
            raise UsageFault(
                f"--settings-file {file}: is for nnU-Net's own command, expected --dry-run beside "
                "it; add that, or leave --settings-file out to train now"
            )
        config, options = self._config(request), parse_options(request.options)
        with training_in(lambda: self.training_folder(request), SIDECAR) as folder:
            if (more := self._to_do(folder, options)) is not None:
                _write_config(folder.path / CONFIG, config)
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

    def _train(self, config: Path, request: TrainingRequest, more: Sequence[str]) -> None:
        host, options = self.host, vars(parse_options(request.options))
        options["device"] = device_of(options["device"])
        if "--c" in more:  # nnU-Net refuses both
            options["pretrained_weights"] = None
        variables = {
            "nnUNet_n_proc_DA": WORKERS,
            "nnUNet_def_n_proc": str(min(8, os.cpu_count() or 1)),  # nnU-Net: 8 on any machine
            **with_ext_trainer(dict(os.environ)),
            **host.root.variables(),
            "nnUNet_results": str(self.results),
            FILE: str(config),
        }
        words = [host.dataset, host.configuration, host.request.fold]
        words += ["-p", host.plans.path.stem, "-tr", self.trainer, *more]
        for key, value in options.items():
            if isinstance(value, bool):
                words += [f"--{key}"] * value
            elif value is not None:
                words += [f"-{key}", str(value)]
        train_apart(
            *("gansynth_nnunet.launch", words, self.output_folder, "nnU-Net's training"),
            variables=variables,
            reporter=request.reporter,
        )

    def _settings(self, request: TrainingRequest) -> NnunetSettings:
        return read_settings(NnunetSettings, request.settings, self.name)

    def _config(self, request: TrainingRequest) -> TrainerConfig:
        mix_config, options = request.mix_config, vars(parse_options(request.options))
        choices = self._settings(request)
        self.trainer = choices.trainer.removesuffix(SUFFIX) + SUFFIX
        own = self.host.root.results / record.mix_name(mix_config)
        self.results = own if choices.results is None else choices.results.absolute()
        return TrainerConfig(
            mix_config=mix_config,
            settings=choices.attributes,
            options={k: v for k, v in options.items() if k in CHANGING and v},
            subjects=self.source.request.subjects,
            held_out=self.held_out if mix_config.ratio.p > 0 else (),
            patience=read_patience(),
        )

    # -- benchmarks and results ------------------------------------------------------------------

    @classmethod
    def impartial(cls, options: Sequence[str], settings: Mapping[str, str]) -> tuple[str, ...]:
        # nnU-Net keeps its last weights unless its best ones are requested.
        if "--val_best" in options:
            raise UsageFault(
                "host.options: --val_best chooses weights by the cases of the evaluation, "
                "expected the last ones; leave it out"
            )
        return tuple(options)

    @classmethod
    def heavier(cls, settings: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
        # nnU-Net's own DA5, with the elastic deformation that it leaves out.
        return {"trainer": "nnUNetTrainerDA5", "elastic": "0.3"}, ()

    def lasting(
        self, steps: int, mixes: Sequence[Mix], settings: Mapping[str, str], cases: int
    ) -> list[dict[str, str]]:
        # Epochs of as many iterations as set, else of nnU-Net's 250, or of fewer.
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
        # Fewer epochs; for less than one, one of fewer iterations.
        epochs = float(settings.get("num_epochs", 1))
        if share * epochs >= 1:
            return super().shortened(settings, share)
        one = shortened(settings, share * epochs, "num_iterations_per_epoch")
        return {**one, "num_epochs": "1"}

    def check_judged(self, settings: Mapping[str, str]) -> None:
        from gansynth_nnunet.predictions import refuse_unmeasurable

        refuse_unmeasurable(self.host)

    @classmethod
    def saving_levels(cls) -> tuple[Mapping[str, str], tuple[str, ...]]:
        return {}, ("--npz",)

    def judged(self, folder: Path) -> Mapping[str, Prediction]:
        from gansynth_nnunet.predictions import prediction_files

        return prediction_files(self.host, folder)

    def export(self, request: ExportRequest) -> Mapping[str, Any]:
        from gansynth_nnunet.export import NnunetExport

        self.validate()
        self.check(TrainingRequest(request.mix_config, {}, ()))
        return NnunetExport(self.host, request).run()


def _epochs(settings: Mapping[str, str]) -> int | None:
    """Return the epochs of a training; None where another trainer than the default says."""
    if "trainer" in settings and "num_epochs" not in settings:
        return None
    return int(settings.get("num_epochs", 1000))


def _write_config(path: Path, config: TrainerConfig) -> None:
    write_json_atomic(path, config.model_dump(mode="json", exclude_none=True))


# -- what a training leaves ------------------------------------------------------------------------


def describe_session(config: TrainerConfig, sample_source: SampleSource | None) -> dict[str, Any]:
    """Return what is mixed in and how; see ``gansynth.hosts.record``."""
    settings = config.settings.attributes
    return {
        **record.describe_session(config.mix_config, sample_source),
        "options": dict(config.options),
        "settings": {k: v for k, v in settings.items() if k != "save_every"},
    }


def newest_checkpoint(folder: Path) -> tuple[int, str]:
    """Return the epochs done by nnU-Net's newest checkpoint, and its name; 0 without one."""
    import torch

    scalar: Any = np.float64().__reduce__()[0]
    numbers = [scalar, np.dtype, *(type(np.dtype(kind)) for kind in "fd")]
    found = [(0, "")]
    for path in (folder / name for name in CHECKPOINTS if (folder / name).is_file()):
        try:
            with torch.serialization.safe_globals(numbers):  # nnU-Net's means; nothing else is run
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            found.append((int(loaded["current_epoch"]), path.name))
        except Exception as error:  # torch raises anything for a damaged file
            raise IntegrityFault(
                f"{path}: {type(error).__name__}, expected a checkpoint of nnU-Net; remove it to "
                "go on from an older one"
            ) from error
    return max(found, key=lambda checkpoint: checkpoint[0])


def read_training_result(
    folder: Path, account: tuple[Mapping[str, Any], str] = ({}, "")
) -> TrainingResult:
    """Return counts over all sessions of a training, and its validation on held-out cases.

    Args:
        account: measures of the held-out cases, and why there are none; see ``account_of``.
    """
    measured, why = account
    metrics = dict(measured)
    if (folder / SUMMARY).is_file():
        summary = read_json(folder / SUMMARY)
        metrics[OWN] = {
            "dice": _number(summary["foreground_mean"]["Dice"]),
            "dice_per_label": {str(k): _number(v["Dice"]) for k, v in summary["mean"].items()},
        }
    result = record.training_result_of(record.read_sessions(folder / SIDECAR), folder, metrics)
    return replace(result, warnings=(*result.warnings, *filter(None, [why])))


def _number(value: float) -> float | None:
    """Return None for nnU-Net's NaN (a label that no held-out case has)."""
    return float(value) if math.isfinite(value) else None
