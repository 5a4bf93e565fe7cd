"""Help, pages of the docs, options and what a shell completes: whatever tells what to type."""

import json
import re
from typing import Any

import pytest
from click.shell_completion import ShellComplete

import gansynth
from gansynth.core.registry import installed
from gansynth.hosts.api import host_settings
from gansynth.hosts.host import framework
from gansynth.runtime.option_kinds import option_rows
from gansynth.runtime.options import flag_of
from gansynth.training.loop import FitOptions
from gansynth_cli.help import HEADINGS
from gansynth_cli.main import cli


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


def test_the_options_of_augment_are_in_groups(run_cli):
    shown = run_cli("augment", "--help").stdout
    places = [shown.index(f"\n{heading}:\n") for heading in HEADINGS]
    assert places == sorted(places)


@pytest.mark.parametrize("target", installed().names("hosts"))
def test_options_of_a_target_are_flags_or_for_set_only(target, run_cli):
    shown = run_cli("augment", "--target", target, "--help").stdout
    of_target = shown.partition(f"\nOptions of {target}:")[2]
    flags, _, others = of_target.partition("By --set KEY=VALUE only:")
    keys = {*framework(target).Options.model_fields}
    assert {key for key in keys if f"\n  {flag_of(key)} " in flags} == keys - {"device", "seed"}
    assert {*re.findall(r"\w+", others.partition(".")[0])} == keys & {"device", "seed"}
    assert f"Options of {target}" not in run_cli("augment", "--help").stdout


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("op",), "options"),
        (("fit", "cg"), "cgan3d"),
        (("fit", "cgan3d", "--set", "wid"), "width="),
        (("augment", "--target", "nnunet", "--set", "num_e"), "num_epochs="),
        (("augment", "--target", "yolo", "--im"), "--imgsz"),
        (("augment", "--edit", "ela"), "elastic"),
        (("options", "segm"), "segmenter"),
    ],
    ids=lambda value: "",
)
def test_a_shell_completes_names_and_keys(words, answer):
    shell = ShellComplete(cli, {}, "gansynth", "_GANSYNTH_COMPLETE")
    found = shell.get_completions([*words[:-1]], words[-1])
    assert [item.value for item in found] == [answer]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell, run_cli):
    assert "_GANSYNTH_COMPLETE" in run_cli("completion", shell).stdout


KINDS = ("generators", "hosts", "sources", "edits", "filters", "metrics")
NAMED = [(kind, name) for kind in KINDS for name in installed().names(kind)]


@pytest.mark.parametrize(("kind", "name"), NAMED)
def test_whatever_is_registered_has_its_options_printed(run_json, kind, name):
    loaded = installed().load(kind, name)
    model = getattr(loaded, "Options", None) or getattr(loaded, "read_options", None)
    rows = [] if model is None else option_rows(model)
    tables = [table["options"] for table in run_json("options", name)["tables"]]
    assert rows in [[tuple(option.values()) for option in table] for table in tables]
    assert all(option["meaning"] for table in tables for option in table)


@pytest.mark.parametrize(
    ("name", "keys"), [("dcgan", FitOptions.model_fields), ("means", ["seed"])]
)
def test_of_a_generator_the_options_of_its_loop_are_printed_too(toys, run_json, name, keys):
    own, loop = run_json("options", name)["tables"]
    assert [option["key"] for option in loop["options"]] == list(keys)
    assert {option["key"] for option in own["options"]} & {"objective", "grain"}


def test_of_a_recipe_what_it_sets_is_printed(run_cli):
    shown = run_cli("options", "lesion")
    assert "recipe lesion: gansynth fit cgan3d --recipe lesion; lesions drawn" in shown.stdout
    assert "  insert            lesion  lesion: draw another case's lesion" in shown.stdout
    assert "--recipe lesion --scale tiny" in shown.stdout
    assert shown.stderr.startswith("next: gansynth fit cgan3d --recipe lesion --data KIND:WHERE")


def test_of_a_host_all_its_commands_are_printed(run_cli):
    shown = run_cli("options", "nnunet").stdout
    for words in ("augment --target nnunet --KEY", "prepare nnunet:WHERE --set", "nnunet:WHERE"):
        assert words in shown
    assert "  num_epochs " in shown
    assert "epochs to train (nnU-Net: 1000)" in shown
    assert run_cli("options", "spectrum").stdout == "metric spectrum: has no options\n"


@pytest.mark.parametrize("name", ["lesions", "boxes", "hard-cases"])
def test_what_is_not_registered_and_has_options_is_printed(run_json, name):
    assert run_json("options", name)["tables"][-1]["options"]


TRAINING = ("augment", "--data", "example:3d", "--ratio", "1:0", "--dry-run")


@pytest.mark.parametrize(
    "words",
    [
        ("--width", "8", "--learning-rate=0.1", "--flip"),
        ("--width", "8", "--set", "learning_rate=0.1", "--flip", "yes"),
        ("--set", "width=8", "--set", "learning_rate=0.1", "--set", "flip=yes"),
    ],
)
def test_options_of_a_target_are_flags_settings_and_keywords(run_json, words):
    planned = run_json(*TRAINING, "--target", "segmenter", *words)
    options: dict[str, Any] = {"width": 8, "learning_rate": 0.1, "flip": True}
    by_python = gansynth.augment(
        target="segmenter", data="example:3d", ratio="1:0", dry_run=True, quiet=True, **options
    )
    assert planned["settings"] == {"width": "8", "learning_rate": "0.1", "flip": "yes"}
    assert planned == json.loads(json.dumps(by_python, default=str))


@pytest.mark.parametrize(
    ("target", "place"),
    [("nnunet", "results"), ("segmenter", "output"), ("deepmedic", "output"), ("yolo", "output")],
)
def test_o_is_the_folder_of_results_for_every_target(target, place):
    cls = framework(target)
    assert host_settings(cls, {"batch": "2"}, "out") == {"batch": "2", place: "out"}
    assert host_settings(cls, {}, None) == {}
