# Attributes of modules are Tensor or Module to pyright.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
"""Edge cases of backward circuits: tied weights, statistics, higher orders, low precision, axes of size 1."""

import copy
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from circuits import (
    CircuitError,
    Diagram,
    LinearMap,
    ShapeError,
    Window,
    backward,
    broadcast,
    circuit,
    definitions,
    einsum,
    fold,
    forward_backward,
    simplify,
    unfold,
)
from models.attention import attention
from models.layers import FeedForward
from models.parts.cache import KeyValueCache
from models.transformer import EncoderLayer
from tests.autodiff.test_backward_models import (
    Case,
    agree,
    copied,
    halves_agree,
    layer,
    near,
    positive,
    r,
    ready,
    restore_buffers,
)
from tests.models.test_zoo import MODELS, random_inputs, randomized


def parametrized(cases: Iterable[str], quick: Iterable[str]) -> Any:
    """Parametrize a test by name; it is slow except for the names in `quick`."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in cases]
    )


# --- Tied weights -----------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """One layer under two names, and its weight under a third; `forward` uses only the last two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, dtype=torch.float64)
        self.again = self.first
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.first.weight
        self.register_buffer("shift", r(4))
        self.register_buffer("other", self.shift)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the same weight twice."""
        return self.head((self.again(x) + self.other).tanh()) * self.shift


def test_a_tied_weight_occurs_once_under_its_first_name() -> None:
    """As in `named_parameters`; its cotangent is the sum over both uses."""
    model = Tied()
    diagram = agree(model, r(2, 4))
    assert diagram.result.keys == ("x", *[name for name, _ in model.named_parameters()])


@pytest.mark.slow
def test_a_tied_language_model() -> None:
    model = models.LanguageModel(7, m=4, k=2, h=2, f=3, depth=1).double()
    tokens = torch.tensor([1, 6, 1])
    diagram = backward(model, tokens)
    assert sorted(diagram.result.keys) == sorted(name for name, _ in model.named_parameters())
    back = torch.randn_like(model(tokens))
    names, weights = zip(*model.named_parameters(), strict=True)
    wanted = dict(zip(names, torch.autograd.grad(model(tokens), weights, back), strict=True))
    near(diagram(tokens, back), wanted)


@pytest.mark.parametrize(
    ("wrt", "first"),
    [
        ("first.weight", "first.weight"),
        ("again.weight", "first.weight"),
        ("head.weight", "first.weight"),
        ("again.bias", "first.bias"),
        ("other", "shift"),
        (("head.weight", "x", "first.weight"), ("first.weight", "x")),
    ],
)
def test_wrt_takes_any_of_the_names(wrt: Any, first: Any) -> None:
    model, x, back = Tied(), r(2, 4), r(2, 4)
    every = backward(model, x, wrt=["x", "first.weight", "first.bias", "shift"])(x, back)
    names = (first,) if isinstance(first, str) else first
    found = backward(model, x, wrt=wrt)(x, back)
    assert tuple(found) == names
    near(found, {name: every[name] for name in names})
    assert forward_backward(model, x, wrt=wrt).reverse.result.keys == names


def test_a_buffer_of_two_names() -> None:
    """Each name selects the whole cotangent."""
    model, x, back = Tied(), r(2, 4), r(2, 4)
    leaf = model.shift.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model.head((model.first(x) + leaf).tanh()) * leaf, leaf, back)
    for name in ("shift", "other"):
        near(backward(model, x, wrt=name)(x, back), {"shift": wanted})


def test_wrt_takes_the_names_of_a_module_that_a_function_calls() -> None:
    model = Tied()

    def twice(x: Tensor) -> Tensor:
        return model(x) * 2

    x, back = r(2, 4), r(2, 4)
    assert list(backward(twice, x)(x, back)) == ["x", "Tied.first.weight", "Tied.first.bias"]
    assert list(backward(twice, x, wrt="Tied.head.weight")(x, back)) == ["Tied.first.weight"]
    with pytest.raises(CircuitError, match=r"twice has no floating tensor Tied\.tail; there are x, Tied\.first"):
        backward(twice, x, wrt="Tied.tail")


# --- Statistics -------------------------------------------------------------------------------------------------------


def buffers_after(model: nn.Module, run: Callable[[], Any]) -> dict[str, Tensor]:
    """Return copies of the buffers of a model after `run`, and reset the buffers to their contents before it."""
    before = copied(dict(model.named_buffers()))
    run()
    after = copied(dict(model.named_buffers()))
    restore_buffers(model, before)
    return after


def test_statistics_are_updated_once_for_each_run_of_the_forward_pass() -> None:
    """A diagram changes the buffers as the model does: once for a whole gradient, never in the reverse pass alone."""
    model = randomized(nn.BatchNorm1d(3).double())
    x, back = r(5, 3), r(5, 3)
    once = buffers_after(model, lambda: model(x))
    before = copied(dict(model.named_buffers()))
    joint, halves = backward(model, x), forward_backward(model, x)
    again, slopes = backward(joint), [r(5, 3), r(3), r(3)]
    saved = halves.forward(x)[1]
    restore_buffers(model, before)
    moving: dict[str, Callable[[], Any]] = {
        "joint": lambda: joint(x, back),
        "simplified": lambda: simplify(joint)(x, back),
        "as a function": lambda: joint.function()(x, back),
        "forward": lambda: halves.forward(x),
        "second order": lambda: again(x, back, *slopes),
    }
    for name, run in moving.items():
        near(buffers_after(model, run), once, name)
    near(buffers_after(model, lambda: halves.reverse(saved, back)), before)
    near(buffers_after(model, lambda: (backward(model, x), forward_backward(model, x))), before)


def test_statistics_of_a_layer_used_twice_are_updated_twice() -> None:
    """The second use normalises by its own batch, and updates the statistics after the first use."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.norm(x) * x)

    model: Any = randomized(Twice().double())
    x, back = r(5, 3), r(5, 3)
    once = buffers_after(model, lambda: model(x))
    diagram = backward(model, x)
    near(buffers_after(model, lambda: diagram(x, back)), once)
    assert once["norm.num_batches_tracked"] == model.norm.num_batches_tracked + 2
    agree(model, x)


def test_gradients_by_buffers() -> None:
    """By running statistics in evaluation mode, which reads them, and in training mode, which does not."""
    x, back = r(5, 3), r(5, 3)
    model: Any = randomized(nn.BatchNorm1d(3).double()).eval()
    names = ("running_mean", "running_var")
    mean, var = [getattr(model, name).clone().requires_grad_() for name in names]
    by_formula = (x - mean) / (var + model.eps).sqrt() * model.weight + model.bias
    wanted = torch.autograd.grad(by_formula, (mean, var), back)  # torch itself has no gradient by these
    near(backward(model, x, wrt=names)(x, back), dict(zip(names, wanted, strict=True)))
    halves = forward_backward(model, x, wrt=names)
    near(halves.reverse(halves.forward(x)[1], back), dict(zip(names, wanted, strict=True)))
    near(backward(model.train(), x, wrt="running_mean")(x, back)["running_mean"], torch.zeros(3).double())
    with pytest.raises(CircuitError, match="no floating tensor num_batches_tracked"):
        backward(model, x, wrt="num_batches_tracked")


# --- Higher orders ----------------------------------------------------------------------------------------------------


def orders_agree(f: Any, inputs: tuple[Tensor, ...], order: int) -> None:
    """Assert that `backward`, applied `order` times, agrees with autograd, with cotangents for all gradients.

    Autograd runs the definitions, since torch's fused attention has no second derivative.
    """
    module = f if isinstance(f, nn.Module) else None
    held = {} if module is None else {name: each.detach().requires_grad_() for name, each in module.named_parameters()}
    given = [each.clone().requires_grad_() for each in inputs]
    with definitions():
        output = f(*given) if module is None else torch.func.functional_call(module, held, tuple(given))
    outputs, diagram = [output], backward(f, *inputs)
    for more in reversed(range(order)):
        back = [torch.randn_like(each).requires_grad_() for each in outputs]
        found = diagram(*[each.detach() for each in (*given, *back)])
        watched = [*given, *[held[name] for name in list(found)[len(given) :]]]
        pairs = [pair for pair in zip(outputs, back, strict=True) if pair[0].requires_grad]
        outputs = [*torch.autograd.grad(
            [out for out, _ in pairs], watched, [each for _, each in pairs], create_graph=True, materialize_grads=True
        )]  # fmt: skip
        near([*found.values()], [each.detach() for each in outputs])
        assert diagram.opaque == ()
        given, diagram = [*given, *back], backward(diagram) if more else diagram


def softmax_loss(x: Tensor) -> Tensor:
    """Cross-entropy of three times a softmax, in place of logits."""
    return F.cross_entropy(x.softmax(-1) * 3, torch.tensor([1, 0]))


ORDERS: dict[str, tuple[Callable[[], Any], Callable[[], tuple[Tensor, ...]], int]] = {
    "attention": (lambda: attention, lambda: (r(2, 3), r(3, 3), r(3, 3)), 3),
    "multi-head": (lambda: models.MultiHeadAttention(m=4, k=2, h=2), lambda: (r(2, 4), r(3, 4)), 2),
    "mlp": (lambda: models.MLP(2, 3, 4, 3), lambda: (r(2, 3),), 3),
    "feed-forward": (lambda: FeedForward(3, 4), lambda: (r(2, 3),), 3),
    "encoder layer": (lambda: EncoderLayer(m=4, k=2, h=2, f=3), lambda: (r(3, 4),), 2),
    "convolution": (
        lambda: models.Convolution("c w -> k w'", c=2, k=2, kernel=3, stride=2, padding=1), lambda: (r(2, 5),), 3,
    ),
    "convolution of images": (
        lambda: models.Convolution("c h w -> k h' w'", c=2, k=2, kernel=2, stride=2), lambda: (r(2, 3, 4),), 2,
    ),
    "softmax and cross-entropy": (lambda: softmax_loss, lambda: (r(2, 3),), 3),
    "layer norm": (lambda: nn.LayerNorm(3), lambda: (r(2, 3),), 2),
    "batch norm": (lambda: nn.BatchNorm1d(3).eval(), lambda: (r(4, 3),), 3),
    "batch norm, train": (lambda: nn.BatchNorm1d(3), lambda: (r(4, 3),), 2),
    "visual attention": (
        lambda: models.VisualAttention(c=2, k=2, heads=1, kernel=2, stride=1),
        lambda: (r(1, 2, 2, 2), r(1, 2, 2, 2)),
        2,
    ),
}  # fmt: skip


@parametrized(ORDERS, ("attention", "softmax and cross-entropy", "layer norm", "batch norm, train"))
def test_higher_orders(name: str) -> None:
    make, inputs, order = ORDERS[name]
    model = make()
    orders_agree(randomized(model.double()) if isinstance(model, nn.Module) else model, inputs(), order)


@pytest.mark.slow
def test_the_third_order_of_a_layer_norm() -> None:
    """Against its formula: in its third derivative, torch treats mean and scale as constants."""

    def formula(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        off = x - x.mean(-1, keepdim=True)
        return off / (off.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias

    inputs = (r(2, 3), r(3), r(3))
    mine, by_formula = [
        backward(backward(backward(f, *inputs)))
        for f in (lambda x, weight, bias: F.layer_norm(x, (3,), weight, bias), formula)
    ]
    given = [*inputs, *[r(*each.sizes) for each in mine.inputs[3:]]]
    near(mine(*given), by_formula(*given))


# --- Low precision ----------------------------------------------------------------------------------------------------

PRECISE = ("mlp", "attention", "encoder layer", "convolution", "vision transformer")
LOW = torch.bfloat16


def rounded_near(found: dict[str, Tensor], torchs: dict[str, Tensor], truth: dict[str, Tensor], zero: str) -> None:
    """Assert that errors are at most twice torch's plus one rounding, since the orders of summation differ.

    `found` and `torchs` are the gradients of a diagram and of torch, `truth` those in float64. Gradients whose names
    match `zero` are 0 in exact arithmetic, here pure rounding noise, and are skipped.
    """
    assert found.keys() == torchs.keys()
    for name, exact in truth.items():
        assert found[name].dtype == torchs[name].dtype, name
        if not re.search(zero, name):
            error, torchs_error = [(each[name].double() - exact).norm() for each in (found, torchs)]
            assert error <= 2 * torchs_error + exact.norm() * torch.finfo(LOW).eps, name


def by_torch(model: nn.Module, inputs: list[Tensor], back: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Return torch's own gradients by name, for the names in the result of a diagram."""
    leaves = [each.clone().requires_grad_() for each in inputs]
    held = dict(zip(names, leaves, strict=False)) | dict(model.named_parameters())
    found = torch.autograd.grad(model(*leaves), [held[name] for name in names], back)
    return dict(zip(names, found, strict=True))


@pytest.mark.every(1, 2)
@pytest.mark.slow
@parametrized(PRECISE, ("mlp",))
@pytest.mark.parametrize("whole", [True, False], ids=["bfloat16", "autocast"])
def test_gradients_in_low_precision_have_torchs_dtypes(name: str, whole: bool) -> None:
    """A model in bfloat16, and one in float32 recorded under autocast, which is part of the diagram."""
    entry = MODELS[name]
    model = randomized(entry.make()).eval().to(LOW if whole else torch.float32)
    inputs = random_inputs(entry, model, dtype=LOW if whole else torch.float32, lead=(2,))
    with definitions(), torch.autocast("cpu", LOW, enabled=not whole):
        diagram = backward(model, *inputs)
        back = torch.randn_like(model(*inputs))
        theirs = by_torch(model, inputs, back, list(diagram.result.keys))
    exact = copy.deepcopy(model).double()
    truth = by_torch(exact, [each.double() for each in inputs], back.double(), list(theirs))
    rounded_near(diagram(*inputs, back), theirs, truth, entry.zero_gradients)


class Doubled(torch.autograd.Function):
    """A product of matrices whose gradients have the dtypes of its inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Computed in the dtype of autocast."""
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, *back: Tensor) -> Any:
        """Computed in the dtypes of the inputs."""
        x, weight = ctx.saved_tensors
        return back[0].to(weight.dtype) @ weight.T, x.T @ back[0].to(x.dtype)


CAST: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[str, ...]]] = {
    "our einsum": (lambda x, w: einsum(x, w, "a b, b c -> a c").sin(), ()),
    "torch's": (lambda x, w: torch.einsum("ab,bc->ac", x, w).sin(), ()),
    "of what was cast before": (
        lambda x, w: einsum(einsum(x, w, "a b, b c -> a c").softmax(-1), w.sin(), "a c, b c -> a b"),
        (),
    ),
    "of what was cast before, torch's": (lambda x, w: torch.einsum("ab,bc->ac", x @ w, w.T) * 2, ()),
    "of no product": (lambda x, w: torch.einsum("ab,b->ab", x, w[:, 0]).sin(), ()),
    "tensordot": (lambda x, w: torch.tensordot(x, w, 1).exp(), ()),
    "softmax": (lambda x, w: (x @ w).softmax(-1) * (x @ w), ()),
    "attention": (lambda x, w: F.scaled_dot_product_attention(x, x * 2, x @ w @ w.T), ()),
    "a function of its own": (lambda x, w: Doubled.apply(x, w) * 2, ("∂Doubled",)),
}


@pytest.mark.parametrize("name", CAST)
def test_autocast_inside_a_recorded_function(name: str) -> None:
    """The same casts as torch's, so equal up to one rounding in bfloat16; and the same dtypes."""
    inner, opaque = CAST[name]

    def f(x: Tensor, w: Tensor) -> Tensor:
        with torch.autocast("cpu", LOW):
            return inner(x, w)

    x, w = torch.randn(3, 4), torch.randn(4, 2)
    leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    output = f(*leaves)
    back = torch.randn_like(output)
    wanted = torch.autograd.grad(output, leaves, back)
    diagram = backward(f, x, w)
    assert tuple(box.label for box in diagram.opaque) == opaque
    found = tuple(diagram(x, w, back).values())
    assert [each.dtype for each in found] == [each.dtype for each in wanted]
    torch.testing.assert_close(found, wanted, rtol=0.016, atol=0.016)


def test_gradients_of_a_promoted_product_have_the_dtypes_of_its_factors() -> None:
    """A cotangent has the dtype of its primal, as in torch, whatever dtype the operation promoted to."""
    x, weight, back = torch.randn(3), r(3), r(3)
    leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    wanted = torch.autograd.grad((leaves[0] * leaves[1]).exp(), leaves, back)
    found = tuple(backward(lambda x, weight: (x * weight).exp(), x, weight)(x, weight, back).values())
    assert [each.dtype for each in found] == [torch.float32, torch.float64]
    near(found, wanted)


# --- The algebra of linear maps, windows, broadcasting ----------------------------------------------------------------

WINDOWS = Window.over("h w -> h' w' i j", (2, 3), stride=(2, 1), dilation=(1, 2), padding=(1, (2, 0)))
FIXED = LinearMap(torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), "a -> b c")
LOOK = "c h w -> c h' w' i j"


@circuit("y k, x k, x k -> y k")
def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of one example."""
    score = einsum(query, key, "y k, x k -> y x")
    return einsum(score.softmax(-1), value, "y x, x k -> y k")


@circuit("a b, b -> a")
def weighed(x: Tensor, weight: Tensor) -> Tensor:
    """A nonlinear function of the rows of a matrix."""
    return (x * weight).sin().sum(-1)


def mirrored(mode: Any) -> Callable[[Tensor], Tensor]:
    """A function of the windows on an axis that is padded in this mode."""
    window = Window("h", "h'", "i", 3, stride=2, before=2, after=1, mode=mode)
    return lambda x: unfold(x, "c h -> c i h'", window) ** 2


ALGEBRA: dict[str, Case] = {
    "a map": Case(lambda: lambda w, x: LinearMap(w, "a -> b c")(x), lambda: (r(3, 2, 4), r(5, 3))),
    "a constant map": Case(lambda: FIXED, lambda: (r(5, 3),)),
    "composed maps": Case(
        lambda: lambda v, w, x: (LinearMap(v, "a -> b c") >> LinearMap(w, "c -> d"))(x),
        lambda: (r(3, 2, 4), r(4, 2), r(3)),
    ),
    "transposed axes": Case(
        lambda: lambda w, x: (LinearMap(w, "a -> b c").transpose("a", "b"))(x), lambda: (r(3, 2, 4), r(2))
    ),
    "a map and its adjoint": Case(
        lambda: lambda w, x: (LinearMap(w, "a -> b") >> LinearMap(w, "a -> b").adjoint())(x), lambda: (r(3, 2), r(3))
    ),
    "outer": Case(
        lambda: lambda v, w: LinearMap(v, "a -> b").outer(LinearMap(w, "c -> d")).tensor ** 2,
        lambda: (r(3, 2), r(1, 4)),
    ),
    "a trace": Case(lambda: lambda w: LinearMap(w, "a -> a b").contract("a").tensor ** 2, lambda: (r(3, 3, 2),)),
    "a diagonal": Case(
        lambda: lambda w, x: (LinearMap.diagonal("a", 3) >> LinearMap(w, "a -> b"))(x), lambda: (r(3, 2), r(3, 3))
    ),
    **{f"windows, {mode}": Case(partial(mirrored, mode), lambda: (r(2, 6),))
       for mode in ("zeros", "reflect", "replicate", "circular")},
    "windows of two axes": Case(lambda: lambda x: unfold(x, LOOK, *WINDOWS).sin(), lambda: (r(2, 4, 5),)),
    "windows, folded": Case(
        lambda: lambda x: fold(x.sin(), "c h' w' i j -> c h w", *WINDOWS, h=4, w=5), lambda: (r(2, 3, 3, 2, 3),)
    ),
    "windows, unfolded and folded": Case(
        lambda: lambda x: fold(unfold(x, LOOK, *WINDOWS) ** 2, "c h' w' i j -> c h w", *WINDOWS, h=4, w=5),
        lambda: (r(2, 4, 5),),
    ),
    "lifted": Case(
        lambda: broadcast(attend, "y k h, x k h, x k h -> y k h"), lambda: (r(2, 3, 2), r(4, 3, 2), r(4, 3, 2))
    ),
    "lifted, one shared": Case(lambda: broadcast(weighed, "n a b m, b -> n a m"), lambda: (r(2, 3, 4, 1), r(4))),
    "lifted in pieces": Case(
        lambda: broadcast(weighed, "n a b, n b -> n a", chunk_size=2), lambda: (r(3, 2, 4), r(3, 4))
    ),
    "a lifted map": Case(lambda: broadcast(FIXED, "a y -> b c y"), lambda: (r(3, 2),)),
    "a lifted module": Case(
        lambda: broadcast(models.MultiHeadAttention(m=4, k=2, h=2).double(), "n y m, x m -> n y m"),
        lambda: (r(2, 2, 4), r(3, 4)),
    ),
}  # fmt: skip


@parametrized(ALGEBRA, ("a map", "transposed axes", "a trace", "windows, zeros", "windows, unfolded and folded"))
def test_maps_windows_and_lifted_circuits(name: str) -> None:
    """One diagram and two diagrams against torch.func.vjp; second order for some in the next test."""
    agree(ALGEBRA[name].make(), *ALGEBRA[name].inputs())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["composed maps", "windows, unfolded and folded", "windows, reflect", "lifted"])
def test_maps_windows_and_lifted_circuits_twice(name: str) -> None:
    orders_agree(ALGEBRA[name].make(), ALGEBRA[name].inputs(), 2)


# --- Complex numbers --------------------------------------------------------------------------------------------------


def z(*shape: int) -> Tensor:
    """Random complex numbers of this shape."""
    return torch.complex(r(*shape), r(*shape))


def complex_agree(f: Callable[..., Any], *inputs: Tensor) -> Diagram:
    """Assert that one diagram, two diagrams, and the second order have autograd's cotangents, complex ones included."""
    leaves = [each.clone().requires_grad_() for each in inputs]
    output = f(*leaves)
    back = torch.randn_like(output).requires_grad_()
    wanted = torch.autograd.grad(output, leaves, back, create_graph=True, materialize_grads=True)
    joint, halves = backward(f, *inputs), forward_backward(f, *inputs)
    near([*joint(*inputs, back.detach()).values()], [each.detach() for each in wanted])
    outputs, saved = halves.forward(*inputs)
    near(outputs, output.detach())
    near([*halves.reverse(saved, back.detach()).values()], [each.detach() for each in wanted])
    slopes = [torch.randn_like(each) for each in wanted]
    pairs = [(each, slope) for each, slope in zip(wanted, slopes, strict=True) if each.requires_grad]
    second = torch.autograd.grad(
        [each for each, _ in pairs], [*leaves, back], [slope for _, slope in pairs], materialize_grads=True
    )
    near([*backward(joint)(*inputs, back.detach(), *slopes).values()], [*second])
    return joint


COMPLEX: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Tensor, ...]]]] = {
    "a spectrum as output": (torch.fft.fft, lambda: (r(5),)),
    "a spectrum as input": (lambda x: torch.fft.irfft(x, n=5), lambda: (z(3),)),
    "products": (lambda x, y: x * y + x / y, lambda: (z(3), z(3))),
    "by a real one": (lambda x, y: x * y, lambda: (z(3), r(3))),
    "matrices": (lambda x, y: (x @ y).exp(), lambda: (z(2, 3), z(3, 2))),
    "sizes": (lambda x: x.abs() + x.real * x.imag, lambda: (z(4),)),
    "conjugates": (lambda x: x.conj() * x.mT, lambda: (z(2, 2),)),
    "made of two": (lambda x, y: torch.complex(x, y).square(), lambda: (r(3), r(3))),
    "seen as pairs": (lambda x: torch.view_as_complex(x.sin()) * 2, lambda: (r(3, 2),)),
}


@parametrized(COMPLEX, ("a spectrum as output", "a spectrum as input", "by a real one", "matrices"))
def test_gradients_of_complex_numbers_are_torchs(name: str) -> None:
    """By opaque boxes, each listed: reverse rules are for real numbers."""
    f, inputs = COMPLEX[name]
    assert complex_agree(f, *inputs()).opaque


def overwritten(z: Tensor, write: Callable[[Tensor], Any]) -> Tensor:
    """Twice a copy of complex numbers that was written to."""
    copied = z * 1
    write(copied)
    return copied * (2 + 1j)


COMPLEX_WITHOUT_TENSORS: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Tensor, ...]]]] = {
    "times a complex number": (lambda x: (x * 1j).imag, lambda: (r(3),)),
    "a complex number divided": (lambda x: ((2 + 1j) / x).imag, lambda: (r(3).exp(),)),
    "a complex power": (lambda x: (x ** (1 + 1j)).abs(), lambda: (r(3).exp(),)),
    "a complex basis": (lambda x: ((2 * 1j) ** x).imag, lambda: (r(3),)),
    "another dtype": (lambda x: (x.to(torch.complex128) * 1j).imag, lambda: (r(3),)),
    "einsum": (lambda x, y: einsum(x, y, "i, i j -> j"), lambda: (z(3), z(3, 2))),
    "einsum with a real one": (lambda x, y: einsum(x, y, "i j, j k -> i k"), lambda: (z(2, 3), z(3, 2))),
    "copied into": (lambda x, y: overwritten(y, lambda c: c.copy_(x)), lambda: (r(3), z(3))),
    "copied into a part": (lambda x, y: overwritten(y, lambda c: c[:, 1:].copy_(x)), lambda: (r(2), z(2, 3))),
    "an index set": (lambda x, y: overwritten(y, lambda c: c.__setitem__(0, x)), lambda: (r(3), z(2, 3))),
    "a diagonal": (lambda x, y: overwritten(y, lambda c: c.diagonal().copy_(x)), lambda: (r(3), z(3, 3))),
    "only a real part": (lambda x, y: overwritten(x, lambda c: c.copy_(y)), lambda: (r(3), r(3))),
}


@pytest.mark.every(2)
@parametrized(COMPLEX_WITHOUT_TENSORS, COMPLEX_WITHOUT_TENSORS)
def test_gradients_through_complex_numbers_and_contractions_have_the_right_sign(name: str) -> None:
    f, inputs = COMPLEX_WITHOUT_TENSORS[name]
    complex_agree(f, *inputs())


# --- One tensor twice -------------------------------------------------------------------------------------------------


def test_one_tensor_passed_twice_is_one_input() -> None:
    """Its cotangent is the sum; two different tensors are refused."""
    model, x, back = ready(MODELS["attention"]), r(3, 6), r(3, 6)
    diagram = backward(model, x, x)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model(leaf, leaf), leaf, back)
    near(diagram(x, x, back)["target"], wanted)
    assert "source" not in diagram.result.keys
    with pytest.raises(CircuitError, match="source: expected the same tensor as for an earlier argument"):
        diagram(x, r(3, 6), back)


# --- Free axes and caches ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_recurrent_layer_needs_a_fixed_number_of_steps() -> None:
    """Torch decomposes it into its steps, so a diagram of its gradient has one number of steps and refuses others."""
    diagram = backward(nn.RNN(2, 2).double(), axes="t b 2", sizes={"t": 3})
    assert diagram.fixed == ()
    with pytest.raises(ShapeError, match="expected 3"):
        diagram(r(4, 5, 2), r(4, 5, 2), r(1, 5, 2))
    assert diagram(r(3, 5, 2), r(3, 5, 2), r(1, 5, 2))["input"].shape == (3, 5, 2)


@pytest.mark.every(1, 3)
@pytest.mark.slow
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_recurrent_layer_without_a_number_of_steps_reports_the_one_it_was_fixed_to(kind: Any) -> None:
    diagram = backward(kind(2, 2).double(), axes="t b 2")
    (fixed,) = diagram.fixed
    assert (fixed.axis, fixed.by) == ("t", kind.__name__.lower().replace("rnn", "rnn_tanh"))
    x, states = r(2, 5, 2), [r(1, 5, 2)] * (1 + (kind is nn.LSTM))
    with pytest.raises(ShapeError, match=rf"t is 2 in .*, expected {fixed.size}|with t = {fixed.size}, got t = 2"):
        diagram(x, r(2, 5, 2), *states)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"proj_size": 3}]
)
def test_gradients_of_an_lstm_of_float32_are_those_of_torch(options: dict[str, Any]) -> None:
    """Such a layer, unless it is projected, is one operation of torch's on a CPU, whose states are half the result."""
    torch.manual_seed(0)
    model = nn.LSTM(8, 5, **options)
    x = torch.randn(7, 4, 8, requires_grad=True)
    output, states = model(x)
    back = [torch.randn_like(each) for each in (output, *states)]
    wanted = torch.autograd.grad([output, *states], [x, *model.parameters()], back)
    found = backward(model, x)(x, *back)
    names = ["input", *[name for name, _ in model.named_parameters()]]
    torch.testing.assert_close([found[name] for name in names], list(wanted))


@pytest.mark.slow
def test_no_gradient_flows_into_a_cache() -> None:
    """The cache refuses keys that require a gradient, so a run without gradients says nothing about one with them."""
    cache = KeyValueCache(x=6, k=2, g=1, dtype=torch.float64)
    cache.append(r(1, 2, 2), r(1, 2, 2))
    key, value = r(1, 1, 2), r(1, 1, 2)
    with pytest.raises(CircuitError, match=r"read requires_grad at .*cache.py:\d+ as False"):
        backward(cache.append, key, value)
    with pytest.raises(CircuitError, match="keys require a gradient"):
        backward(cache.append, key.requires_grad_(), value)


# --- Sizes 1 and 0 ----------------------------------------------------------------------------------------------------

CLASS = torch.tensor([2])

ONES: dict[str, tuple[Callable[[], Any], Callable[[], list[tuple[Any, ...]]]]] = {
    "Linear": (layer(nn.Linear, 4, 1), lambda: [(r(1, 4),), (r(1, 1, 4),), (r(4),)]),
    "Bilinear": (layer(nn.Bilinear, 4, 1, 2), lambda: [(r(1, 4), r(1, 1)), (r(4), r(1))]),
    "Conv1d": (layer(nn.Conv1d, 4, 6, 3, padding=1, groups=2), lambda: [(r(1, 4, 3),), (r(2, 4, 1),), (r(4, 1),)]),
    "Conv1d, continued": (
        layer(nn.Conv1d, 2, 3, 3, padding=1, padding_mode="replicate"), lambda: [(r(1, 2, 3),), (r(2, 2, 1),)],
    ),
    "Conv2d": (layer(nn.Conv2d, 3, 2, 3, stride=2, padding=1), lambda: [(r(1, 3, 4, 3),), (r(2, 3, 1, 1),)]),
    "Conv3d": (layer(nn.Conv3d, 2, 1, 1), lambda: [(r(1, 2, 2, 1, 2),), (r(2, 2, 1, 1, 1),)]),
    "ConvTranspose1d": (
        layer(nn.ConvTranspose1d, 4, 2, 3, stride=2, output_padding=1), lambda: [(r(1, 4, 3),), (r(2, 4, 1),)],
    ),
    "ConvTranspose2d": (
        layer(nn.ConvTranspose2d, 4, 2, 3, stride=2, groups=2), lambda: [(r(1, 4, 2, 3),), (r(2, 4, 1, 1),)],
    ),
    "RNN": (layer(nn.RNN, 3, 4, bidirectional=True), lambda: [(r(3, 1, 3),), (r(1, 2, 3),)]),
    "LSTM": (layer(nn.LSTM, 3, 4, batch_first=True), lambda: [(r(1, 3, 3),), (r(2, 1, 3),)]),
    "GRU": (layer(nn.GRU, 3, 4), lambda: [(r(3, 1, 3),), (r(1, 3),)]),
    "LSTMCell": (layer(nn.LSTMCell, 3, 4), lambda: [(r(1, 3),), (r(3),)]),
    "GRUCell": (layer(nn.GRUCell, 1, 1), lambda: [(r(1, 1),), (r(1),)]),
    "Embedding": (layer(nn.Embedding, 5, 1), lambda: [(CLASS.unsqueeze(0),), (CLASS[0],)]),
    "EmbeddingBag": (layer(nn.EmbeddingBag, 5, 3), lambda: [(CLASS.unsqueeze(0),), (CLASS, CLASS * 0)]),
    "BatchNorm1d, train": (layer(nn.BatchNorm1d, 3, train=True), lambda: [(r(1, 3, 2),), (r(2, 3, 1),)]),
    "BatchNorm2d": (layer(nn.BatchNorm2d, 3), lambda: [(r(1, 3, 2, 2),), (r(1, 3, 1, 1),)]),
    "BatchNorm2d, train": (layer(nn.BatchNorm2d, 1, train=True), lambda: [(r(1, 1, 2, 1),), (r(2, 1, 1, 1),)]),
    "InstanceNorm1d": (layer(nn.InstanceNorm1d, 3, affine=True), lambda: [(r(1, 3, 4),), (r(3, 4),)]),
    "GroupNorm": (layer(nn.GroupNorm, 2, 4), lambda: [(r(1, 4, 3),), (r(2, 4, 1),)]),
    "LayerNorm": (layer(nn.LayerNorm, 4), lambda: [(r(1, 4),), (r(4),)]),
    "LayerNorm of one": (layer(nn.LayerNorm, 1), lambda: [(r(1, 1),), (r(3, 1),)]),
    "RMSNorm": (layer(nn.RMSNorm, 1), lambda: [(r(1, 1),), (r(3, 1),)]),
    "LocalResponseNorm": (layer(nn.LocalResponseNorm, 2), lambda: [(r(1, 5, 3),), (r(1, 1, 1),)]),
    "MultiheadAttention": (
        layer(nn.MultiheadAttention, 6, 2, batch_first=True),
        lambda: [(r(1, 2, 6), r(1, 3, 6), r(1, 3, 6)), (r(2, 1, 6), r(2, 1, 6), r(2, 1, 6))],
    ),
    "TransformerEncoderLayer": (
        layer(nn.TransformerEncoderLayer, 4, 2, 3, train=True, batch_first=True),
        lambda: [(r(1, 3, 4),), (r(2, 1, 4),)],
    ),
    "TransformerDecoderLayer": (
        layer(nn.TransformerDecoderLayer, 4, 2, 3), lambda: [(r(2, 1, 4), r(3, 1, 4)), (r(1, 2, 4), r(1, 2, 4))],
    ),
    "PReLU": (layer(nn.PReLU, 1), lambda: [(r(1, 1),), (r(2, 3),)]),
    "Softmax2d": (layer(nn.Softmax2d), lambda: [(r(1, 1, 1, 1),), (r(1, 3, 1, 1),)]),
    "CrossEntropyLoss": (
        layer(nn.CrossEntropyLoss, label_smoothing=0.1),
        lambda: [(r(1, 4), CLASS), (r(1), CLASS[0] * 0), (r(1, 4, 1, 1), CLASS.reshape(1, 1, 1))],
    ),
    "MSELoss": (layer(nn.MSELoss), lambda: [(r(1), r(1)), (r(), r())]),
    "KLDivLoss": (
        layer(nn.KLDivLoss, reduction="batchmean"), lambda: [(r(1, 3), positive(1, 3)), (r(2, 1), positive(2, 1))],
    ),
    "CosineSimilarity": (layer(nn.CosineSimilarity), lambda: [(r(1, 4), r(1, 4)), (r(3, 1), r(3, 1))]),
    "MaxPool2d": (layer(nn.MaxPool2d, 2, padding=1), lambda: [(r(1, 2, 4, 5),), (r(2, 1, 1, 1),)]),
    "AvgPool2d": (layer(nn.AvgPool2d, 2, padding=1), lambda: [(r(1, 2, 4, 5),), (r(2, 1, 1, 1),)]),
    "AdaptiveAvgPool2d": (layer(nn.AdaptiveAvgPool2d, 3), lambda: [(r(1, 2, 4, 5),), (r(2, 1, 1, 1),)]),
    "AdaptiveMaxPool1d": (layer(nn.AdaptiveMaxPool1d, 2), lambda: [(r(1, 2, 4),), (r(2, 1),)]),
    "Upsample": (
        layer(nn.Upsample, scale_factor=2, mode="bilinear"), lambda: [(r(1, 2, 3, 4),), (r(1, 2, 1, 1),)],
    ),
    "PixelShuffle": (layer(nn.PixelShuffle, 2), lambda: [(r(1, 4, 1, 1),), (r(4, 1, 1),)]),
    "Unfold": (layer(nn.Unfold, 1), lambda: [(r(1, 2, 1, 1),), (r(2, 2, 3),)]),
    "Fold": (layer(nn.Fold, (2, 2), 1), lambda: [(r(1, 2, 4),), (r(3, 4),)]),
    "products of one": (lambda: lambda x: x.prod(0) * x.cumprod(0), lambda: [(r(1, 1),), (r(1, 3),)]),
    "joined with nothing": (lambda: lambda x, y: torch.cat((x, y)).sin(), lambda: [(r(0), r(1)), (r(0, 2), r(1, 2))]),
    "no examples": (layer(nn.Linear, 3, 2), lambda: [(r(0, 3),), (r(2, 0, 3),)]),
    "no images": (layer(nn.Conv2d, 3, 2, 1), lambda: [(r(0, 3, 2, 2),)]),
    "no vectors": (layer(nn.LayerNorm, 3), lambda: [(r(0, 3),)]),
}  # fmt: skip


@parametrized(ONES, ("Linear", "Conv1d", "BatchNorm1d, train", "LayerNorm of one", "AdaptiveAvgPool2d", "no examples"))
def test_sizes_of_one(name: str) -> None:
    """Layers of torch with a batch of size 1 and with an axis of size 1; some with an axis of size 0."""
    make, inputs = ONES[name]
    for each in inputs():
        halves_agree(make(), *each)


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_zoo_at_one_example(name: str) -> None:
    """A batch of size 1, where a signature has a batch axis; test_backward_models tests other axes of size 1."""
    model = ready(MODELS[name])
    halves_agree(model, *random_inputs(MODELS[name], model, dtype=torch.float64, lead=(1,)))


@pytest.mark.parametrize("std", [1.0, torch.full((3,), 0.5, dtype=torch.float64)], ids=["number", "tensor"])
def test_random_numbers_drawn_around_a_mean_have_no_gradient_by_it(std: Any) -> None:
    """As in torch; both draw the same numbers."""
    x, back = r(3), r(3)
    diagram = backward(lambda x: torch.normal(x, std) * x, x)
    torch.manual_seed(4)
    found = diagram(x, back)["x"]
    torch.manual_seed(4)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(torch.normal(leaf, std) * leaf, leaf, back)
    near([found], [wanted])


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * x.sum().item() + x**2,
        lambda x: (x / (1 + abs(x[0].item()))).sin() * x[1].item(),
        lambda x: x * (2 * sum(x.tolist()) - 1),
        lambda x: x.clone().mul_(x.argmax().item() + 1).exp(),
    ],
    ids=["item", "two items", "tolist", "int"],
)
def test_a_number_read_from_data_is_a_constant_of_the_gradient(f: Callable[[Tensor], Tensor]) -> None:
    gradients = backward(f, torch.ones(3, dtype=torch.float64))
    x = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    (expected,) = torch.autograd.grad(f(x), x, weight)
    assert torch.allclose(gradients(x.detach(), weight)["x"], expected, 1e-12, 1e-12)
