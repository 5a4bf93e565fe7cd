"""``gansynth completion``: let a shell complete commands, options, names and keys."""

from __future__ import annotations

import click

from gansynth_cli.common import examples

SHELLS = ("bash", "zsh", "fish")


@click.command(epilog=examples("gansynth completion bash", "gansynth completion fish"))
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that lets a shell complete gansynth.

    Put eval "$(gansynth completion bash)" into ~/.bashrc, the same with zsh into ~/.zshrc, or
    gansynth completion fish | source into config.fish.
    """
    from click.shell_completion import get_completion_class

    from gansynth_cli.main import cli

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(cli, {}, "gansynth", "_GANSYNTH_COMPLETE").source())
