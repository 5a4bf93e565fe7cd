"""The torch data set of segments: R:S exact, reproducible, from where it should be."""

import threading
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.configs import read_train_config
from gansynth_deepmedic.engine.augment import Augmentation
from gansynth_deepmedic.engine.cutting import Cutting, prepared, read_volume
from gansynth_deepmedic.engine.geometry import Geometry, high_segment, low_context, padded
from gansynth_deepmedic.engine.segments import DeepMedicSegments
from gansynth_deepmedic.model_config import read_model_config
from gansynth_deepmedic.subepochs import Subepochs
from tests.adapters.deepmedic.arrays import patch, reader, write_bank
from tests.adapters.deepmedic.bright import CASES, PLAIN, SIZES, SYNTHETIC, loaded
from tests.deepmedic_brats import BRATS, CLASSES, brats_deepmedic

CHANGED = replace(PLAIN, augment=Augmentation.usual())


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    samples = [patch(CASES[n % 3], (4, 3, 2), (14, 14, 14), value=SYNTHETIC + n) for n in range(12)]
    return write_bank(tmp_path_factory.mktemp("bank") / "bank", samples)


def made(bank: Path | None, ratio: str = "1:1", cases: int = 4, **more: Any) -> DeepMedicSegments:
    plan: MixPlan[int] = MixPlan(bank, Ratio.parse(ratio), seed=3, patience=0.2)
    subepochs = Subepochs(plan, [one.host for one in CASES], cases)
    asked: dict[str, Any] = {"segments": 8 * cases, **more}
    cutting = asked.pop("cutting", PLAIN)
    return DeepMedicSegments(subepochs, reader(CASES), SIZES, cutting, **asked)


def whole(data: DeepMedicSegments) -> dict[str, torch.Tensor]:
    return data.batch(0, len(data))


# -- what a subepoch is ----------------------------------------------------------------------------


def test_items_have_the_promised_shapes_and_types(bank):
    data = made(bank)
    data.set_subepoch(0)
    item = data[5]
    assert {name: (tuple(of.shape), of.dtype) for name, of in item.items()} == {
        "high": ((2, 9, 9, 9), torch.float32),
        "low_0": ((2, 6, 6, 6), torch.float32),
        "labels": ((5, 5, 5), torch.int64),
        "synthetic": ((), torch.bool),
    }
    assert len(data) == 32
    assert torch.equal(data[-1]["high"], data[31]["high"])
    with pytest.raises(IndexError, match="segment 32 of 32"):
        data[32]
    batches = list(DataLoader(data, batch_size=8))
    assert [tuple(batch["high"].shape) for batch in batches] == [(8, 2, 9, 9, 9)] * 4
    for name, of in data.batch(8, 16).items():
        assert torch.equal(batches[1][name], of)


@pytest.mark.parametrize(
    ("ratio", "cases", "segments", "synthetic"),
    [
        ("1:1", 4, 32, 16),
        ("1:2", 6, 60, 40),
        ("2:1", 3, 31, 10),
        ("1:0", 3, 9, 0),
        ("0:1", 2, 8, 8),
    ],
)
def test_every_subepoch_has_exactly_r_to_s(bank, ratio, cases, segments, synthetic):
    data = made(bank, ratio, cases, segments=segments)
    for k in range(4):
        data.set_subepoch(k)
        found = whole(data)
        assert int(found["synthetic"].sum()) == synthetic
        # bright all over: centred where the patch is wholly synthetic
        middle = found["high"][:, 0, 4, 4, 4]
        assert torch.equal(middle >= SYNTHETIC, found["synthetic"])
        counts = [job.segments for job in data.jobs]
        assert sum(counts) == segments
        assert max(counts) - min(counts) <= 1


def test_real_and_synthetic_segments_are_shuffled_together(bank):
    data = made(bank, segments=64)
    data.set_subepoch(0)
    flags = whole(data)["synthetic"]
    assert 0 < int(flags[:32].sum()) < 32
    assert int((flags[1:] != flags[:-1]).sum()) > 12


def test_classes_are_balanced_in_each_case(bank):
    data = made(None, "1:0", 3, segments=90)
    data.set_subepoch(0)
    labels = whole(data)["labels"][:, 2, 2, 2]
    assert torch.bincount(labels).tolist() == [30, 30, 30]


def found_in(image: Any, high: Any, sizes: Geometry = SIZES) -> list[tuple[int, ...]]:
    """Where in an image (C, X, Y, Z) a segment begins."""
    starts = [tuple(int(n) for n in at) for at in np.argwhere(image[0] == float(high[0, 0, 0, 0]))]
    return [s for s in starts if np.array_equal(high_segment(image, s, sizes), high)]


def test_labels_and_contexts_belong_to_their_segment():
    data = made(None, "1:0", 3)
    data.set_subepoch(1)
    found = whole(data)
    # three apart, beginning at the segment's third voxel
    assert torch.equal(found["low_0"][:, :, 2:5, 2:5, 2:5], found["high"][:, :, 2::3, 2::3, 2::3])
    cases = Counter[str]()
    for high, own in zip(found["high"].numpy(), found["labels"].numpy(), strict=True):
        for number, one in enumerate(CASES):
            case = prepared(loaded(number), SIZES, PLAIN)
            for start in found_in(case.image, high):
                np.testing.assert_array_equal(case.labels[SIZES.predicted(start)], own)
                cases[one.host.id] += 1
    assert cases == {"pat_0": 8, "pat_1": 8, "pat_2": 8}


# -- reproducible ----------------------------------------------------------------------------------


def same(one: DeepMedicSegments, other: DeepMedicSegments) -> bool:
    return all(torch.equal(of, whole(other)[name]) for name, of in whole(one).items())


def test_subepochs_are_the_same_in_any_order_and_in_threads(bank):
    data, other = made(bank, cutting=CHANGED), made(bank, cutting=CHANGED)
    data.set_subepoch(0)
    data.set_subepoch(2)
    drawn: list[Any] = []
    thread = threading.Thread(target=lambda: drawn.append(other.draw(2)))
    thread.start()
    thread.join()
    other.set_subepoch(2, drawn[0])
    assert same(data, other)
    assert data.jobs == other.jobs
    data.set_subepoch(3)
    assert not same(data, other)


def test_no_subepoch_and_no_place_repeats_what_another_has_drawn():
    data = made(None, "1:0", 6, segments=48)  # each case twice
    seen: list[float] = []
    for k in range(3):
        data.set_subepoch(k)
        assert sorted(Counter(job.case for job in data.jobs).values()) == [2, 2, 2]
        seen += whole(data)["high"][:, 0, 4, 4, 4].tolist()
    assert len(set(seen)) > 0.95 * len(seen)


def test_seeds_change_what_is_cut(bank):
    data, other = made(bank), made(bank, seed=1)
    assert [job.sample for job in other.draw(0).jobs] == [job.sample for job in data.draw(0).jobs]
    assert not same(data, other)


def test_the_global_random_states_are_left_alone(bank):
    np.random.seed(7)  # noqa: NPY002 - the global state is what is looked at
    torch.manual_seed(7)
    expected = np.random.RandomState(7).random_sample(), torch.Generator().manual_seed(7)
    made(bank, cutting=CHANGED).set_subepoch(0)
    assert np.random.random_sample() == expected[0]  # noqa: NPY002 - likewise
    assert torch.rand(1) == torch.rand(1, generator=expected[1])


def test_segments_of_another_subepoch_are_refused(bank):
    data = made(bank)
    with pytest.raises(ValueError, match="subepoch 1, expected 2"):
        data.set_subepoch(2, data.draw(1))


def test_volumes_are_forgotten_once_they_are_cut(bank):
    data = made(bank, cases=2, segments=2)
    data.set_subepoch(0)
    volume_bytes = loaded().image.nbytes
    tracemalloc.start()
    data.set_subepoch(1)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < volume_bytes
    assert peak < 12 * volume_bytes


# -- synthetic cases -------------------------------------------------------------------------------


def test_jobs_are_told_when_their_subepoch_begins(bank):
    told: list[Any] = []
    data = made(bank, tell=lambda **line: told.append(line))
    drawn = data.draw(0)
    assert told == []
    data.set_subepoch(0, drawn)
    assert [line["job"] for line in told] == [job.to_json() for job in data.jobs]
    assert Counter(line["job"]["kind"] for line in told) == {"real": 2, "synthetic": 2}
    assert {line["job"]["segments"] for line in told} == {8}
    assert all(bool(line["job"]["sample"]) == (line["job"]["kind"] == "synthetic") for line in told)


def test_a_case_that_stands_in_for_a_missing_sample_is_a_fallback_and_real(tmp_path):
    data = made(write_bank(tmp_path / "bank", []))
    data.set_subepoch(0)
    assert Counter(job.kind for job in data.jobs) == {"real": 2, "fallback": 2}
    assert not whole(data)["synthetic"].any()


def test_synthetic_cases_are_augmented_like_real_ones_unless_asked_otherwise(bank):
    shifting = replace(PLAIN, augment=Augmentation(shift=(0.5, 0.0)))
    for changed, expected in ((True, 0.5), (False, 0.0)):
        data = made(bank, cutting=shifting, augment_synthetic=changed)
        found = whole(data)
        middle = found["high"][found["synthetic"]][:, 0, 4, 4, 4]
        assert torch.equal(middle % 1, torch.full_like(middle, expected))
        plain = whole(made(bank))
        real = ~found["synthetic"]
        for name in ("high", "low_0"):
            torch.testing.assert_close(found[name][real], plain[name][real] + 0.5)
    data = made(bank, cutting=shifting, augment=False)
    assert torch.equal(whole(data)["high"], whole(made(bank))["high"])


def test_a_core_too_near_the_border_is_left_and_said(tmp_path, caplog):
    sample = patch(CASES[0], (0, 0, 0), (3, 4, 4), value=SYNTHETIC)
    data = made(write_bank(tmp_path / "bank", [sample]))
    wide = replace(data.cutting, pad=False)  # without padding a segment does not fit there
    data = made(write_bank(tmp_path / "other", [sample]), cutting=wide)
    data.set_subepoch(0)
    assert [job.spread for job in data.jobs if job.kind == "synthetic"] == [True, True]
    assert "pat_0: no segment can be centred on what of" in caplog.text


# -- without configurations ------------------------------------------------------------------------


def arrays(number: int) -> Any:
    """A case as gansynth's axes have it."""
    files, host = CASES[number].files, CASES[number].host
    image = np.stack([host.view(files[channel]) for channel in host.channels])
    return image, host.view(files[host.labels]), None


def test_cases_in_memory_are_cut_in_their_own_axes(bank):
    cases = {f"pat_{n}": arrays(n) for n in range(3)}
    data = DeepMedicSegments.of(
        cases, bank, "1:2", segment=9, receptive=5, segments=36, augment=False, seed=4
    )
    assert len(data.subepochs) == 9
    data.set_subepoch(0)
    found = whole(data)
    assert int(found["synthetic"].sum()) == 24
    images = [padded(image, SIZES.margin) for image, _, _ in cases.values()]
    for high in found["high"][~found["synthetic"]].numpy():
        assert sum(len(found_in(image, high)) for image in images) == 1
    bright = {int(value) for value in found["high"][found["synthetic"]][:, 0, 4, 4, 4]}
    assert bright <= {int(SYNTHETIC) + n for n in range(12)}
    other = DeepMedicSegments.of(cases, bank, "1:2", segment=9, receptive=5, segments=36, seed=4)
    assert other.cutting.augment == Augmentation((0.0, 0.05), (1.0, 0.01), (0.0, 0.0, 0.5))
    assert [job.sample for job in other.draw(0).jobs] == [job.sample for job in data.jobs]


def test_a_case_in_memory_is_cut_as_low_context_says():
    image, labels, _ = arrays(1)
    data = DeepMedicSegments.of(
        {"a": (image, labels, None)},
        segment=9,
        receptive=5,
        factors=(3, 5),
        segments=6,
        augment=False,
    )
    found, sizes = data[0], Geometry.cubes(9, 5, (3, 5))
    whole_image = padded(image, sizes.margin)
    (start,) = found_in(whole_image, found["high"].numpy(), sizes)
    for number, factor in enumerate(sizes.factors):
        context = low_context(whole_image, start, factor, sizes)
        np.testing.assert_array_equal(found[f"low_{number}"], context)


def test_labels_of_a_source_say_what_is_outside():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 20, 20, 20)).astype(np.float32)
    labels = np.zeros((20, 20, 20), np.int16)
    labels[9:13, 9:13, 9:13] = 1
    labels[:, :, :8] = -1
    roi = (labels != -1).astype(np.int16)
    shape: dict[str, Any] = {"segment": 5, "receptive": 3, "segments": 24}
    found = DeepMedicSegments.of({"a": (image, labels, None)}, **shape)
    wanted = DeepMedicSegments.of({"a": (image, np.maximum(labels, 0), roi)}, **shape)
    for data in (found, wanted):
        data.set_subepoch(0)
    assert all((found[n]["high"] == wanted[n]["high"]).all() for n in range(24))
    assert int(min(found[n]["labels"].min() for n in range(24))) == 0
    assert labels.min() == -1  # as it was


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ((np.ones((2, 9, 9, 9)), np.ones((9, 9, 8), np.int16), None), "a: image has shape"),
        ((np.full((2, 9, 9, 9), np.nan), np.ones((9, 9, 9), np.int16), None), "not finite"),
    ],
)
def test_odd_cases_in_memory_are_named(case, says):
    with pytest.raises(DataFault, match=says):
        DeepMedicSegments.of({"a": case})


# -- real ------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.skipif(not BRATS.is_dir(), reason="no BRATS 2015 subjects in ../shared/data")
def test_a_subepoch_of_real_subjects(tmp_path):
    from gansynth.core.source import SourceRequest
    from gansynth_deepmedic.source import open_deepmedic

    toy = brats_deepmedic(tmp_path, model={
        "numberFMsPerLayerNormal": [4] * 8, "kernelDimPerLayerNormal": [[3, 3, 3]] * 8,
        "segmentsDimTrain": [25, 25, 25], "segmentsDimVal": [17, 17, 17],
        "segmentsDimInference": [25, 25, 25]})  # fmt: skip
    config, model = read_train_config(toy.train), read_model_config(toy.model)
    source = open_deepmedic(SourceRequest("deepmedic", str(toy.train)))
    hosts = [source.host_case(case) for case in source.train_ids]
    plan: MixPlan[int] = MixPlan(None, Ratio.parse("1:0"))
    sizes = Geometry.from_model(model)
    data = DeepMedicSegments(
        Subepochs(plan, hosts, 2),
        read_volume,
        sizes,
        Cutting.from_configs(config, model),
        segments=50,
    )
    began = time.monotonic()
    data.set_subepoch(0)
    assert time.monotonic() - began < 20
    found = whole(data)
    assert tuple(found["low_0"].shape) == (50, 2, 19, 19, 19)
    middle = torch.bincount(found["labels"][:, 4, 4, 4], minlength=CLASSES)
    assert middle.sum() == 50
    assert (middle >= 10).all()
    assert all(torch.isfinite(found[name]).all() for name in ("high", "low_0"))
