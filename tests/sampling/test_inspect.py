"""Sheets of what a GAN draws: walks between latents, and samples beside their nearest real case."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gansynth.core.schema import Case, Sample, Schema
from gansynth.data.picture_files import read_picture
from gansynth.report.image_grid import EDGE, GAP, write_image_grid
from gansynth.report.png import LINE
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.inspect import write_interpolation, write_nearest
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


def look(run: Path, n: int = 2, **options: Any) -> Any:
    return sample(run, n=n, device="cpu", quiet=True, **options)


def test_a_fit_from_noise_ends_with_both_sheets(fitted_gan):
    run, report = fitted_gan
    names = {path.name for path in (run / "samples").iterdir()}
    assert {"interpolation.png", "nearest.png", "nearest.json"} <= names
    assert len(report["interpolation"]["evenness"]) == 4
    assert report["nearest"]["compared"] == 12
    assert report["nearest"]["median_ratio"] > 0.5
    json.dumps(report, allow_nan=False)


def test_a_walk_begins_with_a_sample_and_ends_at_the_next_ones_latent(drawer):
    walk = drawer.interpolate(2, 5)
    one, two = drawer.draw_raw(2, 2)
    assert np.array_equal(walk[0].image, one.image)
    assert np.array_equal(walk[-1].image, two.image)


def walker(*values: float) -> Any:
    """A drawer whose walks have these mean intensities."""
    walk = [Sample(np.full((1, 4, 4), value, np.float32)) for value in values]
    schema = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW")
    run = SimpleNamespace(generator=SimpleNamespace(schema=schema))
    return SimpleNamespace(run=run, interpolate=lambda first, steps: walk)


@pytest.mark.parametrize(
    ("values", "evenness"),
    [((0, 1, 2, 3), 1.0), ((0, 0, 3, 3), 1 / 3), ((0, 2, 3, 4), 2 / 3), ((1, 1, 1, 1), None)],
)
def test_evenness_is_the_mean_over_the_largest_step(tmp_path, values, evenness):
    report = write_interpolation(walker(*values), tmp_path, 2, 4)
    expected = evenness if evenness is None else pytest.approx(evenness, abs=1e-3)
    assert report["evenness"] == [expected] * 2
    assert [len(row) for row in report["steps"]] == [3, 3]


def test_a_walk_is_drawn_if_asked_for(fitted_gan, tmp_path):
    report = look(fitted_gan[0], out=tmp_path, interpolate=3, rows=2)
    assert report["interpolation"]["sheet"] == str(tmp_path / "interpolation.png")
    height, width, _ = read_picture(tmp_path / "interpolation.png").shape
    assert (height, width) == (LINE + 2 * (LINE + 2 * (EDGE + GAP)), 3 * (EDGE + GAP))


def test_without_latents_nothing_is_drawn(toy_fit, tmp_path):
    toy_fit(tmp_path / "run", steps=0)
    with pytest.raises(UsageFault, match="no latent space to interpolate in"):
        look(tmp_path / "run", out=tmp_path / "out", interpolate=4)
    assert not (tmp_path / "out").exists()


def test_copies_are_said_and_stand_beside_their_case(drawer, tmp_path):
    said: list[str] = []
    reporter: Any = NullReporter()
    reporter.warn = said.append
    source = ToySource(2)
    cases = [source.load(case) for case in source.train_ids[2:5]]
    told = [{"index": i, "seed": 0} for i in range(3)]
    samples = [Sample(c.image, c.labels, provenance=t) for c, t in zip(cases, told, strict=True)]
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


def test_patients_stay_in_the_run(fitted_gan, tmp_path):
    run, _ = fitted_gan
    how: Any = {"nearest": True, "sheet": True, "format": "png", "keep_flawed": True}
    report = look(run, out=tmp_path / "out", seed=3, **how)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("dataset.json", "images", "manifest.csv", "masks", "provenance.json")
    ]
    own = run / "samples" / "seed-3"
    assert report["sheet"] == str(own / "sheet.png")
    assert report["nearest"]["sheet"] == str(own / "nearest.png")


def test_an_export_of_a_run_names_no_case(fitted_gan, tmp_path):
    look(fitted_gan[0], n=4, out=tmp_path / "out", format="png", keep_flawed=True)
    lineage = load_run(fitted_gan[0], "cpu").lineage
    assert lineage.cases
    for path in (tmp_path / "out").rglob("*.*"):
        data = path.read_bytes()
        assert lineage.dataset.encode() not in data
        assert not [case.id for case in lineage.cases if case.id.encode() in data]


def item(value: float, labels: Any = None) -> Sample:
    image = np.full((1, 8, 8), value, np.float32)
    image[0, 0, :2] = 0, 1  # the window
    return Sample(image, labels)


def test_a_mosaic_shows_each_item_in_its_place(tmp_path):
    schema = Schema(("T1",), {"background": 0, "organ": 1}, (1.0, 1.0), "HW")
    cells = [(f"cell {i}", [item(i / 10), item(0.5 + i / 10)]) for i in range(5)]
    picture = read_picture(write_image_grid(tmp_path / "deep" / "a.png", cells, schema, across=4))
    height, width = LINE + EDGE + GAP, EDGE + GAP
    assert picture.shape == (2 * height, 8 * width, 3)
    middles = picture[LINE + EDGE // 2 :: height, EDGE // 2 :: width, 0] / 255
    wanted = [[0, 0.5, 0.1, 0.6, 0.2, 0.7, 0.3, 0.8], [0.4, 0.9, 1, 1, 1, 1, 1, 1]]
    assert middles == pytest.approx(np.array(wanted), abs=0.06)


def test_labels_are_outlined_alike_in_each_channel_and_named_above(tmp_path):
    schema = Schema(("T1", "T2"), {"background": 0, "organ": 1}, (1.0, 1.0), "HW")
    labels = np.zeros((8, 8), np.int16)
    labels[2:5, 2:5] = 1
    both = Sample(np.repeat(item(0.5).image, 2, axis=0), labels)
    real = Case("a", "a", both.image)
    picture = read_picture(write_image_grid(tmp_path / "a.png", [("", [both, real])], schema))
    assert (np.ptp(picture[:LINE].astype(int), axis=-1) > 50).sum() == 10 * 10  # the legend's mark
    for channel in np.split(picture[LINE:], 2):
        coloured = np.ptp(channel.astype(int), axis=-1) > 50
        assert coloured[:, : EDGE + GAP].sum() == 4 * (3 * EDGE // 8) - 4
        assert not coloured[:, EDGE + GAP :].any()
