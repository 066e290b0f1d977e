"""The cost of every model of the zoo: hand formulas, and what torch counts of real runs at random sizes."""

import random
from collections.abc import Callable, Iterator
from functools import cache
from math import prod
from typing import Any

import pytest
import sympy
import torch
from torch import Tensor, nn

import models
from circuits import CircuitError, Cost, Diagram, count, definitions, trace
from circuits.diagram import evaluate
from tests.cost.counted import flops, reverse_flops
from tests.models.test_zoo import MODELS, Entry

each = pytest.mark.parametrize("name", MODELS)


@cache
def model(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name].make()


@cache
def diagram(name: str) -> Diagram:
    return trace(model(name))


@cache
def cost(name: str) -> Cost:
    return count(diagram(name))


def inputs(name: str, sizes: dict[str, int]) -> list[Tensor]:
    """Random inputs of these sizes, which require gradients."""
    numbers = {sympy.Symbol(axis, integer=True, positive=True): size for axis, size in sizes.items()}
    found = []
    for value in diagram(name).inputs:
        shape = [evaluate(size, numbers) for size in value.sizes]
        tokens = MODELS[name].tokens
        found.append(torch.randint(1, tokens, shape) if tokens else torch.randn(shape, requires_grad=True))
    return found


def known_sizes(entry: Entry, found: Cost) -> dict[str, int]:
    return {axis: entry.sizes[axis] for axis in found.axes}


# --- Hand formulas ----------------------------------------------------------------------------------------------------


def attend(y: int, x: int, m: int, k: int, h: int, g: int | None = None) -> int:
    """Attention with its projections; g heads of keys and values."""
    groups = g or h
    return 4 * y * m * h * k + 4 * x * m * groups * k + 4 * y * x * h * k


def encoder(x: int, depth: int = 1, m: int = 6, k: int = 5, h: int = 2, f: int = 8, g: int | None = None) -> int:
    return depth * (attend(x, x, m, k, h, g) + 4 * x * m * f)


def decoder(y: int, x: int, depth: int = 1) -> int:
    return depth * (attend(y, y, 6, 5, 2) + attend(y, x, 6, 5, 2) + 4 * y * 6 * 8)


HAND: dict[str, Callable[..., int]] = {
    "mlp": lambda: 2 * (35 * 11 + 11 * 11 + 11 * 3),
    "attention": lambda y, x: attend(y, x, 6, 5, 4),
    "shared heads": lambda y, x: attend(y, x, 6, 5, 4, 2),
    "encoder layer": encoder,
    "encoder": lambda x: encoder(x, 2),
    "decoder layer": decoder,
    "decoder": lambda y, x: decoder(y, x, 2),
    "transformer": lambda y, x: encoder(x) + decoder(y, x, 2),
    "language model": lambda x: encoder(x, 2, k=4) + 2 * x * 6 * 13,
    "language model, learned positions": lambda x: encoder(x) + 2 * x * 6 * 13,
    "language model, Llama's layers": lambda x: encoder(x, 2, k=4, h=4, g=2) + 2 * (2 * x * 6 * 8) + 2 * x * 6 * 13,
    "language model, parallel layers": lambda x: encoder(x, 2, k=4) + 2 * x * 6 * 13,
    "sequence to sequence": lambda y, x: encoder(x) + decoder(y, x) + 2 * y * 6 * 13,
    "vision transformer": lambda b: b * (2 * 6 * 18 * 6 + encoder(7, 2) + 2 * 6 * 5),
    "vision transformer, mean": lambda b: b * (2 * 4 * 27 * 6 + encoder(4) + 2 * 6 * 5),
}


@pytest.mark.every(1, 2)
@pytest.mark.slow
@pytest.mark.parametrize("name", HAND)
def test_flops_are_the_hand_formula(name: str) -> None:
    found = cost(name)
    symbols = {axis: sympy.Symbol(axis, integer=True, positive=True) for axis in found.axes}
    assert sympy.expand(found.total.flops - HAND[name](**symbols)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "unet", "unet as drawn"])
def test_flops_of_convolutions_are_those_of_each_layer(name: str) -> None:
    """A convolution multiplies each weight by a number for each place that it writes, a transposed one reads."""
    sizes = known_sizes(MODELS[name], cost(name))
    found: list[int] = []

    def note(layer: Any, given: Any, output: Tensor) -> None:
        x = given[0] if layer.transposed else output
        found.append(2 * len(output) * prod(x.shape[2:]) * layer.weight.numel())

    def note_linear(layer: Any, given: Any, output: Tensor) -> None:
        found.append(2 * output.numel() * layer.in_features)

    hooks = []
    for each_module in model(name).modules():
        if isinstance(each_module, nn.modules.conv._ConvNd):
            hooks.append(each_module.register_forward_hook(note))
        elif isinstance(each_module, nn.Linear):
            hooks.append(each_module.register_forward_hook(note_linear))
    try:
        model(name)(*inputs(name, sizes))
    finally:
        for hook in hooks:
            hook.remove()
    assert cost(name).at(**sizes).total.flops == sum(found)


# --- Real runs --------------------------------------------------------------------------------------------------------


def random_sizes(name: str) -> Iterator[dict[str, int]]:
    """Twenty times random sizes of the free axes that break no guard.

    They are at least 2: torch's einsum multiplies where the axis to sum over has one element, which is not counted.
    """
    rng, found = random.Random(name), 0
    for _ in range(4000):
        sizes = {axis: rng.randint(2, 9) * rng.choice((1, 1, 4, 8)) for axis in cost(name).axes}
        try:
            cost(name).at(**sizes)
        except CircuitError:
            continue
        yield sizes
        found += 1
        if found == (20 if sizes else 1):
            return
    raise AssertionError("too few sizes break no guard")


@pytest.mark.every(1, 2)
@pytest.mark.slow
@each
def test_formulas_at_random_sizes_are_what_torch_counts(name: str) -> None:
    for sizes in random_sizes(name):
        with definitions(), torch.no_grad():
            counted, _ = flops(lambda sizes=sizes: model(name)(*[x.detach() for x in inputs(name, sizes)]))
        assert cost(name).at(**sizes).total.flops == counted, sizes


OUTER_PRODUCTS = {"mlp": 1078, "conv attention": 72}
"""A gradient of the weight that is an outer product of two vectors has no sum; torch calls it a product of matrices."""

GROUPS = {"separable convolution": 1080}
"""Torch counts the gradient of the weight of a convolution once for each group."""


@pytest.mark.every(1, 3)
@pytest.mark.slow
@each
def test_reverse_pass_is_what_torch_counts_of_autograd(name: str) -> None:
    sizes = known_sizes(MODELS[name], cost(name))
    found = count(diagram(name), backward=True).at(**sizes)
    forward, reverse = [row for row in found.rows if len(row.place) == 1]
    with definitions():
        counted, output = flops(lambda: model(name)(*inputs(name, sizes)))
    assert forward.flops == counted
    expected = reverse_flops(output)
    assert reverse.flops + OUTER_PRODUCTS.get(name, 0) + GROUPS.get(name, 0) == expected


@pytest.mark.slow
@each
def test_parameters_are_counted_once(name: str) -> None:
    total = cost(name).total
    assert total.parameters == sum([each.numel() for each in model(name).parameters()])
    assert not total.uncounted


@pytest.mark.slow
def test_a_vision_transformer_of_the_standard_size() -> None:
    """ViT-B/16 at 224 pixels: 17.56 G multiply-adds, 16.85 G without the products of queries, keys and values.

    The smaller number is what `FlopCounterMode` says on a CPU, where it has no formula for the fused attention.
    """
    large = models.VisionTransformer(224, 16, device="meta")
    total = count(large, sizes={"b": 1}).total
    core = 12 * 12 * 2 * 197 * 197 * 64
    assert total.multiply_adds == 17_563_828_224
    assert f"{(total.multiply_adds - core) / 1e9:.2f}" == "16.85"
    assert total.parameters == 86_567_656
