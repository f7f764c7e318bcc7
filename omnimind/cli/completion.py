"""`omnimind completion`: the script that makes a shell complete commands and live ids."""

from __future__ import annotations

import sys

import click

from omnimind.cli.output import say

PLACES = {
    "bash": 'eval "$(omnimind completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(omnimind completion zsh)"   # in ~/.zshrc, after compinit',
    "fish": "omnimind completion fish > ~/.config/fish/completions/omnimind.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(PLACES)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
        eval "$(omnimind completion bash)"
    """  # noqa: D301 - click wants the backspace itself
    from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete  # noqa: PLC0415

    scripts: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    click.echo(
        scripts[shell](ctx.find_root().command, {}, "omnimind", "_OMNIMIND_COMPLETE").source(), nl=False
    )
    if sys.stdout.isatty():
        say(f"to turn it on: {PLACES[shell]}")
