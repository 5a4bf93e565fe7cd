"""Options in groups, those of a framework beside ``--target``, and what a shell completes."""

import re

import pytest
from click.shell_completion import ShellComplete

from gansynth.core.registry import installed
from gansynth.hosts.host import framework
from gansynth.runtime.options import flag_of
from gansynth_cli.help import HEADINGS
from gansynth_cli.main import cli


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
