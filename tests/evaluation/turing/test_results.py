"""The paper's table and what follows from it, against what was counted by hand."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from gansynth.evaluation.turing import results, write_results
from gansynth.evaluation.turing.raters import new_rater
from gansynth.evaluation.turing.session import VERSION
from gansynth.evaluation.turing.words import rows
from gansynth.runtime.errors import DataFault, IntegrityFault

REAL, SYNTHETIC = "real", "synthetic"
ABOUT = {"source": "nifti:phantoms", "from": "held-out", "cases": 50, "seen_by_run": 0, "flawed": 0}


def session(folder: Path, key: list[dict[str, Any]], **about: Any) -> Path:
    """A session of made-up images."""
    (folder / "raters").mkdir(parents=True)
    text = json.dumps({"version": VERSION, "images": key})
    (folder / "key.json").write_text(text)
    document = {
        "version": VERSION,
        "id": "0123abcd",
        "created": "2026-01-01",
        "run": {"id": "r", "generator": "dcgan"},
        "asked": {},
        "images": {},
        "key": {"sha256": hashlib.sha256(text.encode()).hexdigest()},
        "about": {**ABOUT, "shared_with_samples": 0, **about},
    }
    (folder / "session.json").write_text(json.dumps(document))
    return folder


def images(n: int = 50, **more: Any) -> list[dict[str, Any]]:
    return [{"truth": REAL, **more}] * n + [{"truth": SYNTHETIC, **more}] * n


def rate(folder: Path, name: str, said: list[str], seconds: dict[int, float] | None = None) -> Any:
    """A rater who says so of the images, by their number; shorter lists stop in between."""
    total = len(json.loads((folder / "key.json").read_text())["images"])
    rater = new_rater(folder, name, None, total)
    if len(said) < total:  # of the first in the rater's order
        answers = dict(zip(rater.order, said, strict=False))
    else:
        answers = dict(enumerate(said))
    for number in rater.order[: len(said)]:
        ms = 1000 * (seconds or {}).get(number, 2.0)
        times: dict[str, float | None] = {"ms": ms, "hidden_ms": 0.0, "server_ms": ms + 50}
        rater.answer(rater.names[rater.done], answers[number], times)
    return rater


def of_paper(real_as_real: int, synthetic_as_real: int) -> list[str]:
    """Answers to 50 + 50 images as in a row of the paper's table."""
    return [
        *[REAL] * real_as_real,
        *[SYNTHETIC] * (50 - real_as_real),
        *[REAL] * synthetic_as_real,
        *[SYNTHETIC] * (50 - synthetic_as_real),
    ]


@pytest.fixture
def paper(tmp_path) -> Path:
    """Han et al. 2018, table 1, T1 by DCGAN: 26, 24, 6, 44."""
    folder = session(tmp_path / "paper", images())
    seconds = {n: 1.0 for n in range(20)} | {n: 4.0 for n in range(50, 100)}
    rate(folder, "physician", of_paper(26, 6), seconds)
    return folder


# -- one rater -------------------------------------------------------------------------------------


def test_the_papers_row_is_counted_as_in_the_paper(paper):
    table = results(paper)["raters"][0]["table"]
    assert [table[cell] for cell in ("real_as_real", "real_as_synthetic")] == [26, 24]
    assert [table[cell] for cell in ("synthetic_as_real", "synthetic_as_synthetic")] == [6, 44]
    assert table["accuracy"]["value"] == 0.70
    interval = binomtest(70, 100).proportion_ci(method="exact")
    found = (table["accuracy"]["low"], table["accuracy"]["high"])
    assert found == pytest.approx((interval.low, interval.high))
    assert table["accuracy"]["p"] == pytest.approx(binomtest(70, 100).pvalue)
    assert table["real_recognised"]["value"] == 0.52
    assert table["synthetic_recognised"]["low"] == pytest.approx(
        binomtest(44, 50).proportion_ci(method="exact").low
    )
    assert table["said_real"] == 32


def test_times_are_medians_by_what_the_images_were(paper):
    table = results(paper)["raters"][0]["table"]
    assert table["median_seconds"] == {"real": 2.0, "synthetic": 4.0, "all": 3.0}


def test_the_printed_row_is_the_papers(paper):
    heading, row = rows(results(paper))
    assert heading[4:8] == ("Real as Real", "Real as Synt", "Synt as Real", "Synt as Synt")
    assert row == (
        *("physician", "70", "60 to 78.8", "< 0.001", "26", "24", "6", "44", "2.0", "4.0"),
    )


def test_words_say_what_was_found(paper):
    words = results(paper)["words"]
    assert words[0] == (
        "physician tells real from synthetic better than chance: 70 % correct (95 % interval 60 to "
        "78.8 %, p < 0.001)."
    )
    assert words[1] == (
        "50 + 50 images tell one rater's accuracy of 60 % from chance with power 0.46; 65 % is the "
        "least that is found with 80 % power."
    )


def test_no_difference_is_no_proof(tmp_path):
    folder = session(tmp_path / "s", images())
    rate(folder, "physician", of_paper(12, 8))
    said = results(folder)["words"][0]
    assert "54 % correct (95 % interval 43.7 to 64 %), not found to differ from chance" in said
    assert "up to 64 % fits these answers: this is no proof" in said


def test_worse_than_chance_is_a_difference_too(tmp_path):
    folder = session(tmp_path / "s", images())
    rate(folder, "physician", of_paper(5, 45))
    assert "worse than chance: the kinds are told apart" in results(folder)["words"][0]


def test_who_always_says_the_same_is_pointed_out(tmp_path):
    folder = session(tmp_path / "s", images())
    rate(folder, "physician", of_paper(50, 50))
    (warning,) = results(folder)["warnings"]
    assert "said 'real' of 100 of 100 images" in warning


def test_nobody_has_answered(tmp_path):
    found = results(session(tmp_path / "s", images()))
    assert (found["raters"], found["words"]) == ([], ["Nobody has answered yet."])


# -- classes and sequences -------------------------------------------------------------------------


def test_classes_have_tables_of_their_own(tmp_path):
    key = [*images(2, **{"class": "a"}), *images(2, **{"class": "b"})]
    folder = session(tmp_path / "s", key)
    rate(folder, "x", [REAL, REAL, REAL, SYNTHETIC, SYNTHETIC, SYNTHETIC, REAL, REAL])
    rate(folder, "y", [REAL, REAL, SYNTHETIC, SYNTHETIC, REAL, REAL, SYNTHETIC, SYNTHETIC])
    found = results(folder)
    a, b = found["raters"][0]["classes"]
    assert (a["class"], a["table"]["correct"], b["class"], b["table"]["correct"]) == (
        *("a", 3, "b", 0),
    )
    pooled = [part["table"]["accuracy"]["value"] for part in found["pooled"]["classes"]]
    assert pooled == [7 / 8, 4 / 8]
    assert [row[0] for row in rows(found)[1:]] == ["x", "  a", "  b", "y", "  a", "  b", *LAST]


LAST = ("2 raters", "  a", "  b")


def test_real_images_of_each_sequence_are_counted(tmp_path):
    key = [{"truth": REAL, "sequence": name} for name in ("T1", "T1", "T2", "T2")]
    folder = session(tmp_path / "s", [*key, *[{"truth": SYNTHETIC}] * 4])
    rate(folder, "x", [REAL, REAL, SYNTHETIC, REAL, REAL, REAL, SYNTHETIC, SYNTHETIC])
    found = results(folder)
    shares = {p["sequence"]: p["table"]["correct"] for p in found["raters"][0]["sequences"]}
    assert shares == {"T1": 2, "T2": 1}
    assert rows(found)[2] == ("  T1 (real)", "100", "", "", "2", "0", "", "", "2.0", "-")


# -- several raters --------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path) -> Path:
    folder = session(tmp_path / "three", images())
    rate(folder, "c", of_paper(26, 6))
    rate(folder, "a", of_paper(12, 8))
    rate(folder, "B", of_paper(34, 7))
    return folder


def test_pooled_counts_are_sums(three):
    found = results(three)
    table = found["pooled"]["table"]
    assert [rater["name"] for rater in found["raters"]] == ["a", "B", "c"]
    assert (table["answers"], table["correct"], table["real_as_real"]) == (300, 201, 72)


def test_pooled_answers_do_not_count_as_independent(three):
    accuracy = results(three)["pooled"]["table"]["accuracy"]
    simple = binomtest(201, 300).proportion_ci(method="exact")
    assert accuracy["worth"] < 300
    assert accuracy["high"] - accuracy["low"] > simple.high - simple.low


def test_other_raters_have_a_wider_interval_and_it_is_said(three):
    found = results(three)
    table = found["pooled"]["table"]
    these, others = table["accuracy"], table["accuracy_of_others"]
    assert others["low"] < these["low"] < these["high"] < others["high"]
    assert "not independent" in found["warnings"][-1]
    assert "for others like them it is" in found["warnings"][-1]


def test_two_raters_say_nothing_of_others(tmp_path):
    folder = session(tmp_path / "s", images())
    rate(folder, "a", of_paper(26, 6))
    rate(folder, "b", of_paper(12, 8))
    found = results(folder)
    assert found["pooled"]["table"]["accuracy_of_others"] is None
    assert "nothing is said by fewer than 3" in found["warnings"][-1]


def test_who_has_not_finished_is_not_pooled(three):
    rate(three, "late", of_paper(26, 6)[:30])
    found = results(three)
    assert found["pooled"]["raters"] == 3
    assert found["raters"][-1]["answered"] == 30
    assert "1 rater(s) have not finished and are not pooled: late" in found["warnings"]
    assert rows(found)[4][0] == "late (30 of 100)"


def test_agreement_is_that_of_the_answers(tmp_path):
    folder = session(tmp_path / "s", images(2))
    rate(folder, "a", [REAL, REAL, SYNTHETIC, SYNTHETIC])
    rate(folder, "b", [REAL, REAL, SYNTHETIC, REAL])
    found = results(folder)["agreement"]
    # They agree on 3 of 4; a says real of 1/2, b of 3/4.
    assert found["pairs"][0]["cohen_kappa"] == pytest.approx((3 / 4 - 1 / 2) / (1 / 2))
    # Of all answers 5/8 are real.
    chance = (5 / 8) ** 2 + (3 / 8) ** 2
    assert found["fleiss_kappa"] == pytest.approx((3 / 4 - chance) / (1 - chance))


# -- what a reader must know -----------------------------------------------------------------------


def test_what_helps_samples_is_pointed_out(tmp_path):
    about = {"flawed": 7, "seen_by_run": 12, "shared_with_samples": 3}
    flawed, first, second = results(session(tmp_path / "s", images(), **about))["warnings"]
    assert "7 samples had a flaw and were left out" in flawed
    assert "12 of the 50 real cases are training cases" in first
    assert "3 real cases are also what samples were drawn of" in second


def test_a_torn_line_is_said(paper):
    (path,) = (paper / "raters").glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    found = results(paper)
    assert found["raters"][0]["answered"] == 99
    assert f"{path}: ends within a line" in found["warnings"][0]


def test_other_damage_is_refused(paper):
    (path,) = (paper / "raters").glob("*.jsonl")
    path.write_text(path.read_text().replace('"real"', '"rael"', 1))
    with pytest.raises(IntegrityFault, match="is damaged"):
        results(paper)


def test_a_folder_without_a_session_is_refused(tmp_path):
    with pytest.raises(DataFault, match=r"no session\.json"):
        results(tmp_path)


# -- files -----------------------------------------------------------------------------------------


def test_every_answer_is_in_the_csv(paper):
    _, files = write_results(paper)
    lines = list(csv.DictReader(Path(files["answers"]).read_text().splitlines()))
    assert len(lines) == 100
    assert sum(int(line["correct"]) for line in lines) == 70
    assert [int(line["position"]) for line in lines] == list(range(1, 101))
    one = next(line for line in lines if line["image"] == "99")
    assert (one["truth"], one["answer"], one["seconds"], one["server_seconds"]) == (
        *(SYNTHETIC, SYNTHETIC, "4.0", "4.05"),
    )


def test_numbers_and_table_are_written(paper):
    found, files = write_results(paper)
    assert json.loads(Path(files["numbers"]).read_text()) == json.loads(json.dumps(found))
    table = Path(files["table"]).read_text()
    assert "| physician | 70 | 60 to 78.8 | < 0.001 | 26 | 24 | 6 | 44 | 2.0 | 4.0 |" in table
    assert f"- {found['words'][0]}" in table


def test_no_file_of_results_names_a_case(tmp_path):
    key = [{**one, "case": "Mustermann_03", "subject": "Mustermann"} for one in images(2)]
    folder = session(tmp_path / "s", key)
    rate(folder, "x", [REAL] * 4)
    _, files = write_results(folder)
    assert [name for name in files.values() if "Mustermann" in Path(name).read_text()] == []
