import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.source import FoldSplit, SourceRequest
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault, UsageFault
from gansynth_deepmedic.configs import (
    BETWEEN,
    ON_SAMPLES,
    ON_VOLUMES,
    read_train_config,
    read_values,
)
from gansynth_deepmedic.insertion import MISSING
from gansynth_deepmedic.layout import write_layout
from gansynth_deepmedic.source import open_deepmedic
from tests.deepmedic_sets import Toy, store, stored, write_config
from tests.dividing import divided
from tests.expected import raises_fault

FILES = ("flair", "t1c", "labels", "roi")


def edit(toy: Toy, part: str, old: str, new: str) -> None:
    for name in FILES:
        path = toy.folder / f"{part}_{name}.cfg"
        path.write_text(path.read_text().replace(old, new))


def refused(toy: Toy, kind: type[GansynthError], case: str | None = None, **asked: Any) -> str:
    """What opening says, or loading a case."""
    with pytest.raises(kind) as caught:  # noqa: PT012
        source = toy.source(**asked)
        if case is not None:
            source.load(case)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_training_lists_are_trained_on_and_validation_lists_held_out(toy):
    source = toy.source()
    assert source.name == "deepmedic:toy"
    assert source.train_ids == ("pat_00", "pat_01", "pat_02")
    assert source.held_out_ids == ("pat_03", "pat_04")
    everything = toy.source(fold="all")
    assert (len(everything.train_ids), everything.held_out_ids) == (5, ())
    assert "no case 'pat_9'" in refused(toy, DataFault, "pat_9")
    boxed = toy.source(read={"boxes": "tumour:1+2"}).load("pat_00").boxes
    assert boxed is not None
    assert len(boxed.coords) == 1


def test_without_validation_nothing_is_held_out_and_that_is_said(mine, caplog):
    mine.change(**{ON_SAMPLES: False, ON_VOLUMES: False}, sessionName=None)
    source = mine.source()
    assert source.name == "deepmedic:mine"  # without a session the folder names the data set
    assert (len(source.train_ids), source.held_out_ids) == (3, ())
    (said,) = (record.message for record in caplog.records)
    assert said.startswith(f"{mine.train}: has no validation, so no case is held out; list some")


def test_a_case_is_on_one_side(mine):
    image = mine.file("flair", "pat_04")
    image.unlink()
    os.symlink(mine.file("flair"), image)
    says = "lists it to train on and to validate on, expected each case on one side"
    assert f"{image}: {mine.train} {says}" in refused(mine, IntegrityFault)
    edit(mine, "validation", "pat_04", "pat_01")
    assert says in refused(mine, IntegrityFault)


def test_listed_files_are_there(mine):
    gone = mine.file("roi", "pat_04")
    gone.unlink()
    assert f"{gone}: missing, expected for case 'pat_04'; add it" in refused(mine, DataFault)
    edit(mine, "training", "pat_00", "x" * 5000)  # a name that no file can have
    assert "missing, expected for case" in refused(mine, DataFault)


def test_images_are_as_stored_and_labels_end_with_the_region(toy):
    source = toy.source()
    case: Any = source.load("pat_01")
    assert case.image.dtype == np.float32
    assert source.header("pat_01").shape == case.image.shape[1:] == (12, 14, 16)
    flair, t1c, labels, roi = (stored(toy.file(n, "pat_01"))[::-1, ::-1].T for n in FILES)
    assert np.array_equal(case.image, [flair, t1c])
    assert np.array_equal(case.labels, np.where(roi > 0, labels, -1))
    schema = source.schema
    assert (schema.has_outside, schema.outside_fill, source.space.pad_label) == (True, None, -1)
    assert schema.labels == {"background": 0, "label 1": 1, "label 2": 2}


def test_units_lead_back_to_the_files(mine):
    for name, factor in (("flair", 40), ("t1c", 7)):
        image = stored(mine.file(name))
        store(mine.file(name), ((image + 2) * factor).astype(np.float32))
    source = mine.source(read={"modality": "mr"})
    case, host = source.load("pat_00"), source.host_case("pat_00")
    for channel, path, (scale, offset) in zip(case.image, host.channels, host.units, strict=True):
        assert channel.std() == pytest.approx(1, abs=0.1)
        assert np.allclose(channel * scale + offset, host.view(stored(path)), atol=1e-4)


def test_channels_that_deepmedic_normalises_are_normalised_here(mine):
    assert mine.source().modality == ("none", "none")
    mine.change(norm_zscore_prms={"apply_per_channel": [False, True]})
    assert mine.source().modality == ("none", "mr")
    assert mine.source(read={"modality": "none"}).modality == ("none", "none")


@pytest.mark.parametrize("modality", ["mr", "ct"])
def test_a_missing_channel_is_zeros_whatever_is_done_to_it(mine, modality):
    path = mine.folder / "training_t1c.cfg"
    path.write_text(path.read_text().replace("./data/pat_00/t1c.nii.gz", "-"))
    source = mine.source(read={"modality": modality})
    image, host = source.load("pat_00").image, source.host_case("pat_00")
    assert [channel.any() for channel in image] == [True, False]
    assert source.load("pat_01").image[1].any()
    assert host.channels == (str(mine.file("flair")), MISSING)
    assert host.units[1] == (1.0, 0.0)


def test_labels_and_regions_are_rounded_and_other_headers_passed_over_as_deepmedic_does(mine):
    """Real headers scale: ones are then 0.99999997."""
    labels, roi = stored(mine.file("labels")), stored(mine.file("roi"))
    before = mine.source().load("pat_00")
    store(mine.file("labels"), (labels * 0.9999).astype(np.float32))
    store(mine.file("roi"), np.where(roi > 0, 0.6, 0.4).astype(np.float32), np.eye(4))
    store(mine.file("t1c"), stored(mine.file("t1c")), np.eye(4))
    after = mine.source().load("pat_00")
    assert np.array_equal(after.labels, before.labels)
    assert np.array_equal(after.image, before.image)


def test_channels_get_other_names_and_the_networks_classes_are_the_labels(toy, tmp_path):
    assert toy.source(read={"channels": "A,B"}).schema.channels == ("A", "B")
    for names in ("A", "A,A"):
        said = refused(toy, UsageFault, read={"channels": names})
        assert "lists 2 channel(s) (flair, t1c); expected a name for each, no two alike" in said

    def of(classes: int, **read: str) -> dict[str, str]:
        values = {**read_values(toy.model), "numberOfOutputClasses": classes}
        return {"model": str(write_config(tmp_path / "m.cfg", values)), **read}

    assert len(toy.source(read=of(5)).schema.labels) == 5
    named = toy.source(read=of(5, labels="rim:1,core:2"))
    assert dict(named.schema.labels) == {"background": 0, "rim": 1, "core": 2}
    said = refused(toy, DataFault, "pat_00", read=of(2))
    assert "holds label 2, expected whole numbers from 0 to 1, as numberOfOutputClasses" in said


def test_what_cannot_be_loaded_is_refused_by_file(mine):
    image, labels = (stored(mine.file(name)) for name in ("flair", "labels"))
    holed = image.copy()
    holed[3, 3, 3] = np.nan
    many = np.where(labels > 1, np.int32(40002), labels)
    for name, array, says in (
        ("flair", image[..., 1:], "shape is (14, 12, 9), but (14, 12, 10) in labels.nii.gz; exp"),
        ("flair", holed, "1 NaN and 0 infinite voxel(s)"),
        ("flair", np.stack([image, image], -1), "image is 4D of shape (14, 12, 10, 2)"),
        ("labels", labels - np.int16(1), "holds label -1, expected whole numbers from 0 to 255"),
        ("labels", many, "holds label 40002, expected"),
    ):
        path = mine.file(name)
        whole = path.read_bytes()
        store(path, array)
        assert refused(mine, DataFault, "pat_00").startswith(f"{path}: {says}")
        path.write_bytes(whole)


def written(request: SourceRequest, folder: Path) -> Any:
    """A fold of its own, and what DeepMedic reads of a training on it."""
    source = open_deepmedic(request)
    cases = [source.host_case(case) for case in source.train_ids]
    write_layout(source, folder, cases, {"numOfCasesLoadedPerSubepoch": len(cases)})
    return source, read_train_config(folder / "train.cfg")


def test_deepmedic_trains_on_a_fold_and_validates_on_its_held_out_cases(toy, tmp_path):
    splits = [
        FoldSplit(train=["pat_04", "pat_01"], val=["pat_00"]),
        FoldSplit(train=["pat_00"], val=["pat_02", "pat_03"]),
    ]
    request = divided(toy.source(), splits, tmp_path / "new", toy.folder)
    with raises_fault("folds.fold-unknown"):
        open_deepmedic(replace(request, fold="2"))
    source, config = written(request, tmp_path / "out")
    for found, ids in ((config.train, ["pat_01", "pat_04"]), (config.validation, ["pat_00"])):
        assert [case.case for case in found] == ids
        assert [case.everything for case in found] == [source.entry(n).everything for n in ids]
    assert (tmp_path / "out" / "validation_names.cfg").read_text() == "pat_00.nii.gz\n"
    lists = ("channels", "gtLabels", "roiMasks", "names", "folder", "numOfCases")
    differing = {k for k, v in config.values.items() if source.config.values[k] != v}
    assert {key for key in differing if not key.startswith(lists)} == set()


@pytest.mark.parametrize(("every", "epochs", "then"), [(4, 8, 4), (4, 10, 5), (20, 35, 35)])
def test_the_last_epoch_is_followed_by_segmentations(mine, tmp_path, every, epochs, then):
    mine.change(**{BETWEEN: every})
    write_layout(mine.source(), tmp_path, [], {"numberOfEpochs": epochs})
    assert read_values(tmp_path / "train.cfg")[BETWEEN] == then


def test_regions_of_interest_of_some_cases_of_a_side_are_refused(mine, tmp_path):
    mine.change(roiMasksValidation=None)
    split = FoldSplit(train=["pat_00", "pat_03"], val=["pat_01"])
    with raises_fault("deepmedic.region-in-some-cases-only"):
        written(mine.source().divided([split], tmp_path / "new"), tmp_path / "out")
