"""Listings are complete: a small interpreter runs the text of a listing and computes the result of the circuit."""

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import circuits
from circuits import backward, listing, trace
from circuits.printing.words import dtype_text
from models import MLP, ConvAttention, MultiHeadAttention
from models.attention import attention
from tests.printing.test_listing import TWO, derivative, log2


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
    """Return the function that has this name in a listing."""
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
        if isinstance(args[0], float):  # a tensor that the listing shows as a number
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


@pytest.mark.every(6)
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("level", ["torch", "aten"])
def test_a_listing_run_line_by_line_computes_the_result_of_the_circuit(name: str, level: Any) -> None:
    f, inputs = RUNS[name]
    diagram = trace(f, *inputs)
    given = dict(zip([value.name for value in diagram.inputs], inputs, strict=True)) | weights_of(f)
    text = listing(f, *inputs, level=level, inside="inline")
    torch.testing.assert_close(executed(text, given, level), f(*inputs))


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("order", [*range(7), *[pytest.param(each, marks=pytest.mark.slow) for each in (7, 8)]])
def test_listings_of_derivatives_of_log2_to_the_eighth_order_compute_them(order: int) -> None:
    text = listing(derivative(order), TWO, level="aten")
    factorial = torch.arange(1.0, order, dtype=torch.float64).prod() if order else 0.0
    expected = (-1) ** (order + 1) * factorial / (TWO**order * TWO.log()) if order else TWO.log2()
    torch.testing.assert_close(executed(text, {"x": TWO}, "aten"), expected)


@pytest.mark.slow
def test_every_name_is_assigned_once_and_before_its_use() -> None:
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
