"""Options of commands that mean nothing beside the others: one line, exit 2, nothing begun."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from gansynth_cli.main import COMMANDS, cli

REFUSED = {
    "augment --target segmenter --data example:3d --ratio 1:1 --bank b --bank-size 9": (
        "--bank-size 9: has no effect with --bank b"
    ),
    "augment --target segmenter --data example:3d --ratio 1:1 --generator g --frozen --reuse 3": (
        "--reuse 3: has no effect with --frozen"
    ),
    "augment --target segmenter --data example:3d --ratio 1:1 --generator g --nearest": (
        "--nearest: has no effect without --output"
    ),
    "benchmark plan.yaml --look-again why": "--look-again why: has no effect without --sealed",
    "demo -o out --channels T1": "--channels T1: has no effect without --phantoms=deepmedic",
    "evaluate run --real-read fold=1": "--real-read fold=1: has no effect without --real",
    "evaluate run --only maps --metric spectrum": (
        "--metric spectrum: has no effect without --only=realism"
    ),
    "failures --data example:3d -o f.json --predictions p --steps 9": (
        "--steps 9: has no effect with --predictions p"
    ),
    "fit dcgan --data example:2d -o out --only one": "--only one: has no effect without --recipe",
    "fit dcgan --data example:2d -o out --set clip=0.1": (
        "--set clip=0.1: has no effect without objective=wgan"
    ),
    "fit dcgan --data example:2d -o out --set decay_from=0.1": (
        "--set decay_from=0.1: has no effect with decay=none"
    ),
    "fit copypaste --data example:3d -o out --set steps=9": "--set steps=9: has no effect",
    "fit dcgan --data nifti:x -o out --read least=3": (
        "--read least=3: has no effect without boxes"
    ),
    "fit dcgan --data slices:nifti:x -o out --read resampling=nearest": (
        "--read resampling=nearest: has no effect without whole"
    ),
    "check nifti:x --read seed=3 --read splits=s.json": (
        "--read seed=3: has no effect with --read splits=s.json"
    ),
    "papers shin2018 --data nifti:x --name n": "--name n: has no effect without --output",
    "prepare nnunet:004 --set patch=8x8x8": "--set patch=8x8x8: has no effect without small",
    "sample run --rows 3": "--rows 3: has no effect without --interpolate",
    "sample run --bits 8": "--bits 8: has no effect without --format=png",
    "sample run --edit size:bias=2": "--edit size:bias=2: bias: has no effect without like=small",
    "sample run --lesions where=own,tries=3": "tries: has no effect with where=own",
    "tune plan.yaml --draw 1": "--draw 1: has no effect without --size",
    "turing-test run --results --port 80": "--port 80: has no effect with --results",
}


@pytest.mark.parametrize("command", REFUSED)
def test_an_option_without_effect_is_refused(run_cli, one_line, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    result = run_cli(*shlex.split(command))
    one_line(result.exit_code, result.stderr, 2, [REFUSED[command]])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("example:2d", "--read bogus=1: example: has no such key, expected one of: none"),
        ("slices:example:3d", "--read bogus=1: example: has no such key"),
        ("h5:none.h5", "--read bogus=1: h5: has no such key"),
        ("nnunet:004", "--read bogus=1: nnunet: has no such key"),
        ("nifti:none", "--read bogus=1: nifti: has no such key"),
    ],
)
def test_a_read_key_that_a_source_does_not_have_is_refused(run_cli, one_line, data, says):
    result = run_cli("fit", "dcgan", "--data", data, "-o", "out", "--read", "bogus=1")
    one_line(result.exit_code, result.stderr, 2, [says])


def test_at_a_ratio_without_samples_options_about_them_are_warned_of(run_cli, tmp_path):
    words = ("augment", "--target", "segmenter", "--data", "example:3d", "--ratio", "1:0")
    result = run_cli(*words, "--filter", "faithful", "--bank-size", 9, "--dry-run")
    warned = [line for line in result.stderr.splitlines() if "no effect" in line]
    assert [line.split(": ")[1] for line in warned] == ["--bank-size 9", "--filter faithful"]


def test_what_commands_say_their_options_need_are_options_of_theirs():
    """A slip in a table would refuse, or let pass, without a word."""
    for name in COMMANDS:
        command: Any = cli.get_command(None, name)  # type: ignore[arg-type]
        for function in _wrapped(command.callback):
            if needs := getattr(function, "needs", None):
                known = {parameter.name for parameter in command.params}
                atoms = ", ".join(needs.values()).replace(" or ", ", ").split(", ")
                named = {atom.replace("!", "").partition("=")[0] for atom in atoms}
                assert {*needs, *named} <= known, name


def _wrapped(function: Any) -> Iterator[Any]:
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)


def test_synthetic_samples_of_no_generator_name_the_option(run_cli, one_line):
    words = ("augment", "--target", "segmenter", "--data", "example:3d", "--ratio", "1:1")
    result = run_cli(*words)
    says = ["--generator is missing", "add --generator RUN", "--ratio 1:0"]
    one_line(result.exit_code, result.stderr, 2, says)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--fit-set", "--fit-set stepz: cgan3d has no such setting"),
        ("--host-set", "--host-set stepz: "),
    ],
)
def test_a_papers_setting_is_called_what_was_typed(run_cli, one_line, tmp_path, option, says):
    words = ("papers", "shin2018", "--data", "nifti:x", "--with", "tissues=nifti:y", "--dry-run")
    result = run_cli(*words, option, "stepz=3")
    one_line(result.exit_code, result.stderr, 2, [says])
