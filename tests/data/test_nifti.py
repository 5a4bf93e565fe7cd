import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.source import case_records
from gansynth.runtime.errors import UsageFault
from tests.data.sets import SHAPE, SIDES, opened, pair, save, save_pair
from tests.expected import raises_fault

FIRST = "images/p1_l_0000.nii.gz"


def read(where: Path, fold: str = "0", subjects: str | None = r"(p\d)_", **keys: str) -> Any:
    return opened(where, fold=fold, subjects=subjects, **{"folds": "3", **keys})


def manifest(pairs: Path, name: str = "cases.csv", **columns: dict[str, Any]) -> Path:
    """A manifest of the pairs; further columns are given as case -> value."""
    rows: list[dict[str, Any]] = []
    for case in SIDES:
        row = {"case": case, "T1": f"images/{case}_0000.nii.gz", "T2": f"images/{case}_0001.nii.gz"}
        row["label"] = f"labels/{case}.nii.gz"
        rows.append(row | {key: values.get(case, "") for key, values in columns.items()})
    lines = [",".join(map(str, line)) for line in (rows[0], *map(dict.values, rows))]
    text = json.dumps({"cases": rows}) if name.endswith("json") else "\n".join(lines)
    (pairs / name).write_text(text)
    return pairs / name


@pytest.mark.parametrize("name", ["cases.csv", "cases.json"])
def test_a_manifest_reads_as_the_folder_does(pairs, name):
    one, other = read(pairs), read(manifest(pairs, name))
    assert other.channels == ("T1", "T2")
    assert case_records(one, SIDES) == case_records(other, SIDES)
    chosen = read(pairs / name, channels="T2", modality="none").load("p1_l").image
    assert np.array_equal(chosen[0], pair("p1_l")[0][..., 1].T)


def test_test_cases_are_held_out_of_every_fold(pairs):
    fold = {"p1_l": 0, "p1_r": 0, "p2_l": 1, "p2_r": 1}
    path = manifest(pairs, fold=fold, split={"p3_l": "test", "p3_r": "test"})
    assert read(path, "0").train_ids == SIDES[2:4]
    assert read(path, "1").train_ids == SIDES[:2]
    everything = read(path, "all")
    assert (everything.train_ids, everything.held_out_ids) == (SIDES[:4], SIDES[4:])


OUT, LONG = "files.path-leads-out-of-folder", "files.path-cannot-be-one"


@pytest.mark.fault(19)
@pytest.mark.parametrize(
    ("text", "keys", "expected"),
    [
        ("../outside.nii.gz", {}, OUT),
        ("{}/outside.nii.gz", {}, OUT),
        ("link.nii.gz", {}, OUT),
        ("x" * 300, {}, LONG),
        ("x" * 300, {"allow_absolute": "yes"}, LONG),
    ],
    ids=["dots", "absolute", "link", "long", "long and allowed"],
)
def test_a_path_out_of_the_folder_is_refused_and_never_opened(
    pairs, tmp_path, text, keys, expected
):
    os.mkfifo(tmp_path / "outside.nii.gz")  # who opens it waits for ever
    (pairs / "link.nii.gz").symlink_to(tmp_path / "outside.nii.gz")
    path = manifest(pairs)
    path.write_text(path.read_text().replace(FIRST, text.format(tmp_path)))
    with raises_fault(expected, names="line 2: T1"):
        read(path, **keys)


@pytest.mark.parametrize("modality", ["mr", "ct"])
def test_statistics_are_learnt_without_held_out_cases(pairs, modality):
    for case in read(pairs).held_out_ids:
        for path in pairs.rglob(f"{case}*"):
            path.write_bytes(b"never read")
    source = read(pairs, modality=modality)
    assert source.space.host
    assert source.schema.labels == {"background": 0, "label 1": 1, "label 2": 2}


def test_mixed_spacing_is_brought_to_the_training_cases_median(pairs, caplog):
    save_pair(pairs, "p1_l", *pair("p1_l"), np.eye(4))
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
    with raises_fault("grid.resampled-case-too-large"):
        read(shared, spacing="0.001").load("p1_l")


@pytest.mark.fault(7)
def test_mr_is_standardised_over_nonzero_voxels_of_the_case(pairs):
    image = read(pairs).load("p1_l").image
    body = image[..., 1:].reshape(2, -1)
    assert np.allclose(body.mean(axis=1), 0, atol=1e-4)
    assert np.allclose(body.std(axis=1), 1, atol=1e-4)
    assert image[..., 0].max() < -3
    save(pairs / FIRST, np.full(SHAPE, 7, np.int16))
    assert not read(pairs).load("p1_l").image[0].any()  # a constant channel


def test_ct_is_clipped_and_scaled_by_the_training_cases_foreground_or_a_window(shared):
    source = read(shared, modality="ct,none")
    training = [pair(case) for case in source.train_ids]
    voxels = np.concatenate([image[..., 0][labels > 0] for image, labels in training])
    low, high = np.percentile(voxels, (0.5, 99.5))
    expected = (np.clip(pair("p1_l")[0][..., 0].T, low, high) - voxels.mean()) / voxels.std()
    assert np.allclose(source.load("p1_l").image[0], expected, atol=1e-3)
    assert np.array_equal(source.load("p1_l").image[1], pair("p1_l")[0][..., 1].T)
    source = read(shared, modality="ct", window="-100:40")
    how = source.intensities[0]
    assert (how.low, how.high) == (-100, 40)
    assert np.ptp(source.load("p1_l").image[0]) == pytest.approx(40 / how.std, rel=1e-4)


def test_what_is_learnt_of_a_case_is_read_once(pairs, monkeypatch):
    monkeypatch.setattr("gansynth.core.case_store.SETTLED", 0.0)
    first = read(pairs, modality="ct")
    learnt = first.intensities, first.schema.labels
    monkeypatch.setattr("gansynth.data.nifti.read_volume", None)
    again = read(pairs, modality="ct")
    assert (again.intensities, again.schema.labels) == learnt


def test_labels_alone_are_read_without_images(pairs):
    source = read(pairs)
    expected = [source.load(case).labels for case in SIDES]
    for path in pairs.glob("images/*"):
        path.write_bytes(b"never read")
    assert np.array_equal([source.labels_of(case) for case in SIDES], expected)


@pytest.mark.parametrize(
    "keys", [{"modality": "none"}, {"spacing": "1"}, {"labels": "a:1,b:2"}, {"channels": "a,b"}]
)
def test_the_record_of_the_space_holds_what_changes_pair(shared, keys):
    changed = read(shared, **keys).space.host
    assert changed != read(shared).space.host
    assert ("resampled" in changed) == ("spacing" in keys)


def test_splits_beside_the_data_are_kept_to(pairs):
    (pairs / "splits.json").write_text(json.dumps([{"train": SIDES[2:], "val": SIDES[:2]}]))
    assert read(pairs).held_out_ids == SIDES[:2]
    (pairs / "splits.json").write_text(json.dumps([{"train": SIDES[1:], "val": SIDES[:1]}]))
    with raises_fault("lineage.subject-in-training-and-validation"):
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
    ],
)
def test_wrong_read_options_are_refused_in_one_line(shared, keys, said):
    with pytest.raises(UsageFault) as caught:
        read(shared, **keys)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
