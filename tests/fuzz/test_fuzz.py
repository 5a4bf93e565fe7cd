"""A few mutants of each format; ``make fuzz`` reads thousands, and writes the table."""

import json

import pytest

from tests.faults.test_table import RESULTS
from tests.fuzz.formats import FORMATS, SINS, make_run, nnunet_preprocessed, unnoted_arrays
from tests.fuzz.runner import COLUMNS, fuzz, mutants, outcome, sample

QUICK, FULL = 12, 2000
SLOW = (make_run, nnunet_preprocessed, unnoted_arrays)
"""Makers of samples that take seconds."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("made")


@pytest.mark.parametrize("name", [n for n, spec in FORMATS.items() if spec.make not in SLOW])
def test_damage_is_read_or_refused_in_one_line(name, made, tmp_path):
    folder = tmp_path / "set"
    read = mutants(name, sample(FORMATS[name], made), folder, range(QUICK))
    found = [(number, *outcome(spec, folder, file)) for number, spec, file in read]
    assert len(found) == QUICK
    assert [one for one in found if one[1] not in ("accepted", "typed")] == []


def test_thousands_of_mutants_of_every_format_ended_well():
    formats = json.loads((RESULTS / "fuzz.json").read_text("utf-8"))["formats"]
    assert set(formats) == set(FORMATS)
    assert min(found["mutants"] for found in formats.values()) >= FULL
    assert {found[key] for found in formats.values() for key in COLUMNS[3:]} == {0}


@pytest.mark.slow
@pytest.mark.parametrize("planted", SINS)
def test_what_no_reader_may_do_is_seen(planted, made, tmp_path):
    tally = fuzz(f"planted: {planted}", 2, made, tmp_path, 3 if planted == "hangs" else 60)
    assert tally.counts[planted.partition(",")[0]] >= 1, tally
    assert tally.counts["mutants"] == 2
