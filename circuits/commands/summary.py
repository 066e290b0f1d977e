"""`python -m circuits summary`: the diagram of a TARGET as a table, or as Markdown or JSON."""

import json
from typing import Annotated

import typer

from circuits.commands.diagrams import SettingsArgument, TargetArgument, diagram_of
from circuits.commands.reports import UsageError, reported
from circuits.diagram import Depth, Diagram, Width, is_printable


def summary(
    target: TargetArgument,
    settings: SettingsArgument = None,
    depth: Annotated[int | None, typer.Option(min=0, help="How many levels of boxes are shown.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All levels; without --depth, as many as fit a screen.")] = False,
    columns: Annotated[
        str, typer.Option(help="'axes sizes parameters dtype device arguments memory where'; the first three if empty.")
    ] = "",
    sort: Annotated[str, typer.Option(help="The column by which rows are sorted, the largest number first.")] = "",
    width: Annotated[int | None, typer.Option(min=20, help="The number of columns; else the terminal's.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The whole diagram as JSON.")] = False,
) -> None:
    """Print a model as a table: axes, sizes, parameters, and totals.

    Sizes of axes that are not given stay symbolic.
    """
    with reported():
        if every and depth is not None:
            raise UsageError("give --depth or --all, not both")
        levels: Depth = None if every else "auto" if depth is None else depth
        diagram = diagram_of(target, settings or ())
        if as_json:
            typer.echo(json.dumps(diagram.to_dict(), indent=1))
        elif markdown:
            typer.echo(diagram.to_markdown(levels, columns or None, sort or None), nl=False)
        else:
            typer.echo(_table(diagram, levels, columns, sort, "auto" if width is None else width))


def _table(diagram: Diagram, depth: Depth, columns: str, sort: str, width: Width) -> str:
    """Return the table, in ASCII if the standard output can encode nothing else."""
    text = diagram.table(depth, columns or None, sort or None, width)
    return text if is_printable(text) else diagram.table(depth, columns or None, sort or None, width, ascii=True)


__all__ = ["summary"]
