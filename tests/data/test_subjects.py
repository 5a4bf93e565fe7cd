"""Subjects of cases, and folds that part no subject."""

import pytest

from gansynth.data.folds import grouped_splits, read_subjects
from gansynth.runtime.errors import DataFault, UsageFault

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


@pytest.mark.parametrize(
    ("folds", "fault", "says"),
    [(8, DataFault, r"7 subject\(s\) for 8 folds"), (1, UsageFault, "at least 2")],
)
def test_impossible_numbers_of_folds_are_refused(folds, fault, says):
    with pytest.raises(fault, match=says):
        grouped_splits(IDS, PEOPLE, folds, 0)


@pytest.mark.parametrize("column", ["subject", "subject_group"])
def test_a_csv_names_subjects(tmp_path, column):
    path = tmp_path / "s.csv"
    path.write_text(f"case,age,{column}\na,5,1\nb,6,1\nunused,7,2\n")
    assert read_subjects(str(path), ["a", "b"]) == {"a": "1", "b": "1"}


@pytest.mark.parametrize(
    ("asked", "text", "fault", "says"),
    [
        ("s.csv", "case,subject\na_1,1\n", DataFault, r"2 case\(s\) have no subject, 'b_1' first"),
        ("s.csv", "case,subject\na_1,1\nb_1,2\na_1,3\n", DataFault,
         "line 4: case 'a_1' has subject '1' and '3'"),
        ("s.csv", "id,subject\na_1,1\n", DataFault, "expected the columns case and subject"),
        ("s.csv", "", DataFault, "expected the columns"),
        ("gone.csv", "", DataFault, "cannot be read"),
        ("(a", "", UsageFault, "expression"),
        ("a1", "", UsageFault, "expression has no group"),
        (r"(a)_", "", DataFault, "'b_1' first"),
        ("((?:x+x+)+y)", "", DataFault, "have no subject"),  # in linear time
        (r"(?=a)(a)", "", UsageFault, "neither a file nor"),
        (r"(a)\1", "", UsageFault, "neither a file nor"),
    ],
)  # fmt: skip
def test_wrong_subject_patterns_and_files_are_refused(
    tmp_path, monkeypatch, asked, text, fault, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(fault, match=says):
        read_subjects(asked, ["a_1", "b_1", "x" * 60])
