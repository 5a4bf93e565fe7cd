"""A data set dealt out otherwise, by lists in a folder: volumes, slices of them, pictures."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from gansynth.core.source import CaseSource, SourceRequest, Split
from gansynth.data.h5_write import write_h5
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.sampling.opening import open_source
from gansynth.testing import ToySource
from tests.dividing import assert_same_cases, state

CASES = ("anna_1", "anna_2", "bert_1", "carl_1", "carl_2", "dora_1")
PEOPLE = r"([a-z]+)_\d"
SPLITS = [
    Split(train=["carl_1", "anna_1", "carl_2"], val=["bert_1"]),
    Split(train=["bert_1"], val=["dora_1", "anna_2"]),
]
SHAPE = (8, 7, 6)


def volume(path: Path, seed: int, *, labels: bool = False, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((seed, labels))
    array = rng.normal(100, 10, (*SHAPE, channels)).astype(np.float32).squeeze()
    if labels:
        array = np.zeros(SHAPE, np.uint8)
        array[2:5, 2:5, 1 + seed % 3 : 5] = 1
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def pairs(home: Path) -> SourceRequest:
    for number, case in enumerate(CASES):
        volume(home / "images" / f"{case}.nii.gz", number)
        volume(home / "labels" / f"{case}.nii.gz", number, labels=True)
    return SourceRequest("nifti", str(home), subjects=PEOPLE, read={"folds": "3"})


def manifest(home: Path) -> SourceRequest:
    """Its columns hold a split of their own, and out of the folder."""
    pairs(home / "files")
    (home / "lists").mkdir()
    path = home / "lists" / "set.csv"
    rows = [["case", "subject", "T1", "label", "split"]]
    for number, case in enumerate(CASES):
        part = ("train", "train", "val", "train", "train", "test")[number]
        files = (f"../files/{kind}/{case}.nii.gz" for kind in ("images", "labels"))
        rows.append([case, case[:4], *files, part])
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return SourceRequest("nifti", str(path), read={"allow_absolute": "yes", "spacing": "2"})


def msd(home: Path) -> SourceRequest:
    """Channels last, of which one is picked."""
    training = []
    for number, case in enumerate(CASES):
        entry = {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
        volume(home / entry["image"], number, channels=2)
        volume(home / entry["label"], number, labels=True)
        training.append(entry)
    modality, labels = {"0": "FLAIR", "1": "T1w"}, {"0": "background", "1": "tumour"}
    doc = {"modality": modality, "labels": labels, "training": training}
    (home / "dataset.json").write_text(json.dumps(doc))
    read = {"channels": "T1w", "folds": "2"}
    return SourceRequest("msd", str(home), subjects=PEOPLE, read=read)


def pictures(home: Path) -> SourceRequest:
    rng = np.random.default_rng(0)
    for case in CASES:
        for part in ("images", "masks"):
            pixels = rng.integers(0, 256 if part == "images" else 2, (9, 8)).astype(np.uint8)
            (home / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(home / part / f"{case}.png")
    return SourceRequest("pictures", str(home), subjects=PEOPLE, read={"folds": "2"})


KINDS: dict[str, Callable[[Path], SourceRequest]] = {
    "nifti": pairs,
    "manifest": manifest,
    "msd": msd,
    "pictures": pictures,
}


def opened(request: SourceRequest) -> CaseSource:
    return open_source(request)


@pytest.fixture(params=KINDS)
def home(request, tmp_path) -> tuple[Path, CaseSource]:
    """A user's folder of each kind, and its source."""
    folder = tmp_path / "user"
    folder.mkdir()
    return folder, opened(KINDS[request.param](folder))


@pytest.fixture
def source(tmp_path) -> CaseSource:
    """A folder of pairs."""
    return opened(pairs(tmp_path / "user"))


def test_folds_are_as_asked_and_cases_as_before(home, tmp_path):
    folder, source = home
    before = state(folder)
    request = source.divided(SPLITS, tmp_path / "new")
    for number, split in enumerate(SPLITS):
        other = opened(replace(request, fold=str(number)))
        assert other.train_ids == tuple(sorted(split["train"]))
        assert other.held_out_ids == tuple(sorted(split["val"]))
        assert_same_cases(source, other, CASES)
    assert state(folder) == before


def test_a_generator_of_the_new_folds_is_of_the_same_data_set(home, tmp_path):
    _, source = home
    other = opened(source.divided(SPLITS, tmp_path / "new"))
    assert other.name == source.name
    assert other.schema == source.schema
    assert (other.space.grid, other.host.keys()) == (source.space.grid, source.host.keys())
    assert {case.subject for case in other.lineage().cases} == {"anna", "carl"}


def test_what_is_learnt_is_learnt_from_the_new_training_cases(tmp_path):
    request = pairs(tmp_path / "user")
    source = opened(replace(request, read={**request.read, "modality": "ct"}))
    first = source.divided(SPLITS, tmp_path / "new")
    (one,), (other,) = (opened(replace(first, fold=k)).host["intensity"] for k in "01")
    assert one != other


def test_a_request_is_plain_values_that_need_no_working_directory(home, tmp_path, monkeypatch):
    _, source = home
    monkeypatch.chdir(tmp_path)
    request = source.divided(SPLITS, Path("new"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = SourceRequest(**json.loads(json.dumps(request.to_json())))
    assert opened(again).train_ids == ("anna_1", "carl_1", "carl_2")


def test_nothing_but_small_files_is_written(home, tmp_path):
    _, source = home
    source.divided(SPLITS, tmp_path / "new")
    files = [path for path in (tmp_path / "new").rglob("*") if not path.is_dir()]
    assert sum(file.stat().st_size for file in files) < 4096


def test_again_the_same_is_written_again(source, tmp_path):
    request = source.divided(SPLITS, tmp_path / "new")
    before = {path: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    reordered = [Split(train=s["train"][::-1], val=s["val"] * 2) for s in SPLITS]
    assert source.divided(reordered, tmp_path / "new") == request
    assert {path: path.read_bytes() for path in (tmp_path / "new").iterdir()} == before


def test_what_was_dealt_out_is_dealt_out_again(source, tmp_path):
    first = opened(source.divided(SPLITS, tmp_path / "outer"))
    inner = [Split(train=["carl_1", "carl_2"], val=["anna_1"])]
    second = opened(first.divided(inner, tmp_path / "inner"))
    assert (second.train_ids, second.held_out_ids) == (("carl_1", "carl_2"), ("anna_1",))


# -- what is refused -------------------------------------------------------------------------------


def test_another_split_is_not_written_over(source, tmp_path):
    source.divided(SPLITS, tmp_path / "new")
    with pytest.raises(UsageFault, match="splits is another than asked for"):
        source.divided(SPLITS[:1], tmp_path / "new")
    assert len(json.loads((tmp_path / "new/splits.json").read_text())) == 2


def test_a_folder_of_another_data_set_is_not_written_over(source, tmp_path):
    source.divided(SPLITS, tmp_path / "new")
    with pytest.raises(UsageFault, match="name is another than asked for"):
        opened(pairs(tmp_path / "other")).divided(SPLITS, tmp_path / "new")


def test_a_person_on_both_sides_is_a_leak(home, tmp_path):
    _, source = home
    with pytest.raises(IntegrityFault, match="anna"):
        source.divided([Split(train=["anna_1"], val=["anna_2", "bert_1"])], tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ([], "no fold"),
        ([Split(train=["anna_1"], val=[])], "no case under val"),
        ([Split(train=[], val=["anna_1"])], "no case under train"),
        ([Split(train=["anna_1", "nobody"], val=["bert_1"])], "'nobody'"),
    ],
)
def test_splits_that_cannot_be(source, tmp_path, splits, says):
    with pytest.raises(UsageFault, match=says):
        source.divided(splits, tmp_path / "new")


def test_a_kind_that_cannot_says_which_can(tmp_path):
    with pytest.raises(UsageFault, match=r"cases of toy: .* expected .* nnunet:, nnunet-raw:"):
        ToySource().divided([Split(train=["toy_00"], val=["toy_01"])], tmp_path)


def test_a_cache_names_what_it_was_made_from(source, tmp_path):
    write_h5(source, tmp_path / "cache.h5")
    cache = opened(SourceRequest("h5", str(tmp_path / "cache.h5"), subjects=PEOPLE))
    with pytest.raises(UsageFault, match=f"expected what it was made from: nifti:{tmp_path}/user"):
        cache.divided(SPLITS, tmp_path / "new")


# -- slices ----------------------------------------------------------------------------------------


@pytest.fixture
def slices(tmp_path) -> CaseSource:
    """Sagittal slices with foreground; a key that both sources know is the inner one's."""
    request = pairs(tmp_path / "user")
    read = {**request.read, "plane": "sagittal", "foreground": "with", "inner.window": "0:200"}
    read["inner.modality"] = "ct"
    return opened(replace(request, kind="slices", where=f"nifti:{request.where}", read=read))


def test_slices_go_where_their_volumes_go(slices, tmp_path):
    splits = [Split(train=["anna_1/sag003", "carl_1/sag000"], val=["bert_1/sag003"])]
    other = opened(slices.divided(splits, tmp_path / "new"))
    assert other.name == slices.name
    assert {case.split("/")[0] for case in other.train_ids} == {"anna_1", "carl_1"}
    assert other.held_out_ids == ("bert_1/sag002", "bert_1/sag003", "bert_1/sag004")
    assert other.subject("bert_1/sag003") == "bert"


def test_slices_are_as_before(tmp_path):
    request = pairs(tmp_path / "user")
    read = {**request.read, "inner.modality": "none", "window": "0:200"}
    asked = replace(request, kind="slices", where=f"nifti:{request.where}", read=read)
    slices = opened(asked)
    splits = [Split(train=list(slices.held_out_ids), val=list(slices.train_ids))]
    other = opened(slices.divided(splits, tmp_path / "new"))
    assert other.train_ids == slices.held_out_ids
    assert other.host == slices.host
    assert_same_cases(slices, other, (slices.train_ids[0], slices.held_out_ids[-1]))


def test_a_slice_that_is_none_is_refused(slices, tmp_path):
    with pytest.raises(UsageFault, match=r"no case 'anna_1'.*correct the split"):
        slices.divided([Split(train=["anna_1"], val=["bert_1/sag003"])], tmp_path / "new")


# -- a split of the user's own ---------------------------------------------------------------------


def own_split(tmp_path: Path, *splits: Split) -> str:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(list(splits)))
    return str(path)


def test_a_split_by_option_counts_before_all_else(home, tmp_path):
    _, source = home
    (tmp_path / "user/splits.json").write_text(json.dumps([SPLITS[1]]))
    read = {**source.request.read, "splits": own_split(tmp_path, SPLITS[0])}
    other = opened(replace(source.request, fold="0", read=read))
    assert other.held_out_ids == ("bert_1",)


def test_a_split_by_option_that_leaks_is_refused(home, tmp_path):
    _, source = home
    leaking = Split(train=["anna_1"], val=["anna_2"])
    read = {**source.request.read, "splits": own_split(tmp_path, leaking)}
    with pytest.raises(IntegrityFault, match=r"anna.*mine\.json"):
        opened(replace(source.request, fold="0", read=read))


def test_a_split_by_option_of_other_cases_is_refused(home, tmp_path):
    _, source = home
    odd = Split(train=["anna_1"], val=["nobody"])
    read = {**source.request.read, "splits": own_split(tmp_path, odd)}
    with pytest.raises(DataFault, match=r"mine\.json: fold 0 names 1 case.*'nobody'"):
        opened(replace(source.request, fold="0", read=read))


def test_a_fold_that_the_split_lacks_is_refused(home, tmp_path):
    _, source = home
    read = {**source.request.read, "splits": own_split(tmp_path, SPLITS[0])}
    with pytest.raises(UsageFault, match="--fold '1'"):
        opened(replace(source.request, fold="1", read=read))
