# A submodule or a buffer is a Tensor or a Module to pyright.
# pyright: reportCallIssue=false, reportArgumentType=false, reportOperatorIssue=false
"""Backward circuits: diagrams of gradients, which print, run, and agree with autograd, for whole models too."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from circuits import (
    CircuitError,
    Diagram,
    ShapeError,
    backward,
    circuit,
    einsum,
    forward_backward,
    rearrange,
    simplify,
    trace,
    track,
)
from circuits.diagram.structure import tensors
from models.attention import MultiHeadAttention, attention
from models.conv_attention import ConvAttention
from models.convolution import Convolution, SeparableConvolution, TransposedConvolution
from models.language_model import LanguageModel
from models.layers import DoubleConvolution, FeedForward, Linear, NormActivate
from models.mlp import MLP
from models.parts.positions import LearnedPositions, RotaryPositions, SinusoidalPositions
from models.resnet import IdentityResNet
from models.sequence_to_sequence import SequenceToSequence
from models.transformer import Transformer
from models.unet import UNet
from models.vision_transformer import VisionTransformer
from models.visual_attention import VisualAttention


@circuit("... y k, ... x k, ... x k -> ... y k")
def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    score = einsum(query, key, "... y k, ... x k -> ... y x") * query.shape[-1] ** -0.5
    return einsum(score.softmax(-1), value, "... y x, ... x k -> ... y k")


def r(*shape: int) -> Tensor:
    """Random numbers of this shape, in float64."""
    return torch.randn(shape, dtype=torch.float64)


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.float64)


def vjp(f: Callable[..., Any], *inputs: Tensor) -> tuple[Any, Callable[..., Any]]:
    """The outputs of a function and its vector-Jacobian product, by torch.func.vjp."""
    outputs, pull, *_ = torch.func.vjp(f, *inputs)
    return outputs, pull


def cotangents(outputs: Any) -> list[Tensor]:
    """A random cotangent for each floating output."""
    return [torch.randn_like(each) for each in tensors(outputs) if each.is_floating_point()]


def by_autograd(model: Any, inputs: tuple[Any, ...], back: list[Tensor]) -> dict[str, Tensor]:
    """The gradients by a module's parameters, under their names, then by its floating inputs, under their positions."""
    state = {name: each.detach().clone() for name, each in model.named_buffers()}
    leaves = {name: each.detach().clone().requires_grad_() for name, each in model.named_parameters()}
    given = [each.clone().requires_grad_() if each.is_floating_point() else each for each in inputs]
    torch.manual_seed(5)
    result = torch.func.functional_call(model, (leaves, state), tuple(given))
    outputs = [each for each in tensors(result) if each.is_floating_point()]
    watched = leaves | {f"{place}": each for place, each in enumerate(given) if each.is_floating_point()}
    found = torch.autograd.grad(outputs, list(watched.values()), back, allow_unused=True)
    pairs = zip(watched.items(), found, strict=True)
    return {name: torch.zeros_like(each) if slope is None else slope for (name, each), slope in pairs}


def model_agrees(model: nn.Module, *inputs: Tensor, opaque: tuple[str, ...] = ()) -> Diagram:
    """The backward diagram of a model returns the gradients by its inputs and parameters, to 1e-9 in float64.

    `opaque` are the labels of its boxes without a rule.
    """
    model = model.double()
    diagram = backward(model, *inputs)
    assert tuple(dict.fromkeys(box.label for box in diagram.opaque)) == opaque
    torch.manual_seed(5)
    state = {name: each.clone() for name, each in model.state_dict().items()}
    back = cotangents(model(*inputs))
    model.load_state_dict(state)
    wanted = by_autograd(model, inputs, back)
    torch.manual_seed(5)
    found = diagram(*inputs, *back)
    parameters = {name for name, _ in model.named_parameters()}
    assert parameters <= set(found)
    given = iter([each for name, each in wanted.items() if name not in parameters])
    for name, slope in found.items():
        theirs = wanted[name] if name in parameters else next(given)
        torch.testing.assert_close(slope, theirs, rtol=1e-9, atol=1e-9)
    assert next(given, None) is None
    return diagram


# The diagrams --------------------------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[], Diagram]] = {
    "attention": lambda: backward(attend, sizes={"y": 5, "x": 7, "k": 4}),
    "attention_free": lambda: backward(attend),
    "linear": lambda: backward(nn.Linear(4, 3), axes="b 4"),
    "attention_reverse": lambda: forward_backward(attend).reverse,
    "multi_head": lambda: backward(MultiHeadAttention(m=12, k=4, h=3)),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", TABLES)
def test_the_table_of_a_gradient(name: str, golden: Any) -> None:
    golden(f"autodiff/{name}.txt", f"{TABLES[name]()}\n")


def contractions(diagram: Diagram) -> list[int]:
    """The number of einsums in the box of the forward pass and in that of the reverse pass."""
    return [len([box for box in half.walk() if box.call and box.call.function is einsum]) for half in diagram.boxes]


def test_attention_has_two_contractions_forward_and_four_in_reverse() -> None:
    diagram = backward(attend)
    assert [box.label for box in diagram.boxes] == ["attend", "∂attend"]
    assert contractions(diagram) == [2, 4]


def test_fused_attention_is_differentiated_by_its_definition() -> None:
    diagram = backward(F.scaled_dot_product_attention, r(2, 3, 4), r(2, 5, 4), r(2, 5, 4))
    count = [len([box for box in half.walk() if box.label.startswith("einsum '")]) for half in diagram.boxes]
    assert count == [2, 4]


def test_the_reverse_of_a_linear_layer_is_two_contractions_and_a_sum() -> None:
    labels = [box.label for box in backward(nn.Linear(4, 3), r(2, 4).float()).boxes[1].walk() if box.call is not None]
    assert [label.split()[0] for label in labels] == ["einsum", "einsum", "sum"]


def test_every_cotangent_has_the_axes_of_its_primal() -> None:
    diagram = backward(attend)
    assert [str(value) for value in diagram.inputs] == ["y k", "x k", "x k", "y k"]
    assert [value.name for value in diagram.inputs] == ["query", "key", "value", "cotangent"]
    assert [str(value) for value in diagram.outputs] == ["y k", "x k", "x k"]
    for box in diagram.walk():
        for value in box.outputs:
            assert all(axis or size == 1 for axis, size in zip(value.axes, value.sizes, strict=True))


# The gradients -------------------------------------------------------------------------------------------------------

ZOO: dict[str, Callable[[], tuple[Any, ...]]] = {
    "MultiHeadAttention": lambda: (MultiHeadAttention(m=12, k=4, h=3), r(2, 5, 12), r(2, 7, 12)),
    "MultiHeadAttention, size 1": lambda: (MultiHeadAttention(m=4, k=1, h=1), r(1, 4), r(1, 4)),
    "MLP": lambda: (MLP(), r(2, 28, 28)),
    "IdentityResNet": lambda: (IdentityResNet(1, (4, 8, 8, 8)), r(2, 3, 8, 8)),
    "IdentityResNet, eval": lambda: (IdentityResNet(1, (4, 8, 8, 8)).eval(), r(1, 3, 8, 8)),
    "UNet": lambda: (UNet(2, 2), r(2, 1, 32, 16)),
    "ConvAttention": lambda: (ConvAttention(), r(2, 3, 3), r(2, 1)),
    "VisualAttention": lambda: (VisualAttention(4, 2, 2), r(2, 4, 5, 5), r(2, 4, 6, 6)),
    "Transformer": lambda: (
        Transformer(m=8, k=4, h=2, f=16, encoder_depth=1, decoder_depth=1), r(2, 3, 8), r(2, 4, 8),
    ),
    "VisionTransformer": lambda: (
        VisionTransformer(8, 4, m=8, k=4, h=2, f=16, depth=1, classes=3), r(2, 3, 8, 8),
    ),
    "LanguageModel": lambda: (LanguageModel(11, m=8, k=4, h=2, f=16, depth=1), torch.randint(11, (2, 6))),
    "SequenceToSequence": lambda: (
        SequenceToSequence(10, m=8, k=4, h=2, f=16, encoder_depth=1, decoder_depth=1),
        torch.randint(10, (2, 6)), torch.randint(10, (2, 5)),
    ),
    "Convolution": lambda: (Convolution("c h w -> k h' w'", c=3, k=4, kernel=3, stride=2, padding=1), r(2, 3, 8, 9)),
    "TransposedConvolution": lambda: (
        TransposedConvolution("k h' w' -> c h w", k=4, c=3, kernel=3, stride=2, padding=1), r(2, 4, 4, 5),
    ),
    "SeparableConvolution": lambda: (
        SeparableConvolution("c h w -> k h' w'", c=3, k=4, kernel=3, padding=1), r(3, 6, 6),
    ),
    "Linear": lambda: (Linear("m -> h k", m=8, h=2, k=3), r(5, 8)),
    "NormActivate": lambda: (NormActivate(4), r(2, 4, 3, 3)),
    "DoubleConvolution": lambda: (DoubleConvolution(3, 4), r(2, 3, 6, 6)),
    "FeedForward": lambda: (FeedForward(m=8, f=12), r(5, 8)),
    "RotaryPositions": lambda: (RotaryPositions(k=4), r(2, 3, 4)),
    "LearnedPositions": lambda: (LearnedPositions(16, m=4), r(2, 3, 4)),
    "SinusoidalPositions": lambda: (SinusoidalPositions(m=4), r(3, 4)),
}  # fmt: skip

OTHERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "Linear": lambda: (nn.Linear(4, 3), r(2, 4)),
    "Bilinear": lambda: (nn.Bilinear(3, 4, 5), r(2, 3), r(2, 4)),
    "Conv1d": lambda: (nn.Conv1d(4, 6, 3, 2, 1, groups=2), r(2, 4, 9)),
    "Conv2d, mirrored": lambda: (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), r(2, 3, 5, 5)),
    "Conv3d": lambda: (nn.Conv3d(2, 3, 2), r(1, 2, 4, 4, 4)),
    "ConvTranspose2d": lambda: (nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), r(2, 4, 3, 3)),
    "BatchNorm1d": lambda: (nn.BatchNorm1d(4), r(5, 4)),
    "BatchNorm2d, eval": lambda: (nn.BatchNorm2d(4).eval(), r(1, 4, 2, 2)),
    "SyncBatchNorm-like InstanceNorm2d": lambda: (nn.InstanceNorm2d(4, affine=True), r(2, 4, 3, 3)),
    "GroupNorm": lambda: (nn.GroupNorm(2, 4), r(2, 4, 3)),
    "LayerNorm": lambda: (nn.LayerNorm((3, 4)), r(2, 3, 4)),
    "RMSNorm": lambda: (nn.RMSNorm(4), r(2, 4)),
    "PReLU": lambda: (nn.PReLU(4), r(2, 4)),
    "Embedding": lambda: (nn.Embedding(5, 4, padding_idx=1), torch.tensor([[0, 1], [2, 4]])),
    "LSTM": lambda: (nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), r(2, 3, 4)),
    "GRU": lambda: (nn.GRU(4, 3), r(2, 3, 4)),
    "RNN": lambda: (nn.RNN(4, 3), r(2, 3, 4)),
    "LSTMCell": lambda: (nn.LSTMCell(4, 3), r(2, 4)),
    "GRUCell": lambda: (nn.GRUCell(4, 3), r(2, 4)),
    "MultiheadAttention": lambda: (nn.MultiheadAttention(8, 2, batch_first=True), r(2, 3, 8), r(2, 5, 8), r(2, 5, 8)),
    "TransformerEncoderLayer": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), r(2, 3, 8)),
    "TransformerDecoderLayer": lambda: (nn.TransformerDecoderLayer(8, 2, 16), r(2, 3, 8), r(4, 3, 8)),
    "convolutions": lambda: (
        nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.3),
            nn.MaxPool2d(2), nn.ConvTranspose2d(8, 4, 2, 2), nn.SiLU(inplace=True), nn.AvgPool2d(2), nn.Flatten(),
        ),
        r(2, 3, 8, 8),
    ),
    "resized": lambda: (
        nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.PixelShuffle(2), nn.AdaptiveAvgPool2d(3)),
        r(1, 4, 3, 3),
    ),
    "one weight twice": lambda: (Tied(), torch.tensor([[0, 1, 3]])),
    "a layer twice": lambda: (Twice(), r(2, 4)),
    "an unused parameter and input": lambda: (Unread(), r(2, 4), r(3)),
}  # fmt: skip


class Tied(nn.Module):
    """A language model whose head and embedding share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens).tanh())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(self.norm(self.layer(x))))


class Unread(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.spare = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.layer(x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_all_operations_of_the_models_of_the_zoo_have_rules(name: str) -> None:
    model_agrees(*ZOO[name]())


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_modules_of_torch(name: str) -> None:
    model_agrees(*OTHERS[name]())


@pytest.mark.slow
def test_the_transformer_of_torch() -> None:
    model_agrees(nn.Transformer(8, 2, 1, 1, 16, batch_first=True), r(2, 3, 8), r(2, 4, 8))


def test_a_tied_weight_has_one_cotangent_the_sum_of_both() -> None:
    model = Tied()
    diagram = backward(model, torch.tensor([[0, 1, 3]]))
    assert diagram.result.keys == ("embed.weight",)


@pytest.mark.smoke
@pytest.mark.parametrize(("y", "x", "k"), [(2, 3, 4), (7, 2, 16), (5, 5, 5)])
def test_a_gradient_runs_at_new_sizes(y: int, x: int, k: int) -> None:
    inputs, back = (r(3, y, k), r(3, x, k), r(3, x, k)), r(3, y, k)
    diagram = backward(attend)
    _, pull = vjp(attend.circuit.definition, *[each[0] for each in inputs])
    found = diagram(*[each[0] for each in inputs], back[0])
    torch.testing.assert_close(tuple(found.values()), pull(back[0]))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(2, 32, 16), (3, 16, 48)])
def test_a_convolutional_gradient_runs_at_new_sizes(size: tuple[int, ...]) -> None:
    model = UNet(2, 2).double().eval()
    diagram = backward(model)
    assert diagram.fixed == ()
    image = r(size[0], 1, *size[1:])
    answer, pull = vjp(model, image)
    (back,) = cotangents(answer)
    torch.testing.assert_close(diagram(image, back)["image"], pull(back)[0])


def test_sizes_that_violate_a_guard_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"x is 5 in value \[.*\], expected 3"):
        backward(attend)(r(2, 4), r(3, 4), r(5, 4), r(2, 4))


def test_parameters_can_be_replaced_by_name() -> None:
    model, x, back = nn.Linear(4, 3).double(), r(2, 4), r(2, 3)
    weight = r(3, 4)
    found = backward(model, x).run((x, back), {}, {"weight": weight})
    torch.testing.assert_close(found["input"], back @ weight)


def test_a_recorded_run_can_be_differentiated() -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double(), r(2, 4)
    with track(model, to=None) as seen:
        model(x)
    back = r(2, 3)
    found = backward(seen.diagram)(x, back)
    _, pull = vjp(model, x)
    torch.testing.assert_close(found["input"], pull(back)[0])


# The tensors that `wrt` names ----------------------------------------------------------------------------------------


def test_wrt_selects_by_name_and_no_other_gradient_is_computed() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    x, back = r(5, 4), r(5, 2)
    diagram = backward(model, x, wrt="1.weight")
    assert list(diagram(x, back)) == ["1.weight"]
    assert len([box for box in diagram.boxes[1].walk() if box.call is not None]) == 1
    torch.testing.assert_close(diagram(x, back)["1.weight"], back.mT @ model[0](x))
    both = backward(model, x, wrt=["input", "0.bias"])(x, back)
    torch.testing.assert_close(both["0.bias"], (back @ model[1].weight).sum(0))


def test_buffers_are_included_only_if_wrt_names_them() -> None:
    model: Any = nn.BatchNorm1d(3).double().eval()
    x, back = r(4, 3), r(4, 3)
    assert list(backward(model, x)(x, back)) == ["input", "weight", "bias"]
    found = backward(model, x, wrt="running_mean")(x, back)["running_mean"]
    torch.testing.assert_close(found, -back.sum(0) * model.weight / (model.running_var + model.eps).sqrt())


def test_an_unused_input_has_a_zero_cotangent_with_its_axes() -> None:
    diagram = backward(lambda a, b: a * 2, r(3), r(2, 4))
    zeros = [box for box in diagram.walk() if box.label == "zeros"]
    assert len(zeros) == 1
    assert torch.equal(diagram(r(3), r(2, 4), r(3))["b"], torch.zeros(2, 4, dtype=torch.float64))


def test_an_output_may_be_an_input_and_a_gradient_may_be_a_cotangent() -> None:
    diagram = backward(lambda a: (a, a), r(3))
    assert torch.equal(diagram(ones(3), 2 * ones(3), ones(3))["a"], 3 * ones(3))
    again = backward(lambda a, b: (a, b, a + b), r(3), r(3))
    found = again(ones(3), ones(3), ones(3), 2 * ones(3), 4 * ones(3))
    assert torch.equal(found["a"], 5 * ones(3))
    assert torch.equal(found["b"], 6 * ones(3))


def test_integers_have_no_cotangent() -> None:
    def count(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return x[rows], rows + x.argmax()

    diagram = backward(count, r(4), torch.tensor([1, 1]))
    assert [value.name for value in diagram.inputs] == ["x", "rows", "cotangent"]
    found = diagram(r(4), torch.tensor([1, 1]), 3 * ones(2))
    assert list(found) == ["x"]
    assert torch.equal(found["x"], torch.tensor([0.0, 6, 0, 0]).double())


def test_arguments_by_name_and_arguments_that_are_no_tensors_left_out() -> None:
    def scaled(x: Tensor, scale: float = 2.0, *, y: Tensor) -> Tensor:
        return x * scale + y

    diagram = backward(scaled, r(3), scale=3.0, y=r(3))
    assert torch.equal(diagram(ones(3), y=ones(3), cotangent=ones(3))["x"], 3 * ones(3))
    assert torch.equal(diagram(ones(3), ones(3), ones(3), scale=3.0)["x"], 3 * ones(3))
    with pytest.raises(CircuitError, match=r"recorded with 3\.0"):
        diagram(ones(3), ones(3), ones(3), scale=4.0)


REFUSED: dict[str, Callable[[], Any]] = {
    "wrt_unknown": lambda: backward(nn.Linear(4, 3), axes="b 4", wrt="wait"),
    "a_diagram_with_inputs": lambda: backward(trace(attend), r(2, 3)),
    "hidden_from_autograd": lambda: backward(hidden_from_autograd, r(3)),
    "too_few_cotangents": lambda: backward(few_cotangents, r(3), r(3)),
    "wrong_shape": lambda: backward(wrong_shape, r(3)),
}


def hidden_from_autograd(x: Tensor) -> Tensor:
    y = x * 3
    with torch.no_grad():
        y.mul_(2)
    return y


@circuit("k, k -> k")
def few_cotangents(a: Tensor, b: Tensor) -> Tensor:
    return a * b


@few_cotangents.backward
def _(a: Tensor, b: Tensor, back: Tensor) -> Tensor:
    return b * back


@circuit("k -> k")
def wrong_shape(a: Tensor) -> Tensor:
    return a * 2


@wrong_shape.backward
def _(a: Tensor, back: Tensor) -> Tensor:
    return back.sum() * 2


@pytest.mark.parametrize("name", REFUSED)
def test_messages_of_refused_gradients(name: str, golden: Any) -> None:
    with pytest.raises(CircuitError) as caught:
        REFUSED[name]()
    golden(f"autodiff/refused_{name}.txt", re.sub(r"\S*/(\w+\.py):\d+", r"\1", f"{caught.value}\n"))


def test_a_failed_run_cannot_be_differentiated() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(4, 4))
    with track(model, to=None) as seen, pytest.raises(RuntimeError):
        model(torch.ones(3, 8))
    with pytest.raises(CircuitError, match="cannot be differentiated"):
        backward(seen.diagram)


# Programs for which naive rules compute wrong gradients --------------------------------------------------------------


def in_place_and_views(x: Tensor) -> Tensor:
    y = x.clone()
    y[1:] += x[:-1]
    y[:, 0] = 0
    y.mul_(x)
    return y.relu_() + y.view(-1)[3]


def a_view_written(x: Tensor) -> Tensor:
    y = x * 2
    row = y.view(-1)
    row[2:5].exp_()
    return y * row.view(y.shape)


def a_view_of_a_view_read_later(x: Tensor) -> Tensor:
    y = x.sin()
    half = y[:, 1:]
    corner = half[0]
    y.mul_(3)
    return corner * half.sum() + y[0, 0]


def the_base_written_after_it_was_saved(x: Tensor) -> Tensor:
    y = x.exp()
    z = y.clone() * 1
    z *= y
    z += z.clone().detach()
    return z


def twice_in_place(x: Tensor) -> Tensor:
    y = torch.zeros(3, 4, dtype=x.dtype)
    for row in range(3):
        y[row] = x[row] * (y[row - 1] + 1)
    return y


def in_place_functions(x: Tensor) -> Tensor:
    return F.relu(x * 2, inplace=True) * F.leaky_relu(x - 1, 0.2, inplace=True) + F.dropout(x, 0.0, inplace=True)


def chunks_written(x: Tensor) -> Tensor:
    y = x * 1
    y[:, :2].sigmoid_()
    first, second = y.chunk(2, 1)
    return first * second


def filled_by_index(x: Tensor) -> Tensor:
    y = x * 2
    y[torch.tensor([0, 2]), 1] = x[0, 0] ** 2
    y.masked_fill_(x > 1, 0.5)
    return y


def written_out(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    out.copy_(x.exp())
    out.add_(x, alpha=2).clamp_(max=3)
    return out


WRITTEN = [
    in_place_and_views, a_view_written, a_view_of_a_view_read_later, the_base_written_after_it_was_saved,
    twice_in_place, in_place_functions, chunks_written, filled_by_index, written_out,
]  # fmt: skip


@pytest.mark.every(2)
@pytest.mark.parametrize("f", WRITTEN, ids=lambda f: f.__name__)
def test_in_place_changes(f: Callable[[Tensor], Tensor]) -> None:
    x = r(3, 4)
    diagram = backward(f, x)
    leaf = x.clone().requires_grad_()
    output = f(leaf)
    back = torch.randn_like(output).requires_grad_()
    (wanted,) = torch.autograd.grad(output, leaf, back, create_graph=True)
    torch.testing.assert_close(diagram(x.clone(), back.detach())["x"], wanted)
    slope = torch.randn_like(x)
    second = torch.autograd.grad(wanted, [leaf, back], slope, allow_unused=True)
    found = backward(diagram)(x.clone(), back.detach(), slope)
    for mine, theirs in zip(found.values(), second, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if theirs is None else theirs)


class Counted(nn.Module):
    """Reads a buffer, changes it, and reads it again."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.count
        self.count.add_(1)
        return y * self.count


def test_a_saved_value_is_copied_before_it_is_overwritten() -> None:
    model = Counted().double()
    diagram = backward(model, r(3))
    assert torch.equal(diagram(r(3), ones(3))["x"], 6 * ones(3))
    assert model.count == 3
    assert torch.equal(diagram(r(3), ones(3))["x"], 12 * ones(3))


def test_a_value_computed_without_autograd_is_a_constant() -> None:
    def f(x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = x * 3
        return scale * x + x.detach() * x

    x = r(3)
    torch.testing.assert_close(backward(f, x)(x, ones(3))["x"], 4 * x)
    torch.testing.assert_close(backward(backward(f, x))(x, ones(3), ones(3))["x"], 0 * x)


def test_a_run_without_gradients_is_differentiated_as_if_it_had_them() -> None:
    with torch.no_grad():
        diagram = backward(lambda x: x.sin(), r(3))
    x = r(3)
    torch.testing.assert_close(diagram(x, ones(3))["x"], x.cos())


class Straight(torch.autograd.Function):
    """Rounds; its `backward` is not the derivative of its `forward`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.round()

    @staticmethod
    def backward(ctx: Any, back: Tensor) -> Tensor:  # type: ignore[override]
        return back * ctx.saved_tensors[0] ** 2


def test_the_backward_of_an_autograd_function_is_used() -> None:
    def f(x: Tensor) -> Tensor:
        return Straight.apply(x * 2) * x

    x = r(4)
    diagram = backward(f, x)
    assert [box.label for box in diagram.opaque] == ["∂Straight"]
    leaf, back = x.clone().requires_grad_(), r(4)
    (wanted,) = torch.autograd.grad(f(leaf), leaf, back, create_graph=True)
    torch.testing.assert_close(diagram(x, back)["x"], wanted)
    (second,) = torch.autograd.grad(wanted.sum(), leaf)
    torch.testing.assert_close(backward(diagram)(x, back, ones(4))["x"], second)


def test_the_forward_and_reverse_pass_of_dropout_share_one_mask() -> None:
    diagram = backward(lambda x: F.dropout(x, 0.5) * 3, ones(1000))
    torch.manual_seed(1)
    found = diagram(ones(1000), ones(1000))["x"]
    torch.manual_seed(1)
    assert torch.equal(found, F.dropout(ones(1000), 0.5) * 3)
    assert set(found.tolist()) == {0.0, 6.0}


def test_a_function_under_vmap_is_differentiated_through_it() -> None:
    def f(x: Tensor, w: Tensor) -> Tensor:
        return torch.vmap(lambda row: F.linear(row, w).softmax(-1))(x)

    x, w, back = r(3, 4), r(5, 4), r(3, 5)
    _, pull = vjp(f, x, w)
    torch.testing.assert_close(tuple(backward(f, x, w)(x, w, back).values()), pull(back))


class Mapped(nn.Module):
    """Applies `torch.vmap` to its own layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(self.layer, in_dims=1)(x)


def test_a_module_that_uses_vmap_has_gradients_by_its_parameters() -> None:
    model_agrees(Mapped(), r(2, 5, 4))


def test_gradients_under_autocast_have_the_dtypes_of_the_inputs() -> None:
    def f(x: Tensor, w: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return (x @ w).relu().float()

    x, w, back = torch.randn(4, 5), torch.randn(5, 3), torch.randn(4, 3)
    leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    wanted = torch.autograd.grad(f(*leaves), leaves, back)
    found = tuple(backward(f, x, w)(x, w, back).values())
    assert [each.dtype for each in found] == [torch.float32, torch.float32]
    torch.testing.assert_close(found, wanted, rtol=1.6e-2, atol=1e-5)  # the default tolerances of bfloat16


# Two diagrams --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_reverse_takes_what_the_forward_saves() -> None:
    forward, reverse = forward_backward(attend)
    query, key, value, back = r(5, 4), r(7, 4), r(7, 4), r(5, 4)
    output, saved = forward(query, key, value)
    expected, pull = vjp(attend.circuit.definition, query, key, value)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(tuple(reverse(saved, back).values()), pull(back))


@pytest.mark.slow
def test_the_saved_values_their_axes_and_their_bytes() -> None:
    halves = forward_backward(attend)
    assert [str(value) for value in halves.saved] == ["y k", "x k", "x k", "y x"]
    assert str(halves.bytes) == "8*k*x + 4*k*y + 4*x*y"
    fixed = forward_backward(attend, sizes={"y": 5, "x": 7, "k": 4})
    assert fixed.bytes == 4 * (5 * 4 + 2 * 7 * 4 + 5 * 7)
    _, saved = fixed.forward(torch.ones(5, 4), torch.ones(7, 4), torch.ones(7, 4))
    assert fixed.bytes == sum(each.numel() * each.element_size() for each in saved)


def test_parameters_are_not_saved() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    forward, reverse = halves = forward_backward(model, r(5, 4))
    assert [value.shape for value in halves.saved] == ["5 4", "5 3"]
    x, back = r(5, 4), r(5, 2)
    _, saved = forward(x)
    wanted = by_autograd(model, (x,), [back])
    found = reverse(saved, back)
    for name, _ in model.named_parameters():
        torch.testing.assert_close(found[name], wanted[name])


def test_the_two_diagrams_of_a_model_with_dropout_share_the_mask() -> None:
    forward, reverse = forward_backward(lambda x: F.dropout(x.exp(), 0.5), ones(50))
    output, saved = forward(torch.zeros(50, dtype=torch.float64))
    assert torch.equal(reverse(saved, ones(50))["x"], output)


def test_recomputed_values_are_not_saved() -> None:
    sizes = {"y": 5, "x": 7, "k": 4}
    plain, thrifty = forward_backward(attend, sizes=sizes), forward_backward(attend, recompute="softmax", sizes=sizes)
    bare = forward_backward(attend, recompute=["softmax", "mul", "einsum"], sizes=sizes)
    assert plain.bytes == thrifty.bytes == 4 * (5 * 4 + 2 * 7 * 4 + 5 * 7)
    assert bare.bytes == 4 * (5 * 4 + 2 * 7 * 4 + 5)
    again = ["einsum", "mul", "sub", "exp"]
    assert [box.label.split()[0] for box in bare.reverse.boxes] == [*again, "∂attend"]
    query, key, value, back = torch.randn(5, 4), torch.randn(7, 4), torch.randn(7, 4), torch.randn(5, 4)
    expected = backward(attend, sizes=sizes)(query, key, value, back)
    for halves in (plain, thrifty, bare):
        _, saved = halves.forward(query, key, value)
        assert halves.bytes == sum(each.numel() * each.element_size() for each in saved)
        found = halves.reverse(saved, back)
        for name, slope in found.items():
            torch.testing.assert_close(slope, expected[name])


@pytest.mark.slow
def test_unknown_and_random_operations_are_not_recomputed() -> None:
    with pytest.raises(CircuitError, match="attend has no relu; its operations are einsum, mul, softmax"):
        forward_backward(attend, recompute="relu")
    with pytest.raises(CircuitError, match="native_dropout may return another result"):
        forward_backward(lambda x: F.dropout(x.exp(), 0.5), r(3), recompute="native_dropout")


def test_the_forward_diagram_returns_outputs_with_later_in_place_changes() -> None:
    def f(x: Tensor) -> Tensor:
        y = x * 2
        row = y[0]
        y.mul_(x)
        return row

    x, back = r(3, 4), r(4)
    output, saved = (halves := forward_backward(f, x)).forward(x)
    torch.testing.assert_close(output, 2 * x[0] ** 2)
    torch.testing.assert_close(halves.reverse(saved, back)["x"][0], 4 * x[0] * back)


# Gradients of gradients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [3, 5, pytest.param(8, marks=pytest.mark.slow)])
def test_derivatives_of_the_logarithm(order: int) -> None:
    """The k-th derivative of log2(x) is (-1)^(k-1) (k-1)! / (x^k ln 2)."""
    point, one = torch.tensor(2.0, dtype=torch.float64), ones()
    diagram: Any = torch.log2
    for k in range(1, order + 1):
        diagram = backward(diagram, wrt="0") if k > 1 else backward(diagram, point)
        expected = (-1) ** (k - 1) * math.factorial(k - 1) / (2.0**k * math.log(2))
        assert math.isclose(diagram(point, *[one] * k)["0"], expected, rel_tol=1e-12)


@pytest.mark.slow
def test_the_gradient_of_a_gradient_of_a_whole_model() -> None:
    model = MultiHeadAttention(m=4, k=2, h=2).double()
    target, source, back = r(3, 4), r(2, 4), r(3, 4)
    diagram = backward(model, target, source, wrt="target")
    again = backward(diagram, wrt=["source", "Lq.weight"])

    def slope(source: Tensor, weight: Tensor) -> Tensor:
        state = {**dict(model.named_parameters()), "Lq.weight": weight}
        run = lambda target: torch.func.functional_call(model, state, (target, source))  # noqa: E731
        return vjp(run, target)[1](back)[0]

    weigh = r(3, 4)
    found = again(target, source, back, weigh)
    with sdpa_kernel(SDPBackend.MATH):  # torch has no second derivative of its fused attention
        _, pull = vjp(slope, source, model.Lq.weight.detach())
        torch.testing.assert_close(tuple(found.values()), pull(weigh))


def test_a_gradient_is_taken_in_code_that_is_traced_again() -> None:
    inner = backward(lambda x: x.sin(), r(3))
    outer = backward(lambda x: inner(x, torch.ones_like(x))["x"] * x, r(3))
    x = r(3)
    torch.testing.assert_close(outer(x, ones(3))["x"], x.cos() - x * x.sin())


# Custom backward circuits --------------------------------------------------------------------------------------------


@circuit("a b, b c -> a c")
def matmul(left: Tensor, right: Tensor) -> Tensor:
    return left @ right


@matmul.backward
def _(left: Tensor, right: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
    return einsum(back, right, "a c, b c -> a b"), einsum(left, back, "a b, a c -> b c")


@circuit("k -> k")
def clipped(x: Tensor, limit: float = 1.0) -> Tensor:
    """Its custom gradient is not 0 where the values are clipped, in contrast to autograd's."""
    return x.clamp(-limit, limit)


@clipped.backward
def _(x: Tensor, limit: float, back: Tensor) -> Tensor:
    return back / limit


def test_a_custom_backward_circuit_is_used() -> None:
    diagram = backward(lambda a, b: matmul(a, b).exp(), r(2, 3), r(3, 4))
    (reverse,) = [box for box in diagram.walk() if box.label == "∂matmul"]
    assert [box.label.split("'")[1] for box in reverse.boxes] == ["a c, b c -> a b", "a b, a c -> b c"]
    a, b, back = r(2, 3), r(3, 4), r(2, 4)
    _, pull = vjp(lambda a, b: (a @ b).exp(), a, b)
    torch.testing.assert_close(tuple(diagram(a, b, back).values()), pull(back))


def test_a_custom_backward_circuit_overrides_the_true_gradient() -> None:
    x = torch.tensor([-3.0, 0.5, 3.0], dtype=torch.float64)
    found = backward(lambda x: clipped(x * 2, limit=2.0), x)(x, ones(3))["x"]
    torch.testing.assert_close(found, ones(3))


def test_a_custom_backward_circuit_is_differentiated_in_turn() -> None:
    a, b, back, slopes = r(2, 3), r(3, 4), r(2, 4), (r(2, 3), r(3, 4))
    again = backward(backward(matmul, a, b))
    _, pull = vjp(lambda a, b, back: (back @ b.mT, a.mT @ back), a, b, back)
    torch.testing.assert_close(tuple(again(a, b, back, *slopes).values()), pull(slopes))


# Random programs -----------------------------------------------------------------------------------------------------

ONE: list[Callable[[Tensor], Tensor]] = [
    torch.sin, torch.tanh, torch.sigmoid, lambda x: x * x, lambda x: x.softmax(-1), lambda x: x - x.mean(0),
    lambda x: x.mT.contiguous().mT, lambda x: F.layer_norm(x, x.shape[-1:]), lambda x: x.cumsum(0) / 3,
    lambda x: x.flip(1), lambda x: x + x.sum(1, keepdim=True) / 5, lambda x: F.gelu(x), lambda x: x.roll(1, 0),
    lambda x: torch.cat([x[:, 1:], x[:, :1]], 1), lambda x: x.clone().mul_(0.5), lambda x: x.detach() + x,
    lambda x: x.logsumexp(1, keepdim=True) + x, lambda x: x.reshape(-1).view(x.shape) * 0.7,
]  # fmt: skip
TWO: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.add, torch.mul, lambda a, b: a - 2 * b, lambda a, b: a @ (b.mT @ b) / 9,
    lambda a, b: a / (1 + b * b), lambda a, b: a * b.tanh(),
    lambda a, b: einsum(a, einsum(a, b, "i j, k j -> i k").softmax(-1), "k j, i k -> i j"),
    lambda a, b: torch.where(a > b, a, b * b), lambda a, b: torch.maximum(a, b),
]  # fmt: skip

Program = list[tuple[int, int, int, int]]


@st.composite
def programs(draw: Any) -> Program:
    """Programs as steps, each a function of one earlier value or of two."""
    steps = []
    for place in range(draw(st.integers(1, 6))):
        arity = draw(st.integers(1, 2))
        which = draw(st.integers(0, len(ONE if arity == 1 else TWO) - 1))
        steps.append((arity, which, draw(st.integers(0, place + 1)), draw(st.integers(0, place + 1))))
    return steps


def follow(program: Program, x: Tensor, y: Tensor) -> Tensor:
    """Run the steps; the output is the sum of all values made."""
    values = [x, y]
    for arity, which, first, second in program:
        values.append(ONE[which](values[first]) if arity == 1 else TWO[which](values[first], values[second]))
    return torch.stack(values[2:]).sum(0)


def calls(diagram: Diagram) -> list[str]:
    return [box.label for box in diagram.walk() if box.call is not None]


def test_unused_and_repeated_boxes_are_removed() -> None:
    diagram = backward(lambda x: x.exp() * x.exp(), r(3))
    assert calls(simplify(diagram)) == ["exp", "mul", "∂exp", "add"]
    x, back = r(3), r(3)
    assert torch.equal(simplify(diagram)(x, back)["x"], diagram(x, back)["x"])


UNCHANGED: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "transposes": (lambda x: x.mT.transpose(0, 1).exp(), ["exp"]),
    "permutations": (lambda x: x[None].permute(2, 0, 1).permute(1, 2, 0).exp(), ["index [None]", "exp"]),
    "rearranged and back": (lambda x: rearrange(rearrange(x, "a b -> b a"), "b a -> a b").exp(), ["exp"]),
    "another transpose stays": (lambda x: x.T.flip(0).T.exp(), ["T", "flip", "T", "exp"]),
    "copies and views": (lambda x: x.clone().reshape(x.shape).contiguous().exp() * 1, ["exp"]),
    "another shape stays": (lambda x: x.reshape(-1).reshape(x.shape).exp(), ["reshape", "reshape", "exp"]),
    "another number stays": (lambda x: (x * 1.5).exp(), ["mul", "exp"]),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_operations_that_change_nothing_are_removed(name: str) -> None:
    f, expected = UNCHANGED[name]
    x = r(3, 4)
    diagram = trace(f, x)
    assert calls(simplify(diagram)) == expected
    assert torch.equal(simplify(diagram)(x), f(x))


def test_operations_that_draw_random_numbers_or_write_stay() -> None:
    def f(x: Tensor) -> Tensor:
        y = F.dropout(x, 0.5) - F.dropout(x, 0.5)
        return y + torch.rand_like(x) - torch.rand_like(x)

    diagram = trace(f, ones(100))
    assert len(calls(simplify(diagram))) == len(calls(diagram))
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).double()
    forgetful = simplify(backward(model, r(4, 3), wrt="1.bias"))
    forgetful(r(4, 3), r(4, 2))
    module: Any = model[0]
    assert module.num_batches_tracked == 1


@pytest.mark.every(2)
@pytest.mark.parametrize("name", ["MultiHeadAttention", "IdentityResNet", "LanguageModel"])
def test_a_simplified_gradient_is_the_gradient(name: str) -> None:
    model, *inputs = ZOO[name]()
    model = model.double().eval()
    diagram = backward(model, *inputs)
    smaller = simplify(diagram)
    assert len(calls(smaller)) < len(calls(diagram))
    back = cotangents(model(*inputs))
    found, expected = smaller(*inputs, *back), diagram(*inputs, *back)
    assert found.keys() == expected.keys()
    for name, slope in found.items():
        torch.testing.assert_close(slope, expected[name], rtol=1e-12, atol=1e-12)  # contractions in another order


@given(programs(), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=10)
def test_a_simplified_program_gives_the_same_numbers(program: Program, a: int, b: int) -> None:
    x, y = r(a, b), r(a, b)
    diagram = trace(lambda x, y: follow(program, x, y), x, y)
    assert torch.equal(simplify(diagram)(x.clone(), y.clone()), diagram(x.clone(), y.clone()))


@pytest.mark.slow
@given(programs(), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=8)
def test_random_programs_their_gradients_and_the_gradients_of_these(program: Program, a: int, b: int) -> None:
    x, y, back = r(a, b), r(a, b), r(a, b)
    run = lambda x, y: follow(program, x, y)  # noqa: E731
    diagram = backward(run, x, y)
    assert not diagram.opaque
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_(), back.clone().requires_grad_()]
    wanted = torch.autograd.grad(run(*leaves[:2]), leaves[:2], leaves[2], create_graph=True, allow_unused=True)
    found = diagram(x, y, back)
    for mine, theirs in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if theirs is None else theirs)
    kept = [each for each in wanted if each is not None and each.requires_grad]
    if kept:
        slopes = [torch.randn_like(each) for each in found.values()]
        weights = [s for s, each in zip(slopes, wanted, strict=True) if each is not None and each.requires_grad]
        second = torch.autograd.grad(kept, leaves, weights, allow_unused=True)
        again = backward(diagram)(x, y, back, *slopes)
        for mine, theirs in zip(again.values(), second, strict=True):
            torch.testing.assert_close(mine, torch.zeros_like(mine) if theirs is None else theirs)


def test_attention_with_its_kernel_is_differentiated_by_its_definition() -> None:
    query, key, value, back = r(2, 5, 4), r(2, 7, 4), r(2, 7, 4), r(2, 5, 4)
    diagram = backward(attention, query, key, value)
    _, pull = vjp(attention.circuit.definition, query, key, value)
    torch.testing.assert_close(tuple(diagram(query, key, value, back).values()), pull(back))
