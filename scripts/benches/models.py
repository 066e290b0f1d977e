"""Time and memory of each model, compared with its reference implementation with the same weights."""

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from circuits import Bound, Machine
from scripts.benches import roofline
from scripts.benches.memory import peak
from scripts.benches.pairs import PAIRS, Pair
from scripts.benches.timing import Spread, interleaved

__all__ = ["PAIRS", "measure"]

COLUMNS = ("model", "instead of", "dtype", "pass", "milliseconds", "times the other's", "MiB", "times the other's")


def measure(console: Console, names: Sequence[str], seconds: float, device: torch.device, machine: Machine) -> None:
    """Print one line for each model, dtype and pass, and a table of forward passes beside their lower bounds.

    A model whose peer is not installed is named and left out. Generation has no lower bound here: its diagram is large.
    """
    makers = {name: PAIRS[name] for name in names}
    table = Table(title=f"ours beside what it replaces, on {device}, {torch.get_num_threads()} threads")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < 4 else "right")
    bounds: list[tuple[str, str, Bound, list[float]]] = []
    for name, make in makers.items():
        torch.manual_seed(0)
        try:
            pair = make()
        except ImportError as error:
            console.print(f"{name}: {error.name} is not installed, so it is not measured")
            continue
        passes = (("forward", forward), ("and backward", and_backward))
        for dtype in (torch.float32,) if pair.generated else (torch.float32, torch.bfloat16):
            for title, run in ((f"{pair.generated} tokens", forward),) if pair.generated else passes:
                kind = f"{dtype}".removeprefix("torch.")
                row, times = compare(pair, run, dtype, device, seconds)
                table.add_row(name, pair.peer, kind, title, *row)
                if run is forward and not pair.generated:
                    ours, inputs = _ready(pair.ours, dtype, device), _inputs(pair, dtype, device)
                    bounds.append((name, kind, roofline.bound_of(pair.call_ours, ours, inputs, machine), times))
    console.print(table)
    if bounds:
        roofline.show(console, bounds)


def compare(
    pair: Pair, run: Callable[..., Callable[[], Any]], dtype: torch.dtype, device: torch.device, seconds: float
) -> tuple[list[str], list[float]]:
    """The cells of a row: milliseconds, their ratio, mebibytes, their ratio; and the seconds of ours in each block."""
    inputs = _inputs(pair, dtype, device)
    ours, theirs = (_ready(model, dtype, device) for model in (pair.ours, pair.theirs))
    agree(pair, ours, theirs, inputs)
    calls = {"ours": run(pair.call_ours, ours, inputs), "theirs": run(pair.call_theirs, theirs, inputs)}
    calls = {name: _finished(call, device) for name, call in calls.items()}
    memory = {name: peak(call, device) for name, call in calls.items()}
    start = time.perf_counter()
    for call in calls.values():
        call()
    once = (time.perf_counter() - start) / 2
    each = max(1, int(0.02 / once))
    blocks = min(200, max(5, int(seconds / (2 * once * each))))
    times = interleaved(calls, blocks, each)
    ratios = [mine / other for mine, other in zip(times["ours"], times["theirs"], strict=True)]
    milliseconds = Spread.of([1e3 * mine for mine in times["ours"]])
    shown = [milliseconds.show(), Spread.of(ratios).show("×"), *_memory(memory["ours"], memory["theirs"])]
    return shown, times["ours"]


def agree(pair: Pair, ours: nn.Module, theirs: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Raise AssertionError unless both models return the same numbers, so that the times are comparable.

    Tolerances: 1e-4 of the largest number in float32, where sums run in another order, and a tenth in bfloat16, where a
    deep model rounds its 8 bits in each layer. Both are small enough to detect a wrong weight.
    """
    with torch.no_grad():
        mine, other = pair.call_ours(ours.eval(), *inputs), pair.call_theirs(theirs.eval(), *inputs)
    scale = other.float().abs().max().item()
    digits = 1e-4 if mine.dtype == torch.float32 else 0.1
    torch.testing.assert_close(mine, other, rtol=0, atol=digits * scale)


def forward(call: Callable[..., Tensor], model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], Any]:
    """A forward pass in eval mode, without gradients."""

    def run() -> Tensor:
        model.eval()
        with torch.no_grad():
            return call(model, *inputs)

    return run


def and_backward(call: Callable[..., Tensor], model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], Any]:
    """A forward pass in train mode and the backward pass, for the gradients of all parameters."""
    cotangent: list[Tensor] = []

    def run() -> None:
        model.train()
        model.zero_grad(set_to_none=True)
        output = call(model, *inputs)
        if not cotangent:
            cotangent.append(torch.randn_like(output))
        output.backward(cotangent[0])

    return run


def _inputs(pair: Pair, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    return tuple([each.to(device, dtype if each.is_floating_point() else None) for each in pair.inputs])


def _ready(model: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    return copy.deepcopy(model).to(device, dtype)


def _finished(call: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """The call, followed by a synchronization of the device."""
    if device.type != "cuda":
        return call

    def run() -> None:
        call()
        torch.cuda.synchronize(device)

    return run


def _memory(ours: int | None, theirs: int | None) -> list[str]:
    if ours is None or theirs is None:
        return ["unknown", ""]
    return [f"{ours / 2**20:.1f}", f"{ours / theirs:.2f}×" if theirs else ""]
