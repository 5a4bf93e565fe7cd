"""The group: help, laziness, and one line and one exit code for every kind of error."""

import errno
import re
import shlex
import signal
import subprocess
import sys

import click
import pytest

import gansynth
from gansynth.runtime import errors
from gansynth_cli.main import COMMANDS, EPILOG, cli, exit_code_of


def every_command() -> list[tuple[str, ...]]:
    return [
        *((name,) for name in COMMANDS),
        ("plugins", "list"),
        ("plugins", "check"),
    ]


def find(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


def examples_of(path: tuple[str, ...]) -> list[str]:
    epilog = find(path).epilog or ""
    return [line.strip() for line in epilog.splitlines() if line.strip().startswith("gansynth")]


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_help_has_two_examples_of_the_command(path, run_cli):
    shown = run_cli(*path, "--help")
    assert shown.exit_code == 0
    assert "Examples" in shown.stdout
    assert len(examples_of(path)) == 2
    assert all(line.startswith(f"gansynth {path[0]}") for line in examples_of(path))


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_example_can_be_parsed(path):
    for line in examples_of(path):
        arguments = shlex.split(line)[1:]
        depth = 2 if tuple(arguments[:2]) in every_command() else 1
        find(tuple(arguments[:depth])).make_context(arguments[0], arguments[depth:])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_command_says(name):
    assert (find((name,)).help or "").splitlines()[0] == COMMANDS[name][1]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command_and_the_exit_codes(option, run_cli):
    shown = run_cli(option).stdout
    assert all(re.search(rf"^  {name} ", shown, re.MULTILINE) for name in COMMANDS)
    assert "Exit codes:" in shown


def test_the_table_of_exit_codes_is_that_of_the_errors():
    faults = errors.GansynthError.__subclasses__()
    expected = {fault.exit_code for fault in faults}
    expected |= {errors.EXIT_OK, errors.EXIT_BUG, errors.EXIT_SIGINT, errors.EXIT_SIGTERM}
    shown = {int(code) for code in re.findall(r"^ +(\d+)  ", EPILOG, re.MULTILINE)}
    assert shown == expected


def test_help_imports_neither_commands_nor_heavy_libraries():
    code = (
        "import sys; from gansynth_cli.main import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = done.stderr.split()
    heavy = {"torch", "numpy", "scipy", "pydantic", "rich", "yaml", "h5py", "nnunetv2", "pluggy"}
    assert "gansynth_cli.main" in loaded
    assert heavy & set(loaded) == set()
    assert [name for name in loaded if name.startswith("gansynth_cli.commands")] == []


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_shown(option, run_cli):
    assert run_cli(option).stdout == f"gansynth {gansynth.__version__}\n"


def test_an_unknown_command_is_one_line_with_the_nearest_name(run_cli):
    result = run_cli("fti")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: No such command 'fti'. Did you mean 'fit'? See: gansynth --help\n"
    )


FIT = ("fit", "dcgan", "-o", "run", "--data")


@pytest.mark.parametrize(
    ("typed", "instead"),
    [
        (("selector", "fit"), "--read slices=40-110"),
        ((*FIT, "slices:nifti:.", "--read", "selector=s"), "--read slices=40-110"),
        ((*FIT, "toy:2", "--set", "privacy_epsilon=8"), "docs/privacy.md"),
        (("evaluate", "run", "--host", "trained"), "the fold's own segmenter"),
    ],
)
def test_what_is_gone_is_refused_with_what_to_do_instead(typed, instead, run_cli, toy_source):
    result = run_cli(*typed)
    assert result.exit_code == 2
    assert instead in result.stderr.splitlines()[-1]


def test_a_missing_option_is_one_line_with_the_way_to_help(run_cli):
    result = run_cli("fit", "cgan3d", "--data", "nnunet:004")
    assert result.exit_code == 2
    assert result.stderr == ("error: Missing option '-o' / '--out'. See: gansynth fit --help\n")


def raising(error: BaseException):
    def run():
        raise error

    return run


@pytest.mark.parametrize("fault", errors.GansynthError.__subclasses__())
def test_a_typed_error_is_one_line_and_its_exit_code(fault, capsys):
    assert exit_code_of(raising(fault("file: key\n  value"))) == fault.exit_code
    assert capsys.readouterr() == ("", "error: file: key value\n")


def test_anything_else_is_a_bug(capsys):
    assert exit_code_of(raising(ZeroDivisionError("division by zero"))) == 1
    assert capsys.readouterr().err == (
        "bug: ZeroDivisionError: division by zero (rerun with --debug and report it)\n"
    )


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/a/file"),
        MemoryError(),
        OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_what_the_machine_is_to_blame_for_is_no_bug(error, capsys):
    assert exit_code_of(raising(error)) == 4
    assert capsys.readouterr().err.startswith("error: ")


def test_a_missing_file_that_nobody_caught_is_a_bug():
    assert exit_code_of(raising(FileNotFoundError(errno.ENOENT, "no such file"))) == 1


def test_debug_shows_the_traceback_before_the_line(capsys):
    exit_code_of(raising(errors.DataFault("bad")), debug=True)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("error: bad\n")


@pytest.mark.parametrize(("arguments", "shown"), [(["--debug"], True), ([], False)])
def test_debug_is_an_option_of_every_command(arguments, shown, run_cli):
    result = run_cli("check", "nifti:x", *arguments)
    assert result.exit_code == 3
    assert ("Traceback" in result.stderr) == shown


def test_a_hosts_own_debug_option_is_not_ours(run_cli):
    result = run_cli(
        "augment", "--target", "x", "--data", "x:y", "--generator", ".", "--ratio", "0:0",
        "--", "--debug",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


def test_within_python_exceptions_pass_through():
    with pytest.raises(errors.DataFault):
        cli.main(["check", "nifti:x"], standalone_mode=False)


SLEEPY = """
import sys, time, types, click, gansynth_cli.main as main

@click.command()
def command():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)

sys.modules["gansynth_cli.commands.sleepy"] = types.SimpleNamespace(command=command)
main.COMMANDS["sleepy"] = ("sleepy", "")
sys.argv = ["gansynth", "sleepy"]
main.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_its_code_after_cleaning_up(number, code):
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        rest, complaint = child.communicate(timeout=30)
    assert (child.returncode, rest) == (code, "cleaned up\n")
    assert "Traceback" not in complaint


def test_the_exit_code_reaches_the_shell():
    done = subprocess.run(
        [sys.executable, "-c", "from gansynth_cli.main import main; main()", "check", "nifti:x"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error: nifti:x")
    assert done.stderr.count("\n") == 1
