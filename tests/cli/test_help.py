"""Options in groups, those of a framework beside ``--target``, and what a shell completes."""

import pytest
from click.shell_completion import ShellComplete

from gansynth_cli.help import GROUPS, HOSTS
from gansynth_cli.main import cli


def completed(*words: str) -> list[str]:
    *typed, begun = words
    shell = ShellComplete(cli, {}, "gansynth", "_GANSYNTH_COMPLETE")
    return [item.value for item in shell.get_completions(typed, begun)]


def test_the_options_of_augment_are_in_groups(run_cli):
    shown = run_cli("augment", "--help").stdout
    places = [shown.index(f"\n{heading}:\n") for heading in (*GROUPS, "Run")]
    assert places == sorted(places)


@pytest.mark.parametrize("host", sorted({*HOSTS.values()}))
def test_options_of_a_framework_are_shown_where_it_is_the_target(host, run_cli):
    shown = run_cli("augment", "--target", host, "--help").stdout
    options = {name for name in HOSTS if f"\n  --{name.replace('_', '-')} " in shown}
    assert options == {name for name, owner in HOSTS.items() if owner == host}


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("op",), "options"),
        (("fit", "cg"), "cgan3d"),
        (("fit", "cgan3d", "--set", "wid"), "width="),
        (("augment", "--target", "nnunet", "--set", "num_e"), "num_epochs="),
        (("augment", "--edit", "ela"), "elastic"),
        (("options", "segm"), "segmenter"),
    ],
    ids=lambda value: "",
)
def test_a_shell_completes_names_and_keys(words, answer):
    assert completed(*words) == [answer]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell, run_cli):
    assert "_GANSYNTH_COMPLETE" in run_cli("completion", shell).stdout
