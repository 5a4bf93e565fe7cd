import json
from dataclasses import replace

import pytest

from gansynth.core.lineage import CaseRecord, Lineage, guard, guard_host, same_data
from tests.expected import raises_fault

SEEN = Lineage(
    dataset="nnunet:Dataset004_Hippocampus",
    fold="0",
    cases=(CaseRecord("a_1", "anna", "hash-a1"), CaseRecord("b_1", "ben", "hash-b1")),
    host={"plans": "nnUNetPlans", "spacing": [1.0, 1.0, 1.0]},
)


def child(dataset: str, parent: Lineage = SEEN) -> Lineage:
    """A lineage that knows no case, with one ancestor that has seen ``SEEN``'s cases there."""
    return Lineage(SEEN.dataset, "0", (), {}, (replace(parent, dataset=dataset),))


ID, CONTENT = CaseRecord("a_1", "x", "new"), CaseRecord("x_9", "x", "hash-b1")
SUBJECT = CaseRecord("a_2", "anna", "new")
LEAKS = [
    (SEEN, ID, "a_1 (the case itself)"),
    (SEEN, CONTENT, "x_9 (same content as b_1)"),
    (SEEN, SUBJECT, "a_2 (same subject as a_1)"),
    (child("msd:Other"), CONTENT, "ancestor of msd:Other fold 0"),
    (child("msd:Other"), CONTENT, "x_9 (same content as b_1)"),
    (child("msd:Elsewhere", child("msd:Other")), CONTENT, "x_9 (same content as b_1)"),
    (child("msd:Other"), ID, "itself"),
    (child("msd:Other"), SUBJECT, "same subject"),
]


@pytest.mark.parametrize(("lineage", "held_out", "names"), LEAKS)
def test_a_held_out_case_that_was_seen_is_refused_by_name(lineage, held_out, names):
    with raises_fault("lineage.held-out-case-seen", names=names):
        guard(lineage, [CaseRecord("c_1", "carl", "hash-c1"), held_out])


def test_the_message_says_what_saw_them_counts_all_names_eight_and_has_the_way_out():
    many = tuple(CaseRecord(f"case_{i:02d}", f"person_{i}", f"hash-{i}") for i in range(11))
    with raises_fault("lineage.held-out-case-seen", names="bank of set fold 0") as stopped:
        guard(Lineage("set", "0", many), many, kind="bank")
    for named in (" 11 ", "case_07", " 3 more", "gansynth fit"):
        assert named in str(stopped.value)
    assert "case_08" not in str(stopped.value)


def test_ids_and_subjects_mean_nothing_between_two_data_sets():
    guard(SEEN, [ID, SUBJECT], same=lambda maker: False)
    with raises_fault("lineage.held-out-case-seen"):
        guard(SEEN, [CONTENT], same=lambda maker: False)


@pytest.mark.parametrize(
    ("records", "same"),
    [
        ({"a_1": "hash-a1", "c": "hash-c"}, True),  # one case, in a folder of any name
        ({"a_1": "new", "b_1": "hash-b1"}, True),
        ({"a_1": "new", "b_1": "new"}, False),  # of two hospitals that number alike
        ({"c": "hash-a1"}, False),  # by content it is refused all the same
    ],
)
def test_data_sets_are_the_same_by_content_and_not_by_name(records, same):
    read = {name: CaseRecord(name, name, digest) for name, digest in records.items()}
    assert same_data(SEEN, read, read.__getitem__) is same


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"plans": "small", "spacing": [1.0, 1.0, 1.0]}, "plans: 'nnUNetPlans' != 'small'"),
        ({"plans": "nnUNetPlans"}, "spacing: [1.0, 1.0, 1.0] != None"),
        ({**SEEN.host, "fill": 0}, "fill: None != 0"),
    ],
)
def test_another_space_is_refused_with_both_values(wanted, names):
    with raises_fault("lineage.space-of-other-host", names=names):
        guard_host(SEEN.host, wanted)


def test_a_lineage_comes_back_from_json_and_without_ancestors_is_written_as_it_always_was():
    lineage = child("msd:elsewhere")
    assert Lineage.from_json(json.loads(json.dumps(lineage.to_json()))) == lineage
    assert set(SEEN.to_json()) == {"dataset", "fold", "cases", "host"}


def test_joining_keeps_everyone_once():
    other = replace(SEEN, dataset="msd:Other")
    joined = SEEN.joined(child("msd:Other"), other, SEEN)
    names = [one.dataset for one in joined.everyone()]
    assert names == [SEEN.dataset, SEEN.dataset, "msd:Other"]
    assert joined.joined(joined) == joined
