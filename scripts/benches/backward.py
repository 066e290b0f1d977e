"""Time and memory of backward circuits, compared with autograd, with and without torch.compile."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from circuits import CircuitError, Halves, backward, einsum, forward_backward, simplify
from models import MLP, MultiHeadAttention
from scripts.benches.memory import peak
from scripts.benches.timing import Spread, interleaved

__all__ = ["SUBJECTS", "measure"]

Subject = tuple[nn.Module, tuple[Tensor, ...]]

COLUMNS = ("circuit", "", "as", "milliseconds", "times autograd's", "MiB", "times autograd's")


class Attention(nn.Module):
    """Figure 20 in four heads, without weights."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Scaled dot-product attention of `h y k`, `h x k` and `h x k`."""
        score = einsum(query, key, "h y k, h x k -> h y x") * query.shape[-1] ** -0.5
        return einsum(score.softmax(-1), value, "h y x, h x k -> h y k")


def attention() -> Subject:
    """Four heads over 256 vectors."""
    query, key, value = torch.randn(3, 4, 256, 32).unbind()
    return Attention(), (query, key, value)


def mlp() -> Subject:
    """Figure 19 on 64 images."""
    return MLP(), (torch.randn(64, 28, 28),)


def multi_head_attention() -> Subject:
    """Figure 21 over 128 vectors in two examples."""
    return MultiHeadAttention(m=128, k=32, h=4), (torch.randn(2, 128, 128), torch.randn(2, 128, 128))


def convolutions() -> Subject:
    """Three convolutions, the second with stride 2, with batch norms between."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32),
        nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    return model, (torch.randn(8, 3, 32, 32),)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    each.__name__: each for each in (attention, mlp, multi_head_attention, convolutions)
}


def by_autograd(model: nn.Module, called: Callable[..., Tensor]) -> Callable[..., dict[str, Tensor]]:
    """The gradients of inputs and weights by autograd; `called` is the model, compiled or not."""
    weights = dict(model.named_parameters())

    def run(*given: Tensor) -> dict[str, Tensor]:
        *own, cotangent = given
        own = [each.detach().requires_grad_() for each in own]
        found = torch.autograd.grad(called(*own), [*own, *weights.values()], cotangent)
        return dict(zip([*[f"{place}" for place in range(len(own))], *weights], found, strict=True))

    return run


def by_circuits(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Callable[..., dict[str, Tensor]]]:
    """The same gradients by the simplified backward circuit, and by its two halves, as Python functions.

    If the model contains attention, also by halves that recompute every tensor with both axes y and x.
    """
    found = {
        "backward": simplify(backward(model, *inputs)).function(),
        "forward and reverse": _cut(forward_backward(model, *inputs)),
    }
    with contextlib.suppress(CircuitError):  # no value has both axes
        found["recomputing y x"] = _cut(forward_backward(model, *inputs, recompute="y x"))
    return found


def _cut(halves: Halves) -> Callable[..., dict[str, Tensor]]:
    """The forward half followed by the reverse half."""
    forward, reverse = simplify(halves.forward).function(), simplify(halves.reverse).function()

    def run(*given: Tensor) -> dict[str, Tensor]:
        *own, cotangent = given
        return reverse(forward(*own)[1], cotangent)

    return run


def measure(console: Console, names: Sequence[str], seconds: float, compiles: Sequence[str]) -> None:
    """Print one line for each circuit and each way to run it, compared with autograd run the same way."""
    makers = {name: SUBJECTS[name] for name in names}
    table = Table(title=f"backward circuits beside autograd, {torch.get_num_threads()} threads")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < 3 else "right")
    for name, make in makers.items():
        torch.manual_seed(0)
        model, inputs = make()
        given = (*inputs, torch.randn_like(model(*inputs)))
        for how in compiles:
            for title, *row in compare(model, given, seconds, how):
                table.add_row(name, title, how, *row)
    console.print(table)


def compare(model: nn.Module, given: tuple[Tensor, ...], seconds: float, how: str) -> list[list[str]]:
    """The rows of one model, plain or compiled: milliseconds, their ratio, mebibytes, their ratio."""
    theirs = by_autograd(model, model)
    ours = by_circuits(model, given[:-1])
    if how == "compiled":
        torch.compiler.reset()
        theirs = by_autograd(model, torch.compile(model, dynamic=False))
        ours = {title: torch.compile(run, dynamic=False, fullgraph=True) for title, run in ours.items()}
    calls: dict[str, Callable[[], Any]] = {"autograd": lambda: theirs(*given)}
    calls |= {title: _unwatched(run, given) for title, run in ours.items()}
    agree({title: call() for title, call in calls.items()})
    memory = {title: peak(call, torch.device("cpu")) for title, call in calls.items()}
    start = time.perf_counter()
    for call in calls.values():
        call()
    once = (time.perf_counter() - start) / len(calls)
    each = max(1, int(0.02 / once))
    times = interleaved(calls, min(200, max(5, int(seconds / (len(calls) * once * each)))), each)
    return [[title, *_row(times, memory, title)] for title in calls]


def agree(gradients: dict[str, dict[str, Tensor]]) -> None:
    """Raise AssertionError unless all gradients are equal, so that the times are comparable.

    Tolerance: 1e-4 of the largest number, for float32 sums in another order and norms that lose a digit each.
    """
    wanted = gradients.pop("autograd")
    scale = max(each.abs().max().item() for each in wanted.values())
    for found in gradients.values():
        inputs = iter([tensor for name, tensor in found.items() if name not in wanted])
        mine = {name: found[name] if name in found else next(inputs) for name in wanted}
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-4 * scale)


def _unwatched(run: Callable[..., Any], given: tuple[Tensor, ...]) -> Callable[[], Any]:
    """The call under `no_grad`."""

    def call() -> Any:
        with torch.no_grad():
            return run(*given)

    return call


def _row(times: dict[str, list[float]], memory: dict[str, int | None], title: str) -> list[str]:
    ratios = [mine / other for mine, other in zip(times[title], times["autograd"], strict=True)]
    mine, other = memory[title], memory["autograd"]
    memories = (
        ["unknown", ""]
        if mine is None or other is None
        else [f"{mine / 2**20:.1f}", f"{mine / other:.2f}×" if other else ""]
    )
    return [Spread.of([1e3 * each for each in times[title]]).show(), Spread.of(ratios).show("×"), *memories]
