"""`python -m circuits count`: what a TARGET costs, as a table of formulas in its free axes."""

import json
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from circuits.commands.diagrams import SettingsArgument, TargetArgument, diagram_of
from circuits.commands.reports import UsageError, reported
from circuits.commands.settings import parse_settings
from circuits.cost import count as cost_of
from circuits.cost import fit as fitting
from circuits.diagram import in_ascii


class Group(StrEnum):
    """By what boxes are added up."""

    circuit = "circuit"
    module = "module"
    function = "function"
    operation = "operation"
    path = "path"


class Form(StrEnum):
    """The form of the output."""

    text = "text"
    csv = "csv"
    latex = "latex"
    json = "json"


def count(
    target: TargetArgument,
    settings: SettingsArgument = None,
    backward: Annotated[bool, typer.Option("--backward", help="The reverse pass too.")] = False,
    recompute: Annotated[
        list[str] | None, typer.Option(help="What the reverse pass recomputes: 'softmax', 'y x'; repeatable.")
    ] = None,
    fit: Annotated[
        str, typer.Option(help="Recompute so that what is saved fits, at the fewest FLOPs: '2 GB'; sizes are numbers.")
    ] = "",
    at: Annotated[str, typer.Option(help="Sizes of free axes in the formulas: 'y=1 x=4096'.")] = "",
    by: Annotated[Group | None, typer.Option(help="Add up boxes.")] = None,
    sort: Annotated[str, typer.Option(help="Rows in order of a column: 'flops'.")] = "",
    columns: Annotated[str, typer.Option(help="Columns: 'flops parameters peak'.")] = "",
    depth: Annotated[int | None, typer.Option(min=0, help="How many levels of nested boxes are shown.")] = None,
    form: Annotated[Form, typer.Option(help="The form of the output.")] = Form.text,
) -> None:
    """Print what a model costs: multiply-adds, FLOPs, parameters, bytes, activations and peak memory.

    Sizes of axes that are not given stay symbolic, and costs are formulas in them.
    """
    with reported():
        diagram = diagram_of(target, settings or ())
        if fit and recompute:
            raise UsageError("--recompute says what is recomputed, and --fit chooses it: give one of the two")
        cost: Any = cost_of(diagram, backward=backward, recompute=fitting(fit) if fit else recompute or ())
        sizes = parse_settings(at.split())
        cost = cost.at(**sizes) if sizes else cost
        cost = cost.by(by.value) if by is not None else cost
        cost = cost.sort(sort) if sort else cost
        if form is not Form.text and ((columns and form is not Form.latex) or depth is not None):
            raise UsageError(f"--columns and --depth are for text, not for {form.value}")
        written = {
            Form.text: lambda: cost.table(columns, depth),
            Form.csv: lambda: cost.to_csv().rstrip("\n"),
            Form.latex: lambda: cost.to_latex(columns).rstrip("\n"),
            Form.json: lambda: json.dumps(cost.to_dict(), indent=2, ensure_ascii=False),
        }[form]()
        typer.echo(_printable(written))


def _printable(text: str) -> str:
    """Return text in ASCII if the standard output can encode nothing else."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return in_ascii(text)
    return text


__all__ = ["count"]
