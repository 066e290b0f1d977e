"""How a command ends: a mistake is one message on the standard error, and the status of the process is 1 or 2."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from circuits.errors import CircuitError


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


__all__ = ["UsageError", "reported"]
