"""`python -m circuits count`: what a TARGET costs, as a table of formulas in its free axes."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.commands.diagrams import SettingsArgument, TargetArgument, diagram_of
from circuits.commands.reports import UsageError, reported
from circuits.commands.settings import parse_settings
from circuits.cost import MACHINES, Cost, Machine
from circuits.cost import count as cost_of
from circuits.cost import fit as fitting
from circuits.diagram import Depth, Width, in_ascii, is_printable


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
    on: Annotated[
        str, typer.Option(help=f"Lower bounds on the time on a machine: one of {', '.join(MACHINES)}, or a JSON file.")
    ] = "",
    columns: Annotated[str, typer.Option(help="Columns: 'flops parameters peak'.")] = "",
    depth: Annotated[int | None, typer.Option(min=0, help="How many levels of boxes are shown.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All levels; without --depth, as many as fit a screen.")] = False,
    width: Annotated[int | None, typer.Option(min=20, help="The number of columns; else the terminal's.")] = None,
    form: Annotated[Form, typer.Option(help="The form of the output.")] = Form.text,
) -> None:
    """Print what a model costs: multiply-adds, FLOPs, parameters, bytes, activations and peak memory.

    Sizes of axes that are not given stay symbolic, and costs are formulas in them.
    """
    with reported():
        diagram = diagram_of(target, settings or ())
        if fit and recompute:
            raise UsageError("--recompute says what is recomputed, and --fit chooses it: give one of the two")
        cost = cost_of(diagram, backward=backward, recompute=fitting(fit) if fit else recompute or ())
        cost = _arranged(cost, at, by, sort)
        if every and depth is not None:
            raise UsageError("give --depth or --all, not both")
        of_text = every or depth is not None or width is not None
        if form is not Form.text and ((columns and form is not Form.latex) or of_text):
            raise UsageError(f"--columns, --depth, --all and --width are for text, not for {form.value}")
        levels: Depth = None if every else "auto" if depth is None else depth
        wide: Width = "auto" if width is None else width
        written = _bounds(cost, on, columns, depth, form) if on else _costs(cost, columns, levels, wide, form)
        typer.echo(written if is_printable(written) else in_ascii(written))


def _arranged(cost: Cost, at: str, by: Group | None, sort: str) -> Cost:
    """Return a cost at sizes, in groups, in an order."""
    sizes = parse_settings(at.split())
    cost = cost.at(**sizes) if sizes else cost
    cost = cost.by(by.value) if by is not None else cost
    return cost.sort(sort) if sort else cost


def _costs(cost: Cost, columns: str, depth: Depth, width: Width, form: Form) -> str:
    """Return a cost in a form."""
    return {
        Form.text: lambda: _table(cost, columns, depth, width),
        Form.csv: lambda: cost.to_csv().rstrip("\n"),
        Form.latex: lambda: cost.to_latex(columns).rstrip("\n"),
        Form.json: lambda: json.dumps(cost.to_dict(), indent=2, ensure_ascii=False),
    }[form]()


def _bounds(cost: Cost, on: str, columns: str, depth: int | None, form: Form) -> str:
    """Return the lower bounds on times in a form."""
    if columns or form not in (Form.text, Form.json):
        raise UsageError("--on is a table of its own, as text or json, without --columns")
    bound = cost.on(_machine(on))
    return bound.table(depth) if form is Form.text else json.dumps(bound.to_dict(), indent=2, ensure_ascii=False)


def _machine(on: str) -> Machine | str:
    """Return the machine of a file that `Machine.to_dict` describes, or else the name."""
    path = Path(on)
    if path.suffix != ".json":
        return on
    try:
        return Machine.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"--on: {on} is no file of a machine: {error!r}") from None


def _table(cost: Cost, columns: str, depth: Depth, width: Width) -> str:
    """Return the table, in ASCII if the standard output can encode nothing else."""
    text = cost.table(columns, depth, width)
    return text if is_printable(text) else cost.table(columns, depth, width, ascii=True)


__all__ = ["count"]
