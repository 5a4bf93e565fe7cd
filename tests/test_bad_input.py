"""Bad data as a user meets it: one line, the documented exit code, and every file as it was."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel import Nifti1Image, load, save

from tests.data.sets import msd

Change = Callable[[Any], Any]
Spoil = Callable[[Path], object]

IMAGE, LABEL = "imagesTr/p2_left_0001.nii.gz", "labelsTr/p2_left.nii.gz"


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def nifti(change: Change, affine: Any = None) -> Spoil:
    """Rewrites a NIfTI file with other voxels, or another affine."""

    def spoil(path: Path) -> None:
        found: Any = load(path)
        array = change(voxels(path))
        save(Nifti1Image(array, found.affine if affine is None else affine), path)

    return spoil


def voxels(path: Path) -> Any:
    found: Any = load(path)
    return np.asarray(found.dataobj).copy()


def one_voxel(value: float) -> Change:
    def change(array: Any) -> Any:
        array[..., 12, 14, 12] = value
        return array

    return change


def same(array: Any) -> Any:
    return array


SPOILT: dict[str, tuple[str, Spoil, tuple[str, ...]]] = {
    "truncated": (IMAGE, cut_in_half, (IMAGE, "truncated at byte", "copy it")),
    "flipped bit": (IMAGE, flip_a_bit, (IMAGE, "damaged", "copy it")),
    "NaN": (IMAGE, nifti(one_voxel(np.nan)), (IMAGE, "1 NaN", "expected finite")),
    "shape": (IMAGE, nifti(lambda a: a[:-1]), (IMAGE, "(23, 28, 24)", "(24, 28, 24)", "resample")),
    "affine": (
        IMAGE,
        nifti(same, np.diag([1, 1, 2, 1.0])),
        (IMAGE, "by up to 1 mm", "at most 0.001", "resample"),
    ),
    "unknown label": (LABEL, nifti(one_voxel(7)), (LABEL, "[7]", "among [0, 1, 2]", "correct")),
    "another channel": (
        "imagesTr/p2_left_0002.nii.gz",
        lambda path: shutil.copy(path.with_name("p2_left_0001.nii.gz"), path),
        ("p2_left_0002.nii.gz", "of no channel", "names 2", "remove it"),
    ),
    "missing channel": (IMAGE, Path.unlink, (IMAGE, "missing", "'p2_left'", "add it")),
}


@pytest.mark.fault(1, of="truncated")
@pytest.mark.fault(2, of="flipped bit")
@pytest.mark.fault(6, of="NaN")
@pytest.mark.fault(9, of="shape|affine")
@pytest.mark.fault(10, of="unknown label")
@pytest.mark.fault(11, of="missing")
@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_raw_file_is_found_by_check_and_never_prepared(toy_copy, refuse, how):
    file, spoil, says = SPOILT[how]
    spoil(toy_copy.raw / file)
    data = ("nnunet:501", "--root", toy_copy.root)
    told = refuse("check", *data, code=3, says=["1 error(s)"], keep=[toy_copy.root]).stdout
    assert [words for words in says if words not in told] == []
    refuse("prepare", *data, "--force", code=3, says=says, keep=[toy_copy.root])


@pytest.mark.fault(13)
def test_a_data_set_of_one_case_is_refused(toy_copy, refuse):
    for folder in ("imagesTr", "labelsTr"):
        for path in (toy_copy.raw / folder).iterdir():
            if not path.name.startswith("p1_left"):
                path.unlink()
    says = (str(toy_copy.raw), "1 case", "at least 2", "add cases")
    data = ("nnunet:501", "--root", toy_copy.root)
    told = refuse("check", *data, code=3, says=["1 error(s)"], keep=[toy_copy.root]).stdout
    assert [words for words in says if words not in told] == []
    refuse("prepare", *data, code=3, says=says, keep=[toy_copy.root])


WHOLE, ITS_LABELS = "imagesTr/anna_1.nii.gz", "labelsTr/anna_1.nii.gz"
UNIMPORTABLE: dict[str, tuple[str, Spoil, tuple[str, ...]]] = {
    "truncated": (WHOLE, cut_in_half, ("truncated at byte", "copy it")),
    "one channel": (WHOLE, nifti(lambda a: a[..., 0]), ("1 channel(s)", "expected 2")),
    "shape": (ITS_LABELS, nifti(lambda a: a[:-1]), ("(5, 7, 8)", "(6, 7, 8)")),
    "missing": (WHOLE, Path.unlink, ("missing, expected for case", "remove its other files")),
}


@pytest.mark.fault(1, of="truncated")
@pytest.mark.fault(9, of="shape")
@pytest.mark.fault(11, of="channel|missing")
@pytest.mark.parametrize("how", UNIMPORTABLE)
def test_a_spoilt_file_is_not_imported_and_the_same_command_works_once_repaired(
    tmp_path, refuse, run_cli, how
):
    task, root = tmp_path / "task", tmp_path / "root"
    msd(task)
    file, spoil, says = UNIMPORTABLE[how]
    shutil.copy(task / file, tmp_path / "good")
    spoil(task / file)
    command = ("import", f"msd:{task}", "nnunet:502", "--root", root, "--folds", 2)
    refuse(*command, code=3, says=(Path(file).name, *says), keep=[task])
    assert not [*root.rglob("*.*")]
    (tmp_path / "good").replace(task / file)
    assert run_cli(*command).exit_code == 0


def rewrite_array(path: Path, change: Change) -> None:
    """As nnU-Net would write it, and ``prepare`` note it."""
    import blosc2

    from gansynth_nnunet.cases import write_hashes

    found: Any = blosc2.open(str(path), mode="r")
    array = found[...].copy()
    path.unlink()
    blosc2.asarray(change(array), urlpath=str(path))
    write_hashes(path.parent)


ARRAYS: dict[str, tuple[str, Spoil, int, tuple[str, ...]]] = {
    "NaN": (
        ".b2nd",
        lambda p: rewrite_array(p, one_voxel(np.nan)),
        3,
        ("2 NaN", "gansynth prepare"),
    ),
    "unknown label": (
        "_seg.b2nd",
        lambda p: rewrite_array(p, one_voxel(9)),
        3,
        ("label value(s) [9]",),
    ),
    "truncated": (".b2nd", cut_in_half, 6, ("SHA-256", "gansynth prepare nnunet:501")),
    "one bit": (".b2nd", flip_a_bit, 6, ("SHA-256", "preprocess again")),
    "missing labels": ("_seg.b2nd", Path.unlink, 3, ("without labels", "gansynth prepare")),
}


@pytest.mark.fault(3, of="truncated|one bit")
@pytest.mark.fault(6, of="NaN")
@pytest.mark.fault(10, of="unknown label")
@pytest.mark.fault(11, of="missing")
@pytest.mark.parametrize("how", ARRAYS)
def test_a_spoilt_training_array_ends_a_fit_before_it_begins(toy_copy, refuse, tmp_path, how):
    ending, spoil, code, says = ARRAYS[how]
    case = second_training_case(toy_copy)
    spoil(toy_copy.preprocessed / "nnUNetPlans_3d_fullres" / f"{case}{ending}")
    command = ("fit", "cgan3d", *toy_copy.options, "-o", tmp_path / "run")
    refuse(*command, code=code, says=(case, *says), keep=[toy_copy.root])
    assert not (tmp_path / "run" / "manifest.json").exists()


def second_training_case(toy: Any) -> str:
    """Also has the folds made, which the first look at a data set does."""
    from gansynth_nnunet.source import NnunetSource

    return NnunetSource(toy.request()).train_ids[1]


@pytest.mark.fault(23)
@pytest.mark.parametrize(
    ("option", "value", "there"),
    [
        ("-c", "3d_fulres", "one of: 2d, 3d_fullres"),
        ("--plans", "mine", "gansynthSmallPlans, nnUNetPlans"),
    ],
)
def test_a_slip_is_told_with_what_there_is(toy_nnunet, refuse, tmp_path, option, value, there):
    second_training_case(toy_nnunet)
    command = ("fit", "cgan3d", *toy_nnunet.options, option, value, "-o", tmp_path / "run")
    refuse(*command, code=2, says=(value, there), keep=[toy_nnunet.root, tmp_path])
