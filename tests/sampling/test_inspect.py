import json
from typing import Any

import numpy as np
import pytest

from gansynth.core.schema import Sample
from gansynth.data.picture_files import read_picture
from gansynth.report.image_grid import EDGE, GAP
from gansynth.report.png import LINE
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.inspect import write_nearest
from gansynth.sampling.open_run import load_run
from gansynth.sampling.sample import sample
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource

OWN = {"width": 4, "max_width": 8, "batch_size": 2, "with_mask": "yes", "diversity": 0}


@pytest.fixture(scope="module")
def fitted_gan(toy_fit, whole_fits, tmp_path_factory) -> Any:
    """A run of ``dcgan`` that has hardly learnt anything, and the fit's report."""
    run = tmp_path_factory.mktemp("looking") / "run"
    return run, toy_fit(run, generator="dcgan", own=OWN, edits=None, steps=2)


@pytest.fixture(scope="module")
def drawer(fitted_gan) -> Sampler:
    return Sampler(load_run(fitted_gan[0], "cpu"), ToySource(2))


def test_a_fit_from_noise_ends_with_the_nearest_cases(fitted_gan):
    run, report = fitted_gan
    names = {path.name for path in (run / "samples").iterdir()}
    assert {"nearest.png", "nearest.json"} <= names
    assert report["nearest"]["compared"] == 12
    assert report["nearest"]["median_ratio"] > 0.5
    json.dumps(report, allow_nan=False)


def test_copies_are_said_and_stand_beside_their_case(drawer, tmp_path):
    said: list[str] = []
    reporter: Any = NullReporter()
    reporter.warn = said.append
    source = ToySource(2)
    cases = [source.load(case) for case in source.train_ids[2:5]]
    samples = [
        Sample(case.image, case.labels, provenance={"index": i, "seed": 0})
        for i, case in enumerate(cases)
    ]
    report = write_nearest(drawer, samples, tmp_path, reporter)
    table = json.loads((tmp_path / "nearest.json").read_text())
    assert [row["case"] for row in table["samples"]] == [c.id for c in cases]
    assert [row["distance"] for row in table["samples"]] == [0, 0, 0]
    assert len(said) == 1
    assert said[0].startswith(str(tmp_path / "nearest.png"))
    picture = read_picture(tmp_path / "nearest.png")[:, : 2 * (EDGE + GAP)]
    left, right = np.split(picture[2 * LINE : 2 * LINE + EDGE], 2, axis=1)
    assert np.array_equal(left, right)
    assert report["median_ratio"] == 0


def test_patients_stay_in_the_run_and_an_export_names_none(fitted_gan, tmp_path):
    run, _ = fitted_gan
    how: Any = {"nearest": True, "sheet": True, "format": "png", "keep_flawed": True}
    report = sample(run, n=2, out=tmp_path / "out", seed=3, device="cpu", quiet=True, **how)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("dataset.json", "images", "manifest.csv", "masks", "provenance.json")
    ]
    own = run / "samples" / "seed-3"
    assert report["sheet"] == str(own / "sheet.png")
    assert report["nearest"]["sheet"] == str(own / "nearest.png")
    lineage = load_run(run, "cpu").lineage
    assert lineage.cases
    for path in (tmp_path / "out").rglob("*.*"):
        data = path.read_bytes()
        assert lineage.dataset.encode() not in data
        assert not [case.id for case in lineage.cases if case.id.encode() in data]
