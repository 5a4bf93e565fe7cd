"""Sheets during a fit: early, of the same conditions each time, beside the cases they came from."""

from typing import Any

import numpy as np
import pytest

from gansynth.core.space import Placement
from gansynth.fitting import previews
from gansynth.testing import ToySource
from gansynth.training import loop


def test_the_first_sheet_does_not_wait_for_its_turn(toy_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "FIRST_PREVIEW", 0.0)
    toy_fit(tmp_path, steps=3, sample_every=1000)
    names = sorted(p.name for p in (tmp_path / "samples").glob("step-*.png"))
    assert names == ["step-00000001.png", "step-00000003.png"]


@pytest.fixture
def drawn(toy_fit, tmp_path, monkeypatch) -> list[tuple[Any, Any]]:
    """What the sheets of a short fit were given: samples and real cases."""
    seen: list[tuple[Any, Any]] = []

    def keep(path, samples, real, schema, **told):
        seen.append((samples, real))

    monkeypatch.setattr(previews, "write_sheet", keep)
    toy_fit(tmp_path, steps=4, sample_every=2, edits=())
    return seen


def test_every_sheet_shows_the_same_conditions_with_the_same_seeds(drawn):
    first, last = drawn[0][0], drawn[-1][0]
    assert [s.provenance["latent_seed"] for s in first] == [
        s.provenance["latent_seed"] for s in last
    ]
    assert all(np.array_equal(a.labels, b.labels) for a, b in zip(first, last, strict=True))
    assert not np.array_equal(first[0].image, last[0].image)


def test_a_sample_stands_beside_the_case_its_label_map_came_from(drawn):
    source = ToySource(2)
    for samples, real in drawn:
        for sample, case in zip(samples, real, strict=True):
            assert case.id == sample.provenance["case"]
            at = Placement.from_json(sample.provenance["placement"])
            placed = source.space.to_generator(source.load(case.id), at)
            assert np.array_equal(case.image, placed.image)
            assert np.array_equal(sample.labels, np.asarray(placed.labels))
