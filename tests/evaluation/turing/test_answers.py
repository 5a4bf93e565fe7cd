"""Files of answers are read without trust: each fault is one line that names the file."""

import pytest

from gansynth.runtime.errors import DataFault, IntegrityFault
from gansynth_evaluate.turing import results
from tests.evaluation.turing.rating import answered, synthetic_study, write_answers

SAVED = "expected a file that a rater saved with 'Save answers'"


@pytest.fixture
def study(tmp_path):
    return synthetic_study(tmp_path, [{"truth": kind} for kind in ("real", "synthetic") * 2])


def changed(study, changes):
    """A rater's file with other values; ``first`` changes the first answer."""
    changes = dict(changes)
    document = answered(study, 1, ["real"] * 4)
    document["answers"][0] |= changes.pop("first", {})
    return write_answers(study, document | changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "other"}, f"format: .*{SAVED}"),
        ({"extra": 1}, f"extra: .*{SAVED}"),
        ({"rater": 0}, "rater: "),
        *[({"name": name}, "name: ") for name in ("", " x", "<b>", "=1+1", "a\nb", "x" * 41, 3)],
        *[({"years": years}, "years: ") for years in (-1, 81, True, "12")],
        ({"answers": {}}, "answers: "),
        *[({"first": {"answer": said}}, "answers.0.answer") for said in ("maybe", None, ["real"])],
        *[({"first": {"ms": ms}}, "answers.0.ms") for ms in (-1, True, "9", None, 1e300)],
        ({"first": {"at": "=now()"}}, "answers.0.at"),
        ({"study": "ffffffff"}, "answers to study 'ffffffff', expected '[0-9a-f]{8}' of "),
    ],
)
def test_a_file_that_is_no_rater_s_of_this_study_is_refused(study, changes, says):
    path = changed(study, changes)
    with pytest.raises(DataFault, match=rf"{path.name}: .*({says})"):
        results(study, [path])


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"rater": 1%s}' % (b"0" * 5000)]
)
def test_bytes_that_are_no_answers_are_refused(study, data):
    path = study.folder / "answers.json"
    path.write_bytes(data)
    with pytest.raises(DataFault, match=f"answers.json: .*{SAVED}"):
        results(study, [path])


def test_a_huge_file_is_refused_unread(study):
    path = study.folder / "answers.json"
    with open(path, "wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(DataFault, match="larger than"):
        results(study, [path])


FORGED = {
    "an image of no page": lambda d: d["answers"][0].update(image="0" * 24),
    "another order": lambda d: d["answers"].reverse(),
    "an image twice": lambda d: d["answers"].append(d["answers"][0]),
    "the page of another rater": lambda d: d.update(rater=2),
}


@pytest.mark.parametrize("how", FORGED)
def test_answers_that_no_page_of_the_study_saved_are_refused(study, how):
    document = answered(study, 1, ["real"] * 4)
    FORGED[how](document)
    path = write_answers(study, document)
    with pytest.raises(IntegrityFault, match=rf"{path.name}: its images are not those of the page"):
        results(study, [path])


def test_an_unfinished_rater_is_refused_with_a_way_out(study):
    document = answered(study, 1, ["real"] * 4)
    del document["answers"][3:]
    path = write_answers(study, document)
    with pytest.raises(DataFault, match=r"answered 3 of 4 images.*open the page again"):
        results(study, [path])


@pytest.mark.parametrize(
    ("second", "says"),
    [((1, "B"), r"answers of page rater-1\.html"), ((2, "DR. ITO"), "answers of rater dr. ito")],
)
def test_a_rater_counts_once(study, second, says):
    paths = [
        write_answers(study, answered(study, rater, ["real"] * 4, name=name), f"{name}.json")
        for rater, name in ((1, "Dr. Ito"), second)
    ]
    with pytest.raises(DataFault, match=rf"{paths[1].name}: has {says}, and so has .*Leave one"):
        results(study, paths)


def test_names_of_all_scripts_are_taken(study):
    for name in ("Dr. Ito", "7", "O'Neil-Özil", "伊藤"):
        path = write_answers(study, answered(study, 1, ["real"] * 4, name=name))
        assert results(study, [path])["raters"][0]["name"] == name
