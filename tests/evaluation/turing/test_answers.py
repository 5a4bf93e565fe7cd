import pytest

from gansynth_evaluate.turing import results
from tests.evaluation.turing.rating import answered, synthetic_study, write_answers
from tests.expected import raises_fault

MALFORMED = "turing-test.answers-malformed"
FORGED = "turing-test.answers-to-other-images"


@pytest.fixture
def study(tmp_path):
    return synthetic_study(tmp_path, [{"truth": kind} for kind in ("real", "synthetic") * 2])


def first(**changes):
    return lambda document: document["answers"][0].update(changes)


def other(**changes):
    return lambda document: document.update(changes)


@pytest.mark.parametrize(
    ("change", "expected", "names"),
    [
        (other(format="other"), MALFORMED, " format: "),
        (other(extra=1), MALFORMED, " extra: "),
        (other(rater=0), MALFORMED, " rater: "),
        *[
            (other(name=name), MALFORMED, " name: ")
            for name in ("", " x", "<b>", "=1+1", "a\nb", "x" * 41, 3)
        ],
        *[(other(years=years), MALFORMED, " years: ") for years in (-1, 81, "12")],
        (other(answers={}), MALFORMED, " answers: "),
        *[(first(answer=said), MALFORMED, " answers.0.answer: ") for said in ("maybe", None)],
        (other(study="ffffffff"), "turing-test.answers-of-other-study", "'ffffffff'"),
        (lambda d: d["answers"].pop(), "turing-test.answers-incomplete", " 3 of 4 "),
        # Not as any page of the study saves them: another rater's, another order, an image twice.
        (other(rater=2), FORGED, ""),
        (lambda d: d["answers"].reverse(), FORGED, ""),
        (lambda d: d["answers"].append(d["answers"][0]), FORGED, ""),
    ],
)
def test_a_file_that_is_no_rater_s_of_this_study_is_refused(study, change, expected, names):
    document = answered(study, 1, ["real"] * 4)
    change(document)
    path = write_answers(study, document)
    with raises_fault(expected, names=names) as caught:
        results(study, [path])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"rater": 1%s}' % (b"0" * 5000), None]
)
def test_bytes_that_are_no_answers_are_refused_and_a_huge_file_unread(study, data):
    path = study.folder / "answers.json"
    with open(path, "wb") as stream:
        stream.truncate(1 << 40) if data is None else stream.write(data)
    with raises_fault("turing-test.answers-too-large" if data is None else MALFORMED, names=path):
        results(study, [path])


@pytest.mark.parametrize(
    ("second", "names"), [((1, "B"), "rater-1.html"), ((2, "DR. ITO"), "rater dr. ito")]
)
def test_a_rater_counts_once(study, second, names):
    paths = [
        write_answers(study, answered(study, rater, ["real"] * 4, name=name), f"{name}.json")
        for rater, name in ((1, "Dr. Ito"), second)
    ]
    with raises_fault("turing-test.two-files-of-rater", names=names) as caught:
        results(study, paths)
    assert str(caught.value).startswith(str(paths[1]))


def test_names_of_all_scripts_are_taken(study):
    for name in ("7", "O'Neil-Özil", "伊藤"):
        path = write_answers(study, answered(study, 1, ["real"] * 4, name=name))
        assert results(study, [path])["raters"][0]["name"] == name
