"""Measure the overhead of the library and the speed of its models: `python -m scripts.bench checks`, `tracking`,
`drawing`, `broadcast`, `models`, `backward`, `import`, `scale`; measure the rates of this machine: `machine`; compare
what `search_shardings` estimates with published runs: `published`.

All times but those of `import` and `scale` are of one process, on one thread by default. The variants run interleaved
in small blocks, so that other load slows all alike, and ratios are taken block by block. The tables show the median and
the quartiles.
"""

import json
import os
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from circuits import Machine
from scripts.benches import (
    backward,
    broadcasting,
    checks,
    drawing,
    imports,
    machine,
    models,
    published,
    scale,
    tracking,
)

app = typer.Typer(add_completion=False, help=__doc__)


@app.callback()
def set_threads(threads: Annotated[int, typer.Option(min=1, help="Number of threads that torch uses.")] = 1) -> None:
    """Measure the overhead of the library and the speed of its models."""
    torch.set_num_threads(threads)


def _console() -> Console:
    return Console(width=None if os.isatty(1) else 160)


@app.command("checks")
def _(
    blocks: Annotated[int, typer.Option(help="Number of blocks; each variant runs once in a block.")] = 300,
    calls: Annotated[int, typer.Option(help="Calls of a variant in each block.")] = 300,
) -> None:
    """The cost of a checked call, compared with hand-written asserts and other checkers."""
    checks.measure(_console(), blocks, calls)


@app.command("tracking")
def _(blocks: Annotated[int, typer.Option(help="Number of blocks; each variant runs once in a block.")] = 30) -> None:
    """The cost of `track` on a small vision transformer, compared with the forward pass and torchinfo's summary."""
    tracking.measure(_console(), blocks)


@app.command("drawing")
def _(
    blocks: Annotated[int, typer.Option(min=2, help="Number of blocks; each variant runs once in a block.")] = 5,
    largest: Annotated[int, typer.Option(min=300, help="The largest number of boxes.")] = 10_000,
) -> None:
    """The cost of `draw`, compared with `trace`, and against the number of boxes."""
    drawing.measure(_console(), blocks, largest)


@app.command("broadcast")
def _(
    seconds: Annotated[float, typer.Option(min=0, help="Approximate time for each size.")] = 5.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Attention broadcast over batch and heads, compared with einsum, torch.vmap, the fused operator and einx."""
    broadcasting.measure(_console(), seconds, torch.device(device))


@app.command("models")
def _(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Which of {', '.join(models.PAIRS)}; all by default.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="About how long each comparison may take.")] = 10.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    rates: Annotated[
        Path | None, typer.Option("--machine", help="A file of `machine -o` for lower bounds; else it is measured.")
    ] = None,
) -> None:
    """Time and memory of each model, compared with its reference implementation, and with lower bounds on the time."""
    where = torch.device(device)
    try:
        found = Machine.from_dict(json.loads(rates.read_text())) if rates else machine.measure(1024, 15, where)
        models.measure(_console(), names or [*models.PAIRS], seconds, where, found)
    except KeyError as error:
        raise typer.BadParameter(f"no model is named {error}; there are {', '.join(models.PAIRS)}") from None


@app.command("backward")
def _(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Which of {', '.join(backward.SUBJECTS)}; all by default.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="About how long each comparison may take.")] = 10.0,
    ways: Annotated[str, typer.Option(help="plain, compiled, or both with a comma.")] = "plain,compiled",
) -> None:
    """Time and memory of backward circuits, compared with autograd, with and without torch.compile."""
    try:
        backward.measure(_console(), names or [*backward.SUBJECTS], seconds, ways.split(","))
    except KeyError as error:
        raise typer.BadParameter(f"no circuit is named {error}; there are {', '.join(backward.SUBJECTS)}") from None


@app.command("import")
def _(processes: Annotated[int, typer.Option(min=2, help="Number of processes for each statement.")] = 20) -> None:
    """The time of `import circuits`, compared with `import torch`, in new processes."""
    imports.measure(_console(), processes)


@app.command("machine")
def _(
    size: Annotated[int, typer.Option(min=1, help="Rows and columns of the matrices that are multiplied.")] = 2048,
    blocks: Annotated[int, typer.Option(min=2, help="How often each rate is measured.")] = 15,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    output: Annotated[Path | None, typer.Option("-o", help="A file for the rates, as JSON.")] = None,
) -> None:
    """FLOPs and bytes in a second of this machine, as a `circuits.Machine`."""
    found = machine.measure(size, blocks, torch.device(device))
    _console().print(str(found), soft_wrap=True, highlight=False, markup=False)
    if output is not None:
        output.write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")


@app.command("published")
def _() -> None:
    """Published speed and memory of training Llama 3 on H100s, compared with what `search_shardings` estimates."""
    published.measure(_console())


@app.command("scale")
def _(
    processes: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 2,
    width: Annotated[int, typer.Option(min=64, help="Width of the model, a multiple of 32.")] = 512,
    x: Annotated[int, typer.Option(min=1, help="Length of the sequence on one process.")] = 256,
    layers: Annotated[int, typer.Option(min=1, help="Number of layers.")] = 2,
    blocks: Annotated[int, typer.Option(min=2, help="Number of blocks; each variant runs once in a block.")] = 15,
) -> None:
    """A training step of a sharded model on several processes beside torch's own plan, and the bytes that are sent."""
    scale.measure(_console(), processes, width, x, layers, blocks)


if __name__ == "__main__":
    app()
