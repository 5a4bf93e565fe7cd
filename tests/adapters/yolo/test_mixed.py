from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.hosts.epoch_plan import PARTNERS
from gansynth.hosts.mixer import BatchCounter, MixerConfig
from gansynth_yolo.mixed import EpochSlots, ImageDraw
from tests.adapters.yolo.banks import write_bank


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    return write_bank(tmp_path_factory.mktemp("bank") / "bank", samples=40)


def slots_of(
    bank: Path, ratio: str = "1:1", *, channels: int = 1, done: int = 0, **more: Any
) -> EpochSlots:
    """The places of ten real images."""
    plan = MixerConfig[int](bank, Ratio.parse(ratio), **{"seed": 5, **more})
    return EpochSlots(plan, 10, channels, done)


def number(drawn: ImageDraw) -> int:
    """Which sample of the toy bank it is; minus one minus its index for a real image."""
    return -1 - drawn.real if drawn.image is None else int(drawn.id)


@pytest.mark.parametrize(
    ("made", "channels"),
    [({}, 3), ({"depth": True}, 1), ({"channels": ("red", "green", "blue")}, 3)],
    ids=["grey", "slices", "colours"],
)
def test_image_and_boxes_are_of_one_sample_and_in_pixels(tmp_path, made, channels):
    slots = slots_of(write_bank(tmp_path / "bank", **made), "0:1", channels=channels)
    for one in map(slots.primary, range(8)):
        assert one.image is not None
        assert (one.image.shape, one.image.dtype.name) == ((64, 64, channels), "uint8")
        assert np.unique(one.image) == [200 + number(one)]
        assert one.boxes.tolist() == [[8, 4, 9 + number(one), 20]]
        assert (one.labels.dtype.name, one.labels.tolist()) == ("int64", [0])


@pytest.mark.parametrize(("ratio", "real"), [("2:3", 10), ("2813:4000", 60)])
def test_primaries_have_the_ratio_exactly_and_partners_on_average(bank, tmp_path, ratio, real):
    slots = EpochSlots(MixerConfig[int](bank, Ratio.parse(ratio), seed=5, log=tmp_path), real, 1)
    rng, asked = np.random.default_rng(0), Ratio.parse(ratio)
    for index in range(len(slots)):
        slots.primary(index)
        for _ in range(20):
            slots.partner(int(rng.integers(len(slots))))
    drawn, partners = summarise(tmp_path), summarise(tmp_path / PARTNERS)
    assert drawn.real == real
    assert abs(drawn.synthetic - real * asked.synthetic / asked.real) < 1
    spread = sqrt(asked.p * (1 - asked.p) / (20 * len(slots)))
    assert abs(partners.realised - asked.p) < 4 * spread
    assert partners.distinct > 35


def test_partners_with_boxes_are_preferred_within_their_kind(tmp_path):
    slots = slots_of(write_bank(tmp_path / "bank", samples=20, empty=15))
    slots.primary(0)
    annotated = np.array([2, 5])
    drawn = [slots.partner(i % 20, annotated) for i in range(200)]
    assert [d.image is None for d in drawn[:20]] == [True] * 10 + [False] * 10
    assert {d.real for d in drawn if d.image is None} == {2, 5}
    assert all(len(d.boxes) for d in drawn if d.image is not None)


def test_what_is_kept_of_a_draw_counts_as_a_partner_unless_a_schedule_forbids_it(bank, tmp_path):
    slots = slots_of(bank, log=tmp_path / "log")
    assert all(slots.again(slots.primary(place)) for place in (0, 1, 10))
    partners = summarise(tmp_path / "log" / PARTNERS)
    assert (partners.real, partners.synthetic) == (2, 1)
    batch_counter = BatchCounter(tmp_path / "never-written", 4)
    annealing = slots_of(bank, schedule=Schedule.parse("anneal"), batch_counter=batch_counter)
    assert not annealing.again(annealing.primary(0))
