"""The cost of `draw`: time compared with the `trace` that it draws, and time and size against the number of boxes."""

import itertools
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from circuits import Diagram, draw, trace
from models.language_model import LanguageModel
from models.mlp import MLP
from models.resnet import IdentityResNet
from models.transformer import EncoderLayer, Transformer
from models.unet import UNet
from models.visual_attention import VisualAttention
from scripts.benches.timing import Spread, interleaved
from scripts.benches.tracking import SmallTransformer

# Against the trace ----------------------------------------------------------------------------------------------------


class Subject(NamedTuple):
    """A model, and the axes of its inputs if it has no signature."""

    model: Any
    axes: str | None = None


def subjects() -> dict[str, Subject]:
    """The models whose drawings are timed."""
    layer: Any = {"m": 64, "k": 16, "h": 4, "f": 128}
    return {
        "MLP": Subject(MLP()),
        "IdentityResNet": Subject(IdentityResNet()),
        "UNet": Subject(UNet(channels=8)),
        "VisualAttention": Subject(VisualAttention(c=8, k=4, heads=2)),
        "Transformer": Subject(Transformer(**layer)),
        "LanguageModel": Subject(LanguageModel(vocabulary=100, **layer, depth=6)),
        "a vision transformer in plain torch": Subject(SmallTransformer(), "b 3 32 32"),
        "96 equal layers": Subject(nn.Sequential(*[EncoderLayer(**layer) for _ in range(96)]), "x 64"),
    }


def drawn(diagram: Diagram, **options: Any) -> str:
    """The SVG of a diagram: scene, layout and ink."""
    return draw(diagram, **options).svg


def against_trace(console: Console, blocks: int) -> None:
    """Print the time of a drawing, at automatic depth and with all boxes open, compared with that of the trace."""
    table = Table(title="draw, compared with the trace that it draws")
    for column in ("model", "boxes shown", "trace, ms", "draw, ms", "times the trace", "all open, times the trace"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, (model, axes) in subjects().items():
        diagram = trace(model, axes=axes)
        calls: Mapping[str, Callable[[], object]] = {
            "trace": partial(trace, model, axes=axes),
            "draw": partial(drawn, diagram),
            "open": partial(drawn, diagram, depth=100),
        }
        interleaved(calls, 1, 1)
        times = interleaved(calls, blocks, 1)
        ratios = {
            each: Spread.of([mine / plain for mine, plain in zip(times[each], times["trace"], strict=True)])
            for each in ("draw", "open")
        }
        milliseconds = {each: Spread.of([1e3 * time for time in times[each]]).show() for each in ("trace", "draw")}
        shown = f"{boxes_shown(drawn(diagram))}, all open {boxes_shown(drawn(diagram, depth=100))}"
        table.add_row(
            name, shown, milliseconds["trace"], milliseconds["draw"], ratios["draw"].show("×"), ratios["open"].show("×")
        )
    console.print(table)


# Against the number of boxes ------------------------------------------------------------------------------------------

FUNCTIONS: Sequence[Callable[[Tensor], Tensor]] = (torch.tanh, torch.sigmoid, torch.relu)


def square_free(length: int) -> list[int]:
    """A word of 0, 1 and 2 in which nothing is repeated directly, so that no part of a chain is drawn once in brackets.

    Source: A. Thue 1912: the differences of the Thue-Morse word.

    >>> square_free(8)
    [1, 0, 2, 1, 2, 0, 1, 0]
    """
    bits = [number.bit_count() % 2 for number in range(length + 1)]
    return [(after - before) % 3 for before, after in itertools.pairwise(bits)]


def chain(count: int) -> Callable[[Tensor], Tensor]:
    """A function of that many operations, one after the other."""

    def run(x: Tensor) -> Tensor:
        for number in square_free(count):
            x = FUNCTIONS[number](x)
        return x

    return run


def residual_chain(count: int) -> Callable[[Tensor], Tensor]:
    """A function of that many operations, half of them additions of an operation to its input."""

    def run(x: Tensor) -> Tensor:
        for number in square_free(count // 2):
            x = x + FUNCTIONS[number](x)
        return x

    return run


class Nested(nn.Module):
    """Ten blocks in a block, and so on, down to single operations."""

    def __init__(self, word: Sequence[int]) -> None:
        super().__init__()
        self.word = word if len(word) <= 10 else []
        part = math.ceil(len(word) / 10)
        self.blocks = nn.ModuleList(
            [] if self.word else [Nested(word[at : at + part]) for at in range(0, len(word), part)]
        )

    def forward(self, x: Tensor) -> Tensor:
        for number in self.word:
            x = FUNCTIONS[number](x)
        for block in self.blocks:
            x = block(x)
        return x


KINDS: Mapping[str, Callable[[int], Any]] = {
    "a chain": chain,
    "nested blocks": lambda count: Nested(square_free(count)),
    "a residual chain": residual_chain,
}
"""What is drawn with more and more boxes."""


def boxes_shown(svg: str) -> int:
    """The number of boxes in a drawing, open and closed: of different `data-box` attributes."""
    return len({*re.findall(r' data-box="([^"]+)"', svg)})


def slope(counts: Sequence[float], values: Sequence[float]) -> float:
    """The slope of the line through the logarithms of both, by least squares: 1 for linear growth.

    >>> slope([10, 100, 1000], [3, 30, 300])
    1.0
    """
    x, y = [math.log(each) for each in counts], [math.log(each) for each in values]
    return round(statistics.linear_regression(x, y).slope, 10)


def growth(console: Console, blocks: int, largest: int) -> None:
    """Print time and size of drawings of more and more boxes, and how fast they grow.

    The numbers of boxes are timed in turn, and a slope is that of one block.
    """
    counts = [count for count in (100, 300, 1000, 3000, 10000) if count <= largest]
    table = Table(title="draw, with all boxes open")
    for column in ("what", "boxes shown", "milliseconds", "microseconds a box", "SVG, kB", "bytes a box"):
        table.add_column(column, justify="left" if column == "what" else "right")
    lines = []
    for kind, make in KINDS.items():
        calls = {f"{count}": partial(drawn, trace(make(count), axes="b m"), depth=100) for count in counts}
        texts = {count: call() for count, call in calls.items()}
        shown = [boxes_shown(text) for text in texts.values()]
        sizes = [len(text.encode()) for text in texts.values()]
        times = interleaved(calls, blocks, 1)
        for boxes, size, seconds in zip(shown, sizes, times.values(), strict=True):
            spread = Spread.of([1e3 * time for time in seconds])
            each = f"{1e3 * spread.middle / boxes:.0f}"
            table.add_row(kind, f"{boxes:,}", spread.show(), each, f"{size / 1e3:.0f}", f"{size / boxes:.0f}")
        slopes = Spread.of([slope(shown, block) for block in zip(*times.values(), strict=True)])
        lines.append(f"{kind}: time {slopes.show()}, size {slope(shown, sizes):.2f}")
    console.print(table)
    console.print("\n".join(["slopes of the logarithms against that of the boxes shown (1 is linear):", *lines]))


EQUAL = (2, 96)
"""Numbers of equal layers."""


def equal_layers(console: Console) -> None:
    """Print the size of drawings of equal layers, which are drawn once in brackets."""
    sizes = {}
    for count in EQUAL:
        model = nn.Sequential(*[EncoderLayer(m=64, k=16, h=4, f=128) for _ in range(count)])
        svg = drawn(trace(model, axes="x 64"), depth=100)
        sizes[count] = f"{count} equal layers: {len(svg.encode()) / 1e3:.1f} kB, {boxes_shown(svg)} boxes"
    console.print("; ".join(sizes.values()))


def measure(console: Console, blocks: int, largest: int) -> None:
    """Print time and size of drawings."""
    against_trace(console, blocks)
    growth(console, max(2, blocks // 2), largest)
    equal_layers(console)
