import errno
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint
from unittest.mock import Mock

import click
import pytest

import gansynth
from gansynth.runtime import errors
from gansynth_cli import main
from gansynth_cli.main import EPILOG, cli, commands, exit_code_of

EVERY = [*((name,) for name in commands()), ("plugins", "list"), ("plugins", "check")]


def find(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_has_two_examples_of_the_command_that_can_be_parsed(path, run_cli):
    shown = run_cli(*path, "--help")
    assert (shown.exit_code, "Examples" in shown.stdout) == (0, True)
    lines = [line.strip() for line in (find(path).epilog or "").splitlines()]
    examples = [line for line in lines if line.startswith("gansynth")]
    assert len(examples) == 2
    for line in examples:
        name, *arguments = shlex.split(line)
        assert (name, arguments[0]) == ("gansynth", path[0])
        depth = 2 if tuple(arguments[:2]) in EVERY else 1
        find(tuple(arguments[:depth])).make_context(arguments[0], arguments[depth:])


def test_help_lists_every_command_as_it_says_itself_and_the_exit_codes(run_cli):
    shown = run_cli("-h").stdout
    assert shown == run_cli("--help").stdout == run_cli().stdout
    assert run_cli().exit_code == 0
    for name, (_, summary) in commands().items():
        assert re.search(rf"^  {name} ", shown, re.MULTILINE)
        assert (find((name,)).help or "").splitlines()[0] == summary
    expected = {fault.exit_code for fault in errors.GansynthError.__subclasses__()}
    expected |= {errors.EXIT_OK, errors.EXIT_BUG, errors.EXIT_SIGINT}
    expected |= {errors.EXIT_SIGHUP, errors.EXIT_SIGPIPE, errors.EXIT_SIGTERM}
    assert "Exit codes:" in shown
    assert {int(code) for code in re.findall(r"^ +(\d+)  ", EPILOG, re.MULTILINE)} == expected
    version = f"gansynth {gansynth.__version__}\n"
    assert run_cli("-V").stdout == run_cli("--version").stdout == version


def loaded_by(*lines: list[str]) -> set[str]:
    """Modules that command lines load."""
    code = (
        "import sys; from gansynth_cli.main import cli\n"
        f"for words in {lines!r}:\n"
        "  try: cli(words)\n"
        "  except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return set(done.stderr.split())


def test_help_imports_neither_commands_nor_heavy_libraries():
    loaded = loaded_by(["--help"])
    heavy = {"torch", "numpy", "rich", "h5py", "nnunetv2", "pluggy"}
    assert "gansynth_cli.main" in loaded
    assert (heavy | {"scipy", "pydantic", "yaml"}) & loaded == set()
    assert [name for name in loaded if name.startswith("gansynth_cli.commands")] == []
    commands = ("fit", "augment", "sample", "benchmark", "evaluate")
    loaded = loaded_by(*([name, "--help"] for name in commands))
    assert "pydantic" in loaded
    assert heavy & loaded == set()


TABLE = {"fit": ("naps:fit", "Not ours."), "naps": ("naps:naps", "Do nothing.")}


def test_a_strangers_command_is_listed_and_runs_and_ours_keep_their_names(
    run_cli, tmp_path, monkeypatch
):
    (tmp_path / "naps.py").write_text(f"import click\nTABLE = {TABLE}\nnaps = click.Group('naps')")
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint(name, f"{name}:TABLE", main.GROUP) for name in ("naps", "gone")]
    monkeypatch.setattr(main, "entry_points", lambda group: points)
    main.registered.cache_clear()
    try:
        shown = run_cli("--help")
        alone = run_cli("naps")  # a group without a command prints its help
    finally:
        main.registered.cache_clear()
    assert (alone.exit_code, alone.stderr) == (0, "")
    assert alone.stdout.startswith("Usage: gansynth naps ")
    assert "  naps  " in shown.stdout
    assert "Not ours." not in shown.stdout
    assert shown.stderr == (
        "warning: the commands of 'gone:TABLE' are left out: "
        "ModuleNotFoundError(\"No module named 'gone'\")\n"
    )


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


FAULTS = [
    fault("test.fault", "file: key\n  value") for fault in errors.GansynthError.__subclasses__()
]
BUG = "bug: ZeroDivisionError: 0 (rerun with --debug and report it)\n"


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        *((fault, fault.exit_code, "error: file: key value [test.fault]\n") for fault in FAULTS),
        (ZeroDivisionError("0"), 1, BUG),
        (FileNotFoundError(errno.ENOENT, "no such file"), 1, "bug: "),
        (OSError(errno.ENOSPC, "No space left on device", "/a/file"), 4, "error: "),
        (OSError(errno.ESTALE, "Stale file handle", "/a/file"), 4, "error: "),
        (PermissionError(errno.EACCES, "Permission denied", "/a/file"), 4, "error: "),
        (PermissionError(errno.EPERM, "Operation not permitted"), 1, "bug: "),
        (OSError(errno.ENAMETOOLONG, "File name too long", "aaa"), 4, "error: "),
        (MemoryError(), 4, "error: "),
        (OutOfMemoryError("CUDA out of memory"), 4, "error: "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 4, "error: out of memory; "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_is_one_line_and_its_exit_code(error, code, said, capsys):
    assert exit_code_of(Mock(side_effect=error)) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == said or (said.endswith(" ") and shown.err.startswith(said))
    assert shown.err.count("\n") == 1


OF_HOST = "augment --target x --data x:y --generator . --ratio 0:0 -- --debug"


@pytest.mark.parametrize(
    ("words", "code", "shown"),
    [("check nifti:x --debug", 3, True), ("check nifti:x", 3, False), (OF_HOST, 2, False)],
)
def test_debug_is_an_option_of_every_command_unless_it_is_a_hosts_own(words, code, shown, run_cli):
    result = run_cli(*words.split())
    assert (result.exit_code, result.stderr.startswith("Traceback")) == (code, shown)
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_within_python_exceptions_pass_through():
    with pytest.raises(errors.DataFault):
        cli.main(["check", "nifti:x"], standalone_mode=False)


SLEEPY = """
import contextlib, sys, time, types, click, gansynth_cli.main as main
from gansynth.runtime.progress import write_stderr
from gansynth.runtime.signals import telling

@click.command()
def command():
  with telling(write_stderr) if {tells} else contextlib.nullcontext():
    try:
        print("ready", flush=True)
        for _ in range(6000):  # a signal just before a sleep does not shorten it
            time.sleep(0.1)
    finally:
        print("cleaning", flush=True)
        for _ in range(4):
            time.sleep(0.1)
        print("cleaned up", flush=True)

sys.modules["gansynth_cli.commands.sleepy"] = types.SimpleNamespace(command=command)
main.COMMANDS["sleepy"] = ("sleepy", "")
sys.argv = ["gansynth", "sleepy"]
main.main()
"""

KEPT = "stopped; type the same command again to resume\n"


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("numbers", "code", "says"),
    [
        ([signal.SIGTERM] * 2, 143, "terminated\n"),
        ([signal.SIGINT], 130, "interrupted\n"),
        ([signal.SIGHUP] * 2, 129, "hung up\n"),
        ([signal.SIGTERM] * 2, 143, KEPT),
        ([signal.SIGINT], 130, KEPT),
        ([signal.SIGHUP] * 2, 129, KEPT),
    ],
)
def test_a_signal_ends_it_with_its_code_and_one_line_after_cleaning_up(numbers, code, says):
    """Schedulers send SIGTERM more than once: the second does not end the cleaning up."""
    pipe = subprocess.PIPE
    words = [sys.executable, "-c", SLEEPY.replace("{tells}", str(says == KEPT))]
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(numbers[0])
        assert child.stdout.readline() == "cleaning\n"
        for number in numbers[1:]:
            child.send_signal(number)
        rest, complaint = child.communicate(timeout=60)
    assert (child.returncode, rest) == (code, "cleaned up\n")
    assert complaint.lstrip() == says  # behind what a terminal shows of Ctrl-C


@pytest.mark.parametrize("words", ["--help", "help sources", "completion bash"])
def test_a_reader_that_has_left_is_no_bug(words):
    command = f"set -o pipefail; {shlex.quote(sys.executable)} -m gansynth_cli {words} | true"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (141, "")


WORKING = r"""
import click, os, sys
from gansynth_cli import main
from gansynth.runtime.progress import RichReporter

def work():
    with RichReporter().task(2, "work") as task:
        task.advance()
        os.write(1, b"ready\n")  # what is printed goes where the bar is
        try:
            while os.read(0, 1):
                pass
        except OSError:  # on Linux; an empty read elsewhere
            pass
        task.advance()
    sys.exit(0)

main.cli = work
main.main()
"""


def test_good_work_ends_with_0_where_its_terminal_is_closed_meanwhile():
    """As of one that a shell has disowned, which gets no SIGHUP."""
    (ours, terminal), pipe = pty.openpty(), subprocess.PIPE
    words = [sys.executable, "-c", WORKING]
    with subprocess.Popen(words, stdin=terminal, stdout=pipe, stderr=terminal) as child:
        os.close(terminal)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        os.close(ours)
        assert child.wait(60) == 0


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_good_work_ends_with_0_where_stderr_is_closed_or_full(stderr):
    code = "import click; from gansynth_cli import main; from gansynth.runtime.progress import *;"
    code += "main.cli = lambda: (RichReporter().say('one'), sys.exit(0)); main.main()"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote('import sys; ' + code)} {stderr}"
    assert subprocess.run(command, shell=True, check=False, timeout=60).returncode == 0
