"""From cases to segments, and the data set of them: R:S exact, reproducible, from where they are.

Cases are told apart by their brightness.
"""

import threading
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.engine.augment import SegmentAugmentation
from gansynth_deepmedic.engine.configs import read_model_config, read_train_config
from gansynth_deepmedic.engine.cutting import CentreSampling, SegmentCutter, Segments, cut, prepared
from gansynth_deepmedic.engine.geometry import SegmentGeometry, high_segment, padded
from gansynth_deepmedic.engine.segments import DeepMedicSegments
from gansynth_deepmedic.engine.volumes import RandomAffine, ZScore
from gansynth_deepmedic.insertion import LoadedCase
from gansynth_deepmedic.subepochs import Subepochs
from tests.adapters.deepmedic.arrays import Volume, patch, reader, volume, write_bank
from tests.deepmedic_sets import Toy, toy_deepmedic

SIZES = SegmentGeometry.cubes(9, 5, (3,))
PLAIN = SegmentCutter(CentreSampling(classes=3))
CHANGED = replace(PLAIN, augment=SegmentAugmentation.usual())
SYNTHETIC = 1000.0
"""Samples are so bright; real cases are about 10, 30 and 50."""


def case_of(number: int) -> Volume:
    """A case about 20 * ``number`` brighter, all of it of interest."""
    made = volume(f"pat_{number}", (22 + number, 20, 18), units=((1.0, 0.0),) * 2, seed=number)
    files = dict(made.files)
    for path in made.host.channels:
        files[path] = files[path] + np.float32(20 * number)
    assert made.host.roi is not None
    files[made.host.roi] = np.ones_like(files[made.host.roi])
    return replace(made, files=files, roi=None)


CASES = tuple(case_of(number) for number in range(3))


def loaded(number: int = 0, **more: Any) -> LoadedCase:
    """A case as its files have it, or with other arrays."""
    files, host = CASES[number].files, CASES[number].host
    assert host.roi is not None
    image = np.stack([files[channel] for channel in host.channels])
    own = {"image": image, "labels": files[host.labels], "roi": files[host.roi], "core": None}
    return LoadedCase(**{**own, **more}, case=host.id)


def cut_of(
    case: LoadedCase, cutting: SegmentCutter, count: int, seed: int = 0, *, augment: bool = True
) -> Segments:
    into, rng = Segments.empty(count, 2, SIZES), np.random.default_rng(seed)
    cut(case, SIZES, cutting, rng, into, np.arange(count), augment=augment)
    return into


def test_volumes_are_padded_then_normalised_over_what_is_padded():
    case, cutting = loaded(), replace(PLAIN, normalise=ZScore())
    found = prepared(case, SIZES, cutting)
    assert found.image.shape == (2, 22, 24, 26)
    np.testing.assert_allclose(found.image.mean(axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(found.image.std(axis=(1, 2, 3)), 1, atol=1e-5)
    unpadded = prepared(case, SIZES, replace(cutting, pad=False))
    assert unpadded.image.shape == case.image.shape
    assert not np.array_equal(found.image[:, 2:-2, 2:-2, 2:-2], unpadded.image)


def test_a_core_is_not_mirrored_into_the_padding():
    core = np.ones(loaded().labels.shape, np.bool_)
    found = prepared(loaded(core=core), SIZES, PLAIN)
    assert found.core is not None
    assert found.core.sum() == core.sum()
    assert found.core[2:-2, 2:-2, 2:-2].all()


def test_volumes_turn_with_their_labels():
    labels = loaded().labels
    case = loaded(image=labels[None].repeat(2, axis=0).astype(np.float32))
    turning = SegmentAugmentation(reflect=(0.5, 0.5, 0.5), rotate90=((0.25,) * 4,) * 3)
    cutting = replace(PLAIN, affine=RandomAffine(prob=1.0, orders=(0,)), augment=turning)
    into = cut_of(case, cutting, 20)
    np.testing.assert_array_equal(into.high[:, 1, 2:-2, 2:-2, 2:-2], into.labels)
    turned = prepared(case, SIZES, cutting, np.random.default_rng(0))
    assert not np.array_equal(turned.labels, padded(labels, SIZES.margin))
    still = prepared(case, SIZES, cutting)
    np.testing.assert_array_equal(still.labels, padded(labels, SIZES.margin))


def test_a_case_is_left_as_it_was():
    case = loaded()
    before = case.image.copy(), case.labels.copy()
    cut_of(case, replace(CHANGED, normalise=ZScore(), affine=RandomAffine(prob=1.0), pad=False), 4)
    np.testing.assert_array_equal(case.image, before[0])
    np.testing.assert_array_equal(case.labels, before[1])


FLAT = {"image": np.ones((2, 4, 20, 22), np.float32), "labels": np.zeros((4, 20, 22), np.int16)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.full((18, 20, 22), 3, np.int16)}, "labels from 3 to 3, expected 0 to 2"),
        ({"roi": np.ones((18, 20, 21), np.int16)}, "have shapes"),
        ({**FLAT, "roi": None}, "at least a segment's"),
    ],
    ids=["high", "shapes", "small"],
)
def test_cases_that_cannot_be_cut_are_named(change, says):
    with pytest.raises(DataFault, match=f"^pat_0: .*{says}"):
        cut_of(loaded(**change), PLAIN, 1)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    values = {
        "proportionOfSamplesToExtractPerCategoryTraining": [2, 1, 1],
        "augm_sample_prms_tr": {"reflect": (0.5, 0, 0), "hist_dist": None, "rotate90": None},
        "augm_img_prms_tr": {"affine": {"prob": 0.5}},
        "norm_zscore_prms": {"apply_to_all_channels": True},
        "padInputImagesBool": False,
    }
    return toy_deepmedic(tmp_path_factory.mktemp("toy"), train=2, val=1, values=values)


def test_what_is_done_comes_from_the_configurations(toy):
    config, model = read_train_config(toy.train), read_model_config(toy.model)
    found = SegmentCutter.from_configs(config, model)
    sampling, reflecting = (
        CentreSampling(3, 3, (2.0, 1.0, 1.0)),
        SegmentAugmentation(reflect=(0.5, 0.0, 0.0)),
    )
    assert found == SegmentCutter(sampling, False, ZScore(), RandomAffine(prob=0.5), reflecting)
    assert found.for_validation(config) == SegmentCutter(CentreSampling(1, 3), False, ZScore())
    values = {**config.values, "weightedMapsForSamplingEachCategoryTrain": ["./a.cfg"]}
    with pytest.raises(DataFault, match=r"trainConfig\.cfg: weightedMaps.*no weight maps"):
        SegmentCutter.from_configs(config.model_copy(update={"values": values}), model)


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    samples = [patch(CASES[n % 3], (4, 3, 2), (14, 14, 14), value=SYNTHETIC + n) for n in range(12)]
    return write_bank(tmp_path_factory.mktemp("bank") / "bank", samples)


def made(bank: Path | None, ratio: str = "1:1", cases: int = 4, **more: Any) -> DeepMedicSegments:
    plan: MixerConfig[int] = MixerConfig(bank, Ratio.parse(ratio), seed=3, patience=0.2)
    subepochs = Subepochs(plan, [one.host for one in CASES], cases)
    asked: dict[str, Any] = {"segments": 8 * cases, **more}
    cutting = asked.pop("cutting", PLAIN)
    return DeepMedicSegments(subepochs, reader(CASES), SIZES, cutting, **asked)


def whole(data: DeepMedicSegments) -> dict[str, torch.Tensor]:
    return data.batch(0, len(data))


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


def found_in(image: Any, high: Any, sizes: SegmentGeometry = SIZES) -> list[tuple[int, ...]]:
    """Where in an image (C, X, Y, Z) a segment begins."""
    starts = [tuple(int(n) for n in at) for at in np.argwhere(image[0] == float(high[0, 0, 0, 0]))]
    return [s for s in starts if np.array_equal(high_segment(image, s, sizes), high)]


def test_labels_and_contexts_belong_to_their_segment():
    data = made(None, "1:0", 3)
    data.set_subepoch(1)
    found = whole(data)
    # three apart, beginning at the segment's third voxel
    assert torch.equal(found["low_0"][:, :, 2:5, 2:5, 2:5], found["high"][:, :, 2::3, 2::3, 2::3])
    cases = Counter[int]()
    for high, own in zip(found["high"].numpy(), found["labels"].numpy(), strict=True):
        for number in range(3):
            case = prepared(loaded(number), SIZES, PLAIN)
            for start in found_in(case.image, high):
                np.testing.assert_array_equal(case.labels[SIZES.predicted(start)], own)
                cases[number] += 1
    assert cases == {0: 8, 1: 8, 2: 8}


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
    with pytest.raises(ValueError, match="subepoch 1, expected 2"):
        data.set_subepoch(2, data.draw(1))


def test_no_subepoch_and_no_place_repeats_what_another_has_drawn():
    data = made(None, "1:0", 6, segments=48)  # each case twice
    seen: list[float] = []
    for k in range(3):
        data.set_subepoch(k)
        assert sorted(Counter(job.case for job in data.jobs).values()) == [2, 2, 2]
        seen += whole(data)["high"][:, 0, 4, 4, 4].tolist()
    assert len(set(seen)) > 0.95 * len(seen)


def test_the_global_random_states_are_left_alone(bank):
    np.random.seed(7)  # noqa: NPY002 - the global state is what is looked at
    torch.manual_seed(7)
    expected = np.random.RandomState(7).random_sample(), torch.Generator().manual_seed(7)
    made(bank, cutting=CHANGED).set_subepoch(0)
    assert np.random.random_sample() == expected[0]  # noqa: NPY002 - likewise
    assert torch.rand(1) == torch.rand(1, generator=expected[1])


def test_volumes_are_forgotten_once_they_are_cut(bank):
    data = made(bank, cases=2, segments=2)
    data.set_subepoch(0)
    tracemalloc.start()
    data.set_subepoch(1)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < loaded().image.nbytes
    assert peak < 12 * loaded().image.nbytes


def test_jobs_are_told_when_their_subepoch_begins(bank):
    told: list[Any] = []
    data = made(bank, tell=lambda **line: told.append(line["job"]))
    drawn = data.draw(0)
    assert told == []
    data.set_subepoch(0, drawn)
    assert told == [job.to_json() for job in data.jobs]
    assert Counter(job["kind"] for job in told) == {"real": 2, "synthetic": 2}
    assert {job["segments"] for job in told} == {8}
    assert all(bool(job["sample"]) == (job["kind"] == "synthetic") for job in told)


def test_synthetic_cases_are_augmented_like_real_ones_unless_asked_otherwise(bank):
    shifting = replace(PLAIN, augment=SegmentAugmentation(shift=(0.5, 0.0)))
    plain = whole(made(bank))
    for changed, expected in ((True, 0.5), (False, 0.0)):
        found = whole(made(bank, cutting=shifting, augment_synthetic=changed))
        middle = found["high"][found["synthetic"]][:, 0, 4, 4, 4]
        assert torch.equal(middle % 1, torch.full_like(middle, expected))
        real = ~found["synthetic"]
        for name in ("high", "low_0"):
            torch.testing.assert_close(found[name][real], plain[name][real] + 0.5)
    assert torch.equal(whole(made(bank, cutting=shifting, augment=False))["high"], plain["high"])


def test_a_core_too_near_the_border_is_left_and_said(tmp_path, caplog):
    sample = patch(CASES[0], (0, 0, 0), (3, 4, 4), value=SYNTHETIC)
    # without padding a segment does not fit there
    data = made(write_bank(tmp_path / "bank", [sample]), cutting=replace(PLAIN, pad=False))
    data.set_subepoch(0)
    assert [job.spread for job in data.jobs if job.kind == "synthetic"] == [True, True]
    assert "pat_0: no segment can be centred on what of" in caplog.text


def arrays(number: int) -> Any:
    """A case as gansynth's axes have it."""
    files, host = CASES[number].files, CASES[number].host
    image = np.stack([host.view(files[channel]) for channel in host.channels])
    return image, host.view(files[host.labels]), None


def test_cases_in_memory_are_cut_in_their_own_axes(bank):
    cases = {f"pat_{n}": arrays(n) for n in range(3)}
    asked: dict[str, Any] = {"segment": 9, "receptive": 5, "segments": 36, "seed": 4}
    data = DeepMedicSegments.of(cases, bank, "1:2", **asked, augment=False)
    assert len(data.subepochs) == 9
    data.set_subepoch(0)
    found = whole(data)
    assert int(found["synthetic"].sum()) == 24
    images = [padded(image, SIZES.margin) for image, _, _ in cases.values()]
    for high in found["high"][~found["synthetic"]].numpy():
        assert sum(len(found_in(image, high)) for image in images) == 1
    bright = {int(value) for value in found["high"][found["synthetic"]][:, 0, 4, 4, 4]}
    assert bright <= {int(SYNTHETIC) + n for n in range(12)}
    other = DeepMedicSegments.of(cases, bank, "1:2", **asked)
    assert other.cutting.augment == SegmentAugmentation((0.0, 0.05), (1.0, 0.01), (0.0, 0.0, 0.5))
    assert [job.sample for job in other.draw(0).jobs] == [job.sample for job in data.jobs]


def test_labels_of_a_source_say_what_is_outside():
    image = np.random.default_rng(0).normal(size=(1, 20, 20, 20)).astype(np.float32)
    labels = np.zeros((20, 20, 20), np.int16)
    labels[9:13, 9:13, 9:13] = 1
    labels[:, :, :8] = -1
    roi = (labels != -1).astype(np.int16)
    shape: dict[str, Any] = {"segment": 5, "receptive": 3, "segments": 24}
    found = DeepMedicSegments.of({"a": (image, labels, None)}, **shape)
    wanted = DeepMedicSegments.of({"a": (image, np.maximum(labels, 0), roi)}, **shape)
    for data in (found, wanted):
        data.set_subepoch(0)
    assert same(found, wanted)
    assert int(whole(found)["labels"].min()) == 0
    assert labels.min() == -1  # as it was


@pytest.mark.parametrize(
    ("value", "depth", "says"), [(1, 8, "a: image has shape"), (np.nan, 9, "not finite")]
)
def test_odd_cases_in_memory_are_named(value, depth, says):
    case = np.full((2, 9, 9, 9), value), np.ones((9, 9, depth), np.int16), None
    with pytest.raises(DataFault, match=says):
        DeepMedicSegments.of({"a": case})
