"""What a detector is shown: links in a folder of ours, nothing of it in the user's."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from gansynth.core.source import SourceRequest
from gansynth.runtime.errors import UsageFault
from gansynth_yolo.mirror import mirror, mirrored
from gansynth_yolo.source import open_yolo
from tests.conftest import content


def opened(data: Path, **asked):
    return open_yolo(SourceRequest("yolo", str(data), **asked))


def test_a_mirror_is_the_same_data_set(shared_yolo, tmp_path):
    source = opened(shared_yolo)
    before = content(shared_yolo.parent)
    data = mirror(source, tmp_path / "mirror")
    assert content(shared_yolo.parent) == before
    again = opened(data, read={"allow_outside": "yes"})
    for split, images in source.images.items():
        other = again.images[split]
        assert [i.image.read_bytes() for i in images] == [i.image.read_bytes() for i in other]
        for one, two in zip(images, other, strict=True):
            np.testing.assert_array_equal(one.rows, two.rows)
    assert again.file.names == source.file.names
    assert again.file.channels == 1


def test_images_and_labels_are_links(shared_yolo, tmp_path):
    source = opened(shared_yolo)
    mirror(source, tmp_path / "mirror")
    paths = mirrored(source, tmp_path / "mirror", "train")
    assert list(paths) == list(source.train_ids)
    for case, path in paths.items():
        assert path.is_symlink()
        assert path.resolve() == source.image(case).image.resolve()
        assert (tmp_path / "mirror/labels/train" / f"{path.stem}.txt").is_symlink()


def test_a_missing_label_file_is_empty_there(yolo_copy, tmp_path):
    label = yolo_copy.parent / "labels" / "train" / "p01_z000.txt"
    label.unlink()
    mirror(opened(yolo_copy, read={"missing": "background"}), tmp_path / "mirror")
    written = sorted((tmp_path / "mirror" / "labels" / "train").iterdir())
    assert written[0].read_text() == ""
    assert not label.exists()


def test_boxes_that_reach_far_out_are_clipped_there(yolo_copy, tmp_path):
    label = yolo_copy.parent / "labels" / "train" / "p01_z000.txt"
    label.write_text("0 0.95 0.5 0.2 0.2\n")
    mirror(opened(yolo_copy, read={"overshoot": "0.1"}), tmp_path / "mirror")
    written = sorted((tmp_path / "mirror" / "labels" / "train").iterdir())[0]
    assert written.read_text() == "0 0.925000 0.500000 0.150000 0.200000\n"
    assert label.read_text() == "0 0.95 0.5 0.2 0.2\n"


def test_equal_names_in_two_folders_stay_apart(yolo_copy, tmp_path):
    home = yolo_copy.parent
    for kind in ("images", "labels"):
        (home / kind / "more").mkdir()
        for path in sorted((home / kind / "train").iterdir())[8:]:
            path.rename(home / kind / "more" / path.name.replace("p03", "p01"))
    document = yaml.safe_load(yolo_copy.read_text())
    yolo_copy.write_text(yaml.safe_dump({**document, "train": ["images/train", "images/more"]}))
    source = opened(yolo_copy)
    mirror(source, tmp_path / "mirror")
    assert len(set(mirrored(source, tmp_path / "mirror", "train").values())) == 16


def test_fold_all_shows_val_in_train(shared_yolo, tmp_path):
    data = mirror(opened(shared_yolo, fold="all"), tmp_path / "mirror")
    folders = {split: len(list((data.parent / "images" / split).iterdir())) for split in
               ("train", "val", "test")}  # fmt: skip
    assert folders == {"train": 24, "val": 8, "test": 4}


def test_channels_and_further_keys_may_be_asked_for(shared_yolo, tmp_path):
    extra = {"gansynth": {"a": 1}}
    data = mirror(opened(shared_yolo), tmp_path / "mirror", channels=3, extra=extra)
    document = yaml.safe_load(data.read_text())
    assert (document["channels"], document["gansynth"]) == (3, {"a": 1})
    assert document["path"] == str(tmp_path / "mirror")


def test_a_mirror_is_made_anew_and_other_folders_are_let_be(shared_yolo, tmp_path):
    data = mirror(opened(shared_yolo), tmp_path / "mirror")
    (data.parent / "labels" / "train.cache").write_bytes(b"stale")
    mirror(opened(shared_yolo), tmp_path / "mirror")
    assert not (data.parent / "labels" / "train.cache").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageFault, match="exists and is no mirror"):
        mirror(opened(shared_yolo), tmp_path / "other")


def test_copies_where_there_are_no_links(shared_yolo, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    source = opened(shared_yolo)
    mirror(source, tmp_path / "mirror")
    for case, path in mirrored(source, tmp_path / "mirror", "val").items():
        assert not path.is_symlink()
        assert path.read_bytes() == source.image(case).image.read_bytes()


def test_a_folder_in_which_a_detector_finds_no_labels_is_refused(shared_yolo, tmp_path):
    with pytest.raises(UsageFault, match="has a folder 'images' in its path"):
        mirror(opened(shared_yolo), tmp_path / "images" / "mirror")
