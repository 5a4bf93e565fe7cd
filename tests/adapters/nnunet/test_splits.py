import os
from dataclasses import replace
from pathlib import Path

import pytest

from gansynth.core.host_commands import TrainingRequest
from gansynth.core.mix_config import MixConfig
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import CaseSource, FoldSplit, SourceRequest
from gansynth.data.subjects import grouped_splits
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.sampling.run_source import open_source
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.source import NnunetSource, open_nnunet
from gansynth_nnunet.splits import write_splits
from tests.adapters.nnunet.test_source import flip_a_bit
from tests.conftest import FIT
from tests.dividing import divided, state

IDS = [f"p{person}_{side}" for person in range(7) for side in "lr"]
PEOPLE = {case: case[:2] for case in IDS}


def test_another_split_is_overwritten_only_if_asked_and_kept(tmp_path):
    first, second = (grouped_splits(IDS, PEOPLE, 5, seed) for seed in (0, 1))
    write_splits(tmp_path, first, PEOPLE)
    with pytest.raises(UsageFault, match="holds another split"):
        write_splits(tmp_path, second, PEOPLE)
    assert read_json(tmp_path / "splits_final.json", expected=list) == first
    write_splits(tmp_path, second, PEOPLE, overwrite=True)
    (kept,) = tmp_path.glob("splits_final.*.json")
    assert read_json(kept, expected=list) == first


PERSON = r"(p\d+)_"
SPLITS = [
    FoldSplit(train=["p3_left", "p1_left", "p1_right"], val=["p2_left"]),
    FoldSplit(train=["p2_left"], val=["p1_left", "p3_left"]),
]
NAMED = ("p1_left", "p1_right", "p2_left", "p3_left")


@pytest.fixture
def source(toy_nnunet) -> NnunetSource:
    """The toy data set, nothing held out."""
    return open_nnunet(toy_nnunet.request(subjects=PERSON, fold="all"))


def test_folds_are_as_asked_and_cases_as_before(source, toy_nnunet, tmp_path):
    request = divided(source, SPLITS, tmp_path / "new", toy_nnunet.root)
    other = open_nnunet(replace(request, fold="all"))
    assert (other.train_ids, other.header("p1_right").subject) == (NAMED, "p1")
    assert {path.name[:-7] for path in tmp_path.rglob("gt_segmentations/*")} == set(NAMED)


def test_images_are_linked_and_not_copied_also_where_again_dealt_out(source, toy_nnunet, tmp_path):
    first = open_nnunet(source.divided(SPLITS, tmp_path / "outer"))
    links = [path for path in (tmp_path / "outer").rglob("*") if path.is_symlink()]
    assert len(links) == 4 * len(NAMED) + 1  # image, labels, properties, truth; the raw data set
    inner = [FoldSplit(train=["p1_left"], val=["p3_left"])]
    second = open_nnunet(first.divided(inner, tmp_path / "inner"))
    assert (second.train_ids, second.held_out_ids) == (("p1_left",), ("p3_left",))
    links.append(second.folder / "p1_left.b2nd")  # not by way of the other folder
    assert all(toy_nnunet.root in Path(os.readlink(link)).parents for link in links)


def test_damage_that_preprocessing_would_have_noticed_is_noticed(toy_copy, tmp_path):
    source = open_nnunet(toy_copy.request(subjects=PERSON, fold="all"))
    other = open_nnunet(source.divided(SPLITS, tmp_path / "new"))
    flip_a_bit(source.folder / "p1_left.b2nd")
    with pytest.raises(IntegrityFault, match="SHA-256"):
        other.load("p1_left")


def test_the_same_is_written_again_and_another_split_is_not(source, tmp_path):
    request = source.divided(SPLITS, tmp_path / "new")
    before = {name: size for name, (size, _) in state(tmp_path / "new").items()}
    assert source.divided(SPLITS, tmp_path / "new") == request
    with pytest.raises(UsageFault, match="splits is another than asked for"):
        source.divided(SPLITS[::-1], tmp_path / "new")
    assert {name: size for name, (size, _) in state(tmp_path / "new").items()} == before


@pytest.fixture
def raw(toy_nnunet, tmp_path) -> CaseSource:
    """The scans, in the folds that are dealt out where there is no split of nnU-Net's."""
    # Without the preprocessed data: other tests may have left a split of nnU-Net's there.
    root = tmp_path / "scans"
    root.mkdir()
    (root / "nnUNet_raw").symlink_to(toy_nnunet.root / "nnUNet_raw")
    read = {"folds": "3"}
    request = SourceRequest("nnunet-raw", "501", root=str(root), subjects=PERSON, read=read)
    return open_source(request)


def test_a_generator_of_scans_dealt_out_alike_enters_and_of_others_is_refused(
    source, raw, tmp_path, run_cli
):
    asked = raw.divided(SPLITS, tmp_path / "raw")
    words = ("--data", "nnunet-raw:501", "--root", asked.root, "--subjects", asked.subjects)
    words = (*words, "--read", f"splits={asked.read['splits']}", "-o", tmp_path / "run", *FIT)
    result = run_cli("fit", "cgan3d", *words, "--set=steps=2", "-q")
    assert result.exit_code == 0, result.stderr
    host = open_nnunet(source.divided(SPLITS, tmp_path / "host"))
    scans = open_source(replace(raw.request, root=host.request.root, subjects=None))
    assert (scans.held_out_ids, scans.header("p1_left").subject) == (("p2_left",), "p1")
    mix_config = MixConfig(RunFolder(tmp_path / "run"), Ratio.parse("1:1"), device="cpu")
    NnunetAdapter(host).check(TrainingRequest(mix_config, {}, []))
    others = open_nnunet(replace(host.request, fold="1"))
    with pytest.raises(IntegrityFault, match="leakage"):
        NnunetAdapter(others).check(TrainingRequest(mix_config, {}, []))
