"""Listings: golden texts, names and arguments, and refused calls. `test_listing_runs` runs the texts."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circuits import CircuitError, backward, circuit, listing, trace, track
from models import MLP, ConvAttention, MultiHeadAttention
from models.attention import attention

Golden = Callable[[str, str], None]


def log2(x: Tensor) -> Tensor:
    return torch.log(x) / torch.log(torch.tensor(2.0, dtype=torch.float64))


def derivative(order: int) -> Callable[[Tensor], Tensor]:
    found: Callable[[Tensor], Tensor] = log2
    for _ in range(order):
        found = torch.func.grad(found)
    return found


TWO = torch.tensor(2.0, dtype=torch.float64)


# --- Golden texts -----------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_log2_is_four_lines() -> None:
    assert listing(log2, TWO) == "\n".join(
        [
            "{ x:f64[] .",
            "  a:f64[] = log x",
            "  b:f64[] = log 2.0",
            "  c:f64[] = div a b",
            "  in c }",
        ]
    )


class Scaled(nn.Module):
    """A parameter with the name of an input, a buffer, keyword arguments, and a nested result."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(3))
        self.register_buffer("shift", torch.zeros(3))

    def forward(self, x: Tensor, *, state: dict[str, Tensor], factor: float = 2.0) -> dict[str, Any]:
        return {"out": (x * self.x + self.get_buffer("shift")) * factor, "state": [state["h"], None], "weight": self.x}


def in_place(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 2
    y.add_(1)
    y[0, 1:] = 3.0
    largest, _ = y.max(0)
    y.sin()
    return largest, y[..., None, ::2]


def mapped(x: Tensor, w: Tensor) -> Tensor:
    return torch.vmap(lambda row: (row * w).sum(-1))(x)


def pairs(x: Tensor, y: Tensor) -> Tensor:
    return torch.vmap(lambda a: torch.vmap(lambda b: (a - b).square().sum())(y))(x)


FIXED = torch.arange(6.0).view(2, 3)

TEXTS: dict[str, Callable[[], str]] = {
    "attention": lambda: listing(attention, sizes={"y": 20, "x": 22, "k": 16}),
    "attention_of_any_size": lambda: listing(attention),
    "multi_head_attention": lambda: listing(MultiHeadAttention(m=128, k=16, h=4), sizes={"y": 20, "x": 22}),
    "multi_head_attention_inline": lambda: listing(MultiHeadAttention(m=128, k=16, h=4), inside="inline"),
    "multi_head_attention_closed": lambda: listing(MultiHeadAttention(m=128, k=16, h=4), inside="closed"),
    "mlp": lambda: listing(MLP().probabilities),
    "convolution_and_attention": lambda: listing(ConvAttention()),
    "linear_backward": lambda: listing(backward(nn.Linear(3, 2), axes="b m", sizes={"m": 3})),
    "attention_backward": lambda: listing(backward(attention, sizes={"y": 20, "x": 22, "k": 16})),
    "log2_backward_backward": lambda: listing(backward(backward(log2, TWO)), inside="inline"),
    "names_and_results": lambda: listing(Scaled(), torch.ones(3), state={"h": torch.zeros(2, 2)}),
    "in_place": lambda: listing(in_place, torch.ones(3, 4)),
    "mapped": lambda: listing(mapped, torch.ones(3, 4), torch.ones(4)),
    "mapped_over_pairs": lambda: listing(pairs, torch.ones(3, 4), torch.ones(5, 4)),
    "mapped_inline": lambda: listing(mapped, torch.ones(3, 4), torch.ones(4), inside="inline"),
    "dtypes": lambda: listing(lambda x: [(x > 0).to(each) for each in DTYPES], torch.ones(3)),
    "constant": lambda: listing(lambda x: torch.cat([x @ FIXED.T, x], dim=-1).to(torch.bfloat16), torch.ones(3)),
    "aten_gradient": lambda: listing(derivative(1), TWO, level="aten"),
    "aten_gradient_of_the_gradient": lambda: listing(derivative(2), TWO, level="aten"),
    "aten_linear": lambda: listing(nn.Linear(3, 2), axes="b m", sizes={"b": 4, "m": 3}, level="aten"),
    "aten_vjp": lambda: listing(lambda x, dy: torch.func.vjp(torch.sin, x)[1](dy), TWO, TWO, level="aten"),
    "aten_jacrev": lambda: listing(torch.func.jacrev(torch.sin), torch.ones(3), level="aten"),
    "aten_vmap": lambda: listing(torch.vmap(lambda x: x.max(-1)), torch.ones(3, 4), level="aten"),
    "aten_names": lambda: listing(Scaled(), torch.ones(3), state={"h": torch.zeros(2, 2)}, level="aten"),
}
DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int8,
    torch.uint8,
    torch.int64,
    torch.complex64,
    torch.bool,
)


@pytest.mark.every(4)
@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str, golden: Golden) -> None:
    golden(f"printing/{name}.txt", TEXTS[name]() + "\n")


def test_a_failed_run_is_listed_up_to_the_failed_operation() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 2))
    with pytest.raises(RuntimeError), track(model, to=None) as seen:
        model(torch.ones(3))
    *_, failed, end = listing(seen.diagram).splitlines()
    assert failed.startswith("  ? = linear a 1.weight 1.bias  failed: RuntimeError: mat1 and mat2 shapes")
    assert end == "  in ? }"


@pytest.mark.parametrize("order", range(1, 5))
def test_a_gradient_by_torch_is_one_line_an_order(order: int) -> None:
    """The reverse pass of torch.func.grad is one line, `grad`; level="aten" lists its operations."""
    lines = listing(derivative(order), TWO).splitlines()
    assert [line.split(" = ")[1] for line in lines[1:5]] == ["log x", "log 2.0", "div a b", GRADIENT.format("c")]
    assert [line.split(" = ")[1] for line in lines[4:-1]] == [GRADIENT.format("cdef"[each]) for each in range(order)]
    assert lines[-1] == f"  in {'cdefg'[order]} }}"


GRADIENT = "grad ({},) (x,) retain_graph=False create_graph=True allow_unused=True"


def test_a_diagram_of_a_gradient_computes_the_gradient() -> None:
    """The diagram runs the transform inside it as a whole."""
    diagram = trace(torch.func.grad(derivative(1)), TWO)
    torch.testing.assert_close(diagram(TWO), -1 / (TWO**2 * math.log(2)))
    mapped_gradient = trace(torch.vmap(derivative(1)), torch.ones(3).double())
    torch.testing.assert_close(mapped_gradient(TWO.expand(3)), (1 / (TWO * math.log(2))).expand(3))


FUNCTIONAL: dict[str, Callable[[], str]] = {
    "gradients_used": lambda: listing(lambda x: torch.func.grad(log2)(x) * x + torch.func.grad(torch.sin)(x), TWO),
    "gradient_and_value": lambda: listing(
        torch.func.grad_and_value(lambda x, w: (x * w).sum(), argnums=1), ONES, HALVES
    ),
    "vjp": lambda: listing(lambda x, dy: torch.func.vjp(torch.sin, x)[1](dy), TWO, TWO / 3),
    "gradient_mapped": lambda: listing(torch.vmap(torch.func.grad(lambda x: x.exp().sum())), torch.ones(2, 3)),
    "mapped_identity": lambda: listing(torch.vmap(lambda x: x), torch.ones(2, 3)),
    "mapped_to_two": lambda: listing(torch.vmap(lambda x: (x.sum(), 2 * x), out_dims=(0, 1)), torch.ones(2, 3)),
    "in_place_in_a_gradient": lambda: listing(torch.func.grad(overwritten), ONES),
}
ONES, HALVES = torch.ones(3), torch.full((3,), 0.5)


def overwritten(x: Tensor) -> Tensor:
    y = x * 2
    y[0] = 1.0
    return y.mul_(3).sum()


@pytest.mark.parametrize(
    "transformed",
    [
        lambda x: torch.func.jvp(torch.sin, (x,), (x,)),
        torch.func.jacrev(torch.sin),
        torch.func.jacfwd(torch.sin),
        torch.func.hessian(lambda x: x.sin().sum()),
        torch.func.grad(lambda x: torch.func.jacrev(torch.sin)(x).sum()),
        torch.vmap(torch.func.grad_and_value(torch.sin)),
    ],
    ids=["jvp", "jacrev", "jacfwd", "hessian", "grad of jacrev", "vmap of grad"],
)
def test_forward_derivatives_and_jacobians_have_no_question_mark(transformed: Any) -> None:
    """Torch computes them with other operations in other versions, so there is no golden text."""
    assert "?" not in listing(transformed, ONES)


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_transforms_of_torch_func_have_no_question_mark(name: str, golden: Golden) -> None:
    text = FUNCTIONAL[name]()
    assert "?" not in text
    golden(f"printing/{name}.txt", text + "\n")


class Options(nn.Module):
    """A positional argument with a default, and keyword arguments."""

    def forward(self, x: Tensor, how: str = "up", *, by: float = 1.0, where: Any = None, more: Any = None) -> Tensor:
        return (x * by).sin() if more is None else x * by + more["y"]


@circuit("... a -> ... a", optional={"bias": "a"})
def options(x: Tensor, power: int = 2, bias: Tensor | None = None, *, last: bool = False) -> Tensor:
    return x**power if bias is None else x**power + bias


def test_arguments_of_nested_boxes_are_shown_without_defaults() -> None:
    """An argument equal to its default is left out; the positional arguments after it are shown by name."""
    model = Options()

    def f(x: Tensor, y: Tensor) -> Tensor:
        x = options(x) + options(x, 3) + options(x, bias=y) + options(x, 3, y, last=True)
        x = model(x) + model(x, "down", by=2.0) + model(x, where=(1, slice(None)), more={"y": y})
        return x + torch.vmap(lambda a, k: a * k, in_dims=(0, None))(x, 3)

    lines = [line.split(" = ")[1] for line in listing(f, ONES, HALVES, inside="closed").splitlines()[1:-1]]
    assert [line for line in lines if line.split()[0] in ("options", "Options", "Options2", "vmap", "mul")] == [
        "options x",
        "options x 3",
        "options x bias=y",
        "options x 3 y last=True",
        "Options i",
        "Options i 'down' by=2.0",
        "Options i where=(1, :) more={y: y}",
        "vmap q 3",
    ]


def test_numbers_of_nested_boxes_are_in_the_names_of_the_axes() -> None:
    @circuit("y k -> y k")
    def scaled(x: Tensor, by: float = 1.0) -> Tensor:
        return x * by

    @circuit("y k -> y k")
    def outer(x: Tensor) -> Tensor:
        return scaled(x, x.shape[-1] ** -0.5)

    assert "a:f32[y k] = scaled x k**(-0.5)" in listing(outer)


def test_arguments_are_shown_in_a_backward_circuit() -> None:
    """The calls of the forward pass keep their arguments, also if an in-place operation renamed their values."""

    def f(x: Tensor) -> Tensor:
        y = x * 2
        y.add_(1)
        return options(y, 3)

    lines = [line.strip() for line in listing(backward(f, ONES)).splitlines()]
    assert any(re.search(r"= options [a-z] 3$", line) for line in lines), lines


@pytest.mark.parametrize("options", [{"level": "torch.ops"}, {"inside": "out"}])
def test_unknown_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(CircuitError, match=r"listing: expected level 'torch' or 'aten' and inside 'nested'"):
        listing(log2, TWO, **options)


@pytest.mark.slow
def test_a_diagram_takes_no_inputs_and_level_aten_no_symbolic_axes() -> None:
    with pytest.raises(CircuitError, match="log2 is a diagram"):
        listing(trace(log2, TWO), TWO)
    with pytest.raises(CircuitError, match=r"attention: level 'aten' needs a size for each axis; k, x, y have none"):
        listing(attention, level="aten")
    with pytest.raises(CircuitError, match="sizes and axes are for inputs that listing makes"):
        listing(log2, TWO, axes="a", level="aten")
    with pytest.raises(CircuitError, match="attention is a diagram: it was recorded with its sizes and axes"):
        listing(trace(attention), sizes={"k": 2, "x": 3, "y": 4}, level="aten")
    with pytest.raises(CircuitError, match="log2 is a diagram: it was recorded with its sizes and axes"):
        listing(trace(log2, TWO), axes="a", level="aten")
    with pytest.raises(CircuitError, match=r"k, x, y have none: pass example inputs$"):
        listing(trace(attention), level="aten")


@circuit("... h -> ... h/2", multiples={"h": 2})
def half(signal: Tensor) -> Tensor:
    return signal.reshape(*signal.shape[:-1], signal.shape[-1] // 2, 2).sum(-1) * signal.shape[-1] ** -0.5


def test_numbers_that_depend_on_sizes_are_in_the_names_of_the_axes() -> None:
    assert listing(half).splitlines()[1:4] == [
        "  a:f32[h/2 2] = reshape signal h/2 2",
        "  b:f32[h/2] = sum a -1",
        "  c:f32[h/2] = mul b h**(-0.5)",
    ]
