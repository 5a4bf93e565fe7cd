"""The ``gansynth`` command: imports the module of a command, and maps errors to exit codes.

This module imports nothing heavy: ``gansynth --help`` needs click and this file only.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from types import FrameType
from typing import Any, NoReturn

import click

from gansynth.runtime.errors import (
    EXIT_BUG,
    EXIT_OK,
    EXIT_SIGHUP,
    EXIT_SIGINT,
    EXIT_SIGPIPE,
    EXIT_SIGTERM,
    EnvironmentFault,
    GansynthError,
    UsageFault,
    brief,
    did_you_mean,
    disk_fault,
)
from gansynth.runtime.parts import refuse_absent
from gansynth.runtime.progress import from_here, write_stderr
from gansynth.runtime.signals import Interrupted, interrupt_outside_forks, on_sigterm
from gansynth.runtime.system import HUNG_UP, nobody_reads, send_self
from gansynth.runtime.version import __version__
from gansynth_cli.early import raise_on_sigint

COMMANDS = {
    "demo": ("demo", "Run every step on phantoms: no data and no GPU needed."),
    "import": (
        "data_sets:import_",
        "Copy a data set into the layout of a target framework, with folds.",
    ),
    "check": ("check", "Report what is wrong with a data set, file by file, or with samples."),
    "splits": (
        "data_sets:splits",
        "Write folds so that no subject is in both training and validation.",
    ),
    "prepare": (
        "data_sets:prepare",
        "Plan and preprocess a data set with its target framework.",
    ),
    "cache": ("cache", "Copy the cases of any source into one HDF5 file that is fast to read."),
    "fit": ("fit", "Fit a generator on the training cases of one fold."),
    "sample": ("sample", "Generate labelled samples from a run."),
    "augment": ("augment", "Train a target framework with samples mixed in at a ratio."),
    "predict": ("predict", "Predict new images by a training of gansynth augment."),
}
"""Command -> (module below ``gansynth_cli.commands``, perhaps with a name in it; a line for
``gansynth --help``), in the order in which a new user needs them."""
AIDS = {
    "plugins": ("plugins", "List and check installed plugins, or start a new one."),
    "options": (
        "help:options",
        "Print the options of a generator, framework, source, edit or filter.",
    ),
    "help": ("help", "Print a page of the docs, without a network."),
    "doctor": ("doctor", "Report what this machine has, and what is missing."),
    "completion": ("completion", "Print the script that lets a shell complete gansynth."),
}
"""The same of those that are listed last."""
OF_TRAINING = ("-num_gpus", "-device", "-pretrained_weights", "--npz", "--val", "--val_best")
OF_DATA = {"-p": "--plans NAME", "-d": "--data nnunet:ID"}
ALONE = {"-d": "nnunet:ID, without an option,"}
OF_NNUNET: Mapping[str, Mapping[str, str]] = {
    "check": ALONE,
    "prepare": ALONE | {"-p": "--plans NAME", "-np": "--processes N"},
    "fit": OF_DATA,
    "cache": ALONE | {"-p": "--plans NAME"},
    "augment": OF_DATA | {"-tr": "--trainer NAME"} | {word: f"-- {word}" for word in OF_TRAINING},
}
"""Command -> option of nnU-Net's own commands -> what is typed for it."""
STOPPED: Mapping[Any, str] = {EXIT_SIGINT: "interrupted", EXIT_SIGTERM: "terminated"}
"""What is said of a signal where the work that it stops has told nothing itself."""
GROUP = "gansynth.commands"
"""Entry points of packages with commands of their own: each is a table, command -> (``MODULE:NAME``
of a ``click.Command``, a line)."""

EPILOG = """\b
Examples:
  gansynth demo -o runs/demo
  gansynth fit cgan3d --data nnunet:004 --configuration 3d_fullres -o runs/g0

\b
Exit codes:
    0  ok
    1  a bug in gansynth; run it again with --debug and report it
    2  usage: a wrong option, setting or combination
    3  data: a file that is missing, broken or mislabelled
    4  environment: disk, memory, device, lock, missing package
    5  training: NaN losses, collapse, samples that could not be delivered
    6  integrity: leakage between training and held-out cases, a damaged file
  129  hung up: its terminal was closed (SIGHUP)
  130  interrupted (Ctrl-C)
  141  the reader of the output has left, as head does
  143  terminated (SIGTERM)
"""


@functools.cache
def registered() -> dict[str, tuple[str, str]]:
    """Return the commands of other packages by name; a table that fails is left out, and told."""
    found: dict[str, tuple[str, str]] = {}
    for point in entry_points(group=GROUP):
        try:
            table = point.load()
            found |= {str(name): (str(where), str(line)) for name, (where, line) in table.items()}
        except Exception as error:  # any exception of plugin code becomes one line here
            write_stderr(f"warning: the commands of {point.value!r} are left out: {error!r}")
    return dict(sorted(found.items()))


def commands() -> dict[str, tuple[str, str]]:
    """Return command -> (``MODULE:NAME``, a line), in the order of the help.

    Gansynth's own keep their names.
    """
    first = {name: (_own(place), line) for name, (place, line) in COMMANDS.items()}
    last = {name: (_own(place), line) for name, (place, line) in AIDS.items()}
    own = first | last
    others = {name: found for name, found in registered().items() if name not in own}
    return first | others | last


def _own(place: str) -> str:
    module, _, name = place.partition(":")
    return f"gansynth_cli.commands.{module}:{name or 'command'}"


class Gansynth(click.Group):
    """A group that imports the module of a command when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every command."""
        return list(commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command's module."""
        place, _ = commands().get(cmd_name, ("", ""))
        module, _, name = place.partition(":")
        return getattr(importlib.import_module(module), name) if place else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command as click does; an unknown one gets a suggestion."""
        if args and args[0] not in commands() and not args[0].startswith("-"):
            refuse_absent("command", args[0])
            hint = did_you_mean(args[0], commands())
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the tables, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in commands().items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit with the documented code. Without ``standalone_mode``, raise instead."""
        typed = list(sys.argv[1:] if args is None else args)

        def run() -> Any:
            raise_on_sigint()
            interrupt_outside_forks()
            try:
                return super(Gansynth, self).main(
                    typed, prog_name or "gansynth", complete_var, standalone_mode=False, **extra
                )
            except click.MissingParameter as error:
                raise _with_data(error, typed) from None
            except click.NoSuchOption as error:
                raise _as_called_here(error, typed) from None

        if not standalone_mode:
            return run()
        sys.exit(exit_code_of(run, debug="--debug" in _before_dashes(typed)))


def _with_data(error: click.MissingParameter, typed: Sequence[str]) -> click.MissingParameter:
    """Return the error, which names a data set that was typed without ``--data``."""
    from gansynth.core.registry import installed

    if error.param is None or "--data" not in error.param.opts:
        return error
    for word in _before_dashes(typed):
        kind, colon, _ = word.partition(":")
        if colon and kind in installed().names("sources"):
            hint = f"Did you mean --data {word}?"
            return click.MissingParameter(hint, ctx=error.ctx, param=error.param)
    return error


def _as_called_here(error: click.NoSuchOption, typed: Sequence[str]) -> click.NoSuchOption:
    """Return the error, which answers an option of nnU-Net's own commands with ours."""
    known = {} if error.ctx is None else OF_NNUNET.get(str(error.ctx.info_name), {})
    for word in _before_dashes(typed):
        if word in known and word.startswith(error.option_name):  # of -tr click tells -t
            text = f"No such option {word!r}: nnU-Net's {word} is {known[word]} here."
            return click.NoSuchOption(word, text, ctx=error.ctx)
    return error


def exit_code_of(run: Callable[[], Any], *, debug: bool = False) -> int:
    """Run a command and return its exit code; an error is one line on stderr."""
    try:
        code = run()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except SystemExit as stop:
        if stop.code == EXIT_BUG and nobody_reads(1):  # click makes no difference
            return EXIT_SIGPIPE
        raise
    except (click.Abort, KeyboardInterrupt):
        return _report(STOPPED[EXIT_SIGINT], EXIT_SIGINT, debug)
    except click.exceptions.NoArgsIsHelpError as group:  # typed without a command
        click.echo(group.format_message())
        return EXIT_OK
    except click.ClickException as error:
        return _report(f"error: {_usage_line(error)}", UsageFault.exit_code, debug)
    except GansynthError as error:
        return _report(f"error: {error.line}", error.exit_code, debug)
    except Exception as error:
        fault = _environment(error) or _of_plugin(error)
        if fault is not None:
            return _report(f"error: {fault.line}", fault.exit_code, debug)
        text = f"bug: {type(error).__name__}: {_one_line(error.args)}"
        return _report(f"{text} (rerun with --debug and report it)", EXIT_BUG, debug)


def _report(text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc(file=sys.stderr)
    write_stderr(from_here(text))
    return code


def _one_line(parts: Sequence[object]) -> str:
    return brief(" ".join(" ".join(map(str, parts)).split())) or "no message"


def _usage_line(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = "gansynth" if context is None else context.command_path
    text = _one_line([error.format_message()])
    if isinstance(error, click.NoSuchOption) and context is not None:
        value = error.option_name.lstrip("-")  # --quick for --preset quick
        for option in context.command.params:
            if value in getattr(option.type, "choices", ()):
                text = f"No such option '--{value}'. Did you mean '{option.opts[0]} {value}'?"
    return f"{text}{'' if text.endswith(('.', '?')) else '.'} See: {path} --help"


def _environment(error: Exception) -> EnvironmentFault | None:
    """Return the fault behind an uncaught error of disk, names or memory; None for a bug."""
    fault = disk_fault(error) if isinstance(error, OSError) else None
    if fault is not None:
        return fault
    # torch.OutOfMemoryError, recognised by name: torch may not be imported here. On the CPU torch
    # raises a RuntimeError, and a system call an OSError.
    no_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if no_memory or "allocate memory" in str(error):
        return EnvironmentFault(
            "command.out-of-memory",
            "out of memory; take a smaller batch or size, or another --device",
        )
    return None


def _of_plugin(error: Exception) -> GansynthError | None:
    """Return the fault of a plugin's code; None for a bug of ours."""
    from gansynth.core.registry import installed

    return installed().fault_of(error)


def _before_dashes(args: Sequence[str]) -> Sequence[str]:
    return args[: args.index("--")] if "--" in args else args


def _with_hyphens(word: str) -> str:
    """Return the name of an option as it is listed: in Python and YAML it has underscores."""
    return word.replace("_", "-")


@click.group(
    "gansynth",
    cls=Gansynth,
    epilog=EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "token_normalize_func": _with_hyphens,
    },
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def cli() -> None:
    """GAN samples from one training fold, fed on the fly into the framework you already use."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into Interrupted, so that ``finally`` blocks run and child processes end.

    Schedulers signal a process more than once; the second signal must not end these blocks.
    SIGHUP acts as SIGTERM does: a training whose terminal is closed writes its checkpoint, too.
    One that is ignored, as under nohup, stays so.
    """
    stopping = hung_up = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            raise Interrupted(number)

    def hang_up(number: int, frame: FrameType | None) -> None:
        nonlocal hung_up
        hung_up = True
        send_self(signal.SIGTERM)

    restore = on_sigterm(stop)
    if HUNG_UP is not None and signal.getsignal(HUNG_UP) == signal.SIG_DFL:
        signal.signal(HUNG_UP, hang_up)
    try:
        yield
    except Interrupted as end:
        hung_up = hung_up and end.number == signal.SIGTERM
        if not end.told:
            write_stderr("hung up" if hung_up else STOPPED.get(end.code, "stopped"))
        if hung_up:
            raise SystemExit(EXIT_SIGHUP) from None
        raise
    finally:
        if not stopping:
            restore()


def main() -> NoReturn:
    """Run the command that is typed, and exit."""
    if sys.stderr is None:  # closed: its place is taken, so that no file gets the messages
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.set_inheritable(2, True)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")
    with _terminable():
        cli()
    raise AssertionError("unreachable: cli() exits")
