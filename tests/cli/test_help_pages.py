"""``gansynth help PAGE`` or ``WORD``: the pages of the docs, and words, offline."""

import pytest


def test_every_page_of_the_docs_is_listed_and_printed_without_marks_and_pictures(run_json, run_cli):
    pages = run_json("help")["pages"]
    assert pages["faq"] == "Questions and errors"
    text = run_cli("help", "conditions").stdout
    assert text.startswith("# Conditions: what a generator is asked to draw\n")
    assert "<!--" not in text
    assert "](images/" not in text
    assert "| `max_deg` | 15.0 |" in text


def test_a_section_ends_where_the_next_of_its_depth_begins(run_cli):
    text = run_cli("help", "sources", "nnunet").stdout
    assert text.startswith("## nnunet\n")
    assert text.count("\n## ") == 0
    longer = run_cli("help", "training", "cut off").stdout
    assert longer.startswith("## When it is cut off\n")


@pytest.mark.parametrize(
    ("word", "name", "kind", "meaning", "more"),
    [
        ("ratio", "ratio", "word", "real to synthetic samples", "gansynth help glossary"),
        ("--schedule", "--schedule", "option", "How the ratio changes", "gansynth augment --help"),
        ("lesion", "lesion", "recipe", "lesions drawn into real images", "gansynth options lesion"),
        ("copypaste", "copypaste", "generator", "The baseline", "gansynth options copypaste"),
        ("d_width", "d_width", "setting of cgan3d", "discriminator", "gansynth options cgan3d"),
        ("hard case", "hard-cases", "command", "Find hard", "gansynth hard-cases --help"),
        (
            "cut off",
            "When it is cut off",
            "page",
            "",
            "gansynth help training 'when it is cut off'",
        ),
    ],
)
def test_a_word_is_found_with_a_line_and_where_to_read_on(
    word, name, kind, meaning, more, run_json
):
    found = {(each["name"], each["kind"]): each for each in run_json("help", word)["found"]}
    assert found[name, kind]["meaning"].startswith(meaning)
    assert found[name, kind]["more"] == more
