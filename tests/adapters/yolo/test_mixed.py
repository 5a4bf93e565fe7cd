from pathlib import Path

import numpy as np
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.core.schema import Schema
from gansynth.hosts.mixing.epoch_plan import PARTNERS
from gansynth.hosts.mixing.mixer import BatchCounter, MixerConfig
from gansynth_yolo.mixed import EpochSlots
from tests.adapters.yolo.conftest import fill_bank


def write_bank(
    folder: Path, samples: int, channels: tuple[str, ...] = ("grey",), *, empty: int = 0
) -> Path:
    """Sample i, 64 x 64, is 200 + i of 255 all over; its box is 4, 8, 20, 9 + i (min, max).

    The first ``empty`` ones have none; channel ``slice``: as slices of volumes.
    """
    deep = channels == ("slice",)
    axes, spacing = ("DHW", (1.0,) * 3) if deep else ("HW", (1.0,) * 2)
    schema = Schema(channels, {"background": 0}, spacing, axes, box_classes=("lesion",))
    drawn = []
    for number in range(samples):
        shape = (len(channels), *([1] if deep else []), 64, 64)
        low, high = [4.0, 8.0], [20.0, 9.0 + number]
        box = [0.0, *low, 1.0, *high] if deep else [*low, *high]
        boxes = np.array([box] * (number >= empty), np.float32).reshape(-1, len(box))
        drawn.append((np.full(shape, (200 + number) / 255, np.float32), boxes))
    return fill_bank(folder, drawn, schema=schema)


@pytest.mark.parametrize("channels", [("grey",), ("slice",), ("red", "green", "blue")])
def test_image_and_boxes_are_of_one_sample_and_in_pixels(tmp_path, channels):
    depth = 1 if channels == ("slice",) else 3
    bank = write_bank(tmp_path / "bank", 8, channels)
    slots = EpochSlots(MixerConfig[int](bank, Ratio(0, 1), seed=5), 10, depth)
    for one in map(slots.primary, range(8)):
        number = int(one.id)
        assert one.image is not None
        assert (one.image.shape, one.image.dtype.name) == ((64, 64, depth), "uint8")
        assert np.unique(one.image) == [200 + number]
        assert one.boxes.tolist() == [[8, 4, 9 + number, 20]]
        assert (one.labels.dtype.name, one.labels.tolist()) == ("int64", [0])


def test_partners_with_boxes_are_preferred_within_their_kind(tmp_path):
    bank = write_bank(tmp_path / "bank", 20, empty=15)
    slots = EpochSlots(MixerConfig[int](bank, Ratio(1, 1), seed=5), 10, 1)
    slots.primary(0)
    drawn = [slots.partner(i % 20, np.array([2, 5])) for i in range(200)]
    assert [d.image is None for d in drawn[:20]] == [True] * 10 + [False] * 10
    assert {d.real for d in drawn if d.image is None} == {2, 5}
    assert all(len(d.boxes) for d in drawn if d.image is not None)


def test_what_is_kept_of_a_draw_counts_as_a_partner_unless_a_schedule_forbids_it(tmp_path):
    bank = write_bank(tmp_path / "bank", 4)
    plan = MixerConfig[int](bank, Ratio(1, 1), seed=5, log=tmp_path / "log")
    slots = EpochSlots(plan, 10, 1)
    assert all(slots.again(slots.primary(place)) for place in (0, 1, 10))
    partners = summarise(tmp_path / "log" / PARTNERS)
    assert (partners.real, partners.synthetic) == (2, 1)
    counter = BatchCounter(tmp_path / "never-written", 4)
    anneal = Schedule.parse("anneal")
    plan = MixerConfig(bank, Ratio(1, 1), seed=5, schedule=anneal, batch_counter=counter)
    annealing = EpochSlots(plan, 10, 1)
    assert not annealing.again(annealing.primary(0))
