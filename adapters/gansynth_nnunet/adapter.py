"""nnU-Net v2 as a framework: unmodified, trained in a child process by its own command.

Its trainer opens the session of the training: see ``in_trainer``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gansynth import (
    AugmentRequest,
    CaseRecord,
    Choice,
    DataFault,
    DataSetExport,
    Framework,
    Job,
    PredictJob,
    PrepareRequest,
    SampleSource,
    TrainingResult,
    UsageFault,
    read_settings,
    write_json_atomic,
)
from gansynth.hosts.contract.launch import TrainingHandover
from gansynth.runtime.files import write_bytes_atomic
from gansynth.runtime.machine import cores
from gansynth.runtime.progress import stepping
from gansynth_nnunet.converter import check_converter
from gansynth_nnunet.dataset import FINGERPRINT, TRUTH, one_subject, refuse_other_nnunet
from gansynth_nnunet.intake import NnunetIntake
from gansynth_nnunet.launch import (
    EXT_TRAINER,
    EXT_VARIABLE,
    FILE,
    STOCK,
    SUFFIX,
    NnunetSettings,
    check_trainer,
    parse_options,
    plain_name,
    run,
    ships,
)
from gansynth_nnunet.plans import DEFAULT_PLANS, SMALL_PLANS
from gansynth_nnunet.results import (
    FINAL,
    LATEST,
    SUMMARY,
    newest_checkpoint,
    own_metrics,
    predictions,
)
from gansynth_nnunet.source import NnunetSource
from gansynth_nnunet.workers import WORKERS, workers

CHANGING = ("pretrained_weights", "val_best")  # options that change weights, or which are evaluated
LONG, ON_CPU = 1000, 100
"""Epochs of nnU-Net itself, and those that are chosen on a CPU."""


class NnunetAdapter(Framework):
    """One nnU-Net data set, plans, configuration and fold to augment."""

    name = "nnunet"
    title = "nnU-Net"
    length_options = ("num_epochs", "num_iterations_per_epoch")
    Options = NnunetSettings
    Intake = NnunetIntake
    variables = ("nnUNet_",)
    own_process = True
    restarts_rate = True
    result = str(SUMMARY)
    augmentation = ("elastic",)
    packages = ("torch", "nnunetv2")
    source: NnunetSource
    options: NnunetSettings

    # -- options of a training -------------------------------------------------------------------

    @classmethod
    def read_own(cls, options: Sequence[str]) -> Mapping[str, Any]:
        return vars(parse_options(options))

    @property
    def one_subject(self) -> str:
        return one_subject(self.source.root, self.source.dataset)

    @classmethod
    def check_settings(cls, settings: Mapping[str, str]) -> None:
        refuse_other_nnunet()
        check_trainer(read_settings(NnunetSettings, settings, cls.name).trainer)

    @classmethod
    def needed(cls, settings: Mapping[str, str]) -> Mapping[str, str]:
        trainer, folders = settings.get("trainer", STOCK), os.environ.get(EXT_VARIABLE)
        return {EXT_VARIABLE: folders} if folders and not ships(plain_name(trainer)) else {}

    def open(self) -> None:
        regions = dict(self.asked_regions())
        for name, values in self.source.labels.regions.items():
            if len(values) > 1:  # else it is a label
                regions.setdefault(name, values)
        self.regions = tuple(regions.items())
        self.check_variant()

    def check_variant(self) -> None:
        """Refuse a trainer that is not there, or takes no samples."""
        check_trainer(self.options.trainer)

    def check_samples(self, found: SampleSource, held_out: Sequence[CaseRecord]) -> SampleSource:
        if found.run is None or not self.intake.converts(found.run):
            return found
        conversion = check_converter(found.run, self.source, held_out)
        return replace(found, described=dict(found.described, conversion=conversion))

    def check(self) -> None:
        file = self.options.settings_file
        if file is not None and not self.request.dry_run:
            raise UsageFault(
                "nnunet.settings-file-without-dry-run",
                f"--settings-file {file}: is for nnU-Net's own command, expected --dry-run beside "
                "it; add that, or leave --settings-file out to train now",
            )
        if self.options.quick_validation and self.source.config.get("next_stage"):
            raise UsageFault(
                "nnunet.quick-validation-of-cascade",
                f"--quick-validation yes: -c {self.source.configuration} is the first stage of a "
                "cascade, and predicts for the second only in nnU-Net's own validation; expected "
                "no; leave it out",
            )

    @property
    def class_name(self) -> str:
        return plain_name(self.options.trainer) + SUFFIX

    @property
    def words(self) -> list[str]:
        """What names the training in nnU-Net's command."""
        source = self.source
        place = [source.dataset, source.configuration, source.request.fold]
        return [*place, "-p", source.plans.path.stem, "-tr", self.class_name]

    @property
    def results(self) -> Path:
        own = self.source.root.results / self.request.mix_name
        return own if self.options.results is None else self.options.results.absolute()

    def results_folder(self) -> Path:
        source = self.source
        model = f"{self.class_name}__{source.plans.path.stem}__{source.configuration}"
        return self.results / source.dataset / model / f"fold_{source.request.fold}"

    @property
    def device(self) -> str:
        device = self.device_of(self.own["device"])
        return "cpu" if device == "mps" else device

    @property
    def gpus(self) -> tuple[int, ...]:
        return tuple(range(self.own["num_gpus"])) if self.device == "cuda" else ()

    @property
    def loaders(self) -> int:
        return workers() * max(1, len(self.gpus))

    @property
    def batches(self) -> int:
        return self.options.num_iterations_per_epoch or 250

    @property
    def length(self) -> tuple[int, int]:
        return self.options.num_epochs or LONG, self.source.batch_size

    @property
    def length_known(self) -> bool:
        """Whether it is said, or the default trainer's; another's own code may have its length."""
        return "trainer" not in self.options.model_fields_set or bool(self.options.num_epochs)

    @property
    def round_size(self) -> int:
        return self.batches * self.source.batch_size

    def done(self, folder: Path) -> int:
        return newest_checkpoint(folder)[0]

    @property
    def evaluates_again(self) -> bool:
        return bool(self.own["val"] or self.own["npz"])

    def recorded(self, usual: Mapping[str, Any]) -> Mapping[str, Any]:
        of_folder = ("data", "read", "fold", "training_seed")  # the folder's name has them
        found = {key: value for key, value in usual.items() if key not in of_folder}
        attributes = self.options.attributes
        found["settings"] = {k: v for k, v in attributes.items() if k != "save_every"}
        found["options"] = {k: v for k, v in self.own.items() if k in CHANGING and v}
        found["axes"] = self.source.axes
        return found

    def validate(self) -> None:
        folder, hidden = self.source.plans.folder, self.source.hidden_regions
        if hidden:
            self.reporter.warn(f"{folder / 'dataset.json'}: {hidden}")
        for name in (FINGERPRINT, TRUTH):
            if not (folder / name).exists():
                raise DataFault(
                    "nnunet.preprocessed-file-missing",
                    f"{folder / name}: missing, expected it from nnU-Net's preprocessing; "
                    f"run: {self.source.request.command(PrepareRequest, force=True)}",
                )

    def planned(self, usual: Mapping[str, Any]) -> Mapping[str, Any]:
        file, request = self.options.settings_file, self.request
        if file is None:
            return {}
        # Whoever trains later reads the held-out cases as they are then.
        settings = {k: v for k, v in request.set.items() if k != "settings_file"}
        config = TrainingHandover(
            request.replace(without=("dry_run",), set=settings), self.source.request.to_json()
        )
        write_json_atomic(file.absolute(), config.to_json())
        then = [f"{EXT_VARIABLE}={EXT_TRAINER}", f"{FILE}={file.absolute()}", "nnUNetv2_train"]
        then += [*self.words, *request.options]
        return {"settings_file": str(file.absolute()), "then": " ".join(then)}

    def time_of(self) -> Mapping[str, Any]:
        from gansynth_nnunet.timing import time_of

        source, options = self.source, self.options
        asked = {
            "dataset": source.dataset,
            "configuration": source.configuration,
            "fold": source.request.fold,
            "plans": source.plans.path.stem,
            "trainer": options.trainer,
            "device": self.device,
            "split": [list(source.train_ids), list(source.held_out_ids)],
        }
        mirrored = not options.quick_validation
        windows = source.windows(source.held_out_ids, mirrored=mirrored)
        batches = (options.num_iterations_per_epoch, options.num_val_iterations_per_epoch)
        return time_of(asked, self.environment(Path()), batches, options.num_epochs, windows)

    @classmethod
    def suited(cls, request: AugmentRequest) -> Sequence[Choice]:
        if cls.device_of(cls.read_own(request.options)["device"]) != "cpu":
            return ()
        why = "nnU-Net's own plans are meant for a GPU, and none is used"
        small = {"small": "yes"}
        plans = Choice("plans", SMALL_PLANS, why, f"--plans {DEFAULT_PLANS}", prepare=small)
        why = f"it trains on a CPU (nnU-Net: {LONG})"
        return (plans, Choice("num_epochs", str(ON_CPU), why, "--num-epochs N"))

    # -- a training ------------------------------------------------------------------------------

    def reported(self, result: TrainingResult) -> TrainingResult:
        with stepping(self.request.reporter) as count:
            measured, why = self.account_of(predictions, result.folder, count)
        warnings = (*result.warnings, *filter(None, [why]))
        metrics = dict(measured) | dict(own_metrics(result.folder))
        return replace(result, metrics=metrics, warnings=warnings)

    def environment(self, file: Path) -> Mapping[str, str]:
        users = os.environ.get(EXT_VARIABLE, "").split(os.pathsep)
        folders = dict.fromkeys([str(EXT_TRAINER), *filter(None, users)])
        variables = {
            WORKERS: str(workers()),
            "nnUNet_def_n_proc": str(min(8, cores())),  # nnU-Net: 8 on any machine
        }
        variables.update(os.environ)
        variables[EXT_VARIABLE] = os.pathsep.join(folders)
        variables.update(self.source.root.variables())
        variables |= {"nnUNet_results": str(self.results), FILE: str(file)}
        return variables

    def command(self) -> bool:
        folder, words, options = self.output, self.words, dict(self.own)
        options["device"] = self.device_of(options["device"])
        done, name = newest_checkpoint(folder)
        if done and not options["val"]:
            if name == FINAL and TrainingResult.complete_in(folder):
                options["val"] = True
            else:
                if name not in (FINAL, LATEST):  # nnU-Net prefers the latest, be it older
                    write_bytes_atomic(folder / LATEST, (folder / name).read_bytes())
                words.append("--c")
                options["pretrained_weights"] = None  # nnU-Net refuses both
        for key, value in options.items():
            if isinstance(value, bool):
                words += [f"--{key}"] * value
            elif value is not None:
                words += [f"-{key}", str(value)]
        run(words)
        return True

    def train(self, job: Job) -> None:
        raise NotImplementedError("its command trains: see NnunetInTrainer")

    def evaluate(self, job: Job) -> Mapping[str, Any]:
        raise NotImplementedError("its command validates: see NnunetInTrainer")

    @classmethod
    def predicts_levels(cls) -> bool:
        return True

    @classmethod
    def predict_images(cls, job: PredictJob) -> Sequence[Path]:
        from gansynth_nnunet.predict import predict_images

        done, name = newest_checkpoint(job.folder)
        total = job.session["of_epochs"]
        if done < total:
            job.reporter.warn(
                f"{job.folder}: is trained for {done} of {total} epochs; predicted by {name}"
            )
        return predict_images(job, name)

    @classmethod
    def exporter(cls, request: AugmentRequest) -> type[DataSetExport]:
        from gansynth_nnunet.export import NnunetExport

        return NnunetExport
