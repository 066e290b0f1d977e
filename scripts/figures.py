"""Write the figures of the paper, drawn from our circuits: `python -m scripts.figures --only 21`.

Each figure is made of TARGETs, as `python -m circuits draw` takes them. The options with which a circuit is drawn are
in its file, as `FIGURES`.
"""

import importlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from circuits import CircuitError, Diagram, Drawing, LinearMap, draw
from circuits.commands.draw import subject_of
from circuits.drawing.joined import Sign, below, beside


@dataclass(frozen=True)
class Part:
    """A drawing in a figure.

    Attributes:
        target: A circuit or class of a file in `models`: `attention:MultiHeadAttention`.
        settings: Arguments of the class and sizes of axes, `m=128 k=16 h=4`.
        options: Options of `draw` in place of those in the file.
    """

    target: str
    settings: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def subject(self) -> Diagram | LinearMap:
        """What is drawn."""
        return subject_of(f"models.{self.target}", shlex.split(self.settings))

    def drawing(self) -> Drawing:
        """The drawing, with the options that the model's file has for it."""
        module, _, name = self.target.partition(":")
        known = getattr(importlib.import_module(f"models.{module}"), "FIGURES", {})
        return draw(self.subject(), **{**known.get(name, {}), **self.options})


EQUALS, DEFINES = Sign("="), Sign("=", "def")

Row = tuple[Part | Sign, ...]

FIGURES: Mapping[str, tuple[Row, ...]] = {
    "2.3": ((Part("basics:h", options={"wires": "tensors"}), EQUALS, Part("basics:h")),),
    "8": ((Part("basics:row"),),),
    "9": ((Part("basics:element"), EQUALS, Part("basics:element_of_row"), EQUALS, Part("basics:element_of_column")),),
    "10": (
        (Part("basics:G"), Sign("→", "× 4 broadcasting"), Part("basics:G_of_rows")),
        (Part("basics:apply_then_index"), DEFINES, Part("basics:index_then_apply")),
    ),
    "11": (
        (Part("basics:H"), Sign("→", "× 4 inner broadcasting"), Part("basics:H_of_rows", "c=4")),
        (Part("basics:apply_then_index_inner", "c=4"), DEFINES, Part("basics:index_then_apply_inner", "c=4")),
    ),
    "12": ((Part("basics:square"), Sign("→", "× 4 × 3 broadcasting"), Part("basics:square_of_elements")),),
    "17": ((Part("linearity:scores_in_steps"),), (Part("linearity:scores"),)),
    "18": (
        (
            Part("linearity:F_map"),
            Sign("↦", "associated transpose"),
            Part("linearity:F_transposed_by_broadcasting"),
            EQUALS,
            Part("linearity:F_transposed"),
        ),
        (Part("linearity:G_then_H"), EQUALS, Part("linearity:G_then_H_bent")),
        (EQUALS, Part("linearity:G_then_H_wide"), EQUALS, Part("linearity:G_then_H_shifted")),
        (Part("linearity:product_then_maps"), EQUALS, Part("linearity:maps_then_product")),
    ),
    "19": ((Part("mlp:MLP.probabilities"),),),
    "20": ((Part("scaled_dot_product:attention", options={"names": "query = Q, key = K, value = V"}),),),
    "21": ((Part("attention:MultiHeadAttention", "m=128 k=16 h=4"),),),
    "26": ((Part("resnet:IdentityResNet.probabilities", "bias=True"),),),
    "26 block": ((Part("resnet:Block", "s=2 N=3 n0=64 n1=128 bias=True 'axes=b 64 2*h 2*w'"),),),
    "27": ((Part("unet:UNet.as_drawn"),),),
    "28": ((Part("visual_attention:VisualAttention", "c=33 k=8"),),),
}
"""The rows of each figure, and of the diagram of section 2.3."""


def figure(name: str) -> Drawing:
    """The drawing of a figure."""
    rows = FIGURES[name]
    if len(rows) == 1 and len(rows[0]) == 1 and isinstance(rows[0][0], Part):
        return rows[0][0].drawing()
    pictures = [beside([each if isinstance(each, Sign) else each.drawing().picture for each in row]) for row in rows]
    return Drawing(below(pictures))


def file_name(name: str) -> str:
    """The name of a figure's files, without suffix.

    >>> file_name("26 block"), file_name("2.3")
    ('figure_26_block', 'section_2.3')
    """
    return f"{'section' if '.' in name else 'figure'}_{name.replace(' ', '_')}"


def written(names: Sequence[str], suffixes: Sequence[str], folder: Path, *, check: bool) -> list[str]:
    """Write figures, or compare them with the files that are there; return the files that differ from before."""
    found = []
    with TemporaryDirectory() as scratch:
        for name in names:
            drawing = figure(name)
            for suffix in suffixes:
                new = Path(scratch) / f"{file_name(name)}.{suffix}"
                drawing.save(new)
                path = folder / new.name
                if not path.is_file() or path.read_bytes() != new.read_bytes():
                    found.append(path.name)
                    if not check:
                        drawing.save(path)
    return found


def main(
    out: Annotated[Path, typer.Option(help="The folder.")] = Path("runs/figures"),
    only: Annotated[list[str] | None, typer.Option(help=f"A figure: {', '.join(FIGURES)}; all by default.")] = None,
    suffix: Annotated[list[str] | None, typer.Option(help="svg, tex, png or pdf; svg and tex by default.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing, and fail if a file would change.")] = False,
) -> None:
    """Write the figures of the paper as drawings of our circuits."""
    names = [each for each in FIGURES if not only or each in only or each.split()[0] in only]
    unknown = [each for each in only or () if each not in {*FIGURES, *[name.split()[0] for name in FIGURES]}]
    if unknown:
        raise typer.BadParameter(f"there is no figure {', '.join(unknown)}: there are {', '.join(FIGURES)}")
    try:
        if not check:
            out.mkdir(parents=True, exist_ok=True)
        different = written(names, [each.lstrip(".") for each in suffix or ("svg", "tex")], out, check=check)
    except (CircuitError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    if check and different:
        typer.echo(f"error: these files in {out} would change: {', '.join(different)}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{len(names)} figures in {out}{'' if check else f', {len(different)} files changed'}")


if __name__ == "__main__":
    typer.run(main)
