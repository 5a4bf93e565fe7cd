"""``cpggan`` with ``mode=roi``: lesions alone, blended into real slices."""
# mypy: disallow-untyped-calls=False

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.conditions.boxes import box_drawer
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.generator import Batch, Stage, Step
from gansynth.core.schema import Boxes, Case, Condition, FloatArray, Sample, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space
from gansynth.runtime.errors import UsageFault
from gansynth_cpggan.blend import SOFT, blend, bounded
from gansynth_cpggan.boxes import asked_maps, crops, resampled, squares, within
from gansynth_cpggan.drawing import WINDOWS, Order
from gansynth_cpggan.model import CPGGAN, CPGGANOptions
from tests.boxed_heads import Heads, on_skull

FREE = np.ones((64, 64), bool)
NONE = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int16))
SCHEMA = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW", box_classes=("lesion", "cyst"))


def boxes(*rows: tuple[float, ...]) -> Boxes:
    return Boxes(np.array(rows, np.float32).reshape(-1, 4), np.zeros(len(rows), np.int16))


def slice_of(seed: int = 0, edge: int = 64) -> FloatArray:
    """A disc with grain, dark around it: (1, edge, edge)."""
    rng = np.random.default_rng(seed)
    at = np.indices((edge, edge)) - (edge - 1) / 2
    body = (at**2).sum(0) < (0.45 * edge) ** 2
    image: FloatArray = (body * (1 + rng.normal(size=(edge, edge)) / 20))[None].astype(np.float32)
    return image


def build(spec: Schema = SCHEMA, size: tuple[int, ...] = (64, 64), **options: Any) -> CPGGAN:
    torch.manual_seed(0)
    tiny = {"mode": "roi", "roi_size": 8, "width": 2, "max_width": 4, "latent": 4}
    made = CPGGAN(spec, size, CPGGANOptions.model_validate({**tiny, **options}))
    made.painter.grown.fill_(1.0)
    return made


class Slices(CaseSource):
    """Cases in memory; every third has a box."""

    def __init__(self, boxed: int = 3) -> None:
        self.request = SourceRequest("slices", "memory")
        self.held: dict[str, Case] = {
            f"s{i}": Case(f"s{i}", f"s{i}", slice_of(i), None, self.of(i % boxed == 0))
            for i in range(9)
        }

    def of(self, boxed: bool) -> Boxes:
        return boxes((20, 20, 28, 30)) if boxed else NONE

    @property
    def name(self) -> str:
        return "slices"

    @property
    def schema(self) -> Schema:
        return SCHEMA

    @property
    def space(self) -> Space:
        return Space("native", (64, 64))

    @property
    def train_ids(self) -> tuple[str, ...]:
        return tuple(self.held)

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return ()

    def load(self, case_id: str) -> Case:
        return self.held[case_id]


def condition(*asked: tuple[float, ...], present: Boxes = NONE, seed: int = 0) -> Condition:
    return Condition(boxes=boxes(*asked), background=slice_of(seed), present=present)


# -- cutting out -----------------------------------------------------------------------------------


def test_a_window_is_brought_to_a_size_by_means_of_areas():
    whole = torch.tensor([[0.0, 0, 16, 16]])
    # Points lie evenly in a voxel: a linear image is met exactly.
    ramp = torch.arange(16.0).expand(1, 1, 16, 16).clone()
    found = resampled(ramp, whole, 8, 8)
    assert torch.allclose(found[..., 1:-1], ramp[..., :8, 2:-2:2] + 0.5)
    part = resampled(ramp, torch.tensor([[4.0, 2, 12, 10]]), 8, 8)
    assert torch.allclose(part, ramp[..., 4:12, 2:10])
    even = torch.full((1, 1, 9, 5), 7.0)
    assert torch.allclose(resampled(even, whole - 3, 4, 4), torch.tensor(7.0))


def test_the_square_around_a_box_holds_its_longer_side_and_a_margin_at_either_end():
    square = squares(torch.tensor([[10.0, 20, 14, 28]]), 0.5)
    assert square.tolist() == [[4, 16, 20, 32]]
    seen = within(torch.tensor([[[10.0, 20, 14, 28]]]), square, 32)
    assert seen.tolist() == [[[12, 8, 20, 24]]]


def test_a_crop_shows_its_box_where_its_map_says():
    image = torch.zeros(3, 1, 64, 64)
    image[:, :, 20:28, 30:36] = 1
    found = boxes((20, 30, 28, 36), (50, 50, 60, 60))
    coords = torch.from_numpy(found.coords).expand(3, 2, 4)
    batch = Batch(image, boxes=coords, box_labels=torch.tensor([[0, -1]] * 3))
    step = Step(batch, Stage(), 0, 0, torch.Generator().manual_seed(0))
    pair = crops(step, image, 2, 16, 0.5)
    assert pair.shape == (3, 3, 16, 16)
    assert float((pair[:, 0] - pair[:, 1]).abs().mean()) < 0.05
    assert pair[:, 2].abs().max() == 0


def test_any_of_several_boxes_is_met():
    image = torch.arange(64.0).view(1, 1, 64, 1).expand(32, 1, 64, 64)
    coords = torch.tensor([[8.0, 8, 12, 12], [48, 48, 52, 52]]).expand(32, 2, 4)
    batch = Batch(image, boxes=coords, box_labels=torch.zeros(32, 2, dtype=torch.int64))
    step = Step(batch, Stage(), 0, 0, torch.Generator().manual_seed(0))
    middles = crops(step, image, 1, 8, 0.5)[:, 0].mean((1, 2))
    assert set(middles.round().int().tolist()) == {10, 50}


def test_only_cases_with_boxes_are_learnt_from():
    generator = build()
    accepted = [generator.accepts(case) for case in Slices().held.values()]
    assert accepted == [i % 3 == 0 for i in range(9)]


# -- blending in -----------------------------------------------------------------------------------


def test_beyond_the_square_the_slice_is_the_real_one_to_the_bit():
    image = slice_of()
    mixed, (top, left, bottom, right) = blend(
        image, np.full((1, 8, 8), 5, np.float32), np.array([20.5, 20, 28, 31]), 0.5, FREE
    )
    outside = np.ones((64, 64), bool)
    outside[top:bottom, left:right] = False
    assert np.array_equal(mixed[:, outside], image[:, outside])
    assert (mixed[0] != image[0]).sum() > 80
    assert (top, left, bottom, right) == (13, 14, 36, 37)


def test_in_the_box_there_is_the_lesion_and_its_rim_is_as_bright_as_the_slice():
    """A lesion drawn in other units of brightness than the slice, but by a constant."""
    image = np.full((1, 64, 64), 3, np.float32)
    lesion = np.full((1, 32, 32), 100, np.float32)
    lesion[:, 8:24, 8:24] += 2
    mixed, _ = blend(image, lesion, np.array([24.0, 24, 40, 40]), 0.5, FREE)
    assert np.allclose(mixed[0, 26:38, 26:38], 5, atol=0.2)
    assert np.allclose(mixed[0, :20], 3, atol=0.1)
    assert np.abs(np.diff(mixed[0, 32])).max() < 1.8  # no seam but the lesion's own edge


def test_no_voxel_jumps_at_the_squares_edge():
    image = slice_of(1)
    rough = np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32)
    mixed, (top, left, bottom, right) = blend(image, rough, np.array([28.0, 28, 36, 36]), 0.5, FREE)
    change = np.abs(mixed - image)[0, top:bottom, left:right]
    border = np.concatenate([change[0], change[-1], change[:, 0], change[:, -1]])
    assert border.max() < 0.1 * change.max()


def test_a_lesion_at_the_edge_of_the_slice_is_cut_off_there():
    image = slice_of()
    mixed, window = blend(
        image, np.ones((1, 8, 8), np.float32), np.array([0.0, 0, 6, 6]), 0.5, FREE
    )
    assert mixed.shape == image.shape
    assert window[:2] == (0, 0)


def test_what_must_stay_is_the_slices_own_to_the_bit_and_lesions_fade_towards_it():
    image, body = np.full((1, 64, 64), 3, np.float32), FREE.copy()
    body[:, 40:] = False
    free = bounded(
        body,
        np.array([24.0, 24, 40, 38]),
        boxes((24, 24, 40, 38), (10, 20, 20, 30)).coords,
        (64, 64),
    )
    assert not free[10:20, 20:30].any()
    assert free[24:40, 24:38].all()
    rough = np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32) + 9
    mixed, _ = blend(image, rough, np.array([24.0, 24, 40, 38]), 0.5, free)
    assert np.array_equal(mixed[:, ~free], image[:, ~free])
    change = np.abs(mixed - image)[0, 26:38]
    assert change[:, 40 - SOFT :].max() < 0.9 * change[:, 30:36].max()
    assert change[:, 39].max() < 0.3 * change[:, 30:36].max()


# -- samples ---------------------------------------------------------------------------------------


def test_samples_are_real_slices_but_for_their_lesions_and_say_so():
    generator = build()
    present = boxes((10, 28, 18, 36))
    asked = condition((30, 20, 36, 28), (44, 34, 50, 40), present=present)
    sample = generator.sample([asked], [3])[0]
    outside = np.ones((64, 64), bool)
    for top, left, bottom, right in sample.provenance[WINDOWS]:
        outside[top:bottom, left:right] = False
    assert outside.sum() > 2000
    assert asked.background is not None
    assert np.array_equal(sample.image[:, outside], asked.background[:, outside])
    assert not np.array_equal(sample.image, asked.background)
    assert sample.boxes is not None
    assert sample.boxes.coords.tolist() == [
        [10, 28, 18, 36], [30, 20, 36, 28], [44, 34, 50, 40]
    ]  # fmt: skip
    assert "real case" in sample.provenance["pixels"]
    again = generator.sample([condition((30, 20, 36, 28)), asked], [9, 3])[1]
    assert np.array_equal(again.image, sample.image)


def test_a_slice_without_asked_boxes_stays_as_it_is():
    asked = condition()
    sample = build().sample([asked], [3])[0]
    assert asked.background is not None
    assert np.array_equal(sample.image, asked.background)
    assert sample.image is not asked.background


def test_the_slices_own_lesions_are_no_flaw():
    generator = build()
    rng = np.random.default_rng(0)

    def lesion(case_seed: int) -> Case:
        image = slice_of(case_seed)
        image[:, 20:28, 20:28] += 1 + rng.random() / 9
        return Case("a", "a", image, None, boxes((20, 20, 28, 28)))

    generator.observe(lesion(i) for i in range(30))
    told = {"boxes": {"moved": [None]}, WINDOWS: []}
    assert "no room" in generator.flaw(Sample(slice_of(3), None, NONE, told))
    bare = Sample(slice_of(3), None, boxes((20, 20, 28, 28)), {WINDOWS: []})
    assert generator.flaw(bare) == ""
    assert "contrast" in generator.flaw(Sample(bare.image, None, bare.boxes, {WINDOWS: [[0] * 4]}))


def test_it_says_that_it_needs_a_background():
    with pytest.raises(UsageFault, match="has no background"):
        build().sample([Condition(boxes=boxes((2, 2, 6, 6)))], [0])


def test_a_way_between_lesions_keeps_their_places():
    generator, asked = build(), condition((30, 20, 36, 28), (44, 34, 50, 40))
    way = generator.interpolate(asked, (3, 4), 3)
    assert np.array_equal(way[0].image, generator.sample([asked], [3])[0].image)
    assert len({w.image.tobytes() for w in way}) == 3
    for sample in way:
        assert sample.boxes is not None
        assert sample.boxes.coords.tolist() == [[30, 20, 36, 28], [44, 34, 50, 40]]


# -- backgrounds -----------------------------------------------------------------------------------


def sampler(source: CaseSource) -> ConditionSampler:
    drawer = box_drawer("training")
    return ConditionSampler(
        source, source.space, labelled=False, boxes=drawer, backgrounds=True, seed=1
    )


def test_lesions_go_into_slices_without_any_if_there_are_such():
    assert "background" in build().heeds
    source = Slices()
    for i in range(12):
        drawn = sampler(source).draw(i)
        behind = source.load(drawn.provenance["case"])
        assert behind.boxes is not None
        assert drawn.background is not None
        assert drawn.present is not None
        assert np.array_equal(drawn.background, behind.image)
        assert len(drawn.present.labels) == 0
        like = source.load(drawn.provenance["boxes"]["like"])
        assert drawn.boxes is not None
        assert like.boxes is not None
        assert len(like.boxes.labels) == 1
        sides = np.diff(drawn.boxes.coords.reshape(-1, 2, 2), axis=1)
        assert np.allclose(sides, np.diff(like.boxes.coords.reshape(-1, 2, 2), axis=1))


def test_no_pixel_of_a_skull_changes():
    heads = Heads()
    generator = build(spec=heads.schema, size=heads.space.size)
    told, changed = sampler(heads), 0
    for index in range(12):
        drawn = told.draw(index)
        sample = generator.sample([drawn], [drawn.latent_seed])[0]
        assert drawn.background is not None
        same = (sample.image == drawn.background).all(axis=0)
        assert same[on_skull(drawn.background)].all()
        changed += not same.all()
    assert changed > 6


def test_where_every_slice_has_lesions_they_are_told_of():
    drawn = sampler(Slices(boxed=1)).draw(0)
    assert drawn.present is not None
    assert len(drawn.present.labels) == 1


def test_maps_of_lesions_are_those_of_their_squares(monkeypatch):
    """What is asked when a lesion is drawn is what was seen of such a box in training."""
    generator = build()
    seen: list[Order] = []

    def note(orders: Sequence[Order]) -> list[FloatArray]:
        seen.extend(orders)
        return [np.zeros((1, 8, 8), np.float32) for _ in orders]

    monkeypatch.setattr(generator.drawing, "_images", note)
    generator.sample([condition((30, 20, 36, 28))], [0])
    shown = asked_maps([seen[0].boxes], 1, (8, 8))
    # 8 of 16 voxels wide, 6 of 16 high.
    assert float(shown.mean()) == pytest.approx(8 * 6 / 16**2)
