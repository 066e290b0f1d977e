# This file compares results of many types. pyright: reportArgumentType=false, reportCallIssue=false
"""Free axes: at every size a diagram computes what the original computes, or refuses the size, and few are refused."""

import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import CircuitError, Diagram, ShapeError, backward, circuit, trace
from tests.conftest import assert_same

SIZES = (2, 3, 4, 5, 7, 8, 10, 15, 16, 31, 32, 33, 47, 48, 49, 64)


def padded_windows(x: Tensor) -> Tensor:
    """Window attention's partition into windows of 4 by 4, and its inverse."""
    b, h, w, c = x.shape
    x = F.pad(x, (0, 0, 0, (4 - w % 4) % 4, 0, (4 - h % 4) % 4))
    _, tall, wide, _ = x.shape
    y = x.view(b, tall // 4, 4, wide // 4, 4, c).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, 4, 4, c)
    z = y.view(-1, tall // 4, wide // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, tall, wide, c)
    return z[:, :h, :w].contiguous()


def patches(x: Tensor) -> Tensor:
    """MobileViT's patches of 2 by 2, and their inverse."""
    b, c, h, w = x.shape
    tall, wide = math.ceil(h / 2), math.ceil(w / 2)
    x = F.pad(x, (0, 2 * wide - w, 0, 2 * tall - h)).reshape(b * c * tall, 2, wide, 2).transpose(1, 2)
    x = x.reshape(b, c, tall * wide, 4).transpose(1, 3).reshape(b * 4, -1, c)
    x = x.contiguous().view(b, 4, -1, c).transpose(1, 3).reshape(b * c * tall, wide, 2, 2)
    return x.transpose(1, 2).reshape(b, c, 2 * tall, 2 * wide)


def fit(x: Tensor) -> Tensor:
    """The second axis cut or padded to 32."""
    x = x[:, :32]
    return F.pad(x, (0, 32 - x.shape[1])) if x.shape[1] < 32 else x


def halved_until_short(x: Tensor) -> Tensor:
    while x.shape[0] > 4:
        x = x[::2]
    return x


def shifted_windows(x: Tensor) -> Tensor:
    return torch.roll(x, (-(x.shape[1] // 2), 1), (1, 2))[:, ::2]


def even_or_odd(x: Tensor) -> Tensor:
    return x.view(2, -1) * 2 if x.shape[0] % 2 == 0 else x.view(1, -1)


def weighted_observations(x: Tensor) -> Tensor:
    count = torch.arange(1, x.shape[1] + 1)
    return torch.cov(x, correction=0, fweights=count, aweights=count.flip(0).float())


def written(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, x.shape[1] // 2] = 2.0
    x[x.shape[0] - 1] += x[0]
    x[0, x.shape[1] - 1] *= 3
    return x


def pool_at_random(x: Tensor) -> Tensor:
    samples = torch.full((x.shape[0], x.shape[1], 3), 0.3)
    values, places = F.fractional_max_pool3d(x, 2, output_ratio=0.6, return_indices=True, _random_samples=samples)
    return F.fractional_max_pool3d(x, (2, 3, 2), output_size=(2, 3, 1), _random_samples=samples).sum() + values + places


GRU, RNN, LSTM = nn.GRU(3, 4, 2, bidirectional=True), nn.RNN(3, 4), nn.LSTM(3, 4)
PROJECTED, EMBEDDED = nn.LSTM(3, 4, proj_size=2, batch_first=True), nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 4))
Run = tuple[str, Callable[..., Any]]

FREE: dict[str, Run] = {
    "windows": ("b h w 3", padded_windows),
    "patches": ("b 3 h w", patches),
    "roll and step": ("b h w", shifted_windows),
    "pad to a multiple": ("n m", lambda x: F.pad(x, (0, -x.shape[1] % 8)).view(x.shape[0], -1, 8)),
    "pad to 16": ("n m", lambda x: F.pad(x, (0, 16 * math.ceil(x.shape[1] / 16) - x.shape[1]))),
    "slice of a half": ("n m", lambda x: x[:, : x.shape[1] // 2] * x.shape[1]),
    "slice of a third": ("n m", lambda x: x[: math.ceil(x.shape[0] / 3)] * math.floor(x.shape[0] / 3)),
    "slice of a rounded part": ("n m", lambda x: x[: round(x.shape[0] * 0.3)]),
    "narrow": ("n m", lambda x: x.narrow(1, 1, x.shape[1] - 1)),
    "number as index": ("n m k", lambda x: x[x.shape[0] // 2, ..., -1] + x[0, :, x.shape[2] - 1]),
    "list as index": ("n m", lambda x: x[[0, 1], x.shape[1] // 2 :].sum()),
    "arithmetic": ("n m", lambda x: x * (x.shape[0] // 3 + x.shape[0] % 3 - abs(x.shape[0] - x.shape[1]) ** 2)),
    "powers": ("n m", lambda x: x * x.shape[1] ** -0.5 * pow(x.shape[0], 2) + x.shape[0] ** 0.5),
    "bits": ("n m", lambda x: x * (x.shape[0] & 3) + (x.shape[0] >> 1) + (x.shape[1] << 2) - (x.shape[1] ^ 5)),
    "products": ("n m", lambda x: x * math.prod(x.shape) + sum(x.shape)),
    "rounded": ("n m", lambda x: x * round(x.shape[0] / 3, 2) + math.trunc(x.shape[1] / 3)),
    "sizes in the result": ("n m", lambda x: (x, x.shape[0] * 2, tuple(x.shape), len(x.shape))),
    "tensor of a size": ("n m", lambda x: x / torch.tensor(x.shape[0], dtype=torch.float64)),
    "tensor of sizes": ("n m", lambda x: x.sum() * torch.tensor([[*x.shape], [1, 2]]) + torch.tensor([1, 0.5])),
    "tensor of floats": ("n m", lambda x: torch.tensor([x.shape[0] / 4, 2]) + torch.as_tensor(x.shape)),
    "new_tensor": ("n m", lambda x: x / x.new_tensor(x.shape[0])),
    "linspace": ("n m", lambda x: x + torch.linspace(0, 1, x.shape[1]) - torch.logspace(0, x.shape[1] / 64, 5)[2]),
    "arange": ("n m", lambda x: x + torch.arange(x.shape[1]) + torch.arange(0, x.shape[1] / 2, 0.5)),
    "windows of a signal": (
        "b n",
        lambda x: x * torch.hann_window(x.shape[1]) + torch.kaiser_window(x.shape[1], False),
    ),
    "frequencies": ("n m", lambda x: (x * torch.fft.fftfreq(x.shape[1]), torch.fft.rfftfreq(x.shape[0], 0.5))),
    "affine_grid": (
        "b 1 h w",
        lambda x: F.affine_grid(torch.ones(4, 2, 3), [4, 1, *x.shape[2:]], align_corners=False),
    ),
    "keywords": ("n 3 m", lambda x: (torch.cov(input=x[:, 0]), F.max_pool1d(input=x, kernel_size=2, stride=1))),
    "number as index, written": ("n m", written),
    "one_hot": ("n m", lambda x: F.one_hot(torch.arange(x.shape[1]), x.shape[1])),
    "masks": ("n m", lambda x: x.masked_fill(torch.ones_like(x, dtype=torch.bool).triu(x.shape[0] // 2), 0)),
    "cov": ("n m", lambda x: (x.cov(), torch.corrcoef(x), torch.cov(x[0]))),
    "weighted cov": ("n m", weighted_observations),
    "kron": ("n 3", lambda x: torch.kron(x, torch.eye(2))),
    "kron of more axes": ("n m", lambda x: torch.kron(torch.ones(2, 1, 3), x) * x.sum()),
    "kron with itself": ("n 2", lambda x: x.kron(x)),
    "fractional_max_pool3d": ("b c 6 6 6", pool_at_random),
    "max_pool1d": ("b 3 n", lambda x: F.max_pool1d(x, 2)),
    "max_pool1d, all arguments": ("b 3 n", lambda x: F.max_pool1d(x, 3, 2, 1, 1, ceil_mode=True, return_indices=True)),
    "max_pool2d": ("b 3 h w", lambda x: F.max_pool2d(x, 3, 2, 1)),
    "adaptive pool": ("b 3 h w", lambda x: F.adaptive_avg_pool2d(x, (2, 3)) + F.adaptive_max_pool2d(x, 1)),
    "interpolate": ("b 3 h w", lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear")),
    "gru": ("n b 3", lambda x: GRU(x)),
    "rnn": ("n b 3", lambda x: RNN(x, torch.ones(1, x.shape[1], 4))),
    "lstm": ("n b 3", lambda x: LSTM(x)),
    "lstm, projected": ("b n 3", lambda x: PROJECTED(x)),
    "lstm behind a layer": ("n b 3", lambda x: EMBEDDED(x)),
    "attention": ("b n 4", lambda x: F.scaled_dot_product_attention(x, x, x)),
    "matmul": ("b n 4", lambda x: (x @ torch.ones(4, 5), x @ x.mT)),
    "cdist": ("n m", lambda x: torch.cdist(x, x)),
    "expand": ("n m", lambda x: x.unsqueeze(0).expand(x.shape[0], -1, -1).sum(0).tile(2, 1)),
    "fft": ("b n", lambda x: torch.fft.irfft(torch.fft.rfft(x), n=x.shape[1])),
    "layer norm": ("n m", lambda x: F.layer_norm(x, (x.shape[1],))),
    "flattened and split": ("n m", lambda x: x.reshape(-1, 4).sum(0)),
    "assertion that holds": ("n m", lambda x: _checked(x, x.shape[0] > 0)),
}
"""Functions whose diagrams run at every size at which the function runs."""


def _checked(x: Tensor, condition: bool) -> Tensor:
    assert condition
    return x * 2


SOME: dict[str, Run] = {
    "cut or padded": ("b n", fit),
    "last five": ("b n", lambda x: x[:, -5:].sum(1) / x[:, -5:].shape[1]),
    "from the middle": ("b n", lambda x: x[:, x.shape[1] // 2 : 10].sum(1)),
    "step": ("b n", lambda x: x[:, 2:30:4] * x[:, 2:30:4].shape[1]),
    "is 2": ("n m", lambda x: x * 2 if x.shape[0] == 2 else x * 3),
    "greater": ("n m", lambda x: x * 2 if x.shape[0] > x.shape[1] else x * 3),
    "greater after a slice": ("n m", lambda x: (x[:10], x * 2 if x.shape[0] >= 10 else x * 3)[1]),
    "greater after a convolution": (
        "2 3 n",
        lambda x: (F.conv1d(x, torch.ones(3, 3, 8), padding=7), x * 2 if x.shape[2] >= 8 else x)[1],
    ),
    "equal after a view": ("n m", lambda x: (x.mT.reshape(-1), x * 2 if x.shape[0] == x.shape[1] else x)[1]),
    "contiguous": ("n m", lambda x: x * 2 if x[:, :3].is_contiguous() else x * 3),
    "even": ("n m", even_or_odd),
    "one": ("n m", lambda x: x[1:, 1:].squeeze() * 2),
    "smallest": ("n m", lambda x: x[: min(x.shape)] * max(x.shape[0], 3)),
    "sorted": ("n m", lambda x: x * sorted(x.shape)[0]),
    "while": ("n m", halved_until_short),
    "chunks": ("n m", lambda x: torch.cat([part * place for place, part in enumerate(x.chunk(3))])),
    "tensor_split": ("n m", lambda x: x.tensor_split(3)[1]),
    "split in halves": ("n m", lambda x: x.split(x.shape[0] // 2)[-1]),
    "integer": ("n m", lambda x: x if (x.shape[0] / 2).is_integer() else x * 2),
    "number of elements": ("n m", lambda x: x * 2 if x.numel() > 100 else x),
    "topk": ("n m", lambda x: x.topk(min(3, x.shape[1]))[0]),
    "one of a list": ("n m", lambda x: x * 2 if x.shape[0] in [2, 3] else x),
    "is the shape": ("n m", lambda x: x * 2 if x.shape == (3, 4) else x),
    "not zero": ("n m", lambda x: x * bool(x.shape[0] - 5)),
}
"""Functions with several paths or formulas, of which a diagram has one."""

FIXED: dict[str, tuple[str, Callable[..., Any], str, str]] = {
    "range": ("n m", lambda x: torch.stack([x[i] for i in range(x.shape[0])]), "n", "range"),
    "int": ("n m", lambda x: x * int(x.shape[0]), "n", "int"),
    "int of a float": ("n m", lambda x: x[: int(x.shape[0] * 0.5)], "int(0.5*n)", "int"),
    "int of a quotient": ("n m", lambda x: x[: int(x.shape[0] / 4)], "int(n/4)", "int"),
    "range of a half": ("n m", lambda x: sum([x * i for i in range(x.shape[0] // 2)]), "n//2", "range"),
    "sqrt": ("n m", lambda x: x / math.sqrt(x.shape[1]), "m", "math.sqrt"),
    "gcd": ("n m", lambda x: x * math.gcd(x.shape[0], 4), "n", "math.gcd"),
    "log2": ("n m", lambda x: x * math.log2(x.shape[0]), "n", "math.log2"),
    "float": ("n m", lambda x: x * float(x.shape[0]), "n", "float"),
    "list": ("n m", lambda x: torch.stack([x.sum()] * x.shape[0]), "n", "[x.sum()] * x.shape[0]"),
    "numpy": ("n m", lambda x: x + torch.tensor(np.zeros(x.shape[1])), "m", "np.zeros"),
    "function": ("n 2 4 5", nn.CrossMapLRN2d(3), "n", "CrossMapLRN2d"),
    "parts": ("n m", lambda x: x.tensor_split(x.shape[0])[1], "n", "tensor_split"),
}
"""Functions that need a number: what becomes one, and the code that needs it."""


def compare(diagram: Diagram, axes: str, run: Callable[..., Any], tries: int = 16) -> int:
    """Compare a diagram with its original at random sizes; return how many were refused that the original takes."""
    refused: list[str] = []
    names = sorted({axis for axis in axes.replace(",", "").split() if not axis.isdigit()})
    for _ in range(tries):
        sizes = {name: random.choice(SIZES[:12] if len(names) > 2 else SIZES) for name in names}
        x = torch.randn([sizes.get(axis) or int(axis) for axis in axes.split()])
        try:
            expected = run(x)
        except (RuntimeError, IndexError):
            with pytest.raises((RuntimeError, CircuitError, IndexError)):
                diagram(x)
            continue
        try:
            found = diagram(x)
        except ShapeError as error:
            refused.append(str(error))
            continue
        assert_same(found, expected)
    assert max(map(len, refused), default=0) < 400
    return len(refused)


@pytest.mark.every(18)
@pytest.mark.parametrize("name", FREE)
def test_a_diagram_runs_at_every_size(name: str) -> None:
    axes, run = FREE[name]
    diagram = trace(run, axes=axes)
    assert diagram.fixed == ()
    assert compare(diagram, axes, run) == 0


@pytest.mark.every(3)
@pytest.mark.parametrize("name", SOME)
def test_a_diagram_runs_at_the_sizes_of_its_path_and_refuses_others(name: str) -> None:
    axes, run = SOME[name]
    assert 0 < compare(trace(run, axes=axes), axes, run, 40) < 40


@pytest.mark.parametrize("name", FIXED)
def test_code_that_needs_a_number_is_told(name: str) -> None:
    axes, run, text, by = FIXED[name]
    diagram = trace(run, axes=axes)
    (fixed,) = diagram.fixed
    assert (fixed.axis, fixed.by) == (text, by)
    assert fixed.where.startswith(__file__)
    assert str(diagram).splitlines()[-1] == str(fixed)
    x = torch.rand(48, 80) if axes == "n m" else torch.rand(48, 2, 4, 5)
    assert_same(diagram(x), run(x))
    assert compare(diagram, axes, run) > 0


PARTS: dict[str, Callable[[Tensor], Any]] = {
    "split at": lambda x: x.split(1, 1)[0],
    "parts of 2 elements of the axis n": lambda x: torch.cat(x.split(2)),
    "unbind at": lambda x: x.unbind(1)[0],
    "one tensor for each element of the axis n": lambda x: sum(row for row in x),
    "of the axis m": lambda x: [column * 2 for column in x.mT],
    "of the axis m*n": lambda x: x.flatten().split(1)[0],
    "of the axis n": lambda x: torch.stack(list(x)),
    "whose size is free": lambda x: dict(zip("abc", x, strict=False)),
}


@pytest.mark.every(3)
@pytest.mark.parametrize("words", PARTS)
def test_as_many_tensors_as_a_free_axis_has_elements_are_refused_at_once(words: str) -> None:
    run = PARTS[words]
    with pytest.raises(CircuitError) as caught:
        trace(run, axes="n m")
    assert words in str(caught.value)
    assert f"{__file__}:{run.__code__.co_firstlineno}" in str(caught.value)
    assert "give the axis a size" in str(caught.value)
    assert trace(run, axes="n m", sizes={"n": 4, "m": 3}).fixed == ()


NOT_SYMBOLIC: dict[str, Callable[[Tensor], Any]] = {
    "divmod()": lambda x: x * divmod(x.shape[0], 3)[0],
    "'int' and 'SymInt'": lambda x: x * divmod(100, x.shape[0])[0],
    "__pow__": lambda x: x * pow(x.shape[0], 2, 7),
    "__format__": lambda x: {"03": x}[f"{x.shape[0]:02d}"],
    "numpy.object_": lambda x: x + torch.from_numpy(np.arange(x.shape[1])),
    "sqrt": lambda x: x * np.sqrt(x.shape[0]),
    "bit_count": lambda x: x * x.shape[0].bit_count(),
    "hashes": lambda x: x * {48: 2}[x.shape[0]],
    "hashes a free size": lambda x: x * (hash(x.shape[0]) % 5),
    "as a dict key": lambda x: x * 2 if x.shape[0] in {2, 3} else x,
}


@pytest.mark.every(6)
@pytest.mark.parametrize("words", NOT_SYMBOLIC)
def test_what_symbolic_numbers_do_not_support_is_refused_with_its_line(words: str) -> None:
    run = NOT_SYMBOLIC[words]
    with pytest.raises(CircuitError) as caught:
        trace(run, axes="n m")
    assert words in str(caught.value)
    assert f"{__file__}:{run.__code__.co_firstlineno}" in str(caught.value)
    assert "give the axis a size" in str(caught.value)


def test_a_result_of_another_size_than_recorded_is_refused_without_a_guard_too() -> None:
    diagram = dataclasses.replace(trace(fit, axes="b n"), guards=())
    assert_same(diagram(torch.ones(2, 40)), torch.ones(2, 32))
    with pytest.raises(
        ShapeError, match=r"index \[:, :32\] at .* returns \[b 32\], but for b = 2, n = 10 it returns \[2, 10\]"
    ):
        diagram(torch.ones(2, 10))
    chunks = dataclasses.replace(trace(lambda x: x.chunk(3), axes="n"), guards=())
    with pytest.raises(ShapeError, match="a call returns 3 tensors, but it returns 2"):
        chunks(torch.ones(4))


@pytest.mark.slow
def test_guards_are_those_of_the_code_and_few() -> None:
    guards = {name: trace(run, axes=axes).guards for name, (axes, run) in FREE.items()}
    assert [str(guard) for guard in guards["windows"]] == ["b >= 2", "h >= 2", "w >= 2"]
    assert max(len(each) for each in guards.values()) <= 7
    assert max(len(str(guard)) for each in guards.values() for guard in each) < 100


@pytest.mark.slow
def test_a_long_guard_is_shown_by_its_axes_and_its_beginning() -> None:
    def run(x: Tensor) -> Tensor:
        n, m = x.shape
        mixed = ((n * 3 + 5) % 7 * (m * 3 + 5) // 11 + (n * 5 + 3) % 17 * (m + 7) // 13) // (n + m // 3 + 1)
        mixed = mixed + ((n * 13 + 1) % 19 * (m * 5 + 5) // 3 + (n * 2 + 3) % 23) // (n // 5 + m + 1)
        return x * 2 if mixed + n**5 > 100 * m else x

    with pytest.raises(ShapeError, match=r"with a condition on m and n \(.{40,90} …\), got n = 2, m = 64\. Record"):
        trace(run, axes="n m")(torch.ones(2, 64))


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 9, 20])
def test_the_gradient_of_a_pool_has_a_free_axis(n: int) -> None:
    def run(x: Tensor) -> Tensor:
        return F.max_pool1d(x, 3, 2) * x[..., n_of(x) // 2].unsqueeze(-1)

    def n_of(x: Tensor) -> int:
        return x.shape[-1]

    gradient = backward(run, axes="b 3 n")
    assert gradient.fixed == ()
    x = torch.randn(2, 3, n, requires_grad=True)
    out = run(x)
    (expected,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient(x.detach(), torch.ones_like(out))["x"], expected)


@pytest.mark.slow
def test_the_gradient_of_code_that_needs_a_number_is_told_once() -> None:
    def run(x: Tensor) -> Tensor:
        return x.tensor_split(x.shape[0] // 16)[0].sin()

    gradient = backward(run, axes="n m")
    assert [each.axis for each in gradient.fixed] == ["n//16"]
    x = torch.randn(48, 3)
    torch.testing.assert_close(gradient(x, torch.ones(16, 3))["x"], F.pad(x[:16].cos(), (0, 0, 0, 32)))
    with pytest.raises(ShapeError, match="n//16 = 3, got n = 64"):
        gradient(torch.randn(64, 3), torch.ones(21, 3))


@pytest.mark.parametrize("name", ["\u00b5", "\u03bc"], ids=["micro sign", "mu"])
def test_names_in_sizes_are_spelled_as_python_spells_them(name: str) -> None:
    @circuit("\u00b5 m -> m \u00b5")
    def turned(x: Tensor) -> Tensor:
        return x.mT

    assert trace(turned, sizes={name: 3}).inputs[0].shape == "3 m"
    assert trace(lambda x: x, axes="\u00b5 m", sizes={name: 3}).inputs[0].shape == "3 m"
    with pytest.raises(CircuitError, match="two spellings"):
        trace(turned, sizes={"\u00b5": 3, "\u03bc": 4})
