import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

from gansynth.core.requests.hosts import AugmentRequest, SplitsRequest
from gansynth.core.source import FoldSplit, SourceRequest
from gansynth.core.space import Placement
from gansynth.hosts.contract.session import Session
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.sampling.run_source import open_source
from gansynth_nnunet.cases import hashes_of, write_hashes
from gansynth_nnunet.dataset import make_splits
from gansynth_nnunet.source import NnunetSource
from tests.conftest import FIT
from tests.dividing import divided, state
from tests.expected import raises_fault

Spoil = Callable[[Any], object]
PEOPLE = r"(p\d)_"


def arrays(toy) -> Path:
    folder: Path = toy.preprocessed / "nnUNetPlans_3d_fullres"
    return folder


def store(path: Path, array: np.ndarray) -> None:
    """Write an array, and note its hash, as ``gansynth prepare`` does."""
    path.unlink(missing_ok=True)
    blosc2.asarray(np.ascontiguousarray(array), urlpath=str(path))
    write_hashes(path.parent)


def planned(**changes: object) -> Spoil:
    """Other values in the configuration 3d_fullres."""

    def change(toy: Any) -> None:
        path = toy.preprocessed / f"{toy.plans}.json"
        plans = read_json(path)
        plans["configurations"]["3d_fullres"].update(changes)
        write_json_atomic(path, plans)

    return change


def split(document: object) -> Spoil:
    return lambda toy: write_json_atomic(toy.preprocessed / "splits_final.json", document)


def without(*patterns: str) -> Spoil:
    return lambda toy: [f.unlink() for p in patterns for f in toy.preprocessed.glob(p)]


@pytest.mark.fault(20)
def test_no_pickle_is_needed(toy_copy):
    for file in arrays(toy_copy).glob("*.pkl"):
        file.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    source = NnunetSource(toy_copy.request(fold="all"))
    assert (len(list(map(source.load, source.train_ids))), source.held_out_ids) == (6, ())


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
    source = NnunetSource(toy_copy.request())
    assert source.space.size == (16, 24, 16)
    assert source.schema.outside_fill == fill


def test_2d_works_in_slices_of_volumes_as_far_apart_as_in_the_original_data(toy_copy):
    path = toy_copy.preprocessed / f"{toy_copy.plans}.json"
    told = {"original_median_spacing_after_transp": [5.0, 1.0, 1.0]}
    write_json_atomic(path, {**read_json(path), **told})
    source = NnunetSource(toy_copy.request(configuration="2d"))
    placed = source.space.to_generator(source.load("p1_left"), Placement((0, 0), slice_index=3))
    assert placed.image.shape == (2, *source.space.size)
    assert (source.space.grid, source.schema.spacing) == ("slice", (5.0, 1.0, 1.0))
    assert source.space.generator_schema(source.schema).spacing == (1.0, 1.0)
    assert (source.patch_size, source.batch_size) == ((24, 16), 2)


def test_missing_splits_are_made_as_nnunet_makes_them(toy_copy, caplog):
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    path = toy_copy.preprocessed / "splits_final.json"
    path.unlink(missing_ok=True)
    with caplog.at_level("INFO", logger="gansynth"):
        source = NnunetSource(toy_copy.request())
    assert "splits_final.json: made" in caplog.text
    ids = sorted(p.stem for p in arrays(toy_copy).glob("*.pkl"))
    theirs = generate_crossval_split(ids, seed=12345, n_splits=5)
    made = read_json(path, expected=list)
    assert made == json.loads(json.dumps(theirs))
    assert [list(source.train_ids), list(source.held_out_ids)] == [made[0]["train"], made[0]["val"]]


def test_fewer_cases_than_nnunets_folds_are_dealt_into_as_many_as_there_are(toy_copy):
    without("splits_final.json", "nnUNetPlans_3d_fullres/p1_*")(toy_copy)
    source = NnunetSource(toy_copy.request())
    made = read_json(toy_copy.preprocessed / "splits_final.json", expected=list)
    assert [len(fold["val"]) for fold in made] == [1] * 4
    assert source.note.endswith("as many folds as subjects")


def test_the_repair_of_a_split_that_parts_people_is_remembered_and_the_split_kept(toy_copy):
    PARTED(toy_copy)
    told: dict[str, Any] = {"subjects": PEOPLE, "root": toy_copy.root, "folds": 3, "force": True}
    splits = make_splits(SplitsRequest(data="nnunet:501", **told))
    assert [len(one["val"]) for one in splits] == [2, 2, 2]
    (kept,) = toy_copy.preprocessed.glob("splits_final.*.json")
    assert read_json(kept, expected=list)[0]["val"] == ["p1_right"]
    source = NnunetSource(toy_copy.request())
    assert source.header("p2_left").subject == source.header("p2_right").subject == "p2"
    assert len(source.held_out_ids) == 2


def test_a_fold_for_each_site_holds_out_its_cases(toy_copy):
    told: dict[str, Any] = {"subjects": PEOPLE, "root": toy_copy.root, "force": True}
    splits = make_splits(SplitsRequest(data="nnunet:501", sites="(p[12]|p3)", **told))
    assert [{case[:2] for case in one["val"]} for one in splits] == [{"p1"}, {"p2"}, {"p3"}]


NO_SPLIT = without("splits_final.json")
PARTED = split([{"train": ["p1_left", "p2_left"], "val": ["p1_right"]}])
TWICE = split([{"train": ["p1_left", "p2_left"], "val": ["p1_left"]}])
PREPARE = "gansynth prepare nnunet:501 -c 3d_fullres --root "
LEAK, VALUE = "lineage.subject-in-training-and-validation", "nnunet.plans-value-refused"
NOWHERE, FOLD = "nnunet.no-such-data-set", "folds.fold-malformed"
REFUSED: list[tuple[Spoil | None, dict[str, str], str, str]] = [
    (None, {"fold": "00"}, "folds.fold-unknown", "0, 1, 2, 3, 4"),
    (NO_SPLIT, {"subjects": PEOPLE}, LEAK, "(subject p"),
    (PARTED, {"subjects": PEOPLE}, LEAK, "gansynth splits nnunet:501 --root "),
    (TWICE, {}, LEAK, "p1_left and p1_left"),
    (split([{"train": ["p1_left"], "val": []}]), {}, FOLD, "'val': []"),
    (split([{"train": ["x"], "val": ["p1_left"]}]), {}, "folds.fold-names-unknown-cases", "'x'"),
    (split([{"train": "p1_left"}]), {}, FOLD, "{'train': 'p1_left'}"),
    (split({}), {}, "files.top-level-type-differs", "splits_final.json"),
    (None, {"plans": "../Dataset501_Toy/nnUNetPlans"}, "nnunet.plans-name-unknown", ""),
    (None, {"where": "../x"}, NOWHERE, "Dataset501_Toy"),
    (planned(previous_stage="3d_low"), {}, "nnunet.cascade-second-stage", "-c 3d_low,"),
    (planned(inherits_from="3d_fullres"), {}, "nnunet.configuration-unreadable",
     "Circular dependency"),
    (planned(spacing=["a", 1, 1]), {}, VALUE, "3d_fullres: spacing.0 is 'a'"),
    (planned(patch_size=[0, 8, 8]), {}, VALUE, "3d_fullres: patch_size.0 is 0"),
    (planned(data_identifier="../x"), {}, VALUE, "data_identifier is '../x'"),
    (planned(data_identifier=".."), {}, VALUE, "data_identifier is '..'"),
    (planned(data_identifier="nnUNetPlans_3d_x"), {}, "nnunet.no-preprocessed-cases",
     "-c 3d_fullres"),
    (without("*Plans.json"), {}, "nnunet.no-plans", PREPARE),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "asked", "expected", "names"), REFUSED)
def test_what_cannot_be_opened_is_refused(toy_copy, spoil, asked, expected, names):
    if spoil is not None:
        spoil(toy_copy)
    with raises_fault(expected, names=names):
        NnunetSource(replace(toy_copy.request(), **asked))
    if spoil is NO_SPLIT:  # the one that it made parts people
        assert not (toy_copy.preprocessed / "splits_final.json").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


IMAGE, LABELS = "p2_left.b2nd", "p2_left_seg.b2nd"
UNFIT: list[tuple[str, Callable[[np.ndarray], np.ndarray], str, str]] = [
    (IMAGE, lambda a: a[:1], "nnunet.preprocessed-case-faulty", "(T1, FLAIR)"),
    (IMAGE, lambda a: a[:, 1:], "nnunet.preprocessed-case-faulty", "labels"),
    (IMAGE, lambda a: a[0], "nnunet.array-damaged", IMAGE),
    (LABELS, lambda a: np.concatenate([a, a]), "nnunet.preprocessed-labels-several-channels",
     LABELS),
]  # fmt: skip


@pytest.mark.fault(9)
@pytest.mark.parametrize(("name", "change", "expected", "names"), UNFIT)
def test_arrays_that_do_not_fit_are_named(toy_copy, name, change, expected, names):
    """What is damaged in them, and NaN and unknown labels, ``tests/test_bad_input.py`` has."""
    path = arrays(toy_copy) / name
    store(path, change(np.asarray(blosc2.open(str(path))[...])))
    with raises_fault(expected, names=names):
        NnunetSource(toy_copy.request()).load("p2_left")


def kill_the_decoder(path: Path) -> None:
    """Of a blosc2 array of this shape, bit 4 of byte 215 ends the process, or is refused."""
    store(path, np.random.default_rng(0).normal(size=(2, 16, 24, 16)).astype(np.float32))
    damaged = bytearray(path.read_bytes())
    damaged[215] ^= 1 << 4
    path.write_bytes(damaged)


@pytest.mark.parametrize("spoil", [cut, kill_the_decoder])
def test_damage_that_nobody_noted_is_named_and_the_others_are_noted(toy_copy, spoil):
    folder = arrays(toy_copy)
    spoil(folder / IMAGE)
    hashes_of(folder).unlink()
    source = NnunetSource(toy_copy.request(fold="all"))
    with raises_fault("nnunet.array-damaged"):
        source.load("p2_left")
    assert len(read_json(hashes_of(folder))) == 2 * len(source.train_ids) - 1


SPLITS = [
    FoldSplit(train=["p3_left", "p1_left", "p1_right"], val=["p2_left"]),
    FoldSplit(train=["p2_left"], val=["p1_left", "p3_left"]),
]
NAMED = ("p1_left", "p1_right", "p2_left", "p3_left")


@pytest.fixture
def everyone(toy_nnunet) -> NnunetSource:
    """The toy data set, nothing held out."""
    return NnunetSource(toy_nnunet.request(subjects=PEOPLE, fold="all"))


def test_folds_are_as_asked_and_the_same_is_written_again(everyone, toy_nnunet, tmp_path):
    request = divided(everyone, SPLITS, tmp_path / "new", toy_nnunet.root)
    assert NnunetSource(replace(request, fold="all")).train_ids == NAMED
    before = {name: size for name, (size, _) in state(tmp_path / "new").items()}
    assert everyone.divided(SPLITS, tmp_path / "new") == request
    with raises_fault("folds.folder-of-other-split"):
        everyone.divided(SPLITS[::-1], tmp_path / "new")
    assert {name: size for name, (size, _) in state(tmp_path / "new").items()} == before


def test_images_are_linked_also_if_dealt_out_again_and_damage_of_them_is_noticed(
    toy_copy, tmp_path
):
    everyone = NnunetSource(toy_copy.request(subjects=PEOPLE, fold="all"))
    first = NnunetSource(everyone.divided(SPLITS, tmp_path / "outer"))
    links = [path for path in (tmp_path / "outer").rglob("*") if path.is_symlink()]
    assert len(links) == 4 * len(NAMED) + 1  # image, labels, properties, truth; the raw data set
    inner = [FoldSplit(train=["p1_left"], val=["p3_left"])]
    second = NnunetSource(first.divided(inner, tmp_path / "inner"))
    assert (second.train_ids, second.held_out_ids) == (("p1_left",), ("p3_left",))
    links.append(second.folder / "p1_left.b2nd")  # not by way of the other folder
    assert all(toy_copy.root in Path(os.readlink(link)).parents for link in links)
    damaged = bytearray((everyone.folder / "p1_left.b2nd").read_bytes())
    damaged[len(damaged) // 2] ^= 1  # as a disk that rots, or a copy of it
    (everyone.folder / "p1_left.b2nd").write_bytes(damaged)
    with raises_fault("nnunet.array-hash-differs"):
        second.load("p1_left")


def test_a_generator_of_scans_dealt_out_alike_enters_and_of_others_is_refused(
    everyone, toy_nnunet, tmp_path, succeed
):
    root = tmp_path / "scans"  # without the split that other tests may have left
    root.mkdir()
    (root / "nnUNet_raw").symlink_to(toy_nnunet.root / "nnUNet_raw")
    told: dict[str, Any] = {"root": str(root), "subjects": PEOPLE, "read": {"folds": "3"}}
    raw = open_source(SourceRequest("nnunet-raw", "501", **told))
    asked = raw.divided(SPLITS, tmp_path / "raw")
    words = ("--data", "nnunet-raw:501", "--root", asked.root, "--subjects", asked.subjects)
    words = (*words, "--read", f"splits={asked.read['splits']}", "-o", tmp_path / "run", *FIT)
    succeed("fit", "cgan3d", *words, "--set=steps=1", "-q")
    host = NnunetSource(everyone.divided(SPLITS, tmp_path / "host"))
    scans = open_source(replace(raw.request, root=host.request.root, subjects=None))
    assert (scans.held_out_ids, scans.header("p1_left").subject) == (("p2_left",), "p1")
    request = AugmentRequest(target="nnunet", generator=tmp_path / "run", ratio="1:1")
    Session.of(request, host).check()
    others = NnunetSource(replace(host.request, fold="1"))
    with raises_fault("lineage.held-out-case-seen"):
        Session.of(request, others).check()
