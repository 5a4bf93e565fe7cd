"""nnU-Net's folders made of links, for another split of a preprocessed data set."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gansynth.core.adapter import Injection
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import CaseSource, SourceRequest, Split
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.sampling.opening import open_source
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.source import NnunetSource, open_nnunet
from tests.conftest import FIT
from tests.dividing import assert_same_cases, state

PEOPLE = r"(p\d+)_"
SPLITS = [
    Split(train=["p3_left", "p1_left", "p1_right"], val=["p2_left"]),
    Split(train=["p2_left"], val=["p1_left", "p3_left"]),
]
NAMED = ("p1_left", "p1_right", "p2_left", "p3_left")


@pytest.fixture
def source(toy_nnunet) -> NnunetSource:
    """The toy data set, nothing held out."""
    return open_nnunet(toy_nnunet.request(subjects=PEOPLE, fold="all"))


def test_folds_are_as_asked_and_cases_as_before(source, toy_nnunet, tmp_path):
    before = state(toy_nnunet.root)
    request = source.divided(SPLITS, tmp_path / "new")
    for number, split in enumerate(SPLITS):
        other = open_nnunet(replace(request, fold=str(number)))
        assert other.train_ids == tuple(sorted(split["train"]))
        assert other.held_out_ids == tuple(split["val"])
        assert_same_cases(source, other, NAMED)
    assert state(toy_nnunet.root) == before


def test_other_cases_are_not_there(source, tmp_path):
    request = source.divided(SPLITS, tmp_path / "new")
    assert open_nnunet(replace(request, fold="all")).train_ids == NAMED
    assert {path.name[:-7] for path in tmp_path.rglob("gt_segmentations/*")} == set(NAMED)


def test_it_is_the_same_data_set_to_every_guard(source, tmp_path):
    other = open_nnunet(source.divided(SPLITS, tmp_path / "new"))
    assert (other.name, other.host, other.schema) == (source.name, source.host, source.schema)
    assert other.subject("p1_right") == "p1"


def test_images_are_linked_and_not_copied(source, toy_nnunet, tmp_path):
    source.divided(SPLITS, tmp_path / "new")
    links = [path for path in (tmp_path / "new").rglob("*") if path.is_symlink()]
    assert len(links) == 4 * len(NAMED) + 1  # image, labels, properties, truth; the raw data set
    assert all(toy_nnunet.root in Path(os.readlink(link)).parents for link in links)


def test_damage_that_preprocessing_would_have_noticed_is_noticed(toy_copy, tmp_path):
    source = open_nnunet(toy_copy.request(subjects=PEOPLE, fold="all"))
    other = open_nnunet(source.divided(SPLITS, tmp_path / "new"))
    file = source.folder / "p1_left.b2nd"
    date = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(date.st_atime_ns, date.st_mtime_ns))
    with pytest.raises(IntegrityFault, match="SHA-256"):
        other.load("p1_left")


def test_again_the_same_is_written_again(source, tmp_path):
    request = source.divided(SPLITS, tmp_path / "new")
    before = {name: size for name, (size, _) in state(tmp_path / "new").items()}
    assert source.divided(SPLITS, tmp_path / "new") == request
    assert {name: size for name, (size, _) in state(tmp_path / "new").items()} == before


def test_what_was_dealt_out_is_dealt_out_again(source, toy_nnunet, tmp_path):
    first = open_nnunet(source.divided(SPLITS, tmp_path / "outer"))
    inner = [Split(train=["p1_left"], val=["p3_left"])]
    second = open_nnunet(first.divided(inner, tmp_path / "inner"))
    assert (second.train_ids, second.held_out_ids) == (("p1_left",), ("p3_left",))
    link = second.folder / "p1_left.b2nd"
    assert toy_nnunet.root in Path(os.readlink(link)).parents  # not by way of the other folder


def test_a_person_on_both_sides_is_a_leak(source, tmp_path):
    with pytest.raises(IntegrityFault, match="p1_right and p1_left"):
        source.divided([Split(train=["p1_left"], val=["p1_right"])], tmp_path / "new")


def test_another_split_is_not_written_over(source, tmp_path):
    source.divided(SPLITS, tmp_path / "new")
    with pytest.raises(UsageFault, match="splits is another than asked for"):
        source.divided(SPLITS[::-1], tmp_path / "new")


# -- the raw data set ------------------------------------------------------------------------------


@pytest.fixture
def raw(toy_nnunet, tmp_path) -> CaseSource:
    """The scans, in the folds that are dealt out where there is no split of nnU-Net's."""
    # Without the preprocessed data: other tests may have left a split of nnU-Net's there.
    root = tmp_path / "scans"
    root.mkdir()
    (root / "nnUNet_raw").symlink_to(toy_nnunet.root / "nnUNet_raw")
    read = {"folds": "3"}
    request = SourceRequest("nnunet-raw", "501", root=str(root), subjects=PEOPLE, read=read)
    return open_source(request)


def test_scans_are_dealt_out_too(raw, toy_nnunet, tmp_path):
    before = state(toy_nnunet.root)
    request = raw.divided(SPLITS, tmp_path / "new")
    assert set(request.read) == {"splits"}  # a command refuses folds beside them
    other = open_source(request)
    assert (other.train_ids, other.held_out_ids) == (NAMED[:2] + NAMED[3:], ("p2_left",))
    assert (other.name, other.host) == (raw.name, raw.host)
    assert_same_cases(raw, other, NAMED)
    assert state(toy_nnunet.root) == before


def test_scans_of_the_new_root_have_the_new_split(source, raw, tmp_path):
    request = source.divided(SPLITS, tmp_path / "new")
    other = open_source(replace(raw.request, root=request.root, subjects=None))
    assert other.held_out_ids == ("p2_left",)
    assert other.subject("p1_left") == "p1"


# -- the whole way ---------------------------------------------------------------------------------

QUICK = ("num_epochs=1", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1")


def typed(request: SourceRequest) -> list[str]:
    """A request as a user types it."""
    where = f"{request.kind}:{request.where}"
    words = ["--data", where, "--root", request.root, "--subjects", request.subjects]
    words += [word for key, value in request.read.items() for word in ("--read", f"{key}={value}")]
    if request.configuration is not None:
        words += ["-c", request.configuration, "--plans", request.plans]
    return [str(word) for word in words]


def started(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "gansynth_cli", *map(str, words)]
    environ = {**os.environ, "nnUNet_n_proc_DA": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environ)


def fitted(request: SourceRequest, run: Path) -> Path:
    process = started("fit", "cgan3d", *typed(request), "-o", run, *FIT, "--set=steps=2", "-q")
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    return run


@pytest.mark.slow
def test_two_arms_of_one_fold_train_at_once(source, toy_nnunet, tmp_path):
    before = state(toy_nnunet.root)
    folders = [tmp_path / name for name in ("fit", "one", "two")]
    requests = [source.divided(SPLITS, folder) for folder in folders]
    run = fitted(requests[0], tmp_path / "run")
    augment = ["augment", "--target", "nnunet", "--json", *(f"--set={words}" for words in QUICK)]
    drawn = ["--generator", run, "--ratio", "1:1", "--bank-size", 4, "--device", "cpu"]
    with (
        started(*augment, *typed(requests[1]), *drawn) as mixed,
        started(*augment, *typed(requests[2]), "--ratio", "1:0") as plain,
    ):
        said = [process.communicate(timeout=280) for process in (mixed, plain)]
    assert (mixed.returncode, plain.returncode) == (0, 0), said
    documents = [json.loads(stdout) for stdout, _ in said]
    assert [document["drawn_synthetic"] > 0 for document in documents] == [True, False]
    for document, folder in zip(documents, folders[1:], strict=True):
        output = Path(document["folder"])
        assert folder in output.parents
        judged = read_json(output / "validation" / "summary.json")["metric_per_case"]
        assert [Path(case["prediction_file"]).name for case in judged] == ["p2_left.nii.gz"]
    assert state(toy_nnunet.root) == before


@pytest.mark.slow
def test_a_generator_of_scans_dealt_out_alike_enters(source, raw, tmp_path):
    run = fitted(raw.divided(SPLITS, tmp_path / "raw"), tmp_path / "run")
    host = open_nnunet(source.divided(SPLITS, tmp_path / "host"))
    injection = Injection(RunFolder(run), Ratio.parse("1:1"), device="cpu")
    NnunetAdapter(host).check(injection, {}, [])
    others = open_nnunet(replace(host.request, fold="1"))
    with pytest.raises(IntegrityFault, match="leakage"):
        NnunetAdapter(others).check(injection, {}, [])


@pytest.mark.slow
def test_a_segmenter_trains_on_scans_with_a_generator_of_them(raw, tmp_path):
    from gansynth_segmenter.adapter import SegmenterAdapter

    request = raw.divided(SPLITS, tmp_path / "new")
    run = fitted(request, tmp_path / "run")
    injection = Injection(RunFolder(run), Ratio.parse("1:1"), device="cpu")
    small = {"steps": "2", "width": "4", "levels": "2", "batch_size": "2", "device": "cpu"}
    adapter = SegmenterAdapter(open_source(request))
    outcome = adapter.start(injection, {**small, "output": str(tmp_path / "out")}, [])
    assert (outcome.drawn_real, outcome.drawn_synthetic) == (2, 2)
    predictions = (tmp_path / "out" / "predictions").iterdir()
    assert [path.name for path in predictions] == ["p2_left.nii.gz"]
