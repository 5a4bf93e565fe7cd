"""From one case to its segments, and what configurations say of that."""

from dataclasses import replace

import numpy as np
import pytest

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.configs import read_train_config
from gansynth_deepmedic.engine.augment import Augmentation
from gansynth_deepmedic.engine.cutting import (
    Cutting,
    Sampling,
    Segments,
    cut,
    prepared,
    read_volume,
)
from gansynth_deepmedic.engine.geometry import padded
from gansynth_deepmedic.engine.volumes import Affine, ZScore
from gansynth_deepmedic.model_config import read_model_config
from tests.adapters.deepmedic.bright import PLAIN, SIZES, loaded
from tests.deepmedic_sets import Toy, toy_deepmedic

CHANGED = replace(PLAIN, augment=Augmentation.usual())


# -- one case --------------------------------------------------------------------------------------


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
    cutting = replace(PLAIN, affine=Affine(prob=1.0, orders=(0,)), augment=Augmentation(
        reflect=(0.5, 0.5, 0.5), rotate90=((0.25,) * 4,) * 3))  # fmt: skip
    into = Segments.empty(20, 2, SIZES)
    cut(case, SIZES, cutting, np.random.default_rng(0), into, np.arange(20))
    np.testing.assert_array_equal(into.high[:, 1, 2:-2, 2:-2, 2:-2], into.labels)
    turned = prepared(case, SIZES, cutting, np.random.default_rng(0))
    assert not np.array_equal(turned.labels, padded(labels, SIZES.margin))
    still = prepared(case, SIZES, cutting)
    np.testing.assert_array_equal(still.labels, padded(labels, SIZES.margin))


def test_without_augmentation_nothing_is_changed():
    cutting = replace(PLAIN, affine=Affine(prob=1.0), augment=Augmentation(shift=(0.5, 0.0)))
    into = [Segments.empty(4, 2, SIZES) for _ in range(2)]
    for one, how in zip(into, (cutting, PLAIN), strict=True):
        rng = np.random.default_rng(0)
        cut(loaded(), SIZES, how, rng, one, np.arange(4), augment=False)
    np.testing.assert_array_equal(into[0].high, into[1].high)
    np.testing.assert_array_equal(into[0].low, into[1].low)
    np.testing.assert_array_equal(into[0].labels, into[1].labels)


def test_a_case_is_left_as_it_was():
    case = loaded()
    before = case.image.copy(), case.labels.copy()
    cutting = replace(CHANGED, normalise=ZScore(), affine=Affine(prob=1.0), pad=False)
    into = Segments.empty(4, 2, SIZES)
    cut(case, SIZES, cutting, np.random.default_rng(0), into, np.arange(4))
    np.testing.assert_array_equal(case.image, before[0])
    np.testing.assert_array_equal(case.labels, before[1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.full((18, 20, 22), 3, np.int16)}, "labels from 3 to 3, expected 0 to 2"),
        ({"labels": np.full((18, 20, 22), -1, np.int16)}, "labels from -1 to -1"),
        ({"roi": np.ones((18, 20, 21), np.int16)}, "have shapes"),
        ({"image": np.ones((2, 4, 20, 22), np.float32),
          "labels": np.zeros((4, 20, 22), np.int16), "roi": None}, "at least a segment's"),
    ],
)  # fmt: skip
def test_cases_that_cannot_be_cut_are_named(change, says):
    case, into = loaded(**change), Segments.empty(1, 2, SIZES)
    with pytest.raises(DataFault, match=f"^pat_0: .*{says}"):
        cut(case, SIZES, PLAIN, np.random.default_rng(0), into, np.arange(1))


# -- configurations --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    augment = {"reflect": (0.5, 0.0, 0.0), "hist_dist": None, "rotate90": None}
    values = {
        "proportionOfSamplesToExtractPerCategoryTraining": [2, 1, 1],
        "augm_sample_prms_tr": augment,
        "augm_img_prms_tr": {"affine": {"prob": 0.5}},
        "norm_zscore_prms": {"apply_to_all_channels": True},
        "padInputImagesBool": False,
    }
    return toy_deepmedic(tmp_path_factory.mktemp("toy"), train=2, val=1, values=values)


def test_what_is_done_comes_from_the_configurations(toy):
    config, model = read_train_config(toy.train), read_model_config(toy.model)
    found = Cutting.from_configs(config, model)
    assert found == Cutting(
        Sampling(3, 3, (2.0, 1.0, 1.0)),
        False,
        ZScore(),
        Affine(prob=0.5),
        Augmentation(reflect=(0.5, 0.0, 0.0)),
    )
    validation = found.for_validation(config)
    assert validation == Cutting(Sampling(1, 3), False, ZScore())
    values = {**config.values, "weightedMapsForSamplingEachCategoryTrain": ["./a.cfg"]}
    with pytest.raises(DataFault, match=r"trainConfig\.cfg: weightedMaps.*no weight maps"):
        Cutting.from_configs(replace(config, values=values), model)


def test_files_are_read_as_they_are_stored(toy):
    listed = read_train_config(toy.train).train[0]
    assert listed.labels is not None
    assert read_volume(str(listed.labels)).shape == (36, 32, 28)
    with pytest.raises(DataFault, match="no such file"):
        read_volume(str(toy.folder / "none.nii.gz"))
