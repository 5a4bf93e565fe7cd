"""Files of answers are read without trust: each fault is one line that names the file."""

import pytest

from gansynth.runtime.errors import DataFault
from gansynth_evaluate.turing import results
from tests.evaluation.turing.rating import answered, synthetic_study, write_answers
from tests.expected import raises_fault

SAVED = "expected a file that a rater saved with 'Save answers'"


@pytest.fixture
def study(tmp_path):
    return synthetic_study(tmp_path, [{"truth": kind} for kind in ("real", "synthetic") * 2])


def first(**changes):
    return lambda document: document["answers"][0].update(changes)


def other(**changes):
    return lambda document: document.update(changes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other(format="other"), f"format: .*{SAVED}"),
        (other(extra=1), f"extra: .*{SAVED}"),
        (other(rater=0), "rater: "),
        *[(other(name=name), "name: ") for name in ("", " x", "<b>", "=1+1", "a\nb", "x" * 41, 3)],
        *[(other(years=years), "years: ") for years in (-1, 81, "12")],
        (other(answers={}), "answers: "),
        *[(first(answer=said), "answers.0.answer") for said in ("maybe", None)],
        (other(study="ffffffff"), "answers to study 'ffffffff', expected '[0-9a-f]{8}' of "),
        (lambda d: d["answers"].pop(), "answered 3 of 4 images.*open the page again"),
    ],
)
def test_a_file_that_is_no_rater_s_of_this_study_is_refused(study, change, says):
    document = answered(study, 1, ["real"] * 4)
    change(document)
    path = write_answers(study, document)
    with pytest.raises(DataFault, match=rf"{path.name}: .*({says})"):
        results(study, [path])


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"rater": 1%s}' % (b"0" * 5000), None]
)
def test_bytes_that_are_no_answers_are_refused_and_a_huge_file_unread(study, data):
    path = study.folder / "answers.json"
    with open(path, "wb") as stream:
        stream.truncate(1 << 40) if data is None else stream.write(data)
    says = "larger than" if data is None else ""
    with pytest.raises(DataFault, match=rf"answers.json: {says}.*{SAVED}"):
        results(study, [path])


@pytest.mark.parametrize(
    "forge",
    [
        first(image="0" * 24),
        other(rater=2),
        lambda d: d["answers"].reverse(),
        lambda d: d["answers"].append(d["answers"][0]),
    ],
    ids=["an image of no page", "another rater's page", "another order", "an image twice"],
)
def test_answers_that_no_page_of_the_study_saved_are_refused(study, forge):
    document = answered(study, 1, ["real"] * 4)
    forge(document)
    path = write_answers(study, document)
    with raises_fault("turing-test.answers-to-other-images", names=path.name):
        results(study, [path])


@pytest.mark.parametrize(
    ("second", "says"),
    [((1, "B"), "answers of page rater-1.html"), ((2, "DR. ITO"), "answers of rater dr. ito")],
)
def test_a_rater_counts_once(study, second, says):
    paths = [
        write_answers(study, answered(study, rater, ["real"] * 4, name=name), f"{name}.json")
        for rater, name in ((1, "Dr. Ito"), second)
    ]
    with raises_fault("turing-test.two-files-of-rater", names=f"{paths[1].name}: has {says}"):
        results(study, paths)


def test_names_of_all_scripts_are_taken(study):
    for name in ("7", "O'Neil-Özil", "伊藤"):
        path = write_answers(study, answered(study, 1, ["real"] * 4, name=name))
        assert results(study, [path])["raters"][0]["name"] == name
