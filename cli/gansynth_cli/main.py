"""The ``gansynth`` command: finds the typed command's module, and turns errors into exit codes.

Nothing heavy is imported here: ``gansynth --help`` needs click and this file only.
"""

from __future__ import annotations

import errno
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from gansynth.runtime.errors import (
    DROPPED,
    EXIT_BUG,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    EnvironmentFault,
    GansynthError,
    UsageFault,
    did_you_mean,
)
from gansynth.runtime.signals import on_sigterm
from gansynth.runtime.version import __version__

COMMANDS = {
    "demo": ("demo", "Run the whole way on phantoms: no data and no GPU needed."),
    "import": ("import_", "Copy a data set into a host framework's own layout, with folds."),
    "check": ("check", "Say what is wrong with a data set, file by file."),
    "splits": ("splits", "Write a host's folds so that no subject is on both sides."),
    "prepare": ("prepare", "Plan and preprocess a data set with its host framework."),
    "cache": ("cache", "Copy the cases of any source into one HDF5 file that is fast to read."),
    "fit": ("fit", "Fit a generator on the training cases of one fold."),
    "failures": ("failures", "Find what a host gets wrong, by inner folds of the training cases."),
    "sample": ("sample", "Draw labelled samples from a run."),
    "show": ("show", "Print where everything of a run is, and how far it has come."),
    "turing-test": ("turing_test", "Have people tell real images from samples, on a local page."),
    "evaluate": ("evaluate", "Say how good samples are, and what they give away."),
    "augment": ("augment", "Train a host framework with samples mixed in at a ratio."),
    "benchmark": ("benchmark", "Say whether it helps, by how much, and how sure that is."),
    "tune": ("tune", "Choose generator, ratio and schedule by inner folds; maybe none."),
    "papers": ("papers", "Make a paper's table: its recipe, its arms, ours beside theirs."),
    "detections": (
        "detections",
        "Measure what detectors found, and compare them at equal false positives.",
    ),
    "plugins": ("plugins", "List and check what is installed, or start a plugin of your own."),
    "options": (
        "options",
        "Print what can be set of a generator, host, source, edit or filter.",
    ),
    "doctor": ("doctor", "Say what this machine has, and what is missing."),
}
"""Command -> (module below ``gansynth_cli.commands``, the line that ``gansynth --help`` shows)."""

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What a disk can say."""

EPILOG = """\b
Examples:
  gansynth demo -o runs/demo
  gansynth fit cgan3d --data nnunet:004 --configuration 3d_fullres -o runs/g0

\b
Exit codes:
    0  ok
    1  a bug of ours; run it again with --debug and report it
    2  usage: a wrong option, setting or combination
    3  data: a file that is missing, broken or mislabelled
    4  environment: disk, memory, device, lock, missing package
    5  training: NaN losses, collapse, samples that could not be delivered
    6  integrity: leakage between training and held-out cases, a damaged file
  130  interrupted (Ctrl-C)
  143  terminated (SIGTERM)
"""


class Gansynth(click.Group):
    """A group whose commands are imported one by one, when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command's module."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"gansynth_cli.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the name that was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS)
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and exit with the documented code; raise instead if not ``standalone_mode``."""
        typed = list(sys.argv[1:] if args is None else args)

        def run() -> Any:
            return super(Gansynth, self).main(
                typed, prog_name or "gansynth", complete_var, standalone_mode=False, **extra
            )

        if not standalone_mode:
            return run()
        sys.exit(exit_code_of(run, debug="--debug" in _before_dashes(typed)))


def exit_code_of(run: Callable[[], Any], *, debug: bool = False) -> int:
    """Run a command; report what it raised on stderr in one line, and return its exit code."""
    try:
        code = run()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return _report("interrupted", EXIT_SIGINT, debug)
    except click.ClickException as error:
        return _report(f"error: {_usage_line(error)}", UsageFault.exit_code, debug)
    except GansynthError as error:
        return _report(f"error: {_one_line(error.args)}", error.exit_code, debug)
    except Exception as error:
        reason = _environment(error)
        if reason is not None:
            return _report(f"error: {reason}", EnvironmentFault.exit_code, debug)
        text = f"bug: {type(error).__name__}: {_one_line(error.args)}"
        return _report(f"{text} (rerun with --debug and report it)", EXIT_BUG, debug)


def _report(text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc(file=sys.stderr)
    click.echo(text, err=True)
    return code


def _one_line(parts: Sequence[object]) -> str:
    return " ".join(" ".join(map(str, parts)).split()) or "no message"


def _usage_line(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = "gansynth" if context is None else context.command_path
    text = _one_line([error.format_message()])
    if isinstance(error, click.NoSuchOption) and error.option_name in DROPPED:
        text += f" It is gone: {DROPPED[error.option_name]}."
    return f"{text}{'' if text.endswith(('.', '?')) else '.'} See: {path} --help"


def _environment(error: Exception) -> str | None:
    """One line if the machine is to blame for what nobody closer to it caught; None for a bug."""
    if isinstance(error, OSError) and error.errno in DISK:
        return f"{_one_line([error])}; make room, or choose another folder"
    # torch.OutOfMemoryError, told by its name: torch may not be imported here.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; take a smaller batch or size, or another --device"
    return None


def _before_dashes(args: Sequence[str]) -> Sequence[str]:
    return args[: args.index("--")] if "--" in args else args


@click.group(
    "gansynth",
    cls=Gansynth,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def cli() -> None:
    """GAN samples from one training fold, fed on the fly into the framework you already use."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that ``finally`` blocks run and children are ended."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_SIGTERM)

    restore = on_sigterm(stop)
    try:
        yield
    finally:
        restore()


def main() -> NoReturn:
    """Entry point of the console script."""
    with _terminable():
        cli()
    raise AssertionError("unreachable: cli() exits")
