"""Subjects of cases, and folds that part no subject."""

import pytest

from gansynth.data.folds import grouped_splits, read_subjects
from gansynth.runtime.errors import DataFault, UsageFault

IDS = [f"p{person}_{side}" for person in range(7) for side in "lr"]
PEOPLE = {case: case[:2] for case in IDS}
FAMILY = {case: "same" if i < 7 else case for i, case in enumerate(IDS)}


@pytest.mark.parametrize("folds", [2, 3, 5, 7])
def test_no_subject_is_on_both_sides(folds):
    for split in grouped_splits(IDS, PEOPLE, folds, seed=0):
        assert not {PEOPLE[c] for c in split["train"]} & {PEOPLE[c] for c in split["val"]}
        assert sorted(split["train"] + split["val"]) == sorted(IDS)


@pytest.mark.parametrize(
    ("people", "folds", "sizes"), [(PEOPLE, 5, [2, 2, 2, 4, 4]), (FAMILY, 2, [7, 7])]
)
def test_folds_are_as_equal_as_people_allow(people, folds, sizes):
    splits = grouped_splits(IDS, people, folds, seed=0)
    assert sorted(len(split["val"]) for split in splits) == sizes


def test_the_seed_decides_and_the_order_of_cases_does_not():
    one, same, other = (grouped_splits(IDS, PEOPLE, 5, seed) for seed in (1, 1, 2))
    assert one == same == grouped_splits(IDS[::-1], PEOPLE, 5, 1)
    assert one != other


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
    ("text", "said"),
    [
        ("case,subject\na,1\n", r"1 case\(s\) have no subject, 'b' first"),
        ("case,subject\na,1\nb,2\na,3\n", "line 4: case 'a' has subject '1' and '3'"),
        ("id,subject\na,1\n", "expected the columns case and subject"),
        ("", "expected the columns"),
    ],
)
def test_an_unusable_csv_says_what_is_wrong(tmp_path, text, said):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataFault, match=said):
        read_subjects(str(tmp_path / "s.csv"), ["a", "b"])


@pytest.mark.parametrize(
    ("asked", "fault", "says"),
    [
        ("gone.csv", DataFault, "cannot be read"),
        ("(p", UsageFault, "expression"),
        ("p1", UsageFault, "expression has no group"),
        (r"(p\d)_", DataFault, "'q1_l' first"),
    ],
)
def test_wrong_subject_patterns_and_files_are_refused(asked, fault, says):
    with pytest.raises(fault, match=says):
        read_subjects(asked, ["p1_l", "q1_l"])
