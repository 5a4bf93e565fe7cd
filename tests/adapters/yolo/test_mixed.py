"""What fills the places of a detector's training set."""

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.core.clock import Clock
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.hosts.epoch_plan import Places, count_places
from gansynth.runtime.errors import TrainingFault
from gansynth_yolo.mixed import PARTNERS, Drawn, Slots, pixels
from tests.adapters.yolo.banks import write_bank


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    return write_bank(tmp_path_factory.mktemp("bank") / "bank", samples=40)


def plan_of(
    bank: Path | None,
    ratio: str = "1:1",
    schedule: str = "constant",
    epochs: int | None = None,
    chosen: tuple[int, ...] = (),
    **more: Any,
) -> MixPlan[int]:
    clock = None if epochs is None else Clock(Path("never-written"), epochs)
    return MixPlan(
        bank, Ratio.parse(ratio), Schedule.parse(schedule), clock, chosen, **{"seed": 5, **more}
    )


def number(drawn: Drawn) -> int:
    """Which sample of the toy bank it is; minus one minus its index for a real image."""
    return -1 - drawn.real if drawn.image is None else int(drawn.id.split("-")[1])


def epoch_of(slots: Slots) -> list[int]:
    return [number(slots.primary(i)) for i in range(len(slots))]


# -- places ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "real", "places"),
    [("1:1", 10, 20), ("2813:4000", 2813, 6813), ("0.1:0.3", 7, 28), ("3:1", 10, 14),
     ("0.3:0.1", 3, 4), ("1:0", 10, 10), ("0:1", 10, 10)],
)  # fmt: skip
def test_an_epoch_has_every_real_image_and_its_share(ratio, real, places):
    assert count_places(Ratio.parse(ratio), real) == places


def test_every_epoch_has_every_real_image_once_and_the_exact_ratio():
    places = Places(plan_of(None, "2:3"), 10)
    for epoch in range(3):
        table = places.table(epoch)
        assert sorted(table.real[~table.synthetic]) == list(range(10))
        assert table.synthetic.sum() == 15


def test_what_does_not_come_out_even_is_carried_on():
    places = Places(plan_of(None, "3:1"), 10)
    tables = [places.table(epoch) for epoch in range(40)]
    synthetic = np.cumsum([table.synthetic.sum() for table in tables])
    asked = np.arange(1, 41) * len(places) / 4
    assert np.abs(synthetic - asked).max() <= 0.5
    assert {*map(int, np.diff(synthetic))} == {3, 4}
    for table in tables:
        assert set(table.real[~table.synthetic]) == set(range(10))


def test_annealing_draws_its_share_to_one_image_and_uses_real_images_evenly():
    places = Places(plan_of(None, "1:1", "anneal", epochs=7), 10)
    tables = [places.table(epoch) for epoch in range(7)]
    counts = [int(table.synthetic.sum()) for table in tables]
    assert sum(counts) == round(7 * 20 / 4)
    assert counts == sorted(counts, reverse=True)
    used = Counter(int(i) for table in tables for i in table.real[~table.synthetic])
    assert max(used.values()) - min(used.values()) <= 1


def test_fine_tuning_draws_samples_only_and_then_the_chosen_only():
    places = Places(plan_of(None, "0:1", "finetune:20%@50%", epochs=4, chosen=(3, 7)), 10)
    tables = [places.table(epoch) for epoch in range(4)]
    assert [int(table.synthetic.sum()) for table in tables] == [10, 10, 0, 0]
    assert [table.mix.real for table in tables] == ["none", "none", "chosen", "chosen"]
    assert Counter(map(int, np.concatenate([t.real for t in tables[2:]]))) == {3: 10, 7: 10}


# -- what is drawn ---------------------------------------------------------------------------------


def test_image_and_boxes_are_of_one_sample_and_in_pixels(bank):
    drawn = [Slots(plan_of(bank), 8, 3).primary(i) for i in range(8, 16)]
    for one in drawn:
        assert one.image is not None
        assert (one.image.shape, one.image.dtype.name) == ((64, 64, 3), "uint8")
        assert np.unique(one.image) == [200 + number(one)]
        assert one.boxes.tolist() == [[8, 4, 9 + number(one), 20]]
        assert (one.labels.dtype.name, one.labels.tolist()) == ("int64", [0])


def test_slices_of_volumes_and_colours(tmp_path):
    flat = write_bank(tmp_path / "slices", depth=True)
    drawn = Slots(plan_of(flat, "0:1"), 4, 1).primary(0)
    assert drawn.image is not None
    assert drawn.image.shape == (64, 64, 1)
    assert drawn.boxes.tolist() == [[8, 4, 9 + number(drawn), 20]]
    coloured = write_bank(tmp_path / "rgb", channels=("red", "green", "blue"))
    drawn = Slots(plan_of(coloured, "0:1"), 4, 3).primary(0)
    assert drawn.image is not None
    assert drawn.image.shape == (64, 64, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_pixels_are_rounded_and_clipped(dtype):
    image = np.array([[[-1, 0, 0.5, 1, 2]], [[0.1, 0.2, 0.3, 0.4, 0.6]]], dtype)
    wanted = np.rint(np.clip(image.astype(np.float32), 0, 1) * 255).transpose(1, 2, 0)
    assert np.array_equal(pixels(image, 2), wanted)


def test_draws_are_distinct_within_and_between_epochs(bank):
    slots = Slots(plan_of(bank, "1:4"), 10, 1)
    first, second = (epoch_of(slots)[10:] for _ in range(2))
    assert len(set(first)) > 20
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 10


def test_partners_are_unbiased_and_counted_apart(bank, tmp_path):
    slots = Slots(plan_of(bank, "2:3", log=tmp_path), 10, 1)
    rng = np.random.default_rng(0)
    for index in range(len(slots)):
        slots.primary(index)
        for _ in range(20):
            slots.partner(int(rng.integers(len(slots))))
    assert (summarise(tmp_path).real, summarise(tmp_path).synthetic) == (10, 15)
    partners = summarise(tmp_path / PARTNERS)
    assert abs(partners.realised - 0.6) < 4 * sqrt(0.6 * 0.4 / 500)
    assert partners.distinct > 35


def test_partners_with_boxes_are_preferred_within_their_kind(tmp_path):
    bank = write_bank(tmp_path / "bank", samples=20, empty=15)
    slots = Slots(plan_of(bank), 10, 1)
    slots.primary(0)
    annotated = np.array([2, 5])
    drawn = [slots.partner(i % 20, annotated) for i in range(200)]
    assert [d.image is None for d in drawn[:20]] == [True] * 10 + [False] * 10
    assert {d.real for d in drawn if d.image is None} == {2, 5}
    assert all(len(d.boxes) for d in drawn if d.image is not None)


def test_what_is_kept_of_a_draw_counts_as_a_partner_unless_a_schedule_forbids_it(bank, tmp_path):
    slots = Slots(plan_of(bank, log=tmp_path / "log"), 10, 1)
    assert all(slots.again(slots.primary(place)) for place in (0, 1, 10))
    partners = summarise(tmp_path / "log" / PARTNERS)
    assert (partners.real, partners.synthetic) == (2, 1)
    annealing = Slots(plan_of(bank, schedule="anneal", epochs=4), 10, 1)
    assert not annealing.again(annealing.primary(0))


def test_typical_labels_count_nothing(bank, tmp_path):
    slots = Slots(plan_of(bank, log=tmp_path), 10, 1)
    boxes, labels = slots.typical(12)
    assert (boxes.shape, labels.tolist(), slots.typical_shape(12)) == ((1, 4), [0], (64, 64))
    assert epoch_of(slots) == epoch_of(Slots(plan_of(bank), 10, 1))
    nothing = Slots(plan_of(write_bank(tmp_path / "empty", samples=0)), 10, 1)
    assert nothing.typical(12)[0].shape == (0, 4)


def test_going_on_goes_on_with_other_draws(bank):
    whole = Slots(plan_of(bank), 10, 1)
    epochs = [epoch_of(whole) for _ in range(3)]
    assert epoch_of(Slots(plan_of(bank), 10, 1, done=2)) == epochs[2]
    whole.rewind(1)
    assert epoch_of(whole) == epochs[1]


# -- when there is nothing -------------------------------------------------------------------------


def test_real_images_take_the_places_of_missing_samples_evenly(tmp_path):
    empty = write_bank(tmp_path / "bank", samples=0)
    slots = Slots(plan_of(empty, "2:1", log=tmp_path / "log"), 10, 1)
    stand_ins = [n for _ in range(2) for n in epoch_of(slots)[10:]]
    assert sorted(stand_ins) == list(range(-10, 0))
    counts = summarise(tmp_path / "log")
    assert (counts.real, counts.fell_back, counts.reasons) == (30, 10, {"the bank is empty": 10})


def test_real_images_stand_in_as_soon_as_a_schedule_lets_them(tmp_path):
    empty = write_bank(tmp_path / "bank", samples=0, frozen=False)
    slots = Slots(plan_of(empty, "0:1", "anneal:0%-50%", epochs=2, patience=0.3), 10, 1)
    assert all(n < 0 for n in epoch_of(slots) + epoch_of(slots))


def test_samples_that_do_not_fit_are_not_used(tmp_path):
    coloured = write_bank(tmp_path / "bank", channels=("red", "green", "blue"))
    slots = Slots(plan_of(coloured, log=tmp_path / "log"), 10, 1)
    assert all(n < 0 for n in epoch_of(slots))
    assert "has shape (3, 64, 64)" in next(iter(summarise(tmp_path / "log").reasons))


@pytest.mark.parametrize("told", [{"ratio": "0:1"}, {"strict": True}])
def test_training_stops_where_no_real_image_may_stand_in(tmp_path, told):
    empty = write_bank(tmp_path / "bank", samples=0, frozen=False)
    slots = Slots(plan_of(empty, log=tmp_path / "log", patience=0.3, **told), 10, 1)
    with pytest.raises(TrainingFault, match="no synthetic sample"):
        slots.primary(9 if "ratio" in told else 15)
    assert "no synthetic sample" in summarise(tmp_path / "log").stopped


# -- in worker processes ---------------------------------------------------------------------------


class Numbers:
    """A torch data set (by duck typing) of which sample fills a place."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return index, number(self.slots.primary(index))


def loaded(slots: Slots, epochs: int, **more: Any) -> list[list[int]]:
    """What a loader of torch gives, by place, epoch after epoch."""
    from torch.utils.data import DataLoader

    data: Any = Numbers(slots)
    loader: Any = DataLoader(data, batch_size=3, shuffle=True, collate_fn=list, **more)
    return [[n for _, n in sorted(p for batch in loader for p in batch)] for _ in range(epochs)]


def test_the_bank_is_used_up_before_a_sample_comes_again(bank):
    slots = Slots(plan_of(bank), 10, 1)
    drawn = [n for _ in range(8) for n in epoch_of(slots) if n >= 0]
    assert [len(set(drawn[:40])), len(set(drawn[40:]))] == [40, 40]


@pytest.mark.parametrize("keep", [False, True])
def test_workers_draw_what_one_process_draws(bank, keep):
    wanted = [epoch_of(slots) for slots in [Slots(plan_of(bank, "2:3"), 10, 1)] for _ in range(3)]
    assert loaded(Slots(plan_of(bank, "2:3"), 10, 1), 3) == wanted
    slots = Slots(plan_of(bank, "2:3"), 10, 1)
    assert loaded(slots, 3, num_workers=2, persistent_workers=keep, prefetch_factor=4) == wanted


def test_epochs_drawn_ahead_are_epochs_of_their_own(bank):
    wanted = [epoch_of(slots) for slots in [Slots(plan_of(bank), 10, 1)] for _ in range(2)]
    slots = Slots(plan_of(bank), 10, 1)
    ahead = {n: [number(slots.primary(n)) for _ in range(2)] for n in range(19, 4, -1)}
    rest = [[number(slots.primary(n)) for n in range(5)] for _ in range(2)]
    for epoch in (0, 1):
        assert rest[epoch] + [ahead[n][epoch] for n in range(5, 20)] == wanted[epoch]


def ask(slots: Slots, index: int) -> list[int]:
    return [number(slots.primary(index)) for _ in range(2)]


_inherited: list[Slots] = []


def begin(slots: Slots) -> None:
    _inherited[:] = [slots]


def ask_inherited(index: int) -> list[int]:
    return ask(_inherited[0], index)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_share_the_count_of_epochs(bank, start):
    here, there = (Slots(plan_of(bank), 10, 1) for _ in range(2))
    context = multiprocessing.get_context(start)
    with ProcessPoolExecutor(1, context, begin, (there,)) as pool:
        for index in (3, 12):
            assert pool.submit(ask_inherited, index).result() == ask(here, index)
    assert [number(there.primary(i)) for i in (3, 12)] == [number(here.primary(i)) for i in (3, 12)]
