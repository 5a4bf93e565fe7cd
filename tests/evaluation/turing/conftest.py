import os
import shutil
from pathlib import Path

import filelock
import pytest

from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from gansynth.testing.phantoms import PhantomOptions, write_phantoms
from gansynth_evaluate.turing import Study, TuringOptions, make_study, open_study
from tests.benchmark.browsing import chromium

FLAT = {"steps": "2", "precision": "fp32", "batch_size": "2", "width": "4", "latent": "8"}
FLAT_READ = {"concat": "yes", "slices": "40%-60%", "resize": "32x32"}
DEEP = {"steps": "2", "precision": "fp32", "batch_size": "1", "width": "4", "levels": "1"}


def once(factory, name, make) -> Path:
    """A run of six people, one or two of them held out, and its study; made by one worker."""
    base = factory.getbasetemp()
    home: Path = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / name
    with filelock.FileLock(home.with_suffix(".lock")):
        if not (home / "done").exists():
            write_phantoms("brats", home / "data", 6, options=PhantomOptions(spacing_mm=8.0))
            make(str(home / "data"), home / "run")
            (home / "done").touch()
    return home / "run"


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A run, a dcgan of all four sequences in one. Do not change what lies there."""

    def make(data: str, run: Path) -> None:
        asked = SourceRequest("slices", f"nifti:{data}", read=FLAT_READ)
        fit("dcgan", asked, run, settings=FLAT, edits=(), device="cpu", reporter=NullReporter())
        make_study(run, options=TuringOptions(n=4, origin="all"), device="cpu")

    return once(tmp_path_factory, "turing_flat", make)


@pytest.fixture
def flat_study(made: Path, tmp_path: Path) -> Study:
    """A study of slices that a test may change: 8 images, one channel, one rater."""
    return open_study(shutil.copytree(made / "turing" / "study", tmp_path / "flat"))


@pytest.fixture
def deep_study(tmp_path_factory, tmp_path: Path) -> Study:
    """A study of volumes that a test may change: 6 images, two channels, one rater."""

    def make(data: str, run: Path) -> None:
        asked = SourceRequest("nifti", data, read={"channels": "T1,FLAIR"})
        small = {**DEEP, "d_width": "4", "d_levels": "1"}
        usual = {"settings": small, "edits": ("flip",), "device": "cpu"}
        fit("cgan3d", asked, run, reporter=NullReporter(), **usual)  # type: ignore[arg-type]
        make_study(run, options=TuringOptions(n=3), device="cpu")

    run = once(tmp_path_factory, "turing_deep", make)
    return open_study(shutil.copytree(run / "turing" / "study", tmp_path / "deep"))


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found
