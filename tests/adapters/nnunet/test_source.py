"""The source reads exactly nnU-Net's fold, and refuses what would leak or be misread."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import blosc2
import numpy as np
import pytest

import gansynth_nnunet
from gansynth.core.registry import Registry
from gansynth.core.source import SourceRequest
from gansynth.core.space import Placement
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth_nnunet.source import NnunetSource, generator_size, open_nnunet
from gansynth_nnunet.splits import make_splits


def edit(path: Path, **changes: object) -> None:
    write_json_atomic(path, {**read_json(path), **changes})


def arrays(toy, configuration="3d_fullres") -> Path:
    folder: Path = toy.preprocessed / f"nnUNetPlans_{configuration}"
    return folder


def store(path: Path, array: np.ndarray) -> None:
    """Write an array as nnU-Net does; its date changes, as when nnU-Net writes it."""
    path.unlink(missing_ok=True)
    blosc2.asarray(np.ascontiguousarray(array), urlpath=str(path))


def load_array(path: Path) -> np.ndarray:
    return np.asarray(blosc2.open(str(path))[...])


@pytest.fixture(scope="module")
def source(toy_nnunet) -> NnunetSource:
    return open_nnunet(toy_nnunet.request())


# -- what is read --------------------------------------------------------------------------------


def test_cases_are_those_nnunet_loads(source, toy_nnunet):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    theirs = nnUNetDatasetBlosc2(str(arrays(toy_nnunet)))
    for case in source.cases():
        image, labels, _, _ = theirs.load_case(case.id)
        assert np.array_equal(case.image, image[...])
        assert np.array_equal(case.labels, labels[0])
        assert (case.image.dtype, case.labels.dtype) == (np.float32, np.int16)


def test_the_schema_names_channels_and_labels(source):
    schema = source.schema
    assert schema.channels == ("T1", "FLAIR")
    assert dict(schema.labels) == {"background": 0, "organ": 1, "lesion": 2}
    assert (schema.spacing, schema.axes) == ((1.0, 1.0, 1.0), "DHW")
    assert schema.label_values == (-1, 0, 1, 2)


def test_no_pickle_is_needed(toy_copy):
    for file in arrays(toy_copy).glob("*.pkl"):
        file.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert len(list(open_nnunet(toy_copy.request()).cases())) == 4


def test_neither_torch_nor_nnunet_is_imported(toy_nnunet):
    request = toy_nnunet.request(fold="all").to_json()
    code = (
        "import json, sys\n"
        "from gansynth.core.source import SourceRequest\n"
        "from gansynth_nnunet.source import open_nnunet\n"
        f"source = open_nnunet(SourceRequest(**json.loads({json.dumps(request)!r})))\n"
        "source.schema, source.space, source.load(source.train_ids[0])\n"
        "assert not {'torch', 'nnunetv2'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_registry_opens_it_by_name(toy_nnunet):
    registry = Registry()
    registry.add(gansynth_nnunet, "nnunet")
    assert registry.broken == {}
    assert registry.load("sources", "nnunet")(toy_nnunet.request()).name == "nnunet:Dataset501_Toy"


def test_outside_the_body_images_are_zero_and_the_schema_says_so(source):
    case = source.load(source.train_ids[0])
    assert (case.labels == -1).any()
    assert source.schema.outside_fill == (0.0, 0.0)


def test_an_outside_that_varies_has_to_be_drawn(toy_copy):
    path = arrays(toy_copy) / "p1_left.b2nd"
    image, labels = load_array(path), load_array(arrays(toy_copy) / "p1_left_seg.b2nd")
    image[1][labels[0] == -1] = 0.5
    store(path, image)
    assert open_nnunet(toy_copy.request()).schema.outside_fill is None


@pytest.mark.parametrize(
    ("edge", "first", "fill"), [(16, 0.5, (0.5, 0.5)), (15, 0.5, None), (16, 0.7, None)]
)
def test_another_constant_counts_if_all_agree_and_nothing_is_padded(toy_copy, edge, first, fill):
    for path in arrays(toy_copy).glob("*_seg.b2nd"):
        labels = np.zeros((1, edge, 24, 16), np.int16)
        labels[:, :3] = -1
        image = np.random.default_rng(0).normal(size=(2, edge, 24, 16)).astype(np.float32)
        image[:, :3] = first if path.name.startswith("p1_left") else 0.5
        store(path, labels)
        store(path.with_name(path.name.replace("_seg", "")), image)
    source = open_nnunet(toy_copy.request())
    assert source.space.size == (16, 24, 16)
    assert source.schema.outside_fill == fill


def test_without_any_outside_padding_is_zero(toy_copy):
    for path in arrays(toy_copy).glob("*_seg.b2nd"):
        store(path, load_array(path).clip(0))
    assert open_nnunet(toy_copy.request()).schema.outside_fill == (0.0, 0.0)


def test_regions_and_ignore_label_become_plain_labels(toy_copy):
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    edit(toy_copy.preprocessed / "dataset.json", labels=labels, regions_class_order=[1, 2])
    found = open_nnunet(toy_copy.request())
    assert dict(found.schema.labels) == {"background": 0, "label_1": 1, "core": 2, "ignore": 3}
    assert found.schema.ignore == 3
    assert found.schema.label_values == (-1, 0, 1, 2)
    assert found.host["regions"] == {"whole": [1, 2], "core": [2]}


# -- space ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patch", "extent", "size"),
    [
        ((48, 48, 48), (200, 200, 200), (64, 64, 64)),
        ((40, 56, 40), (43, 58, 44), (48, 64, 48)),
        ((48, 48), (20, 50), (48, 56)),
        ((20, 320), (30, 500), (32, 432)),
    ],
)
def test_the_generator_draws_a_third_more_than_the_patch_where_cases_have_it(patch, extent, size):
    assert generator_size(patch, extent) == size


def test_3d_works_in_crops(source):
    assert (source.space.grid, source.space.size) == ("crop", (24, 24, 24))
    assert (source.patch_size, source.batch_size) == ((16, 24, 16), 2)


def test_2d_works_in_slices_of_volumes(toy_nnunet):
    source = open_nnunet(toy_nnunet.request(configuration="2d"))
    case = source.load(source.train_ids[0])
    assert case.image.ndim == 4
    assert source.space.grid == "slice"
    placed = source.space.to_generator(case, Placement((0, 0), slice_index=3))
    assert placed.image.shape == (2, *source.space.size)
    assert source.space.generator_schema(source.schema).spacing == (1.0, 1.0)


def test_2d_takes_the_slice_distance_from_the_original_data(toy_copy):
    edit(
        toy_copy.preprocessed / f"{toy_copy.plans}.json",
        original_median_spacing_after_transp=[5.0, 1.0, 1.0],
    )
    assert open_nnunet(toy_copy.request(configuration="2d")).schema.spacing == (5.0, 1.0, 1.0)


def test_the_host_record_survives_json(source):
    assert json.loads(json.dumps(source.host)) == source.host
    assert source.host["patch_size"] == [16, 24, 16]
    assert source.host["normalization_schemes"] == ["ZScoreNormalization"] * 2


def test_the_host_record_tells_configurations_and_plans_apart(source, toy_nnunet):
    for change in ({"configuration": "2d"}, {"plans": "nnUNetPlans"}):
        assert open_nnunet(toy_nnunet.request(**change)).host != source.host


# -- folds ---------------------------------------------------------------------------------------


def test_missing_splits_are_made_as_nnunet_makes_them(toy_copy, caplog):
    path = toy_copy.preprocessed / "splits_final.json"
    path.unlink(missing_ok=True)
    with caplog.at_level("INFO", logger="gansynth"):
        open_nnunet(toy_copy.request())
    assert "splits_final.json: made" in caplog.text
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    ids = sorted(p.stem for p in arrays(toy_copy).glob("*.pkl"))
    theirs = generate_crossval_split(ids, seed=12345, n_splits=5)
    assert read_json(path, expected=list) == json.loads(json.dumps(theirs))


def test_training_and_held_out_cases_are_the_folds(source, toy_nnunet):
    split = read_json(toy_nnunet.preprocessed / "splits_final.json", expected=list)[0]
    assert (list(source.train_ids), list(source.held_out_ids)) == (split["train"], split["val"])


def test_fold_all_holds_nothing_out(toy_nnunet):
    source = open_nnunet(toy_nnunet.request(fold="all"))
    assert (len(source.train_ids), source.held_out_ids) == (6, ())


@pytest.mark.parametrize("fold", ["5", "-1", "first", "", "00"])
def test_a_fold_that_is_none_is_refused(toy_nnunet, fold):
    with pytest.raises(UsageFault, match="has 5 folds, expected 0 to 4 or 'all'"):
        open_nnunet(toy_nnunet.request(fold=fold))


def test_a_split_that_parts_a_person_is_refused_with_the_repair(toy_nnunet):
    with pytest.raises(IntegrityFault, match=r"gansynth splits nnunet:501 --subjects \(p"):
        open_nnunet(toy_nnunet.request(subjects=r"(p\d)_"))


def test_the_repair_repairs_and_is_remembered(toy_copy):
    make_splits(toy_copy.request(subjects=r"(p\d)_"), folds=3, overwrite=True)
    source = open_nnunet(toy_copy.request())
    assert source.subject("p2_left") == source.subject("p2_right") == "p2"
    assert len(source.held_out_ids) == 2


def test_a_leak_that_subjects_reveal_leaves_no_split_behind(toy_copy):
    path = toy_copy.preprocessed / "splits_final.json"
    path.unlink(missing_ok=True)
    with pytest.raises(IntegrityFault):
        open_nnunet(toy_copy.request(subjects=r"(p\d)_"))
    assert not path.exists()


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ([{"train": ["p1_left"], "val": []}], "val holds no case"),
        ([{"train": [], "val": ["p1_left"]}], "train holds no case"),
        ([{"train": ["gone"], "val": ["p1_left"]}], "train holds 'gone', which is not"),
        ([{"train": "p1_left"}], "fold 0 is"),
        ([3], "fold 0 is 3"),
        ({}, "is a dict, expected a list"),
    ],
)
def test_an_unusable_split_says_what_is_wrong(toy_copy, splits, said):
    write_json_atomic(toy_copy.preprocessed / "splits_final.json", splits)
    with pytest.raises(DataFault, match=said):
        open_nnunet(toy_copy.request())


def test_a_case_on_both_sides_is_refused(toy_copy):
    split = {"train": ["p1_left", "p2_left"], "val": ["p1_left"]}
    write_json_atomic(toy_copy.preprocessed / "splits_final.json", [split])
    with pytest.raises(IntegrityFault, match="p1_left and p1_left"):
        open_nnunet(toy_copy.request())


def test_too_few_cases_for_five_folds_are_told_the_way_out(toy_copy):
    (toy_copy.preprocessed / "splits_final.json").unlink(missing_ok=True)
    for case in ("p1_left", "p1_right"):
        for file in arrays(toy_copy).glob(f"{case}*"):
            file.unlink()
    with pytest.raises(DataFault, match=r"need 5 cases, found 4; .* --folds 2"):
        open_nnunet(toy_copy.request())


# -- what cannot be opened -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"configuration": "3d_lowres"}, "not in .*, expected one of: 2d, 3d_fullres"),
        ({"plans": "other"}, "expected one of: gansynthSmallPlans, nnUNetPlans"),
        ({"plans": "../Dataset501_Toy/nnUNetPlans"}, "no such plans"),
    ],
)
def test_unknown_names_list_what_there_is(toy_nnunet, change, said):
    with pytest.raises(UsageFault, match=said):
        open_nnunet(toy_nnunet.request(**change))


@pytest.mark.parametrize("where", ["7", "Dataset007_Gone", "../x", "toy"])
def test_an_unknown_data_set_lists_what_there_is(toy_nnunet, where):
    with pytest.raises(DataFault, match=r"expected .*Dataset501_Toy"):
        open_nnunet(replace(toy_nnunet.request(), where=where))


def change_configuration(toy, **changes: object) -> None:
    path = toy.preprocessed / f"{toy.plans}.json"
    plans = read_json(path)
    plans["configurations"]["3d_fullres"].update(changes)
    write_json_atomic(path, plans)


def test_an_inherited_configuration_is_resolved(toy_copy):
    path = toy_copy.preprocessed / f"{toy_copy.plans}.json"
    plans = read_json(path)
    plans["configurations"]["3d_big"] = {"inherits_from": "3d_fullres", "batch_size": 4}
    write_json_atomic(path, plans)
    source = open_nnunet(toy_copy.request(configuration="3d_big"))
    assert (source.batch_size, source.patch_size) == (4, (16, 24, 16))


def test_a_circle_of_inheritance_is_a_fault(toy_copy):
    change_configuration(toy_copy, inherits_from="3d_fullres")
    with pytest.raises(DataFault, match="inherits from itself"):
        open_nnunet(toy_copy.request())


@pytest.mark.parametrize("name", ["../Dataset501_Toy/nnUNetPlans_2d", "/", "..", ""])
def test_a_data_folder_elsewhere_is_refused(toy_copy, name):
    change_configuration(toy_copy, data_identifier=name)
    with pytest.raises(IntegrityFault, match="data_identifier"):
        open_nnunet(toy_copy.request())


def test_a_configuration_not_preprocessed_names_the_command(toy_copy):
    change_configuration(toy_copy, data_identifier="nnUNetPlans_3d_other")
    with pytest.raises(DataFault, match="run: gansynth prepare nnunet:501 -c 3d_fullres"):
        open_nnunet(toy_copy.request())


def test_a_data_set_never_planned_names_the_command(toy_copy):
    for file in toy_copy.preprocessed.glob("*Plans.json"):
        file.unlink()
    with pytest.raises(DataFault, match="gansynth prepare nnunet:501"):
        open_nnunet(toy_copy.request())


# -- damaged cases -------------------------------------------------------------------------------


def test_labels_that_are_not_there_are_noticed_at_once(toy_copy):
    (arrays(toy_copy) / "p2_left_seg.b2nd").unlink()
    with pytest.raises(DataFault, match=r"p2_left_seg\.b2nd first"):
        open_nnunet(toy_copy.request())


def test_a_bit_flipped_after_preprocessing_is_caught(toy_copy):
    path = arrays(toy_copy) / "p2_left.b2nd"
    date = path.stat()
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(date.st_atime_ns, date.st_mtime_ns))  # a disk that rots changes no date
    source = open_nnunet(toy_copy.request())
    with pytest.raises(IntegrityFault, match=r"p2_left\.b2nd: its SHA-256"):
        source.load("p2_left")


def test_a_truncated_case_is_named(toy_copy):
    path = arrays(toy_copy) / "p2_left.b2nd"
    path.write_bytes(path.read_bytes()[:300])
    source = open_nnunet(toy_copy.request())
    with pytest.raises(DataFault, match=r"p2_left\.b2nd: damaged .* --force"):
        source.load("p2_left")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("p2_left.b2nd", lambda a: a * np.nan, "NaN"),
        ("p2_left.b2nd", lambda a: a[:1], r"1 channel\(s\), expected 2"),
        ("p2_left.b2nd", lambda a: a[:, 1:], "expected equal"),
        ("p2_left.b2nd", lambda a: a[0], r"shape .*expected numbers of shape \(C, D, H, W\)"),
        ("p2_left_seg.b2nd", lambda a: a + 5, r"label value\(s\) \[4, 5, 6, 7\] unknown"),
        ("p2_left_seg.b2nd", lambda a: np.concatenate([a, a]), "expected one channel"),
    ],
    ids=["nan", "channels", "shape", "axes", "labels", "seg-channels"],
)
def test_arrays_that_do_not_fit_are_refused(toy_copy, name, change, said):
    source = open_nnunet(toy_copy.request())
    assert source.schema is not None
    path = arrays(toy_copy) / name
    store(path, change(load_array(path)))
    with pytest.raises(DataFault, match=said):
        source.load("p2_left")


def test_a_request_goes_through_json(toy_nnunet):
    request = toy_nnunet.request()
    again = SourceRequest(**json.loads(json.dumps(request.to_json())))
    assert open_nnunet(again).train_ids == open_nnunet(request).train_ids
