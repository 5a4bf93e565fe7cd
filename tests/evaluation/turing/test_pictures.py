from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.core.sample_request import SampleRequest
from gansynth.core.space import ORIENTATION, Space
from gansynth.report.png import scaled
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from gansynth_evaluate.turing.image_selection import TuringOptions
from gansynth_evaluate.turing.pictures import (
    RealImageCutter,
    StudyImages,
    _stacked,
    find_windows,
    gather,
)
from tests.expected import raises_fault
from tests.offered import offered

SOURCE = ToySource(2)


@pytest.fixture(scope="module")
def toy_run(toy_fit, tmp_path_factory):
    run = tmp_path_factory.mktemp("pictures") / "run"
    toy_fit(run, steps=1)
    return load_run(run, "cpu")


def gathered(run, source=SOURCE, **options) -> StudyImages:
    return gather(run, source, TuringOptions(**{"n": 4, "seed": 3, **options}), NullReporter())


def of(pictures, truth):
    pairs = zip(pictures.images, pictures.key, strict=True)
    return [(image, told) for image, told in pairs if told["truth"] == truth]


def seen(found, image):
    """An image as it is shown: in the windows of all."""
    return scaled(image, [tuple(window) for window in found.about["windows"]], 8)[0]


@pytest.mark.parametrize(("host", "step"), [({}, 1), ({"orientation": ORIENTATION}, -1)])
def test_held_out_cases_and_samples_are_shown_in_one_window_to_the_byte_oriented_ones_front_up(
    toy_fit, tmp_path, monkeypatch, host, step
):
    monkeypatch.setattr(ToySource, "space", replace(SOURCE.space, host=host))
    toy_fit(tmp_path / "run", steps=1)
    run = load_run(tmp_path / "run", "cpu")
    found = gathered(run)
    assert Counter(told["truth"] for told in found.key) == {"real": 4, "synthetic": 4}
    assert found.images.shape == (8, 2, 1, 32, 32)
    assert found.images.dtype == np.uint8
    assert {told["case"] for _, told in of(found, "real")} == set(SOURCE.held_out_ids)
    drawn = Sampler(run, SOURCE, SampleRequest(seed=3)).draw_raw(0, 4)
    for image, told in zip(found.images, found.key, strict=True):
        real = told["truth"] == "real"
        whole = SOURCE.load(told["case"]).image if real else drawn[told["index"]].image
        assert np.array_equal(image[:, 0], seen(found, whole[:, ::step, ::step]))


def test_order_and_seed_are_left_to_chance(toy_run):
    several = [gathered(toy_run, n=12, origin="training", seed=None) for _ in range(2)]
    assert len({tuple(told["truth"] for told in found.key) for found in several}) == 2
    assert len({of(found, "synthetic")[0][1]["seed"] for found in several}) == 2


def test_a_session_says_how_many_of_its_real_cases_the_run_has_seen(toy_run):
    about = gathered(toy_run, n=16, origin="all").about
    assert (about["cases"], about["seen_by_run"], about["from"]) == (16, 12, "all")


def test_one_channel_can_be_shown_alone(toy_run):
    found = gathered(toy_run, channel="second")
    assert (found.images.shape[1], found.schema.channels) == (1, ("second",))
    image, told = of(found, "real")[0]
    wanted = seen(found, SOURCE.load(told["case"]).image[1:])
    assert np.array_equal(image[0, 0], wanted[0])


def test_too_many_bytes_are_refused_before_anything_is_drawn(toy_run, monkeypatch):
    monkeypatch.setattr("gansynth_evaluate.turing.pictures.LARGEST", 8 * 2 * 32 * 32 - 1)
    monkeypatch.setattr(Sampler, "draw_raw", None)
    with raises_fault("turing-test.images-too-large"):
        gathered(toy_run)


def test_what_lies_beyond_a_case_is_the_same_in_both_kinds(toy_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(ToySource, "space", Space("crop", (40, 40)))
    toy_fit(tmp_path / "run", steps=1)
    found = gathered(load_run(tmp_path / "run", "cpu"))
    zero = seen(found, np.zeros((2, 1, 1), np.float32))
    assert found.images.shape == (8, 2, 1, 40, 40)
    for image, told in zip(found.images, found.key, strict=True):
        for axis in (1, 2):  # rows and columns of padding
            assert (image[:, 0] == zero).all(axis=(0, axis)).sum() >= 8, told


def test_images_of_several_sizes_lie_in_the_middle_of_one_and_a_window_is_never_empty():
    found = _stacked([np.full((1, 1, n, 4), n, np.uint8) for n in (2, 4)])
    assert found.shape == (2, 1, 1, 4, 4)
    assert found[0, 0, 0, :, 0].tolist() == [0, 2, 2, 0]
    assert (found[1] == 4).all()
    (low, high), _ = find_windows([np.stack([np.full(9, 7.0), np.arange(9.0)]).astype(np.float32)])
    assert high > low == 7


def cutter(run, edge):
    run = replace(run)
    run.manifest = {**run.manifest, "space": Space("crop", (edge, edge)).to_json()}
    return RealImageCutter(SOURCE, run, np.random.default_rng(0))


def test_a_case_is_cut_at_another_place_each_time_and_once_if_it_has_but_one(toy_run):
    cut, whole = cutter(toy_run, 16), cutter(toy_run, 32)
    assert len({cut("toy_12").tobytes() for _ in range(5)}) == 5
    whole("toy_12")
    with raises_fault("turing-test.case-images-repeated"):
        whole("toy_12")


def test_places_that_training_would_not_learn_from_are_passed_over(toy_run, monkeypatch):
    monkeypatch.setattr(toy_run.generator, "accepts", lambda case: (case.labels == 2).any())
    case: Any = SOURCE.load("toy_12")
    images, labels = (np.lib.stride_tricks.sliding_window_view(a, (8, 8))
                      for a in (case.image[0], case.labels))  # fmt: skip
    cut = cutter(toy_run, 8)
    for _ in range(4):
        same = (images == cut("toy_12")[0]).all(axis=(2, 3))
        assert (labels[same] == 2).any()


def test_flawed_samples_are_left_out_and_counted(toy_run, monkeypatch):
    reasons = iter(["ugly, expected better", "", "ugly, expected better", *[""] * 99])
    monkeypatch.setattr(toy_run.generator, "reject_reason", lambda sample: next(reasons))
    found = gathered(toy_run)
    assert found.about["rejected"] == 2
    assert sorted(t["index"] for _, t in of(found, "synthetic")) == [1, 3, 4, 5]
    monkeypatch.setattr(toy_run.generator, "reject_reason", lambda sample: "ugly, expected better")
    with raises_fault("turing-test.samples-mostly-rejected"):
        gathered(toy_run)


class Others(ToySource):
    """Other people, read like the run's own."""

    name = "others:people"

    def __init__(self, request):
        super().__init__(int(request.where), seed=9)
        self.request = request


def test_real_images_can_be_of_another_source_that_fits(toy_run):
    with offered("others", sources={"others": Others}):
        found = gathered(toy_run, real={"kind": "others", "where": "2"}, n=6)
        assert (found.about["source"], found.about["seen_by_run"]) == ("others:people", 0)
        with raises_fault("conditions.label-source-axes-differ"):
            gathered(toy_run, real={"kind": "others", "where": "3"})


def test_samples_of_all_sequences_stand_beside_as_many_real_images_of_each(made):
    run = load_run(made, "cpu")
    found = gathered(run, open_source(run.request), n=8, origin="training")
    assert list(found.about["sequences"].values()) == [2] * 4
    told = Counter(told.get("sequence") for told in found.key)
    assert told == {**found.about["sequences"], None: 8}
