"""Which cases every subepoch loads, and what they hold."""

import multiprocessing
import pickle
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.core.clock import Clock
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule
from gansynth.core.schema import Sample
from gansynth.runtime.errors import DataFault, TrainingFault
from gansynth_deepmedic.insertion import Loaded
from gansynth_deepmedic.subepochs import Place, Subepochs
from tests.adapters.deepmedic.arrays import WAYS, Volume, patch, reader, volume, write_bank

VOLUMES = tuple(
    volume(f"pat_{n}", (8 + n, 7, 6), stored=WAYS[11 * n + 3], roi=n != 2, seed=n) for n in range(4)
)
READ = reader(VOLUMES)


def samples_of(volumes: Sequence[Volume], count: int) -> list[Sample]:
    """Sample i is 100 + i all over."""
    return [patch(volumes[n % len(volumes)], (1, 1, 1), (5, 5, 4), value=100.0 + n)
            for n in range(count)]  # fmt: skip


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    return write_bank(tmp_path_factory.mktemp("bank") / "bank", samples_of(VOLUMES, 24))


def plan_of(bank: Path | None, ratio: str = "1:2", **more: Any) -> MixPlan[int]:
    return MixPlan(bank, Ratio.parse(ratio), **{"seed": 5, "patience": 0.2, **more})


def made(plan: MixPlan[int], count: int = 6, **more: Any) -> Subepochs:
    return Subepochs(plan, [one.host for one in VOLUMES], count, **more)


def load(subepochs: Subepochs, subepoch: int) -> list[tuple[Place, Loaded]]:
    return [(place, subepochs.load(place, READ)) for place in subepochs.order(subepoch)]


def drawn(subepochs: Subepochs, subepoch: int) -> list[tuple[str, str]]:
    return [(one.case, one.sample) for _, one in load(subepochs, subepoch)]


# -- what is loaded --------------------------------------------------------------------------------


def test_every_subepoch_holds_what_was_asked_for(bank, tmp_path):
    subepochs = made(plan_of(bank, log=tmp_path))
    used: Counter[str] = Counter()
    distinct = set()
    for subepoch in range(6):
        found = load(subepochs, subepoch)
        assert [place.number for place, _ in found] == list(range(6))
        assert {place.subepoch for place, _ in found} == {subepoch}
        assert sum(place.synthetic for place, _ in found) == 4
        for place, one in found:
            assert bool(one.sample) == place.synthetic
            if not one.sample:
                assert one.case == VOLUMES[place.real].host.id
                used[one.case] += 1
            distinct.add(one.sample)
    assert max(used.values()) - min(used.values()) <= 1
    assert len(distinct - {""}) == 24  # all of the bank, each once
    counts = summarise(tmp_path)
    assert (counts.real, counts.synthetic, counts.fell_back) == (12, 24, 0)


def test_a_real_case_is_as_its_files_have_it(bank):
    subepochs = made(plan_of(bank, "1:0"), 4)
    for place, one in load(subepochs, 0):
        of = VOLUMES[place.real]
        view = of.host.view
        assert np.array_equal(view(one.image), of.image)
        assert np.array_equal(view(one.labels), of.labels)
        assert (one.roi is None) == (of.roi is None)
        if one.roi is not None and of.roi is not None:
            assert np.array_equal(view(one.roi), of.roi)
        assert (one.core, one.sample) == (None, "")


def test_a_synthetic_place_holds_a_sample_in_its_own_case(bank):
    subepochs = made(plan_of(bank, "0:1"), rim=1)
    by_name = {one.host.id: one for one in VOLUMES}
    for _, one in load(subepochs, 0):
        of = by_name[one.case]
        scale, offset = of.host.units[0]
        value = 100 + int(one.sample.split("-")[1]) + 16 * int(one.sample.split("-")[0])
        assert one.core is not None
        assert of.host.id == VOLUMES[(value - 100) % 4].host.id
        assert np.allclose(one.image[0][one.core], value * scale + offset)
        assert (one.labels[one.core] == 1).all()
        far = of.host.view(one.image)[:, 6:]
        assert np.array_equal(far, of.image[:, 6:])


def test_labels_and_regions_are_rounded():
    of = volume(shape=(3, 3, 3))
    files = dict(of.files)
    files[of.host.labels] = files[of.host.labels].astype(np.float64) - 0.2
    assert of.host.roi is not None
    files[of.host.roi] = files[of.host.roi].astype(np.uint8)
    one = Subepochs(plan_of(None, "1:0"), [of.host], 1).read(of.host, lambda path: files[path])
    assert one.roi is not None
    assert (one.labels.dtype.name, one.roi.dtype.name) == ("int16", "int16")
    assert np.array_equal(one.labels, of.labels.T)


def test_a_missing_channel_is_zero():
    of = volume(missing=[0])
    one = Subepochs(plan_of(None, "1:0"), [of.host], 1).read(of.host, reader([of]))
    assert not one.image[0].any()
    assert np.array_equal(of.host.view(one.image)[1], of.image[1])


@pytest.mark.parametrize("kind", ["0.nii.gz", "roi.nii.gz"])
def test_files_of_different_shapes_are_named(kind):
    of = VOLUMES[0]
    files = {**of.files, f"/data/pat_0/{kind}": np.zeros((2, 2, 2), np.int16)}
    subepochs = made(plan_of(None, "1:0"))
    with pytest.raises(DataFault, match=rf"^/data/pat_0/{kind}: shape \(2, 2, 2\), expected"):
        subepochs.read(of.host, lambda path: files[path])


# -- when there is nothing to insert ---------------------------------------------------------------


def test_a_real_case_stands_in_and_is_told_apart(tmp_path):
    empty = write_bank(tmp_path / "bank", [])
    subepochs = made(plan_of(empty, log=tmp_path / "log"))
    found = [pair for n in range(4) for pair in load(subepochs, n)]
    stand_ins = [one for place, one in found if place.synthetic]
    assert len(stand_ins) == 16
    assert all(one.sample == "" and one.core is None for one in stand_ins)
    assert set(Counter(one.case for one in stand_ins).values()) == {4}
    counts = summarise(tmp_path / "log")
    assert (counts.real, counts.synthetic, counts.fell_back) == (24, 0, 16)
    assert counts.reasons == {"the bank is empty": 16}


STRANGER = volume("pat_9", (8, 7, 6))
FIRST = patch(VOLUMES[0], (1, 1, 1), (5, 5, 4))
BAD = {
    "stranger": (patch(STRANGER, (1, 1, 1), (5, 5, 4)), "is of none of the training cases"),
    "slice": (
        replace(FIRST, provenance={"case": "pat_0", "placement": {"corner": [1, 1],
                                                                  "slice_index": 3}}),
        "no place in a volume",
    ),
    "unplaced": (replace(FIRST, provenance={}), "no place in a volume"),
    "outside": (replace(FIRST, labels=np.full((5, 5, 4), -1, np.int16)), "region of interest"),
    "beyond": (patch(VOLUMES[0], (50, 1, 1), (5, 5, 4)), "beyond"),
    "whole": (patch(VOLUMES[2], None, (7, 7, 6)), "of a volume of shape (7, 7, 6)"),
    "shape": (patch(VOLUMES[0], (1, 1, 1), (5, 5, 4), shape=[9, 9, 9]), "shape (9, 9, 9)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_inserted_is_not_used_and_counted(tmp_path, kind):
    sample, reason = BAD[kind]
    subepochs = made(plan_of(write_bank(tmp_path / "bank", [sample]), log=tmp_path / "log"))
    assert all(one.sample == "" for _, one in load(subepochs, 0))
    counts = summarise(tmp_path / "log")
    assert (counts.real, counts.fell_back) == (6, 4)
    assert reason in next(iter(counts.reasons))


def test_samples_of_other_channels_are_not_used(tmp_path):
    three = volume("pat_0", VOLUMES[0].host.shape, units=((1.0, 0.0),) * 3)
    subepochs = made(plan_of(write_bank(tmp_path / "bank", [patch(three, None)])))
    assert all(one.sample == "" for _, one in load(subepochs, 0))


def test_another_is_drawn_for_one_that_cannot_be_inserted(tmp_path):
    bad = [sample for sample, _ in BAD.values()]
    bank = write_bank(tmp_path / "bank", bad + samples_of(VOLUMES, 5))
    subepochs = made(plan_of(bank, log=tmp_path / "log"))
    for subepoch in range(10):
        assert sum(bool(one.sample) for _, one in load(subepochs, subepoch)) == 4
    assert summarise(tmp_path / "log").fell_back == 0


@pytest.mark.parametrize("more", [{"ratio": "0:1"}, {"strict": True}])
def test_training_stops_where_no_real_case_may_stand_in(tmp_path, more):
    bank = write_bank(tmp_path / "bank", [BAD["stranger"][0]])
    subepochs = made(plan_of(bank, log=tmp_path / "log", **more))
    with pytest.raises(TrainingFault, match="is of none of the training cases"):
        load(subepochs, 0)
    assert "no synthetic sample" in summarise(tmp_path / "log").stopped


def test_a_damaged_bank_stops_nothing(tmp_path):
    bank = write_bank(tmp_path / "bank", samples_of(VOLUMES, 4))
    for segment in bank.glob("segment-*"):
        segment.write_bytes(b"damaged")
    assert all(one.sample == "" for _, one in load(made(plan_of(bank)), 0))


def test_a_replaced_file_of_a_real_case_stops_it(tmp_path):
    bank = write_bank(tmp_path / "bank", samples_of(VOLUMES[:1], 2))
    smaller = volume("pat_0", (5, 5, 5))
    subepochs = made(plan_of(bank))
    place = next(place for place in subepochs.order(0) if place.synthetic)
    with pytest.raises(DataFault, match="have been replaced"):
        subepochs.load(place, reader([smaller]))


# -- schedules -------------------------------------------------------------------------------------


def test_the_chosen_only_are_loaded_in_fine_tuning(bank, tmp_path):
    plan = plan_of(
        bank, "0:1", schedule=Schedule.parse("finetune:50%@50%"), chosen=(0, 3), log=tmp_path,
        clock=Clock(tmp_path / "clock", 4),
    )  # fmt: skip
    subepochs = made(plan, 4)
    found = [[one for _, one in load(subepochs, n)] for n in range(4)]
    assert [sum(bool(one.sample) for one in part) for part in found] == [4, 4, 0, 0]
    assert {one.case for part in found[2:] for one in part} == {"pat_0", "pat_3"}
    assert not (tmp_path / "clock").exists()


# -- in any process --------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_in_any_order(bank):
    here = made(plan_of(bank))
    wanted = [drawn(here, n) for n in range(3)]
    there = made(plan_of(bank))
    assert drawn(there, 2) == wanted[2]
    backwards = [there.load(place, READ).sample for place in reversed(there.order(0))]
    assert backwards[::-1] == [sample for _, sample in wanted[0]]
    assert drawn(made(plan_of(bank, seed=6)), 0) != wanted[0]
    assert len({tuple(one) for one in wanted}) == 3


def test_randomness_of_the_host_is_its_own(bank):
    subepochs = made(plan_of(bank))
    keys = [(0,), (0, 1), (20, 0, 0), (1, 0)]
    found = [subepochs.rng(*key).integers(2**60) for key in keys]
    assert len({*found, *(subepochs.places.rng(*key).integers(2**60) for key in keys)}) == 8
    assert found == [made(plan_of(bank)).rng(*key).integers(2**60) for key in keys]


_inherited: list[Subepochs] = []


def begin(subepochs: Subepochs) -> None:
    _inherited[:] = [subepochs]


def ask(subepoch: int) -> list[tuple[str, str]]:
    return drawn(_inherited[0], subepoch)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_every_process_draws_the_same(bank, start):
    here, there = made(plan_of(bank)), made(plan_of(bank))
    wanted = [drawn(here, n) for n in range(2)]
    there.load(there.order(0)[0], READ)  # what is open here is not theirs
    context = multiprocessing.get_context(start)
    with ProcessPoolExecutor(1, context, begin, (there,)) as pool:
        assert [pool.submit(ask, n).result(60) for n in range(2)] == wanted


def test_a_copy_refuses_what_the_original_does(tmp_path):
    bank = write_bank(tmp_path / "bank", [BAD["stranger"][0]])
    copy = pickle.loads(pickle.dumps(made(plan_of(bank, log=tmp_path / "log"))))
    assert all(one.sample == "" for _, one in load(copy, 0))
    counts = summarise(tmp_path / "log")
    assert (counts.real, counts.synthetic, counts.fell_back) == (6, 0, 4)
