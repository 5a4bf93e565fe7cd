import json
import re
from typing import Any, get_args

import pytest
from click.shell_completion import ShellComplete

import gansynth
from gansynth.conditions.lesion_placement import Number
from gansynth.core.generator import capabilities_of
from gansynth.core.registry import installed
from gansynth.core.requests.base import Opt, marks_of
from gansynth.core.requests.sections import SampleSection
from gansynth.core.sample_request import SampleRequest
from gansynth.hosts.contract.host import framework
from gansynth.runtime.option_kinds import option_rows
from gansynth.runtime.options import flag_of
from gansynth.sampling.request_checks import check_texts
from gansynth.training.loop import FitOptions
from gansynth_cli.help import HEADINGS
from gansynth_cli.main import cli


def test_pages_and_sections_of_the_docs_are_printed_without_marks_and_pictures(run_json, run_cli):
    assert run_json("help")["pages"]["faq"] == "Questions and errors"
    text = run_cli("help", "conditions").stdout
    assert text.startswith("# Conditions: the label maps of samples\n")
    assert "<!--" not in text
    assert "](images/" not in text
    assert "| `max_deg` | 15.0 |" in text
    section = run_cli("help", "volumes", "nnunet").stdout
    assert section.startswith("## nnunet\n")
    assert section.count("\n## ") == 0
    assert run_cli("help", "training", "cut off").stdout.startswith("## When it is cut off\n")


@pytest.mark.parametrize("target", installed().names("hosts"))
def test_options_of_a_target_are_flags_or_for_set_only(target, run_cli):
    shown = run_cli("augment", "--target", target, "--help").stdout
    of_target = shown.partition(f"\nOptions of {target}:")[2]
    flags, _, others = of_target.partition("By --set KEY=VALUE only:")
    keys = {*framework(target).Options.model_fields}
    assert {key for key in keys if f"\n  {flag_of(key)} " in flags} == keys - {"device", "seed"}
    assert {*re.findall(r"\w+", others.partition(".")[0])} == keys & {"device", "seed"}
    shown = run_cli("augment", "--help-all").stdout
    assert f"Options of {target}" not in shown
    places = [shown.index(f"\n{heading}:\n") for heading in HEADINGS]
    assert places == sorted(places)


@pytest.mark.parametrize("command", ["augment", "fit"])
def test_help_shows_what_a_beginner_needs_and_where_the_rest_is(command, run_cli):
    first, every = (run_cli(command, words).stdout for words in ("--help", "--help-all"))
    shown, all_of_them = (
        re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.M) for text in (first, every)
    )
    assert set(shown) < set(all_of_them)
    assert len(shown) == 14  # with --help and --help-all
    left = len(all_of_them) - len(shown)
    assert f"{left} more: gansynth {command} --help-all" in first
    assert "more: gansynth" not in every


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("op", "options"),
        ("fit dcg", "dcgan"),
        ("fit cg", "cgan3d cgan3d-labels cgan3d-lesion"),
        ("fit cgan3d --set wid", "width="),
        ("augment --target nnunet --set num_e", "num_epochs="),
        ("augment --target yolo --im", "--imgsz"),
        ("augment --edit ela", "elastic"),
        ("options segm", "segmenter"),
    ],
)
def test_a_shell_completes_names_and_keys(words, answer):
    shell = ShellComplete(cli, {}, "gansynth", "_GANSYNTH_COMPLETE")
    *before, last = words.split()
    assert [item.value for item in shell.get_completions(before, last)] == answer.split()


def test_the_script_of_a_shell_is_printed(run_cli):
    for shell in ("bash", "zsh", "fish"):
        assert "_GANSYNTH_COMPLETE" in run_cli("completion", shell).stdout


def test_whatever_is_registered_has_its_options_printed(toys, run_json, run_cli):
    for kind in ("generators", "hosts", "sources", "edits", "filters", "metrics"):
        for name in installed().names(kind):
            loaded = installed().load(kind, name)
            model = getattr(loaded, "Options", None) or getattr(loaded, "read_options", None)
            rows = [] if model is None else option_rows(model)
            tables = [table["options"] for table in run_json("options", name)["tables"]]
            assert rows in [[tuple(option.values()) for option in table] for table in tables], name
            said = [bool(option["meaning"]) for table in tables for option in table]
            assert all(said) or name in ("means", "constant"), name
    for name, keys in (("dcgan", list(FitOptions.model_fields)), ("means", ["seed"])):
        _, loop = run_json("options", name)["tables"]
        assert [option["key"] for option in loop["options"]] == keys
        printed = {option["key"]: option["default"] for option in loop["options"]}
        for key, own in capabilities_of(installed().generator(name)).loop.items():
            assert printed[key] == str(own)
    for name in ("lesions", "boxes"):
        assert run_json("options", name)["tables"][-1]["options"]
    shown = run_cli("options", "nnunet").stdout
    for words in ("augment --target nnunet --KEY", "prepare nnunet:WHERE --set", "nnunet:WHERE"):
        assert words in shown
    assert "epochs to train (nnU-Net: 1000)" in shown


def test_of_a_recipe_what_it_sets_is_printed(run_cli):
    shown = run_cli("options", "mmgan2020")
    fit = "gansynth fit cgan3d --recipe mmgan2020"
    assert f"recipe mmgan2020: {fit}; MM-GAN, a 3D U-Net" in shown.stdout
    assert re.search(r"  style +mmgan ", shown.stdout)


@pytest.mark.parametrize(
    "words",
    [
        "--width 8 --learning-rate=0.1 --flip",
        "--width 8 --set learning_rate=0.1 --flip yes",
        "--width 8 --learning_rate 0.1 --flip",
    ],
)
def test_options_of_a_target_are_flags_settings_and_keywords(run_json, words):
    asked = "augment --data example:3d --ratio 1:0 --dry-run --target segmenter"
    planned = run_json(*asked.split(), *words.split())
    options: dict[str, Any] = {"width": 8, "learning_rate": 0.1, "flip": True}
    by_python = gansynth.augment(
        target="segmenter", data="example:3d", ratio="1:0", dry_run=True, quiet=True, **options
    )
    assert planned["settings"] == {"width": "8", "learning_rate": "0.1", "flip": "yes"}
    assert planned == json.loads(json.dumps(by_python, default=str))


WORDS = [
    (key, word)
    for key, field in SampleSection.model_fields.items()
    for mark in marks_of(field)
    if isinstance(mark, Opt) and mark.metavar
    for word in mark.metavar.partition(",")[0].split("|")
    if word.islower()
]


@pytest.mark.parametrize(("key", "word"), WORDS)
def test_a_word_that_the_help_offers_is_taken(key, word):
    words: dict[str, Any] = {key: word}
    if key == "backgrounds":
        words["unlabelled"] = ("nifti:scans",)
    check_texts(SampleRequest.of(SampleSection(**words)))


def test_the_help_offers_every_way_of_counting_lesions():
    assert {word for key, word in WORDS if key == "lesions"} == set(get_args(Number))
