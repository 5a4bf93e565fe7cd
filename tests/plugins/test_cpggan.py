"""``cpggan``: growth as the paper has it, boxes that matter, samples, kills."""
# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch, Stage, Step
from gansynth.core.registry import installed
from gansynth.core.schema import Boxes, Case, Condition, Schema
from gansynth.data.batches import stack_boxes
from gansynth.fitting.warm_start import named_axes, take_over
from gansynth.nn.networks.progressive import half, twice
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.training.loop import FitOptions, train
from gansynth_cpggan.boxes import asked_maps, batch_maps, box_maps
from gansynth_cpggan.model import CPGGAN, CPGGANOptions
from gansynth_cpggan.networks import PYRAMID, Growth, spatial_pyramid

TINY: dict[str, Any] = {
    "width": 2,
    "max_width": 4,
    "latent": 4,
    "stage_images": 8,
    "fade_images": 8,
}


def schema(**changes: Any) -> Schema:
    plain: dict[str, Any] = {
        "channels": ("T1",),
        "labels": {"background": 0},
        "spacing": (1.0, 1.0),
        "axes": "HW",
        "box_classes": ("lesion", "cyst"),
    }
    return Schema(**{**plain, **changes})


def boxes(*rows: tuple[float, float, float, float], labels: tuple[int, ...] = ()) -> Boxes:
    coords = np.array(rows, np.float32).reshape(-1, 4)
    return Boxes(coords, np.array(labels or [0] * len(rows), np.int16))


def build(edge: int = 16, spec: Schema | None = None, **options: Any) -> CPGGAN:
    torch.manual_seed(0)
    own = CPGGANOptions.model_validate({**TINY, **options})
    return CPGGAN(spec or schema(), (edge, edge), own)


def case(seed: int = 0, edge: int = 16, **changes: Any) -> Case:
    """A disc with a bright square where its box is."""
    rng = np.random.default_rng(seed)
    at = np.indices((edge, edge)) - (edge - 1) / 2
    image = (
        np.where((at**2).sum(0) < (0.45 * edge) ** 2, 1.0, 0.0) + rng.normal(size=(edge,) * 2) / 9
    )
    low = rng.integers(edge // 4, edge // 2, 2)
    high = low + rng.integers(3, 5, 2)
    image[low[0] : high[0], low[1] : high[1]] += 2
    box = boxes((*low, *high), labels=(seed % 2,))
    found = Case(
        f"case_{seed}", f"case_{seed}", image[None].astype(np.float32), None, box, seed % 2
    )
    return replace(found, **changes)


def cases(n: int = 8, **changes: Any) -> list[Case]:
    return [case(i, **changes) for i in range(n)]


def batch_of(drawn: list[Case]) -> Batch:
    image = torch.from_numpy(np.stack([c.image for c in drawn]))
    classes = torch.tensor([c.label_class or 0 for c in drawn])
    return Batch(image, None, None, None, classes, *stack_boxes([c.boxes for c in drawn], 2))


def read(step: int, stage: Stage, which: range) -> Batch:
    return batch_of([case((step * 16 + i) % 12) for i in which])


def trained(
    generator: CPGGAN, steps: int = 2, folder: Path | None = None, **options: Any
) -> CPGGAN:
    generator.observe(cases(8, edge=generator.size[0]))
    loop = {"steps": steps, "batch_size": 4, "precision": "fp32", "log_every": 1, **options}
    train(generator, read, FitOptions.model_validate(loop), folder=folder)
    return generator


def step_of(generator: CPGGAN, drawn: list[Case], level: int, alpha: float = 1.0) -> Step:
    stage = generator.stages()[level]
    return Step(batch_of(drawn), stage, 0, 0, torch.Generator().manual_seed(3), alpha=alpha)


def noise(generator: CPGGAN, count: int = 4) -> torch.Tensor:
    return torch.randn(count, generator.options.latent, generator=torch.Generator().manual_seed(1))


# -- maps of boxes ---------------------------------------------------------------------------------


def test_a_map_holds_the_share_of_each_voxels_area():
    maps = asked_maps([boxes((1.25, 0.5, 3.0, 2.75), labels=(1,))], 2, (4, 4))
    rows, columns = np.array([0, 0.75, 1, 0]), np.array([0.5, 1, 0.75, 0])
    assert np.allclose(maps[0, 1], np.outer(rows, columns))
    assert maps[0, 0].abs().max() == 0


def test_a_box_of_any_size_leaves_its_whole_area_at_every_resolution():
    asked = boxes((10.3, 20.6, 11.1, 21.9))
    for edge in (64, 32, 16, 8, 4):
        scaled = Boxes((asked.coords * (edge / 64)).astype(np.float32), asked.labels)
        area = float(asked_maps([scaled], 1, (edge, edge)).sum()) * (64 / edge) ** 2
        assert area == pytest.approx(0.8 * 1.3, rel=1e-4)


def test_halving_a_map_is_drawing_the_box_at_half_the_size():
    asked = boxes((3.2, 1.7, 9.9, 14.1), (11, 2, 15, 6.5), labels=(0, 1))
    fine = asked_maps([asked], 2, (16, 16))
    halved = Boxes((asked.coords / 2).astype(np.float32), asked.labels)
    coarse = asked_maps([halved], 2, (8, 8))
    assert torch.allclose(half(fine), coarse, atol=1e-6)


def test_rows_that_hold_no_box_leave_nothing():
    two = asked_maps([boxes(), boxes((0, 0, 2, 2), (1, 1, 3, 3))], 1, (4, 4))
    assert two[0].abs().max() == 0
    assert two[1].max() == 1  # where boxes overlap, too
    alone = box_maps(torch.rand(1, 3, 4), torch.full((1, 3), -1), 2, (4, 4))
    assert alone.abs().max() == 0


def test_boxes_of_classes_that_are_not_there_are_refused():
    with pytest.raises(UsageFault, match="a box of class 2, expected classes 0 to 1"):
        build().sample([Condition(boxes=boxes((0, 0, 2, 2), labels=(2,)))], [0])


# -- networks --------------------------------------------------------------------------------------


def test_features_halve_as_edges_double():
    growth = Growth.of((64, 64), 16, 64)
    assert growth.edges == (4, 8, 16, 32, 64)
    assert growth.widths == (64, 64, 64, 32, 16)


@pytest.mark.parametrize("size", [(), (48, 48), (64, 32), (2, 2), (16, 16, 16)])
def test_other_sizes_are_refused_with_the_way_out(size):
    with pytest.raises(UsageFault, match=r"expected 64 x 64.*--read size=128x128"):
        Growth.of(size, 16, 64)


def test_the_usual_networks_of_256_voxels_are_small_enough_for_any_card():
    generator = CPGGAN(schema(), (256, 256), CPGGANOptions())
    count = sum(p.numel() for net in generator.nets.values() for p in net.parameters())
    assert count < 10_000_000


def test_a_layer_that_has_not_faded_in_shows_nothing_of_itself():
    generator = build()
    maps = batch_maps(batch_of(cases(4)), 2)
    painter, z = generator.painter, noise(generator)
    coarse = painter(z, half(maps), 1, 1.0)
    assert torch.equal(painter(z, maps, 2, 0.0), twice(coarse))
    whole = painter(z, maps, 2, 1.0)
    mixed = torch.lerp(twice(coarse), whole, 0.25)
    assert torch.allclose(painter(z, maps, 2, 0.25), mixed, atol=1e-6)


def test_the_critic_fades_alike():
    generator = build()
    judge: Any = generator.nets["discriminator"]
    pair = torch.cat((batch_of(cases(4)).image, batch_maps(batch_of(cases(4)), 2)), 1)
    assert torch.equal(judge(pair, 2, 0.0, 4), judge(half(pair), 1, 1.0, 4))
    whole = judge(pair, 2, 1.0, 4)
    assert not torch.allclose(judge(pair, 2, 0.5, 4), whole)
    with torch.no_grad():
        judge.image[1].weight.zero_()
    assert torch.equal(judge(pair, 2, 1.0, 4), whole)


def test_real_images_are_as_blurred_as_the_stage_is_faded_out():
    generator = build(mismatch=0)
    drawn = cases(4)
    seen = {a: generator.objective._real(step_of(generator, drawn, 2, a)) for a in (0, 0.5, 1.0)}
    image = batch_of(drawn).image
    assert torch.allclose(seen[1.0][:, :1], image)
    assert torch.allclose(seen[0][:, :1], twice(half(image)), atol=1e-6)
    assert torch.allclose(seen[0.5][:, :1], (image + twice(half(image))) / 2, atol=1e-6)
    # Boxes are no image: they are as sharp as ever.
    assert torch.equal(seen[0][:, 1:], seen[1.0][:, 1:])


def test_real_images_are_means_of_areas():
    generator = build(mismatch=0)
    seen = generator.objective._real(step_of(generator, cases(4), 0))
    expected = torch.nn.functional.avg_pool2d(batch_of(cases(4)).image, 4)
    assert torch.allclose(seen[:, :1], expected, atol=1e-6)


@pytest.mark.parametrize("spp", [False, True])
def test_the_critic_heeds_boxes_at_every_resolution(spp):
    """Seen by each layer that maps join: its weights of the maps' channels have a gradient."""
    generator = build(spp=spp)
    judge: Any = generator.nets["discriminator"]
    pair = torch.cat((batch_of(cases(4)).image, batch_maps(batch_of(cases(4)), 2)), 1)
    judge(pair.requires_grad_(), 2, 1.0, 4).sum().backward()
    assert pair.grad is not None
    assert (pair.grad[:, 1:].abs().amax((0, 2, 3)) > 0).all()
    for layer in (judge.image[2], judge.refine[1], judge.refine[0], judge.end):
        assert (layer.weight.grad[:, -2:].abs().amax((0, 2, 3)) > 0).all()


def test_the_painter_heeds_boxes_at_every_resolution():
    generator = build()
    painter: Any = generator.painter
    painter(noise(generator), batch_maps(batch_of(cases(4)), 2), 2, 1.0).square().sum().backward()
    for layer in (painter.begin, *painter.enter):
        assert (layer.weight.grad[:, -2:].abs().amax((0, 2, 3)) > 0).all()


def test_spatial_pyramid_pooling_takes_the_largest_of_each_bin():
    x = torch.randn(2, 3, 8, 8)
    found = spatial_pyramid(x)
    assert found.shape == (2, 3 * sum(n * n for n in PYRAMID))
    assert torch.equal(found[:, :3], x.amax((2, 3)))
    quarter = x[:, :, :4, 4:].amax((2, 3))
    assert torch.equal(found[:, 3 : 3 + 12].view(2, 3, 2, 2)[:, :, 0, 1], quarter)


# -- training --------------------------------------------------------------------------------------


def test_stages_double_the_edge_and_fade_in_all_but_the_first():
    stages = build(batch_sizes=(8, 4)).stages()
    assert [s.size for s in stages] == [(4, 4), (8, 8), (16, 16)]
    assert [s.batch_size for s in stages] == [8, 4, 4]
    assert [(s.images, s.fade) for s in stages] == [(8, 0), (16, 8), (None, 8)]
    assert [s.batch_size for s in build().stages()] == [None] * 3


def test_its_options_can_be_typed():
    one = CPGGANOptions.model_validate({"batch_sizes": 8, "augment": "flip,cutout"})
    assert (one.batch_sizes, one.augment) == ((8,), ("flip", "cutout"))
    assert CPGGANOptions.model_validate({"batch_sizes": "32,16"}).batch_sizes == (32, 16)
    with pytest.raises(ValueError, match="use minibatch=2 or more, or mismatch=0"):
        CPGGANOptions(minibatch=1)


@pytest.mark.parametrize(
    "options",
    [
        {"spp": True, "condition": "class", "flips": "hv", "output": "tanh"},
        {"augment": ("translation", "brightness"), "n_critic": 2, "minibatch": 1, "mismatch": 0},
        {"mode": "roi", "roi_size": 8, "flips": "h"},
    ],
    ids=["class", "augmented", "roi"],
)
def test_it_trains_whatever_is_asked(options):
    spec = schema(classes=("ill", "healthy"))
    generator = build(spec=spec, **options)
    before = {k: v.clone() for k, v in generator.nets["generator"].state_dict().items()}
    trained(generator, steps=8)
    after = generator.nets["generator"].state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before if "image" in k)
    assert all(v.isfinite().all() for v in after.values())


def test_it_trains_in_bf16():
    generator = trained(build(), steps=8, precision="bf16")
    assert all(p.isfinite().all() for p in generator.painter.parameters())


def test_a_real_image_with_anothers_boxes_is_one_of_the_same_group():
    generator = build(minibatch=2)
    drawn = cases(4)
    step = step_of(generator, drawn, 2)
    real = generator.objective._real(step)
    wrong = generator.objective._mismatched(step, real)
    assert torch.equal(wrong[:, :1], real[:, :1])
    assert torch.equal(wrong[:, 1:], real[[1, 0, 3, 2], 1:])


@pytest.mark.parametrize("flips", ["h", "v", "hv"])
def test_boxes_are_flipped_with_their_images(flips):
    generator = build(flips=flips, mismatch=0)
    # Images that show their boxes.
    drawn = [
        replace(one, image=asked_maps([one.boxes], 2, (16, 16)).sum(1).numpy()) for one in cases()
    ]
    plain = torch.cat((batch_of(drawn).image, batch_maps(batch_of(drawn), 2)), 1)
    seen = generator.objective._real(step_of(generator, drawn, 2))
    assert torch.equal(seen[:, 0], seen[:, 1:].sum(1))
    ways = [(), (-1,), (-2,), (-1, -2)]
    met = {
        next(way for way in ways if torch.equal(one, whole.flip(way)))
        for one, whole in zip(seen, plain, strict=True)
    }
    assert len(met) > 1
    assert met <= {"h": {(), (-1,)}, "v": {(), (-2,)}, "hv": set(ways)}[flips]


def test_crops_of_another_size_are_refused():
    generator = build(edge=32)
    with pytest.raises(UsageFault, match="leave patch out"):
        generator.objective._real(step_of(generator, cases(2), 0))


# -- samples ---------------------------------------------------------------------------------------


def test_it_is_installed():
    assert installed().generator("cpggan") is CPGGAN


def test_it_needs_boxes():
    with pytest.raises(UsageFault, match=r"have no boxes.*--read boxes=yes"):
        build(spec=schema(box_classes=()))
    with pytest.raises(DataFault, match="has no list of boxes"):
        build().observe([replace(case(), boxes=None)])
    assert not build().accepts(replace(case(), boxes=None))
    assert build().accepts(replace(case(), boxes=boxes()))


def test_boxes_decide_the_image_and_come_with_it():
    generator = trained(build(), steps=12)
    asked = [boxes((2, 2, 6, 6)), boxes((9, 9, 14, 13), labels=(1,)), boxes()]
    drawn = generator.sample([Condition(boxes=b) for b in asked], [5, 5, 5])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not np.allclose(drawn[one].image, drawn[other].image)
    for sample, wanted in zip(drawn, asked, strict=True):
        assert sample.image.shape == (1, 16, 16)
        assert sample.labels is None
        assert sample.boxes is not None
        assert np.array_equal(sample.boxes.coords, wanted.coords)
        assert sample.provenance["latent_seed"] == 5


def test_a_sample_is_the_same_in_any_company_and_seeds_matter():
    generator = trained(build(), steps=12)
    conditions = [Condition(boxes=c.boxes) for c in cases(5)]
    together = generator.sample(conditions, range(5))
    alone = generator.sample([conditions[3]], [3])[0]
    assert np.array_equal(alone.image, together[3].image)
    assert not np.allclose(generator.sample([conditions[3]], [4])[0].image, alone.image)


def test_channels_have_units_of_their_own():
    spec = schema(channels=("T1", "FLAIR", "T2"))
    generator = build(spec=spec)
    generator.observe(
        replace(c, image=np.concatenate([c.image, 500 * c.image + 3000, 0 * c.image + 7]))
        for c in cases()
    )
    image = generator.sample([Condition(boxes=boxes((2, 2, 6, 6)))], [1])[0].image
    assert image.shape == (3, 16, 16)
    assert abs(image[1].mean() - 3000) < 1500


def test_until_it_has_grown_it_draws_what_it_has_grown_to():
    generator = trained(build(), steps=2)
    image = generator.sample([Condition(boxes=boxes((2, 2, 6, 6)))], [1])[0].image[0]
    assert np.array_equal(image, np.kron(image[::4, ::4], np.ones((4, 4), np.float32)))
    grown = trained(build(), steps=40, ema_half_life=0)
    assert float(grown.painter.grown) == 2
    fine = grown.sample([Condition(boxes=boxes((2, 2, 6, 6)))], [1])[0].image[0]
    assert not np.array_equal(fine, np.kron(fine[::2, ::2], np.ones((2, 2), np.float32)))


def test_a_way_between_two_latents_begins_and_ends_with_their_samples():
    generator = trained(build(spec=schema(classes=("a", "b")), condition="class"), steps=12)
    condition = Condition(boxes=boxes((2, 2, 6, 6)), label_class=1)
    way = generator.interpolate(condition, (3, 9), 5)
    ends = generator.sample([condition] * 2, [3, 9])
    for one, other in ((way[0], ends[0]), (way[-1], ends[1])):
        assert np.array_equal(one.image, other.image)
    assert len({w.image.tobytes() for w in way}) == 5
    with pytest.raises(UsageFault, match="both ends"):
        generator.interpolate(condition, (3, 9), 1)


def test_a_class_can_be_asked_for_and_is_else_as_frequent_as_in_training():
    generator = trained(build(spec=schema(classes=("a", "b", "c")), condition="class"), steps=12)
    drawn = generator.sample([Condition(label_class=k) for k in (0, 1)], [4, 4])
    assert [s.provenance["class"] for s in drawn] == ["a", "b"]
    assert not np.allclose(drawn[0].image, drawn[1].image)
    assert generator.heeds == {"boxes", "class"}
    open_ = generator.sample([Condition()] * 16, range(16))
    assert {s.provenance["class"] for s in open_} == {"a", "b"}
    with pytest.raises(UsageFault, match="class 3, expected 0 to 2"):
        generator.sample([Condition(label_class=3)], [0])
    with pytest.raises(UsageFault, match="have no classes"):
        build(condition="class")


def test_boxes_are_shrunk_to_what_was_drawn_if_asked_for(monkeypatch):
    generator = build(tighten=True)
    shown = case(3)
    monkeypatch.setattr(generator.drawing, "_images", lambda orders: [shown.image] * len(orders))
    assert shown.boxes is not None
    wide = boxes(tuple(shown.boxes.coords[0] + (-2, -2, 2, 2)))
    sample = generator.sample([Condition(boxes=wide)], [1])[0]
    assert sample.boxes is not None
    assert np.allclose(sample.boxes.coords, shown.boxes.coords, atol=1)
    assert sample.provenance["boxes_asked"] == wide.coords.tolist()
    assert sample.provenance["tightened_to"][0] < 1


def test_a_box_without_a_lesion_is_a_flaw(monkeypatch):
    generator = build(edge=32)
    known = cases(60, edge=32)
    generator.observe(known)
    twin = build(edge=32)
    twin.load_state(generator.state())
    from gansynth.core.schema import Sample

    for one in (generator, twin):
        assert one.flaw(Sample(known[0].image, None, known[0].boxes)) == ""
        empty = boxes((4, 20, 9, 25))
        assert "contrast" in one.flaw(Sample(known[0].image, None, empty))
    plain = build(edge=32, admit="none")
    plain.observe(known)
    assert plain.flaw(Sample(known[0].image, None, boxes((4, 20, 9, 25)))) == ""


def test_state_reloads():
    generator = trained(build(), steps=12)
    twin = build()
    for name, net in generator.nets.items():
        twin.nets[name].load_state_dict(net.state_dict())
    twin.load_state(json.loads(json.dumps(generator.state())))
    twin.to(generator.device).precision = generator.precision
    one, other = (
        g.sample([Condition(boxes=boxes((2, 2, 6, 6)))], [1])[0] for g in (generator, twin)
    )
    assert np.array_equal(one.image, other.image)


def test_a_run_of_other_box_classes_and_channels_starts_from_it():
    old = trained(build(), steps=12)
    new = build(spec=schema(channels=("FLAIR", "T1"), box_classes=("cyst", "bleeding")))
    tensors = {f"{n}/{k}": v for n, net in old.nets.items() for k, v in net.state_dict().items()}
    taken = take_over(new, named_axes(old), tensors)
    assert taken.fresh == []
    assert taken.partial["discriminator/image.2.weight"] == ["image:T1", "box:cyst"]
    judges: list[Any] = [g.nets["discriminator"] for g in (old, new)]
    one, other = (judge.image[2].weight for judge in judges)
    assert torch.equal(one[:, 0], other[:, 1])
    assert torch.equal(one[:, 2], other[:, 2])
