# A submodule is a Tensor or a Module to pyright.
# pyright: reportAttributeAccessIssue=false
"""Models and layers compared with those of other libraries, with the same weights.

The vision transformer has its own tests.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.attention import MultiHeadAttention
from models.parts.positions import RotaryPositions
from models.resnet import IdentityResNet
from tests import peers

both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def stirred(model: nn.Module, by: float = 0.2) -> Any:
    """The model with random parameters and running statistics."""
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value) * by)
    return model


def gradients(output: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor, ...]:
    """The gradients of a weighted sum of the output, with different weights for all numbers."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return torch.autograd.grad((output * weights).sum(), parameters)


# --- pytorchcv's pre-activation ResNet --------------------------------------------------------------------------------


def pytorchcvs(units: int) -> Any:
    """pytorchcv's network for CIFAR: three stages, of 64, 128 and 256 channels."""
    make = peers.peer("pytorchcv.models.preresnet_cifar").CIFARPreResNet
    return make([[64] * units, [128] * units, [256] * units], init_block_channels=16, bottleneck=True)


def stride_as_drawn(theirs: Any) -> None:
    """Move the stride of each stage from the 3×3 convolution to the 1×1 convolution before it, as in Figure 26."""
    for stage in (theirs.features.stage2, theirs.features.stage3):
        first, second = stage.unit1.body.conv1.conv, stage.unit1.body.conv2.conv
        assert (first.stride, second.stride) == ((1, 1), (2, 2))
        first.stride, second.stride = second.stride, first.stride


def renamed(name: str) -> str:
    """The parameter name in IdentityResNet for one of pytorchcv's."""
    kind, _, rest = name.partition(".")
    if kind == "output":
        return f"linear.{rest}"
    part, _, rest = rest.partition(".")
    if part in ("init_block", "post_activ"):
        return f"convolution.{rest}" if part == "init_block" else f"norm_activate.norm.{rest.removeprefix('bn.')}"
    block, (unit, rest) = f"blocks.{int(part.removeprefix('stage')) - 1}", rest.split(".", 1)
    number = int(unit.removeprefix("unit"))
    if rest.startswith("identity_conv"):
        return f"{block}.strided.connection.{rest.split('.', 1)[1]}"
    _, convolution, what, last = rest.split(".")
    place = 2 * int(convolution.removeprefix("conv")) - (2 if what == "bn" else 1)
    if number > 1:
        return f"{block}.plain.{number - 2}.main.{place}.{'norm.' if what == 'bn' else ''}{last}"
    if place == 0:
        return f"{block}.norm_activate.norm.{last}"
    return f"{block}.strided.main.{place - 1}.{'norm.' if what == 'bn' else ''}{last}"


@pytest.mark.slow
def test_resnet_164_has_pytorchcvs_weights() -> None:
    theirs = peers.peer("pytorchcv.models.preresnet_cifar").preresnet164bn_cifar10()
    ours = IdentityResNet(units=18)
    ours.load_state_dict({renamed(name): value for name, value in theirs.state_dict().items()})
    assert sum(each.numel() for each in theirs.parameters()) == 1_703_258
    assert sum(each.numel() for each in ours.parameters()) == 1_703_258


@pytest.mark.every(3)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("units", [1, 3, pytest.param(18, marks=pytest.mark.slow)])
def test_the_residual_network_is_pytorchcvs(units: int, training: bool) -> None:
    """Outputs, gradients and running statistics are equal once the peer has its strides where the figure has them.

    In doubles: 54 batch norms in a row lose too many digits of single precision to tell anything.
    """
    theirs = stirred(pytorchcvs(units)).double().train(training)
    stride_as_drawn(theirs)
    ours = IdentityResNet(units, dtype=torch.float64).train(training)
    ours.load_state_dict({renamed(name): value for name, value in theirs.state_dict().items()})
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    logits, expected = ours(image), theirs(image)
    torch.testing.assert_close(logits, expected)
    names = {renamed(name): parameter for name, parameter in theirs.named_parameters()}
    wanted = gradients(expected, [names[name] for name, _ in ours.named_parameters()])
    torch.testing.assert_close(gradients(logits, list(ours.parameters())), wanted)
    state = ours.state_dict()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(state[renamed(name)], value)


def test_the_residual_network_differs_from_pytorchcvs_in_its_strides() -> None:
    """Without that change only the first stage is equal: the test above changes all that differs."""
    theirs = stirred(pytorchcvs(1)).double().eval()
    ours = IdentityResNet(1, dtype=torch.float64).eval()
    ours.load_state_dict({renamed(name): value for name, value in theirs.state_dict().items()})
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    first = ours.blocks[0](ours.convolution(image))
    seen = theirs.features.stage1(theirs.features.init_block(image))
    torch.testing.assert_close(first, seen)
    second, other = ours.blocks[1](first), theirs.features.stage2(seen)
    assert second.shape == other.shape
    assert (second - other).abs().max() > 0.01 * other.abs().max()


# --- Llama's attention, of transformers -------------------------------------------------------------------------------


def llama(h: int, g: int, k: int, base: float, dtype: torch.dtype) -> tuple[nn.Module, Any]:
    """Llama's attention with h heads that share g groups, and its rotary position embedding."""
    theirs = peers.peer("transformers.models.llama.modeling_llama")
    config = peers.peer("transformers.models.llama").LlamaConfig(
        hidden_size=12, num_attention_heads=h, num_key_value_heads=g, head_dim=k, attention_bias=True
    )
    config.rope_parameters = {"rope_type": "default", "rope_theta": base}
    config._attn_implementation = "eager"
    return stirred(theirs.LlamaAttention(config, 0).to(dtype)), theirs.LlamaRotaryEmbedding(config)


@both_types
@pytest.mark.parametrize(("h", "g", "k", "base"), [(4, 4, 6, 10_000.0), (4, 2, 6, 10_000.0), (6, 1, 4, 500_000.0)])
def test_rotary_grouped_causal_attention_is_llamas(h: int, g: int, k: int, base: float, dtype: torch.dtype) -> None:
    """Outputs, gradients, and incremental decoding.

    Llama's angles are always float32, so its float64 results are only that precise.
    """

    def close(mine: Any, other: Any) -> None:
        torch.testing.assert_close(mine, other, rtol=1.3e-6, atol=1e-5 if dtype == torch.float32 else 1e-6)

    theirs, positions = llama(h, g, k, base, dtype)
    ours = MultiHeadAttention(12, k, h, groups=g, rotary=RotaryPositions(k, base), bias=True, dtype=dtype)
    boxes = {"Lq": "q_proj", "Lk": "k_proj", "Lv": "v_proj", "Lo": "o_proj"}
    state = theirs.state_dict()
    ours.load_state_dict(
        {f"{box}.{each}": state[f"{other}.{each}"] for box, other in boxes.items() for each in ("weight", "bias")}
    )
    x = torch.randn(2, 7, 12, dtype=dtype)
    future = torch.full((7, 7), -torch.inf, dtype=dtype).triu(1)
    expected, _ = theirs(x, positions(x, torch.arange(7)[None]), future[None, None])
    answer = ours(x, x, causal=True)
    close(answer, expected)
    others = dict(theirs.named_parameters())
    wanted = gradients(
        expected, [others[name.replace(name[:2], boxes[name[:2]])] for name, _ in ours.named_parameters()]
    )
    close(gradients(answer, list(ours.parameters())), wanted)
    cache = ours.cache(7, (2,))
    with torch.no_grad():
        steps = [ours(each, each, causal=True, cache=cache) for each in x.split(1, 1)]
    close(torch.cat(steps, 1), expected)


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
def test_rotary_positions_are_llamas(base: float) -> None:
    theirs = peers.peer("transformers.models.llama.modeling_llama")
    _, positions = llama(2, 2, 8, base, torch.float32)
    x = torch.randn(3, 2, 50, 8)
    turned, _ = theirs.apply_rotary_pos_emb(x, x, *positions(x, torch.arange(11, 61)[None]))
    torch.testing.assert_close(RotaryPositions(8, base)(x, 11), turned)
