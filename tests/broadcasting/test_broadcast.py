"""`broadcast`: indexing, then applying, equals applying, then indexing; compared with loops and with torch's vmap."""

import copy
import io
import itertools
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import functorch
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import (
    CircuitError,
    ShapeError,
    SignatureError,
    broadcast,
    circuit,
    definitions,
    einsum,
    find_circuit,
    trace,
    track,
)
from models.attention import MultiHeadAttention, attention
from models.layers import FeedForward


@circuit("a -> b")
def square(x: Tensor) -> Tensor:
    """The function G of the paper's notebook."""
    return (x**2).sum() + torch.ones(2, dtype=x.dtype)


@circuit("a, d -> b")
def sizes_of(x: Tensor, z: Tensor) -> Tensor:
    """The notebook's function H, with a different weight for each entry, so that a wrong order of entries fails."""
    one, two = torch.arange(1, len(x) + 1), torch.arange(1, len(z) + 1)
    return (one * x.abs()).sum() * torch.tensor([1.0, 2.0]) + (two * z.abs()).sum()


@circuit("p, p -> ")
def distance(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().sum().sqrt()


def signed(text: str, f: Any, **options: Any) -> Any:
    """Return a function or a module as a circuit with the signature `text`."""
    return circuit(text, **options)(f)


# --- the cells of the paper's notebook, Figures 8 to 12 ---------------------------------------------------------------


def test_figure_8_a_row_is_a_subtensor() -> None:
    """Indexing is a circuit from an axis to a scalar; lifted over the other axis it selects a row, or a column."""
    table = torch.arange(12).view(4, 3)
    at_2 = signed("a -> ", lambda x: x[2])
    assert torch.equal(broadcast(at_2, "a b -> b")(table), torch.tensor([6, 7, 8]))
    assert torch.equal(broadcast(at_2, "b a -> b")(table), torch.tensor([2, 5, 8, 11]))


def test_figure_9_every_order_of_access_gives_the_same_number() -> None:
    table = torch.rand(5, 7)
    for i, j in itertools.product(range(5), range(7)):
        at_i, at_j = signed("a -> ", lambda x, i=i: x[i]), signed("b -> ", lambda x, j=j: x[j])
        row_first = at_j(broadcast(at_i, "a b -> b")(table))
        column_first = at_i(broadcast(at_j, "a b -> a")(table))
        assert table[i, j] == table[i, :][j] == table[:, j][i] == row_first == column_first


@pytest.mark.smoke
def test_figure_10_broadcasting_equals_a_loop_over_columns() -> None:
    """The notebook's loop reads a single column, of a global (fault 2 in test_notebook.py); here all are compared."""
    lifted = broadcast(square, "a c -> b c")
    x = torch.rand(3, 4)
    expected = torch.zeros(2, 4)
    for j in range(4):
        expected[:, j] = square(x[:, j])
    torch.testing.assert_close(lifted(x), expected)
    assert len(expected[0].unique()) == 4
    torch.testing.assert_close(lifted(x), torch.vmap(square, -1, -1)(x))


def test_figure_11_inner_broadcasting_shares_the_other_argument() -> None:
    """The lifted signature is c a, d -> c b; the notebook's, with c d (fault 3 in test_notebook.py), is refused."""
    lifted = broadcast(sizes_of, "c a, d -> c b")
    x, z = torch.randn(5, 3), torch.randn(4)
    for i in range(5):
        torch.testing.assert_close(lifted(x, z)[i], sizes_of(x[i], z))
    torch.testing.assert_close(lifted(x, z), torch.vmap(sizes_of, (0, None), 0)(x, z))
    with pytest.raises(SignatureError, match="axis b of the output is missing"):
        broadcast(sizes_of, "c a, d -> c d")


@pytest.mark.parametrize(
    ("target", "shape"), [("a -> a", (3,)), ("a b -> a b", (3, 2)), ("a b -> b a", (3, 2)), ("... -> ...", (2, 0, 3))]
)
def test_figure_12_an_elementwise_operation_broadcast_equals_applying_it(target: str, shape: tuple[int, ...]) -> None:
    f = signed(" -> ", lambda x: x**2 + 1)
    x = torch.rand(shape)
    found = broadcast(f, target)(x)
    assert torch.equal(found, f.circuit.definition(x).T if target == "a b -> b a" else f.circuit.definition(x))
    for index in itertools.product(*map(range, shape)):
        assert found[index[::-1] if target == "a b -> b a" else index] == f(x[index])


def test_nested_broadcasting_over_pairs() -> None:
    x, y = torch.rand(4, 3), torch.rand(5, 3)
    pairs = broadcast(distance, "i p, j p -> i j")
    torch.testing.assert_close(pairs(x, y), torch.cdist(x, y))
    torch.testing.assert_close(broadcast(distance, "i p, j p -> j i")(x, y), torch.cdist(y, x))


def test_batched_predict_shares_the_weight_pairs() -> None:
    """The list of weight pairs is outside the signature, so every example shares it."""

    @circuit("n -> m")
    def predict(inputs: Tensor, params: list[tuple[Tensor, Tensor]]) -> Tensor:
        outputs = inputs
        for weight, bias in params:
            outputs = inputs @ weight + bias
            inputs = outputs.tanh()
        return outputs

    params = [(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2))]
    batch = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    expected = torch.tensor([[8.0, 11.0], [16.0, 23.0], [24.0, 35.0]])
    assert torch.equal(broadcast(predict, "b n -> b m")(batch, params), expected)
    assert torch.equal(broadcast(predict, "b n -> b m")(batch, params=params), expected)


# --- any circuit, any lift --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A circuit of several tensors and a lift of it: the axes in both signatures, one letter each, and their sizes."""

    own: tuple[str, ...]
    result: str
    lifted: tuple[str, ...]
    lifted_result: str
    sizes: dict[str, int]

    def circuit(self, rest: str) -> Any:
        """Return a circuit that is not linear and treats each tensor differently; `rest` is "" or "..."."""
        left, right = ", ".join(f"{rest} {' '.join(axes)}" for axes in self.own), f"{rest} {' '.join(self.result)}"

        @circuit(f"{left} -> {right}")
        def f(*tensors: Tensor) -> Tensor:
            waves = [(tensor + number).sin() for number, tensor in enumerate(tensors)]
            return einsum(*waves, f"{left} -> {right}").tanh() + 1

        return f

    @property
    def target(self) -> str:
        return f"{', '.join(' '.join(axes) for axes in self.lifted)} -> {' '.join(self.lifted_result)}"

    @property
    def over(self) -> str:
        return "".join(axis for axis in self.lifted_result if axis not in self.result)

    def tensors(self) -> list[Tensor]:
        shapes = [[self.sizes[axis] for axis in axes] for axes in self.lifted]
        return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def loop(self, f: Callable[..., Tensor], tensors: list[Tensor]) -> Tensor:
        """Return the result of a plain loop: index every tensor by name, apply `f`, write the result at its index."""
        found = torch.zeros([self.sizes[axis] for axis in self.lifted_result], dtype=torch.float64)
        for index in itertools.product(*(range(self.sizes[axis]) for axis in self.over)):
            at = dict(zip(self.over, index, strict=True))
            inputs = [
                ordered(tensor[tuple([at.get(axis, slice(None)) for axis in axes])], without(axes, self.over), own)
                for tensor, axes, own in zip(tensors, self.lifted, self.own, strict=True)
            ]
            result = ordered(f(*inputs), self.result, without(self.lifted_result, self.over))
            if not index:
                return result
            found = found.index_put(
                *placed(found, tuple([at.get(axis, slice(None)) for axis in self.lifted_result]), result)
            )
        return found


def without(axes: str, some: str) -> str:
    return "".join(axis for axis in axes if axis not in some)


def ordered(tensor: Tensor, axes: str, wanted: str) -> Tensor:
    return tensor.permute([axes.index(axis) for axis in wanted])


def placed(whole: Tensor, index: tuple[Any, ...], part: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the arguments of `index_put`, which is differentiable, that write `part` at `index`."""
    places = torch.arange(whole.numel()).view(whole.shape)[index].flatten()
    return torch.unravel_index(places, whole.shape), part.flatten()


@st.composite
def cases(draw: st.DrawFn, least: int = 0) -> Case:
    axes = "abcd"
    own = draw(st.lists(st.lists(st.sampled_from(axes), unique=True, max_size=3), min_size=1, max_size=3))
    known = sorted({axis for each in own for axis in each})
    result = draw(st.permutations(known))[: draw(st.integers(0, len(known)))]
    over = "uvw"[: draw(st.integers(0, 3))]
    lifted = [list(each) for each in own]
    for axis in over:
        for place in draw(st.sets(st.integers(0, len(own) - 1), min_size=1)):
            lifted[place].append(axis)
    return Case(
        tuple("".join(each) for each in own),
        "".join(result),
        tuple("".join(draw(st.permutations(each))) for each in lifted),
        "".join(draw(st.permutations([*result, *over]))),
        {axis: draw(st.integers(least, 3)) for axis in (*axes, *over)},
    )


@pytest.mark.parametrize("rest", ["", "..."], ids=["mapped", "batched"])
@given(case=cases())
def test_index_then_apply_is_apply_then_index(rest: str, case: Case) -> None:
    """Broadcasting equals a loop over all indexes of the lifted axes, also for axes of size 0 and 1."""
    f = case.circuit(rest)
    tensors = case.tensors()
    found = broadcast(f, case.target)(*tensors)
    torch.testing.assert_close(found, case.loop(f, tensors))


@pytest.mark.parametrize("rest", ["", "..."], ids=["mapped", "batched"])
@given(case=cases())
@settings(max_examples=40)
def test_gradients_are_those_of_the_loop(rest: str, case: Case) -> None:
    f = case.circuit(rest)
    tensors = case.tensors()
    found, expected = broadcast(f, case.target)(*tensors), case.loop(f, tensors)
    weights = torch.randn_like(found)
    if found.requires_grad and expected.requires_grad:
        gradients = torch.autograd.grad((found * weights).sum(), tensors, allow_unused=True)
        of_loop = torch.autograd.grad((expected * weights).sum(), tensors, allow_unused=True)
        for one, other, tensor in zip(gradients, of_loop, tensors, strict=True):
            zeros = torch.zeros_like(tensor)
            torch.testing.assert_close(zeros if one is None else one, zeros if other is None else other)


@pytest.mark.parametrize("vmap", [torch.func.vmap, functorch.vmap], ids=["torch.func", "functorch"])
@given(case=cases(least=1))
@settings(max_examples=60)
@pytest.mark.filterwarnings("ignore:We've integrated functorch:FutureWarning")
def test_each_lifted_axis_equals_vmap_over_it(vmap: Any, case: Case) -> None:
    """torch.vmap over each lifted axis, with the in_dims and out_dims of the signature, gives the same result."""
    f = case.circuit("")
    tensors = case.tensors()

    def run(*tensors: Tensor) -> Tensor:
        return ordered(f(*tensors), case.result, without(case.lifted_result, case.over))

    axes, result = [*case.lifted], case.lifted_result
    plain = [without(each, case.over) for each in case.lifted]

    def in_order(*tensors: Tensor) -> Tensor:
        triples = zip(tensors, plain, case.own, strict=True)
        return run(*[ordered(tensor, given_axes, wanted) for tensor, given_axes, wanted in triples])

    inner: Any = in_order
    levels = []
    for axis in case.over:
        levels.append((tuple([each.index(axis) if axis in each else None for each in axes]), result.index(axis)))
        axes, result = [without(each, axis) for each in axes], without(result, axis)
    for dims, out in reversed(levels):
        inner = vmap(inner, dims, out)
    torch.testing.assert_close(broadcast(f, case.target)(*tensors), inner(*tensors))


@pytest.mark.slow
@given(case=cases(least=1), size=st.integers(1, 4))
@settings(max_examples=40)
def test_chunks_do_not_change_the_result(case: Case, size: int) -> None:
    tensors = case.tensors()
    for rest in ("", "..."):
        f = case.circuit(rest)
        expected = broadcast(f, case.target)(*tensors)
        torch.testing.assert_close(broadcast(f, case.target, chunk_size=size)(*tensors), expected)


@pytest.mark.slow
@given(case=cases(), names=st.permutations("xyz"))
@settings(max_examples=40)
def test_a_broadcast_is_a_circuit_that_can_be_broadcast_again(case: Case, names: list[str]) -> None:
    """Lifting the lifted circuit over a further axis equals one lift over all axes."""
    f = case.circuit("")
    tensors = [torch.stack([each, each * 2, each - 1], -1) for each in case.tensors()]
    once = broadcast(f, case.target)
    found = find_circuit(once)
    assert found is not None
    assert str(found.signature).replace(" ", "") == case.target.replace(" ", "")
    over = names[0]
    inputs = ", ".join(" ".join([*axes, over]) for axes in case.lifted)
    target = f"{inputs} -> {over} {' '.join(case.lifted_result)}"
    both = broadcast(f, target)(*tensors)
    torch.testing.assert_close(broadcast(once, target)(*tensors), both)


@pytest.mark.smoke
def test_ellipsis_is_lifted_over_where_the_circuit_has_none() -> None:
    lifted = broadcast(square, "... a -> ... b")
    x = torch.rand(5, 4, 3)
    for index in itertools.product(range(5), range(4)):
        torch.testing.assert_close(lifted(x)[index], square(x[index]))
    torch.testing.assert_close(lifted(x[0, 0]), square(x[0, 0]))
    assert lifted(torch.rand(0, 4, 3)).shape == (0, 4, 2)
    both = broadcast(sizes_of, "... a c, ... d -> ... c b")
    x, z = torch.rand(2, 5, 3, 4), torch.rand(2, 5, 3)
    torch.testing.assert_close(both(x, z)[1, 2, 3], sizes_of(x[1, 2, :, 3], z[1, 2]))


def test_numbers_groups_and_axes_that_occur_twice() -> None:
    trace_of = signed("a a -> ", lambda x: x.trace())
    x = torch.rand(4, 3, 3)
    torch.testing.assert_close(broadcast(trace_of, "c a a -> c")(x), torch.stack([each.trace() for each in x]))
    torch.testing.assert_close(
        broadcast(trace_of, "a c a -> c")(x.transpose(0, 1)), torch.stack([each.trace() for each in x])
    )
    luma = signed("3 h w -> h w", lambda image: image.sum(0))
    assert torch.equal(broadcast(luma, "5 h w 3 -> h w 5")(torch.ones(5, 2, 4, 3)), torch.full((2, 4, 5), 3.0))
    heads = signed("y (h k) -> h y k", lambda x: x.unflatten(-1, (2, -1)).movedim(1, 0))
    assert broadcast(heads, "(b n) y (h k) -> h y k (b n)")(torch.rand(6, 5, 8)).shape == (2, 5, 4, 6)


def test_several_outputs_each_have_the_lifted_axes() -> None:
    @circuit("a, b -> b, a")
    def swap(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return y * x.sum(), x * y.sum()

    lifted = broadcast(swap, "c a, b c -> c b, a c")
    x, y = torch.rand(4, 3), torch.rand(2, 4)
    first, second = lifted(x, y)
    for i in range(4):
        one, two = swap(x[i], y[:, i])
        torch.testing.assert_close(first[i], one)
        torch.testing.assert_close(second[:, i], two)
    named = signed("a -> a, ", lambda x: {"twice": x * 2, "sum": x.sum()})
    result = broadcast(named, "a c -> a c, c")(x)
    torch.testing.assert_close(result["twice"], x * 2)
    torch.testing.assert_close(result["sum"], x.sum(0))


# --- attention: `...` takes the lifted axes ---------------------------------------------------------------------------


def by_heads(query: Tensor, key: Tensor, value: Tensor, masks: list[Tensor | None], **options: Any) -> Tensor:
    heads = range(query.shape[-1])
    return torch.stack([attention(query[..., i], key[..., i], value[..., i], masks[i], **options) for i in heads], -1)


def test_attention_lifted_over_heads_runs_its_kernel_once() -> None:
    heads = broadcast(attention, "y k h, x k h, x k h -> y k h")
    query, key, value = torch.rand(4, 8, 3), torch.rand(5, 8, 3), torch.rand(5, 8, 3)
    torch.testing.assert_close(heads(query, key, value), by_heads(query, key, value, [None] * 3))
    torch.testing.assert_close(
        heads(query, key, value, causal=True), by_heads(query, key, value, [None] * 3, causal=True)
    )
    with track(heads, to=None) as seen:
        heads(query, key, value)
    labels = [box.label for box in seen.diagram.walk() if box.kind in ("operation", "transform")]
    assert sum(label.startswith("scaled_dot_product_attention") for label in labels) == 1
    assert not any(label.startswith("vmap") for label in labels)


@pytest.mark.parametrize(
    ("target", "shapes"),
    [
        ("... y k h, ... x k h, ... x k h -> ... y k h", [(2, 4, 8, 3), (2, 5, 8, 3), (2, 5, 8, 3)]),
        ("b y k h, b x k h, b x k h -> h b y k", [(2, 4, 8, 3), (2, 5, 8, 3), (2, 5, 8, 3)]),
        ("h y k, x k, x k -> h y k", [(3, 4, 8), (5, 8), (5, 8)]),
        ("... y k, x k, x k b -> ... b y k", [(3, 4, 8), (5, 8), (5, 8, 2)]),
        ("i y k, j x k, j x k -> i j y k", [(3, 4, 8), (2, 5, 8), (2, 5, 8)]),
        ("k y, x k, k x -> k y", [(8, 4), (5, 8), (8, 5)]),
    ],
)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_attention_lifted_is_its_definition_mapped(
    target: str, shapes: list[tuple[int, ...]], chunk_size: int | None
) -> None:
    tensors = [torch.rand(shape) for shape in shapes]
    plain = signed("y k, x k, x k -> y k", attention.circuit.definition)
    torch.testing.assert_close(
        broadcast(attention, target, chunk_size=chunk_size)(*tensors), broadcast(plain, target)(*tensors)
    )


def test_a_mask_is_shared_unless_its_axes_are_given() -> None:
    query, key, value = torch.rand(4, 8, 3), torch.rand(5, 8, 3), torch.rand(5, 8, 3)
    mask, each = torch.rand(4, 5) < 0.7, torch.rand(4, 5, 3)
    target = "y k h, x k h, x k h -> y k h"
    shared, own = broadcast(attention, target), broadcast(attention, target, optional={"mask": "y x h"})
    torch.testing.assert_close(shared(query, key, value, mask), by_heads(query, key, value, [mask] * 3))
    torch.testing.assert_close(
        own(query, key, value, each), by_heads(query, key, value, [each[..., i] for i in range(3)])
    )
    torch.testing.assert_close(own(query, key, value), shared(query, key, value))
    with pytest.raises(ShapeError, match="mask"):
        shared(query, key, value, each)
    with pytest.raises(ShapeError, match="mask"):
        own(query, key, value, mask)


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5), (1, 4, 5)])
@pytest.mark.parametrize("randomness", ["error", "same"])
def test_a_shared_mask_keeps_its_own_leading_axes(shape: tuple[int, ...], randomness: Any) -> None:
    """The `...` of the mask is the batch, also if the circuit is lifted over heads at the same time."""
    query, key, value = torch.rand(2, 4, 8, 3), torch.rand(2, 5, 8, 3), torch.rand(2, 5, 8, 3)
    mask = torch.randn(shape)
    lifted = broadcast(attention, "... y k h, ... x k h, ... x k h -> ... y k h", randomness=randomness)
    torch.testing.assert_close(lifted(query, key, value, mask), by_heads(query, key, value, [mask] * 3))


def test_a_mask_with_a_lifted_axis_is_mapped_too() -> None:
    @circuit("y, x -> y", optional={"mask": "y x"})
    def mixed(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        score = query[:, None] * key
        return (score if mask is None else score * mask).sum(-1)

    query, key, masks = torch.rand(3, 4), torch.rand(5), torch.rand(4, 3, 5)
    lifted = broadcast(mixed, "h y, x -> y h", optional={"mask": "y h x"})
    expected = torch.stack([mixed(query[i], key, masks[:, i]) for i in range(3)], -1)
    torch.testing.assert_close(lifted(query, key, masks), expected)
    torch.testing.assert_close(lifted(query, key), torch.stack([mixed(query[i], key) for i in range(3)], -1))


def test_a_weight_without_ellipsis_is_mapped() -> None:
    project = signed("... m, m k -> ... k", lambda x, weight: x @ weight)
    x, weights = torch.rand(2, 5, 4), torch.rand(3, 4, 6)
    torch.testing.assert_close(
        broadcast(project, "... m, h m k -> ... h k")(x, weights), einsum(x, weights, "b y m, h m k -> b y h k")
    )
    assert "vmap" in str(trace(broadcast(project, "y m, h m k -> y h k")))
    with pytest.raises(SignatureError, match=r"weight has '\.\.\.' here, but not in"):
        broadcast(project, "... m, ... m k -> ... k")


# --- modules ----------------------------------------------------------------------------------------------------------


def linear() -> nn.Linear:
    return signed("m -> k", nn.Linear(3, 2), fixed={"m": "in_features", "k": "out_features"})


def test_a_module_lifted_is_a_module() -> None:
    inside = linear()
    lifted = broadcast(inside, "m c -> c k")
    x = torch.rand(3, 4)
    torch.testing.assert_close(lifted(x), torch.stack([inside(each) for each in x.T]))
    assert lifted.module is inside
    assert list(lifted.state_dict()) == ["module.weight", "module.bias"]
    assert "m c -> c k" in repr(lifted)
    lifted(x).square().sum().backward()
    found = inside.weight.grad
    inside.zero_grad()
    F.linear(x.T, inside.weight, inside.bias).square().sum().backward()
    torch.testing.assert_close(found, inside.weight.grad)
    with pytest.raises(ShapeError, match="m is 5 here"):
        lifted(torch.rand(5, 4))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_lifted_module_is_copied_and_pickled_with_its_submodule(again: Any) -> None:
    lifted = broadcast(linear(), "m c -> c k")
    other = again(lifted)
    x = torch.rand(3, 4)
    assert torch.equal(other(x), lifted(x))
    with torch.no_grad():
        other.module.weight.zero_()
    assert not torch.equal(other(x), lifted(x))
    found = find_circuit(other)
    assert found is not None
    assert str(found.signature) == "m c -> c k"
    assert not again(lifted.eval()).training


def test_functional_call_reaches_the_weights_inside() -> None:
    lifted = broadcast(linear(), "m c -> c k")
    x, many = torch.rand(3, 4), {"module.weight": torch.rand(5, 2, 3), "module.bias": torch.rand(5, 2)}
    found = torch.vmap(lambda weights: torch.func.functional_call(lifted, weights, (x,)))(many)
    torch.testing.assert_close(found, x.T @ many["module.weight"].mT + many["module.bias"][:, None])


def test_a_bound_method_is_lifted_with_its_object() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.weight = 3, nn.Parameter(torch.rand(3))

        @circuit("a -> a", fixed="a")
        def scale(self, x: Tensor) -> Tensor:
            return x * self.weight

    module = Scale()
    x = torch.rand(4, 3)
    torch.testing.assert_close(broadcast(module.scale, "c a -> c a")(x), x * module.weight)
    with pytest.raises(ShapeError):
        broadcast(module.scale, "c a -> c a")(torch.rand(4, 2))
    with pytest.raises(SignatureError, match="unbound method"):
        broadcast(Scale.scale, "c a -> c a")


def test_operations_that_vmap_cannot_map_are_named(golden: Any) -> None:
    norm = signed("b c h w -> b c h w", nn.BatchNorm2d(3))
    lifted = broadcast(norm, "e b c h w -> e b c h w")
    x = torch.rand(2, 4, 3, 2, 2)
    cells = nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 4))
    unlucky = nn.LSTM(3, 4)
    calls = [
        lambda: lifted(x),
        lambda: broadcast(signed("t i -> t o, 1 o, 1 o", nn.LSTM(3, 4)), "b t i -> b t o, b 1 o, b 1 o")(x[0, 0]),
        lambda: broadcast(signed("t i -> t o", cells), "b t i -> b t o")(torch.rand(2, 5, 3)),
        lambda: broadcast(signed("t i -> t o", lambda x: unlucky(x)[0]), "b t i -> b t o")(torch.rand(2, 5, 3)),
        lambda: broadcast(signed("b c -> b c", lambda x: nn.BatchNorm1d(3)(x)), "e b c -> e b c")(x[..., 0, 0]),
    ]
    messages = []
    for call in calls:
        with pytest.raises(CircuitError) as caught:
            call()
        messages.append(str(caught.value))
    golden("broadcasting/unmapped.txt", "\n\n".join(messages) + "\n")
    assert norm.num_batches_tracked == 0
    torch.testing.assert_close(lifted.eval()(x), torch.stack([norm(each) for each in x]))


def test_batch_norm_without_running_statistics_is_mapped_in_train_mode() -> None:
    norm = signed("b c h w -> b c h w", nn.BatchNorm2d(3, track_running_stats=False))
    x = torch.rand(2, 4, 3, 2, 2)
    found = broadcast(norm, "e b c h w -> e b c h w")(x)
    torch.testing.assert_close(found, torch.stack([norm(each) for each in x]))


# --- randomness and chunks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a -> a", "... a -> ... a"])
def test_randomness_is_that_of_vmap(text: str) -> None:
    noisy = signed(text, lambda x: F.dropout(x, 0.5))
    ones = torch.ones(6, 50)
    rows = broadcast(noisy, "c a -> c a", randomness="same")(ones)
    assert all(torch.equal(row, rows[0]) for row in rows)
    rows = broadcast(noisy, "c a -> c a", randomness="different")(ones)
    assert not any(torch.equal(row, rows[0]) for row in rows[1:])
    if text == "a -> a":
        with pytest.raises(RuntimeError, match="randomness"):
            broadcast(noisy, "c a -> c a")(ones)


@pytest.mark.parametrize("text", ["a -> ", "... a -> ..."])
def test_a_chunk_holds_chunk_size_indexes(text: str) -> None:
    seen: list[int] = []

    @circuit(text)
    def total(x: Tensor) -> Tensor:
        seen.append(x.ndim)
        return x.sum(-1)

    broadcast(total, "c e a -> e c", chunk_size=2)(torch.rand(5, 4, 3))
    assert seen == ([1, 1] if text == "a -> " else [3, 3])
    seen.clear()
    broadcast(total, "c e a -> c e", chunk_size=2)(torch.rand(5, 4, 3))
    assert len(seen) == 3


def test_invalid_arguments_are_refused() -> None:
    for size in (0, True, 2.0):
        with pytest.raises(CircuitError, match=f"chunk_size must be None or a positive int, not {size}"):
            broadcast(square, "a c -> b c", chunk_size=size)  # type: ignore[arg-type]
    with pytest.raises(CircuitError, match="randomness must be"):
        broadcast(square, "a c -> b c", randomness="some")  # type: ignore[arg-type]
    with pytest.raises(SignatureError, match="has no signature"):
        broadcast(torch.sin, "a -> a")


# --- compile, export, differentiate -----------------------------------------------------------------------------------


class Holder(nn.Module):
    def __init__(self, f: Any) -> None:
        super().__init__()
        self.f = f

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.f(*tensors)


SUBJECTS: dict[str, Callable[[], tuple[Any, list[Tensor]]]] = {
    "mapped": lambda: (broadcast(distance, "i p, j p -> i j"), [torch.rand(4, 3), torch.rand(5, 3)]),
    "batched": lambda: (
        broadcast(attention, "b y k h, b x k h, b x k h -> b y k h"),
        [torch.rand(2, 4, 8, 3), torch.rand(2, 5, 8, 3), torch.rand(2, 5, 8, 3)],
    ),
    "module": lambda: (broadcast(linear(), "m c -> c k"), [torch.rand(3, 4)]),
    "ellipsis": lambda: (broadcast(square, "... a -> ... b"), [torch.rand(4, 5, 3)]),
}
SLOW = ["module", "ellipsis"]


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["mapped", "batched", *[pytest.param(name, marks=pytest.mark.slow) for name in SLOW]])
def test_compiles_fullgraph(name: str, dynamic: bool) -> None:
    f, tensors = SUBJECTS[name]()
    torch.compiler.reset()
    compiled = torch.compile(f, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), f(*tensors))


@pytest.mark.every(8)
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", SUBJECTS)
def test_exports(name: str, strict: bool) -> None:
    f, tensors = SUBJECTS[name]()
    exported = torch.export.export(Holder(f), tuple(tensors), strict=strict).module()
    torch.testing.assert_close(exported(*tensors), f(*tensors))


def test_exports_with_a_lifted_axis_left_open() -> None:
    lifted = broadcast(square, "a c -> b c")
    open_axis = {"tensors": ({1: torch.export.Dim("c", min=2)},)}
    exported = torch.export.export(Holder(lifted), (torch.rand(3, 4),), dynamic_shapes=open_axis).module()
    x = torch.rand(3, 9)
    torch.testing.assert_close(exported(x), lifted(x))


@pytest.mark.parametrize("target", ["i p, j p -> i j", "i p, p -> i"])
def test_differentiates_twice(target: str) -> None:
    lifted = broadcast(distance, target)
    x, y = torch.rand(2, 3, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)
    tensors = [x.requires_grad_(), (y if "j" in target else y[0]).detach().requires_grad_()]
    assert torch.autograd.gradcheck(lifted, tensors)
    assert torch.autograd.gradgradcheck(lifted, tensors)
    expected = torch.func.jacrev(lifted)(*tensors)
    torch.testing.assert_close(torch.func.jacfwd(lifted)(*tensors), expected)


# --- diagrams ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trace_shows_the_mapped_box_with_the_lifted_axes(golden: Any) -> None:
    x = torch.rand(3, 4)
    lifted = broadcast(square, "a c -> b c")
    diagrams = [
        trace(lifted, sizes={"a": 3, "c": 4}),
        trace(broadcast(sizes_of, "c a, d -> c b")),
        trace(broadcast(distance, "i p, j p -> i j")),
        trace(broadcast(attention, "y k h, x k h, x k h -> y k h")),
        trace(broadcast(linear(), "m c -> c k")),
        trace(broadcast(broadcast(distance, "i p, p -> i"), "i p, j p -> i j")),
    ]
    text = "\n\n".join(str(diagram) for diagram in diagrams) + "\n"
    golden("broadcasting/traces.txt", text.replace(f"{Path(__file__).parents[2]}{os.sep}", ""))
    torch.testing.assert_close(diagrams[0](x), lifted(x))
    y = torch.rand(5, 3)
    torch.testing.assert_close(diagrams[2](x.T, y), torch.cdist(x.T, y))
    torch.testing.assert_close(diagrams[5](x.T, y), torch.cdist(x.T, y))


def test_track_prints_the_mapped_box(golden: Any) -> None:
    lifted, lines = broadcast(square, "a c -> b c"), io.StringIO()
    with track(lifted, to=lines):
        lifted(torch.rand(3, 4))
    golden("broadcasting/track.txt", lines.getvalue())


# --- models -----------------------------------------------------------------------------------------------------------


def test_heads_of_the_notebook_are_attention_lifted() -> None:
    """MultiHeadAttention of Figure 21 is four linear boxes and attention lifted over h, here as the last axis."""
    model = MultiHeadAttention(m=12, k=4, h=3)
    target, source = torch.rand(5, 12), torch.rand(7, 12)
    heads = [box(x).unflatten(-1, (3, 4)).mT for box, x in ((model.Lq, target), (model.Lk, source), (model.Lv, source))]
    mixed = broadcast(attention, "y k h, x k h, x k h -> y k h")(*heads)
    torch.testing.assert_close(model.Lo(mixed.mT.flatten(-2)), model(target, source))


def test_a_model_is_lifted_by_its_own_ellipsis() -> None:
    model = FeedForward(m=4, f=8)
    x = torch.rand(4, 5, 6)
    torch.testing.assert_close(broadcast(model, "m a b -> b m a")(x), model(x.permute(2, 1, 0)).mT)
    with definitions():
        torch.testing.assert_close(broadcast(model, "m a b -> b m a")(x), model(x.permute(2, 1, 0)).mT)


# --- impossible lifts -------------------------------------------------------------------------------------------------

IMPOSSIBLE = [
    (square, "a c -> b"),
    (square, "a -> b c"),
    (square, "c -> b c"),
    (square, "a a -> b a"),
    (square, "a c c -> b c"),
    (square, "a b -> b b"),
    (square, "a, c -> b c"),
    (square, "a c -> b c, c"),
    (square, "a (c b) -> b (c b)"),
    (square, "a c -> c"),
    (square, "... a -> b"),
    (square, "a -> ... b"),
    (sizes_of, "c a, d -> c d"),
    (signed("a a -> ", lambda x: x.trace()), "a c -> c"),
    (signed("... m, m k -> ... k", lambda x, w: x @ w), "... m, ... m k -> ... k"),
    (signed("... m, m k -> ... k", lambda x, w: x @ w), "m, h m k -> ... h k"),
    (attention, "y k h, x k h, x k h -> y k"),
]


def test_messages_of_impossible_lifts(golden: Any) -> None:
    messages = []
    for f, target in IMPOSSIBLE:
        with pytest.raises(SignatureError) as caught:
            broadcast(f, target)
        messages.append(str(caught.value))
    for optional in ({"mask": "y x g"}, {"mask": "y"}, {"bias": "y x"}, {"mask": "h ("}):
        with pytest.raises(SignatureError) as caught:
            broadcast(attention, "y k h, x k h, x k h -> y k h", optional=optional)
        messages.append(str(caught.value))
    golden("broadcasting/impossible.txt", "\n\n".join(messages) + "\n")


def test_message_of_a_refused_call_has_the_lifted_signature(golden: Any) -> None:
    pairs = broadcast(distance, "i p, j p -> i j")
    with pytest.raises(ShapeError) as caught:
        pairs(torch.rand(4, 3), torch.rand(5, 2))
    message = str(caught.value)
    assert "declared at" in message
    assert "test_broadcast.py" in message
    golden("broadcasting/misfit.txt", message.partition("\n  declared")[0] + "\n")
