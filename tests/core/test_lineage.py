import json
from dataclasses import replace

import pytest

from gansynth.core.identity import Door, HeldOut, refuse_seen, same_data
from gansynth.core.lineage import CaseRecord, Lineage, guard_host
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
        refuse_seen(lineage, HeldOut((CaseRecord("c_1", "carl", "hash-c1"), held_out)), Door())


def test_the_message_says_what_saw_them_counts_all_names_eight_and_has_the_way_out():
    many = tuple(CaseRecord(f"case_{i:02d}", f"person_{i}", f"hash-{i}") for i in range(11))
    with raises_fault("lineage.held-out-case-seen", names="bank of set fold 0") as stopped:
        refuse_seen(Lineage("set", "0", many), HeldOut(many), Door("bank"))
    for named in (" 11 ", "case_07", " 3 more", "gansynth fit"):
        assert named in str(stopped.value)
    assert "case_08" not in str(stopped.value)


NAMED = CaseRecord("anna", "anna", "new")  # without --subjects, where the other side has them
PREFIXED = CaseRecord("a_2", "other-anna", "new")


@pytest.mark.parametrize(
    ("held_out", "refused"),
    [(CONTENT, True), (SUBJECT, True), (NAMED, True), (ID, False), (PREFIXED, False)],
    ids=["content", "subject", "named on one side", "id", "prefix"],
)
def test_between_two_data_sets_people_and_contents_count_and_ids_do_not(held_out, refused):
    of_another = HeldOut((held_out,), same=lambda lineage: False)
    if refused:
        with raises_fault("lineage.held-out-case-seen"):
            refuse_seen(SEEN, of_another, Door())
    else:
        refuse_seen(SEEN, of_another, Door())


def case(side: int, name: str, subject: str = "") -> CaseRecord:
    return CaseRecord(name, subject or name, f"hash of {name}, {side}")


@pytest.mark.parametrize(
    ("seen", "held_out", "says"),
    [
        (["p3_a", "p4_a", "p5_a", "p6_a"], ["p3_b", "p7_b"], "p3_b and p3_a"),
        (["p3_a", "p4_a", "p5_a", "p6_a"], ["p7_b", "p8_b"], ""),
        ([f"T_{p}_2" for p in ("CS_1", "CS_2", "DU_3", "DU_4", "DU_5")], ["T_CS_2_3"], "T_CS_2_2"),
        (["brain_001", "brain_002"], ["brain_003", "brain_004"], ""),  # a data set is no person
        (["ill_1", "ill_2", "well_1", "well_2"], ["ill_3", "well_3"], ""),  # nor is a class
        (["c012", "c013"], ["c012"], "c012"),
        (["p3_a"], [("x", "p3")], "x and p3_a"),
        ([("x", "p3")], ["p3_b"], "p3_b and x"),
    ],
)  # fmt: skip
def test_ids_that_begin_alike_are_said_where_nobody_is_named(seen, held_out, says):
    sides = [
        tuple([case(side, *([name] if isinstance(name, str) else name)) for name in names])
        for side, names in enumerate((seen, held_out))
    ]
    asked = HeldOut(sides[1], same=lambda lineage: False)
    warnings = refuse_seen(Lineage("set", "0", sides[0]), asked, Door("--unlabelled")).warnings
    assert (len(warnings), says in "".join(warnings)) == (1 if says else 0, True)


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
        ({"plans": "small", "spacing": [1.0, 1.0, 1.0]}, "plans: nnUNetPlans, here small"),
        ({"plans": "nnUNetPlans"}, "spacing: 1.0,1.0,1.0, here not given"),
        ({**SEEN.host, "labels": {"tumour": 1}}, "labels: not given, here tumour:1"),
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
