"""One kit for each host: its toy data and run, the words of its command, its mixed batches."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gansynth.bank.producer import ProducerConfig, run_producer
from gansynth.bank.reader import BankReader
from gansynth.core.intake import Intake, intake_of
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.run_folder import write_manifest
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest, lineage_of
from gansynth.core.volumes import read_volume
from gansynth.hosts.contract.job import Job
from gansynth.hosts.contract.record import DRAWS, FILE
from gansynth.hosts.contract.session import Session
from gansynth.hosts.mixing.mixer import MixerConfig
from gansynth.hosts.mixing.training_data import TrainingData
from gansynth.runtime import processes
from gansynth.runtime.files import write_json_atomic
from gansynth.sampling.run_source import open_source
from tests.adapters.deepmedic.fake_deepmedic import write_fake
from tests.banks import write_bank
from tests.deepmedic_sets import toy_deepmedic
from tests.yolo_sets import toy_yolo

RUN = processes.run
HOSTS = ("nnunet", "deepmedic", "segmenter", "yolo")
COMMANDED = (*HOSTS[:3], pytest.param("yolo", marks=pytest.mark.extra("yolo")))
"""The same, where the command itself checks the host, and a detector must be there."""
MARK = 100.0
"""What voxels of marked samples have at least; no real case has it."""


def changed_run(run: Path, folder: Path, **values: Any) -> Path:
    """A copy of a run whose manifest says something else."""
    shutil.copytree(run, folder)
    write_manifest(folder, {**json.loads((run / "manifest.json").read_text()), **values})
    return folder


class Kit(ABC):
    """A host on its toy data.

    Attributes:
        run: a generator that was fitted on them for two steps; not to be changed.
        home: folder of the data; not to be changed.
        request: the data.
        output: where a training's results go; nothing is there.
    """

    host: ClassVar[str]
    unit: ClassVar[str] = "epoch"
    epochs: ClassVar[int] = 2
    """That ``lasting`` trains; those of the segmenter are its steps."""
    results: ClassVar[str] = "output"
    """Setting that names the folder of the results."""
    record: ClassVar[str] = FILE
    ahead: ClassVar[int] = 0
    """Samples that its loader may have drawn at the end of a session and throws away."""
    same: ClassVar[tuple[str, ...]] = ("channels",)
    """What of a schema its banks have in common with the data."""

    home: Path
    request: SourceRequest
    program: Mapping[str, str] = MappingProxyType({})
    """Settings that name the host's own program, if it needs any."""

    def __init__(self, folder: Path, run: Path, data: Any) -> None:
        self.folder, self.run, self.data = folder, run, data
        self.output = folder / "out"
        self._intake: Intake | None = None
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Set what else a kit has."""

    @abstractmethod
    def lasting(self, epochs: int = 2) -> tuple[str, ...]:
        """Settings of a training of so many short epochs."""

    @abstractmethod
    def elsewhere(self) -> tuple[tuple[str, ...], list[str]]:
        """Words that name other data or another fold, and what is said of these."""

    @abstractmethod
    def batches(self, plan: MixerConfig[Any], count: int) -> Iterator[list[bool]]:
        """What is synthetic of each batch, or epoch, as the host's own loader makes it."""

    @abstractmethod
    def renamed(self, folder: Path) -> Kit:
        """The same data in a folder of another name."""

    def cut(self, patch: pytest.MonkeyPatch) -> None:
        """Let a training be ended, as by SIGTERM, at the end of its first epoch."""
        done = Job.end_round

        def ending(job: Job, *told: Any, **more: Any) -> None:
            done(job, *told, **more)
            raise SystemExit(143)

        patch.setattr(Job, "end_round", ending)

    @property
    def to(self) -> tuple[str, ...]:
        """The host's own program, and where the results go."""
        words = (f"--set={key}={value}" for key, value in self.program.items())
        return *words, "-o", str(self.output)

    @property
    def place(self) -> tuple[str, ...]:
        """Where the data are."""
        return "--data", f"{self.request.kind}:{self.request.where}"

    @property
    def where(self) -> tuple[str, ...]:
        """The data, and how they are read."""
        return *self.place, *(f"--read={key}={value}" for key, value in self.request.read.items())

    def words(self, *more: object, ratio: str = "1:1") -> tuple[str, ...]:
        """``gansynth augment``."""
        words = ("augment", "--target", self.host, "--ratio", ratio, *self.to, *more)
        return tuple(map(str, words))

    @property
    def target(self) -> Path:
        """Where a data set is exported to."""
        return self.folder / "new"

    def export(self, bank: Path, *more: object) -> tuple[str, ...]:
        """Write a data set with a sample for two real cases."""
        words = ("augment", "--target", self.host, *self.where, "--bank", bank, "--ratio", "2:1")
        target = self.target.name if self.host == "nnunet" else self.target  # found by its number
        return tuple(map(str, (*words, "--export", target, *more)))

    def training(
        self, bank: Path, *more: object, ratio: str = "1:1", epochs: int = 2
    ) -> tuple[str, ...]:
        """A training by a bank, in this process where ``in_process`` is used."""
        return self.words(*self.where, "--bank", bank, *self.lasting(epochs), *more, ratio=ratio)

    def new_images(self, folder: Path) -> dict[str, tuple[int, ...]]:
        """Copy two held-out images, under names of their own; file of a prediction -> its shape."""
        source, shapes = self.intake().source, {}
        folder.mkdir()
        for number, case in enumerate(source.held_out_ids[:2]):
            for channel, file in self.channel_files(source, case).items():
                shutil.copy(file, folder / f"Scan{number}_{channel}.nii.gz")
                shapes[f"Scan{number}.nii.gz"] = read_volume(file).array.shape
        return shapes

    def channel_files(self, source: Any, case: str) -> dict[str, Path]:
        return dict(zip(source.schema.channels, source.entry(case).images, strict=True))

    def intake(self) -> Intake:
        if self._intake is None:
            self._intake = intake_of(self.host, open_source(self.request))
        return self._intake

    def session(self, **words: Any) -> Session:
        """A training or an export of the data."""
        request = AugmentRequest(**{"target": self.host, "ratio": "1:1", **words})
        return Session.of(request, self.intake().source)

    def changed(self, **values: Any) -> Path:
        """A copy of the run whose manifest says something else."""
        number = len([*self.folder.glob("changed-*")])
        return changed_run(self.run, self.folder / f"changed-{number}", **values)

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "manifest.json").read_text())
        return found

    def sessions(self) -> list[dict[str, Any]]:
        """What the record has of each session."""
        document = json.loads((self.output / self.record).read_text())
        found: list[dict[str, Any]] = document["sessions"]
        return [{**one, "complete": document["complete"]} for one in found]

    def logs(self) -> list[Path]:
        """Draw logs of all sessions, those of partners left out."""
        return sorted((self.output / DRAWS).glob("*/draws-*.csv"))

    def bank(
        self, name: str = "bank", samples: int = 6, look: Any = np.array, **changes: Any
    ) -> Path:
        """A bank whose samples are training cases, a little brighter each, as ``look`` has them."""
        intake = self.intake()
        source = intake.source
        told: dict[str, Any] = {"schema": source.schema, "lineage": lineage_of(source), **changes}
        pairs = [drawn_from(intake, number, look) for number in range(samples)]
        return write_bank(self.folder / name, pairs=pairs, dtype="float32", **told)

    def filled(
        self, samples: int = 4, device: str = "cpu", name: str = "filled", producers: int = 1
    ) -> Path:
        """A bank that the generator has filled, without a process of its own for one producer."""
        config = ProducerConfig(
            *(str(self.run), self.request.to_json(), self.host, str(self.folder / name)),
            frozen=True,
            capacity=samples,
            device=device,
            producers=producers,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "nice", lambda by: 0)
            run_producer(config, lambda: False)
        return self.folder / name


def drawn_from(intake: Intake, number: int, look: Any) -> tuple[Sample, Any]:
    """A training case in the host's space, and host arrays."""
    source = intake.source
    case = source.load(source.train_ids[number % len(source.train_ids)])
    placement = source.space.place(case, np.random.default_rng(number))
    inside, shape = source.space.to_generator(case, placement), case.image.shape[1:]
    told = {"case": case.id, "placement": placement.to_json(), "shape": list(shape)}
    drawn = Sample(inside.image, inside.labels, inside.boxes, told)
    sample = source.space.to_host(drawn, shape)
    image = look(sample.image + number / 100).astype(np.float32)
    sample = replace(sample, image=image)
    return sample, intake.finalise(sample)


def command(*words: str) -> Result:
    """Run a command in this process."""
    from gansynth_cli.main import cli

    return CliRunner().invoke(cli, words)


def lit(image: Any) -> bool:
    return bool(image.max() >= MARK)


def in_process(
    words: Sequence[str], environ: Mapping[str, str], log: Path, show: Any = None, **more: Any
) -> Any:
    """Stands in for ``processes.run``: a module runs in this process, other commands as before."""
    if words[1] != "-m":  # DeepMedic's program is of another Python
        return RUN(words, environ, log, show=show, **more)
    said = io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for name, value in environ.items():
            patch.setenv(name, value)
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.redirect_stderr(said))
        try:
            code = importlib.import_module(words[2]).main(words[3:])
        except SystemExit as end:
            code = end.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    log.write_text(said.getvalue())
    for line in said.getvalue().splitlines() if show is not None else ():
        show(line)
    stopped = {143: signal.SIGTERM, 130: signal.SIGINT}.get(code, 0)
    return processes.ProcessResult(code, said.getvalue(), stopped)


class NnunetKit(Kit):
    """Its results lie in a folder of its own in the folder that the user names."""

    host = "nnunet"
    results = "results"
    ahead = 2

    def prepare(self) -> None:
        self.home, self.root = self.data.root, self.folder / "nnunet"
        for part in ("nnUNet_raw", "nnUNet_preprocessed"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
            place = self.root / part / self.data.dataset
            if not place.exists():
                place.symlink_to(self.home / part / self.data.dataset)
        self.request = self.data.request(root=str(self.root))
        model = f"nnUNetTrainerGANSynth__{self.data.plans}__3d_fullres"
        self.output = self.root / "nnUNet_results" / self.data.dataset / model / "fold_0"

    @property
    def to(self) -> tuple[str, ...]:
        return "-o", str(self.root / "nnUNet_results")

    @property
    def place(self) -> tuple[str, ...]:
        return *super().place, "--root", str(self.request.root)

    @property
    def where(self) -> tuple[str, ...]:
        return *self.place, "-c", "3d_fullres", "--plans", self.data.plans

    def lasting(self, epochs: int = 2) -> tuple[str, ...]:
        iterations = ("num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1")
        short = (f"num_epochs={epochs}", *iterations, "save_every=1")
        return tuple(f"--set={one}" for one in short)

    @property
    def target(self) -> Path:
        return self.root / "nnUNet_preprocessed" / "Dataset510_Plus"

    def channel_files(self, source: Any, case: str) -> dict[str, Path]:
        raw, count = self.home / "nnUNet_raw" / self.data.dataset, len(source.schema.channels)
        names = (f"{number:04d}" for number in range(count))
        return {name: raw / "imagesTr" / f"{case}_{name}.nii.gz" for name in names}

    def elsewhere(self) -> tuple[tuple[str, ...], list[str]]:
        held_out = open_source(replace(self.request, fold="1")).held_out_ids
        return (*self.where, "--fold", "1"), ["leakage", "fold 0", *held_out, "--fold"]

    def batches(self, plan: MixerConfig[Any], count: int) -> Iterator[list[bool]]:
        from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
        from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        from gansynth_nnunet.mixed import MixedNnunetDataset

        intake: Any = self.intake()
        host = intake.source
        manager = PlansManager(host.plans.doc).get_label_manager(host.dataset_json)
        real = nnUNetDatasetBlosc2(str(host.folder), list(host.train_ids))
        mixed = MixedNnunetDataset(real, plan, 3, len(intake.schema.channels), intake.source.keys)
        patch = tuple(host.patch_size)
        loader = nnUNetDataLoader(mixed, 3, patch, patch, manager, 0.33)
        for _ in range(count):
            yield [lit(image) for image in loader.generate_train_batch()["data"]]

    def renamed(self, folder: Path) -> Kit:
        for part in ("nnUNet_raw", "nnUNet_preprocessed"):
            shutil.copytree(
                self.home / part / self.data.dataset, folder / part / "Dataset777_Other"
            )
        (folder / "nnUNet_results").mkdir()
        found = NnunetKit(self.folder, self.run, self.data)
        found.request = replace(self.request, where="777", root=str(folder))
        return found


class DeepMedicKit(Kit):
    """A small program in DeepMedic's place trains, in a process of its own."""

    host = "deepmedic"
    unit, epochs = "subepoch", 4
    ahead = 4

    def prepare(self) -> None:
        self.home = self.data.folder
        self.request = SourceRequest("deepmedic", str(self.data.train), read={"size": "16"})
        checkout = write_fake(self.folder / "fake")
        python, model = str(checkout / "python"), str(self.data.model)
        self.program = {"deepmedic": str(checkout), "deepmedic_python": python, "model": model}

    def lasting(self, epochs: int = 2) -> tuple[str, ...]:
        short = (f"epochs={epochs}", "subepochs=2", "cases=4", "segments=8", "batch=4")
        return tuple(f"--set={one}" for one in short)

    def elsewhere(self) -> tuple[tuple[str, ...], list[str]]:
        values = {"sessionName": "other"}
        other = toy_deepmedic(self.folder / "other", train=4, val=1, seed=1, values=values)
        says = ["deepmedic:other", "not the one the run was fitted on"]
        return ("--data", f"deepmedic:{other.train}"), says

    def batches(self, plan: MixerConfig[Any], count: int) -> Iterator[list[bool]]:
        from gansynth_deepmedic.hook import Subepochs
        from gansynth_deepmedic.layout import read_host

        intake: Any = self.intake()
        cases = [intake.source.host_case(case) for case in intake.source.train_ids]
        size = plan.ratio.places(len(cases))
        subepochs = Subepochs(plan, cases, size)
        for number in range(count):
            yield [lit(subepochs.load(number, place, read_host).image) for place in range(size)]

    def cut(self, patch: pytest.MonkeyPatch) -> None:
        from gansynth_deepmedic import program

        def stopping(path: Path, document: Any) -> None:
            write_json_atomic(path, document)
            if path.name == program.CHECKPOINT:
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setenv("FAKE", "slow")
        patch.setattr(program, "write_json_atomic", stopping)

    def renamed(self, folder: Path) -> Kit:
        shutil.copytree(self.home, folder)
        config = folder / self.data.train.name
        config.write_text(config.read_text().replace("'toy'", "'other'"))  # its session
        other = type(self)(self.folder, self.run, self.data)
        other.request = replace(self.request, where=str(config))
        return other


class SegmenterKit(DeepMedicKit):
    """On the volumes of the same data set."""

    host = "segmenter"
    unit, epochs = "step", 4
    same = ("channels", "labels")

    def prepare(self) -> None:
        super().prepare()
        self.program = {}

    def lasting(self, epochs: int = 2) -> tuple[str, ...]:
        short = (f"steps={2 * epochs}", "checkpoint_every=2", "batch_size=2", "width=4", "levels=2")
        return tuple(f"--set={one}" for one in (*short, "device=cpu", "precision=fp32"))

    def batches(self, plan: MixerConfig[Any], count: int) -> Iterator[list[bool]]:
        source = self.intake().source
        data = TrainingData(source, source.space, plan, steps=count, batch_size=3)
        for step in range(count):
            yield [lit(data[3 * step + number]["image"]) for number in range(3)]

    def cut(self, patch: pytest.MonkeyPatch) -> None:
        pause = Job.pause

        def stopping(job: Job) -> None:
            pause(job)
            os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(Job, "pause", stopping)


class NoDetector:
    """Goes through the places of every epoch as a detector does, and learns nothing."""

    name = "libreyolo"

    def settings(self, job: Any) -> dict[str, Any]:
        return {}

    def train(self, job: Any, slots: Any, session: Any) -> Path:
        from gansynth_yolo.detectors import shown

        for epoch in range(slots.done, job.epochs):
            for place in range(len(slots)):
                slots.primary(place)
                slots.partner((place + 1) % len(slots))
            session.log_step(0.0, 0.1)
            told = {"train/loss": 1.0, "metrics/mAP50(B)": 0.5, "speed": 3.0}
            session.end_round(epoch + 1, **shown(told))
        return Path(job.output) / "weights.pt"

    def predict(self, job: Any, weights: Path, images: Sequence[Path], progress: Any) -> list[Any]:
        from gansynth.metrics.detection.record import DetectedBoxes

        nothing = DetectedBoxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
        return [nothing for _ in images]


class YoloKit(Kit):
    """A detector that learns nothing stands in for libreyolo."""

    host = "yolo"
    same = ("channels", "box_classes")

    def prepare(self) -> None:
        self.home = self.data.parent
        self.request = SourceRequest("yolo", str(self.data))

    def lasting(self, epochs: int = 2) -> tuple[str, ...]:
        short = (f"epochs={epochs}", "imgsz=64", "batch=8", "workers=0", "device=cpu")
        return tuple(f"--set={one}" for one in short)

    def elsewhere(self) -> tuple[tuple[str, ...], list[str]]:
        other = toy_yolo(self.folder / "other", seed=1)
        return ("--data", f"yolo:{other}"), ["yolo:other", "not the one the run was fitted on"]

    def batches(self, plan: MixerConfig[Any], count: int) -> Iterator[list[bool]]:
        from gansynth_yolo.mixed import EpochSlots

        intake: Any = self.intake()
        slots = EpochSlots(plan, 16, intake.source.file.channels)
        for _ in range(count):
            drawn = [slots.primary(place).image for place in range(len(slots))]
            yield [image is not None and image.min() == 255 for image in drawn]

    def new_images(self, folder: Path) -> dict[str, tuple[int, ...]]:
        folder.mkdir()
        for number, image in enumerate(sorted((self.home / "images" / "val").glob("*.png"))[:2]):
            shutil.copy(image, folder / f"Scan{number}.png")
        return {"Scan0.txt": (), "Scan1.txt": ()}

    def renamed(self, folder: Path) -> Kit:
        shutil.copytree(self.home, folder)
        other = YoloKit(self.folder, self.run, self.data)
        other.request = replace(self.request, where=str(folder / self.data.name))
        return other


KITS: Mapping[str, tuple[type[Kit], str, str]] = {
    "nnunet": (NnunetKit, "fitted", "toy_nnunet"),
    "deepmedic": (DeepMedicKit, "crop_run", "shared_deepmedic"),
    "segmenter": (SegmenterKit, "crop_run", "shared_deepmedic"),
    "yolo": (YoloKit, "box_run", "shared_yolo"),
}
"""Host -> its kit, and the fixtures of its run and data."""


def kit_of(host: str, folder: Path, fixture: Callable[[str], Any]) -> Kit:
    kind, run, data = KITS[host]
    folder.mkdir(parents=True, exist_ok=True)
    return kind(folder, fixture(run), fixture(data))


def in_this_process(patch: pytest.MonkeyPatch) -> None:
    """Let hosts train in this process, without workers; nnU-Net predicts nothing in the end."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    patch.setattr(processes, "run", in_process)
    patch.setattr(torch, "set_num_threads", lambda count: None)  # nnU-Net takes all cores for good
    patch.setattr(nnUNetTrainer, "perform_actual_validation", validate_nothing)
    draw_no_progress(patch)
    patch.setenv("nnUNet_n_proc_DA", "0")
    patch.setattr("gansynth_yolo.adapter.detector", lambda name: NoDetector())


def draw_no_progress(patch: pytest.MonkeyPatch) -> None:
    """Leave out the picture of nnU-Net's progress, which takes longer than a tiny epoch."""
    from nnunetv2.training.logging.nnunet_logger import LocalLogger

    patch.setattr(LocalLogger, "plot_progress_png", lambda *_: None)


def validate_nothing(trainer: Any, *_: object) -> None:
    """Write the summary of nnU-Net's validation, the last file of a training."""
    file = Path(trainer.output_folder) / "validation" / "summary.json"
    file.parent.mkdir(exist_ok=True)
    write_json_atomic(file, {"foreground_mean": {"Dice": 0.5}, "mean": {}})


def synthetic_draws(kit: Kit) -> Iterator[tuple[str, str]]:
    """``FILE:LINE`` and the sample of each synthetic draw."""
    for log in kit.logs():
        for number, line in enumerate(log.read_text().splitlines(), 1):
            if line.startswith("synthetic,"):
                yield f"{log}:{number}", line.split(",")[1]


def read_all(bank: Path) -> dict[str, Any]:
    reader = BankReader(bank)
    return {name: reader.read(name) for name in reader.ids()}
