"""Both kinds of images come on one way: cuts, windows, bytes; flawed samples are left out."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.core.registry import installed
from gansynth.core.sample_request import SampleRequest
from gansynth.core.space import Space
from gansynth.evaluation.turing.options import TuringOptions
from gansynth.evaluation.turing.pictures import Cutter, Pictures, _stacked, find_windows, gather
from gansynth.report.png import scaled
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.open_run import load_run
from gansynth.sampling.opening import open_source
from gansynth.testing import ToySource


@pytest.fixture(scope="module")
def toy_run(toy_fit, tmp_path_factory) -> Any:
    """A run of ``cgan3d`` on flat toy cases; opened."""
    run = tmp_path_factory.mktemp("pictures") / "run"
    toy_fit(run, steps=1)
    return load_run(run, "cpu")


def gathered(run: Any, source: Any = None, **options: Any) -> Pictures:
    asked = TuringOptions(**{"n": 4, "seed": 3, **options})
    return gather(run, source or ToySource(2), asked, NullReporter())


def of(pictures: Pictures, truth: str) -> list[tuple[Any, dict[str, Any]]]:
    pairs = zip(pictures.images, pictures.key, strict=True)
    return [(image, told) for image, told in pairs if told["truth"] == truth]


# -- what is shown ---------------------------------------------------------------------------------


def test_there_are_as_many_of_each_kind(toy_run):
    found = gathered(toy_run)
    assert Counter(told["truth"] for told in found.key) == {"real": 4, "synthetic": 4}
    assert found.images.shape == (8, 2, 1, 32, 32)
    assert found.images.dtype == np.uint8


def test_real_images_are_held_out_cases_in_the_window_to_the_byte(toy_run):
    found, source = gathered(toy_run), ToySource(2)
    windows = [tuple(window) for window in found.about["windows"]]
    assert {told["case"] for _, told in of(found, "real")} == set(source.held_out_ids)
    for image, told in of(found, "real"):
        wanted = scaled(source.load(told["case"]).image, windows, 8)[0]
        assert np.array_equal(image[:, 0], wanted)


def test_samples_are_those_of_the_drawer_in_the_same_window(toy_run):
    found = gathered(toy_run)
    windows = [tuple(window) for window in found.about["windows"]]
    drawn = SampleDrawer(toy_run, ToySource(2), SampleRequest(seed=3)).draw_raw(0, 4)
    for image, told in of(found, "synthetic"):
        assert np.array_equal(image[:, 0], scaled(drawn[told["index"]].image, windows, 8)[0])


def test_the_order_is_left_to_chance(toy_run):
    def truths() -> list[str]:
        return [told["truth"] for told in gathered(toy_run, n=12, origin="training").key]

    assert len({tuple(truths()) for _ in range(3)}) > 1


def test_samples_are_of_a_seed_that_nobody_knows_unless_one_is_named(toy_run):
    seeds = {of(gathered(toy_run, seed=None), "synthetic")[0][1]["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_a_session_says_how_many_of_its_real_cases_the_run_has_seen(toy_run):
    assert gathered(toy_run).about["seen_by_run"] == 0
    assert gathered(toy_run, origin="training").about["seen_by_run"] == 4
    mixed = gathered(toy_run, n=16, origin="all").about
    assert (mixed["from"], mixed["cases"], mixed["seen_by_run"]) == ("all", 16, 12)


def test_one_channel_can_be_shown_alone(toy_run):
    found = gathered(toy_run, channel="second")
    assert (found.images.shape[1], found.schema.channels) == (1, ("second",))
    windows = [tuple(window) for window in found.about["windows"]]
    image, told = of(found, "real")[0]
    wanted = scaled(ToySource(2).load(told["case"]).image[1:], windows, 8)[0]
    assert np.array_equal(image[0, 0], wanted[0])


def test_an_unknown_channel_is_refused(toy_run):
    with pytest.raises(UsageFault, match=r"--channel frist: .*Did you mean 'first'"):
        gathered(toy_run, channel="frist")


def test_each_image_can_have_its_own_contrast(toy_run):
    found = gathered(toy_run, contrast="own")
    assert all(channel.min() == 0 and channel.max() == 255 for i in found.images for channel in i)


def test_too_many_bytes_are_refused_before_anything_is_drawn(toy_run, monkeypatch):
    monkeypatch.setattr("gansynth.evaluation.turing.pictures.LARGEST", 8 * 2 * 32 * 32 - 1)
    monkeypatch.setattr(SampleDrawer, "draw_raw", None)
    with pytest.raises(UsageFault, match="say fewer, or one --channel"):
        gathered(toy_run)


# -- alike -----------------------------------------------------------------------------------------


class Small(ToySource):
    """Cases that are smaller than the crops they are cut to."""

    @property
    def space(self):
        return Space("crop", (40, 40))


def test_what_lies_beyond_a_case_is_the_same_in_both_kinds(toy_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(ToySource, "space", Small.space)
    toy_fit(tmp_path / "run", steps=1)
    found = gathered(load_run(tmp_path / "run", "cpu"))
    windows = [tuple(window) for window in found.about["windows"]]
    zero = scaled(np.zeros((2, 1, 1), np.float32), windows, 8)[0]
    assert found.images.shape == (8, 2, 1, 40, 40)
    for image, told in zip(found.images, found.key, strict=True):
        assert ((image[:, 0] == zero).all(axis=(0, 2))).sum() >= 8, told  # rows of padding
        assert ((image[:, 0] == zero).all(axis=(0, 1))).sum() >= 8, told


def test_images_of_several_sizes_lie_in_the_middle_of_one():
    images = [np.full((1, 1, n, 4), n, np.uint8) for n in (2, 4)]
    found = _stacked(images)
    assert found.shape == (2, 1, 1, 4, 4)
    assert found[0, 0, 0, :, 0].tolist() == [0, 2, 2, 0]
    assert (found[1] == 4).all()


def test_a_window_is_never_empty():
    (low, high), _ = find_windows([np.stack([np.full(9, 7.0), np.arange(9.0)]).astype(np.float32)])
    assert low == 7
    assert high > low


# -- cuts ------------------------------------------------------------------------------------------


def test_a_case_is_cut_at_another_place_each_time(toy_run):
    run: Any = replace(toy_run)
    run.manifest = {**toy_run.manifest, "space": Space("crop", (16, 16)).to_json()}
    cut = Cutter(ToySource(2), run, np.random.default_rng(0))
    found = [cut("toy_12").tobytes() for _ in range(5)]
    assert len(set(found)) == 5


def test_a_case_with_but_one_place_is_cut_once(toy_run):
    cut = Cutter(ToySource(2), toy_run, np.random.default_rng(0))
    cut("toy_12")
    with pytest.raises(UsageFault, match=r"case 'toy_12': shows nothing .*leave --per-case out"):
        cut("toy_12")


def test_places_that_training_would_not_learn_from_are_passed_over(toy_run, monkeypatch):
    run: Any = replace(toy_run)
    run.manifest = {**toy_run.manifest, "space": Space("crop", (8, 8)).to_json()}
    monkeypatch.setattr(run.generator, "accepts", lambda case: (case.labels == 2).any())
    cut = Cutter(ToySource(2), run, np.random.default_rng(0))
    source = ToySource(2)
    case: Any = source.load("toy_12")
    for _ in range(4):
        image = cut("toy_12")
        windows = np.lib.stride_tricks.sliding_window_view(case.image[0], (8, 8))
        rows, columns = np.nonzero((windows == image[0]).all(axis=(2, 3)))
        at = [(r, c) for r, c in zip(rows, columns, strict=True)]
        assert any((case.labels[r : r + 8, c : c + 8] == 2).any() for r, c in at)


# -- flaws -----------------------------------------------------------------------------------------


def test_flawed_samples_are_left_out_and_counted(toy_run, monkeypatch):
    seen: list[int] = []

    def flaw(sample: Any) -> str:
        seen.append(1)
        return "ugly, expected better" if len(seen) in (1, 3) else ""

    monkeypatch.setattr(toy_run.generator, "flaw", flaw)
    found = gathered(toy_run)
    assert found.about["flawed"] == 2
    assert sorted(t["index"] for _, t in of(found, "synthetic")) == [1, 3, 4, 5]


def test_a_generator_that_draws_nothing_good_is_told(toy_run, monkeypatch):
    monkeypatch.setattr(toy_run.generator, "flaw", lambda sample: "ugly, expected better")
    with pytest.raises(TrainingFault, match=r"samples are flawed \(\d+ times ugly\)"):
        gathered(toy_run)


def test_what_is_asked_of_samples_reaches_them(toy_run):
    with pytest.raises(UsageFault, match="nosuch"):
        gathered(toy_run, samples=SampleRequest(filters=("nosuch",)))


# -- another source --------------------------------------------------------------------------------


class Others(ToySource):
    """Other people, read like the run's own."""

    def __init__(self, request: Any) -> None:
        super().__init__(int(request.where), seed=9)
        self.request = request

    @property
    def name(self):
        return "others:people"


@pytest.fixture
def others():
    from types import SimpleNamespace

    from gansynth.core.hookspecs import hookimpl

    @hookimpl
    def register_sources(register):
        register("others", lambda: Others)

    installed().add(SimpleNamespace(register_sources=register_sources), "others")
    yield {"kind": "others", "where": "2"}
    installed().remove("others")


def test_real_images_can_be_of_another_source(toy_run, others):
    found = gathered(toy_run, real=others, n=6)
    assert (found.about["source"], found.about["seen_by_run"]) == ("others:people", 0)


def test_another_source_must_fit(toy_run, others):
    with pytest.raises(UsageFault, match=r"^--real others:3: .*axes DHW"):
        gathered(toy_run, real={**others, "where": "3"})


# -- sequences -------------------------------------------------------------------------------------


def test_samples_of_all_sequences_stand_beside_as_many_real_images_of_each(made):
    source = open_source(load_run(made.flat, "cpu").request)
    found = gathered(load_run(made.flat, "cpu"), source, n=8, origin="training")
    assert len(found.about["sequences"]) == 4
    assert set(found.about["sequences"].values()) == {2}
    told = Counter(told.get("sequence") for told in found.key)
    assert told == {**found.about["sequences"], None: 8}


# -- classes ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_class_has_as_many_of_both_kinds(made, tmp_path):
    from gansynth.core.source import SourceRequest
    from gansynth.fitting.fit import fit

    read = {"channels": "t1", "slices": "10%-90%", "resize": "32x32", "classes": "foreground"}
    small = {"steps": "2", "batch_size": "2", "width": "4", "latent": "8", "condition": "class"}
    request = SourceRequest("slices", f"nifti:{made.data}", read=read)
    out, reporter = tmp_path / "run", NullReporter()
    fit("dcgan", request, out, settings=small, edits=(), device="cpu", reporter=reporter)
    run = load_run(out, "cpu")
    source = open_source(run.request)
    found = gathered(run, source, n=3, per_class=True)
    assert Counter((told["truth"], told["class"]) for told in found.key) == {
        ("real", "with"): 3,
        ("real", "without"): 3,
        ("synthetic", "with"): 3,
        ("synthetic", "without"): 3,
    }
    for told in found.key:
        if told["truth"] == "real":
            number = source.label_class(told["case"])
            assert source.schema.classes[number or 0] == told["class"]
