import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.registry import installed
from gansynth.core.source import (
    CaseSource,
    FoldSplit,
    SourceRequest,
    lineage_of,
)
from gansynth.data.h5 import write_h5
from gansynth.runtime.errors import DataFault
from gansynth.sampling.run_source import open_source
from gansynth.testing import ToySource, check_source
from tests.data import sets
from tests.dividing import assert_same_cases, divided
from tests.expected import raises_fault

HOSTS = ("nnunet", "nnunet-raw")
DIVISIBLE = ("nifti", "manifest", "msd", "pictures")
SPLITS = [
    FoldSplit(train=["carl_1", "anna_1", "carl_2"], val=["bert_1"]),
    FoldSplit(train=["bert_1"], val=["dora_1", "anna_2"]),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory, toy_nnunet):
    """A small data set of each kind, and its source: ``made("nifti")``. Do not change it."""
    known: dict[str, tuple[Path, CaseSource]] = {}

    def make(kind: str) -> tuple[Path, CaseSource]:
        if kind not in known:
            home = toy_nnunet.root if kind in HOSTS else tmp_path_factory.mktemp(kind)
            asked = {
                "nnunet": toy_nnunet.request,
                "nnunet-raw": lambda: SourceRequest(kind, "501", root=str(home)),
            }
            known[kind] = home, open_source(asked.get(kind, lambda: sets.KINDS[kind](home))())
        return known[kind]

    return make


@pytest.fixture(params=[*sets.KINDS, *HOSTS])
def source(request, made) -> Any:
    return made(request.param)[1]


@pytest.fixture
def pairs(made) -> Any:
    return made("nifti")[1]


def everybody(source: CaseSource) -> tuple[str, ...]:
    return (*source.train_ids, *source.held_out_ids)


def test_every_source_kind_is_tested_checked_and_documented():
    kinds = {*sets.KINDS, *HOSTS} - {"manifest"}
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "sources.md").read_text("utf-8")
    table = dict(re.findall(r"^\| \[`(.*)`\]\((\w+\.md)#", text, re.MULTILINE))
    assert set(installed().names("sources")) - {"example"} == kinds
    assert kinds <= set(installed().names("checks"))
    assert set(table) == kinds
    pages = {kind: (docs / page).read_text("utf-8") for kind, page in table.items()}
    assert [kind for kind, page in pages.items() if f"\n## {kind}\n" not in page] == []


def test_a_source_keeps_the_contract(source):
    opener = installed().load("sources", source.request.kind)
    report = check_source(opener, source.request)
    assert {check.verdict for check in report.checks} == {"passed"}, report.failed
    assert all((source.train_ids, source.held_out_ids))
    lineage = {case.id: case.subject for case in lineage_of(source).cases}
    assert lineage == {case: source.header(case).subject for case in source.train_ids}


UNKNOWN = {
    "read": "read-options.key-unknown",
    "fold": "folds.fold-unknown",
    "slices read": "slices.inner-option-invalid",
    "pictures fold": "pictures.fold-unknown",
    "h5 fold": "h5.fold-differs",
    "yolo fold": "yolo.fold-of-one-split",
    "coco fold": "yolo.fold-of-one-split",
}


@pytest.mark.parametrize("change", [{"read": {"no_such": "1"}}, {"fold": "no_such"}], ids=str)
def test_unknown_read_options_are_refused_in_one_line(source, change):
    (field,) = change
    expected = UNKNOWN.get(f"{source.request.kind} {field}", UNKNOWN[field])
    with raises_fault(expected, names="no_such") as caught:
        _ = open_source(replace(source.request, **change)).train_ids
    assert "\n" not in str(caught.value)


def test_check_finds_nothing_in_a_sound_data_set(source):
    checked = sets.check_request(source.request)
    assert [finding for finding in checked.findings if finding.level == "error"] == []
    assert checked.cases == len(everybody(source))


def test_a_cache_is_the_source_it_was_made_from(source, tmp_path):
    write_h5(source, tmp_path / "cache.h5")
    cache = open_source(SourceRequest("h5", str(tmp_path / "cache.h5")))
    assert (cache.name, cache.schema, cache.space) == (source.name, source.schema, source.space)
    assert lineage_of(cache) == lineage_of(source)
    ids = everybody(source)[::3]
    assert_same_cases(source, cache, ids)
    for case in ids:
        assert cache.header(case).label_class == source.header(case).label_class
        assert cache.load(case).label_class == source.load(case).label_class


DAMAGED = {
    ".gz": "nifti.gzip-truncated",
    ".png": "picture-files.damaged",
    ".h5": "h5.damaged",
}


@pytest.mark.parametrize("kind", sets.KINDS)
def test_a_damaged_file_is_named_in_one_line(kind, tmp_path):
    asked = sets.KINDS[kind](tmp_path)
    images = ("cache.h5", "*anna_1.png", "*anna_1.nii.gz", "*p01_z000.png", "*flair.nii.gz")
    found = [path for pattern in images for path in sorted(tmp_path.rglob(pattern))]
    path = next(path for path in found if "abel" not in path.parent.name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with raises_fault(DAMAGED[path.suffix], names=path.name) as caught:
        list(map(open_source(asked).load, everybody(open_source(asked))))
    assert "\n" not in str(caught.value)
    try:
        said = [finding.message for finding in sets.check_request(asked).findings]
    except DataFault as fault:
        said = [str(fault)]
    assert any(path.name in message for message in said), said


@pytest.mark.parametrize("kind", DIVISIBLE)
def test_divided_sources_have_the_given_folds_and_the_same_cases(made, kind, tmp_path):
    folder, source = made(kind)
    request = divided(source, SPLITS, tmp_path / "new", folder)
    for number, split in enumerate(SPLITS):
        people = {case.partition("_")[0] for case in split["train"]}
        lineage = lineage_of(open_source(replace(request, fold=str(number))))
        assert {case.subject for case in lineage.cases} == people
    assert sum(path.stat().st_size for path in (tmp_path / "new").rglob("*.*")) < 4096
    with raises_fault("lineage.subject-in-training-and-validation"):
        source.divided([FoldSplit(train=["anna_1"], val=["anna_2", "bert_1"])], tmp_path / "odd")
    assert not (tmp_path / "odd").exists()


def test_dividing_overwrites_no_other_split_or_data_set(pairs, tmp_path):
    request = pairs.divided(SPLITS, tmp_path / "new")
    before = {path: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    reordered = [FoldSplit(train=s["train"][::-1], val=s["val"] * 2) for s in SPLITS]
    assert pairs.divided(reordered, tmp_path / "new") == request
    with raises_fault("folds.folder-of-other-split"):
        pairs.divided(SPLITS[:1], tmp_path / "new")
    with raises_fault("folds.folder-of-other-split"):
        open_source(sets.pairs(tmp_path / "other")).divided(SPLITS, tmp_path / "new")
    assert {path: path.read_bytes() for path in (tmp_path / "new").iterdir()} == before


@pytest.mark.parametrize(
    ("kind", "splits", "expected"),
    [
        ("nifti", [], "folds.resplit-without-fold"),
        ("nifti", [FoldSplit(train=["anna_1"], val=[])], "folds.resplit-side-empty"),
        ("nifti", [FoldSplit(train=[], val=["anna_1"])], "folds.resplit-side-empty"),
        ("nifti", [FoldSplit(train=["anna_1", "nobody"], val=["bert_1"])],
         "folds.resplit-names-unknown-cases"),
        ("slices", [FoldSplit(train=["anna_1"], val=["bert_1/sag003"])],
         "slices.split-names-unknown-case"),
        ("h5", SPLITS, "h5.cannot-be-split"),
        ("toy", SPLITS, "source.cannot-be-split"),
    ],
)  # fmt: skip
def test_impossible_splits_are_refused(made, tmp_path, kind, splits, expected):
    source = ToySource() if kind == "toy" else made(kind)[1]
    with raises_fault(expected):
        source.divided(splits, tmp_path / "new")


def with_split(source: CaseSource, tmp_path: Path, split: FoldSplit, fold: str = "0") -> CaseSource:
    (tmp_path / "mine.json").write_text(json.dumps([split]))
    read = {**source.request.read, "splits": str(tmp_path / "mine.json")}
    return open_source(replace(source.request, fold=fold, read=read))


@pytest.mark.parametrize("kind", DIVISIBLE)
def test_a_split_by_option_counts_before_all_else(kind, tmp_path):
    source = open_source(sets.KINDS[kind](tmp_path / "user"))
    (tmp_path / "user/splits.json").write_text(json.dumps([SPLITS[1]]))
    assert with_split(source, tmp_path, SPLITS[0]).held_out_ids == ("bert_1",)


@pytest.mark.parametrize("kind", ["nifti", "pictures"])
@pytest.mark.parametrize(
    ("split", "fold", "expected"),
    [
        (
            FoldSplit(train=["anna_1"], val=["anna_2"]),
            "0",
            "lineage.subject-in-training-and-validation",
        ),
        (FoldSplit(train=["anna_1"], val=["nobody"]), "0", "folds.fold-names-unknown-cases"),
        (SPLITS[0], "1", "folds.fold-unknown"),
    ],
    ids=["leak", "nobody", "fold"],
)  # fmt: skip
def test_a_split_by_option_that_does_not_fit_is_refused(
    made, kind, tmp_path, split, fold, expected
):
    with raises_fault(expected):
        with_split(made(kind)[1], tmp_path, split, fold)
