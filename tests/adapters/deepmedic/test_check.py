import shutil
from collections.abc import Callable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.check import check_deepmedic, refuse_unusable
from gansynth_deepmedic.configs import ON_VOLUMES, SHARES, read_model_config, read_values
from tests.deepmedic_sets import AFFINE, Toy, store, stored, toy_deepmedic, write_config

FILES = ("flair", "t1c", "labels", "roi")
SAMPLING, PAD, TILE = "typeOfSamplingForTraining", "padInputImagesBool", "segmentsDimInference"


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Toy:
    return toy_deepmedic(tmp_path_factory.mktemp("toy"), train=2, val=1, shape=(20, 18, 16))


@pytest.fixture
def toy(original, tmp_path) -> Any:
    return original.copied(tmp_path / "toy")


def findings(toy: Toy, level: str = "error", *, model: bool = True, **asked: Any) -> list[str]:
    read = {"model": str(toy.model)} if model else {}
    request = SourceRequest("deepmedic", str(toy.train), read=read, **asked)
    found = check_deepmedic(request, lambda *_: None).findings
    assert all("\n" not in finding.message for finding in found)
    return [finding.message for finding in found if finding.level == level]


def test_a_sound_data_set_has_no_findings(toy):
    assert findings(toy) + findings(toy, "warning") + findings(toy, "warning", model=False) == []


def border(value: int) -> Callable[[Any], Any]:
    """A region of interest of that value in its first plane; of no other, unless it is below 0."""

    def change(array: Any) -> Any:
        array = array * (value < 0)
        array[:1] = value
        return array

    return change


def cut(width: int) -> dict[str, Callable[[Any], Any]]:
    return {f"pat_00 {name}": lambda array: array[:14, :width, :15] for name in FILES}


def scaled(array: Any) -> nib.Nifti1Image:
    image = nib.Nifti1Image(array.astype(np.uint8), AFFINE)
    image.header.set_slope_inter(0.9999, 0)
    return image


def change(toy: Toy, training: Any, network: Any, files: Mapping[str, Any]) -> None:
    """Other values of both configurations, and files made anew of their arrays."""
    toy.change(**training)
    write_config(toy.model, read_values(toy.model) | network)
    for key, make in files.items():
        case, name = key.split()
        new = make(stored(toy.file(name, case)))
        image = new if isinstance(new, nib.Nifti1Image) else nib.Nifti1Image(new, AFFINE)
        image.to_filename(toy.file(name, case))


UNSIGNED = "a region of interest of an unsigned type, or with weights below 0"


@pytest.mark.parametrize(
    ("training", "network", "files", "says"),
    [
        ({SAMPLING: 3, SHARES: [1, 1]}, {}, {}, f"{SHARES} is [1.0, 1.0], expected 3 number(s)"),
        ({SAMPLING: 3, SHARES: [0, 0, 0]}, {}, {}, "is [0.0, 0.0, 0.0], expected 3 number(s)"),
        ({SAMPLING: 0, SHARES: [1, 1, 1]}, {}, {}, "is [1.0, 1.0, 1.0], expected 2 number(s)"),
        ({}, {"numberOfInputChannels": 4}, {}, "is 4, expected 2 as TRAIN lists (flair, t1c); "),
        ({PAD: False}, {TILE: [23] * 3}, {}, "pat_02/roi.nii.gz: no voxel of (24, 22, 20) to take"),
        # DeepMedic multiplies regions with int8, which numpy refuses; by default to validate only.
        ({}, {}, {"pat_02 roi": np.uint8}, f"pat_02/roi.nii.gz: {UNSIGNED}"),
        ({SAMPLING: 2}, {}, {"pat_00 roi": np.uint16}, f"pat_00/roi.nii.gz: {UNSIGNED}"),
        ({}, {}, {"pat_02 roi": border(-2)}, f"{UNSIGNED} (-2)"),
        ({}, {}, {"pat_00 roi": border(0)}, "pat_00/roi.nii.gz: no voxel is above 0, expected a"),
        ({}, {}, {"pat_00 roi": border(1)}, "a segment of [13, 13, 13] (segmentsDimTrain) around"),
        ({SAMPLING: 0, SHARES: [1, 0]}, {}, {"pat_01 labels": np.zeros_like},
         "by type of sampling 0 and shares (1.0, 0.0); expected some"),
        ({SAMPLING: 3, SHARES: [0, 1, 1]}, {}, {"pat_01 labels": np.zeros_like},
         "by type of sampling 3 and shares (0.0, 1.0, 1.0); expected some"),
        ({}, {}, {"pat_01 t1c": lambda array: array[1:]},
         "t1c.nii.gz: shape is (21, 20, 18), but (22, 20, 18) in labels.nii.gz; expected equal"),
        # DeepMedic pads by what a segment leaves unpredicted: 6 of 13 voxels here.
        ({}, {}, cut(6), "no voxel of (14, 6, 15) to take a segment of [13, 13, 13]"),
        ({PAD: False}, {}, cut(12), "no voxel of (14, 12, 15) to take a segment of [13, 13, 13]"),
    ],
    ids=range(15),
)  # fmt: skip
def test_what_deepmedic_would_stop_at_is_refused_before(toy, training, network, files, says):
    """Checking tells it, too."""
    change(toy, training, network, files)
    with pytest.raises(DataFault) as caught:
        refuse_unusable(toy.source(), read_model_config(toy.model), mixed=False)
    assert says.replace("TRAIN", str(toy.train)) in str(caught.value)
    assert str(caught.value) in findings(toy)


@pytest.mark.parametrize(
    ("training", "network", "files"),
    [
        ({SAMPLING: 0, SHARES: [1, 0]}, {}, {}),
        ({}, {TILE: [23] * 3}, {}),
        ({PAD: False, ON_VOLUMES: False}, {TILE: [23] * 3}, {}),
        ({}, {}, {"pat_00 roi": np.uint16, "pat_02 roi": scaled}),
        ({}, {}, cut(7)),
        ({PAD: False}, {}, cut(13)),
    ],
    ids=["shares", "tiles", "no tiles", "unsigned", "padded", "least"],
)
def test_what_deepmedic_can_sample_from_is_let_in(toy, training, network, files):
    change(toy, training, network, files)
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


def test_everything_is_told_at_once(toy):
    for name in FILES:
        with open(toy.folder / f"training_{name}.cfg", "a") as stream:
            stream.write(f"data/pat_00/{name}.nii.gz\ndata/pat_09/{name}.nii.gz\n")
    damaged = toy.file("labels", "pat_01")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    for name in ("flair", "t1c"):
        shutil.copy(toy.file(name), toy.file(name, "pat_02"))
    errors = "\n".join(findings(toy, subjects="(pat)"))
    for says in (
        f"{toy.file('flair', 'pat_09')}: missing, expected for case 'pat_09'",
        f"{damaged}: truncated at byte",
        f"{toy.train}: cases pat_00, pat_02 have the same image, and fold 0 trains on",
        "(subject pat)",
    ):
        assert says in errors
    said = f"{toy.train}: 1 entry(s) of its lists name a case again; each counts as one case"
    assert said in findings(toy, "warning", subjects="(pat)")
