"""nnU-Net v2 as a framework: unmodified, trained in a child process by its own command.

The trainer opens the session, since nnU-Net's command may be started by hand, and on several ranks.
"""

# ruff: noqa: D102 - methods that override those of Framework

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from gansynth.bank.reader import BankReader, BankSample
from gansynth.core.adapter import HostArrays
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.run_folder import RunFolder
from gansynth.core.schedule import Mix
from gansynth.core.schema import LabelArray, Sample
from gansynth.core.source import CaseSource, SourceRequest, case_records
from gansynth.core.space import Space
from gansynth.data.read_options import import_command
from gansynth.hosts.choices import Choice
from gansynth.hosts.host import Framework, Job
from gansynth.hosts.launch import ApartTraining, device_of
from gansynth.hosts.prediction import PredictJob
from gansynth.hosts.record import FILE as RECORD
from gansynth.hosts.record import TrainingFolder, TrainingResult, mix_name, read_sessions
from gansynth.hosts.sample_source import SampleSource
from gansynth.metrics.segmentation.evaluation import (
    Prediction,
    account_of,
    asked_regions,
    levels_of,
    of_volumes,
    with_levels,
)
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import (
    read_json,
    verify_zip,
    write_bytes_atomic,
    write_json_atomic,
)
from gansynth.runtime.progress import Reporter
from gansynth_nnunet.converter import (
    BY,
    SpaceConverter,
    check_converter,
    converts,
    drawn_size,
    sample_bytes,
)
from gansynth_nnunet.dataset import FINGERPRINT, NIFTI, TRUTH, one_subject
from gansynth_nnunet.launch import (
    EXT_TRAINER,
    EXT_VARIABLE,
    FILE,
    STOCK,
    SUFFIX,
    NnunetSettings,
    find_variant,
    look_up,
    parse_options,
    run,
)
from gansynth_nnunet.mixed import encode
from gansynth_nnunet.plans import DEFAULT_PLANS, SMALL_PLANS
from gansynth_nnunet.source import NnunetSource

CHANGING = ("pretrained_weights", "val_best")  # options that change weights, or which are evaluated
WORKERS = "2"  # default number of nnU-Net's augmentation processes (`nnUNet_n_proc_DA`)
LONG, ON_CPU = 1000, 100
"""Epochs of nnU-Net itself, and those that are chosen on a CPU."""
FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"
CHECKPOINTS = (FINAL, LATEST, "checkpoint_best.pth")
"""Checkpoints from which nnU-Net continues a training, in order of preference."""
REMOVE = "remove it to go on from an older one, or anew if there is none"
VALIDATION = "validation"
SUMMARY = Path(VALIDATION) / "summary.json"
OWN = "nnunet_validation"
"""Key of nnU-Net's own summary: Dice is 0 if the truth lacks the label and it is predicted."""


class NnunetAdapter(Framework):
    """One nnU-Net data set, plans, configuration and fold to augment."""

    name = "nnunet"
    title = "nnU-Net"
    length_option = "num_epochs"
    length_options = ("num_epochs", "num_iterations_per_epoch")
    Options = NnunetSettings
    variables = ("nnUNet_",)
    apart = True
    restarts_rate = True
    result = str(SUMMARY)
    augmentation = ("elastic",)
    stronger: ClassVar[Mapping[str, str]] = {"trainer": "nnUNetTrainerDA5", "elastic": "0.3"}
    """nnU-Net's own DA5, with the elastic deformation that it leaves out."""
    same = ("channels",)
    packages = ("torch", "nnunetv2")
    source: NnunetSource
    options: NnunetSettings
    trainer: Any = None
    """nnU-Net's trainer, a ``GANSynthMixin``, in the process where it trains."""

    def __init__(self, source: CaseSource) -> None:
        if not isinstance(source, NnunetSource):
            asked = source.request
            way_out = import_command(asked, "nnunet:500")
            raise UsageFault(
                f"--data {asked.kind}:{asked.where}: nnU-Net trains on its own data sets, expected "
                f"nnunet:ID; make one: {way_out}; and name it here: --data nnunet:ID"
            )
        super().__init__(source)

    # -- samples ---------------------------------------------------------------------------------

    @property
    def one_subject(self) -> str:
        return one_subject(self.source.root, self.source.dataset)

    @property
    def sample_size(self) -> tuple[int, ...]:
        return self.source.patch

    def finalise(self, sample: Sample) -> HostArrays:
        super().finalise(sample)
        assert sample.labels is not None
        return encode(sample.labels, self.source.keys)

    def converts(self, run: RunFolder) -> bool:
        return converts(run.lineage.host, self.source)

    def bring(self, source: CaseSource, space: Space) -> Callable[[Sample], Sample]:
        if "plans" in source.space.host:
            return super().bring(source, space)
        return SpaceConverter(source, space, self.source)

    @property
    def dtype(self) -> Literal["float16", "float32"]:  # type: ignore[override]
        """Raw intensities may exceed the range of float16; normalised ones do not."""
        raw = "NoNormalization" in self.source.config["normalization_schemes"]
        return "float32" if raw else "float16"

    def sample_bytes(self, manifest: Mapping[str, Any]) -> int:
        width = np.dtype(self.dtype).itemsize
        return sample_bytes(self.source, drawn_size(self.source, manifest), width)

    def check_run(self, run: RunFolder, request: AugmentRequest) -> None:
        if self.converts(run):
            if (conditions := request.samples.conditions) is not None:
                raise UsageFault(
                    f"--condition-source {conditions['kind']}:{conditions['where']}: samples of "
                    f"{request.run} are converted by {BY} within their own training scans, "
                    "expected a generator fitted on nnunet: data, and conditions of such; or leave "
                    "--condition-source out"
                )
            return
        space, need = run.space, self.source.patch
        if space.grid != "native":  # networks would learn nnU-Net's padding of smaller samples
            size = (1, *space.size)[-3:]
            if space.grid == "resample" or any(s < n for s, n in zip(size, need, strict=True)):
                raise UsageFault(
                    f"{run.folder}: samples have {size} voxels (grid {space.grid}), the patch "
                    f"{need}; expected grid 'crop' or 'slice', and at least the patch on each axis "
                    "(best 4/3 of it). Fit the generator on nnunet: data, at a larger size"
                )

    def check_bank(self, reader: BankReader) -> None:
        def look(stored: BankSample) -> None:
            Framework.finalise(self, Sample(stored.image, stored.labels))

        self.check_each(reader, look)

    def check_samples(self, request: AugmentRequest) -> SampleSource:
        found = super().check_samples(request)
        if found.run is None or not self.converts(found.run):
            return found
        conversion = check_converter(found.run, self.source, self.held_out)
        return replace(found, described={**found.described, "conversion": conversion})

    # -- options of a training -------------------------------------------------------------------

    @classmethod
    def read_own(cls, options: Sequence[str]) -> Mapping[str, Any]:
        return vars(parse_options(options))

    def check_options(self) -> None:
        variant = self.class_name.removesuffix(SUFFIX)
        if self.trainer is not None or variant == STOCK:
            return  # nnU-Net's own takes seconds to import, which only its process needs
        if look_up(variant) is None and look_up(self.class_name) is None:  # users may compose one
            find_variant(variant)  # refuses it

    def open_training(self) -> None:
        self.regions = asked_regions(self.options.regions, self.source)

    @property
    def class_name(self) -> str:
        """Name of the trainer class."""
        return self.options.trainer.removesuffix(SUFFIX) + SUFFIX

    @property
    def words(self) -> list[str]:
        """What names the training in nnU-Net's command."""
        source = self.source
        place = [source.dataset, source.configuration, source.request.fold]
        return [*place, "-p", source.plans.path.stem, "-tr", self.class_name]

    @property
    def results(self) -> Path:
        """Folder of nnU-Net's results."""
        own = self.source.root.results / mix_name(self.request)
        return own if self.options.results is None else self.options.results.absolute()

    def place(self) -> Path:
        if self.trainer is not None:
            return Path(self.trainer.output_folder)
        source = self.source
        model = f"{self.class_name}__{source.plans.path.stem}__{source.configuration}"
        return self.results / source.dataset / model / f"fold_{source.request.fold}"

    @property
    def device(self) -> str:
        own = self.own["device"] if self.trainer is None else str(self.trainer.device.type)
        device = device_of(own)
        return "cpu" if device == "mps" else device

    @property
    def gpus(self) -> tuple[int, ...]:
        ranks = self.own["num_gpus"] if self.trainer is None else self.trainer.gansynth_ranks
        return tuple(range(ranks)) if self.device == "cuda" else ()

    @property
    def batches(self) -> int:
        if self.trainer is not None:
            return int(self.trainer.num_iterations_per_epoch)
        return self.options.num_iterations_per_epoch or 250

    @property
    def length(self) -> tuple[int, int]:
        epochs = self.options.num_epochs or LONG
        if self.trainer is not None:
            epochs = int(self.trainer.num_epochs)
        return epochs, self.source.batch_size

    @property
    def places(self) -> int:
        return self.batches * self.source.batch_size

    def samples_drawn(self, request: AugmentRequest) -> int | None:
        """Return the samples of all epochs; None where another trainer than the default says."""
        return None if _unknown(self.opened(request).options) else super().samples_drawn(request)

    def done(self, folder: Path) -> int:
        if self.trainer is not None:
            return int(self.trainer.current_epoch)
        return newest_checkpoint(folder)[0]

    def described(self) -> dict[str, Any]:
        found = super().described()
        for key in ("data", "read", "fold", "training_seed"):
            del found[key]  # the folder's name has them
        attributes = self.options.attributes
        found["settings"] = {k: v for k, v in attributes.items() if k != "save_every"}
        found["options"] = {k: v for k, v in self.own.items() if k in CHANGING and v}
        return found

    def validate(self) -> None:
        plans, folder = self.source.plans, self.source.plans.folder
        if plans.doc["plans_name"] != plans.path.stem:
            raise DataFault(
                f"{plans.path}: plans_name is {plans.doc['plans_name']!r}, expected its own name"
            )
        for name in (FINGERPRINT, TRUTH):
            if not (folder / name).exists():
                raise DataFault(
                    f"{folder / name}: missing, expected it from nnU-Net's preprocessing; "
                    f"run: gansynth prepare {self.source.root.typed(self.source.dataset)} -c "
                    f"{self.source.configuration}"
                )

    def training_folder(self, request: AugmentRequest) -> TrainingFolder:
        folder, training = super().training_folder(request), self.configured(request)
        if _unknown(training.options):
            sessions = read_sessions(folder.path)
            folder = replace(folder, total=sessions[-1]["of_epochs"] if sessions else None)
        again = training.own["val"] or training.own["npz"]
        return replace(folder, finished=folder.finished and not again)

    def planned(self, request: AugmentRequest) -> Mapping[str, Any]:
        training: Any = self.opened(request)
        file = training.options.settings_file
        if file is None:
            return {}
        # Whoever trains later reads the held-out cases as they are then.
        settings = {k: v for k, v in request.set.items() if k != "settings_file"}
        config = ApartTraining(request.but("dry_run", set=settings), self.source.request.to_json())
        write_json_atomic(file.absolute(), config.to_json())
        then = [f"{EXT_VARIABLE}={EXT_TRAINER}", f"{FILE}={file.absolute()}", "nnUNetv2_train"]
        then += [*training.words, *request.options]
        return {"settings_file": str(file.absolute()), "then": " ".join(then)}

    def time_of(self, alone: AugmentRequest) -> Mapping[str, Any]:
        from gansynth_nnunet.timing import time_of

        training = self.opened(alone)
        source, options = training.source, training.options
        asked = {
            "dataset": source.dataset,
            "configuration": source.configuration,
            "fold": source.request.fold,
            "plans": source.plans.path.stem,
            "trainer": options.trainer,
            "device": training.device,
        }
        validated = options.num_val_iterations_per_epoch or 50
        batches = (training.batches, validated)
        return time_of(asked, training.environment(Path()), batches, training.length[0])

    @classmethod
    def suited(cls, request: AugmentRequest) -> Sequence[Choice]:
        if device_of(cls.read_own(request.options)["device"]) != "cpu":
            return ()
        why = "nnU-Net's own plans are meant for a GPU, and none is used"
        small = {"small": "yes"}
        plans = Choice("plans", SMALL_PLANS, why, f"--plans {DEFAULT_PLANS}", prepare=small)
        why = f"it trains on a CPU (nnU-Net: {LONG})"
        return (plans, Choice("num_epochs", str(ON_CPU), why, "--num-epochs N"))

    # -- a training ------------------------------------------------------------------------------

    def start(self, request: AugmentRequest) -> TrainingResult:
        if (file := self.configured(request).options.settings_file) is not None:
            raise UsageFault(
                f"--settings-file {file}: is for nnU-Net's own command, expected --dry-run beside "
                "it; add that, or leave --settings-file out to train now"
            )
        result = super().start(request)
        regions = self.opened(request).regions
        measured, why = account_of(self.judged, self.source, result.folder, regions)
        warnings = (*result.warnings, *filter(None, [why]))
        return replace(
            result, metrics={**measured, **own_metrics(result.folder)}, warnings=warnings
        )

    def environment(self, file: Path) -> Mapping[str, str]:
        users = os.environ.get(EXT_VARIABLE, "").split(os.pathsep)
        folders = dict.fromkeys([str(EXT_TRAINER), *filter(None, users)])
        return {
            "nnUNet_n_proc_DA": WORKERS,
            "nnUNet_def_n_proc": str(min(8, os.cpu_count() or 1)),  # nnU-Net: 8 on any machine
            **os.environ,
            EXT_VARIABLE: os.pathsep.join(folders),
            **self.source.root.variables(),
            "nnUNet_results": str(self.results),
            FILE: str(file),
        }

    def train_here(self, request: AugmentRequest, reporter: Reporter | None) -> None:
        """Run nnU-Net's command, whose trainer calls this again."""
        if self.trainer is not None:
            super().train_here(request, reporter)
            return
        training = self.configured(request)
        folder, words, options = training.output, training.words, {**training.own}
        options["device"] = device_of(options["device"])
        done, name = newest_checkpoint(folder)
        if done and not options["val"]:
            if name == FINAL and read_json(folder / RECORD)["complete"]:
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

    def train(self, job: Job) -> None:
        assert self.trainer is not None, "see train_here"
        if self.sample_source is not None:
            if how := self.sample_source.described.get("conversion"):
                job.say(f"samples are converted by {how['by']}, in about {how['seconds']} s each")
            if not self.source.held_out_ids:
                job.say(
                    "fold 'all' trains on every case: nothing is held out, so leakage cannot be "
                    "checked, and the validation Dice is one on training cases"
                )
        self.trainer.gansynth_train(job)

    def evaluate(self, job: Job) -> Mapping[str, Any]:
        """Leave it to nnU-Net's command, which validates when its trainer has ended."""
        return {}

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

    # -- benchmarks ------------------------------------------------------------------------------

    @classmethod
    def impartial(cls, options: Sequence[str], settings: Mapping[str, str]) -> tuple[str, ...]:
        # nnU-Net keeps its last weights unless its best ones are requested.
        if "--val_best" in options:
            raise UsageFault(
                "host.options: --val_best chooses weights by the cases of the evaluation, "
                "expected the last ones; leave it out"
            )
        return tuple(options)

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
        one, key = {**settings, "num_epochs": "1"}, "num_iterations_per_epoch"
        if key in one:
            one[key] = str(max(1, round(float(one[key]) * share * epochs)))
        return one

    def check_judged(self, settings: Mapping[str, str]) -> None:
        source = self.source
        if source.ending not in NIFTI:
            raise UsageFault(
                f"{source.name}: files end in {source.ending}, expected .nii.gz or .nii to measure "
                "label maps in mm; only nnU-Net's own Dice is there"
            )
        if not source.held_out_ids:
            raise UsageFault(
                f"--fold {source.request.fold}: {source.name} holds no case out, expected a fold "
                "with some to measure, such as 0"
            )

    @classmethod
    def saving_levels(cls) -> tuple[Mapping[str, str], tuple[str, ...]]:
        return {}, ("--npz",)

    def judged(self, folder: Path) -> Mapping[str, Prediction]:
        """Return predicted and true label maps of held-out cases, on the grid of the raw files."""
        self.check_judged({})
        source, predicted = self.source, folder / VALIDATION
        truth, ending = source.plans.folder / TRUTH, source.ending
        files = {
            case: (predicted / f"{case}{ending}", truth / f"{case}{ending}")
            for case in source.held_out_ids
        }
        found = of_volumes(source, files, "let nnU-Net's training come to its end, which validates")

        def levels(file: Path) -> LabelArray:
            with np.load(file) as arrays:
                probabilities = arrays["probabilities"]  # (K, D, H, W), a file's axes reversed
            first = 0 if source.labels.regions else 1
            return levels_of(probabilities, range(first, len(probabilities))).T

        return with_levels(found, {case: predicted / f"{case}.npz" for case in found}, levels)

    def export(self, request: AugmentRequest) -> Mapping[str, Any]:
        from gansynth_nnunet.export import NnunetExport

        self.validate()
        self.check(request)
        return NnunetExport(self, request).run()


def hosted(training: ApartTraining, trainer: Any) -> NnunetAdapter:
    """Return the adapter of a training whose trainer is built.

    Held-out cases are read now, unless the process that started this one just did.
    """
    from gansynth_nnunet.source import NnunetSource

    plans, request, checked = trainer.plans_manager, training.request, training.folder
    own = Path(trainer.output_folder)
    if checked is not None and own.resolve() != checked.path.resolve():
        raise IntegrityFault(
            f"{own}: nnU-Net would write its results here, expected {checked.path}, which was "
            "checked; nothing was trained. Report it, or name the folder: -o"
        )
    subjects = training.source.get("subjects")
    if subjects is None and request.bank is None and request.run is not None:
        subjects = request.run.manifest["request"]["subjects"]
    source = SourceRequest(
        kind="nnunet",
        where=plans.dataset_name,
        fold=str(trainer.fold),
        configuration=trainer.configuration_name,
        plans=plans.plans_name,
        subjects=subjects,
    )
    adapter = NnunetAdapter(NnunetSource(source))
    adapter.trainer = trainer
    adapter.handed_over = checked
    if request.mix.synthetic:
        records = {record.id: record for record in training.held_out}
        ids = set(adapter.source.held_out_ids)
        if trainer.fold != "all":
            ids |= set(map(str, trainer.do_split()[1]))
        missing = case_records(adapter.source, sorted(ids - set(records)))
        adapter.held_out = (*records.values(), *missing)
    return adapter


def _unknown(options: NnunetSettings) -> bool:
    return "trainer" in options.model_fields_set and options.num_epochs is None


# -- what a training leaves ------------------------------------------------------------------------


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
                f"{path}: {type(error).__name__}, expected a checkpoint of nnU-Net; {REMOVE}"
            ) from error
    newest = max(found, key=lambda checkpoint: checkpoint[0])
    if newest[1]:
        verify_zip(folder / newest[1], REMOVE)
    return newest


def own_metrics(folder: Path) -> dict[str, Any]:
    """Return nnU-Net's own validation on held-out cases, if it is there."""
    if not (folder / SUMMARY).is_file():
        return {}
    summary = read_json(folder / SUMMARY)
    scores = {str(k): v["Dice"] for k, v in summary["mean"].items()}
    scores["foreground"] = summary["foreground_mean"]["Dice"]
    scores = {key: float(dice) if math.isfinite(dice) else None for key, dice in scores.items()}
    return {OWN: {"dice": scores.pop("foreground"), "dice_per_label": scores}}
