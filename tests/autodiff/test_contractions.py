"""Rewrites of contractions: each is compared with the original in float64, on random numbers."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import Diagram, backward, circuit, einsum, rearrange, simplify, trace
from models import MultiHeadAttention
from models.attention import attention


def r(*shape: int) -> Tensor:
    """Random numbers of this shape, in float64."""
    return torch.randn(shape, dtype=torch.float64)


def calls(diagram: Diagram) -> list[str]:
    return [box.label for box in diagram.walk() if box.call is not None]


def same(diagram: Diagram, *inputs: Tensor) -> list[str]:
    """Assert that a simplified diagram computes the same, up to the rounding of reordered sums; return its labels."""
    smaller = simplify(diagram)
    found, wanted = smaller(*inputs), diagram(*inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    return calls(smaller)


Rewrite = tuple[Callable[..., Any], list[tuple[int, ...]], list[str]]

REWRITES: dict[str, Rewrite] = {
    "an einsum of an einsum is one": (
        lambda x, w, u: einsum(einsum(x, w, "b i, i j -> b j"), u, "b j, j k -> b k"),
        [(5, 3), (3, 4), (4, 2)], ["einsum 'b i, i j, j k -> b k'"],
    ),
    "on either side": (
        lambda x, w, u: einsum(u, einsum(x, w, "b i, i j -> b j"), "j k, b j -> k b"),
        [(5, 3), (3, 4), (4, 2)], ["einsum 'j k, b i, i j -> k b'"],
    ),
    "letters that mean something else outside": (
        lambda x, w, u: einsum(einsum(x, w, "i b, b j -> i j"), u, "b i, i k -> b k"),
        [(5, 3), (3, 4), (4, 2)], ["einsum 'i b, b j, j k -> i k'"],
    ),
    "torch's own einsum too": (
        lambda x, w, u: torch.einsum("...j,jk->...k", torch.einsum("...i,ij->...j", x, w), u),
        [(2, 5, 3), (3, 4), (4, 2)], ["einsum 'a b i, i j, j k -> a b k'"],
    ),
    "a result that is read twice stays": (
        lambda x, w: einsum(y := einsum(x, w, "b i, i j -> b j"), y, "b j, c j -> b c"),
        [(5, 3), (3, 4)], ["einsum 'b i, i j -> b j'", "einsum 'b j, c j -> b c'"],
    ),
    "a result that is an output stays": (
        lambda x, w, u: (y := einsum(x, w, "b i, i j -> b j"), einsum(y, u, "b j, j k -> b k")),
        [(5, 3), (3, 4), (4, 2)], ["einsum 'b i, i j -> b j'", "einsum 'b j, j k -> b k'"],
    ),
    "a transpose is read through": (
        lambda x, w: einsum(x.mT, w, "i b, i j -> b j"), [(5, 3), (3, 4)], ["einsum 'b i, i j -> b j'"]
    ),
    "a permutation is read through, and twice": (
        lambda x, w: einsum(x.permute(2, 0, 1).transpose(1, 2), w, "i b a, i j -> a b j"),
        [(2, 5, 3), (3, 4)], ["einsum 'a b i, i j -> a b j'"],
    ),
    "a rearrangement is read through": (
        lambda x, w: einsum(rearrange(x, "... b i -> i ... b"), w, "i a b, i j -> a b j"),
        [(2, 5, 3), (3, 4)], ["einsum 'a b i, i j -> a b j'"],
    ),
    "a grouping is not": (
        lambda x, w: einsum(rearrange(x, "a b i -> (a b) i"), w, "b i, i j -> b j"),
        [(2, 5, 3), (3, 4)], ["rearrange 'a b i -> (a b) i'", "einsum 'b i, i j -> b j'"],
    ),
    "the transpose of an einsum is an einsum": (
        lambda x, w: einsum(x, w, "b i, i j -> b j").mT, [(5, 3), (3, 4)], ["einsum 'b i, i j -> j b'"]
    ),
    "a result that is read both directly and transposed stays": (
        lambda x, w: (y := einsum(x, w, "b i, i j -> b j")).exp() + y.mT,
        [(4, 3), (3, 4)], ["einsum 'b i, i j -> b j'", "exp", "mT", "add"],
    ),
    "a sum that makes it cheaper is taken first": (
        lambda x, w: einsum(einsum(x, "a b -> a"), w, "a, a c -> c"),
        [(5, 4), (5, 6)], ["einsum 'a b -> a'", "einsum 'a, a c -> c'"],
    ),
    "an outer product that is summed immediately": (
        lambda x, y, z: einsum(einsum(x, y, "a, b -> a b"), z, "a b, b -> a"),
        [(5,), (4,), (4,)], ["einsum 'a, b, b -> a'"],
    ),
    "a diagonal stays": (
        lambda x, y: einsum(einsum(x, y, "a b, b c -> a c"), "a a -> a"),
        [(4, 5), (5, 4)], ["einsum 'a b, b c -> a c'", "einsum 'a a -> a'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REWRITES)
def test_every_rewrite_and_its_exceptions(name: str) -> None:
    f, shapes, expected = REWRITES[name]
    inputs = [r(*shape) for shape in shapes]
    assert same(trace(f, *inputs), *inputs) == expected


def test_a_merged_einsum_takes_the_cheap_order() -> None:
    """A chain that is cheap from the left is expensive from the right; a merged einsum chooses the order itself."""
    x, w, u = r(2, 50), r(50, 60), r(60, 40)
    (label,) = same(
        trace(lambda x, w, u: einsum(x, einsum(w, u, "i j, j k -> i k"), "b i, i k -> b k"), x, w, u), x, w, u
    )
    assert label == "einsum 'b i, i j, j k -> b k'"


def test_einsums_of_free_axes_are_merged_if_no_size_makes_that_expensive() -> None:
    @circuit("b i, i j, j k -> b k")
    def chain(x: Tensor, w: Tensor, u: Tensor) -> Tensor:
        return einsum(einsum(x, w, "b i, i j -> b j"), u, "b j, j k -> b k")

    diagram = simplify(trace(chain))
    assert calls(diagram) == ["einsum 'b i, i j, j k -> b k'"]
    for sizes in ((2, 3, 4, 5), (7, 3, 2, 2)):
        x, w, u = r(*sizes[:2]), r(*sizes[1:3]), r(*sizes[2:])
        torch.testing.assert_close(diagram(x, w, u), x @ w @ u)


def test_circuits_keep_their_boxes() -> None:
    """A contraction is not moved from one circuit into another."""

    @circuit("b i, i j -> b j")
    def layer(x: Tensor, w: Tensor) -> Tensor:
        return einsum(x, w, "b i, i j -> b j")

    diagram = trace(lambda x, w, u: layer(layer(x, w), u), x := r(5, 3), w := r(3, 4), u := r(4, 2))
    assert same(diagram, x, w, u) == ["einsum 'b i, i j -> b j'"] * 2


AXES = "abcde"
SIZES = dict(zip(AXES, (2, 3, 1, 4, 2), strict=True))


@st.composite
def chains(draw: Any) -> list[tuple[tuple[int, ...], tuple[str, ...], str]]:
    """Einsums of earlier tensors: their numbers, their axes, and the axes of the result. Tensors 0, 1, 2 are given."""
    ranks = [2, 2, 3]
    steps = []
    for _ in range(draw(st.integers(2, 4))):
        which = tuple(draw(st.lists(st.integers(0, len(ranks) - 1), min_size=1, max_size=2)))
        sides = tuple("".join(draw(st.permutations(AXES))[: ranks[each]]) for each in which)
        known = sorted(set("".join(sides)))
        out = "".join(draw(st.permutations(known))[: draw(st.integers(1, min(3, len(known))))])
        steps.append((which, sides, out))
        ranks.append(len(out))
    return steps


@pytest.mark.slow
@given(chains())
@settings(max_examples=40)
def test_random_chains_of_einsums_and_their_gradients(steps: list[Any]) -> None:
    """All axes have size 3, so that every tensor fits every argument."""

    def f(*given: Tensor) -> Tensor:
        values = list(given)
        for which, sides, out in steps:
            pattern = f"{', '.join([' '.join(side) for side in sides])} -> {' '.join(out)}"
            values.append(einsum(*[values[each] for each in which], pattern))
        return values[-1]

    inputs = r(3, 3), r(3, 3), r(3, 3, 3)
    diagram = trace(f, *inputs)
    left = same(diagram, *inputs)
    assert len(left) <= len(calls(diagram))
    gradient = backward(f, *inputs)
    back = torch.randn_like(f(*inputs))
    smaller = simplify(gradient)(*inputs, back)  # to 1e-9 below: sums of up to 3^5 products, in another order
    leaves = [each.clone().requires_grad_() for each in inputs]
    wanted = torch.autograd.grad(f(*leaves), leaves, back, allow_unused=True)
    for mine, theirs in zip(smaller.values(), wanted, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if theirs is None else theirs, rtol=1e-9, atol=1e-9)


# Row sums of products -------------------------------------------------------------------------------------------------


def sums(diagram: Diagram) -> list[str]:
    return [str(value) for box in diagram.walk() if box.label.startswith("sum") for value in box.inputs]


def test_the_row_sum_is_computed_from_the_output_if_that_exists_and_is_smaller() -> None:
    """The output exists if the projection after attention reads it; without the projection it is unused."""
    projected = lambda q, k, v, w: attention.circuit.definition(q, k, v) @ w  # noqa: E731
    inputs, back = (r(6, 3), r(7, 3), r(7, 3), r(3, 2)), r(6, 2)
    gradient = backward(projected, *inputs)
    same(gradient, *inputs, back)
    assert [len(each.split()) for each in sums(gradient)] == [2]
    shapes = lambda diagram: [  # noqa: E731
        value.shape for box in diagram.walk() if box.label.startswith("sum") for value in box.inputs
    ]
    assert shapes(gradient) == ["6 7"]
    assert shapes(simplify(gradient)) == ["6 3"]
    alone = backward(attention, *inputs[:3])
    assert shapes(simplify(alone)) == ["6 7"]
    wide = backward(projected, r(6, 3), r(5, 3), r(5, 3), r(3, 2))
    assert shapes(simplify(wide)) == ["6 5"]


def test_the_row_sums_of_every_head() -> None:
    torch.manual_seed(0)
    model = MultiHeadAttention(m=6, k=2, h=3).double()
    target, source, back = r(5, 6), r(8, 6), r(5, 6)
    gradient = backward(model, target, source)
    same(gradient, target, source, back)
    shapes = {
        value.shape for box in simplify(gradient).walk() if box.label.startswith("sum over k") for value in box.inputs
    }
    assert shapes == {"3 5 2"}


@pytest.mark.parametrize("keepdim", [True, False])
def test_sums_over_other_axes_are_not_replaced(keepdim: bool) -> None:
    """Only a sum over the axis that both contractions share is computed from the other one."""

    def f(p: Tensor, g: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = einsum(p, v, "y x, x k -> y k")
        slope = einsum(g, v, "y k, x k -> y x")
        return output, (p * slope).sum(1, keepdim=keepdim), (p * slope).sum(0, keepdim=keepdim)

    inputs = r(5, 9), r(5, 2), r(9, 2)
    diagram = trace(f, *inputs)
    same(diagram, *inputs)
    shapes = [value.shape for box in simplify(diagram).walk() if box.label.startswith("sum") for value in box.inputs]
    assert shapes == ["5 2", "5 9"]


def test_a_sum_keeps_its_axis_where_it_was() -> None:
    """The sum is over axis 0 of one product and axis 1 of the other: a kept axis of size 1 would move."""

    def f(p: Tensor, g: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        output = einsum(p, v, "x y, x k -> y k")
        product = p * einsum(g, v, "y k, x k -> x y")
        return output, product.sum(0, keepdim=True), product.sum(0)

    inputs = r(9, 5), r(5, 2), r(9, 2)
    assert same(trace(f, *inputs), *inputs).count("sum over k") == 1


def test_the_gradient_of_a_linear_layer_is_two_contractions_and_a_sum() -> None:
    model = nn.Linear(4, 3).double()
    left = same(backward(model, r(5, 4)), r(5, 4), r(5, 3))
    assert sorted([label.split()[0].strip("∂") for label in left]) == ["einsum", "einsum", "sum"]


def test_a_matrix_chain_and_its_gradient_of_a_gradient() -> None:
    f = lambda a, b, c: einsum(a, b, c, "i j, j k, k l -> i l").tanh()  # noqa: E731
    inputs, back = (r(2, 3), r(3, 4), r(4, 5)), r(2, 5)
    second = backward(backward(f, *inputs))
    same(second, *inputs, back, *[torch.randn_like(each) for each in inputs])


def test_orders_of_transposes() -> None:
    """An einsum reads through a permute, in every order of three axes."""
    x, w = r(2, 3, 4), r(2, 3, 4)
    for order in itertools.permutations(range(3)):
        words = " ".join(["abc"[place] for place in order])
        f = lambda x, w, order=order, words=words: einsum(x.permute(order), w, f"{words}, a b c -> a c")  # noqa: E731
        assert same(trace(f, x, w), x, w) == ["einsum 'a b c, a b c -> a c'"]


# Boxes that only look redundant ---------------------------------------------------------------------------------------


def grids() -> Tensor:
    return torch.arange(12.0, dtype=torch.float64).reshape(3, 4).cos()


def written_by_flag(x: Tensor) -> Tensor:
    return F.relu(x * 2, inplace=True) + x * 2


def written_by_place(x: Tensor) -> Tensor:
    return F.hardswish(x * 2, True) + x * 2


def written_by_out(x: Tensor) -> Tensor:
    doubled = x * 2
    torch.add(x, 1, out=doubled)
    return doubled + x * 2


ALIKE: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "a quotient by 1 that is rounded": (lambda x: torch.div(x, 1, rounding_mode="floor"), ["div"]),
    "a quotient by 1 that is not": (lambda x: torch.div(x, 1) + x, ["add"]),
    "zeros of two signs": (
        lambda x: (x.square() * 0.0).reciprocal().sign() - (x.square() * -0.0).reciprocal().sign(), [],
    ),
    "a product that a flag writes to": (written_by_flag, ["mul", "relu", "mul", "add"]),
    "and a positional flag": (written_by_place, ["mul", "hardswish", "mul", "add"]),
    "and out": (written_by_out, ["mul", "add", "mul", "add"]),
    "a flag that is False": (lambda x: F.relu(x, inplace=False) + F.relu(x, inplace=False), ["relu", "add"]),
    "strides that a view needs": (lambda x: x.mT.contiguous().view(-1), ["mT", "view"]),
    "strides that are restored before": (lambda x: x.mT.mT.contiguous().view(12).exp(), ["view", "exp"]),
    "strides that as_strided reads": (
        lambda x: x.mT.contiguous().as_strided((2, 3), (3, 1)), ["mT", "contiguous", "as_strided"],
    ),
    "a transpose before a sum": (
        lambda x: rearrange(x, "a b -> b a").sum(0), ["rearrange 'a b -> b a'", "sum over b"],
    ),
    "a transpose of several tensors": (
        lambda x: rearrange(rearrange([x, x], "n a b -> a n b"), "a n b -> n a b").sum(), [],
    ),
    "a transpose by name": (lambda x: torch.t(torch.t(input=x)).exp(), ["t", "t", "exp"]),
    "a number": (lambda x: x.sum().sum(0).transpose(0, -1).permute(()).softmax(0).exp(), []),
}  # fmt: skip


@pytest.mark.parametrize("name", ALIKE)
def test_boxes_that_only_look_redundant_stay(name: str) -> None:
    f, left = ALIKE[name]
    found = same(trace(f, grids()), grids())
    assert found == left or not left


def test_an_input_that_is_not_contiguous() -> None:
    """The view is possible after `contiguous`, and not on the input itself."""
    diagram = trace(lambda x: x.contiguous().view(-1) * 2, grids())
    turned = torch.empty(4, 3, dtype=torch.float64).mT
    assert same(diagram, turned.copy_(grids())) == ["view", "mul"]


def test_an_adjoint_is_no_transpose() -> None:
    z = torch.complex(r(3, 3), r(3, 3))
    assert same(trace(lambda z: torch.einsum("ij,jk->ik", z.adjoint(), z), z), z) == ["adjoint", "einsum 'ij,jk->ik'"]


def transposed_without_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        turned, copied = x.mT, x.clone() * 1
    return torch.einsum("ij,jk->ik", turned, x) + turned.mT @ x + copied * x


def row_sum_of_an_output_without_gradient(p: Tensor, g: Tensor, v: Tensor) -> Any:
    with torch.no_grad():
        output = einsum(p, v, "y x, x k -> y k")
    return output, (einsum(g, v, "y k, x k -> y x") * p).sum(-1)


def row_sum_of_a_product_without_gradient(p: Tensor, g: Tensor, v: Tensor) -> Any:
    output = einsum(p, v, "y x, x k -> y k")
    with torch.no_grad():
        product = einsum(g, v, "y k, x k -> y x") * p
    return output, product.sum(-1) + output.sum()


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (transposed_without_gradient, [(4, 4)]),
        (row_sum_of_an_output_without_gradient, [(4, 9), (4, 2), (9, 2)]),
        (row_sum_of_a_product_without_gradient, [(4, 9), (4, 2), (9, 2)]),
    ],
)
def test_simplify_changes_no_gradient(f: Callable[..., Any], shapes: list[tuple[int, ...]]) -> None:
    """A value computed under `no_grad` is not replaced by one that has a gradient."""
    inputs = [r(*shape).requires_grad_() for shape in shapes]
    diagram = trace(f, *inputs)

    def gradients(run: Callable[..., Any]) -> list[Tensor]:
        found = run(*inputs)
        total = sum([each.square().sum() for each in (found if isinstance(found, tuple) else (found,))])
        return list(torch.autograd.grad(total, inputs, materialize_grads=True))  # pyright: ignore[reportArgumentType, reportCallIssue]

    # the sums are in another order
    torch.testing.assert_close(gradients(simplify(diagram)), gradients(f), rtol=1e-12, atol=1e-12)


def test_a_row_sum_is_not_computed_from_a_later_output() -> None:
    def f(p: Tensor, g: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        summed = (einsum(g, v, "y k, x k -> y x") * p).sum(-1)
        return summed, einsum(p, v, "y x, x k -> y k")

    inputs = r(4, 9), r(4, 2), r(9, 2)
    assert "sum over x" in same(trace(f, *inputs), *inputs)


def test_a_masked_row_sum_of_a_broadcast_tensor_is_not_replaced() -> None:
    """The mask has one axis more than the tensor that it masks."""

    def f(g: Tensor, v: Tensor, p: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        masked = p.masked_fill(mask, 0)
        output = einsum(masked, v, "y x, x k -> y k")
        return output, (einsum(g, v, "k, x k -> x").masked_fill(mask, 0) * p).sum(1)

    inputs = r(2), r(9, 2), r(4, 9), r(4, 9) > 0
    same(trace(f, *inputs), *inputs)


def test_more_axes_than_there_are_letters_in_the_lower_case() -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        first = torch.einsum("...ab,...bc->...ac", x, x)
        return torch.einsum("...ac,cd->...ad", first, y)

    inputs = r(*[1] * 28, 2, 2), r(2, 2)
    assert len(same(trace(f, *inputs), *inputs)) == 1


def test_a_box_that_runs_as_a_whole_is_not_changed() -> None:
    @circuit("a b -> a b")
    def twice(x: Tensor) -> Tensor:
        return einsum(einsum(x, x, "a b, c b -> a c"), x * 1, "a c, c b -> a b").clone()

    diagram = trace(lambda x: torch.vmap(twice)(x), r(2, 3, 4))
    assert same(diagram, r(2, 3, 4)) == calls(diagram)
