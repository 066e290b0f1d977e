"""Measured times beside the lower bounds that the rates of a machine allow: the roofline.

The FLOPs and bytes are those of what ran: `track` records a call, kernels included, and `count` counts the diagram.
On a GPU the bounds in float32 hold as long as TF32 is off.
"""

from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from circuits import Bound, Machine, count, track
from circuits.cost.bound_report import rates_line
from circuits.cost.texts import amount, duration
from scripts.benches.timing import Spread

COLUMNS = (
    "model", "dtype", "FLOPs", "bytes in and out", "unfused", "fused", "binds", "measured", "times fused", "fastest",
    "times fused",
)  # fmt: skip


class Called(nn.Module):
    """A model with the function that calls it, as one module that can be recorded."""

    def __init__(self, model: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, *inputs: Tensor) -> Tensor:
        """The result of the call."""
        return self.call(self.model, *inputs)


def bound_of(call: Callable[..., Tensor], model: nn.Module, inputs: tuple[Tensor, ...], machine: Machine) -> Bound:
    """The lower bounds on the time of a forward pass in eval mode, without gradients."""
    with torch.no_grad(), track(called := Called(model, call).eval(), to=None) as seen:
        called(*inputs)
    return count(seen.diagram).on(machine)


def cells(bound: Bound, seconds: list[float]) -> list[str]:
    """The cells of a row after the model and the dtype, from the seconds of all blocks: the median, and the fastest."""
    total: Any = bound.total
    ratios = Spread.of([each / total.fused for each in seconds])
    return [
        amount(total.flops), amount(total.crossing, "B"), duration(total.unfused), duration(total.fused),
        f"{total.fused_binds}", duration(Spread.of(seconds).middle), ratios.show("×"), duration(min(seconds)),
        f"{min(seconds) / total.fused:.2f}×",
    ]  # fmt: skip


def show(console: Console, rows: list[tuple[str, str, Bound, list[float]]]) -> None:
    """Print a row for each model and dtype, with its bounds and the measured seconds, and the rates of the machine."""
    found = Table(title="forward passes beside their lower bounds")
    for number, column in enumerate(COLUMNS):
        found.add_column(column, justify="left" if number < 2 or column == "binds" else "right", min_width=8)
    for name, dtype, bound, seconds in rows:
        found.add_row(name, dtype, *cells(bound, seconds))
    console.print(found)
    for line in dict.fromkeys([rates_line(bound.cost.total, bound.machine) for _, _, bound, _ in rows]):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
