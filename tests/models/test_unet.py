import copy
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from circuits import CircuitError, ShapeError, trace
from models.unet import DownScaleBlock, UNet, UpScaleBlock


def small(**changes: Any) -> UNet:
    """Return a small network."""
    options: dict[str, Any] = {"classes": 3, "channels": 2, "in_channels": 2}
    return UNet(**options | changes)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def by_functions(model: UNet, image: Tensor) -> Tensor:
    """Return the logits of Figure 27 computed with functions only, in the order of the figure, from the parameters."""
    state = dict(model.named_parameters())

    def double(name: str, data: Tensor) -> Tensor:
        for each in ("first", "second"):
            data = F.relu(F.conv2d(data, state[f"{name}.{each}.weight"], state[f"{name}.{each}.bias"], padding=1))
        return data

    def upscale(name: str, data: Tensor) -> Tensor:
        """Return the image with 2×2 pixels for each pixel."""
        b, _, h, w = data.shape
        spread = torch.einsum("bchw,cdij->bdhiwj", data, state[f"{name}.weight"])
        return spread.reshape(b, -1, 2 * h, 2 * w) + state[f"{name}.bias"][:, None, None]

    saved = {}
    for level in (1, 2, 3, 4):
        saved[level] = double(f"down.{level - 1}.double_convolution", image)
        b, c, h, w = saved[level].shape
        image = saved[level].reshape(b, c, h // 2, 2, w // 2, 2).amax((3, 5))
    image = upscale("middle_upscale", double("middle", image))
    for level in (4, 3, 2):
        name = f"up.{4 - level}"
        image = upscale(f"{name}.upscale", double(f"{name}.double_convolution", torch.cat((image, saved[level]), 1)))
    if "top.first.weight" in state:
        image = double("top", torch.cat((image, saved[1]), 1))
    return F.conv2d(image, state["convolution.weight"], state["convolution.bias"])


def stirred(model: UNet) -> UNet:
    """Return the model with biases at random, not at their initial values."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.1)
    return model


def gradients(output: Tensor, model: nn.Module) -> list[Tensor]:
    """Return the gradients of a mean with a different weight for every number."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return list(torch.autograd.grad((output * weights).mean(), list(model.parameters())))


# --- Against the figure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loads", [3, 4])
def test_the_figure_by_functions(loads: int, dtype: torch.dtype) -> None:
    """Compare values and the gradient of every parameter."""
    model, image = stirred(small(loads=loads, dtype=dtype)), torch.randn(2, 2, 16, 32, dtype=dtype)
    ours, theirs = model(image), by_functions(model, image)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(gradients(ours, model), gradients(theirs, model), strict=True):
        torch.testing.assert_close(mine, other)


def test_the_figures_own_image() -> None:
    """One channel, two classes: h and w are kept."""
    model = UNet(channels=8)
    assert model(torch.rand(1, 1, 32, 16)).shape == (1, 2, 32, 16)


def test_as_drawn_the_first_saved_image_is_not_loaded() -> None:
    model = UNet.as_drawn(classes=3, channels=1, in_channels=2)
    assert model.top is None
    assert [block.c1 for block in model.down if isinstance(block, DownScaleBlock)] == [2, 4, 8, 16]
    image = torch.randn(1, 2, 16, 32)
    torch.testing.assert_close(model(image), by_functions(model, image))


# --- Parameters -------------------------------------------------------------------------------------------------------


def test_parameters_of_known_networks() -> None:
    """Ronneberger's; with three skip connections; with the legend's channels; exactly as drawn."""
    assert count(UNet(device="meta")) == 31_030_658
    assert count(UNet(loads=3, device="meta")) == 30_919_938
    assert count(UNet(channels=128, device="meta")) == 124_107_522
    assert count(UNet.as_drawn(device="meta")) == 123_664_898


@pytest.mark.slow
@settings(max_examples=10)
@given(n=st.integers(1, 9), c=st.integers(1, 4), k=st.integers(1, 5), loads=st.sampled_from([3, 4]))
def test_parameters_are_as_many_as_the_formula_says(n: int, c: int, k: int, loads: int) -> None:
    squares, singles = (7574, 107) if loads == 4 else (7547, 105)
    model = UNet(k, n, c, loads=loads, device="meta")
    assert count(model) == squares * n**2 + singles * n + 9 * c * n + (n + 1) * k
    assert count(DownScaleBlock(c, n, device="meta")) == 9 * (c + n) * n + 2 * n
    assert count(UpScaleBlock(n, k, device="meta")) == 27 * n**2 + 2 * n + 4 * n * k + k


def test_names_of_the_state_are_a_promise() -> None:
    def double(name: str) -> list[str]:
        return [f"{name}.{each}.{what}" for each in ("first", "second") for what in ("weight", "bias")]

    def one(name: str) -> list[str]:
        return [f"{name}.weight", f"{name}.bias"]

    names = [name for i in range(4) for name in double(f"down.{i}.double_convolution")]
    names += [*double("middle"), *one("middle_upscale")]
    names += [name for i in range(3) for name in (*double(f"up.{i}.double_convolution"), *one(f"up.{i}.upscale"))]
    assert list(small(device="meta").state_dict()) == [*names, *double("top"), *one("convolution")]
    assert list(small(loads=3, device="meta").state_dict()) == [*names, *one("convolution")]


# --- Shapes -----------------------------------------------------------------------------------------------------------


def test_shapes_of_the_blocks() -> None:
    half, saved = DownScaleBlock(3, 5, device="meta")(torch.empty(2, 3, 2 * 11, 2 * 13, device="meta"))
    assert half.shape == (2, 5, 11, 13)
    assert saved.shape == (2, 5, 22, 26)
    image = torch.empty(2, 5, 11, 13, device="meta")
    assert UpScaleBlock(5, 3, device="meta")(image, image).shape == (2, 3, 22, 26)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 2, 16, 24), "w is 24, not a multiple of 16 like 16 and 32"),
        ((2, 2, 31, 16), "h is 31, not a multiple of 16 like 16 and 32"),
        ((2, 1, 16, 16), "c is 1 here, but 2"),
        ((2, 16, 16), "forward"),
    ],
)
def test_wrong_sizes_are_named_in_the_error(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        small()(torch.rand(shape))


def test_wrong_sizes_of_the_blocks_are_refused() -> None:
    with pytest.raises(ShapeError, match="h is 8 here, but 4"):
        UpScaleBlock(4, 2)(torch.rand(1, 4, 4, 4), torch.rand(1, 4, 8, 4))
    with pytest.raises(ShapeError, match="not a multiple of 2"):
        DownScaleBlock(2, 4)(torch.rand(1, 2, 5, 4))


def test_loads_are_three_or_four() -> None:
    with pytest.raises(CircuitError, match="loads must be 4, or 3 as in the figure, not 2"):
        UNet(loads=2)


# --- In training code -------------------------------------------------------------------------------------------------


def test_steps_of_training_lower_the_loss() -> None:
    model = small(channels=4)
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    images, losses = torch.randn(2, 2, 16, 16), []
    classes = (images[:, 0] > 0).long()
    for _ in range(3):
        loss = F.cross_entropy(model(images), classes)
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("in_channels", [1, 3])
def test_it_is_channels_last_inside_for_any_layout_of_the_input(in_channels: int) -> None:
    model, seen = small(in_channels=in_channels), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _, inputs, output: seen.extend((inputs[0], output)))
    images = torch.randn(2, in_channels, 32, 16)
    before = images.clone()
    first = model(images)
    again = model(images.contiguous(memory_format=torch.channels_last))
    assert seen
    assert all(each.stride(1) == 1 and each.is_contiguous(memory_format=torch.channels_last) for each in seen)
    assert first.is_contiguous()
    assert again.is_contiguous()
    assert torch.equal(first, again)
    assert torch.equal(images, before)


def test_it_is_initialized_as_documented() -> None:
    model = UNet(channels=8)
    assert model.middle.second.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.05)
    assert model.middle_upscale.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert all(each.eq(0).all() for name, each in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_maps_over_batches_and_differentiates_per_image(dtype: torch.dtype) -> None:
    model = stirred(small(dtype=dtype))
    images = torch.randn(3, 2, 2, 16, 16, dtype=dtype)
    torch.testing.assert_close(torch.vmap(model)(images), torch.stack([model(each) for each in images]))
    weights: dict[str, Tensor] = dict(model.named_parameters())

    def loss(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(model, weights, image[None]).softmax(1)[0, 0].square().sum()

    each = torch.vmap(torch.func.grad(loss), (None, 0))(weights, images[0])
    for index, image in enumerate(images[0]):
        expected = torch.autograd.grad(loss(weights, image), list(weights.values()))
        torch.testing.assert_close([each[name][index] for name in weights], list(expected))


@pytest.mark.slow
def test_it_exports_with_any_number_of_images() -> None:
    model = stirred(small()).eval()
    program = torch.export.export(model, (torch.randn(3, 2, 16, 32),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    images = torch.randn(5, 2, 16, 32)
    torch.testing.assert_close(program.module()(images), model(images))


def lift(c1: int) -> nn.Module:
    """Return a module with a DownScaleBlock and then an UpScaleBlock."""

    class Piece(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = DownScaleBlock(2, c1), UpScaleBlock(c1, 2)

        def forward(self, image: Tensor) -> Tensor:
            half, saved = self.down(image)
            return self.up(half, half + 1).sum() + saved

    return Piece().double()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "dynamic"),
    [
        ("aot_eager", False),
        pytest.param("inductor", False, marks=pytest.mark.slow),
        pytest.param("inductor", True, marks=pytest.mark.slow),
    ],
    ids=["graphs", "code", "code for any size"],
)
def test_its_blocks_compile_into_one_graph(backend: str, dynamic: bool) -> None:
    """Outputs and gradients."""
    model = lift(4)
    images = torch.randn(2, 2, 16, 16, dtype=next(model.parameters()).dtype)
    ours = copy.deepcopy(model)
    compiled = torch.compile(ours, fullgraph=True, dynamic=dynamic, backend=backend)
    expected, output = model(images), compiled(images)
    torch.testing.assert_close(output, expected)
    for mine, other in zip(gradients(output, ours), gradients(expected, model), strict=True):
        torch.testing.assert_close(mine, other)


# --- Its table --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_has_the_sizes_of_the_figure() -> None:
    """The sizes of every level are shown as fractions of h and w."""
    table = trace(UNet(channels=4)).table(width=200)
    _, *lines = table.partition("\n\n")[0].splitlines()
    assert "b 1 h w -> b 2 h w" in lines[0]
    for i, c in enumerate((4, 8, 16, 32)):
        at, below = ("h w", "h/2 w/2", "h/4 w/4", "h/8 w/8", "h/16 w/16")[i : i + 2]
        (row,) = [line for line in lines if f"down.{i} DownScaleBlock" in line]
        assert f"-> b {c} {below}, b {c} {at}" in row
    for i, (at, above) in enumerate((("h/8 w/8", "h/4 w/4"), ("h/4 w/4", "h/2 w/2"), ("h/2 w/2", "h w"))):
        c = 32 // 2**i
        (row,) = [line for line in lines if f"up.{i} UpScaleBlock" in line]
        assert f"b {c} {at}, b {c} {at} -> b {c // 2} {above}" in row
    assert "softmax" not in table  # the figure ends with the last convolution
    assert not re.search(r"//|\b[su]\d", table)
