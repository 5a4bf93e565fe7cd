import csv
import json
from pathlib import Path
from typing import Any

import pytest

from gansynth_evaluate.turing import Study, results, write_results
from gansynth_evaluate.turing.summary import rows
from tests.evaluation.turing.rating import answered, synthetic_study, write_answers

R, S = "real", "synthetic"


@pytest.fixture
def session(tmp_path):
    """A study with these images and, by name, what its raters say of them; and their files."""

    def make(key, raters, **about) -> tuple[Study, list[Path]]:
        study = synthetic_study(tmp_path, key, **about)
        files = []
        for number, (name, said) in enumerate(raters.items(), 1):
            document = answered(study, number, said, name=name)
            files.append(write_answers(study, document, f"answers-{number}.json"))
        return study, files

    return make


def images(n=50, **more):
    return [{"truth": R, **more}] * n + [{"truth": S, **more}] * n


def of_paper(real_as_real, synthetic_as_real):
    """Answers to 50 + 50 images as in a row of the paper's table."""
    first = [R] * real_as_real + [S] * (50 - real_as_real)
    return first + [R] * synthetic_as_real + [S] * (50 - synthetic_as_real)


def test_the_papers_row_is_counted_as_in_the_paper_and_every_answer_is_written(session):
    """Han et al. 2018, table 1, T1 by DCGAN: 26, 24, 6, 44."""
    study, files = session(images(), {"physician": of_paper(26, 6)})
    found, written = write_results(study, files)
    table = found["raters"][0]["table"]
    cells = ("real_as_real", "real_as_synthetic", "synthetic_as_real", "synthetic_as_synthetic")
    assert [table[cell] for cell in cells] == [26, 24, 6, 44]
    shares = ("accuracy", "real_recognised", "synthetic_recognised")
    assert [table[share]["value"] for share in shares] == [0.7, 0.52, 0.88]
    assert table["said_real"] == 32
    lines = list(csv.DictReader(Path(written["answers"]).read_text().splitlines()))
    assert sum(int(line["correct"]) for line in lines) == 70
    assert [int(line["position"]) for line in lines] == list(range(1, 101))
    one = next(line for line in lines if line["image"] == "99")
    assert (one["truth"], one["answer"]) == (S, S)
    assert json.loads(Path(written["numbers"]).read_text()) == json.loads(json.dumps(found))
    shown = Path(written["table"]).read_text()
    assert "| physician | 70 | 60 to 78.8 | &lt; 0.001 | 26 | 24 | 6 | 44 |" in shown
    assert "- " + found["words"][0].replace("<", "&lt;") in shown


BETTER = "tells real from synthetic better than chance: 70 % correct (95 % interval 60 to 78.8 %"
EQUAL = "54 % correct (95 % interval 43.7 to 64 %), not found to differ from chance. An accuracy"


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (of_paper(26, 6), f"physician {BETTER}, p < 0.001)."),
        (of_paper(12, 8), f"{EQUAL} of up to 64 % fits these answers: this is no proof"),
        (of_paper(5, 45), "worse than chance: the kinds are distinguished"),
        (of_paper(50, 50), "said 'real' of 100 of 100 images"),
    ],
    ids=["better", "equal", "worse", "always real"],
)
def test_words_say_what_was_found(session, answers, says):
    found = results(*session(images(), {"physician": answers}))
    assert any(says in text for text in (*found["words"], *found["warnings"]))


def test_real_images_of_each_sequence_have_a_table_of_their_own(session):
    key = [{"truth": R, "sequence": name} for name in ("T1", "T1", "T2", "T2")]
    found = results(*session([*key, *[{"truth": S}] * 4], {"x": [R, R, S, R, R, R, S, S]}))
    shares = {p["sequence"]: p["table"]["correct"] for p in found["raters"][0]["sequences"]}
    assert shares == {"T1": 2, "T2": 1}
    assert rows(found)[2] == ("  T1 (real)", "100", "", "", "2", "0", "", "")


def test_pooled_counts_are_sums_of_answers_that_are_not_independent(session):
    three = {"c": of_paper(26, 6), "a": of_paper(12, 8), "B": of_paper(34, 7)}
    found = results(*session(images(), three))
    table = found["pooled"]["table"]
    assert [rater["name"] for rater in found["raters"]] == ["a", "B", "c"]
    assert (table["answers"], table["correct"], table["real_as_real"]) == (300, 201, 72)
    assert table["accuracy"]["worth"] < 300
    assert "not independent" in found["warnings"][-1]


def test_two_raters_agree_as_kappa_says(session):
    found: Any = results(*session(images(2), {"a": [R, R, S, S], "b": [R, R, S, R]}))
    assert found["agreement"]["fleiss_kappa"] == pytest.approx(7 / 15)


def test_what_helps_samples_is_pointed_out_and_no_file_names_a_case(session):
    about = {"rejected": 7, "seen_by_run": 12, "shared_with_samples": 3}
    key = [{**one, "case": "Mustermann_03", "subject": "Mustermann"} for one in images(2)]
    found, written = write_results(*session(key, {"x": [R] * 4}, **about))
    rejected, first, second = found["warnings"][:3]
    assert "7 samples were rejected and left out" in rejected
    assert "12 of the 50 real cases are training cases" in first
    assert "3 real cases also have samples based on them" in second
    assert [name for name in written.values() if "Mustermann" in Path(name).read_text()] == []
