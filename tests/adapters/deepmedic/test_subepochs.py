from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.core.mixer_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.core.schema import Sample
from gansynth_deepmedic.hook import SubepochCase, Subepochs
from gansynth_deepmedic.insertion import HostCase, LoadedCase
from tests.adapters.deepmedic.arrays import WAYS, loaded, patch, volume, write_bank

VOLUMES = tuple(
    volume(f"pat_{n}", (8 + n, 7, 6), stored=WAYS[11 * n + 3], roi=n != 2, seed=n) for n in range(4)
)


def read(case: HostCase) -> LoadedCase:
    """Read a case of ``VOLUMES``."""
    return loaded(next(volume for volume in VOLUMES if volume.host == case))


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


SIZE = (5, 5, 4)
FIRST = patch(VOLUMES[0], (1, 1, 1), SIZE)
SLICE = {"case": "pat_0", "placement": {"corner": [1, 1], "slice_index": 3}}
UNFIT = [
    replace(FIRST, provenance={**FIRST.provenance, "case": "pat_9"}),
    replace(FIRST, provenance=SLICE),
    replace(FIRST, labels=np.full(SIZE, -1, np.int16)),
    patch(VOLUMES[2], None, (7, 7, 6)),
]


def test_another_is_drawn_for_one_that_cannot_be_inserted(tmp_path):
    bank = write_bank(tmp_path / "bank", UNFIT + samples_of(5))
    subepochs = made(plan_of(bank, log=tmp_path / "log"))
    for subepoch in range(10):
        assert sum(bool(one.sample) for _, one in load(subepochs, subepoch)) == 4
    assert summarise(tmp_path / "log").fell_back == 0
    bank = write_bank(tmp_path / "unfit", UNFIT[:1])
    assert not any(sample for _, sample in drawn(made(plan_of(bank, log=tmp_path / "none")), 0))
    assert "is of none of the training cases" in next(iter(summarise(tmp_path / "none").reasons))
