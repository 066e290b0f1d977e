"""Measure what the library costs, and how fast its models are: `python -m scripts.bench checks`, `tracking`,
`broadcast`, `models`.

Times are of one process, on one thread unless told; what is compared is run in turn, in small blocks, so that a busy
machine slows all alike, and ratios are taken block by block. Shown are the median and the quartiles.
"""

import os
from typing import Annotated

import torch
import typer
from rich.console import Console

from scripts.benches import backward, broadcasting, checks, models, tracking

app = typer.Typer(add_completion=False, help=__doc__)


@app.callback()
def settle(threads: Annotated[int, typer.Option(min=1, help="How many threads torch computes with.")] = 1) -> None:
    """Measure what the library costs, and how fast its models are."""
    torch.set_num_threads(threads)


def _console() -> Console:
    return Console(width=None if os.isatty(1) else 160)


@app.command("checks")
def _(
    blocks: Annotated[int, typer.Option(help="How often every variant has its turn.")] = 300,
    calls: Annotated[int, typer.Option(help="How many calls make a turn.")] = 300,
) -> None:
    """What a checked call costs beside asserts by hand and other checkers."""
    checks.measure(_console(), blocks, calls)


@app.command("tracking")
def _(blocks: Annotated[int, typer.Option(help="How often every variant has its turn.")] = 30) -> None:
    """What `track` costs on a small vision transformer, beside the forward pass alone and torchinfo's summary."""
    tracking.measure(_console(), blocks)


@app.command("broadcast")
def _(
    seconds: Annotated[float, typer.Option(min=0, help="About how long each size may take.")] = 5.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Attention lifted over batch and heads, beside einsum, torch.vmap, the fused operator by hand, and einx."""
    broadcasting.measure(_console(), seconds, torch.device(device))


@app.command("models")
def _(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Which of {', '.join(models.PAIRS)}; all unless told.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="About how long each comparison may take.")] = 10.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """How fast each model is beside the implementation it replaces, and how much memory both take."""
    try:
        models.measure(_console(), names or [*models.PAIRS], seconds, torch.device(device))
    except KeyError as error:
        raise typer.BadParameter(f"no model is named {error}; there are {', '.join(models.PAIRS)}") from None


@app.command("backward")
def _(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Which of {', '.join(backward.SUBJECTS)}; all unless told.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="About how long each comparison may take.")] = 10.0,
    ways: Annotated[str, typer.Option(help="plain, compiled, or both with a comma.")] = "plain,compiled",
) -> None:
    """How fast backward circuits are beside autograd, compiled by inductor and not, and how much memory both take."""
    try:
        backward.measure(_console(), names or [*backward.SUBJECTS], seconds, ways.split(","))
    except KeyError as error:
        raise typer.BadParameter(f"no circuit is named {error}; there are {', '.join(backward.SUBJECTS)}") from None


if __name__ == "__main__":
    app()
