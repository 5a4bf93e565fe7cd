import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch, Stage, TrainingStep
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, Condition, FloatArray, Sample
from gansynth.core.source import SourceRequest
from gansynth.data.batches import batch_of
from gansynth.fitting.composite_spec import PerClass, texts
from gansynth.fitting.recipe import find_recipe
from gansynth.fitting.recipe_plan import plan_recipe
from gansynth.runtime.options import split_settings
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from gansynth.training.loop import FitOptions, steps_for
from gansynth_cpggan.boxes import (
    box_maps,
    crops,
    requested_maps,
)
from gansynth_cpggan.model import CPGGAN, SOFT, WINDOWS, blend, bounded
from gansynth_cpggan.networks import PYRAMID, spatial_pyramid
from gansynth_cpggan.progressive import half, twice
from gansynth_evaluate.detections import paper_arms
from gansynth_evaluate.memorisation import discriminator_scores
from tests.plugins import toys
from tests.plugins.toys import SCHEMA, SIZE, boxes, case, cases, step, trained
from tests.yolo_sets import toy_yolo

NEAR = Condition(boxes=boxes((2, 2, 6, 6)))


build, seen = partial(toys.build, "cpggan"), partial(toys.seen, "cpggan")


def at(generator: CPGGAN, level: int, alpha: float = 1.0) -> TrainingStep:
    now = step(generator, cases())
    now.stage, now.alpha = generator.stages()[level], alpha
    return now


# -- maps of boxes ---------------------------------------------------------------------------------


def test_a_map_holds_the_share_of_each_voxels_area():
    maps = requested_maps([boxes((1.25, 0.5, 3.0, 2.75), labels=(1,))], 2, (4, 4))
    rows, columns = np.array([0, 0.75, 1, 0]), np.array([0.5, 1, 0.75, 0])
    assert np.allclose(maps[0, 1], np.outer(rows, columns))
    assert maps[0, 0].abs().max() == 0


@pytest.mark.fault(17)
def test_rows_that_hold_no_box_leave_nothing():
    two = requested_maps([boxes(), boxes((0, 0, 2, 2), (1, 1, 3, 3))], 1, (4, 4))
    assert two[0].abs().max() == 0
    assert two[1].max() == 1  # where boxes overlap, too
    alone = box_maps(torch.rand(1, 3, 4), torch.full((1, 3), -1), 2, (4, 4))
    assert alone.abs().max() == 0


# -- networks --------------------------------------------------------------------------------------


def test_real_images_are_means_of_areas_as_blurred_as_the_stage_is_faded_out():
    generator = build(mismatch=0)
    image = batch_of(cases()).image
    found = {a: generator.objective._real(at(generator, 2, a)) for a in (0, 0.5, 1.0)}
    for alpha, real in found.items():
        wanted = torch.lerp(twice(half(image)), image, alpha)
        assert torch.allclose(real[:, :2], wanted, atol=1e-6)
    # Boxes are no image: they are as sharp as ever.
    assert torch.equal(found[0][:, 2:], found[1.0][:, 2:])
    coarse = generator.objective._real(at(generator, 0))
    assert torch.allclose(coarse[:, :2], torch.nn.functional.avg_pool2d(image, 4), atol=1e-6)


def test_spatial_pyramid_pooling_takes_the_largest_of_each_bin():
    x = torch.randn(2, 3, 8, 8)
    found = spatial_pyramid(x)
    assert found.shape == (2, 3 * sum(n * n for n in PYRAMID))
    assert torch.equal(found[:, :3], x.amax((2, 3)))
    quarter = x[:, :, :4, 4:].amax((2, 3))
    assert torch.equal(found[:, 3 : 3 + 12].view(2, 3, 2, 2)[:, :, 0, 1], quarter)


# -- training --------------------------------------------------------------------------------------


def test_a_real_image_with_anothers_boxes_is_one_of_the_same_group():
    generator = build(minibatch=2)
    now = at(generator, 2)
    real = generator.objective._real(now)
    wrong = generator.objective._mismatched(now, real)
    assert torch.equal(wrong[:, :2], real[:, :2])
    assert torch.equal(wrong[:, 2:], real[[1, 0, 3, 2], 2:])


@pytest.mark.parametrize("flips", ["h", "v", "hv"])
def test_boxes_are_flipped_with_their_images(flips):
    generator = build(flips=flips, mismatch=0)
    # Images that show their boxes.
    drawn = [replace(c, image=requested_maps([c.boxes], 2, SIZE)[0].numpy()) for c in cases(8)]
    now = step(generator, drawn)
    real = generator.objective._real(now)
    assert torch.equal(real[:, :2], real[:, 2:])
    ways = [(), (-1,), (-2,), (-1, -2)]
    met = {
        next(way for way in ways if torch.equal(one[:2], torch.from_numpy(c.image).flip(way)))
        for one, c in zip(real, drawn, strict=True)
    }
    assert len(met) > 1
    assert met <= {"h": {(), (-1,)}, "v": {(), (-2,)}, "hv": set(ways)}[flips]


def test_cpggans_lesions_count_alike_in_how_real_they_are():
    """Boxes far apart: the maps have every box that lies in a window."""
    generator = seen(mode="roi", roi_size=8)
    apart = [boxes((1, 1, 3, 3)), boxes((12, 12, 14, 14), labels=[1])]
    both = boxes((1, 1, 3, 3), (12, 12, 14, 14), labels=[0, 1])
    wanted: Any = discriminator_scores(generator, [case(1, boxes=one) for one in apart])
    assert wanted[0] != wanted[1]
    found: Any = discriminator_scores(generator, [case(1, boxes=both)])
    np.testing.assert_allclose(found, [wanted.mean()], rtol=1e-5)


# -- samples of whole images -----------------------------------------------------------------------


def test_until_it_has_grown_it_draws_what_it_has_grown_to():
    image = trained(build(), 2).sample([NEAR], [1])[0].image[0]
    assert np.array_equal(image, np.kron(image[::4, ::4], np.ones((4, 4), np.float32)))
    grown = trained(build(stage_images=2, fade_images=2), 5, ema_half_life=0)
    assert float(grown.painter.grown) == 2
    fine = grown.sample([NEAR], [1])[0].image[0]
    assert not np.array_equal(fine, np.kron(fine[::2, ::2], np.ones((2, 2), np.float32)))


def test_boxes_are_shrunk_to_what_was_drawn_if_asked_for(monkeypatch):
    generator = build((32, 32), tighten=True)
    image = np.random.default_rng(0).normal(0, 0.1, (2, 32, 32)).astype(np.float32)
    image[:, 12:18, 10:17] += 3
    monkeypatch.setattr(generator.drawing, "_images", lambda orders: [image] * len(orders))
    sample = generator.sample([Condition(boxes=boxes((10, 8, 20, 19)))], [1])[0]
    assert np.allclose(sample.boxes.coords, [[12, 10, 18, 17]], atol=1)
    assert sample.notes["boxes_asked"] == [[10, 8, 20, 19]]
    assert sample.notes["tightened_to"][0] < 1


def bright(seed: int) -> Any:
    """Grain with a bright square in a box."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1 / 9, (2, 32, 32)).astype(np.float32)
    y, x = rng.integers(8, 16, 2)
    image[:, y : y + 4, x : x + 4] += 2 + rng.random() / 9
    return case(seed, image=image, boxes=boxes((y, x, y + 4, x + 4)))


def test_a_box_without_a_lesion_is_a_flaw_unless_all_are_admitted():
    known, empty = [bright(i) for i in range(40)], boxes((24, 24, 29, 29))
    for admit, rejected in (("contrast", True), ("none", False)):
        generator, twin = build((32, 32), admit=admit), build((32, 32), admit=admit)
        twin.load_state(json.loads(json.dumps(generator.observe(known))))
        for one in (generator, twin):
            assert one.reject_reason(Sample(known[0].image, None, known[0].boxes)) == ""
            assert (
                "contrast" in one.reject_reason(Sample(known[0].image, None, empty))
            ) == rejected


# -- lesions alone: cutting out --------------------------------------------------------------------

FREE = np.ones((64, 64), bool)
ONE = replace(SCHEMA, channels=("T1",), outside_fill=(0.0,))


def slice_of(seed: int = 0) -> FloatArray:
    """A disc with grain, dark around it: (1, 64, 64)."""
    rng = np.random.default_rng(seed)
    far = np.indices((64, 64)) - 31.5
    body = (far**2).sum(0) < 28.8**2
    image: FloatArray = (body * (1 + rng.normal(size=(64, 64)) / 20))[None].astype(np.float32)
    return image


def lesions() -> Any:
    made = build((64, 64), ONE, mode="roi", roi_size=8)
    made.painter.grown.fill_(1.0)
    return made


def into(*asked: Sequence[float], present: Boxes = boxes()) -> Any:  # noqa: B008
    return Condition(boxes=boxes(*asked), background=slice_of(), present=present)


def cut(image: torch.Tensor, coords: Any, labels: Any, *size: Any) -> torch.Tensor:
    many = (len(image), *(-1,) * 2)
    batch = Batch(
        image,
        boxes=torch.tensor(coords, dtype=torch.float32).expand(*many),
        box_labels=torch.tensor([labels] * len(image)),
    )
    now = TrainingStep(batch, Stage(), 0, 0, torch.Generator().manual_seed(0))
    return crops(now, image, *size)


def test_a_crop_shows_its_box_where_its_map_says():
    image = torch.zeros(3, 1, 64, 64)
    image[:, :, 20:28, 30:36] = 1
    found = cut(image, [[20, 30, 28, 36], [50, 50, 60, 60]], [0, -1], 2, 16, 0.5)
    assert found.shape == (3, 3, 16, 16)
    assert float((found[:, 0] - found[:, 1]).abs().mean()) < 0.05
    assert found[:, 2].abs().max() == 0


def test_any_of_several_boxes_is_met_and_only_cases_with_boxes_are_learnt_from():
    image = torch.arange(64.0).view(1, 1, 64, 1).expand(32, 1, 64, 64)
    found = cut(image, [[8, 8, 12, 12], [48, 48, 52, 52]], [0, 0], 1, 8, 0.5)
    assert set(found[:, 0].mean((1, 2)).round().int().tolist()) == {10, 50}
    told = [case(), case(boxes=boxes()), case(boxes=None)]
    assert [lesions().accepts(one) for one in told] == [True, False, False]
    assert [build().accepts(one) for one in told] == [True, True, False]


# -- blending in -----------------------------------------------------------------------------------


def test_in_the_box_there_is_the_lesion_and_its_rim_is_as_bright_as_the_slice():
    """A lesion drawn in other units of brightness than the slice, but by a constant."""
    image = np.full((1, 64, 64), 3, np.float32)
    lesion = np.full((1, 32, 32), 100, np.float32)
    lesion[:, 8:24, 8:24] += 2
    mixed, _ = blend(image, lesion, np.array([24.0, 24, 40, 40]), 0.5, FREE)
    assert np.allclose(mixed[0, 26:38, 26:38], 5, atol=0.2)
    assert np.allclose(mixed[0, :20], 3, atol=0.1)
    assert np.abs(np.diff(mixed[0, 32])).max() < 1.8  # no seam but the lesion's own edge


def test_what_must_stay_is_the_slices_own_to_the_bit_and_lesions_fade_towards_it():
    image, body = np.full((1, 64, 64), 3, np.float32), FREE.copy()
    body[:, 40:] = False
    box, others = np.array([24.0, 24, 40, 38]), boxes((24, 24, 40, 38), (10, 20, 20, 30))
    free = bounded(body, box, others.coords, (64, 64))
    assert not free[10:20, 20:30].any()
    assert free[24:40, 24:38].all()
    rough = np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32) + 9
    mixed, _ = blend(image, rough, box, 0.5, free)
    assert np.array_equal(mixed[:, ~free], image[:, ~free])
    change = np.abs(mixed - image)[0, 26:38]
    assert change[:, 40 - SOFT :].max() < 0.9 * change[:, 30:36].max()
    assert change[:, 39].max() < 0.3 * change[:, 30:36].max()


def test_samples_are_real_slices_but_for_their_lesions_and_say_so():
    generator, present = lesions(), boxes((10, 28, 18, 36))
    asked = into((30, 20, 36, 28), (44, 34, 50, 40), present=present)
    bare = into()
    sample, same = generator.sample([asked, bare], [3, 3])
    outside = FREE.copy()
    for top, left, bottom, right in sample.notes[WINDOWS]:
        outside[top:bottom, left:right] = False
    assert outside.sum() > 2000
    assert np.array_equal(sample.image[:, outside], asked.background[:, outside])
    assert not np.array_equal(sample.image, asked.background)
    wanted = boxes((10, 28, 18, 36), (30, 20, 36, 28), (44, 34, 50, 40)).coords
    assert np.array_equal(sample.boxes.coords, wanted)
    assert "real case" in sample.notes["pixels"]
    assert np.array_equal(same.image, bare.background)  # nothing is asked of it
    assert same.image is not bare.background
    again = generator.sample([into((30, 20, 36, 28)), asked], [9, 3])[1]
    assert np.array_equal(again.image, sample.image)


def test_the_slices_own_lesions_are_no_flaw():
    generator, rng = lesions(), np.random.default_rng(0)
    known = []
    for seed in range(30):
        image = slice_of(seed)
        image[:, 20:28, 20:28] += 1 + rng.random() / 9
        known.append(case(seed, image=image, boxes=boxes((20, 20, 28, 28))))
    generator.observe(known)
    told = {"boxes": {"moved": [None]}, WINDOWS: []}
    assert "no room" in generator.reject_reason(Sample(slice_of(3), None, boxes(), told))
    bare = Sample(slice_of(3), None, boxes((20, 20, 28, 28)), notes={WINDOWS: []})
    assert generator.reject_reason(bare) == ""
    assert "contrast" in generator.reject_reason(
        Sample(bare.image, None, bare.boxes, notes={WINDOWS: [[0] * 4]})
    )


# -- a run on a yolo: data set --------------------------------------------------------------------


def test_lesions_go_into_the_images_that_have_none(succeed, tmp_path):
    """Six images with a lesion of one of two classes, and three without."""
    own: Any = {"train": 9, "val": 9, "size": 32, "most": 1, "backgrounds": 1 / 3}
    data, out = toy_yolo(tmp_path / "data", names=("cyst", "tumour"), **own), tmp_path / "run"
    tiny = ("width=2", "max_width=4", "latent=4", "stage_images=4", "fade_images=4", "steps=8")
    more = ("batch_size=4", "diversity=0", "precision=fp32", "mode=roi", "roi_size=16")
    words = ("--read=size=32x32", "--device=cpu", *(f"--set={s}" for s in (*tiny, *more)))
    succeed("fit", "cpggan", "--data", f"yolo:{data}", "-o", out, *words)
    run = load_run(out, "cpu")
    drawn = Sampler(run, open_source(run.request), SampleRequest())
    for sample in drawn.draw(0, 4):
        real = drawn.source.load(sample.provenance["case"])
        assert real.boxes is not None
        assert sample.boxes is not None
        assert len(real.boxes.labels) == 0
        outside = np.ones((32, 32), bool)
        for top, left, bottom, right in sample.notes[WINDOWS]:
            outside[top:bottom, left:right] = False
        assert np.array_equal(sample.image[:, outside], real.image[:, outside])
        assert len(sample.boxes.labels) == len(sample.notes[WINDOWS])


# -- han2019-cpggan --------------------------------------------------------------------------------


def planned(data: Any, *only: str, kind: str = "yolo") -> Any:
    recipe, request = find_recipe("han2019-cpggan"), SourceRequest(kind, str(data))
    return plan_recipe(recipe, request, settings={}, edits=None, only=only)


def test_the_recipes_steps_are_those_of_pggans_stages():
    settings = texts(find_recipe("han2019-cpggan").spec.set)
    _, own = split_settings(settings, FitOptions, CPGGAN.Options, generator="cpggan")
    with torch.device("meta"):
        stages = build((256, 256), **own.model_dump()).stages()
    assert [stage.batch_size for stage in stages] == [16] * 6 + [14]
    images = 800_000 * (2 * len(stages) - 1)
    assert 0 <= int(settings["steps"]) - steps_for(images, stages, 16) < 1000


def test_cases_are_brains_of_256_by_256_for_one_generator_or_one_per_class(tmp_path):
    found = planned(toy_yolo(tmp_path / "d", names=("glioma", "pituitary")))
    (joint,), (each,) = found.sets, planned(tmp_path / "d" / "data.yaml", "per-class").sets
    assert joint.name == "joint"
    assert joint.request.read == {"size": "256x256", "fit": "stretch"}
    assert found.source.space.size == (256, 256)
    assert each.composite == PerClass("cpggan", "each")
    assert each.request.read["classes"] == "boxes"
    assert [arm["at"]["0.25"] for arm in paper_arms()] == [(0.83, 3.59), (0.91, 7.18)]
