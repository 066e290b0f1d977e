"""The typer application: every command by name."""

from collections.abc import Callable

import typer

from circuits.commands.count import count
from circuits.commands.draw import draw
from circuits.commands.summary import summary

COMMANDS: tuple[Callable[..., None], ...] = (summary, draw, count)
"""The functions of the commands, each called as its command."""

app: typer.Typer = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def describe() -> None:
    """Views of a circuit, an nn.Module or a function of tensors, without computing anything: it is only traced."""


for command in COMMANDS:
    app.command()(command)

__all__ = ["app"]
