import multiprocessing
import pickle
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.core.schema import Sample
from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.insertion import HostCase, LoadedCase
from gansynth_deepmedic.subepochs import SubepochCase, Subepochs, read_case
from tests.adapters.deepmedic.arrays import WAYS, patch, reader, volume, write_bank

VOLUMES = tuple(
    volume(f"pat_{n}", (8 + n, 7, 6), stored=WAYS[11 * n + 3], roi=n != 2, seed=n) for n in range(4)
)


def read(case: HostCase) -> LoadedCase:
    """Read a case of ``VOLUMES``."""
    return read_case(case, reader(VOLUMES))


def samples_of(count: int, volumes: int = 4) -> list[Sample]:
    """Sample i is 100 + i all over."""
    places: Any = ((1, 1, 1), (5, 5, 4))
    return [patch(VOLUMES[n % volumes], *places, value=100.0 + n) for n in range(count)]


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    return write_bank(tmp_path_factory.mktemp("bank") / "bank", samples_of(24))


def plan_of(bank: Path | None, ratio: str = "1:2", **more: Any) -> MixerConfig[int]:
    return MixerConfig(bank, Ratio.parse(ratio), **{"seed": 5, "patience": 0.2, **more})


def made(plan: MixerConfig[int], count: int = 6) -> Subepochs:
    return Subepochs(plan, [one.host for one in VOLUMES], count)


def load(subepochs: Subepochs, subepoch: int) -> list[tuple[SubepochCase, LoadedCase]]:
    return [(place, subepochs.load(place, read)) for place in subepochs.order(subepoch)]


def drawn(subepochs: Subepochs, subepoch: int) -> list[tuple[str, str]]:
    return [(one.case, one.sample) for _, one in load(subepochs, subepoch)]


def test_every_subepoch_holds_what_was_asked_for(bank, tmp_path):
    subepochs = made(plan_of(bank, log=tmp_path))
    used, distinct = Counter[str](), set[str]()
    for subepoch in range(6):
        found = load(subepochs, subepoch)
        assert [(place.subepoch, place.number) for place, _ in found] == [
            (subepoch, number) for number in range(6)
        ]
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
    for place, one in load(made(plan_of(bank, "1:0"), 4), 0):
        of = VOLUMES[place.real]
        assert np.array_equal(of.host.view(one.image), of.image)
        assert np.array_equal(of.host.view(one.labels), of.labels)
        assert (one.roi is None) == (of.roi is None)
        if one.roi is not None and of.roi is not None:
            assert np.array_equal(of.host.view(one.roi), of.roi)
        assert (one.core, one.sample) == (None, "")


def test_a_synthetic_place_holds_a_sample_in_its_own_case(bank):
    by_name = {one.host.id: one for one in VOLUMES}
    for _, one in load(made(plan_of(bank, "0:1")), 0):
        of = by_name[one.case]
        scale, offset = of.host.units[0]
        number = int(one.sample)
        assert of.host.id == f"pat_{number % 4}"
        assert one.core is not None
        assert np.allclose(one.image[0][one.core], (100 + number) * scale + offset)
        assert (one.labels[one.core] == 1).all()
        assert np.array_equal(of.host.view(one.image)[:, 6:], of.image[:, 6:])


def test_labels_and_regions_are_rounded_and_a_missing_channel_is_zero():
    of = volume(shape=(3, 3, 3), missing=[0])
    assert of.host.roi is not None
    files = dict(of.files)
    files[of.host.labels] = files[of.host.labels].astype(np.float64) - 0.2
    files[of.host.roi] = files[of.host.roi].astype(np.uint8)
    one = read_case(of.host, lambda path: files[path])
    assert one.roi is not None
    assert (one.labels.dtype.name, one.roi.dtype.name) == ("int16", "int16")
    assert np.array_equal(one.labels, of.labels.T)
    assert not one.image[0].any()
    assert np.array_equal(of.host.view(one.image)[1], of.image[1])


@pytest.mark.parametrize("kind", ["0.nii.gz", "roi.nii.gz"])
def test_files_of_different_shapes_are_named(kind):
    files = {**VOLUMES[0].files, f"/data/pat_0/{kind}": np.zeros((2, 2, 2), np.int16)}
    with pytest.raises(DataFault, match=rf"^/data/pat_0/{kind}: shape \(2, 2, 2\), expected"):
        read_case(VOLUMES[0].host, lambda path: files[path])


SIZE = (5, 5, 4)
FIRST = patch(VOLUMES[0], (1, 1, 1), SIZE)
SLICE = {"case": "pat_0", "placement": {"corner": [1, 1], "slice_index": 3}}
THREE = volume("pat_0", VOLUMES[0].host.shape, units=((1.0, 0.0),) * 3)
BAD = {
    "stranger": (replace(FIRST, provenance={**FIRST.provenance, "case": "pat_9"}),
                 "is of none of the training cases"),
    "slice": (replace(FIRST, provenance=SLICE), "no place in a volume"),
    "outside": (replace(FIRST, labels=np.full(SIZE, -1, np.int16)), "region of interest"),
    "beyond": (patch(VOLUMES[0], (50, 1, 1), SIZE), "beyond"),
    "whole": (patch(VOLUMES[2], None, (7, 7, 6)), "of a volume of shape (7, 7, 6)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [*BAD, "channels"])
def test_what_cannot_be_inserted_is_not_used_and_counted(tmp_path, kind):
    sample, reason = {**BAD, "channels": (patch(THREE, None), "3 channel")}[kind]
    subepochs = made(plan_of(write_bank(tmp_path / "bank", [sample]), log=tmp_path / "log"))
    assert all(one.sample == "" for _, one in load(subepochs, 0))
    counts = summarise(tmp_path / "log")
    assert (counts.real, counts.fell_back) == (6, 4)
    assert reason in next(iter(counts.reasons))


def test_another_is_drawn_for_one_that_cannot_be_inserted(tmp_path):
    bad = [sample for sample, _ in BAD.values()]
    bank = write_bank(tmp_path / "bank", bad + samples_of(5))
    subepochs = made(plan_of(bank, log=tmp_path / "log"))
    for subepoch in range(10):
        assert sum(bool(one.sample) for _, one in load(subepochs, subepoch)) == 4
    assert summarise(tmp_path / "log").fell_back == 0


def test_a_replaced_file_of_a_real_case_stops_it(tmp_path):
    subepochs = made(plan_of(write_bank(tmp_path / "bank", samples_of(2, volumes=1))))
    place = next(place for place in subepochs.order(0) if place.synthetic)
    with pytest.raises(DataFault, match="have changed"):
        subepochs.load(place, lambda case: read_case(case, reader([volume("pat_0", (5, 5, 5))])))


def test_the_same_seed_draws_the_same_in_any_order(bank):
    here, there = made(plan_of(bank)), made(plan_of(bank))
    wanted = [drawn(here, n) for n in range(3)]
    assert drawn(there, 2) == wanted[2]
    backwards = [there.load(place, read).sample for place in reversed(there.order(0))]
    assert backwards[::-1] == [sample for _, sample in wanted[0]]
    assert drawn(made(plan_of(bank, seed=6)), 0) != wanted[0]
    assert len({tuple(one) for one in wanted}) == 3


_inherited: list[Subepochs] = []


def begin(subepochs: Subepochs) -> None:
    _inherited[:] = [subepochs]


def ask(subepoch: int) -> list[tuple[str, str]]:
    return drawn(_inherited[0], subepoch)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_every_process_draws_the_same(bank, start):
    here, there = made(plan_of(bank)), made(plan_of(bank))
    wanted = [drawn(here, n) for n in range(2)]
    there.load(there.order(0)[0], read)  # what is open here is not theirs
    context = multiprocessing.get_context(start)
    with ProcessPoolExecutor(1, context, begin, (there,)) as pool:
        assert [pool.submit(ask, n).result(60) for n in range(2)] == wanted


def test_a_copy_refuses_what_the_original_does(tmp_path):
    bank = write_bank(tmp_path / "bank", [BAD["stranger"][0]])
    copy = pickle.loads(pickle.dumps(made(plan_of(bank, log=tmp_path / "log"))))
    assert all(one.sample == "" for _, one in load(copy, 0))
    counts = summarise(tmp_path / "log")
    assert (counts.real, counts.synthetic, counts.fell_back) == (6, 0, 4)
