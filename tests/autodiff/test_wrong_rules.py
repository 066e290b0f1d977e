# To pyright, the circuits made from lambdas are modules.
# pyright: reportArgumentType=false, reportFunctionMemberAccess=false, reportCallIssue=false, reportOperatorIssue=false
"""Wrong reverse rules, planted one at a time: `laws.backward_rule` detects each, and names the wrong cotangent.

Three tables: rules of operations, each with a function whose wrong cotangent is detected; custom backward circuits; and
functions of the reverse pass.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuits import Window, backward, circuit, einsum, fold, laws, reduce, unfold
from circuits.autodiff import functionalize, reverse_pass
from circuits.autodiff.rules.registry import RULES, Rule, zeros
from circuits.laws.subject import Subject
from circuits.verbs import verbs
from models import by_hand

# Rules of operations -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrong:
    """A wrong rule of an operation.

    Attributes:
        name: The operation, a key of RULES.
        rule: The wrong rule.
        of: The input whose cotangent is wrong.
        text, function: The signature and the function of a circuit that calls the operation.
        arguments: Arguments of the law.
    """

    name: Any
    rule: Callable[..., Any]
    of: str
    text: str
    function: Callable[..., Tensor]
    arguments: dict[str, Any] = field(default_factory=dict)


def square(*axes: str) -> dict[str, Any]:
    """Return arguments in which the axes have equal sizes, so that a transposed tensor has the same shape."""
    return {"sizes": dict.fromkeys(axes, 3)}


def holding(**numbers: Any) -> dict[str, Any]:
    """Return arguments in which inputs, by name, have these values."""
    return {"inputs": {name: lambda _, held=held: torch.tensor(held).double() for name, held in numbers.items()}}


TIES = [[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]

WRONG: dict[str, Wrong] = {
    "matmul: a transpose is missing": Wrong(
        "matmul", lambda dy, x, other: {"x": dy @ other, "other": x.mT @ dy}, "x", "m n, n p -> m p",
        lambda x, other: x @ other, square("m", "n", "p"),
    ),
    "matmul: the broadcast axis is not summed": Wrong(
        "matmul", lambda dy, x, other: {"x": dy @ other.mT, "other": (x.mT @ dy)[0]}, "other",
        "b m n, n p -> b m p", lambda x, other: x @ other,
    ),
    "linear: the bias is summed over the wrong axis": Wrong(
        "linear", lambda dy, x, weight, bias: {"x": dy @ weight, "weight": dy.mT @ x, "bias": dy.sum(1)}, "bias",
        "b m, n m, n -> b n", lambda x, weight, bias: F.linear(x, weight, bias), square("b", "n"),
    ),
    "linear: the weight's cotangent is transposed": Wrong(
        "linear", lambda dy, x, weight: {"x": dy @ weight, "weight": x.mT @ dy}, "weight", "b m, n m -> b n",
        lambda x, weight: F.linear(x, weight), square("m", "n"),
    ),
    "einsum: the others are contracted without the cotangent": Wrong(
        verbs.einsum, lambda dy, args: {"args": [args[1] * 1.0, dy, None]}, "a", "i j, i j -> i j",
        lambda a, b: einsum(a, b, "i j, i j -> i j"),
    ),
    "reduce: the mean lacks its divisor": Wrong(
        verbs.reduce, lambda dy, args: {"args": [dy.unsqueeze(-1).expand(args[0].shape), None, None]}, "x",
        "a b -> a", lambda x: reduce(x, "a b -> a", "mean"),
    ),
    "softmax: the weighted sum is missing": Wrong(
        "softmax", lambda dy, y: dy * y, "x", "a b -> a b", lambda x: x.softmax(-1)
    ),
    "softmax: the sum is over the wrong axis": Wrong(
        "softmax", lambda dy, y: y * (dy - (dy * y).sum(0, keepdim=True)), "x", "a b -> a b", lambda x: x.softmax(-1)
    ),
    "log_softmax: the exponential is missing": Wrong(
        "log_softmax", lambda dy, y, dim: dy - y * dy.sum(dim, keepdim=True), "x", "a b -> a b",
        lambda x: x.log_softmax(-1),
    ),
    "logsumexp: equal shares": Wrong(
        "logsumexp", lambda dy, x: (dy.unsqueeze(-1) / x.shape[-1]).expand(x.shape), "x", "a b -> a",
        lambda x: x.logsumexp(-1),
    ),
    "mean: without 1/n": Wrong(
        "mean", lambda dy, x: dy.unsqueeze(-1).expand(x.shape), "x", "a b -> a", lambda x: x.mean(-1)
    ),
    "sum: along the wrong axis": Wrong(
        "sum", lambda dy, x: dy.unsqueeze(0).expand(x.shape), "x", "a b -> a", lambda x: x.sum(1), square("a", "b")
    ),
    "amax: equal elements each get the whole cotangent": Wrong(
        "amax", lambda dy, y, x: (x == y.unsqueeze(1)) * dy.unsqueeze(1), "x", "2 3 -> 2", lambda x: x.amax(1),
        holding(x=TIES),
    ),
    "maximum: where both are equal the first gets the whole cotangent": Wrong(
        "maximum", lambda dy, x, other: {"x": dy * (x >= other), "other": dy * (x < other)}, "x", "2 3, 2 3 -> 2 3",
        lambda x, other: torch.maximum(x, other), holding(x=TIES, other=TIES),
    ),
    "relu: 1 at 0": Wrong(
        "relu", lambda dy, y: dy * (y >= 0), "x", "3 -> 3", lambda x: x.relu(), holding(x=[-1, 0, 2])
    ),
    "sub: the sign of the second": Wrong(
        "sub", lambda dy: {"x": dy, "other": dy}, "other", "a, a -> a", lambda x, other: x - other
    ),
    "cos: the sign": Wrong("cos", lambda dy, x: dy * x.sin(), "x", "a -> a", lambda x: x.cos()),
    "mul: the broadcast axis is not summed": Wrong(
        "mul", lambda dy, x, other: {"x": dy * other, "other": (dy * x)[:1]}, "other", "a b, 1 b -> a b",
        lambda x, other: x * other,
    ),
    "div: the square is missing": Wrong(
        "div", lambda dy, x, other: {"x": dy / other, "other": -dy * x / other}, "other", "a, a -> a",
        lambda x, other: x / other,
    ),
    "pow: the exponent is not reduced": Wrong(
        "pow", lambda dy, x, exponent: dy * exponent * x**exponent, "x", "a -> a", lambda x: x**3
    ),
    "gelu: one term of a product": Wrong(
        "gelu", lambda dy, x: dy * (torch.erf(x * 0.5**0.5) + 1) * 0.5, "x", "a -> a", lambda x: F.gelu(x)
    ),
    "permute: the same order again": Wrong(
        "permute", lambda dy, dims: dy.permute(dims), "x", "a b c -> b c a", lambda x: x.permute(1, 2, 0),
        square("a", "b", "c"),
    ),
    "roll: the same way again": Wrong(
        "roll", lambda dy, shifts, dims: torch.roll(dy, shifts, dims), "x", "a -> a", lambda x: x.roll(1, 0),
        {"sizes": {"a": 4}},
    ),
    "select: the next index": Wrong(
        "select", lambda dy, x, dim, index: torch.select_scatter(zeros(x), dy, dim, index + 1), "x", "4 a -> a",
        lambda x: x.select(0, 1),
    ),
    "cat: the pieces in the wrong order": Wrong(
        "cat", lambda dy, dim: {"tensors": dy.chunk(2, dim)[::-1]}, "a", "k, k -> k+k", lambda a, b: torch.cat([a, b])
    ),
    "windows: folded with the wrong step": Wrong(
        "unfold", lambda dy, x: zeros(x).index_add(0, torch.arange(6), dy.reshape(6)), "x", "8 -> 3 2",
        lambda x: x.unfold(0, 2, 3),
    ),
    "conv1d: the dilation is dropped": Wrong(
        "conv1d", lambda dy, x, weight: {"x": F.pad(F.conv_transpose1d(dy, weight), (0, 2)), "weight": None}, "x",
        "1 2 7 -> 1 3 3", lambda x: F.conv1d(x, torch.ones(3, 2, 3).to(x).cumsum(0), dilation=2),
    ),
    "gather: overwritten where it was read twice": Wrong(
        "gather", lambda dy, x, dim, index: zeros(x).scatter(dim, index, dy), "x", "3 -> 3",
        lambda x: x.gather(0, torch.tensor([0, 0, 1])),
    ),
    "exp: the argument for the result": Wrong("exp", lambda dy, x: dy * x, "x", "a -> a", lambda x: x.exp()),
    "sigmoid: the result taken for the argument": Wrong(
        "sigmoid", lambda dy, y: dy * y.sigmoid() * (1 - y.sigmoid()), "x", "a -> a", lambda x: x.sigmoid()
    ),
    "sin: right, but not differentiable again": Wrong(
        "sin", lambda dy, x: dy * x.detach().cos(), "x", "a -> a", lambda x: x.sin()
    ),
}  # fmt: skip


def at_one_size(f: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the law with all sizes, so that it does not reduce the sizes of its counterexample."""
    subject = Subject("backward_rule", f, arguments.get("sizes"), arguments.get("inputs"), 0, {})
    return {**arguments, "sizes": {**subject.sizes, **({"...": subject.lead} if subject.lead else {})}}


def blames(of: str) -> str:
    """Return a regular expression for the beginning of a message about this cotangent, of first or second order."""
    return rf"laws.backward_rule: .*\n  (at second order, )?the cotangent of {re.escape(of)}[\[ ]"


def planted(wrong: Callable[..., Any]) -> Rule:
    """Return a rule as the registry stores it."""
    code: Any = wrong.__code__
    return Rule(wrong, code.co_varnames[: code.co_argcount])


@pytest.mark.slow
@pytest.mark.parametrize("defect", WRONG)
def test_the_original_rule_holds(defect: str) -> None:
    """Without the mistake the law holds. This test is slow, because test_reverse_rules tests the same rules."""
    wrong = WRONG[defect]
    laws.backward_rule(circuit(wrong.text)(wrong.function), **wrong.arguments)


@pytest.mark.parametrize("defect", WRONG)
def test_a_wrong_rule_is_caught(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = WRONG[defect]
    f = circuit(wrong.text)(wrong.function)
    arguments = at_one_size(f, wrong.arguments)
    monkeypatch.setitem(RULES, wrong.name, planted(wrong.rule))
    with pytest.raises(AssertionError, match=blames(wrong.of)):
        laws.backward_rule(f, **arguments)


# Custom backward circuits --------------------------------------------------------------------------------------------


@circuit("a b -> a b")
def softmax(x: Tensor) -> Tensor:
    return x.softmax(-1)


@softmax.backward
def _(x: Tensor, dy: Tensor) -> Tensor:
    y = x.softmax(-1)
    return y * (dy - reduce(dy * y, "a b -> a 1", "sum"))


PAIRS = Window("x", "y", "w", 2, stride=3)


@circuit("8 -> y w")
def pairs(x: Tensor) -> Tensor:
    return unfold(x, "x -> y w", PAIRS)


@pairs.backward
def _(x: Tensor, dy: Tensor) -> Tensor:
    return fold(dy, "y w -> x", PAIRS, x=8)


@circuit("... m -> ... m")
def normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=0.1)


@normed.backward
def _(x: Tensor, dy: Tensor) -> Tensor:
    scale = (x.var(-1, keepdim=True, correction=0) + 0.1).rsqrt()
    y = (x - x.mean(-1, keepdim=True)) * scale
    return scale * (dy - dy.mean(-1, keepdim=True) - y * (dy * y).mean(-1, keepdim=True))


@circuit("a -> a")
def raised(x: Tensor) -> Tensor:
    return x.exp()


@raised.backward
def _(x: Tensor, dy: Tensor) -> Tensor:
    return dy * x.exp()


@circuit("a, a -> a")
def gated(x: Tensor, gate: Tensor) -> Tensor:
    return torch.where(gate > 0, x, 0 * x)


@gated.backward
def _(x: Tensor, gate: Tensor, dy: Tensor) -> tuple[Tensor, None]:
    return dy * (gate > 0), None


class Affine(nn.Module):
    """A linear map with a bias."""

    def __init__(self, m: int, n: int) -> None:
        super().__init__()
        self.m, self.n = m, n
        self.weight, self.bias = nn.Parameter(torch.randn(n, m)), nn.Parameter(torch.randn(n))

    @circuit("... m -> ... n", fixed="m n")
    def forward(self, x: Tensor) -> Tensor:
        return einsum(x, self.weight, "... m, n m -> ... n") + self.bias

    @forward.backward
    def gradient(self, x: Tensor, dy: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        dweight, dbias = einsum(dy, x, "... n, ... m -> n m"), reduce(dy, "... n -> n", "sum")
        return einsum(dy, self.weight, "... n, n m -> ... m"), {"weight": dweight, "bias": dbias}


def overwriting(x: Tensor, dy: Tensor) -> Tensor:
    return x.exp_() * dy


def of_affine(dx: Any, dweight: Any, dbias: Any) -> Callable[..., Any]:
    """Return a backward circuit of Affine with each cotangent computed by the function passed, by Affine's if None."""

    def gradient(self: Affine, x: Tensor, dy: Tensor) -> Any:
        right, named = Affine.gradient(self, x, dy)
        named["weight"] = dweight(self, x, dy) if dweight else named["weight"]
        named["bias"] = dbias(self, x, dy) if dbias else named["bias"]
        return dx(self, x, dy) if dx else right, named

    return gradient


@dataclass(frozen=True)
class CustomCase:
    """A function that makes a circuit, a wrong backward circuit, a pattern of the message, and the law's arguments."""

    make: Callable[[], Any]
    wrong: Callable[..., Any]
    says: str
    arguments: dict[str, Any] = field(default_factory=dict)


IMAGES: dict[str, Any] = {"sizes": {"i": 5, "j": 4, "p": 2, "q": 3}}

CUSTOM: dict[str, CustomCase] = {
    "matmul: a transpose is missing": CustomCase(
        lambda: by_hand.matmul, lambda x, y, dz: (dz @ y, x.T @ dz), blames("x"), square("m", "n", "p")
    ),
    "matmul: the two are in the wrong order": CustomCase(
        lambda: by_hand.matmul, lambda x, y, dz: (x.T @ dz, dz @ y.T), blames("x"), square("m", "n", "p")
    ),
    "bias: summed over the wrong axes": CustomCase(
        lambda: by_hand.add_bias, lambda x, bias, dz: (dz, dz.sum((0, 1))), blames("bias"), square("i", "j", "k")
    ),
    "linear: the weight's cotangent is transposed": CustomCase(
        lambda: by_hand.linear, lambda x, weight, bias, dy: (dy @ weight, x.T @ dy, dy.sum(0)), blames("weight"),
        square("p", "k"),
    ),
    "sum: divided by the number of elements": CustomCase(
        lambda: by_hand.total, lambda x, dy: dy * torch.ones_like(x) / x.numel(), blames("x")
    ),
    "softmax: the weighted sum is missing": CustomCase(
        lambda: softmax, lambda x, dy: dy * x.softmax(-1), blames("x")
    ),
    "softmax: the sum is over the wrong axis": CustomCase(
        lambda: softmax, lambda x, dy: x.softmax(-1) * (dy - (dy * x.softmax(-1)).sum(0)), blames("x")
    ),
    "attention: P dO for PᵀdO, as the document has it": CustomCase(
        lambda: by_hand.shared,
        lambda q, k, v, dout: (*by_hand.shared_gradient(q, k, v, dout)[:2], by_hand._shares(q, k) @ dout),
        blames("value"), square("y", "x"),
    ),
    "full convolution: the other is not reversed": CustomCase(
        lambda: by_hand.full,
        lambda a, b, dc: (by_hand.valid_convolution(dc, b), by_hand.full_gradient(a, b, dc)[1]), blames("a"),
    ),
    "same convolution: as in the document, for an even kernel": CustomCase(
        lambda: by_hand.same,
        lambda a, b, dc: (by_hand.same_convolution(dc, b.flip(-1)), by_hand.same_gradient(a, b, dc)[1]),
        blames("a"),
        {"sizes": {"a": 5, "b": 2}},
    ),
    "correlation: the kernel's cotangent is a convolution": CustomCase(
        lambda: by_hand.correlated,
        lambda image, kernel, dy: (
            by_hand.correlated_gradient(image, kernel, dy)[0], by_hand.correlated(image, dy).flip(0, 1)
        ),
        blames("kernel"), IMAGES,
    ),
    "windows: folded with the wrong stride": CustomCase(
        lambda: pairs, lambda x, dy: F.pad(fold(dy, "y w -> x", Window("x", "y", "w", 2)), (0, 4)), blames("x")
    ),
    "layer norm: the part along the result is missing": CustomCase(
        lambda: normed,
        lambda x, dy: (x.var(-1, keepdim=True, correction=0) + 0.1).rsqrt() * (dy - dy.mean(-1, keepdim=True)),
        blames("x"),
    ),
    "no cotangent at all": CustomCase(lambda: raised, lambda x, dy: None, blames("x")),
    "an input is overwritten": CustomCase(
        lambda: raised, overwriting, r"laws.backward_rule: raised.*\n  the backward circuit writes to x"
    ),
    "right, but not differentiable again": CustomCase(
        lambda: raised, lambda x, dy: dy * x.exp().detach(),
        r"laws.backward_rule: raised.*\n  at second order, the cotangent of x\[",
    ),
    "one tensor too few": CustomCase(
        lambda: by_hand.matmul, lambda x, y, dz: dz @ y.T,
        r"laws.backward_rule: matmul.*\n  the backward circuit cannot be made: .* expected 2, got 1",
    ),
    "axes that do not match": CustomCase(
        lambda: by_hand.matmul, lambda x, y, dz: (dz @ y, x.T @ dz),
        r"laws.backward_rule: matmul.*\n  the backward circuit cannot be made: .*",
    ),
    "a method: the bias of the first example alone": CustomCase(
        lambda: Affine(5, 3), of_affine(None, None, lambda self, x, dy: dy[0]), blames("bias")
    ),
    "a method: the mean over the examples": CustomCase(
        lambda: Affine(5, 3), of_affine(None, lambda self, x, dy: dy.mT @ x / len(x), None), blames("weight")
    ),
    "a method: a transpose is missing": CustomCase(
        lambda: Affine(3, 3), of_affine(lambda self, x, dy: dy @ self.weight.mT, None, None), blames("x")
    ),
    "a method: a parameter is missing": CustomCase(
        lambda: Affine(5, 3), lambda self, x, dy: (dy @ self.weight, {"bias": dy.sum(0)}),
        r"laws.backward_rule: Affine.*\n  the backward circuit cannot be made: .* returns no cotangent of weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("f", [softmax, pairs, normed, raised, gated, Affine(5, 3)])
def test_the_backward_circuits_that_are_replaced_hold(f: Any) -> None:
    """The backward circuits of models.by_hand are tested in test_by_hand."""
    laws.backward_rule(f)


@pytest.mark.parametrize("defect", CUSTOM)
def test_a_wrong_custom_backward_is_caught(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CUSTOM[defect]
    f = case.make()
    arguments = at_one_size(f, case.arguments)
    spec: Any = f.forward.circuit if isinstance(f, nn.Module) else f.circuit
    monkeypatch.setattr(spec.body, "backward", case.wrong)
    with pytest.raises(AssertionError, match=case.says):
        laws.backward_rule(f, **arguments)


# The reverse pass ----------------------------------------------------------------------------------------------------


@circuit("a -> a")
def gate_closed_later(x: Tensor) -> Tensor:
    """The gate is overwritten before the reverse pass reads it; autograd saves the condition `gate > 0`."""
    gate = torch.ones(x.shape, dtype=x.dtype)
    found = gated(x, gate)
    gate.neg_()
    return found


def doubled(x: Tensor) -> Tensor:
    """Return 2 x; autograd raises an error in its reverse pass, because the factor 2 has been overwritten by 6."""
    double = torch.full_like(x, 2.0)
    found = x * double
    double.mul_(3)
    return found


@circuit("... 3 -> ... 3")
def used_twice(x: Tensor) -> Tensor:
    """One module is called twice, so that the cotangents of its parameters are added."""
    return SHARED(SHARED(x).tanh())


SHARED = Affine(3, 3).double()


def saves_no_copies(*_: Any) -> list[Any]:
    """Return no copies, as if no overwritten value were read in the reverse pass."""
    return []


def overwrites_cotangents(self: Any, number: int, cotangent: Tensor, is_sum: bool = False) -> None:
    """Set a cotangent instead of adding it to an earlier one."""
    kept = cotangent if not is_sum else self.cotangents.get(number, cotangent)
    self.cotangents[number] = kept
    self.primal.setdefault(self.workspace.number_of(kept), number)


@dataclass(frozen=True)
class ReplacedFunction:
    """A circuit, a method of the reverse pass by class and name, its wrong replacement, and the wrong cotangents."""

    f: Callable[..., Any]
    holder: Any
    name: str
    wrong: Callable[..., Any]
    of: Sequence[str]


REPLACED: dict[str, ReplacedFunction] = {
    "a saved input is read after it changed": ReplacedFunction(
        gate_closed_later, functionalize.ForwardPass, "_copies", saves_no_copies, ["x"]
    ),
    "cotangents of one value are not added": ReplacedFunction(
        circuit("a -> a")(lambda x: x * x.sin()), reverse_pass.ReversePass, "_add", overwrites_cotangents, ["x"]
    ),
    "cotangents of two uses of a module are not added": ReplacedFunction(
        used_twice, reverse_pass.ReversePass, "_add", overwrites_cotangents, ["Affine.weight", "Affine.bias"]
    ),
}


@pytest.mark.parametrize("defect", REPLACED)
def test_a_wrong_reverse_pass_is_caught(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = REPLACED[defect]
    arguments = at_one_size(case.f, {})
    laws.backward_rule(case.f, **arguments)
    monkeypatch.setattr(case.holder, case.name, case.wrong)
    with pytest.raises(AssertionError, match="|".join([blames(name) for name in case.of])):
        laws.backward_rule(case.f, **arguments)


def test_a_factor_that_changed_later_has_its_saved_value() -> None:
    """Autograd raises an error for this function, so that the law cannot be used."""
    x, ones = torch.randn(3).double(), torch.ones(3).double()
    assert torch.equal(backward(doubled, x)(x, ones)["x"], 2 * ones)


# Messages of the law, and where it does not apply --------------------------------------------------------------------


def message_of(f: Any, **arguments: Any) -> str:
    """Return the message of the law, with file names only."""
    with pytest.raises(AssertionError) as caught:
        laws.backward_rule(f, **arguments)
    return re.sub(r"\S*/(\w+\.py):\d+", r"\1", f"{caught.value}\n")


def test_messages(golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages for the wrong cotangent of an input, of a parameter, and of an input with an optional tensor."""
    nested = circuit("... m -> ... n")(nn.Sequential(nn.Tanh(), Affine(5, 3)))
    wrong = CUSTOM["a method: the bias of the first example alone"].wrong
    monkeypatch.setattr(Affine.forward.circuit.body, "backward", wrong)
    monkeypatch.setattr(softmax.circuit.body, "backward", CUSTOM["softmax: the weighted sum is missing"].wrong)

    @circuit("a -> a", optional={"scale": "a"})
    def scaled(x: Tensor, scale: Tensor | None = None) -> Tensor:
        return x.sin() if scale is None else x.sin() * scale

    @scaled.backward
    def _(x: Tensor, scale: Tensor | None, dy: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return dy * x.cos(), {"scale": dy * x.sin()}

    golden(
        "laws/backward_rule.txt",
        "\n".join([message_of(softmax), message_of(nested, sizes={"m": 5}), message_of(scaled)]),
    )


@pytest.mark.parametrize(
    ("text", "f", "why"),
    [
        ("a -> a", lambda x: x > 0, "no output of .* has a derivative"),
        ("a -> a", lambda x: x.detach() * 2, "no output of .* has a derivative"),
        ("a -> ", lambda x: torch.zeros(()) if x.sum() > 0 else x.sum(), "no output of .* has a derivative"),
        ("a -> ", lambda x: x.sum() * 2 if x.sum() > 9 else x.sum(), "needs a value that depends on data"),
    ],
)
def test_where_it_does_not_apply(text: str, f: Any, why: str) -> None:
    with pytest.raises(laws.DoesNotApply, match=why):
        laws.backward_rule(circuit(text)(f))


@circuit("... -> ...")
def hidden(x: Tensor) -> Tensor:
    """A function for which `backward` raises CircuitError."""
    y = x * 3
    with torch.no_grad():
        y.mul_(2)
    return y


def test_it_does_not_apply_where_backward_refuses() -> None:
    with pytest.raises(laws.DoesNotApply, match="writes in place, unseen by autograd"):
        laws.backward_rule(hidden)


def test_all_kinds_of_circuits_hold() -> None:
    """Several inputs, integers, a function that holds a float32 tensor, two outputs, dropout, frozen weights."""
    held = torch.randn(3)
    laws.backward_rule(circuit("a, a, a -> a")(lambda *x: x[0] * x[1] + x[2].sin()))
    laws.backward_rule(circuit("n, v m -> n m", dtypes={"i": torch.long})(lambda i, w: w[i]), inputs={"i": range(3)})
    laws.backward_rule(circuit("3 -> 3")(lambda x: x * held))
    laws.backward_rule(circuit("a b -> a, b")(lambda x: (x.sum(1), x.prod(0))))
    laws.backward_rule(circuit("a m -> a m")(nn.Sequential(nn.Dropout(0.5), nn.Tanh())))
    laws.backward_rule(circuit("a 3 -> a 3")(nn.Linear(3, 3).requires_grad_(False)))
    laws.backward_rule(circuit("a -> a")(torch.sin))


def cases(suite: Any) -> dict[str, Any]:
    (mark,) = suite.pytestmark
    return dict(zip(mark.kwargs["ids"], mark.args[1], strict=True))


def test_it_is_a_case_of_the_suite_for_custom_backward_circuits(monkeypatch: pytest.MonkeyPatch) -> None:
    derived = laws.suite(circuit("a -> a")(torch.sin))
    with pytest.raises(pytest.skip.Exception, match=r"no circuit with a custom backward circuit runs in .*sin"):
        derived(cases(derived)["backward_rule"])
    written = laws.suite(circuit("a b -> a b")(lambda x: softmax(x) * 2))
    written(cases(written)["backward_rule"])
    monkeypatch.setattr(softmax.circuit.body, "backward", CUSTOM["softmax: the weighted sum is missing"].wrong)
    with pytest.raises(AssertionError, match=blames("x")):
        written(cases(written)["backward_rule"])
