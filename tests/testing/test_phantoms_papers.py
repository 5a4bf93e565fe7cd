"""Phantoms that papers' recipes need: healthy brains, livers, and gliomas as BraTS has them."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage

from gansynth.core.findings import Checked
from gansynth.core.registry import installed
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.opening import open_source
from gansynth.testing.phantoms import (
    BRATS_LABELS,
    LABELS,
    TISSUES,
    LiverOptions,
    PhantomOptions,
    make_liver,
    make_phantom,
    make_tissues,
    write_gliomas,
    write_livers,
    write_tissues,
)
from gansynth.testing.phantoms._folders import draw_labels
from gansynth_cli.main import cli

pytest.importorskip("nilearn", reason="nilearn, which ships the MNI152 maps, is not installed")

COARSE = PhantomOptions(spacing_mm=6.0)
T1 = replace(COARSE, channels=("T1",))
LIVERS = LiverOptions(spacing_mm=(4.0, 6.0, 6.0))
SUBJECTS = 5


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("papers")
    return {
        "tissues": write_tissues(base / "tissues", SUBJECTS, 3, T1),
        "brats": write_gliomas(base / "brats", SUBJECTS, 3, COARSE),
        "livers": write_livers(base / "livers", SUBJECTS, 3, LIVERS),
    }


def opened(folder: Path, **keys: str) -> CaseSource:
    return open_source(SourceRequest("nifti", str(folder), read=keys))


def checked(folder: Path) -> Checked:
    return installed().check("nifti")(SourceRequest("nifti", str(folder)), lambda done, total: None)


def array(path: Path) -> np.ndarray:
    image: Any = nib.load(path)
    return np.asarray(image.dataobj).T


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float(((one > 0) & (other > 0)).sum()) / float((one > 0).sum() + (other > 0).sum())


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tissues", "brats", "livers"])
def test_check_finds_nothing_wrong(written, kind):
    found = checked(written[kind])
    assert (found.cases, list(found.findings)) == (SUBJECTS, [])


@pytest.mark.parametrize(
    ("kind", "channels", "labels"),
    [
        ("tissues", ("T1",), TISSUES),
        ("brats", ("flair", "t1", "t1ce", "t2"), BRATS_LABELS),
        ("livers", ("CT",), {"background": 0, "tumour": 1}),
    ],
)
def test_channels_and_labels_are_known_by_name(written, kind, channels, labels):
    schema = opened(written[kind]).schema
    assert (schema.channels, schema.labels) == (channels, labels)


@pytest.mark.parametrize("kind", ["tissues", "brats", "livers"])
def test_one_subject_in_five_is_held_out(written, kind):
    source = opened(written[kind])
    assert (len(source.train_ids), len(source.held_out_ids)) == (4, 1)


def test_the_same_arguments_give_the_same_bytes(written, tmp_path):
    for kind, write, options in (
        ("tissues", write_tissues, T1),
        ("brats", write_gliomas, COARSE),
        ("livers", write_livers, LIVERS),
    ):
        again: Any = write
        files = hashes(again(tmp_path / kind, SUBJECTS, 3, options))
        assert files == hashes(written[kind])
        assert files != hashes(again(tmp_path / f"{kind}-4", 2, 4, options))


@pytest.mark.parametrize("write", [write_tissues, write_gliomas, write_livers])
def test_a_folder_in_use_and_no_subjects_are_refused(written, tmp_path, write):
    with pytest.raises(UsageFault, match="exists already, expected a new folder"):
        write(written["brats"], 1)
    with pytest.raises(UsageFault, match="n 0; expected at least 1"):
        write(tmp_path / "none", 0)


def test_every_file_says_that_it_is_no_patient(written):
    for kind, name in (("tissues", "dataset"), ("brats", "phantoms"), ("livers", "dataset")):
        about = json.loads((written[kind] / f"{name}.json").read_text())
        assert "NOT PATIENTS" in about["description"]
        assert about["phantoms"]["seed"] == 3


# -- healthy brains --------------------------------------------------------------------------------


def test_healthy_brains_are_on_the_gliomas_grid(written):
    healthy, gliomas = opened(written["tissues"]), opened(written["brats"], channels="T1")
    assert healthy.schema.channels == gliomas.schema.channels
    assert healthy.schema.spacing == gliomas.schema.spacing
    assert healthy.space.size == gliomas.space.size
    one: Any = nib.load(written["tissues"] / "images/healthy_000_0000.nii.gz")
    other: Any = nib.load(written["brats"] / "phantom_000/phantom_000_t1.nii.gz")
    assert one.shape == other.shape
    assert np.array_equal(one.affine, other.affine)


def test_tissues_are_the_whole_brain_and_nothing_else():
    phantom = make_tissues(0, 0, T1)
    assert np.array_equal(phantom.labels > 0, phantom.image[0] > 0)
    shares = np.bincount(phantom.labels.ravel())[1:] / np.count_nonzero(phantom.labels)
    assert shares[0] < shares[2]
    assert all(0.01 < share < 0.75 for share in shares)  # coarse voxels hold little pure CSF


def test_a_healthy_t1_looks_like_the_gliomas_away_from_them():
    for index in range(2):
        tissues = make_tissues(index, 0, T1)
        means = [float(tissues.image[0][tissues.labels == k].mean()) for k in (1, 2, 3)]
        assert means == sorted(means)
        ratio = means[1] / means[2]
        phantom = make_phantom(index, 0, T1)
        far = (phantom.image[0] > 0) & ~ndimage.binary_dilation(phantom.labels > 0, iterations=3)
        low, high = np.percentile(phantom.image[0][far], (30, 85))
        assert ratio == pytest.approx(low / high, abs=0.2)


def test_nobody_is_in_both_sets():
    def brain(phantom: Any) -> bytes:
        return bytes(np.packbits(phantom.image[0] > 0))

    healthy = {brain(make_tissues(index, seed, T1)) for index in range(3) for seed in range(2)}
    ill = {brain(make_phantom(index, seed, T1)) for index in range(3) for seed in range(2)}
    assert len(healthy) == len(ill) == 6
    assert healthy.isdisjoint(ill)


# -- gliomas as BraTS ------------------------------------------------------------------------------


def test_gliomas_have_the_layout_of_brats(written):
    home = written["brats"] / "phantom_004"
    assert {path.name for path in home.iterdir()} == {
        f"phantom_004_{part}.nii.gz" for part in ("flair", "t1", "t1ce", "t2", "seg")
    }


def test_gliomas_are_those_of_make_phantom_with_the_values_of_brats(written):
    phantom, home = make_phantom(2, 3, COARSE), written["brats"] / "phantom_002"
    assert np.array_equal(array(home / "phantom_002_t1ce.nii.gz"), phantom.image[1])
    assert np.array_equal(array(home / "phantom_002_flair.nii.gz"), phantom.image[3])
    seg = array(home / "phantom_002_seg.nii.gz")
    for ours, theirs in (("core", 1), ("oedema", 2), ("enhancing", 4)):
        assert np.array_equal(seg == theirs, phantom.labels == LABELS[ours])


# -- livers ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def livers() -> list[Any]:
    return [make_liver(index, 0, LIVERS) for index in range(8)]


def test_a_liver_is_brighter_than_its_lesions_and_lies_on_the_right(livers):
    for phantom in livers:
        healthy = phantom.image[phantom.liver & (phantom.labels == 0)]
        assert 60 < healthy.mean() < 110
        assert phantom.image[phantom.labels > 0].mean() < healthy.mean() - 15
        assert phantom.liver[phantom.labels > 0].all()
        right = phantom.liver[..., phantom.liver.shape[2] // 2 :].sum() / phantom.liver.sum()
        assert right > 0.85
        assert 0.9 < phantom.liver.sum() * np.prod(phantom.spacing) / 1e6 < 2.5  # litres


def test_there_are_air_fat_and_bone_around_it(livers):
    for phantom in livers:
        assert phantom.image.min() == phantom.image[0, 0, 0] == -1000
        fat = ((phantom.image > -150) & (phantom.image < -50)).mean()
        assert 0.03 < fat < 0.25
        assert phantom.image.max() > 250


def test_there_are_one_to_four_lesions(livers):
    counts = {ndimage.label(phantom.labels)[1] for phantom in livers}
    assert counts <= {1, 2, 3, 4}
    assert len(counts) > 1


def test_labels_are_exact_where_drawn_and_about_right_between(written):
    """Measured: from 0.861, between the outermost drawn slices from 0.871."""
    for index in range(SUBJECTS):
        case = f"liver_{index:03d}.nii.gz"
        labels, truth = (array(written["livers"] / part / case) for part in ("labels", "truth"))
        first = int(truth.sum(axis=(1, 2)).argmax()) % 3
        assert np.array_equal(labels[first::3], truth[first::3])
        assert dice(labels, truth) > 0.84
        between = np.flatnonzero(labels[first::3].any(axis=(1, 2))) * 3 + first
        inner = slice(between[0], between[-1] + 1)
        assert dice(labels[inner], truth[inner]) > 0.86


def test_left_to_the_source_the_slices_between_are_the_same(written, tmp_path):
    sparse = write_livers(tmp_path / "sparse", 2, 3, replace(LIVERS, completed=False))
    drawn = array(sparse / "labels/liver_001.nii.gz")
    completed = array(written["livers"] / "labels/liver_001.nii.gz")
    assert drawn.sum() < 0.6 * completed.sum()
    read = opened(sparse, between="3", folds="2").load("liver_001").labels
    assert read is not None
    assert np.array_equal(read, completed)


def test_every_slice_drawn_is_the_truth(livers):
    options = replace(LIVERS, every=1)
    assert np.array_equal(draw_labels(livers[0], options), livers[0].labels)


def test_wrong_options_are_refused():
    wrong: list[dict[str, Any]] = [
        {"spacing_mm": (0.5, 2.0, 2.0)},
        {"every": 0},
        {"tumours": (0, 2)},
        {"radius_mm": (9.0, 3.0)},
        {"noise_hu": -1.0},
    ]
    for options in wrong:
        with pytest.raises(UsageFault, match=next(iter(options))):
            LiverOptions(**options)
    with pytest.raises(UsageFault, match="expected 0 or more"):
        make_liver(-1)


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tissues", "livers", "brats"])
def test_the_command_writes_them_and_says_what_to_run(tmp_path, kind):
    words = ["demo", "-o", str(tmp_path / "p"), "--phantoms", kind, "--fast", "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["then"] == f"gansynth check nifti:{tmp_path / 'p' / kind}"
    assert said["subjects"] == len(opened(tmp_path / "p" / kind).train_ids) + 2
