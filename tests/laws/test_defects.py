# Lambdas stand for functions and modules alike, and pyright takes them for modules.
# pyright: reportCallIssue=false, reportFunctionMemberAccess=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportOptionalOperand=false
"""Twenty-five planted mistakes, and the law that detects each.

Each circuit is written once, with the mistake if `wrong` is True. It runs with and without the mistake, in most cases
with the same shapes. The law holds without the mistake and not with it; its message is in golden/laws.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import circuit, einsum, laws, rearrange, repeat

Law = Callable[..., None]


@dataclass(frozen=True)
class Defect:
    """A function that makes the circuit, with the mistake if passed True; the law that detects it, with arguments."""

    make: Callable[[bool], Any]
    law: Law
    arguments: dict[str, Any]


DEFECTS: dict[str, Defect] = {}


def found_by(law: Law, **arguments: Any) -> Callable[[Callable[[bool], Any]], Callable[[bool], Any]]:
    """Decorator: add a defect to the table; its name is the docstring of the function that makes the circuit."""

    def into(make: Callable[[bool], Any]) -> Callable[[bool], Any]:
        DEFECTS[(make.__doc__ or "").rstrip(".")] = Defect(make, law, arguments)
        return make

    return into


ATTENTION = "... y k, ... x k, ... x k -> ... y k"


def scores(query: Tensor, key: Tensor) -> Tensor:
    """The scores of queries and keys, before softmax."""
    return einsum(query * query.shape[-1] ** -0.5, key, "... y k, ... x k -> ... y x")


def mixed(score: Tensor, value: Tensor) -> Tensor:
    """The softmax of the scores, then the weighted mean of the values."""
    return einsum(score.softmax(-1), value, "... y x, ... x k -> ... y k")


def ahead(score: Tensor) -> Tensor:
    """The number of indexes by which each key precedes each query; axes y x, integers."""
    y, x = score.shape[-2:]
    return torch.arange(y)[:, None] - torch.arange(x)


# --- Axes -------------------------------------------------------------------------------------------------------------


@found_by(laws.shapes)
def _(wrong: bool) -> Any:
    """Axes of equal size are swapped."""
    return circuit("b h w -> b w h")(lambda image: image.flip(-1) if wrong else image.mT)


@found_by(laws.shapes)
def _(wrong: bool) -> Any:
    """A stride is ignored."""
    return circuit("b 3 h w -> b 5 h/2 w/2")(nn.Conv2d(3, 5, 3, 1 if wrong else 2, padding=1))


@found_by(laws.independent, axis="y")
def _(wrong: bool) -> Any:
    """Softmax runs over the queries."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weight = scores(query, key).softmax(-2 if wrong else -1)
        return einsum(weight, value, "... y x, ... x k -> ... y k")

    return circuit(ATTENTION)(attention)


@found_by(laws.equals, reference=lambda x: x.unflatten(-1, (3, 2)).sum(-1), sizes={"h": 3, "k": 2})
def _(wrong: bool) -> Any:
    """Heads are split in the wrong order."""
    split = "... (k h) -> ... h k" if wrong else "... (h k) -> ... h k"
    return circuit("... (h k) -> ... h", fixed={"h": 3, "k": 2})(lambda x: rearrange(x, split, h=3).sum(-1))


@found_by(laws.broadcasting)
def _(wrong: bool) -> Any:
    """Leading axes are reordered by a reshape."""

    def turn(x: Tensor) -> Tensor:
        return x.flatten(0, -2).mT.reshape(x.shape) if wrong else x.clone()

    return circuit("... y m -> ... y m")(turn)


# --- Leaks between indexes --------------------------------------------------------------------------------------------


@found_by(laws.independent, axis="b")
def _(wrong: bool) -> Any:
    """A batch leaks through BatchNorm in train mode."""
    return circuit("b 3 h w -> b 3 h w")(nn.BatchNorm2d(3).train(wrong))


@found_by(laws.independent)
def _(wrong: bool) -> Any:
    """A mean is taken over the batch."""
    return circuit("... m -> ... m")(lambda x: x - x.mean(0 if wrong else -1, keepdim=True))


@found_by(laws.broadcasting)
def _(wrong: bool) -> Any:
    """A sum is divided by the size of the batch."""
    return circuit("... m -> ...")(lambda x: x.sum(-1) / (x.shape[0] if wrong else x.shape[-1]))


@found_by(laws.causal, axis="y", of="x")
def _(wrong: bool) -> Any:
    """A causal mask is shifted by one and allows the next key."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        score = scores(query, key)
        return mixed(score.masked_fill(ahead(score) < (-1 if wrong else 0), -torch.inf), value)

    return circuit(ATTENTION)(attention)


@found_by(laws.causal, axis="x")
def _(wrong: bool) -> Any:
    """A causal mask is shifted by one and hides a vector from itself."""

    def total(x: Tensor) -> Tensor:
        seen = torch.ones(x.shape[-2], x.shape[-2], dtype=x.dtype).tril(-1 if wrong else 0)
        return einsum(seen, x, "y x, ... x m -> ... y m")

    return circuit("... x m -> ... x m")(total)


@found_by(laws.causal, axis="y", of="x", reach=2, sizes={"y": 5})
def _(wrong: bool) -> Any:
    """A sliding window is too long by one."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        score = scores(query, key)
        far = (ahead(score) < 0) | (ahead(score) >= (3 if wrong else 2))
        return mixed(score.masked_fill(far, -torch.inf), value)

    return circuit(ATTENTION)(attention)


@found_by(laws.causal, axis="x", reach=3)
def _(wrong: bool) -> Any:
    """A causal convolution is padded on both sides."""
    convolve = nn.Conv1d(2, 2, 3)
    border = (1, 1) if wrong else (2, 0)
    return circuit("b 2 x -> b 2 x")(_Then(lambda x: F.pad(x, border), convolve))


# --- Kernels and windows ----------------------------------------------------------------------------------------------


class _Then(nn.Module):
    """The composition of a function and a module, which is applied second."""

    def __init__(self, first: Callable[[Tensor], Tensor], then: nn.Module) -> None:
        super().__init__()
        self.first, self.then = first, then

    def forward(self, x: Tensor) -> Tensor:
        """The module applied to the result of the function."""
        return self.then(self.first(x))


def attention_by(kernel: Callable[..., Tensor]) -> Any:
    """Return attention with the kernel registered."""

    @circuit(ATTENTION, optional={"mask": "... y x"})
    def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        score = scores(query, key)
        if mask is not None:
            score = score.masked_fill(~mask, -30.0) if mask.dtype == torch.bool else score + mask
        return mixed(score, value)

    attention.kernel(kernel)
    return attention


@found_by(laws.kernel)
def _(wrong: bool) -> Any:
    """A kernel ignores the scale."""

    def run(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, mask, scale=1.0 if wrong else None)

    return attention_by(run)


@found_by(laws.kernel)
def _(wrong: bool) -> Any:
    """A kernel ignores the mask."""

    def run(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, None if wrong else mask)

    return attention_by(run)


@found_by(laws.kernel, inputs={"mask": torch.bool})
def _(wrong: bool) -> Any:
    """A kernel inverts the mask."""

    def run(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        score = scores(query, key)
        return mixed(score if mask is None else score.masked_fill(mask if wrong else ~mask, -30.0), value)

    return attention_by(run)


@found_by(laws.kernel)
def _(wrong: bool) -> Any:
    """A definition scales the scores, which overflow in float16, and not the queries."""

    @circuit(ATTENTION)
    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scale = query.shape[-1] ** -0.5
        before, after = (1.0, scale) if wrong else (scale, 1.0)
        return mixed(einsum(query * before, key, "... y k, ... x k -> ... y x") * after, value)

    attention.kernel(lambda query, key, value: F.scaled_dot_product_attention(query, key, value))
    return attention


@found_by(laws.kernel, inputs={"mask": torch.bool}, sizes={"y": 9, "x": 2})
def _(wrong: bool) -> Any:
    """NaN in a value that a mask hides from all queries reaches the output of a kernel."""

    @circuit(ATTENTION, optional={"mask": "... y x"})
    def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        score = scores(query, key)
        if mask is None:
            return mixed(score, value)
        return mixed(score.masked_fill(~mask, -torch.inf), value.where(mask.any(-2)[..., None], 0))

    @attention.kernel
    def _(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None and not wrong:
            value = value.where(mask.any(-2)[..., None], 0)
        score = scores(query, key)
        return mixed(score if mask is None else score.masked_fill(~mask, -torch.inf), value)

    return attention


@found_by(laws.kernel, sizes={"m": 5, "k": 5})
def _(wrong: bool) -> Any:
    """A square weight is transposed."""
    apply = circuit("... m, k m -> ... k")(lambda x, weight: einsum(x, weight, "... m, k m -> ... k"))
    apply.kernel(lambda x, weight: x @ (weight if wrong else weight.mT))
    return apply


@found_by(laws.kernel, sizes={"g": 2, "n": 3})
def _(wrong: bool) -> Any:
    """Heads share the keys of another group."""
    shared = "... g x k -> ... (n g) x k" if wrong else "... g x k -> ... (g n) x k"

    @circuit("... (g n) y k, ... g x k -> ... (g n) y x", fixed={"n": 3})
    def score(query: Tensor, key: Tensor) -> Tensor:
        return einsum(query, repeat(key, shared, n=3), "... h y k, ... h x k -> ... h y x")

    @score.kernel
    def _(query: Tensor, key: Tensor) -> Tensor:
        return query @ key.repeat_interleave(3, -3).mT

    return score


@found_by(laws.kernel, sizes={"x": 7, "i": 3})
def _(wrong: bool) -> Any:
    """A convolution is used for a correlation."""

    @circuit("b x, i -> b x'")
    def slide(signal: Tensor, weight: Tensor) -> Tensor:
        return einsum(signal.unfold(-1, len(weight), 1), weight.flip(0) if wrong else weight, "b x i, i -> b x")

    @slide.kernel
    def _(signal: Tensor, weight: Tensor) -> Tensor:
        return F.conv1d(signal[:, None], weight[None, None])[:, 0]

    return slide


@found_by(laws.equivariant, axis="x")
def _(wrong: bool) -> Any:
    """Values are shifted by one against their keys."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return mixed(scores(query, key), value.roll(1, -2) if wrong else value)

    return circuit(ATTENTION)(attention)


@found_by(laws.shifting, axis="x", to="y", border=1, sizes={"x": 7})
def _(wrong: bool) -> Any:
    """A window depends on its position."""

    def slide(x: Tensor) -> Tensor:
        place = torch.arange(x.shape[-1], dtype=x.dtype)
        return F.pad(x + 0.1 * place if wrong else x, (1, 1)).unfold(-1, 3, 1).sum(-1)

    return circuit("... x -> ... y")(slide)


# --- Linearity, derivatives, one graph --------------------------------------------------------------------------------


@found_by(laws.linear, argument="image")
def _(wrong: bool) -> Any:
    """A linear map has a bias."""
    return circuit("... m -> ... 3", fixed={"m": 5})(_Named(nn.Linear(5, 3, bias=wrong)))


class _Named(nn.Module):
    """A module that calls another; its input is named image."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        """The output of the inner module."""
        return self.inner(image)


@found_by(laws.multilinear)
def _(wrong: bool) -> Any:
    """An inner product ignores the sign of one side."""
    return circuit("... n, ... n -> ...")(lambda x, y: (x * (y.abs() if wrong else y)).sum(-1))


class _Square(torch.autograd.Function):
    """A square whose gradient lacks the factor 2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """The square."""
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        """Half of the correct gradient."""
        (x,) = ctx.saved_tensors
        return x * cotangents[0]


@found_by(laws.gradcheck)
def _(wrong: bool) -> Any:
    """A custom gradient lacks a factor."""
    return circuit("... m -> ... m")(lambda x: _Square.apply(x) if wrong else x.square())


@found_by(laws.gradcheck)
def _(wrong: bool) -> Any:
    """A gradient is detached where it should flow."""
    return circuit("... m -> ... m")(lambda x: x / (x.detach() if wrong else x).exp().sum(-1, keepdim=True))


@found_by(laws.compiles)
def _(wrong: bool) -> Any:
    """A branch depends on the data."""

    def aligned(x: Tensor) -> Tensor:
        if wrong:
            return x if x.sum() > 0 else -x
        return torch.where(x.sum() > 0, x, -x)

    return circuit("... m -> ... m")(aligned)


# --- The table --------------------------------------------------------------------------------------------------------


each = pytest.mark.parametrize("name", DEFECTS)


def test_there_are_twenty_seven() -> None:
    assert len(DEFECTS) == 27


@each
def test_the_law_holds_without_the_defect(name: str) -> None:
    defect = DEFECTS[name]
    defect.law(defect.make(False), **defect.arguments)


@each
def test_the_law_finds_the_defect(name: str, golden: Callable[[str, str], None]) -> None:
    """The message is that of the golden file."""
    defect = DEFECTS[name]
    with pytest.raises(AssertionError) as caught:
        defect.law(defect.make(True), **defect.arguments)
    message = "\n".join(line for line in f"{caught.value}".splitlines() if not line.startswith("  declared at"))
    golden(f"laws/{name.lower().replace(' ', '_').replace(',', '')}.txt", message + "\n")
