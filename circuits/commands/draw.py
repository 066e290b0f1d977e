"""`python -m circuits draw`: the diagram of a TARGET as a picture, in the terminal or as a file."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.algebra import LinearMap
from circuits.commands.diagrams import SettingsArgument, TargetArgument, request_of
from circuits.commands.reports import UsageError, reported
from circuits.cost import CostColumn, count
from circuits.diagram import Diagram, terminal_width
from circuits.drawing import Drawing
from circuits.drawing import draw as drawing_of
from circuits.errors import CircuitError


class Wires(StrEnum):
    """What a line of a picture is."""

    axes = "axes"
    tensors = "tensors"


class Theme(StrEnum):
    """The colours of a picture."""

    light = "light"
    dark = "dark"
    print = "print"


Width = Annotated[str | None, typer.Option(metavar="PIXELS", help="Where rows break: pixels, 'column' or 'page'.")]
File = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write .svg, .tex, .pdf or .png.")]


def draw(
    target: TargetArgument,
    settings: SettingsArgument = None,
    order: Annotated[str, typer.Option(help="Axes from top to bottom in every tensor: 'y x m k h b'.")] = "",
    depth: Annotated[int | None, typer.Option(min=0, help="How many levels of nested boxes are open.")] = None,
    opened: Annotated[str, typer.Option("--open", help="Boxes that are open at any depth: 'Block attention'.")] = "",
    closed: Annotated[str, typer.Option("--close", help="Boxes that are closed at any depth.")] = "",
    wires: Annotated[Wires, typer.Option(help="One wire for each axis, or one for each tensor.")] = Wires.axes,
    pairs: Annotated[str, typer.Option(help="Two axes as one double wire: 'h w', or with a label 'x = h w'.")] = "",
    hide: Annotated[str, typer.Option(help="Axes that are left out: 'b'.")] = "",
    names: Annotated[str, typer.Option(help="Names that stand at inputs: 'query = Q, key = K'.")] = "",
    notes: Annotated[str, typer.Option(help="A quantity of count at each box: 'flops', 'parameters', 'peak'.")] = "",
    show_sizes: Annotated[bool, typer.Option("--show-sizes", help="Sizes beside the names of axes.")] = False,
    literal: Annotated[bool, typer.Option("--literal", help="Every rearrange as a column of its own.")] = False,
    width: Width = None,
    theme: Annotated[Theme, typer.Option(help="The colours.")] = Theme.light,
    equation: Annotated[bool, typer.Option("--equation", help="The closed box = its inside.")] = False,
    frame: Annotated[bool, typer.Option("--frame/--no-frame", help="The outermost fence and its title.")] = True,
    scale: Annotated[float, typer.Option(help="Pixels of a PNG for each unit; how much larger other files are.")] = 1.0,
    out: File = None,
) -> None:
    """Draw a model in the notation of neural circuit diagrams: as text, or with -o as a file.

    Sizes of axes that are not given stay symbolic.
    """
    options: dict[str, Any] = dict(locals())
    for name in ("target", "settings", "scale", "out", "notes"):
        del options[name]
    options |= {"open": options.pop("opened"), "close": options.pop("closed"), "width": _width(width)}
    with reported():
        subject = subject_of(target, settings or ())
        drawing = drawing_of(subject, notes=_column(subject, notes), **options)
        if out is None:
            typer.echo(printable(drawing))
        else:
            _save(drawing, out, scale)


def subject_of(target: str, settings: Sequence[str]) -> Diagram | LinearMap:
    """Return what is drawn: a diagram, or a LinearMap itself, whose tensors are drawn as letters."""
    request = request_of(target, settings)
    return request.function if isinstance(request.function, LinearMap) else request.diagram()


def _column(subject: Diagram | LinearMap, name: str) -> CostColumn | None:
    """Return the quantity that is written at each box, if one is asked for."""
    if not name:
        return None
    if isinstance(subject, LinearMap):
        raise UsageError("--notes are for boxes, which the network of a LinearMap does not have")
    return count(subject).column(name)


def printable(drawing: Drawing) -> str:
    """Return a drawing as text as wide as the terminal, in ASCII if the standard output can encode nothing else."""
    text = drawing.text(terminal_width())
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return drawing.text(terminal_width(), "ascii")
    return text


def _save(drawing: Drawing, path: Path, scale: float) -> None:
    """Write a drawing to a file and say so."""
    try:
        drawing.save(path, scale)
    except OSError as error:
        raise CircuitError(f"{path} cannot be written: {error.strerror or error}") from error
    typer.echo(f"wrote {path}")


def _width(text: str | None) -> int | str | None:
    """Return the width as `draw` takes it."""
    return int(text) if text is not None and text.isdecimal() else text


__all__ = ["draw", "printable", "subject_of"]
