"""Marks everything here ``gpu``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from tests.adapters.deepmedic.conftest import crop_run, shared_deepmedic  # noqa: F401  # fixtures
from tests.adapters.yolo.conftest import box_run, shared_yolo  # noqa: F401  # fixtures
from tests.pretend_cuda.environment import PRETENDS

REQUEST = SourceRequest("toy", "3")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark them; and let no warning of another torch or Python be an error."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))
            item.add_marker("gpu")


@pytest.fixture
def device() -> torch.device:
    """Where the tests compute."""
    return torch.device("cuda")


@pytest.fixture
def real_cuda() -> None:
    """A GPU with memory and kernels of its own: no pretend one (``tests/pretend_cuda``)."""
    if PRETENDS:
        pytest.skip("only a real GPU can show this")


@pytest.fixture
def second() -> torch.device:
    if torch.cuda.device_count() < 2:
        pytest.skip("this machine shows one CUDA device")
    return torch.device("cuda:1")


def fitted(
    out: Path, settings: Mapping[str, object], edits: tuple[str, ...], generator: str = "cgan3d"
) -> Path:
    from gansynth.fitting.fit import fit
    from gansynth.runtime.progress import NullReporter

    told = {key: str(value) for key, value in settings.items()}
    kwargs: dict[str, Any] = {"settings": told, "edits": edits}
    kwargs |= {"device": "cuda", "reporter": NullReporter()}
    assert fit(generator, REQUEST, out, **kwargs)["steps"] == 6
    return out


def drawer_on(run: Path, device: str, asking: SampleRequest | None = None) -> Sampler:
    return Sampler(load_run(run, device), open_source(REQUEST), asking or SampleRequest())


def apart(one: np.ndarray, two: np.ndarray) -> float:
    """Root mean square of the difference, in standard deviations."""
    return float(np.sqrt(np.mean((one - two) ** 2)) / one.std())
