"""Marks everything here ``gpu``; ``GANSYNTH_GPU_TESTS_ON=cpu`` runs it on the CPU instead.

The switch is for finding mistakes in the tests where there is no GPU; what only a GPU can show is
skipped then.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ON_CPU = os.environ.get("GANSYNTH_GPU_TESTS_ON") == "cpu"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark them; and let no warning of another torch or Python be an error."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))
            if not ON_CPU:
                item.add_marker("gpu")


@pytest.fixture
def device() -> torch.device:
    """Where the tests compute."""
    return torch.device("cpu" if ON_CPU else "cuda")


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """A GPU, for what only a GPU can show."""
    if device.type != "cuda":
        pytest.skip("only a GPU can show this")
    return device


@pytest.fixture(scope="module")
def toy_kind() -> Iterator[None]:
    """Offers the source kind ``toy`` (``toy:3``, ``toy:2``): cases in memory."""
    from gansynth.core.hookspecs import hookimpl
    from gansynth.core.registry import installed
    from gansynth.testing import ToySource

    @hookimpl
    def register_sources(register):
        register("toy", lambda: lambda request: ToySource(int(request.where)))

    installed().add(SimpleNamespace(register_sources=register_sources), "toy_kind")
    try:
        assert "toy_kind" not in installed().broken, installed().broken
        yield
    finally:
        installed().remove("toy_kind")
