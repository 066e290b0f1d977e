"""The cost of `track` on a small vision transformer, compared with the forward pass and torchinfo's summary."""

import io
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torchinfo
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from circuits import track
from scripts.benches.timing import Spread, bound, interleaved


class Block(nn.Module):
    """A transformer block of m channels in h heads, in plain torch."""

    def __init__(self, m: int, h: int) -> None:
        super().__init__()
        self.h = h
        self.norms = nn.ModuleList([nn.LayerNorm(m), nn.LayerNorm(m)])
        self.inward, self.outward = nn.Linear(m, 3 * m), nn.Linear(m, m)
        self.up, self.down = nn.Linear(m, 4 * m), nn.Linear(4 * m, m)

    def forward(self, x: Tensor) -> Tensor:
        b, n, m = x.shape
        query, key, value = self.inward(self.norms[0](x)).reshape(b, n, 3, self.h, m // self.h).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.outward(mixed.transpose(1, 2).reshape(b, n, m))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class SmallTransformer(nn.Module):
    """A vision transformer of six blocks on images of 32 by 32: 146 boxes."""

    def __init__(self, m: int = 64, h: int = 4, depth: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, m, 4, 4)
        self.positions = nn.Parameter(torch.randn(64, m))
        self.blocks = nn.Sequential(*[Block(m, h) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(m), nn.Linear(m, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x)).mean(1))


def tracked(model: nn.Module, to: Any, fold: bool = True) -> Callable[[Tensor], object]:
    """A forward pass that is recorded, and printed to `to` if that is a stream; `fold` is that of `track`."""

    def run(image: Tensor) -> object:
        with track(model, to=to, fold=fold):
            return model(image)

    return run


def measure(console: Console, blocks: int) -> None:
    """Print the cost of a tracked call, at two batch sizes."""
    model = SmallTransformer().eval()
    for batch in (1, 8):
        image = torch.randn(batch, 3, 32, 32)
        variants: dict[str, Callable[[Tensor], object]] = {
            "forward": model,
            "track, printing nothing": tracked(model, None),
            "track, printing": tracked(model, io.StringIO()),
            "track, printing, no line folded": tracked(model, io.StringIO(), fold=False),
            "torchinfo.summary": lambda image: str(torchinfo.summary(model, input_data=image, verbose=0)),
        }
        with torch.no_grad():
            calls = {name: bound(function, (image,)) for name, function in variants.items()}
            interleaved(calls, 2, 1)
            times = interleaved(calls, blocks, 1)
        table = Table(title=f"a small vision transformer, batch {batch}: a whole call")
        for column in ("variant", "milliseconds", "times the forward pass"):
            table.add_column(column, justify="left" if column == "variant" else "right")
        for name in variants:
            ratios = [mine / plain for mine, plain in zip(times[name], times["forward"], strict=True)]
            table.add_row(name, Spread.of([1e3 * each for each in times[name]]).show(), Spread.of(ratios).show("×"))
        console.print(table)
