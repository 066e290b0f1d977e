"""How a command ends: a mistake is one message on the standard error, and the status of the process is 1 or 2."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from circuits.errors import CircuitError

WIDTH = 120
"""The number of columns where the standard output is no terminal."""


class UsageError(CircuitError):
    """The words of a command line are wrong: no such target, no such key, a value that is none."""


@contextmanager
def reported() -> Iterator[None]:
    """Print a CircuitError, and end the process with 2 if the command line is wrong, otherwise with 1."""
    try:
        yield
    except CircuitError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None


def terminal_width() -> int:
    """The number of columns of the terminal."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH


__all__ = ["UsageError", "reported", "terminal_width"]
