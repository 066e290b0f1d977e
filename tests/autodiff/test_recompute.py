"""Which values are saved for backward and which are recomputed; the form of FlashAttention's backward."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import Box, CircuitError, Diagram, backward, circuit, einsum, forward_backward
from circuits.autodiff import Halves
from models.attention import attention, grouped_attention


def r(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random numbers of this shape and dtype."""
    return torch.randn(shape, dtype=dtype)


def contractions(diagram: Diagram) -> int:
    return len([box for box in diagram.walk() if box.call is not None and box.label.startswith("einsum")])


def tape(halves: Halves) -> list[str]:
    return [str(value) for value in halves.saved]


def by_autograd(f: Any, inputs: tuple[Tensor, ...], back: Tensor) -> list[Tensor]:
    leaves = [each.clone().requires_grad_() for each in inputs]
    return list(torch.autograd.grad(f(*leaves), leaves, back))


def agree(halves: Halves, f: Any, inputs: tuple[Tensor, ...], back: Tensor, *others: Any, **options: Any) -> None:
    """The halves compute the gradients of autograd, and save as many bytes as `bytes` states."""
    _, saved = halves.forward(*inputs, *others, **options)
    if isinstance(halves.bytes, int):
        assert halves.bytes == sum([each.numel() * each.element_size() for each in saved])
    found = list(halves.reverse(saved, back).values())
    torch.testing.assert_close(found, by_autograd(f, inputs, back), rtol=1e-9, atol=1e-12)


# Attention ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_identity_11_the_reverse_of_attention_has_four_contractions_and_its_weights_are_saved() -> None:
    halves = forward_backward(attention)
    assert (contractions(halves.forward), contractions(halves.reverse)) == (2, 4)
    assert tape(halves) == ["x k", "x k", "y k", "y x"]


@pytest.mark.slow
def test_identity_11_recomputed_from_one_statistic_a_row_it_has_five_and_saves_nothing_of_y_by_x() -> None:
    """K, V, Q/√k, O and the logsumexp of each row are saved; the row sum of P∘dP is that of dO∘O."""
    halves = forward_backward(attention, recompute="y x")
    assert (contractions(halves.forward), contractions(halves.reverse)) == (2, 5)
    assert tape(halves) == ["x k", "x k", "y k", "y k", "y 1"]
    sums = [box for box in halves.reverse.walk() if box.label.startswith("sum")]
    assert [str(value) for box in sums for value in box.inputs] == ["y k"]
    for y, x, k in ((5, 7, 4), (3, 2, 6)):
        inputs, back = (r(y, k), r(x, k), r(x, k)), r(y, k)
        agree(halves, attention.circuit.definition, inputs, back)


@pytest.mark.slow
def test_row_sums_are_not_computed_from_an_output_that_is_recomputed_itself() -> None:
    halves = forward_backward(attention, recompute=["einsum", "mul", "softmax"])
    assert (contractions(halves.reverse), tape(halves)) == (5, ["y k", "x k", "x k", "y 1"])


@pytest.mark.slow
@given(y=st.integers(1, 5), x=st.integers(1, 6), k=st.integers(1, 4), kind=st.sampled_from(["causal", "window", "bool",
       "floating", "blind", "plain"]))  # fmt: skip
@settings(max_examples=12)
def test_attention_is_differentiated_from_its_statistic_with_any_mask(y: int, x: int, k: int, kind: str) -> None:
    inputs, back = (r(2, y, k), r(2, x, k), r(2, x, k)), r(2, y, k)
    options: dict[str, Any] = {"causal": {"causal": True}, "window": {"window": 2, "causal": True}}.get(kind, {})
    masks = {"bool": torch.rand(y, x) < 0.6, "floating": r(y, x), "blind": torch.arange(y)[:, None] > torch.zeros(x)}
    mask = [masks[kind]] if kind in masks else []
    wrt = ["query", "key", "value"]
    halves = forward_backward(attention, *inputs, *mask, recompute="y x", wrt=wrt, **options)
    definition = attention.circuit.definition
    agree(halves, lambda *each: definition(*each, *mask, **options), inputs, back, *mask, **options)


def test_scores_larger_than_the_exponential_can_hold() -> None:
    """exp(score) would be infinite; exp(score - logsumexp) is not."""
    inputs, back = (100 * r(3, 4), 100 * r(5, 4), r(5, 4)), r(3, 4)
    agree(forward_backward(attention, *inputs, recompute="y x"), attention.circuit.definition, inputs, back)


def test_the_statistic_of_a_half_precision_softmax_is_saved_in_float32() -> None:
    """In bfloat16 a logsumexp near 100 has an error of up to 1/4, and the weights have the same relative error."""
    query, key = [r(*shape, dtype=torch.bfloat16) for shape in ((8, 4), (9, 4))]
    query[:, 0] = key[:, 0] = 14
    inputs, back = (query, key, r(9, 4, dtype=torch.bfloat16)), r(8, 4, dtype=torch.bfloat16)
    plain, again = [forward_backward(attention, *inputs, recompute=names) for names in ((), "y x")]
    assert [value.dtype for value in again.saved].count(torch.float32) == 1
    (_, first), (_, second) = plain.forward(*inputs), again.forward(*inputs)
    wanted, found = plain.reverse(first, back)["value"], again.reverse(second, back)["value"]
    # Either way a weight is rounded once, to 8 bits, and 8 of them are summed.
    torch.testing.assert_close(found, wanted, rtol=0, atol=8 * 2**-9 * back.abs().max().item())


def test_heads_that_share_keys() -> None:
    inputs, back = (r(2, 4, 5, 3), r(2, 2, 6, 3), r(2, 2, 6, 3)), r(2, 4, 5, 3)
    halves = forward_backward(grouped_attention, *inputs, recompute="y x")
    assert not [value for value in halves.saved if {"y", "x"} <= set(value.axes)]
    agree(halves, grouped_attention.circuit.definition, inputs, back)


def test_dropout_of_the_weights_saves_its_mask() -> None:
    inputs, back = (r(5, 4), r(6, 4), r(6, 4)), r(5, 4)
    halves = forward_backward(attention, *inputs, recompute="y x", dropout=0.5)
    torch.manual_seed(3)
    _, saved = halves.forward(*inputs, dropout=0.5)
    found = list(halves.reverse(saved, back).values())
    masks = [each for each in saved if each.dtype is torch.bool]
    assert len(masks) == 1
    pull = torch.func.vjp(lambda q, k, v: ((q @ k.mT / 2).softmax(-1) * masks[0] * 2) @ v, *inputs)[1]
    torch.testing.assert_close(tuple(found), pull(back))


# Names in `recompute` -------------------------------------------------------------------------------------------------


@circuit("b m, m h, h m -> b m")
def two_layers(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """A small network."""
    return einsum(einsum(x, first, "b m, m h -> b h").tanh().exp(), second, "b h, h m -> b m")


@pytest.mark.parametrize(
    ("names", "saved"),
    [
        ((), ["b m", "m h", "h m", "b h", "b h"]),
        ("exp", ["b m", "m h", "h m", "b h"]),
        (["tanh", "exp"], ["b m", "m h", "h m", "b h"]),
        ("b h", ["b m", "m h", "h m"]),
        ("h b", ["b m", "m h", "h m"]),
        ("two_layers", ["b m", "m h", "h m"]),
        ("einsum 'b m, m h -> b h'", ["b m", "m h", "h m", "b h", "b h"]),
    ],
)
def test_operations_circuits_and_axes_select_recomputed_values(names: Any, saved: list[str]) -> None:
    inputs, back = (r(3, 4), r(4, 5), r(5, 4)), r(3, 4)
    halves = forward_backward(two_layers, *inputs, recompute=names)
    assert tape(halves) == saved
    agree(halves, two_layers.circuit.definition, inputs, back)


class Gate(nn.Module):
    """A layer times a sigmoid gate, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, scaled by the gate."""
        return F.dropout(self.layer(x) * self.gate(x).sigmoid(), 0.25)


def test_a_module_named_by_its_path_saves_its_inputs_and_its_random_masks() -> None:
    model = nn.Sequential(Gate(), nn.Linear(4, 4), Gate()).double()
    x, back = r(6, 4), r(6, 4)
    plain, again = [forward_backward(model, x, recompute=names) for names in ((), ["0", "2"])]
    assert [value.dtype for value in again.saved].count(torch.bool) == 2
    assert again.bytes == 2 * 6 * 4 + 3 * 6 * 4 * 8  # two masks, and the input of each of the three modules
    assert isinstance(plain.bytes, int)
    assert again.bytes < plain.bytes
    torch.manual_seed(5)
    _, first = plain.forward(x)
    torch.manual_seed(5)
    _, second = again.forward(x)
    torch.testing.assert_close(again.reverse(second, back), plain.reverse(first, back))


def test_an_unknown_name_is_refused_with_the_names_that_exist() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    message = r"Sequential has no 2\.weird; its operations are linear, tanh; its boxes are 0, 1; axes"
    with pytest.raises(CircuitError, match=message):
        forward_backward(model, r(2, 4, dtype=torch.float32), recompute="2.weird")


def test_an_operation_whose_input_is_overwritten_later_is_not_recomputed() -> None:
    """The counter has changed before the reverse pass."""
    counter = torch.zeros(3, dtype=torch.float64)

    def counted(x: Tensor, counter: Tensor) -> Tensor:
        turned = x * (counter * 2).cos()
        with torch.no_grad():
            counter += 1
        return turned

    with pytest.raises(CircuitError, match="an input of mul is overwritten later"):
        forward_backward(counted, r(3), counter, recompute=["cos", "mul"], wrt="x")
    halves = forward_backward(counted, r(3), counter, wrt="x")
    _, saved = halves.forward(r(3), counter)
    torch.testing.assert_close(halves.reverse(saved, torch.ones(3, dtype=torch.float64))["x"], torch.ones(3).double())


# Functions in `recompute` ---------------------------------------------------------------------------------------------


def test_a_function_is_given_the_diagram_of_backward_and_returns_names() -> None:
    inputs, back = (r(3, 4), r(4, 5), r(5, 4)), r(3, 4)
    given: list[Diagram] = []

    def choose(diagram: Diagram) -> str:
        given.append(diagram)
        return "b h"

    halves = forward_backward(two_layers, *inputs, recompute=choose)
    (diagram,) = given
    joint = backward(two_layers, *inputs)
    assert [box.label for box in diagram.walk()] == [box.label for box in joint.walk()]
    torch.testing.assert_close(diagram(*inputs, back), joint(*inputs, back))
    assert (tape(halves), halves.choice) == (["b m", "m h", "h m"], ("b h",))
    assert [box.label.split()[0] for box in halves.recomputed] == ["einsum", "tanh", "exp"]
    agree(halves, two_layers.circuit.definition, inputs, back)


def test_a_function_chooses_single_operations_which_no_name_can() -> None:
    """The second of two equal layers alone, by its boxes; then all of the first, by the box around them."""
    model, x, back = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh()).double(), r(3, 4), r(3, 4)

    def operations(diagram: Diagram) -> list[Box]:
        return [box for box in diagram.boxes[0].walk() if box.call is not None]

    def last(diagram: Diagram) -> Any:
        return iter(operations(diagram)[2:])

    plain = forward_backward(model, x)
    halves = forward_backward(model, x, recompute=last)
    assert [box.label for box in halves.recomputed] == ["linear", "tanh"]
    assert plain.bytes == 8 * 3 * (4 + 5 + 4)
    assert halves.bytes == 8 * 3 * (4 + 5)
    around = forward_backward(
        model, x, recompute=lambda diagram: [diagram.boxes[0].boxes[1], diagram.boxes[0].boxes[0]]
    )
    assert [box.label for box in around.recomputed] == ["linear", "tanh"]
    assert around.bytes == 8 * 3 * (4 + 4)
    for each in (plain, halves, around):
        forward, reverse = each
        torch.testing.assert_close(reverse(forward(x)[1], back)["input"], by_autograd(model, (x,), back)[0])


@pytest.mark.slow
def test_a_box_that_is_no_part_of_the_forward_pass_is_refused() -> None:
    other = backward(two_layers).boxes[0].boxes[0]
    for chosen in ([other], lambda diagram: diagram.boxes[1], lambda diagram: [diagram.boxes[-1]]):
        with pytest.raises(
            CircuitError, match=r"recompute: .* is no box of the forward pass of two_layers: a function"
        ):
            forward_backward(two_layers, recompute=chosen)
    for chosen, text in ((3, "3"), (lambda _: [3], "3"), (lambda _: None, "None")):
        with pytest.raises(CircuitError, match=f"expected names and boxes of the forward pass, got {text}"):
            forward_backward(two_layers, recompute=chosen)  # type: ignore[arg-type]


def test_a_random_operation_that_a_function_returns_is_refused() -> None:
    def masks(diagram: Diagram) -> list[Box]:
        return [box for box in diagram.boxes[0].walk() if "dropout" in box.label and box.call is not None]

    with pytest.raises(CircuitError, match="native_dropout may return another result"):
        forward_backward(lambda x: F.dropout(x.exp(), 0.5), r(3), recompute=masks)


def test_scores_that_a_softmax_reads_through_a_view_are_recomputed_from_its_statistic() -> None:
    """The view has other sizes than the scores; neither is saved."""

    def f(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y).view(2, 3, 7).softmax(-1).view(6, 7) @ y.mT

    inputs, back = (r(6, 5), r(5, 7)), r(6, 5)
    halves = forward_backward(f, *inputs, recompute=["matmul", "softmax"])
    assert tape(halves) == ["6 5", "5 7", "2 3 1"]
    agree(halves, f, inputs, back)
    saved = forward_backward(f, *inputs, recompute="softmax")
    assert "2 3 1" not in tape(saved)
    agree(saved, f, inputs, back)


# Recomputed at no cost ------------------------------------------------------------------------------------------------


def test_transposed_reads_of_one_tensor_are_saved_once() -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        return (x.mT @ y) + (x.transpose(0, 1)[None] @ y.unsqueeze(0))[0]

    inputs, back = (r(3, 4), r(3, 5)), r(4, 5)
    halves = forward_backward(f, *inputs)
    assert halves.bytes == 8 * (3 * 4 + 3 * 5)
    agree(halves, f, inputs, back)


def test_a_transposed_weight_is_not_saved_at_all() -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(r(4, 5))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.t()

    halves = forward_backward(Layer(), r(3, 5))
    assert halves.bytes == 8 * 3 * 5


def test_index_ranges_are_recomputed() -> None:
    halves = forward_backward(attention, r(6, 4), r(5, 4), r(5, 4), causal=True, recompute="y x")
    assert {value.dtype for value in halves.saved} == {torch.float64}


def test_an_operation_is_not_recomputed_if_out_or_a_flag_overwrites_its_input() -> None:
    def by_out(x: Tensor, m: Tensor) -> Tensor:
        angle = m * 2
        y = x * angle.sin()
        torch.add(m, 1, out=angle)
        return y * angle

    def by_flag(x: Tensor, m: Tensor) -> Tensor:
        angle = m * 2
        return x * angle.sin() + F.relu(angle, True)

    for f in (by_out, by_flag):
        with pytest.raises(CircuitError, match="an input of sin is overwritten later"):
            forward_backward(f, r(3), r(3), wrt="x", recompute="sin")


def test_an_operation_is_recomputed_if_its_input_was_overwritten_before_it() -> None:
    """The input still has the contents that it read."""

    def f(x: Tensor, m: Tensor) -> Tensor:
        angle = m * 2
        angle.add_(1)
        return x * angle.sin()

    inputs, back = (r(3), r(3)), r(3)
    halves = forward_backward(f, *inputs, wrt="x", recompute="sin")
    outputs, saved = halves.forward(*inputs)
    torch.testing.assert_close(outputs, f(*inputs))
    torch.testing.assert_close(halves.reverse(saved, back)["x"], back * (inputs[1] * 2 + 1).sin())
    assert "sin" in [box.label for box in halves.reverse.walk()]


@circuit("a b -> a b")
def gate(x: Tensor) -> Tensor:
    """Under vmap this is one box with a transform, which is not decomposed."""
    return einsum(einsum(x, x, "a b, c b -> a c"), x.sin() * x.sin(), "a c, c b -> a b")


@pytest.mark.parametrize("name", [(), "sin", "exp"])
def test_a_circuit_under_vmap_is_partitioned_too(name: Any) -> None:
    inputs, back = (r(2, 3, 4),), r(2, 3, 4)
    whole = lambda x: torch.vmap(gate)(x)  # noqa: E731
    agree(forward_backward(whole, *inputs), whole, inputs, back)
    f = lambda x: torch.vmap(gate)(x.sin()) * x.exp()  # noqa: E731
    agree(forward_backward(f, *inputs, recompute=name), f, inputs, back)


@pytest.mark.slow
def test_the_inputs_of_scores_are_visited_once_each() -> None:
    """Each sum of a tensor and a function of it doubles the paths to the input: after 60, there are 2^60."""

    def f(x: Tensor, y: Tensor) -> Tensor:
        for _ in range(60):
            x = x.sin() + x
        return einsum(x, y, "a k, b k -> a b").softmax(-1)

    inputs, back = (r(3, 2), r(4, 2)), r(3, 4)
    agree(forward_backward(f, *inputs, recompute=["add", "sin", "einsum", "softmax"]), f, inputs, back)
