"""A toy source, a generator without networks and a recording host; runs and scans made of them."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import filelock
import numpy as np
import pytest
from pydantic import Field

from gansynth.core.bank_options import BankCapacity
from gansynth.core.capabilities import Capabilities
from gansynth.core.generator import Generator, GeneratorOptions
from gansynth.core.host_options import HostOptions
from gansynth.core.lineage import CaseRecord
from gansynth.core.schema import OUTSIDE, Sample
from gansynth.core.source import Provenance
from gansynth.hosts.contract.host import Framework
from gansynth.hosts.contract.record import TrainingFolder, TrainingResult
from gansynth.hosts.contract.session import Session
from gansynth.runtime.errors import UsageFault
from gansynth.testing import ToySource
from tests.conftest import save_nifti
from tests.offered import offered


class MeansOptions(GeneratorOptions):
    grain: float = 0.2


class Means(Generator):
    """Each label's mean intensity, and grain."""

    name = "means"
    Options: ClassVar[type[GeneratorOptions]] = MeansOptions
    capabilities = Capabilities(edits=("flip",))
    means: Any = None

    def observe(self, cases):
        cases = list(cases)
        labels = np.concatenate([c.labels.ravel() for c in cases])
        values = np.concatenate([c.image.reshape(2, -1) for c in cases], axis=1)
        return {"means": [values[:, labels == v].mean(axis=1).tolist() for v in (0, 1, 2)]}

    def load_state(self, state):
        self.means = state["means"]

    def sample(self, conditions, seeds):
        samples = []
        for condition, seed in zip(conditions, seeds, strict=True):
            image = np.array(self.means).T[:, np.maximum(condition.labels, 0)]
            grain = np.random.default_rng(seed).normal(size=image.shape)
            image += self.options.model_dump()["grain"] * grain
            image[:, condition.labels == OUTSIDE] = 0
            samples.append(Sample(image.astype(np.float32), condition.labels.copy()))
        return samples


class Constant(Means):
    """Draws nothing at all."""

    name = "constant"

    def sample(self, conditions, seeds):
        return [replace(s, image=s.image * 0) for s in super().sample(conditions, seeds)]


class Folded(ToySource):
    """Fold 1 holds out what fold 0 trains on."""

    def __init__(self, request):
        super().__init__(int(request.where))
        self.request = request

    @property
    def train_ids(self):
        return super().train_ids if self.request.fold == "0" else super().held_out_ids

    @property
    def held_out_ids(self):
        return super().held_out_ids if self.request.fold == "0" else super().train_ids

    @property
    def provenance(self):
        ids = (*self.train_ids, *self.held_out_ids)
        return Provenance({i: CaseRecord(i, i, f"hash of {i}", as_stored=True) for i in ids})


class ToyOptions(HostOptions):
    seed: ClassVar[None] = None
    num_epochs: int | None = Field(None, description="epochs")


class Host(Framework):
    name = "toyhost"
    Options = ToyOptions
    length = (1, 1)
    device = "cpu"
    started: ClassVar[list[Any]] = []
    fell_back: ClassVar[int] = 0
    warnings: ClassVar[tuple[str, ...]] = ()

    def train(self, job):
        raise NotImplementedError

    evaluate = train

    def validate(self):
        if self.source.request.configuration == "impossible":
            raise UsageFault("test.fault", "--configuration impossible: not in the plans")

    def results_folder(self):
        return Path("results")

    @classmethod
    def read_own(cls, options):
        return {"words": options}


def start(session):
    """What ``Session.start`` does with the toy: it notes the request, and trains nothing."""
    host = session.host
    host.started.append(session.request)
    missing, found = host.fell_back, {"dice": 0.5, "dice_per_label": {"1": 0.4, "2": 0.6}}
    reasons = {"the bank is empty": missing}
    counts = (100 + missing, 100 - missing, missing)
    return TrainingResult(Path("results"), *counts, found, reasons, warnings=host.warnings)


OFFERED: dict[str, dict[str, Any]] = {
    "generators": {"means": Means, "constant": Constant},
    "sources": {"toy": Folded},
    "hosts": {"toyhost": Host},
}


@pytest.fixture
def toys() -> Iterator[type[Host]]:
    """Registers generators ``means`` and ``constant``, source ``toy:3``, host ``toyhost``."""
    Host.started.clear()
    with pytest.MonkeyPatch.context() as patch, offered("toys", **OFFERED):
        patch.setattr(Session, "start", start)
        patch.setattr(Session, "check_drawing", lambda _: None)
        patch.setattr(Session, "bank_plan", BankCapacity(64, 1000))
        folder = TrainingFolder(Path("results"), 0, None)
        patch.setattr(Session, "training_folder", lambda _: folder)
        yield Host


SHAPE = (16, 18, 20)
READ = ("--read", "channels=T1,FLAIR", "--read", "folds=3", "--read", "size=16")


def scans(folder: Path, names: str, seed: int, *, lesions: bool = True, mm: float = 1.0) -> Path:
    """A folder of balls of two channels; without lesions it has no label maps either."""
    rng, affine = np.random.default_rng(seed), np.diag([mm, mm, mm, 1.0])
    grid = np.indices(SHAPE) - np.reshape(SHAPE, (3, 1, 1, 1)) / 2
    body = (grid**2).sum(axis=0) < 49
    for name in names:
        far = ((grid - rng.uniform(-2, 2, (3, 1, 1, 1))) ** 2).sum(axis=0)
        labels = (body & lesions & (far < 9)).astype(np.int16) + (body & lesions & (far < 3))
        image = (100 + 10 * rng.normal(size=(2, *SHAPE)) + 50 * labels) * body
        for number, channel in enumerate(image.astype(np.float32)):
            save_nifti(folder / "images" / f"{name}_{number:04d}.nii.gz", channel, affine)
        if lesions:
            save_nifti(folder / "labels" / f"{name}.nii.gz", labels.astype(np.int16), affine)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Scans ``ill`` and ``free`` (of lesions), runs ``toy`` (of toy:3), ``small`` (toy:2) and
    ``of_ill``. Do not change it.
    """
    from gansynth_cli.main import cli

    base = tmp_path_factory.getbasetemp()
    folder = Path(base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "world"
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not (folder / "done").exists():
            ill = scans(folder / "ill", "abcdef", 0)
            scans(folder / "free", "abc", 1, lesions=False)
            runs = {"toy": ("toy:3",), "small": ("toy:2", "--set", "grain=0.1")}
            runs["of_ill"] = (f"nifti:{ill}", *READ)
            with offered("toys", **OFFERED):
                for name, data in runs.items():
                    words = ["fit", "means", "-q", "-o", str(folder / name), "--data", *data]
                    cli.main(words, standalone_mode=False)
            (folder / "done").touch()
    return folder


@pytest.fixture
def run(world, toys, tmp_path: Path) -> Path:
    """A run of ``means`` on toy:3 that a test may change."""
    return shutil.copytree(world / "toy", tmp_path / "run")
