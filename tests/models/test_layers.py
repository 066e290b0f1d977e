import copy
import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, SignatureError, definitions, find_circuit, trace
from models.layers import (
    DoubleConvolution,
    FeedForward,
    Linear,
    NormActivate,
    ResidualConnection,
    channels_first,
    channels_last,
    he_normal,
)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def gradients(output: Tensor, model: nn.Module) -> list[Tensor]:
    """Return the gradients of a sum with a different weight for every number."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return list(torch.autograd.grad((output * weights).sum(), list(model.parameters())))


def agree(ours: Tensor, theirs: Tensor, model: nn.Module) -> None:
    """Assert equal values, and equal gradients of every parameter."""
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(gradients(ours, model), gradients(theirs, model), strict=True):
        torch.testing.assert_close(mine, other)


# --- Linear -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("lead", [(), (5,), (2, 0, 3)])
def test_linear_is_torchs(lead: tuple[int, ...], bias: bool, dtype: torch.dtype) -> None:
    theirs = nn.Linear(7, 3, bias, dtype=dtype)
    ours = Linear("m -> k", m=7, k=3, bias=bias, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    data = torch.randn(*lead, 7, dtype=dtype)
    torch.testing.assert_close(ours(data), theirs(data), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_is_an_einsum(dtype: torch.dtype) -> None:
    model = Linear("c m -> h k d", c=2, m=7, h=3, k=5, d=4, dtype=dtype)
    data = torch.randn(6, 2, 7, dtype=dtype)
    weight = model.weight.view(3, 5, 4, 2, 7)
    assert model.bias is not None
    agree(model(data), torch.einsum("ycm,hkdcm->yhkd", data, weight) + model.bias.view(3, 5, 4), model)


@pytest.mark.slow
@given(
    inside=st.lists(st.integers(1, 4), max_size=3),
    outside=st.lists(st.integers(1, 4), max_size=3),
    lead=st.lists(st.integers(0, 3), max_size=2),
    bias=st.booleans(),
)
def test_linear_at_any_sizes(inside: list[int], outside: list[int], lead: list[int], bias: bool) -> None:
    left, right = "abc"[: len(inside)], "xyz"[: len(outside)]
    sizes: dict[str, Any] = dict(zip(left + right, inside + outside, strict=True))
    model = Linear(f"{' '.join(left)} -> {' '.join(right)}", bias=bias, dtype=torch.float64, **sizes)
    data = torch.randn([*lead, *inside], dtype=torch.float64)
    weight = model.weight.view([*outside, *inside])
    expected = torch.einsum(f"...{left},{right}{left}->...{right}", data, weight)
    expected = expected if model.bias is None else expected + model.bias.view(outside)
    torch.testing.assert_close(model(data), expected)


def test_an_axis_on_both_sides_is_contracted_and_is_new_in_the_output() -> None:
    model = Linear("m -> m", m=5, bias=False)
    data = torch.randn(2, 5)
    torch.testing.assert_close(model(data), data @ model.weight.mT)


def test_linear_is_initialized_as_torchs() -> None:
    torch.manual_seed(3)
    ours = Linear("a b -> k", a=5, b=5, k=40)
    assert ours.weight.abs().max() <= 0.2
    assert ours.weight.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.1)
    assert ours.bias is not None
    assert 0 < ours.bias.abs().max() <= 0.2


def test_each_linear_has_its_own_signature() -> None:
    one, other = Linear("m -> h k", m=7, h=2, k=3), Linear("... h k -> ... m", m=7, h=2, k=3)
    found = [find_circuit(model) for model in (one, other)]
    assert [f"{each.signature}" for each in found if each] == ["... m -> ... h k", "... h k -> ... m"]
    with pytest.raises(ShapeError, match=r"Linear.forward: \.\.\. m -> \.\.\. h k"):
        one(torch.rand(5, 8))
    with pytest.raises(ShapeError, match="k is 2"):
        other(torch.rand(5, 2, 2))
    assert repr(one) == 'Linear("m -> h k", m=7, h=2, k=3, bias=True)'


@pytest.mark.parametrize(
    ("text", "sizes", "message"),
    [
        ("m -> h k", {"m": 2, "h": 3}, "no size was given for k"),
        ("m -> h k", {"m": 2, "h": 3, "q": 1, "p": 1}, "no size was given for k; unknown axis p q"),
        ("m, k -> h", {"m": 2, "k": 3, "h": 4}, "one input and of one output"),
        ("m -> h, k", {"m": 2, "k": 3, "h": 4}, "one input and of one output"),
        ("m -> (h k)", {"m": 2, "k": 3, "h": 4}, "each a name"),
        ("m -> 3", {"m": 2}, "each a name"),
        ("... m -> k", {"m": 2, "k": 3}, "each a name"),
        ("m m -> k", {"m": 2, "k": 3}, "once on a side"),
    ],
)
def test_invalid_texts_and_sizes_of_linear_are_refused(text: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        Linear(text, **sizes)


def test_a_text_that_cannot_be_parsed_is_refused() -> None:
    with pytest.raises(SignatureError):
        Linear("m k", m=1, k=2)


# --- Norm and activate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_norm_activate_is_torchs(training: bool) -> None:
    ours, theirs = NormActivate(6).train(training), nn.Sequential(nn.BatchNorm2d(6), nn.ReLU()).train(training)
    ours.norm.load_state_dict(theirs[0].state_dict())
    data = torch.randn(4, 6, 3, 5)
    torch.testing.assert_close(ours(data), theirs(data))
    for mine, other in zip(gradients(ours(data), ours), gradients(theirs(data), theirs), strict=True):
        torch.testing.assert_close(mine, other)
    torch.testing.assert_close(ours.norm.state_dict(), theirs[0].state_dict())


def test_norm_and_activation_can_be_replaced() -> None:
    data = torch.randn(4, 6, 3, 5)
    model = NormActivate(6, partial(nn.GroupNorm, 2), nn.GELU)
    torch.testing.assert_close(model(data), F.gelu(F.group_norm(data, 2)))
    assert {type(module) for module in model.children()} == {nn.GroupNorm, nn.GELU}


@pytest.mark.parametrize("norm", [nn.Identity, nn.BatchNorm2d, partial(nn.GroupNorm, 2), lambda n: nn.Softmax(1)])
def test_the_input_is_left_alone_and_gradients_are_right(norm: Callable[[int], nn.Module]) -> None:
    """The activation works in place only if its input is not used by a gradient."""
    model = NormActivate(4, norm, dtype=torch.float64)
    data = torch.randn(3, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    before = data.detach().clone()
    model(data)
    assert torch.equal(data, before)
    assert torch.autograd.gradcheck(model, data)


# --- Residual ---------------------------------------------------------------------------------------------------------


def test_a_residual_connection_adds_both_paths() -> None:
    main, connection, data = nn.Linear(5, 3), nn.Linear(5, 3), torch.randn(2, 5)
    torch.testing.assert_close(ResidualConnection(main, connection)(data), main(data) + connection(data))
    square = nn.Linear(5, 5)
    torch.testing.assert_close(ResidualConnection(square)(data), square(data) + data)


def test_neither_path_of_a_residual_connection_is_broadcast() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 1\) from the mainline, \(2, 5\) from the input"):
        ResidualConnection(nn.Linear(5, 1))(torch.randn(2, 5))
    with pytest.raises(ShapeError, match=r"\(2, 1\) from the connection"):
        ResidualConnection(nn.Linear(5, 3), nn.Linear(5, 1))(torch.randn(2, 5))


# --- Double convolution -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_double_convolution_by_functions(dtype: torch.dtype) -> None:
    model, data = DoubleConvolution(3, 5, dtype=dtype), torch.randn(2, 3, 7, 4, dtype=dtype)
    first_weight, first_bias, second_weight, second_bias = model.parameters()
    hidden = F.relu(F.conv2d(data, first_weight, first_bias, padding=1))
    agree(model(data), F.relu(F.conv2d(hidden, second_weight, second_bias, padding=1)), model)


def test_double_convolution_takes_a_norm_and_an_activation() -> None:
    model, data = DoubleConvolution(3, 6, nn.SiLU, norm=partial(nn.GroupNorm, 3)), torch.randn(2, 3, 7, 4)
    hidden = F.silu(F.group_norm(F.conv2d(data, model.first.weight, padding=1), 3))
    expected = F.silu(F.group_norm(F.conv2d(hidden, model.second.weight, padding=1), 3))
    torch.testing.assert_close(model(data), expected)
    assert model.first.bias is None


def test_convolutions_are_initialized_with_variance_2_by_the_number_of_inputs() -> None:
    model = DoubleConvolution(32, 64)
    assert model.first.weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)
    assert model.second.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert model.first.bias is not None
    assert model.first.bias.eq(0).all()
    upscale = nn.ConvTranspose2d(128, 64, 2, 2)
    he_normal(upscale)
    assert upscale.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)


# --- Feed-forward -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_feed_forward_is_that_of_torchs_transformer(activation: Callable[[], nn.Module]) -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 11, dropout=0.0, activation=activation())
    model, data = FeedForward(6, 11, activation), torch.randn(2, 5, 6)
    model.L1.load_state_dict(layer.linear1.state_dict())
    model.L2.load_state_dict(layer.linear2.state_dict())
    torch.testing.assert_close(model(data), layer._ff_block(data))


def test_feed_forward_drops_units_in_training_only() -> None:
    model, data = FeedForward(6, 11, dropout=0.5), torch.randn(2, 5, 6)
    torch.manual_seed(1)
    dropped = model(data)
    torch.manual_seed(1)
    torch.testing.assert_close(dropped, model.L2(F.dropout(model.L1(data).relu(), 0.5)))
    torch.testing.assert_close(model.eval()(data), model.L2(model.L1(data).relu()))


def test_feed_forward_works_in_place_only_on_hidden_units() -> None:
    """Without gradients the hidden units; with gradients nothing, for backward hooks; never the input."""
    model, data = FeedForward(6, 11), torch.randn(2, 5, 6)
    given, units = data.clone(), []
    model.L1.register_forward_hook(lambda _, __, output: units.append((output, output.clone())))
    with torch.no_grad():
        expected = model.L2(model.L1(data).relu())
        units.clear()
        torch.testing.assert_close(model(data), expected)
    assert torch.equal(units[0][0], units[0][1].relu())
    model.L1.register_full_backward_hook(lambda _, __, gradient: units.append(gradient))
    output = model(data.requires_grad_())
    output.sum().backward()
    torch.testing.assert_close(output, expected)
    assert torch.equal(units[1][0], units[1][1])
    assert len(units) == 3
    assert torch.equal(data, given)


@pytest.mark.parametrize(
    "make", [partial(FeedForward, 6, 11, nn.PReLU), partial(NormActivate, 6, activation=nn.PReLU)], ids=str
)
def test_a_learned_activation_has_the_given_device_and_dtype(make: Callable[..., nn.Module]) -> None:
    model = make(device="meta", dtype=torch.float64)
    assert {(each.device.type, each.dtype) for each in model.parameters()} == {("meta", torch.float64)}


# --- Layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1, 3])
def test_layouts_change_only_the_strides(c: int) -> None:
    image = torch.randn(2, c, 5, 4)
    last = channels_last(image)
    assert torch.equal(last, image)
    assert last.stride() == (20 * c, 1, 4 * c, c)
    assert channels_first(last).is_contiguous()
    images = torch.randn(3, 2, c, 5, 4)
    assert torch.equal(torch.vmap(channels_last)(images), images)
    assert channels_last(image.double()).is_contiguous()
    with definitions():
        assert channels_last(image) is image


# --- All of them ------------------------------------------------------------------------------------------------------

BLOCKS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], tuple[int, ...], int, list[str]]] = {
    "linear": (
        partial(Linear, "m -> h k", m=7, h=3, k=5),
        (11, 13, 7),
        (11, 13, 3, 5),
        15 * 7 + 15,
        ["weight", "bias"],
    ),
    "norm": (
        partial(NormActivate, 7),
        (2, 7, 11, 13),
        (2, 7, 11, 13),
        14,
        [f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")],
    ),
    "double convolution": (
        partial(DoubleConvolution, 3, 5),
        (2, 3, 11, 13),
        (2, 5, 11, 13),
        9 * 8 * 5 + 10,
        ["first.weight", "first.bias", "second.weight", "second.bias"],
    ),
    "feed-forward": (
        partial(FeedForward, 7, 17),
        (2, 11, 7),
        (2, 11, 7),
        2 * 7 * 17 + 24,
        ["L1.weight", "L1.bias", "L2.weight", "L2.bias"],
    ),
}
each_block = pytest.mark.parametrize("name", BLOCKS)


@each_block
def test_shapes_and_parameters(name: str) -> None:
    make, shape, output, parameters, _ = BLOCKS[name]
    model = make(device="meta")
    assert model(torch.empty(shape, device="meta")).shape == output
    assert count(model) == parameters
    double = make(dtype=torch.float64)
    assert double(torch.rand(shape, dtype=torch.float64)).dtype == torch.float64


@each_block
def test_names_of_the_state_are_a_promise(name: str) -> None:
    make, *_, names = BLOCKS[name]
    assert list(make(device="meta").state_dict()) == names


@each_block
def test_copies_and_pickles(name: str) -> None:
    make, shape, *_ = BLOCKS[name]
    model, data = make().eval(), torch.randn(shape)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    copies = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(saved, weights_only=False))
    for other in copies:
        assert torch.equal(other(data), model(data))
        with pytest.raises(ShapeError):
            other(torch.randn(4))


@pytest.mark.every(3)
@each_block
def test_transforms(name: str) -> None:
    make, shape, *_ = BLOCKS[name]
    model, many = make().eval(), torch.randn(3, *shape)
    torch.testing.assert_close(torch.vmap(model)(many), torch.stack([model(data) for data in many]))
    program = torch.export.export(model, (many[0],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    longer = torch.cat((many[0], many[1]))
    torch.testing.assert_close(program.module()(longer), model(longer))


@pytest.mark.every(4)
@each_block
def test_it_compiles_into_one_graph(name: str) -> None:
    make, shape, *_ = BLOCKS[name]
    model, data = make(), torch.randn(shape)
    ours = copy.deepcopy(model)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(data), model(data))
    for mine, other in zip(gradients(compiled(data), ours), gradients(model(data), model), strict=True):
        torch.testing.assert_close(mine, other)


@each_block
def test_its_table_has_its_sizes(name: str) -> None:
    make, _, _, parameters, _ = BLOCKS[name]
    assert f"{parameters:,}" in str(trace(make())).splitlines()[1].split()


def test_built_on_meta_and_initialized_later() -> None:
    torch.manual_seed(5)
    model = Linear("m -> h k", m=7, h=3, k=5)
    later = Linear("m -> h k", m=7, h=3, k=5, device="meta").to_empty(device="cpu")
    torch.manual_seed(5)
    later.reset_parameters()
    assert torch.equal(later.weight, model.weight)
