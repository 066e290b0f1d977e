"""What `count` must say of small circuits: hand formulas in the axes, each a claim that a planted error breaks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import sympy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import Cost, circuit, count, einsum, trace
from models.parts.fused_attention import fused_attention, fused_grouped_attention
from models.scaled_dot_product import attention as zoo_attention


@circuit("... y k, ... x k, ... x k -> ... y k")
def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    score = einsum(query, key, "... y k, ... x k -> ... y x") * key.shape[-1] ** -0.5
    return einsum(score.softmax(-1), value, "... y x, ... x k -> ... y k")


def symbol(name: str) -> Any:
    return sympy.Symbol(name, integer=True, positive=True)


def formula(text: Any) -> Any:
    """A formula in axes as sympy, from its text."""
    names = {name: symbol(name) for name in "abcdefghijklmnopqrstuvwxyz"}
    return sympy.expand(eval(text, names)) if isinstance(text, str) else sympy.Integer(text)


@dataclass(frozen=True)
class Claim:
    """The cost of something, and what some of its quantities are."""

    make: Callable[[], Cost]
    quantities: dict[str, Any]
    uncounted: tuple[str, ...] = ()

    def check(self) -> None:
        cost = self.make()
        for name, text in self.quantities.items():
            found = getattr(cost.total, name)
            assert sympy.expand(sympy.sympify(found) - formula(text)) == 0, f"{name} is {found}, not {text}"
        assert tuple([name for name, _ in cost.total.uncounted]) == self.uncounted


def of(function: Any, axes: str, quantities: dict[str, Any], *uncounted: str, **options: Any) -> Claim:
    return Claim(lambda: count(function, axes=axes, **options), quantities, uncounted)


def _kernel(causal: bool, **options: Any) -> Callable[..., Tensor]:
    def call(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, **options)

    return call


def _kernel_backward(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Torch's own reverse pass of its fused attention."""
    run = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, statistic = run(query, key, value)
    grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        out, query, key, value, out, statistic, 0.0, False
    )
    return grads[0]


def _convolution_backward(transposed: bool, groups: int) -> Callable[..., Any]:
    def call(back: Tensor, x: Tensor, weight: Tensor) -> Any:
        return torch.ops.aten.convolution_backward(
            back, x, weight, None, [1], [0], [1], transposed, [0], groups, [True, True, False]
        )

    return call


class Shared(nn.Module):
    """One linear map, applied twice; a frozen one; and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.frozen = nn.Linear(8, 8), nn.Linear(8, 3)
        self.frozen.requires_grad_(False)
        self.register_buffer("shift", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.twice(self.twice(x)) + self.shift)


def _views(x: Tensor) -> Tensor:
    y = x.exp()
    return y.t().unsqueeze(0).transpose(0, 1)


def _views_in_place(x: Tensor) -> Tensor:
    return x.exp().transpose_(0, 1).unsqueeze_(0).squeeze_(0).t_().mul_(2)


def _lists(x: Tensor, y: Tensor) -> Tensor:
    aten = torch.ops.aten
    return aten._foreach_add([x, y], [y, x])[0] + aten._foreach_norm([x, y])[1]


def _in_place(x: Tensor) -> Tensor:
    return x.exp().add_(1).mul_(2)


def _grouped(rows: Tensor, weights: Tensor) -> Tensor:
    ends = torch.arange(8, 40, 8, dtype=torch.int32)
    return torch.ops.aten._grouped_mm(rows, weights, ends)


@cache
def lstm() -> nn.LSTM:
    return nn.LSTM(8, 5)


@cache
def encoder_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)


HEADS = "b h y k, b h x k, b h x k"
CLAIMS: dict[str, Claim] = {
    "attention": Claim(
        lambda: count(attention),
        {
            "multiply_adds": "2*k*x*y", "flops": "4*k*x*y", "elementwise": "2*x*y", "parameters": 0,
            "read": "4*(k*y + k*x + x*y + x*y + x*y + k*x)", "written": "4*(3*x*y + k*y)",
            "activations": "4*(3*x*y + k*y)", "crossing": "4*(2*k*y + 2*k*x)",
        },
    ),
    "attention and its reverse pass": Claim(
        lambda: count(attention, backward=True),
        {"flops": "12*k*x*y", "saved": "4*(k*y + 2*k*x + x*y)", "crossing": "2*4*(2*k*y + 2*k*x)"},
    ),
    "attention, scores recomputed": Claim(
        lambda: count(attention, backward=True, recompute="y x"),
        {"flops": "14*k*x*y", "saved": "4*(2*k*y + 2*k*x + y)"},
    ),
    "kernel": of(_kernel(False), HEADS, {
        "flops": "4*b*h*y*x*k", "live_flops": "4*b*h*y*x*k",
        "read": "4*b*h*(y*k + 2*x*k)", "written": "4*b*h*(y*k + y)",
    }),
    "values of another size, not fused": of(_kernel(True), "b h y k, b h x k, b h x v", {
        "flops": "2*b*h*y*x*(k + v)", "live_flops": "2*b*h*y*x*(k + v)"
    }),
    "kernel of equal lengths, causal": of(_kernel(True), "b h x k, b h x k, b h x k", {
        "flops": "4*b*h*k*x**2", "live_flops": "2*b*h*k*x*(x + 1)"
    }),
    "kernel, causal": Claim(
        lambda: count(_kernel(True), axes=HEADS).at(b=1, h=1, y=3, x=7, k=4),
        {"flops": 4 * 3 * 7 * 4, "live_flops": 4 * 4 * (1 + 2 + 3)},
    ),
    "kernel, causal, more queries": Claim(
        lambda: count(_kernel(True), axes=HEADS).at(b=1, h=1, y=5, x=3, k=4),
        {"flops": 4 * 3 * 5 * 4, "live_flops": 4 * 4 * (1 + 2 + 3 + 3 + 3)},
    ),
    "kernel, causal, of given sizes": of(_kernel(True), "1 2 6 4, 1 2 6 4, 1 2 6 4", {
        "flops": 4 * 2 * 36 * 4, "live_flops": 4 * 2 * 21 * 4
    }),
    "kernel, grouped heads": of(_kernel(False, enable_gqa=True), "b 8 y k, b 2 x k, b 2 x k", {
        "flops": "32*b*k*x*y"
    }),
    "kernel's reverse pass": of(_kernel_backward, "b h y k, b h x k, b h x k", {"flops": "14*b*h*k*x*y"}),
    "the zoo's definition, causal": of(partial(zoo_attention, causal=True), HEADS, {"flops": "4*b*h*k*x*y"}),
    "the zoo's definition, a window": of(partial(zoo_attention, causal=True, window=4), HEADS, {
        "flops": "4*b*h*k*x*y", "live_flops": "4*b*h*k*x*y"
    }),
    "the zoo's kernel, causal": of(partial(fused_attention, causal=True), "b h x k, b h x k, b h x k", {
        "flops": "4*b*h*k*x**2", "live_flops": "2*b*h*k*x*(x + 1)"
    }),
    "the zoo's kernel, a window": of(partial(fused_attention, causal=True, window=4), HEADS, {
        "flops": "4*b*h*k*x*y", "live_flops": "4*b*h*k*x*y"
    }),
    "the zoo's kernel, grouped heads": of(fused_grouped_attention, "b 8 y k, b 2 x k, b 2 x k", {
        "flops": "32*b*k*x*y"
    }),
    "decoding one token": Claim(
        lambda: count(fused_attention, axes=HEADS).at(b=1, h=8, k=64, y=1, x=4096), {"flops": 4 * 8 * 64 * 4096}
    ),
    "linear": of(nn.Linear(6, 3), "b x 6", {"flops": "36*b*x", "parameters": 21, "state_bytes": 84}),
    "matrix and vector": of(lambda a, x: a @ x, "i j, j", {"flops": "2*i*j"}),
    "vectors": of(lambda x, y: x @ y, "i, i", {"flops": "2*i"}),
    "addmv": of(torch.addmv, "i, i j, j", {"flops": "2*i*j"}),
    "addbmm": of(torch.addbmm, "i k, b i j, b j k", {"flops": "2*b*i*j*k"}),
    "baddbmm": of(torch.baddbmm, "b i k, b i j, b j k", {"flops": "2*b*i*j*k"}),
    "products in place": of(lambda a, b, c, d: a.exp().baddbmm_(b, c)[0].addmm_(b[0], d), "2 i j, 2 i k, 2 k j, k j", {
        "flops": "6*i*j*k"
    }),
    "convolution of steps": of(torch.conv_tbc, "10 7 4, 3 4 5, 5", {"multiply_adds": 8 * 7 * 5 * 3 * 4}),
    "bilinear": of(nn.Bilinear(6, 5, 3), "n 6, n 5", {"multiply_adds": "n*3*6*5 + n*3*5"}),
    "far points": of(torch.cdist, "30 d, 40 d", {"multiply_adds": "1200*(d + 2)"}),
    "grouped products": of(_grouped, "32 16, 4 16 24", {"multiply_adds": 32 * 16 * 24}),
    "convolution": of(nn.Conv2d(4, 6, (3, 2), groups=2), "b 4 h w", {
        "multiply_adds": "b*(h - 2)*(w - 1)*6*2*3*2", "parameters": 6 * 2 * 3 * 2 + 6
    }),
    "transposed convolution": of(nn.ConvTranspose1d(4, 6, 3, groups=2), "b 4 x", {
        "multiply_adds": "b*x*4*3*3", "parameters": 4 * 3 * 3 + 6
    }),
    "reverse convolution": of(_convolution_backward(False, 2), "b 6 7, b 4 9, 6 2 3", {
        "multiply_adds": "2*b*7*6*2*3"
    }),
    "reverse transposed convolution": of(_convolution_backward(True, 2), "b 6 9, b 4 7, 4 3 3", {
        "multiply_adds": "2*b*7*4*3*3"
    }),
    "lstm": Claim(lambda: count(lstm(), axes="t b 8"), {"multiply_adds": "t*b*(20*8 + 20*5)"}),
    "encoder layer": Claim(
        lambda: count(encoder_layer(), axes="b x 8"),
        {"multiply_adds": "b*x*(4*64 + 2*8*12) + 2*b*x*x*8"},
    ),
    "shared and frozen weights": of(Shared(), "b 8", {
        "trained": 72, "frozen": 27, "buffers": 8, "parameters": 99, "state_bytes": 4 * 107,
        "multiply_adds": "b*(64 + 64 + 24)", "crossing": "4*(72 + 27 + 8 + b*8 + b*3)",
    }),
    "views": of(_views, "i j", {
        "activations": "4*i*j", "written": "4*i*j", "read": "4*i*j", "peak": "8*i*j", "crossing": "8*i*j"
    }),
    "in place": of(_in_place, "i", {
        "activations": "4*i", "peak": "8*i", "elementwise": "3*i", "written": "12*i", "crossing": "8*i"
    }),
    "views in place": of(_views_in_place, "i j", {"activations": "4*i*j", "written": "8*i*j", "read": "8*i*j"}),
    "result given": of(lambda x, y: torch.mm(x, y, out=torch.empty(5, 4)), "5 3, 3 4", {
        "read": 4 * (15 + 12), "written": 4 * 20
    }),
    "lists": of(_lists, "i, i", {"elementwise": "2*i + 2*i + i"}),
    "an input in place": of(lambda x: x.mul_(2).add_(1), "i", {"crossing": "8*i"}),
    "an input overwritten": of(lambda x: x.fill_(2).add_(1), "i", {"crossing": "4*i"}),
    "an input read twice": of(lambda x: x.exp() + x, "i", {"crossing": "8*i"}),
    "a part of an input": of(lambda x: x[:, :3].exp(), "i 7", {"crossing": "2*4*3*i"}),
    "a part of a result": of(lambda x: x.exp()[:, :3], "i 7", {"crossing": "4*(7 + 3)*i"}),
    "an unused result": of(lambda x: x.max(1).values, "i j", {"crossing": "4*(i*j + i)"}),
    "windows that overlap": of(lambda x: x.unfold(0, 3, 1).transpose(0, 1).exp(), "9", {
        "read": 4 * 7 * 3, "crossing": 4 * 7 * 3
    }),
    "memory that is not written": of(lambda x: torch.empty_like(x), "i", {"written": 0, "crossing": 0}),
    "in place and later": of(lambda x: x.exp().exp().exp().exp(), "i", {"peak": "12*i"}),
    "expanded": of(lambda x: x.expand(10, x.shape[0]).exp(), "i", {
        "read": "4*i", "written": "40*i", "crossing": "44*i"
    }),
    "look-up": Claim(
        lambda: count(trace(nn.Embedding(1000, 6), torch.zeros(7, dtype=torch.long))),
        {"read": 7 * 6 * 4 + 7 * 8, "written": 7 * 6 * 4, "crossing": 7 * 6 * 4 + 7 * 8},
    ),
    "sum": of(lambda x: x.sum(0), "i j", {"elementwise": "i*j", "read": "4*i*j", "written": "4*j"}),
    "casts": of(lambda x: x.bfloat16().exp(), "i", {"written": "4*i", "read": "6*i", "elementwise": "i"}),
    "unknown": of(lambda x: torch.fft.fft(x), "8 16", {"flops": 0}, "_fft_r2c 8 16"),
    "largest": Claim(
        lambda: count(lambda x, w: ((x.exp() @ w).exp()).sum(), axes="n k, k m").at(n=2, k=100, m=3),
        {"peak": 4 * (2 * 100 + 100 * 3 + 2 * 100 + 2 * 3)},
    ),
    "largest, other sizes": Claim(
        lambda: count(lambda x, w: ((x.exp() @ w).exp()).sum(), axes="n k, k m").at(n=50, k=2, m=30),
        {"peak": 4 * (50 * 2 + 2 * 30 + 2 * 50 * 30)},
    ),
}  # fmt: skip
