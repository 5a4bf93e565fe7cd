import json

import numpy as np
import pytest

from gansynth.data.folds import grouped_splits, read_subjects
from gansynth.sampling.run_source import open_source
from tests.conftest import save_nifti, toy_case
from tests.data.sets import opened, save, save_picture
from tests.expected import raises_fault

IDS = [f"p{person}_{side}" for person in range(7) for side in "lr"]
PEOPLE = {case: case[:2] for case in IDS}
FAMILY = {case: "same" if i < 7 else case for i, case in enumerate(IDS)}


@pytest.mark.parametrize(
    ("people", "sizes"),
    [(PEOPLE, [6, 8]), (PEOPLE, [2, 2, 2, 4, 4]), (PEOPLE, [2] * 7), (FAMILY, [7, 7])],
)
def test_no_subject_is_on_both_sides_and_folds_are_as_equal_as_people_allow(people, sizes):
    splits = grouped_splits(IDS, people, len(sizes), seed=0)
    for split in splits:
        assert not {people[c] for c in split["train"]} & {people[c] for c in split["val"]}
        assert sorted(split["train"] + split["val"]) == sorted(IDS)
    assert sorted(len(split["val"]) for split in splits) == sizes


def test_the_seed_decides_and_the_order_of_cases_does_not():
    one = grouped_splits(IDS, PEOPLE, 5, 1)
    assert one == grouped_splits(IDS[::-1], PEOPLE, 5, 1)
    assert one != grouped_splits(IDS, PEOPLE, 5, 2)


def test_impossible_numbers_of_folds_are_refused():
    with raises_fault("folds.split-fewer-subjects-than-folds"):
        grouped_splits(IDS, PEOPLE, 8, 0)
    with raises_fault(
        "folds.split-fewer-subjects-than-folds", names="take a longer expression, such as"
    ):
        grouped_splits(IDS, dict.fromkeys(IDS, "all"), 2, 0)
    with raises_fault("folds.fewer-than-two-folds"):
        grouped_splits(IDS, PEOPLE, 1, 0)


def test_a_csv_names_subjects(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("case,age,subject_group\na,5,1\nb,6,1\nunused,7,2\n")
    assert read_subjects(str(path), ["a", "b"]) == {"a": "1", "b": "1"}


@pytest.mark.parametrize(
    ("asked", "text", "expected"),
    [
        ("s.csv", "case,subject\na_1,1\n", "folds.cases-without-subject"),
        ("s.csv", "case,subject\na_1,1\nb_1,2\na_1,3\n", "folds.case-has-two-values"),
        ("s.csv", "id,subject\na_1,1\n", "folds.table-header-differs"),
        ("s.csv", "", "folds.table-header-differs"),
        ("gone.csv", "", "folds.table-unreadable"),
        ("(a", "", "folds.subjects-malformed"),
        ("a1", "", "folds.subjects-expression-without-group"),
        (r"(a)_", "", "folds.cases-without-subject"),
        ("((?:x+x+)+y)", "", "folds.cases-without-subject"),  # in linear time
        (r"(?=a)(a)", "", "folds.subjects-malformed"),
        (r"(a)\1", "", "folds.subjects-malformed"),
    ],
)  # fmt: skip
def test_wrong_subject_patterns_and_files_are_refused(tmp_path, monkeypatch, asked, text, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.csv").write_text(text)
    with raises_fault(expected):
        read_subjects(asked, ["a_1", "b_1", "x" * 60])


@pytest.fixture(params=["nifti", "pictures"])
def few(request, tmp_path):
    """Kind and folder of three people's scans, and of a fourth one's that may be taken away."""
    for number in range(4):
        rng = np.random.default_rng(number)
        image, drawn = rng.integers(0, 200, (16, 16, 4)).astype(np.uint8), np.zeros((16, 16, 4))
        drawn[3:9, 4:9, 1:3] = 1
        pair = {f"images/{'abcd'[number]}1": image, f"labels/{'abcd'[number]}1": drawn.astype("u1")}
        for name, array in pair.items():
            if request.param == "nifti":
                save(tmp_path / "set" / f"{name}.nii.gz", array)
            else:
                save_picture(tmp_path / "set" / f"{name}.png", array[..., 1])
    return request.param, tmp_path / "set"


def test_few_people_have_fewer_folds_and_a_line_says_so(few, run_cli, succeed):
    kind, folder = few
    for people in (4, 3):
        told = succeed("check", folder)
        assert f"{people} subjects, so {people} folds, not 5" in told.stderr
        assert "0 error(s)" in told.stdout
        for file in folder.rglob("d1.*"):
            file.unlink()
    asked = run_cli("check", f"{kind}:{folder}", "--read", "folds=5")
    assert asked.exit_code == 3
    assert "3 subject(s) for 5 folds" in asked.stdout
    assert "3 subject(s)" not in asked.stderr  # told once


def test_that_each_case_is_a_subject_is_said_once_and_kept_with_the_run(few, succeed, tmp_path):
    kind, folder = few
    data, each = f"{kind}:{folder}", ("--subjects", "each")
    assert "or say so: --subjects each" in succeed("check", data).stderr
    assert "subject of its own" not in succeed("check", data, *each).stderr
    raw = ("--root", tmp_path / "nnunet")
    assert "subject of its own" not in succeed("import", data, "nnunet:500", *each, *raw).stderr
    fit = ("fit", "parametric", "--data", data, *each, "-o", tmp_path / "run", "--device", "cpu")
    assert "so 4 folds" in succeed(*fit).stderr
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["request"]["subjects"] == "each"
    assert "subject of its own" not in succeed("check", "--generator", tmp_path / "run").stderr


def test_no_cell_of_a_table_is_a_formula_and_its_texts_are_read_back(tmp_path):
    cases = ["=1+1", "+p", "@sum", "-p2", "'=p", "-3.5", "plain"]
    for case in cases:
        save_picture(tmp_path / "set" / f"{case}.png", np.eye(9, dtype=np.uint8) * len(case))
    source = opened(tmp_path / "set", "pictures", fold="all")
    split = {"train": cases[:4], "val": cases[4:]}
    asked = source.divided([split], tmp_path / "split")
    text = (tmp_path / "split" / "subjects.csv").read_text()
    cells = [cell for line in text.splitlines() for cell in line.split(",")]
    assert {cell for cell in cells if cell[0] in "=+@-"} == {"-3.5"}  # a number
    again = open_source(asked)
    assert sorted(again.train_ids) == sorted(cases[:4])
    assert {again.header(case).subject for case in again.train_ids} == set(cases[:4])


@pytest.mark.parametrize(
    "expression",
    [r"^(\w+?)_\d", r"^([\w-]+?)_\d", r"^(\w+)\W", r"^([^\W\d_]+)_\d", r"^(\w+?)[\W_]1"],
)
def test_letters_of_all_languages_are_letters(expression):
    names = ("Müller", "Groß", "Иванов", "Ze\u0301lie")
    end = "." if expression.endswith(r"\W") else "_1"
    subjects = read_subjects(expression, [f"{name}{end}" for name in names])
    assert set(subjects.values()) == set(names)


@pytest.mark.parametrize("typed", [(), ("--subjects", "each")])
@pytest.mark.parametrize(
    "command",
    [
        "check nifti:scans",
        "import nifti:scans nnunet:7 --root nnunet",
        "fit copypaste --data nifti:scans -o run",
        "augment nifti:scans --ratio 1:1 --dry-run",
    ],
)
def test_each_command_warns_once_where_nobody_says_who_is_who(
    command, typed, tmp_path, succeed, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        image, labels = toy_case(np.random.default_rng(number))
        save_nifti(tmp_path / f"scans/images/case{number}.nii.gz", image[0])
        save_nifti(tmp_path / f"scans/labels/case{number}.nii.gz", labels)
    told = succeed(*command.split(), *typed).output
    assert told.count("every case is a subject of its own") == (0 if typed else 1)
