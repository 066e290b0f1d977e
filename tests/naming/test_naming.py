"""Axis names are correct: an axis has the size that its name states, and in a scope a name has one size."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import circuit, einsum, rearrange, reduce, repeat, trace
from circuits.diagram.boxes import Box, Value, size_text
from circuits.diagram.diagram import Diagram
from circuits.naming.axes import AxisNode, Scope, StatedName, labels
from circuits.naming.derivation import concatenated, divided, group, scaled, shifted, unify
from circuits.naming.names import Names
from circuits.naming.patterns import name_by_pattern
from circuits.signature.signature import parse_axes


def shown(values: tuple[Value, ...]) -> str:
    return ", ".join([" ".join([axis or "_" for axis in value.axes]) for value in values])


def lines(diagram: Diagram) -> list[str]:
    words = [(box.label.rpartition("<locals>.")[2], shown(box.inputs), shown(box.outputs)) for box in diagram.walk()]
    return [f"{label}: {inputs} -> {outputs}" for label, inputs, outputs in words]


# Properties of every diagram --------------------------------------------------------------------------------------


def check_names(box: Box, letters: dict[str, Any]) -> None:
    """Assert that every name has one size; names inside a circuit are independent of those outside."""
    for value in (*box.inputs, *box.outputs):
        for axis, size in zip(value.axes, value.sizes, strict=True):
            if axis is not None:
                check_name(axis, size, letters, box)
    inside = letters if box.kind != "circuit" else {}
    for inner in box.boxes:
        check_names(inner, inside)


def check_name(axis: str, size: Any, letters: dict[str, Any], box: Box) -> None:
    """Assert that an axis has the size that its label states by the sizes in `letters`; a new name is added there."""
    (term,) = parse_axes(axis)
    if axis.rstrip("'").isidentifier():
        assert letters.setdefault(axis, size) == size, f"{axis} is {letters[axis]} and {size} at {box.label}"
    elif all(name in letters for name in term.names):
        assert term.size(letters, lambda a, b: a / b) == size, f"{axis} has size {size}, not by {letters}, {box.label}"


# Random compositions -----------------------------------------------------------------------------------------------


@circuit("... b y -> ... y b")
def turned(x: Tensor) -> Tensor:
    return rearrange(x, "... b y -> ... y b")


@circuit("y b, x b -> y x")
def scored(query: Tensor, key: Tensor) -> Tensor:
    return einsum(query, key, "y b, x b -> y x")


@circuit("... x -> ... x'")
def widened(x: Tensor) -> Tensor:
    return torch.cat([x, x[..., :1]], -1)


@circuit("b (x y) -> b y")
def gathered(x: Tensor) -> Tensor:
    return rearrange(x, "b (x y) -> b x y", x=2).mean(1)


Step = Callable[[Tensor, Tensor, int, int], Any]
STEPS: list[Step] = [
    lambda x, y, i, j: x.transpose(i % x.dim(), j % x.dim()),
    lambda x, y, i, j: x.flatten(i % x.dim()),
    lambda x, y, i, j: x.reshape(-1),
    lambda x, y, i, j: x.reshape(y.shape),
    lambda x, y, i, j: x.unsqueeze(i % (x.dim() + 1)),
    lambda x, y, i, j: x.squeeze(),
    lambda x, y, i, j: x.sum(i % x.dim()),
    lambda x, y, i, j: x.mean(i % x.dim(), keepdim=True),
    lambda x, y, i, j: x.amax((i % x.dim(), j % x.dim())),
    lambda x, y, i, j: x.softmax(i % x.dim()),
    lambda x, y, i, j: x.sort(i % x.dim()).indices,
    lambda x, y, i, j: x[1:],
    lambda x, y, i, j: x[..., ::2],
    lambda x, y, i, j: x[:, :3],
    lambda x, y, i, j: x[-1],
    lambda x, y, i, j: x[..., None, :],
    lambda x, y, i, j: x[torch.zeros(y.shape[0], dtype=torch.long)],
    lambda x, y, i, j: x[:, torch.zeros(4, dtype=torch.long), 0],
    lambda x, y, i, j: torch.cat([x, x], i % x.dim()),
    lambda x, y, i, j: torch.cat([x, y], i % x.dim()),
    lambda x, y, i, j: torch.cat([x, x[:1]], 0),
    lambda x, y, i, j: torch.stack([x, x], i % (x.dim() + 1)),
    lambda x, y, i, j: x.chunk(2, i % x.dim())[j % 2],
    lambda x, y, i, j: x.split(2, i % x.dim())[0],
    lambda x, y, i, j: x.unbind(i % x.dim())[0],
    lambda x, y, i, j: x.narrow(i % x.dim(), 0, 2),
    lambda x, y, i, j: x.repeat(*[1] * (x.dim() - 1), 3),
    lambda x, y, i, j: x.repeat_interleave(2, i % x.dim()),
    lambda x, y, i, j: x.expand(2, *x.shape),
    lambda x, y, i, j: F.pad(x, (i, j)),
    lambda x, y, i, j: F.max_pool1d(x, 1 + i, 1 + j),
    lambda x, y, i, j: F.avg_pool2d(x, 2),
    lambda x, y, i, j: F.adaptive_avg_pool1d(x, 1 + i),
    lambda x, y, i, j: F.interpolate(x, scale_factor=2.0),
    lambda x, y, i, j: F.interpolate(x, size=y.shape[-1:]),
    lambda x, y, i, j: F.conv1d(x, torch.zeros(4, x.shape[-2], 1 + i), stride=1 + j),
    lambda x, y, i, j: F.conv_transpose1d(x, torch.zeros(x.shape[-2], 4, 1 + i), stride=1 + j),
    lambda x, y, i, j: x + y,
    lambda x, y, i, j: torch.where(x > 0, y, x),
    lambda x, y, i, j: x @ y,
    lambda x, y, i, j: x @ x.mT,
    lambda x, y, i, j: torch.einsum("...i,...j->...ij", x, y),
    lambda x, y, i, j: F.linear(x, torch.zeros(4 + i, x.shape[-1])),
    lambda x, y, i, j: F.scaled_dot_product_attention(x, y, y),
    lambda x, y, i, j: F.glu(x, i % x.dim()),
    lambda x, y, i, j: F.layer_norm(x, x.shape[-1:]),
    lambda x, y, i, j: F.embedding(x.long(), torch.zeros(3, 5)),
    lambda x, y, i, j: x.unfold(i % x.dim(), 2, 1 + j),
    lambda x, y, i, j: x.cumsum(i % x.dim()).flip(0),
    lambda x, y, i, j: x.topk(2, i % x.dim()).values,
    lambda x, y, i, j: torch.diag_embed(x),
    lambda x, y, i, j: x.diagonal(dim1=-2, dim2=-1),
    lambda x, y, i, j: x.unflatten(-1, (2, -1)),
    lambda x, y, i, j: torch.rot90(x, i),
    lambda x, y, i, j: x.gather(0, torch.zeros(x.shape, dtype=torch.long)[:2]),
    lambda x, y, i, j: torch.fft.rfft(x).real,
    lambda x, y, i, j: rearrange(x, "x y ... -> y ... x"),
    lambda x, y, i, j: rearrange(x, "... (y n) -> ... n y", n=2),
    lambda x, y, i, j: reduce(x, "... b -> ...", "mean"),
    lambda x, y, i, j: repeat(x, "... -> ... y", y=6),
    lambda x, y, i, j: einsum(x, y, "... b x, ... b n -> ... x n"),
    lambda x, y, i, j: turned(x),
    lambda x, y, i, j: scored(x, y),
    lambda x, y, i, j: widened(x),
    lambda x, y, i, j: gathered(x),
]

PLAN = st.lists(
    st.tuples(
        st.integers(0, len(STEPS) - 1), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3), st.integers(0, 3)
    ),
    min_size=1,
    max_size=8,
)


def follow(plan: list[tuple[int, int, int, int, int]], *given: Tensor) -> list[Tensor]:
    """Apply every step of a plan that can be applied, each to two of the tensors made so far; return all tensors."""
    found = list(given)
    for step, first, second, i, j in plan:
        try:
            made = STEPS[step](found[-1 - first % len(found)], found[-1 - second % len(found)], i, j)
        except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError, ArithmeticError, AssertionError):
            continue
        if made.numel() and math.prod(made.shape) < 10**7:
            found.append(made)
    return found


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(PLAN)
def test_every_name_states_the_size(plan: list[tuple[int, int, int, int, int]]) -> None:
    states_the_size(plan)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(PLAN)
def test_every_name_states_the_size_in_many_programs(plan: list[tuple[int, int, int, int, int]]) -> None:
    states_the_size(plan)


def states_the_size(plan: list[tuple[int, int, int, int, int]]) -> None:
    diagram = trace(lambda *x: follow(plan, *x), axes="b y x, y x, b 2*c y", sizes={"b": 7, "y": 11, "x": 13, "c": 5})
    check_names(diagram.box, {"b": 7, "y": 11, "x": 13, "c": 5})


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(PLAN)
def test_every_name_states_the_size_if_sizes_coincide(plan: list[tuple[int, int, int, int, int]]) -> None:
    diagram = trace(lambda *x: follow(plan, *x), axes="b y x, y x, b 2*c y", sizes={"b": 4, "y": 4, "x": 2, "c": 1})
    check_names(diagram.box, {"b": 4, "y": 4, "x": 2, "c": 1})


# Axes by identity --------------------------------------------------------------------------------------------------


def named(name: str, size: Any, scope: Scope) -> AxisNode:
    return AxisNode(size, scope.define(name, size))


@pytest.mark.smoke
def test_arithmetic_is_relative_to_the_stated_name() -> None:
    h = named("h", 24, Scope())
    half = scaled(h, 12)
    assert half.label() == "h/2"
    assert scaled(half, 6).label() == "h/4"
    assert scaled(half, 24) is h
    assert scaled(shifted(h, 22), 11).label() == "h/2-1"
    assert shifted(shifted(h, 22), 24) is h
    assert scaled(h, 48).label() == "2*h"
    assert shifted(h, 25).label() == "h+1"


def test_an_unknown_relation_gives_a_distinct_axis() -> None:
    scope = Scope()
    h = named("h", 21, scope)
    odd, other = AxisNode(11, None), named("h'", 5, scope)
    assert scaled(h, 11, None).label() == "11*h/21"
    assert scaled(h, 11, Fraction(1, 2)).label() == "h''"
    assert (odd.label(), other.label()) == (None, "h'")


@pytest.mark.smoke
def test_concatenated_axes_are_split_into_the_same_axes() -> None:
    scope = Scope()
    c, d = named("c", 3, scope), named("d", 5, scope)
    whole = concatenated([c, d, c], 11)
    assert whole.label() == "2*c+d"
    assert divided(whole, [3, 5, 3]) == [c, d, c]
    assert [axis.label() for axis in divided(whole, [8, 3])] == ["c+d", "c"]
    assert [axis.label() for axis in divided(whole, [4, 7])] == [None, None]
    assert concatenated(divided(named("m", 8, scope), [4, 4]), 8).label() == "m"


def test_a_name_stated_later_is_shown_by_axes_derived_before() -> None:
    scope = Scope()
    axis = AxisNode(12)
    half, pair = scaled(axis, 6), concatenated([axis, axis], 24)
    assert (half.label(), pair.label()) == (None, None)
    unify(axis, named("k", 12, scope))
    assert (half.label(), pair.label()) == ("k/2", "2*k")
    whole = AxisNode(8)
    first, second = divided(whole, [4, 4])
    scope.name(first, "v")
    scope.name(second, "v")
    assert whole.label() == "2*v"


def test_a_group_shows_the_size_of_a_part_without_a_name() -> None:
    scope = Scope()
    assert group([named("h", 4, scope), AxisNode(16)], 64).label() == "(h 16)"
    assert group([AxisNode(4), AxisNode(16)], 64).label() is None


def test_parts_of_unknown_size_are_grouped_again() -> None:
    """Only the product of i and p is known: it is the height and width of the image."""

    @circuit("b (i p) (j p) -> b (i j) (p p)")
    def patches(image: Tensor) -> Tensor:
        return rearrange(image, "b (i p) (j q) -> b (i j) (p q)", p=4, q=4)

    box = trace(patches).box.boxes[0]
    assert (shown(box.inputs), shown(box.outputs)) == ("b (i p) (j p)", "b (i j) (p p)")


def test_the_second_of_two_axes_of_one_name_gets_a_prime() -> None:
    scope = Scope()
    scope.define("y'", 7)
    assert labels([named("y", 4, scope), named("y", 4, scope)]) == ("y", "y''")


def test_unifying_never_makes_a_cycle() -> None:
    axis = AxisNode(4)
    made = group([axis, AxisNode(1)], 4)
    unify(axis, made)
    assert made.label() is None
    scope = Scope()
    scope.name(axis, "y")
    assert made.label() == "(y 1)"


def test_a_name_has_one_size_in_a_scope() -> None:
    scope = Scope(reserved={"k"})
    first, second, third = AxisNode(3), AxisNode(4), AxisNode(5)
    for axis in (first, second):
        scope.name(axis, "y")
    scope.name(third, "k")
    assert [axis.label() for axis in (first, second, third)] == ["y", None, None]
    assert isinstance(first.origin, StatedName)


# Scopes ------------------------------------------------------------------------------------------------------------


@circuit("... y k, ... x k, ... x k -> ... y k")
def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    score = einsum(query, key, "... y k, ... x k -> ... y x")
    return einsum(score.softmax(-1), value, "... y x, ... x k -> ... y k")


@pytest.mark.smoke
def test_names_of_a_circuit_apply_inside_it_only() -> None:
    @circuit("b m n -> b m n")
    def outer(x: Tensor) -> Tensor:
        return attention(x, x + 1, x + 2) * 2

    assert lines(trace(outer)) == [
        "outer: b m n -> b m n",
        "add: b m n -> b m n",
        "add: b m n -> b m n",
        "attention: b m n, b m n, b m n -> b m n",
        "einsum '... y k, ... x k -> ... y x': b y k, b x k -> b y x",
        "softmax over x: b y x -> b y x",
        "einsum '... y x, ... x k -> ... y k': b y x, b x k -> b y k",
        "mul: b m n -> b m n",
    ]


def test_an_outer_name_is_hidden_inside_a_circuit_that_uses_it_for_another_axis() -> None:
    """Outside the circuit y is the batch axis; inside it is the axis of the queries."""
    diagram = trace(lambda q, k: attention(q, k, k), axes="y a b, y c b", sizes={"y": 2, "a": 3, "b": 5, "c": 7})
    inside = diagram.boxes[0].boxes
    assert lines(diagram)[1] == "attention: y a b, y c b, y c b -> y a b"
    assert shown(inside[0].inputs) == "_ y k, _ x k"
    check_names(diagram.box, {})


def test_names_of_patterns_inside_a_circuit_are_not_shown_outside() -> None:
    @circuit("b m -> b m")
    def inner(x: Tensor) -> Tensor:
        return rearrange(rearrange(x, "b (h k) -> b h k", h=2), "b h k -> b (h k)")

    diagram = trace(lambda x: inner(x).unflatten(1, (2, -1)), axes="h k", sizes={"h": 6, "k": 8})
    assert lines(diagram) == [
        "<lambda>: h k -> h _ _",
        "inner: h k -> h k",
        "rearrange 'b (h k) -> b h k': b m -> b h k",
        "rearrange 'b h k -> b (h k)': b h k -> b (h k)",
        "unflatten: h k -> h _ _",
    ]


def test_two_calls_of_a_circuit_share_no_names() -> None:
    diagram = trace(lambda x, y: (attention(x, x, x), attention(y, y, y)), axes="a 8, b 4", sizes={"a": 3, "b": 5})
    check_names(diagram.box, {})
    assert [shown(box.outputs) for box in diagram.boxes] == ["a k", "b _"]


@pytest.mark.slow
def test_a_value_seen_from_an_inner_scope_keeps_its_outer_names_outside() -> None:
    def run(x: Tensor, bias: Tensor) -> Tensor:
        @circuit("y k -> y k")
        def shift(value: Tensor) -> Tensor:
            return value + bias

        return shift(x) + bias

    diagram = trace(run, axes="k y, y", sizes={"k": 3, "y": 5})
    assert lines(diagram) == [
        "run: k y, y -> k y",
        "shift: k y -> k y",
        "add: y k, k -> y k",
        "add: k y, y -> k y",
    ]


def test_names_of_a_pattern_are_shown_in_earlier_boxes() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    diagram = trace(lambda x: rearrange(model(x), "n (h k) -> h n k", k=2), axes="b 6")
    assert lines(diagram)[1:] == [
        "Sequential: b _ -> b (h k)",
        "Linear: b _ -> b (h k)",
        "linear: b _, (h k) _, (h k) -> b (h k)",
        "ReLU: b (h k) -> b (h k)",
        "relu: b (h k) -> b (h k)",
        "rearrange 'n (h k) -> h n k': b (h k) -> h b k",
    ]


@pytest.mark.slow
def test_names_of_a_signature_are_shown_in_earlier_boxes() -> None:
    first, second = nn.Linear(6, 8, bias=False), nn.Linear(6, 8, bias=False)
    diagram = trace(lambda x: attention(first(x), second(x), second(x)), axes="b y 6")
    assert shown(diagram.boxes[0].outputs) == "b y k"
    assert shown(diagram.outputs) == "b y k"


def test_a_pattern_does_not_contradict_the_names_of_the_signature() -> None:
    """In the outer signature `n` is 6; the inner circuit has an axis `n` of size 3."""

    @circuit("n -> n")
    def inner(x: Tensor) -> Tensor:
        return x * 2

    @circuit("b n -> b n")
    def outer(x: Tensor) -> Tensor:
        half = x.unflatten(1, (2, 3))[0, 0]
        return x + inner(half).sum()

    diagram = trace(outer, sizes={"b": 2, "n": 6})
    check_names(diagram.box, {})
    (call,) = [box for box in diagram.walk() if box.label.endswith("inner")]
    assert shown(call.inputs) == "_"


@pytest.mark.slow
def test_names_that_only_outputs_have() -> None:
    @circuit("b c h w -> b k h' w'")
    def down(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)[:, :3]

    assert shown(trace(down).outputs) == "b k h' w'"
    twice = trace(lambda x: down(down(x)), axes="b c 4*h 4*w", sizes={"c": 5, "b": 2})
    assert [shown(box.outputs) for box in twice.boxes] == ["b k 2*h 2*w", "b k h w"]
    check_names(twice.box, {})


def test_a_label_with_primes_is_replaced_if_the_signature_states_it() -> None:
    """The axis is pooled twice, by no constant ratio; h' in the signature names the axis after the second pooling."""

    @circuit("b c h -> b c h'")
    def down(x: Tensor) -> Tensor:
        return F.avg_pool1d(F.avg_pool1d(x, 3, 2), 3, 2)

    diagram = trace(down, sizes={"b": 1, "c": 2, "h": 30})
    assert [shown(box.outputs) for box in diagram.boxes] == ["b c h''", "b c h'"]
    check_names(diagram.box, {})


def test_names_are_restored_where_spatial_axes_shrink_and_grow() -> None:
    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(4, 4, 3, padding=1)

        @circuit("b c h w -> b k h w", fixed="c", multiples={"h": 4, "w": 4})
        def forward(self, x: Tensor) -> Tensor:
            half = F.max_pool2d(self.down(x), 2)
            quarter = F.max_pool2d(half, 2)
            back = torch.cat([half, F.interpolate(quarter, scale_factor=2)], 1)
            return torch.cat([x, F.interpolate(back, scale_factor=2)], 1)

        c = 4

    model = UNet()
    model.c = 4
    diagram = trace(model)
    words = [f"{box.label.split()[0]}: {shown(box.outputs)}" for box in diagram.boxes]
    assert words == [
        "Conv2d: b _ h w",
        "max_pool2d: b _ h/2 w/2",
        "max_pool2d: b _ h/4 w/4",
        "interpolate: b _ h/2 w/2",
        "cat: b _ h/2 w/2",
        "interpolate: b _ h w",
        "cat: b c+8 h w",
    ]
    assert shown(diagram.outputs) == "b k h w"
    assert [size_text(size) for size in diagram.boxes[2].outputs[0].sizes] == ["b", "4", "h/4", "w/4"]


@pytest.mark.slow
def test_spatial_axes_of_equal_size_keep_their_names() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(2))
    diagram = trace(net, axes="b 3 h w", sizes={"b": 8, "h": 8, "w": 8})
    assert [shown(box.outputs) for box in diagram.boxes] == ["b _ h w", "b _ h/2 w/2", "b _ (h/2 w/2)"]


@pytest.mark.slow
def test_einops_patterns_of_any_form() -> None:
    cases: list[tuple[Callable[[Tensor], Tensor], str]] = [
        (lambda x: rearrange(x, "b ... c -> b c ..."), "b x y"),
        (lambda x: rearrange([x, x], "n b y c -> b n y c"), "b n y x"),
        (lambda x: reduce(x, "b y c -> b () c", "mean"), "b _ x"),
        (lambda x: repeat(x, "b y c -> b y c two", two=2), "b y x two"),
        (lambda x: rearrange(x, "b (s t) c -> (b s) t c", s=2), "(b s) t x"),
        (lambda x: rearrange(x, "b ... -> (b ...)"), "_"),
    ]
    for function, expected in cases:
        assert shown(trace(function, axes="b y x", sizes={"y": 6}).outputs) == expected


@pytest.mark.parametrize("name", ["b'", "h_1", "Ωmega"])
def test_any_name_of_the_grammar_is_a_name(name: str) -> None:
    assert shown(trace(torch.relu, axes=f"{name} m").outputs) == f"{name} m"


def test_an_axis_of_another_size_than_the_value_is_replaced() -> None:
    names = Names()
    names.shapes[0] = (3, 4)
    scope = names.scope
    assert labels(names.put(0, [named("y", 3, scope), named("x", 5, scope)])) == ("y", None)
    assert labels(names.put(0, [named("y", 3, scope)])) == (None, None)


@pytest.mark.parametrize("pattern", ["a b, b c -> a c", "a b, b c, c d, d e -> a e", "a _, b c, c d -> a d"])
def test_a_pattern_for_another_number_of_inputs_names_nothing(pattern: str) -> None:
    names = Names()
    names.shapes = dict.fromkeys(range(4), (2, 2))
    with pytest.raises(ValueError, match=r"tensors in the pattern, and 3 inputs|anonymous"):
        name_by_pattern(pattern, [0, 1, 2], {}, [3], names)
    assert labels([axis for number in range(3) for axis in names.of(number)]) == (None,) * 6
