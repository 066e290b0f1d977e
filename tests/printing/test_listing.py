"""Listings: golden texts, and a small interpreter that runs a text, which shows that nothing is missing in it."""

import math
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
from circuits import CircuitError, backward, circuit, listing, trace, track
from circuits.printing.words import dtype_text
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
    "mlp": lambda: listing(MLP()),
    "convolution_and_attention": lambda: listing(ConvAttention()),
    "linear_backward": lambda: listing(backward(nn.Linear(3, 2), axes="b m", sizes={"m": 3})),
    "attention_backward": lambda: listing(backward(attention, sizes={"y": 20, "x": 22, "k": 16})),
    "log2_backward_backward": lambda: listing(backward(backward(log2, TWO)), inside="inline"),
    "names_and_answers": lambda: listing(Scaled(), torch.ones(3), state={"h": torch.zeros(2, 2)}),
    "in_place": lambda: listing(in_place, torch.ones(3, 4)),
    "mapped": lambda: listing(mapped, torch.ones(3, 4), torch.ones(4)),
    "mapped_over_pairs": lambda: listing(pairs, torch.ones(3, 4), torch.ones(5, 4)),
    "mapped_inline": lambda: listing(mapped, torch.ones(3, 4), torch.ones(4), inside="inline"),
    "dtypes": lambda: listing(lambda x: [(x > 0).to(each) for each in DTYPES], torch.ones(3)),
    "held": lambda: listing(lambda x: torch.cat([x @ FIXED.T, x], dim=-1).to(torch.bfloat16), torch.ones(3)),
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


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str, golden: Golden) -> None:
    golden(f"printing/{name}.txt", TEXTS[name]() + "\n")


def test_a_run_that_failed_is_listed_up_to_what_failed() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 2))
    with pytest.raises(RuntimeError), track(model, to=None) as seen:
        model(torch.ones(3))
    *_, failed, end = listing(seen.diagram).splitlines()
    assert failed.startswith("  ? = linear a 1.weight 1.bias  failed: RuntimeError: mat1 and mat2 shapes")
    assert end == "  in ? }"


@pytest.mark.parametrize("order", range(1, 5))
def test_a_gradient_by_torch_is_one_line_an_order(order: int) -> None:
    """The result of torch.func.grad is that of its `grad` line; level="aten" lists its operations."""
    lines = listing(derivative(order), TWO).splitlines()
    assert [line.split(" = ")[1] for line in lines[1:5]] == ["log x", "log 2.0", "div a b", GRADIENT.format("c")]
    assert [line.split(" = ")[1] for line in lines[4:-1]] == [GRADIENT.format("cdef"[each]) for each in range(order)]
    assert lines[-1] == f"  in {'cdefg'[order]} }}"


GRADIENT = "grad ({},) (x,) retain_graph=False create_graph=True allow_unused=True"


def test_each_run_gives_the_same_diagram_of_a_gradient() -> None:
    """A diagram with a transform inside runs that as a whole, and computes the same."""
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
    "mapped_back_as_it_came": lambda: listing(torch.vmap(lambda x: x), torch.ones(2, 3)),
    "mapped_to_two": lambda: listing(torch.vmap(lambda x: (x.sum(), 2 * x), out_dims=(0, 1)), torch.ones(2, 3)),
    "written_in_a_gradient": lambda: listing(torch.func.grad(written), ONES),
}
ONES, HALVES = torch.ones(3), torch.full((3,), 0.5)


def written(x: Tensor) -> Tensor:
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
    """How torch computes them differs between its versions, so there is no golden text."""
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


def test_arguments_of_nested_boxes_are_shown_but_for_defaults() -> None:
    """Positional up to the first one left out, then by name; an argument equal to its default is left out."""
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


def test_arguments_stay_in_a_backward_circuit() -> None:
    """The forward pass keeps the arguments of calls, also where an in-place change gave its values other names."""

    def f(x: Tensor) -> Tensor:
        y = x * 2
        y.add_(1)
        return options(y, 3)

    lines = [line.strip() for line in listing(backward(f, ONES)).splitlines()]
    assert any(re.search(r"= options [a-z] 3$", line) for line in lines), lines


@pytest.mark.parametrize("options", [{"level": "torch.ops"}, {"inside": "out"}])
def test_unknown_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(CircuitError, match=r"listing: level is 'torch' or 'aten', and inside is 'nested'"):
        listing(log2, TWO, **options)


def test_a_diagram_takes_no_inputs_and_operations_no_free_axes() -> None:
    with pytest.raises(CircuitError, match="log2 is a diagram"):
        listing(trace(log2, TWO), TWO)
    with pytest.raises(CircuitError, match=r"attention: k, x, y may be any size here; give one, sizes="):
        listing(attention, level="aten")
    with pytest.raises(CircuitError, match="sizes and axes are for inputs that are made"):
        listing(log2, TWO, axes="a", level="aten")


# --- A text is complete: it can be run --------------------------------------------------------------------------------


def words(text: str) -> Iterator[str]:
    """Yield the words of a line, which is split at spaces except inside brackets and quotes."""
    found, depth, quoted = "", 0, False
    for letter in text:
        quoted ^= letter == "'" and (quoted or not found or found[-1] in "([{ =")
        depth += 0 if quoted else (letter in "([{") - (letter in ")]}")
        if letter == " " and depth == 0 and not quoted:
            yield found
            found = ""
        else:
            found += letter
    yield found


class Key:
    """Returns the index with which it is subscripted: `KEY[1:]` is `slice(1, None)`."""

    def __getitem__(self, key: Any) -> Any:
        return key


WORDS: dict[str, Any] = {
    "f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64, "i64": torch.int64,
    "bool": torch.bool, "cpu": torch.device("cpu"), "strided": torch.strided, "preserve_format": torch.preserve_format,
    "contiguous_format": torch.contiguous_format, "KEY": Key(), "inf": float("inf"),
}  # fmt: skip
VERBS = {name: getattr(circuits, name) for name in ("einsum", "rearrange", "reduce", "repeat", "unfold", "fold")}


def operation(name: str, level: str) -> Callable[..., Any]:
    """Return the function that a listing calls by this name."""
    if level == "aten":
        base, _, overload = name.partition(".")
        return getattr(getattr(torch.ops.aten, base), overload or "default")
    own = VERBS | {"index": operator.getitem}
    return own.get(name) or next(
        getattr(each, name) for each in (F, Tensor, torch, torch.ops.aten) if hasattr(each, name)
    )


def executed(text: str, given: dict[str, Tensor], level: str) -> Any:
    """Run the lines of a listing on these inputs and parameters, and return its result."""
    lines = text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.endswith(" ."))
    header = " ".join([line.strip() for line in lines[: first + 1]])
    known: dict[str, Any] = {}

    def define(word: str, value: Any) -> None:
        name, _, kind = word.partition(":")
        if isinstance(value, Tensor):
            dtype, _, sizes = kind.removesuffix("]").partition("[")
            assert dtype == dtype_text(value.dtype)
            assert len([word for word in words(sizes) if word]) == value.ndim
        known[name] = value

    def value(word: str) -> Any:
        if word.startswith("'"):
            return word[1:-1]
        used = re.sub(r"(?<![\w.'])[A-Za-z_0-9][\w.']*", lambda m: f"KNOWN[{m[0]!r}]" if m[0] in known else m[0], word)
        used = f"KEY[{used.strip('()')}]" if ":" in re.sub(r"\[.*?\]", "", used) or "..." in used else used
        return eval(used, {**WORDS, "KNOWN": known})

    for word in words(header.removeprefix("{ ").removesuffix(" .")):
        if word != ";":
            define(word, given[word.partition(":")[0]])
    for line in lines[first + 1 : -1]:
        left, _, right = line.strip().partition(" = ")
        name, *arguments = words(right)
        named = [re.fullmatch(r"([a-z_A-Z]+)=(.*)", argument) for argument in arguments]
        args = [value(argument) for argument, match in zip(arguments, named, strict=True) if match is None]
        kwargs = {match[1]: value(match[2]) for match in named if match is not None}
        made = list(words(left))
        if isinstance(args[0], float):  # a number that the code wrote out as a tensor
            args[0] = torch.tensor(args[0], dtype=WORDS[made[0].partition(":")[2].partition("[")[0]])
        result = operation(name, level)(*args, **kwargs)
        for word, part in zip(made, [result] if len(made) == 1 and isinstance(result, Tensor) else result, strict=True):
            define(word, part)
    out = lines[-1].strip().removeprefix("in ").removesuffix(" }")
    return value(re.sub(r"([{ ])([\w.]+): ", r"\1'\2': ", out)) if out.startswith("{") else value(out)


def normal(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Keyword arguments, a layer norm, a mask, and slices without start or stop."""
    x = F.layer_norm(x, x.shape[-1:], weight, bias, eps=1e-3)
    x = x.masked_fill(x < 0.1, 0.5).flip(-1)
    return torch.cat([x[..., 1:], x[..., :1]], dim=-1).clamp(min=0.2, max=0.9).sum(dim=0, keepdim=True)


RUNS: dict[str, tuple[Any, tuple[Tensor, ...]]] = {
    "log2": (log2, (TWO,)),
    "attention": (attention, (torch.rand(5, 4), torch.rand(7, 4), torch.rand(7, 4))),
    "heads": (MultiHeadAttention(m=12, k=4, h=3), (torch.rand(5, 12), torch.rand(7, 12))),
    "mlp": (MLP(x=4, y=5, m=8, k=3), (torch.rand(2, 4, 5),)),
    "convolution": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (torch.rand(2, 3, 9, 8),)),
    "network": (ConvAttention(5, 4, 2, 3, 3, 2, 2), (torch.rand(5, 4), torch.rand(2))),
    "norm": (normal, (torch.rand(3, 5), torch.rand(5), torch.rand(5))),
    "maximum": (lambda x: x.max(-1).values, (torch.rand(3, 4),)),
}


def weights_of(f: Any) -> dict[str, Tensor]:
    return dict([*f.named_parameters(), *f.named_buffers()]) if isinstance(f, nn.Module) else {}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("level", ["torch", "aten"])
def test_a_listing_run_line_by_line_computes_what_the_circuit_computes(name: str, level: Any) -> None:
    f, inputs = RUNS[name]
    diagram = trace(f, *inputs)
    given = dict(zip([value.name for value in diagram.inputs], inputs, strict=True)) | weights_of(f)
    text = listing(f, *inputs, level=level, inside="inline")
    torch.testing.assert_close(executed(text, given, level), f(*inputs))


@pytest.mark.parametrize("name", ["attention", "heads", "mlp", "network"])
@pytest.mark.parametrize("level", ["torch", "aten"])
def test_the_listing_of_a_backward_circuit_computes_its_gradients(name: str, level: Any) -> None:
    f, inputs = RUNS[name]
    gradient = backward(f, *inputs)
    inputs = (*inputs, torch.rand_like(f(*inputs)))
    given = dict(zip([value.name for value in gradient.inputs], inputs, strict=True)) | weights_of(f)
    options: dict[str, Any] = {"inside": "inline"} if level == "torch" else {"level": level}
    text = listing(gradient, *inputs if level == "aten" else (), **options)
    torch.testing.assert_close(executed(text, given, level), gradient(*inputs))


@pytest.mark.parametrize("order", [*range(7), *[pytest.param(each, marks=pytest.mark.slow) for each in (7, 8)]])
def test_listings_of_derivatives_of_log2_to_the_eighth_order_compute_them(order: int) -> None:
    text = listing(derivative(order), TWO, level="aten")
    factorial = torch.arange(1.0, order, dtype=torch.float64).prod() if order else 0.0
    expected = (-1) ** (order + 1) * factorial / (TWO**order * TWO.log()) if order else TWO.log2()
    torch.testing.assert_close(executed(text, {"x": TWO}, "aten"), expected)


def test_every_name_is_made_before_it_is_used_and_once() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(3))
    model(torch.rand(2, 3, 5, 5))
    text = listing(backward(model, torch.rand(2, 3, 5, 5)), inside="inline")
    seen: set[str] = set()
    for line in text.splitlines()[1:-1]:
        left, _, right = line.partition(" = ")
        if not right:
            continue
        bare = re.sub(r"'[^']*'", "", right.partition(" ")[2])
        used = set(re.findall(r"(?<![\w.=])[a-z]{1,2}(?![\w.=])", bare))
        assert used <= seen
        made = [word.partition(":")[0] for word in words(left.strip())]
        assert not seen & {name for name in made if name != "_"}
        seen |= set(made)
    assert len(seen) > 10


@circuit("... h -> ... h/2", multiples={"h": 2})
def half(signal: Tensor) -> Tensor:
    return signal.reshape(*signal.shape[:-1], signal.shape[-1] // 2, 2).sum(-1) * signal.shape[-1] ** -0.5


def test_numbers_that_depend_on_sizes_are_in_the_names_of_the_axes() -> None:
    assert listing(half).splitlines()[1:4] == [
        "  a:f32[h/2 2] = reshape signal h/2 2",
        "  b:f32[h/2] = sum a -1",
        "  c:f32[h/2] = mul b h**(-0.5)",
    ]
