import shutil
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.check import check_deepmedic, refuse_unusable
from gansynth_deepmedic.configs import read_model_config, read_values
from tests.deepmedic_sets import AFFINE, Toy, store, stored, toy_deepmedic, write_config

ON_VOLUMES = "performFullInferenceOnValidationImagesEveryFewEpochs"
SHARES = "proportionOfSamplesToExtractPerCategoryTraining"


@pytest.fixture
def toy(tmp_path) -> Toy:
    return toy_deepmedic(tmp_path / "toy", train=2, val=1, shape=(20, 18, 16))


def change_model(toy: Toy, **values: Any) -> None:
    write_config(toy.model, read_values(toy.model) | values)


def findings(toy: Toy, level: str = "error", *, model: bool = True, **asked: Any) -> list[str]:
    read = {"model": str(toy.model)} if model else {}
    request = SourceRequest("deepmedic", str(toy.train), read=read, **asked)
    found = check_deepmedic(request, lambda *_: None).findings
    assert all("\n" not in finding.message for finding in found)
    return [finding.message for finding in found if finding.level == level]


def unusable(toy: Toy) -> str:
    """What DeepMedic would stop at, as told before a training; checking tells it too."""
    source = toy.source()
    with pytest.raises(DataFault) as caught:
        refuse_unusable(source, read_model_config(toy.model), mixed=False)
    assert str(caught.value) in findings(toy)
    return str(caught.value)


def test_a_sound_data_set_has_no_findings(toy):
    assert findings(toy) + findings(toy, "warning") + findings(toy, "warning", model=False) == []


def test_a_region_that_cannot_weigh_is_refused_where_it_is_sampled_from(toy):
    """DeepMedic multiplies it with int8, which numpy refuses; by default only validation does."""
    held, trained = toy.file("roi", "pat_02"), toy.file("roi", "pat_00")
    store(held, stored(held).astype(np.uint8))
    store(trained, stored(trained).astype(np.uint16))
    (said,) = findings(toy)
    assert said.startswith(f"{held}: a region of interest of an unsigned type, or with weights ")
    image = nib.Nifti1Image(stored(held), AFFINE)
    image.header.set_slope_inter(0.9999, 0)
    image.to_filename(held)
    assert findings(toy) == []  # scaled, so no longer unsigned
    toy.change(typeOfSamplingForTraining=2)
    assert unusable(toy).startswith(f"{trained}: a region of interest of an unsigned type")
    toy.change(typeOfSamplingForTraining=None)
    region = np.rint(stored(held)).astype(np.int16)
    region[:1] = -2
    store(held, region)
    assert "weights below 0 (-2)" in unusable(toy)


def test_a_region_that_nothing_can_be_sampled_of(toy):
    path = toy.file("roi")
    region = stored(path) * np.int16(0)
    store(path, region)
    assert unusable(toy).startswith(f"{path}: no voxel is above 0, expected a region of interest")
    region[:1] = 1
    store(path, region)
    assert "to take a segment of [13, 13, 13] (segmentsDimTrain) around" in unusable(toy)


def test_labels_that_the_network_has_no_class_for(toy):
    change_model(toy, numberOfOutputClasses=2)
    with pytest.raises(DataFault, match="holds label 2, expected whole numbers from 0 to 1"):
        refuse_unusable(toy.source(), read_model_config(toy.model), mixed=False)
    found = findings(toy)
    for case in ("pat_00", "pat_01", "pat_02"):
        said = (
            f"{toy.file('labels', case)}: label value(s) [2] are not in modelConfig.cfg, expected"
        )
        assert any(one.startswith(said) for one in found)


def test_a_case_without_any_category_to_sample(toy):
    toy.change(typeOfSamplingForTraining=0, **{SHARES: [1, 0]})
    assert findings(toy) == []
    path = toy.file("labels", "pat_01")
    store(path, np.zeros_like(stored(path)))
    assert "by type of sampling 0 and shares (1.0, 0.0); expected some" in unusable(toy)
    assert findings(toy, "warning") == [f"{path}: no foreground, only background"]
    toy.change(typeOfSamplingForTraining=3, **{SHARES: [0, 1, 1]})
    assert "by type of sampling 3 and shares (0.0, 1.0, 1.0); expected some" in unusable(toy)


def test_shares_and_channels_are_as_many_as_the_network_has(toy):
    for kind, shares, count in ((3, [1, 1], 3), (3, [0, 0, 0], 3), (0, [1, 1, 1], 2)):
        toy.change(typeOfSamplingForTraining=kind, **{SHARES: shares})
        assert f"{SHARES} is {[*map(float, shares)]}, expected {count} number(s)" in unusable(toy)
    toy.change(**{SHARES: None})
    change_model(toy, numberOfInputChannels=4)
    assert unusable(toy) == (
        f"{toy.model}: numberOfInputChannels is 4, expected 2 as {toy.train} lists (flair, t1c); "
        "correct one of them"
    )


@pytest.mark.parametrize(("pad", "least"), [(True, 7), (False, 13)])
def test_volumes_smaller_than_a_segment(toy, pad, least):
    """DeepMedic pads by what a segment leaves unpredicted: 6 of 13 voxels here."""
    toy.change(padInputImagesBool=pad)
    for width in (least, least - 1):
        for name in ("flair", "t1c", "labels", "roi"):
            array = stored(toy.file(name))[:14, :width, :15]
            store(toy.file(name), np.ones_like(array) if name == "roi" else array)
        if width == least:
            assert findings(toy) == []
    assert f"no voxel of {(14, least - 1, 15)} to take a segment of [13, 13, 13]" in unusable(toy)


def test_volumes_to_infer_whole(toy):
    change_model(toy, segmentsDimInference=[23, 23, 23])
    assert findings(toy) == []
    toy.change(padInputImagesBool=False)
    assert unusable(toy).startswith(f"{toy.file('roi', 'pat_02')}: no voxel of (24, 22, 20) to")
    toy.change(**{ON_VOLUMES: False})
    assert findings(toy) == []


def test_what_deepmedic_rounds_or_ignores_is_worth_a_word(toy):
    path, region = toy.file("labels"), toy.file("roi")
    store(path, stored(path) * np.float32(0.9))
    store(region, stored(region), AFFINE + 0.5 * np.eye(4)[:, [3, 0, 1, 2]])
    rounded, apart = findings(toy, "warning")
    assert rounded.startswith(f"{path}: holds fractions, which DeepMedic rounds, expected whole")
    assert apart.startswith(f"{region}: affine differs from that of labels.nii.gz by up to 0.5 mm")
    store(path, np.rint(stored(path)) * np.float32(0.9997))
    assert len(findings(toy, "warning")) == 1


def test_files_of_a_case_have_one_shape(toy):
    path = toy.file("t1c", "pat_01")
    store(path, stored(path)[1:])
    said = f"{path}: shape is (21, 20, 18), but (22, 20, 18) in labels.nii.gz; expected equal"
    assert unusable(toy).startswith(said)


def test_everything_is_told_at_once(toy):
    for name in ("flair", "t1c", "labels", "roi"):
        with open(toy.folder / f"training_{name}.cfg", "a") as stream:
            stream.write(f"data/pat_00/{name}.nii.gz\ndata/pat_09/{name}.nii.gz\n")
    damaged, empty = (toy.file(name, "pat_01") for name in ("labels", "flair"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    store(empty, np.full_like(stored(empty), 3))
    for name in ("flair", "t1c"):
        shutil.copy(toy.file(name), toy.file(name, "pat_02"))
    told = {
        "error": (
            f"{toy.file('flair', 'pat_09')}: missing, expected for case 'pat_09'",
            f"{damaged}: truncated at byte",
            f"{toy.train}: cases pat_00, pat_02 have the same image, and fold 0 trains on",
        ),
        "warning": (
            f"{toy.train}: 1 entry(s) of its lists name a case again; each counts as one case",
            f"{empty}: every voxel is 3.0; an empty channel?",
        ),
    }
    for level, starts in told.items():
        found = findings(toy, level, subjects="(pat)")
        assert [start for start in starts if not any(t.startswith(start) for t in found)] == []
    assert any("(subject pat)" in said for said in findings(toy, subjects="(pat)"))
