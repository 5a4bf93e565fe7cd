import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest

from gansynth.core.source import SourceRequest
from gansynth.runtime.progress import NullReporter
from gansynth_evaluate.turing import Study, open_study
from tests.benchmark.browsing import chromium

LOOP = {"steps": "2", "precision": "fp32"}
FLAT = {**LOOP, "batch_size": "2", "width": "4", "latent": "8"}
DEEP = {**LOOP, "batch_size": "1", "width": "4", "levels": "1", "d_width": "4", "d_levels": "1"}
FLAT_READ = {"concat": "yes", "slices": "40%-60%", "resize": "32x32"}


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> SimpleNamespace:
    """Runs ``flat`` (dcgan, all four sequences in one) and ``deep`` (cgan3d, two channels).

    Of six people, one or two of them held out. Do not change what lies there: ``flat_study`` and
    ``deep_study`` are copies of their studies, of 4 + 4 and of 3 + 3 images.
    """
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "turing_runs"
    with filelock.FileLock(home.with_suffix(".lock")):
        if not (home / "done").exists():
            _make(home)
            (home / "done").touch()
    return SimpleNamespace(data=home / "data", flat=home / "flat", deep=home / "deep")


def _make(home: Path) -> None:
    from gansynth.fitting.fit import fit
    from gansynth.testing.phantoms import PhantomOptions, write_phantoms
    from gansynth_evaluate.turing import TuringOptions, make_study

    data = str(home / "data")
    write_phantoms("brats", home / "data", 6, options=PhantomOptions(spacing_mm=8.0))
    flat = SourceRequest("slices", f"nifti:{data}", read=FLAT_READ)
    deep = SourceRequest("nifti", data, read={"channels": "T1,FLAIR"})
    usual = {"device": "cpu", "reporter": NullReporter()}
    fit("dcgan", flat, home / "flat", settings=FLAT, edits=(), **usual)  # type: ignore[arg-type]
    fit("cgan3d", deep, home / "deep", settings=DEEP, edits=("flip",), **usual)  # type: ignore[arg-type]
    make_study(home / "flat", options=TuringOptions(n=4, origin="all"), device="cpu")
    make_study(home / "deep", options=TuringOptions(n=3), device="cpu")


@pytest.fixture
def flat_study(made: SimpleNamespace, tmp_path: Path) -> Study:
    """A study of slices that a test may change: 8 images, one channel, one rater."""
    return open_study(shutil.copytree(made.flat / "turing" / "study", tmp_path / "flat"))


@pytest.fixture
def deep_study(made: SimpleNamespace, tmp_path: Path) -> Study:
    """A study of volumes that a test may change: 6 images, two channels, one rater."""
    return open_study(shutil.copytree(made.deep / "turing" / "study", tmp_path / "deep"))


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found
