"""Subjects are found, and folds never part one."""

from pathlib import Path

import pytest

from gansynth.core.source import SourceRequest
from gansynth.data.subjects import grouped_splits, read_subjects
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth_nnunet.splits import known_subjects, make_splits, write_splits

IDS = [f"p{person}_{side}" for person in range(7) for side in "lr"]
PEOPLE = {case: case[:2] for case in IDS}


def subjects_csv(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("folds", [2, 3, 5, 7])
def test_no_subject_is_on_both_sides(folds):
    for split in grouped_splits(IDS, PEOPLE, folds, seed=0):
        assert not {PEOPLE[c] for c in split["train"]} & {PEOPLE[c] for c in split["val"]}
        assert sorted(split["train"] + split["val"]) == sorted(IDS)


def test_folds_are_as_equal_as_people_allow():
    sizes = [len(split["val"]) for split in grouped_splits(IDS, PEOPLE, 5, seed=0)]
    assert sorted(sizes) == [2, 2, 2, 4, 4]


def test_one_large_family_gets_a_fold_of_its_own():
    people = {case: "same" if i < 7 else case for i, case in enumerate(IDS)}
    sizes = [len(split["val"]) for split in grouped_splits(IDS, people, 2, seed=0)]
    assert sorted(sizes) == [7, 7]


def test_the_seed_decides():
    one, same, other = (grouped_splits(IDS, PEOPLE, 5, seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_the_order_of_cases_does_not_matter():
    assert grouped_splits(IDS[::-1], PEOPLE, 5, 0) == grouped_splits(IDS, PEOPLE, 5, 0)


def test_fewer_people_than_folds_are_refused():
    with pytest.raises(DataFault, match=r"7 subject\(s\) for 8 folds"):
        grouped_splits(IDS, PEOPLE, 8, 0)


def test_one_fold_is_refused():
    with pytest.raises(UsageFault, match="at least 2"):
        grouped_splits(IDS, PEOPLE, 1, 0)


@pytest.mark.parametrize("column", ["subject", "subject_group"])
def test_a_csv_names_subjects(tmp_path, column):
    path = subjects_csv(tmp_path / "s.csv", f"case,age,{column}\na,5,1\nb,6,1\nunused,7,2\n")
    assert read_subjects(path, ["a", "b"]) == {"a": "1", "b": "1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,subject\na,1\n", r"1 case\(s\) have no subject, 'b' first"),
        ("case,subject\na,1\nb,\n", "'b' first"),
        ("case,subject\na,1\nb,2\na,3\n", "line 4: case 'a' has subject '1' and '3'"),
        ("id,subject\na,1\n", "expected the columns case and subject"),
        ("", "expected the columns"),
    ],
)
def test_an_unusable_csv_says_what_is_wrong(tmp_path, text, said):
    with pytest.raises(DataFault, match=said):
        read_subjects(subjects_csv(tmp_path / "s.csv", text), ["a", "b"])


def test_a_missing_csv_is_not_taken_for_an_expression(tmp_path):
    with pytest.raises(DataFault, match="cannot be read"):
        read_subjects(str(tmp_path / "gone.csv"), ["a"])


def test_the_first_group_of_an_expression_is_the_subject():
    assert read_subjects(r"^(p\d)_", ["p1_l", "p1_r", "p2_l"])["p1_r"] == "p1"


@pytest.mark.parametrize("expression", ["(p", "p1"])
def test_an_expression_without_a_group_is_refused(expression):
    with pytest.raises(UsageFault, match="expression"):
        read_subjects(expression, ["p1_l"])


def test_an_expression_must_fit_every_case():
    with pytest.raises(DataFault, match="'q1_l' first"):
        read_subjects(r"(p\d)_", ["p1_l", "q1_l"])


def test_what_was_written_is_known_afterwards(tmp_path):
    write_splits(tmp_path, IDS, PEOPLE)
    assert known_subjects(tmp_path, IDS, None) == PEOPLE


def test_unasked_every_case_is_its_own_subject(tmp_path):
    assert known_subjects(tmp_path, ["a", "b"], None) == {"a": "a", "b": "b"}


def test_another_split_is_not_overwritten_unasked(tmp_path):
    first = write_splits(tmp_path, IDS, PEOPLE, seed=0)
    with pytest.raises(UsageFault, match="holds another split"):
        write_splits(tmp_path, IDS, PEOPLE, seed=1)
    assert read_json(tmp_path / "splits_final.json", expected=list) == first


def test_an_overwritten_split_is_kept(tmp_path):
    first = write_splits(tmp_path, IDS, PEOPLE, seed=0)
    write_splits(tmp_path, IDS, PEOPLE, seed=1, overwrite=True)
    (kept,) = tmp_path.glob("splits_final.*.json")
    assert read_json(kept, expected=list) == first


def test_splits_of_a_data_set_are_made_by_name(toy_copy):
    request = SourceRequest("nnunet", "501", subjects=r"(p\d)_", root=str(toy_copy.root))
    splits = make_splits(request, folds=3, overwrite=True)
    assert [len(split["val"]) for split in splits] == [2, 2, 2]
    assert (toy_copy.preprocessed / "gansynth_subjects.csv").is_file()
