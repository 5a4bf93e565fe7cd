import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.requests.hosts import ImportRequest
from gansynth.core.source import SourceRequest
from gansynth.core.synthetic import marked
from gansynth.core.volumes import read_volume
from gansynth.hosts.data_sets.data_commands import report_import
from gansynth.runtime.files import read_json
from gansynth.sampling.run_source import open_source
from gansynth_nnunet.dataset import NnunetRoot
from gansynth_nnunet.raw import check_raw, raise_on_errors
from tests.conftest import shortcuts
from tests.data import sets
from tests.data.sets import CASES, PEOPLE, lesion, save, save_picture, volume
from tests.expected import raises_fault


@pytest.fixture
def root(tmp_path) -> NnunetRoot:
    return NnunetRoot.find(tmp_path / "nn")


def bring(
    source: object, root: NnunetRoot, number: object = 4, folds: int | None = 2, **reading: Any
) -> Any:
    asked = {**reading, "folds": folds, "root": str(root.raw.parent), "quiet": True}
    return report_import(ImportRequest(source=str(source), target=f"nnunet:{number}", **asked))


def pairs(home: Path) -> str:
    sets.pairs(home)
    return str(home)  # its kind is found


def msd(home: Path) -> str:
    pairs(home)
    training = [{"image": f"images/{c}.nii.gz", "label": f"labels/{c}.nii.gz"} for c in CASES]
    labels = {"0": "background", "1": "Anterior", "2": "Posterior"}
    document = {"name": "Hip", "modality": {"0": "CT"}, "labels": labels, "training": training}
    (home / "dataset.json").write_text(json.dumps(document))
    return f"msd:{home}"


def verify(root: NnunetRoot, name: str) -> None:
    """Neither nnU-Net nor gansynth finds anything wrong."""
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    with shortcuts():
        verify_dataset_integrity(str(root.raw / name), num_processes=1)
    request = SourceRequest("nnunet", name, root=str(root.raw.parent))
    raise_on_errors(check_raw(request, lambda done, total: None).findings, request)


def test_volumes_are_copied_byte_for_byte_and_nnunet_takes_them(root, tmp_path):
    home = tmp_path / "set"
    report = bring(msd(home), root)
    assert (report.document["dataset"], report.document["copied"]) == ("Dataset004_Hip", 12)
    folder = report.document["folder"]
    before = sorted(file.read_bytes() for file in home.rglob("*.nii.gz"))
    assert sorted(file.read_bytes() for file in folder.rglob("*.nii.gz")) == before
    told = read_json(folder / "dataset.json")
    assert told["channel_names"] == {"0": "CT"}
    assert list(told["labels"]) == ["background", "Anterior", "Posterior"]
    verify(root, folder.name)
    for file in home.rglob("anna_1.nii.gz"):
        file.rename(file.with_name("Änne 1.nii.gz"))
    (home / "dataset.json").unlink()
    report = bring(str(home), root, 5)
    assert "1 case(s) are renamed, 'Änne 1' to '_nne_1' first; case_names in" in report.lines[-1]
    told = read_json(report.document["folder"] / "dataset.json")
    assert told["case_names"] == {"_nne_1": "Änne 1"}


def test_what_seems_to_be_ct_is_not_written_as_mr_before_one_has_said_so(root, tmp_path, run_cli):
    for number in range(3):
        image = np.full((24, 24, 24), -1000, np.int16)
        image[4:20, 4:20, 4:20] = np.random.default_rng(number).normal(40, 20, (16, 16, 16))
        save(tmp_path / f"set/images/p{number}.nii.gz", image)
        save(tmp_path / f"set/labels/p{number}.nii.gz", (image > 90).astype(np.uint8))
    words = ("import", f"nifti:{tmp_path / 'set'}", "nnunet:7", "--root", root.raw.parent)
    refused = run_cli(*words, "--read", "folds=3")
    assert (refused.exit_code, list(root.raw.glob("*007*"))) == (2, [])
    (typed,) = re.findall("nothing is written yet: gansynth (.*) \\[", refused.stderr)
    assert "modality=ct" in typed
    done = run_cli(*shlex.split(typed), "--json")
    (folder,) = root.raw.glob("*007*")
    assert (done.exit_code, read_json(folder / "dataset.json")["channel_names"]) == (0, {"0": "CT"})
    shutil.rmtree(root.raw.parent)
    said = run_cli(*words, "--read", "folds=3", "--read", "modality=mr")
    assert said.exit_code == 0, said.stderr


def test_pictures_and_slices_become_volumes_of_one_slice(root, tmp_path):
    for number in range(4):
        drawn = np.pad(np.full((4, 5), 255, np.uint8), ((2 + number, 3), (2, 1)))
        colour = np.random.default_rng(number).integers(0, 255, (*drawn.shape, 3), np.uint8)
        save_picture(tmp_path / f"p/b{number}.png", colour)
        save_picture(tmp_path / f"p/b{number}_mask.png", drawn)
    report = bring(tmp_path / "p", root)
    raw = report.document["folder"]
    names = read_json(raw / "dataset.json")["channel_names"]
    assert names == {"0": "red", "1": "green", "2": "blue"}
    image, labels = (read_volume(raw / f"{n}.nii.gz") for n in ("imagesTr/b3_0001", "labelsTr/b3"))
    assert np.array_equal(np.round(image.array * 255)[..., 0].T, colour[..., 1])
    assert np.array_equal(labels.array[..., 0].T, drawn > 0)
    assert report.prepares == SourceRequest("nnunet", "4", root=str(root.raw.parent))
    verify(root, raw.name)
    read = {"slices": "3,4"}
    cut = bring(f"slices:{msd(tmp_path / 'set')}", root, 5, read=read, subjects=PEOPLE)
    assert (cut.document["cases"], cut.document["subjects"]) == (12, 4)
    assert (cut.document["folder"] / "labelsTr/anna_1_axi003.nii.gz").is_file()
    verify(root, cut.document["dataset"])


def test_what_nnunet_does_not_read_as_it_is_is_written_with_its_own_geometry(root, tmp_path):
    """Two channels in a file, labels as floats, with a gap, and a case that is not compressed."""
    turned = np.array([[0, 2, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    for number, case in enumerate(CASES):
        ending = ".nii" if number else ".nii.gz"
        save(tmp_path / f"set/images/{case}{ending}", volume(number, 2), turned)
        save(tmp_path / f"set/labels/{case}{ending}", lesion(number).astype("f4") * 2, turned)
    read = {"labels": "organ:2,tumour:4", "channels": "CT,PET"}
    report = bring(f"nifti:{tmp_path / 'set'}", root, read=read)
    raw = report.document["folder"]
    assert (report.document["copied"], report.document["written"]) == (0, 18)
    second, labels = (
        read_volume(raw / f"{n}.nii.gz") for n in ("imagesTr/bert_1_0001", "labelsTr/bert_1")
    )
    assert np.array_equal(second.array, volume(2, 2)[..., 1])
    assert np.array_equal(labels.array, lesion(2))
    assert np.array_equal(second.affine, turned)
    assert labels.array.dtype == np.uint8
    assert any("2 to 1, 4 to 2" in line for line in report.lines)
    assert read_json(raw / "dataset.json")["labels"] == {"background": 0, "organ": 1, "tumour": 2}
    verify(root, raw.name)


def test_folds_are_the_sources_own_else_as_many_as_asked_and_part_no_subject(root, tmp_path):
    report = bring(pairs(tmp_path / "set"), root, folds=3, subjects=PEOPLE)
    splits = read_json(root.preprocessed / "Dataset004_set/splits_final.json", expected=list)
    assert sorted(case for split in splits for case in split["val"]) == sorted(CASES)
    assert all({"anna_1", "anna_2"} <= set(s["val"]) or "anna_1" in s["train"] for s in splits)
    assert report.document["subjects"] == 4
    verify(root, report.document["dataset"])
    table = sets.manifest(tmp_path / "table").where
    report = bring(f"nifti:{table}", root, 5, read={"allow_absolute": "yes"})
    assert report.document["copied"] == 12
    (split,) = read_json(root.preprocessed / "Dataset005_set/splits_final.json", expected=list)
    assert split["val"] == ["bert_1", "dora_1"]


def test_nothing_is_written_into_a_data_set_that_is_there(root, tmp_path):
    source = pairs(tmp_path / "set")
    for folder in (root.raw, root.preprocessed, root.results):
        there = folder / "Dataset004_Heart"
        there.mkdir(parents=True)
        with raises_fault("nnunet.import-id-taken", names=there):
            bring(source, root)
        assert [*folder.iterdir(), *there.iterdir()] == [there]
        there.rmdir()


def test_the_same_import_again_changes_nothing_and_another_one_is_refused(root, tmp_path, run_cli):
    """The folds are the source's own, so that a generator fitted on them has seen no more."""
    home, place = tmp_path / "set", root.raw.parent
    typed = ("import", pairs(home), "nnunet:4", "--root", place)
    assert run_cli(*typed).exit_code == 0
    splits = root.preprocessed / "Dataset004_set/splits_final.json"
    first = open_source(SourceRequest("nifti", str(home), fold="0"))
    assert read_json(splits, expected=list)[0]["val"] == [*first.held_out_ids]
    files = [path for path in place.rglob("*") if path.is_file()]
    before = {path: path.stat().st_ino for path in files if path.parent.name != splits.parent.name}
    again = run_cli(*typed)
    first_line = again.stdout.splitlines()[0]
    assert (again.exit_code, first_line) == (0, "imported already: the same files are there")
    assert f"next: gansynth prepare nnunet:4 --root {place} --set small=yes" in again.stderr
    assert run_cli(*typed, "--folds", 2).exit_code == 2
    save(home / f"labels/{CASES[3]}.nii.gz", lesion(4))
    assert "id 004 is taken, expected a free one" in run_cli(*typed).stderr
    for folder in ("images", "labels"):
        (home / folder / f"{CASES[0]}.nii.gz").unlink()
    assert "choose another id, such as 5, or remove" in run_cli(*typed).stderr
    assert {path: path.stat().st_ino for path in before} == before
    assert not [*root.raw.glob(".*")]


def test_a_cache_is_imported_in_the_fold_that_it_holds(root, tmp_path, run_cli):
    cache = tmp_path / "cache.h5"
    made = ("cache", msd(tmp_path / "set"), "-o", cache, "--fold", 1, "--read", "folds=2")
    assert run_cli(*made).exit_code == 0
    with raises_fault("h5.fold-differs"):
        bring(f"h5:{cache}", root, folds=None)
    report = bring(f"h5:{cache}", root, folds=None, fold="1")
    source = open_source(SourceRequest("h5", str(cache), fold="1"))
    assert report.document["folds"] == ((len(source.train_ids), len(source.held_out_ids)),)
    image = read_volume(report.document["folder"] / "imagesTr/anna_1_0000.nii.gz")
    assert np.array_equal(image.array.T, source.load("anna_1").image[0])
    verify(root, report.document["dataset"])


def test_cases_of_a_source_that_knows_no_folds_are_imported_as_it_divides_them(root):
    report = bring("example:2d", root, folds=None)
    source = open_source(SourceRequest("example", "2d"))
    assert report.document["folds"] == ((len(source.train_ids), len(source.held_out_ids)),)


def test_that_every_case_is_a_person_is_said_in_the_next_command_too(root, run_cli):
    there = ("nnunet:4", "--root", root.raw.parent, "--subjects", "each")
    result = run_cli("import", "example:2d", *there)
    following = result.stderr.splitlines()[-1]
    assert following.startswith("next: gansynth prepare nnunet:4 --subjects each --root")


def unlabelled(home: Path) -> str:
    shutil.rmtree(pairs(home) + "/labels")
    return f"nifti:{home}"


def synthetic(home: Path) -> str:
    file = Path(pairs(home), "images", f"{CASES[0]}.nii.gz")
    image: Any = nib.load(file)
    nib.save(marked(image), file)
    return f"nifti:{home}"


def two_of_a_name(home: Path) -> str:
    pairs(home)
    for number, name in enumerate(("a b", "a_b")):
        save(home / f"images/{name}.nii.gz", volume(9 + number))
        save(home / f"labels/{name}.nii.gz", lesion())
    return f"nifti:{home}"


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (unlabelled, {}, "nnunet.import-without-label-maps"),
    (synthetic, {}, "synthetic.case-made-by-gansynth"),
    (two_of_a_name, {"folds": None}, "nnunet.import-case-names-collide"),
    (pairs, {"read": {"size": "8"}}, "nnunet.import-read-without-effect"),
    (pairs, {"number": 0}, "nnunet.import-id-out-of-range"),
    (lambda home: "h5:cache.h5", {"folds": None}, "nifti.file-missing"),
]


@pytest.mark.parametrize(("layout", "options", "expected"), REFUSED)
def test_what_cannot_be_imported_leaves_nothing(root, tmp_path, layout, options, expected):
    with raises_fault(expected):
        bring(layout(tmp_path / "set"), root, **options)
    assert root.datasets() == ()
