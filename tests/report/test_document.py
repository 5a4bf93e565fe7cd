"""Values know where they stand, whatever their names are."""

import pytest

from gansynth.report.document import Node, fragment, pattern
from tests.benchmark.tracing import expand, resolve

AWKWARD = ["a/b", "m~n", "x,y", "{z}", "100 %", "ü", "", 'q"q']


@pytest.mark.parametrize("key", AWKWARD)
def test_a_node_stands_where_its_pointer_leads(key):
    document = {"list": [{key: {"inner": 7}}]}
    node = Node(document)["list"][0][key]["inner"]
    assert node.value == resolve(document, node.pointer) == 7


def test_pointers_are_those_of_rfc_6901():
    assert Node({})["a/b"][0]["m~n"].pointer == "/a~1b/0/m~0n"
    assert fragment("/a~1b/x y/%") == "/a~1b/x%20y/%25"


def test_what_is_not_there_is_a_node_too():
    node = Node({"a": [1]})["a"][3]["b"]["c"]
    assert (node.value, node.pointer, node.number, node.text) == (None, "/a/3/b/c", None, "")
    assert list(node) == list(node.members()) == []
    assert not node
    with pytest.raises(KeyError):
        resolve({"a": [1]}, node.pointer)


@pytest.mark.parametrize(
    ("value", "number", "something"),
    [
        (0, 0.0, True),
        (1.5, 1.5, True),
        (True, None, True),
        (False, None, True),
        ("1", None, True),
        (float("nan"), None, True),
        ([], None, False),
    ],
)
def test_only_finite_numbers_are_numbers_and_zero_is_something(value, number, something):
    assert Node(value).number == number
    assert bool(Node(value)) == something


def test_a_pattern_stands_for_all_its_places():
    found = pattern("runs", [0, 12], "scores", AWKWARD)
    keys = [key.replace("~", "~0").replace("/", "~1") for key in AWKWARD]
    assert expand(found) == [f"/runs/{run}/scores/{key}" for run in (0, 12) for key in keys]
