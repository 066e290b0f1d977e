import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, trace
from models.resnet import Block, IdentityResNet


def small(**changes: Any) -> IdentityResNet:
    """Return a small network."""
    options: dict[str, Any] = {"units": 2, "channels": (3, 8, 12, 16), "classes": 5, "in_channels": 2}
    return IdentityResNet(**options | changes)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def by_functions(model: IdentityResNet, image: Tensor, training: bool) -> Tensor:
    """Return the logits of Figure 26 computed with functions only, in the order of the figure, from the parameters."""
    state = dict(model.named_parameters()) | dict(model.named_buffers())

    def norm_activate(name: str, data: Tensor) -> Tensor:
        weight, bias = state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]
        mean, var = state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"]
        if training:
            mean, var = data.mean((0, 2, 3)), data.var((0, 2, 3), correction=0)
        scale = weight * (var + 1e-5).rsqrt()
        return F.relu((data - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None])

    def convolve(name: str, data: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(data, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, padding)

    image = convolve("convolution", image, padding=1)
    for b, stride in enumerate((1, 2, 2)):
        image = norm_activate(f"blocks.{b}.norm_activate", image)
        main = convolve(f"blocks.{b}.strided.main.0", image, stride)
        main = convolve(f"blocks.{b}.strided.main.2", norm_activate(f"blocks.{b}.strided.main.1", main), padding=1)
        main = convolve(f"blocks.{b}.strided.main.4", norm_activate(f"blocks.{b}.strided.main.3", main))
        image = main + convolve(f"blocks.{b}.strided.connection", image, stride)
        for unit in range(len(model.blocks[b].plain)):  # pyright: ignore[reportArgumentType]
            name = f"blocks.{b}.plain.{unit}.main"
            main = convolve(f"{name}.1", norm_activate(f"{name}.0", image))
            main = convolve(f"{name}.3", norm_activate(f"{name}.2", main), padding=1)
            image = image + convolve(f"{name}.5", norm_activate(f"{name}.4", main))
    pooled = norm_activate("norm_activate", image).flatten(2).mean(-1)
    return pooled @ state["linear.weight"].T + state["linear.bias"]


def stirred(model: IdentityResNet) -> IdentityResNet:
    """Return the model with norms and biases at random, not at their initial values."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand_like(value) + (0.5 if "var" in name or "weight" in name else -0.5))
    return model


def gradients(output: Tensor, model: nn.Module) -> list[Tensor]:
    """Return the gradients of a sum with a different weight for every number."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return list(torch.autograd.grad((output * weights).sum(), list(model.parameters())))


# --- Against the figure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_figure_by_functions(training: bool, bias: bool) -> None:
    """Compare values and the gradient of every parameter."""
    model = stirred(small(bias=bias, dtype=torch.float64)).train(training)
    image = torch.randn(3, 2, 8, 12, dtype=torch.float64)
    ours, theirs = model(image), by_functions(model, image, training)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(model.probabilities(image), theirs.softmax(-1))
    for mine, other in zip(gradients(ours, model), gradients(theirs, model), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("training", [False, True])
def test_the_figure_by_functions_in_single_precision(training: bool) -> None:
    """Gradients equal those in double precision to 1e-4 of the largest: successive batch norms lose two digits."""
    model = small().train(training)
    double = copy.deepcopy(model).double()
    image = torch.randn(3, 2, 8, 12)
    torch.testing.assert_close(model(image), by_functions(model, image, training))
    exact = gradients(by_functions(double, image.double(), training), double)
    for mine, other in zip(gradients(model(image), model), exact, strict=True):
        atol = 1e-4 * max(each.abs().max().item() for each in exact)
        torch.testing.assert_close(mine, other.float(), rtol=1e-4, atol=atol)


def test_the_figures_own_sizes() -> None:
    model = IdentityResNet().eval()
    output = model.probabilities(torch.rand(2, 3, 16, 16))  # as in the notebook
    assert output.shape == (2, 10)
    torch.testing.assert_close(output.sum(-1), torch.ones(2))


# --- Parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.every(4)
@pytest.mark.parametrize(
    ("options", "parameters"),
    [({}, 312_218), ({"bias": True}, 314_698), ({"units": 18}, 1_703_258), ({"units": 111}, 10_327_706)],
)
def test_parameters_of_known_networks(options: dict[str, Any], parameters: int) -> None:
    assert count(IdentityResNet(**options, device="meta")) == parameters
    if "bias" not in options:
        assert parameters == 92_736 * options.get("units", 3) + 34_010


@pytest.mark.slow
@settings(max_examples=10)
@given(
    N=st.integers(1, 4),
    n1=st.integers(1, 9),
    quarters=st.tuples(*[st.integers(1, 5)] * 3),
    k=st.integers(1, 5),
    c=st.integers(1, 4),
    bias=st.booleans(),
)
def test_parameters_are_as_many_as_the_formula_says(
    N: int, n1: int, quarters: tuple[int, ...], k: int, c: int, bias: bool
) -> None:
    channels = (n1, *(4 * n for n in quarters))
    model = IdentityResNet(N, channels, k, c, bias=bias, device="meta")
    blocks = [
        5 * n0 * n + 2 * n0 + (17 * N - 4) * n**2 + (12 * N - 8) * n + bias * (6 * N + 4) * n
        for n0, n in zip(channels[:3], quarters, strict=True)
    ]
    assert [count(block) for block in model.blocks] == blocks
    assert count(model) == 9 * c * n1 + bias * n1 + sum(blocks) + 2 * channels[3] + (channels[3] + 1) * k


def test_names_of_the_state_are_a_promise() -> None:
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]

    def activate(name: str) -> list[str]:
        return [f"{name}.norm.{each}" for each in norm]

    names = ["convolution.weight"]
    for b in range(3):
        unit = f"blocks.{b}.strided"
        names += activate(f"blocks.{b}.norm_activate")
        names += [f"{unit}.main.0.weight", *activate(f"{unit}.main.1"), f"{unit}.main.2.weight"]
        names += [*activate(f"{unit}.main.3"), f"{unit}.main.4.weight", f"{unit}.connection.weight"]
        for first in (0, 2, 4):
            names += [*activate(f"blocks.{b}.plain.0.main.{first}"), f"blocks.{b}.plain.0.main.{first + 1}.weight"]
    names += [*activate("norm_activate"), "linear.weight", "linear.bias"]
    assert list(small(device="meta").state_dict()) == names


# --- Shapes -----------------------------------------------------------------------------------------------------------


def test_shapes_of_a_block() -> None:
    block = Block(3, 2, 5, 28, device="meta")
    assert block(torch.empty(2, 5, 3 * 11, 3 * 13, device="meta")).shape == (2, 28, 11, 13)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 2, 8, 10), "w is 10, not a multiple of 4 like 8 and 12"),
        ((2, 2, 7, 8), "h is 7, not a multiple of 4"),
        ((2, 3, 8, 8), "c is 3 here, but 2"),
        ((2, 8, 8), "forward"),
    ],
)
def test_wrong_sizes_are_named_in_the_error(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        small()(torch.rand(shape))


def test_the_stride_must_divide_the_sizes() -> None:
    with pytest.raises(ShapeError, match="h/s is not a whole number"):
        Block(2, 1, 4, 8)(torch.rand(2, 4, 5, 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (16, 64, 128, 250)}, "4, 8, 12, ..., not 250"),
        ({"channels": (16, 64, 128)}, "four numbers"),
        ({"units": 0}, "units is 0; it may be 1 or more"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CircuitError, match=message):
        IdentityResNet(**options)


# --- In training code -------------------------------------------------------------------------------------------------


def test_a_step_of_training_lowers_the_loss() -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    images, classes, losses = torch.randn(6, 2, 8, 8), torch.arange(6) % 5, []
    for _ in range(3):
        loss = F.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    assert model.norm_activate.norm.num_batches_tracked == 3


@pytest.mark.parametrize("in_channels", [1, 3])
def test_it_is_channels_last_inside_for_any_layout_of_the_input(in_channels: int) -> None:
    model, seen = small(in_channels=in_channels), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda _, inputs, output: seen.extend((inputs[0], output)))
    images = torch.randn(2, in_channels, 8, 12)
    before = images.clone()
    first = model(images)
    again = model(images.contiguous(memory_format=torch.channels_last))
    assert seen
    assert all(each.stride(1) == 1 and each.is_contiguous(memory_format=torch.channels_last) for each in seen)
    assert torch.equal(first, again)
    assert torch.equal(images, before)


def test_it_works_in_place_where_a_norm_comes_before() -> None:
    kinds = [module.inplace for module in IdentityResNet(device="meta").modules() if isinstance(module, nn.ReLU)]
    assert len(kinds) == 3 * (3 + 2 * 3) + 1
    assert all(kinds)


def test_it_is_initialized_as_documented() -> None:
    model = IdentityResNet()
    last = model.get_parameter("blocks.2.plain.0.main.3.weight")
    assert last.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert model.linear.bias.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_maps_over_batches_and_differentiates_per_image(dtype: torch.dtype) -> None:
    model = stirred(small(dtype=dtype)).eval()
    images = torch.randn(3, 2, 2, 8, 8, dtype=dtype)
    torch.testing.assert_close(torch.vmap(model)(images), torch.stack([model(each) for each in images]))
    weights: dict[str, Tensor] = dict(model.named_parameters())

    def loss(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(model, weights, image[None])[0, 0]

    each = torch.vmap(torch.func.grad(loss), (None, 0))(weights, images[0])
    for index, image in enumerate(images[0]):
        expected = torch.autograd.grad(loss(weights, image), list(weights.values()))
        torch.testing.assert_close([each[name][index] for name in weights], list(expected))


@pytest.mark.slow
def test_it_exports_with_any_number_of_images() -> None:
    model = stirred(small()).eval()
    program = torch.export.export(model, (torch.randn(3, 2, 8, 12),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    images = torch.randn(5, 2, 8, 12)
    torch.testing.assert_close(program.module()(images), model(images))


@pytest.mark.slow
def test_a_block_compiles_into_one_graph() -> None:
    """Outputs, gradients and running statistics in training mode."""
    model = Block(2, 1, 2, 8)
    ours, images = copy.deepcopy(model), torch.randn(2, 2, 8, 8)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    expected, output = model(images), compiled(images)
    torch.testing.assert_close(output, expected)
    for mine, other in zip(gradients(output, ours), gradients(expected, model), strict=True):
        # The operations of successive batch norms are in another order.
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.state_dict(), model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_it_compiles_to_code_in_one_graph(dynamic: bool) -> None:
    """With 2 or 4 channels, the code that inductor of torch 2.13 makes writes beyond its memory on some CPUs."""
    model, images = Block(2, 1, 8, 16), torch.randn(2, 8, 8, 8)
    ours = copy.deepcopy(model)
    compiled = torch.compile(ours, fullgraph=True, dynamic=dynamic)
    expected, output = model(images), compiled(images)
    torch.testing.assert_close(output, expected)
    for mine, other in zip(gradients(output, ours), gradients(expected, model), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)  # as above


# --- Its table --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_has_the_sizes_of_the_figure() -> None:
    table = trace(IdentityResNet().eval().probabilities).table(depth=None, width=300)
    lines = table.splitlines()
    assert "b 3 h w -> b 10" in lines[1]
    assert " 312,218" in lines[1]
    for part in (
        "b 16 h w -> b 64 h w",
        "b 64 h w -> b 128 h/2 w/2",
        "b 128 h/2 w/2 -> b 256 h/4 w/4",
        "softmax over k",
    ):
        assert part in table
    assert table.count("×2") == 3
    assert "//" not in table
