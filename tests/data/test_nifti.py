import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from gansynth.core.source import case_records, lineage_of
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from tests.data.sets import AFFINE, SHAPE, opened, save

CASES = tuple(f"p{person}_{side}" for person in (1, 2, 3) for side in ("l", "r"))
FIRST = "images/p1_l_0000.nii.gz"
WATCHERS: list[list[str]] = []


def watch(event: str, about: tuple[Any, ...]) -> None:
    if event == "open":
        for watcher in WATCHERS:
            watcher.append(str(about[0]))


sys.addaudithook(watch)  # for the life of the process: there is no way to take one back


@pytest.fixture
def touched() -> Iterator[list[str]]:
    """Names of the files that were opened since."""
    WATCHERS.append([])
    yield WATCHERS[-1]
    WATCHERS.pop()


def arrays(case: str, channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Image (X, Y, Z, C) float32 with an empty plane, labels (X, Y, Z) uint8 0, 1, 2."""
    rng = np.random.default_rng(CASES.index(case))
    image = rng.normal(100, 15, (*SHAPE, channels)).astype(np.float32)
    image[0] = 0
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:4, 2:5, 3:6], labels[4, 3, 4] = 1, 2
    return image, labels


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """images/CASE_0000.nii.gz, CASE_0001.nii.gz and labels/CASE.nii.gz. Do not change it."""
    folder: Path = tmp_path_factory.mktemp("pairs") / "set"
    for case in CASES:
        image, labels = arrays(case)
        for channel in range(2):
            save(folder / f"images/{case}_{channel:04d}.nii.gz", image[..., channel])
        save(folder / f"labels/{case}.nii.gz", labels)
    return folder


@pytest.fixture
def pairs(shared: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(shared, tmp_path / "set")
    return tmp_path / "set"


def read(where: Path, fold: str = "0", subjects: str | None = r"(p\d)_", **keys: str) -> Any:
    return opened(where, fold=fold, subjects=subjects, **{"folds": "3", **keys})


def manifest(pairs: Path, name: str = "cases.csv", **columns: dict[str, Any]) -> Path:
    """A manifest of the pairs; further columns are given as case -> value."""
    rows = [
        {
            "case": case,
            "T1": f"images/{case}_0000.nii.gz",
            "T2": f"images/{case}_0001.nii.gz",
            "label": f"labels/{case}.nii.gz",
            **{key: values[case] for key, values in columns.items() if case in values},
        }
        for case in CASES
    ]
    if name.endswith(".json"):
        (pairs / name).write_text(json.dumps({"cases": rows}))
    else:
        header = ["case", "T1", "T2", "label", *columns]
        lines = [header, *([str(row.get(key, "")) for key in header] for row in rows)]
        (pairs / name).write_text("\n".join(map(",".join, lines)))
    return pairs / name


def test_a_number_at_the_end_of_a_name_is_a_case_where_a_label_map_has_it(tmp_path):
    for case in ("scan_0001", "scan_0002"):
        save(tmp_path / f"images/{case}.nii.gz", arrays("p1_l", 1)[0][..., 0])
        save(tmp_path / f"labels/{case}.nii.gz", arrays("p1_l")[1])
    source = read(tmp_path, subjects=None, folds="2")
    assert {*source.train_ids, *source.held_out_ids} == {"scan_0001", "scan_0002"}


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Two people, one of them seen twice; T1w and FLAIR."""
    image, labels = arrays("p1_l")
    for place in ("sub-01/ses-a", "sub-01/ses-b", "sub-02"):
        name = place.replace("/", "_")
        for channel, suffix in enumerate(("T1w", "FLAIR")):
            save(tmp_path / f"{place}/anat/{name}_{suffix}.nii.gz", image[..., channel])
        where = tmp_path / f"derivatives/manual/{place}/anat"
        save(where / f"{name}_space-T1w_dseg.nii.gz", labels)
        save(where / f"{name}_desc-brain_mask.nii.gz", labels * 0 + 1)
    return tmp_path


def test_bids_knows_people_and_channels_and_takes_segmentations_before_masks(bids):
    source = read(bids, subjects=None, folds="2")
    assert source.channels == ("FLAIR", "T1w")
    assert {source.header(f"sub-01_ses-{visit}").subject for visit in "ab"} == {"sub-01"}
    held = {source.header(case).subject for case in source.held_out_ids}
    assert not held & {source.header(case).subject for case in source.train_ids}
    case = read(bids, subjects=None, folds="2", channels="T1w", modality="none").load("sub-02")
    assert np.array_equal(case.image[0], arrays("p1_l")[0][..., 0].T)
    assert set(np.unique(case.labels)) == {0, 1, 2}


def test_a_second_bids_image_of_a_kind_is_refused(bids):
    image = bids / "sub-02/anat/sub-02_T1w.nii.gz"
    image.with_name("sub-02_run-2_T1w.nii.gz").write_bytes(image.read_bytes())
    with pytest.raises(DataFault, match=r"there is sub-02_T1w\.nii\.gz too"):
        read(bids, subjects=None, folds="2")


@pytest.mark.parametrize("name", ["cases.csv", "cases.json"])
def test_a_manifest_reads_as_the_folder_does(pairs, name):
    one, other = read(pairs), read(manifest(pairs, name))
    assert other.channels == ("T1", "T2")
    assert case_records(one, CASES) == case_records(other, CASES)
    chosen = read(pairs / name, channels="T2", modality="none").load("p1_l").image
    assert np.array_equal(chosen[0], arrays("p1_l")[0][..., 1].T)


def test_a_manifest_says_subjects_and_sides(pairs):
    split = dict(zip(CASES, ("train", "train", "val", "val", "test", "test"), strict=True))
    people = {case: case[:2] for case in CASES}
    source = read(manifest(pairs, split=split, subject=people), subjects=None)
    assert source.train_ids == ("p1_l", "p1_r")
    assert source.held_out_ids == ("p2_l", "p2_r", "p3_l", "p3_r")
    assert source.header("p1_r").subject == "p1"


def test_test_cases_are_held_out_of_every_fold(pairs):
    fold = {"p1_l": 0, "p1_r": 0, "p2_l": 1, "p2_r": 1}
    path = manifest(pairs, fold=fold, split={"p3_l": "test", "p3_r": "test"})
    assert read(path, "0").train_ids == ("p2_l", "p2_r")
    assert read(path, "1").train_ids == ("p1_l", "p1_r")
    everything = read(path, "all")
    assert (everything.train_ids, everything.held_out_ids) == (CASES[:4], CASES[4:])


@pytest.mark.fault(19)
@pytest.mark.parametrize("way", ["dots", "absolute", "link"])
def test_a_path_out_of_the_folder_is_refused_and_never_opened(pairs, tmp_path, touched, way):
    outside = tmp_path / "outside.nii.gz"
    outside.write_bytes((pairs / FIRST).read_bytes())
    (pairs / "link.nii.gz").symlink_to(outside)
    text = {"dots": "../outside.nii.gz", "absolute": str(outside), "link": "link.nii.gz"}[way]
    path = manifest(pairs)
    path.write_text(path.read_text().replace(FIRST, text))
    touched.clear()
    with pytest.raises(IntegrityFault, match=r"line 2: T1: path .* leads out of .*allow_absolute"):
        read(path)
    assert not [name for name in touched if "outside" in name or "link" in name]
    assert read(path, allow_absolute="yes").load("p1_l").image.shape == (2, 8, 7, 6)


@pytest.mark.parametrize("read_", [{}, {"allow_absolute": "yes"}])
def test_a_name_that_no_file_can_have_is_refused(pairs, read_):
    path = manifest(pairs)
    path.write_text(path.read_text().replace(FIRST, "x" * 300))
    with pytest.raises(
        DataFault, match=r"line 2: T1: path '.*' cannot be one \(File name too long"
    ):
        read(path, **read_)


@pytest.mark.parametrize("modality", ["mr", "ct"])
def test_statistics_are_learnt_without_held_out_cases(shared, touched, modality):
    source = read(shared, modality=modality)
    assert source.space.host
    assert source.schema.labels == {"background": 0, "label 1": 1, "label 2": 2}
    assert len(lineage_of(source).cases) == 4
    seen = {case for case in CASES if any(f"/{case}" in name for name in touched)}
    assert seen == set(source.train_ids)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SRA", "PIL"])
def test_arrays_do_not_depend_on_the_orientation_of_files(tmp_path, axes):
    for case, codes in zip(CASES[:2], ("RAS", axes), strict=True):
        image, labels = arrays(case)
        turn = orientations.ornt_transform(*map(orientations.axcodes2ornt, ("RAS", codes)))
        names = [f"images/{case}_0000.nii.gz", f"images/{case}_0001.nii.gz"]
        stored = zip([*names, f"labels/{case}.nii.gz"], [*image.T, labels.T], strict=True)
        for name, array in stored:
            turned: Any = nib.Nifti1Image(array.T, AFFINE).as_reoriented(turn)
            save(tmp_path / name, np.asarray(turned.dataobj), turned.affine)
    source = read(tmp_path, subjects=None, folds="2", modality="none")
    image, labels = arrays(CASES[1])
    assert np.array_equal(source.load(CASES[1]).image, image.T)
    assert np.array_equal(source.load(CASES[1]).labels, labels.T)
    assert source.header(CASES[1]).shape == (8, 7, 6)


def test_mixed_spacing_is_brought_to_the_training_cases_median(pairs, caplog):
    image, labels = arrays("p1_l")
    for channel in range(2):
        save(pairs / f"images/p1_l_{channel:04d}.nii.gz", image[..., channel], np.eye(4))
    save(pairs / "labels/p1_l.nii.gz", labels, np.eye(4))
    source = read(pairs, fold="all")
    assert list(source.schema.spacing) == [2, 1, 1]
    shapes = [source.load(case).image.shape[1:] for case in ("p1_l", "p1_r")]
    known = [source.header(case).shape for case in ("p1_l", "p1_r")]
    assert shapes == known == [(4, 7, 6), (8, 7, 6)]
    assert "1 of 6 training cases are not of spacing" in caplog.text
    assert source.space.host["resampled"] == "area down, linear up"


def test_a_ramp_stays_a_ramp_when_it_is_resampled(tmp_path):
    ramp = np.broadcast_to(np.arange(16, dtype=np.float32), (4, 4, 16)).copy()
    for case in "ab":
        save(tmp_path / f"images/{case}.nii.gz", ramp, np.eye(4))
        save(tmp_path / f"labels/{case}.nii.gz", (ramp > 11.5).astype(np.uint8), np.eye(4))
    source = read(tmp_path, subjects=None, folds="2", spacing="0.25,1,1", modality="none")
    found = source.load("a")
    assert found.image.shape == (1, 64, 4, 4)
    assert np.allclose(found.image[0, 2:-2, 0, 0], 0.125 + np.arange(60) / 4, atol=1e-5)
    assert np.array_equal(found.labels[:, 0, 0], np.arange(64) >= 48)


def test_the_generator_works_on_eights_of_the_median(shared):
    sizes = [read(shared, **keys).space.size for keys in ({}, {"size": "16"}, {"size": "8,16,24"})]
    assert sizes == [(8, 8, 8), (16, 16, 16), (8, 16, 24)]


@pytest.mark.fault(37)
def test_an_absurd_spacing_is_refused_before_it_takes_memory(shared):
    with pytest.raises(DataFault, match="ask for a coarser one"):
        read(shared, spacing="0.001").load("p1_l")


def test_mr_is_standardised_over_nonzero_voxels_of_the_case(shared):
    image = read(shared).load("p1_l").image
    body = image[..., 1:].reshape(2, -1)
    assert np.allclose(body.mean(axis=1), 0, atol=1e-4)
    assert np.allclose(body.std(axis=1), 1, atol=1e-4)
    assert image[..., 0].max() < -3


@pytest.mark.fault(7)
def test_a_constant_channel_becomes_zeros(pairs):
    save(pairs / FIRST, np.full(SHAPE, 7, np.int16))
    assert not read(pairs).load("p1_l").image[0].any()


def test_ct_is_clipped_and_scaled_by_the_training_cases_foreground(shared):
    source = read(shared, modality="ct,none")
    training = [arrays(case) for case in source.train_ids]
    voxels = np.concatenate([image[..., 0][labels > 0] for image, labels in training])
    low, high = np.percentile(voxels, (0.5, 99.5))
    expected = (np.clip(arrays("p1_l")[0][..., 0].T, low, high) - voxels.mean()) / voxels.std()
    assert np.allclose(source.load("p1_l").image[0], expected, atol=1e-3)
    assert np.array_equal(source.load("p1_l").image[1], arrays("p1_l")[0][..., 1].T)


def test_a_window_replaces_the_percentiles(shared):
    source = read(shared, modality="ct", window="-100:40")
    how = source.intensities[0]
    assert (how.low, how.high) == (-100, 40)
    assert np.ptp(source.load("p1_l").image[0]) == pytest.approx(40 / how.std, rel=1e-4)


@pytest.mark.parametrize(
    "keys", [{"modality": "none"}, {"spacing": "1"}, {"labels": "a:1,b:2"}, {"channels": "a,b"}]
)
def test_the_record_of_the_space_holds_what_changes_arrays(shared, keys):
    assert read(shared, **keys).space.host != read(shared).space.host
    assert ("resampled" in read(shared, **keys).space.host) == ("spacing" in keys)


def test_splits_beside_the_data_are_kept_to(pairs):
    (pairs / "splits.json").write_text(json.dumps([{"train": CASES[2:], "val": CASES[:2]}]))
    assert read(pairs).held_out_ids == CASES[:2]
    (pairs / "splits.json").write_text(json.dumps([{"train": CASES[1:], "val": CASES[:1]}]))
    with pytest.raises(IntegrityFault, match="p1_l and p1_r"):
        read(pairs)


@pytest.mark.fault(23)
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"spacng": "1"}, "Did you mean 'spacing'"),
        ({"spacing": "1,2"}, "--read spacing=1,2: expected native, one positive number"),
        ({"spacing": "nan"}, "expected native"),
        ({"size": "0"}, "--read size=0"),
        ({"folds": "1"}, "--read folds=1"),
        ({"modality": "mri"}, "--read modality=mri"),
        ({"modality": "mr,mr,mr"}, "3 for 2 channel"),
        ({"window": "-100:400"}, "say --read modality=ct"),
        ({"modality": "ct", "window": "5:2"}, "expected LOW:HIGH"),
        ({"labels": "a"}, "'a' is not NAME:NUMBER"),
        ({"labels": "a:1,b:1"}, "occurs twice"),
        ({"channels": "a"}, "has 2 channel"),
        ({"fold": "3"}, "has the folds 0, 1, 2"),
        ({"fold": "x"}, "or 'all'"),
    ],
)
def test_wrong_read_options_are_refused_in_one_line(shared, keys, said):
    with pytest.raises(UsageFault) as caught:
        read(shared, **keys)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
