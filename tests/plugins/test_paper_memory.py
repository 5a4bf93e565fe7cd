"""The papers' recipes at full size, simulated: what a step takes of a GPU's memory."""

from dataclasses import replace

import pytest

from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.fitting.cost_estimate import estimate
from gansynth.fitting.setup import resolve
from tests.plugins import paper_data
from tests.plugins.paper_data import sets_of

DONCENCO = Space("resample", (64, 240, 240), frame=(95, 240, 240), nearest=True, pad_label=0)
MMGAN = Space("resample", (150, 200, 160), frame=(150, 200, 160), pad_label=0)
LEAN = {"checkpointing": "yes", "precision": "bf16"}


@pytest.fixture(autouse=True, scope="module")
def _brains():
    paper_data.register()
    yield
    installed().remove("brains")


def peak(monkeypatch, recipe: str, name: str, space: Space, **settings: str) -> float:
    """GB (10^9 bytes) of a step; of one sequence where each has a model of its own."""
    monkeypatch.setattr(paper_data.Brains, "space", property(lambda self: space))
    one = sets_of(recipe)[name]
    request = SourceRequest("brains", "tumours")
    if one.composite is not None:
        request = replace(request, view={"channels": ["t1"]})
    job = resolve("cgan3d", request, {**one.settings, **settings}, one.edits, "cpu")
    assert job.space.size == space.size
    return estimate(job).peak / 1e9


@pytest.mark.parametrize("name", ["SN", "local-perceptual"])
def test_doncencos_step_stays_below_10_gb_with_checkpointing_and_bf16(monkeypatch, name):
    found = peak(monkeypatch, "doncenco2022", name, DONCENCO, **LEAN)
    assert 5 < found < 10


def test_doncencos_step_as_he_trained_it_fits_his_card_of_32_gb(monkeypatch):
    assert 15 < peak(monkeypatch, "doncenco2022", "SN", DONCENCO, precision="fp32") < 30


def test_mmgans_step_fits_its_card_of_11_gb(monkeypatch):
    assert 4 < peak(monkeypatch, "mmgan2020", "pool", MMGAN, precision="fp32") < 11
