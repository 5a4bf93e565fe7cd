from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import gansynth
from gansynth.bank.draw_log import summarise
from gansynth.core.foreground import ForegroundIndex
from gansynth.core.schema import Sample
from gansynth.core.source import case_records, lineage_of
from gansynth.core.space import Space
from gansynth.hosts.mixing.segments import segment_margin, segment_parts
from gansynth.hosts.mixing.training_data import CentredCrops
from gansynth.testing import ToySource
from tests.banks import Pairs, write_bank
from tests.expected import raises_fault

SIDE = 60
SMALL: dict[str, Any] = {"segment": 9, "receptive": 5, "batch_size": 6, "steps": 4}


class FewCases(ToySource):
    """Fewer large cases than usual: each is compared with each held-out one."""

    @property
    def train_ids(self):
        return super().train_ids[:6]

    @property
    def held_out_ids(self):
        return super().held_out_ids[:1]


@pytest.fixture(scope="module")
def source():
    return FewCases(3, side=SIDE)


@pytest.fixture(scope="module")
def bank(source, tmp_path_factory) -> Path:
    """Samples of 57 voxels an axis: parts of real cases, marked by whole numbers."""
    pairs: Pairs = []
    for case in map(source.load, source.train_ids):
        inner = (slice(2, 59),) * 3
        image, labels = np.round(case.image[(slice(None), *inner)]), case.labels[inner]
        pairs.append((Sample(image, labels, provenance={"case": case.id}), {}))
    folder = tmp_path_factory.mktemp("segments") / "bank"
    return write_bank(folder, source.schema, lineage_of(source), pairs)


def test_contexts_are_every_nth_voxel_of_one_crop():
    edge = 25 - 16 + 2 * segment_margin(17, [3, 5])
    crop = np.arange(edge**3).reshape(1, edge, edge, edge)
    high, third, fifth = segment_parts(crop, 17, [3, 5])
    first = 40 - 8
    np.testing.assert_array_equal(high, crop[(slice(None), *[slice(first, first + 25)] * 3)])
    # DeepMedic's contexts begin 16 and 32 voxels before a segment and have 19 and 18 voxels.
    np.testing.assert_array_equal(third[0, :, 0, 0], crop[0, 16 : 16 + 55 : 3, 16, 16])
    np.testing.assert_array_equal(fifth[0, :, 0, 0], crop[0, : 17 * 5 + 1 : 5, 0, 0])


def test_every_batch_has_the_ratio_and_every_item_its_context(source, bank, tmp_path):
    data = gansynth.mix_segments(source, bank, "1:2", log=tmp_path / "log", **SMALL)
    for batch in DataLoader(data, batch_size=data.batch_size):
        high, low = batch["parts"]
        assert high.shape == (6, 2, 9, 9, 9)
        assert low.shape == (6, 2, 6, 6, 6)
        assert batch["labels"].shape == (6, 5, 5, 5)
        assert int(batch["synthetic"].sum()) == 4
        marked = (high == high.round()).flatten(1).all(1)
        torch.testing.assert_close(marked, batch["synthetic"])
    assert len(data) == 24
    assert data.counts().synthetic == summarise(data.log).synthetic == 16


def test_items_depend_on_seed_and_place_alone(source, bank):
    first, again, other = (
        gansynth.mix_segments(source, bank, "1:1", seed=seed, **SMALL) for seed in (1, 1, 2)
    )
    for place in (7, 3):
        for ours, theirs in zip(first[place]["parts"], again[place]["parts"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert not torch.equal(first[3]["parts"][1], other[3]["parts"][1])


def test_centres_are_of_each_class_equally_often(source):
    space = CentredCrops("crop", (16, 16, 16))
    rng, case = np.random.default_rng(0), source.load(source.train_ids[0])
    outline, found = ForegroundIndex.of(case), []
    for _ in range(600):
        corner = space.place(outline, rng).corner
        found.append(case.labels[tuple(c + 8 for c in corner)])
    shares = [found.count(value) / 600 for value in (0, 1, 2)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.06)


def test_crops_go_beyond_a_case_but_not_beyond_a_sample_and_whole_cases_have_one_place(source):
    space, case = CentredCrops("crop", (58, 58, 58)), source.load(source.train_ids[0])
    rng, outline = np.random.default_rng(0), ForegroundIndex.of(case)
    real = np.array([space.place(outline, rng).corner for _ in range(50)])
    samples = np.array([space.place(case, rng).corner for _ in range(50)])
    assert real.min() < 0
    assert real.max() > 2
    assert (samples.min(), samples.max()) == (0, 2)
    whole = CentredCrops("resample", (8, 8, 8)).place(case, rng)
    assert whole == Space("resample", (8, 8, 8)).centre(case)


def test_windows_are_predicted_without_their_margin():
    image = np.random.default_rng(0).normal(0, 1, (2, 20, 9, 31)).astype(np.float32)
    sizes = set()

    def network(windows: torch.Tensor) -> torch.Tensor:
        sizes.add(tuple(windows.shape[2:]))
        return windows[:, :, 3:-3, 3:-3, 3:-3]

    found = gansynth.predict_by_windows(network, image, (14, 15, 16), overlap=0, margin=3)
    np.testing.assert_allclose(found, image, rtol=1e-6)
    assert sizes == {(14, 15, 16)}


def test_the_loop_of_the_page_trains_and_predicts(example, source, bank):
    part = ("held_out_ids[0]).image", "held_out_ids[0]).image[:, :41, :41, :41]")  # one window
    names = example("segments", part, source=source, bank=bank, steps=1, workers=0)
    assert torch.isfinite(names["loss"])
    assert names["labels"].shape == (41, 41, 41)


def test_numbers_that_make_no_segment_and_banks_that_leak_are_refused(source, tmp_path):
    for options, names in (
        ({"receptive": 4}, "receptive=4,"),
        ({"receptive": 11}, "receptive=11,"),
        ({"factors": [0]}, "factors=(0,)"),
    ):
        with raises_fault("hosts.segment-sizes-wrong", names=names):
            gansynth.mix_segments(source, None, "1:0", **{**SMALL, **options})
    seen = lineage_of(source)
    seen = replace(seen, cases=case_records(source, source.held_out_ids))
    bank = write_bank(tmp_path / "bank", source.schema, seen)
    with raises_fault("lineage.held-out-case-seen"):
        gansynth.mix_segments(source, bank, "1:1", **SMALL)
