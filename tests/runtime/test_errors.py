"""Errors have ids, which outlive their wording and the process that raised them."""

import pickle
import re

import pytest

from gansynth.runtime.errors import FAULTS, ID, DataFault, GansynthError
from tests.errors_page import raised_errors


def test_every_error_of_the_code_has_an_id_of_one_exit_code():
    codes: dict[str, set[str]] = {}
    for error in raised_errors():
        assert re.fullmatch(ID, error.id), error
        codes.setdefault(error.id, set()).add(error.exit_code)
    assert {id: kinds for id, kinds in codes.items() if len(kinds) > 1} == {}


@pytest.mark.parametrize("kind", FAULTS.values())
def test_an_error_printed_by_a_process_is_the_same_here(kind):
    error = kind("grid.odd-shape", "a.nii: shape [3] is odd,\n expected even")
    again = GansynthError.printed(error.exit_code, error.line)
    assert (type(again), again.id) == (kind, error.id)
    assert str(again) == "a.nii: shape [3] is odd, expected even"


@pytest.mark.parametrize("line", ["killed", "killed [by whom]", "a list [1.5]x", ""])
def test_a_line_without_an_id_is_the_message(line):
    error = GansynthError.printed(3, line)
    assert (type(error), error.id, str(error)) == (DataFault, "process.failed", line)


def test_an_error_survives_pickling_and_rewording():
    error = pickle.loads(pickle.dumps(DataFault("grid.odd-shape", "odd")))
    longer = error.reworded(f"{error}; see above")
    assert (type(longer), longer.id, str(longer)) == (DataFault, "grid.odd-shape", "odd; see above")
    assert isinstance(longer, GansynthError)
