"""Sizes and probabilities out of range are refused by every constructor, with the class, the argument and the range."""

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import models
from circuits import CircuitError
from models import layers, resnet, transformer, transformer_layers
from models.parts.cache import KeyValueCache
from models.parts.positions import LearnedPositions, RotaryPositions, SinusoidalPositions
from models.vision_transformer import Patches

LAYER: dict[str, Any] = {"m": 4, "k": 2, "h": 2, "f": 4}
CLASSES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "MLP": (models.MLP, {"x": 2, "y": 2, "m": 4, "k": 3}),
    "FeedForward": (layers.FeedForward, {"m": 4, "f": 4, "dropout": 0.1}),
    "DoubleConvolution": (layers.DoubleConvolution, {"c0": 2, "c1": 2}),
    "NormActivate": (layers.NormActivate, {"n": 2}),
    "MultiHeadAttention": (
        models.MultiHeadAttention,
        {"m": 4, "k": 2, "h": 2, "groups": 2, "window": 3, "dropout": 0.1},
    ),
    "EncoderLayer": (transformer_layers.EncoderLayer, {**LAYER, "groups": 2, "window": 3, "dropout": 0.1}),
    "DecoderLayer": (transformer_layers.DecoderLayer, {**LAYER, "groups": 2, "window": 3, "dropout": 0.1}),
    "Encoder": (transformer.Encoder, {**LAYER, "depth": 1, "dropout": 0.1}),
    "Decoder": (transformer.Decoder, {**LAYER, "depth": 1, "dropout": 0.1}),
    "Transformer": (models.Transformer, {**LAYER, "encoder_depth": 1, "decoder_depth": 1, "dropout": 0.1}),
    "LanguageModel": (
        models.LanguageModel,
        {**LAYER, "vocabulary": 5, "depth": 1, "learned_positions": 7, "groups": 2, "window": 3, "dropout": 0.1},
    ),
    "SequenceToSequence": (
        models.SequenceToSequence,
        {**LAYER, "vocabulary": 5, "encoder_depth": 1, "decoder_depth": 1, "dropout": 0.1},
    ),
    "Patches": (Patches, {"p": 2, "m": 4, "c": 3}),
    "VisionTransformer": (
        models.VisionTransformer,
        {**LAYER, "image_size": 4, "patch_size": 2, "depth": 1, "classes": 3, "in_channels": 1, "dropout": 0.1},
    ),
    "VisualAttention": (models.VisualAttention, {"c": 2, "k": 2, "heads": 2, "kernel": 2, "stride": 2, "dropout": 0.1}),
    "ConvAttention": (models.ConvAttention, {"i": 3, "j": 3, "p": 2, "q": 2, "k": 2, "v": 2, "n": 1}),
    "Block": (resnet.Block, {"s": 1, "N": 1, "n0": 4, "n1": 4}),
    "IdentityResNet": (models.IdentityResNet, {"units": 1, "classes": 2, "in_channels": 1}),
    "UNet": (models.UNet, {"classes": 2, "channels": 1, "in_channels": 1}),
    "KeyValueCache": (KeyValueCache, {"x": 3, "k": 2, "g": 2}),
    "SinusoidalPositions": (SinusoidalPositions, {"m": 4}),
    "LearnedPositions": (LearnedPositions, {"x_max": 4, "m": 4}),
    "RotaryPositions": (RotaryPositions, {"k": 4, "base": 10.0}),
}
"""The sizes and probabilities of each class."""

LEFT_OUT = {("VisionTransformer", "image_size", 1.5), ("VisionTransformer", "image_size", "3")}
"""Not a number for both sides of an image, nor a pair of them."""


@pytest.mark.parametrize("name", CLASSES)
def test_every_size_and_probability_out_of_range_is_refused(name: str) -> None:
    make, right = CLASSES[name]
    make(**right)
    for argument, value in right.items():
        probability = isinstance(value, float) and argument == "dropout"
        for wrong in (-0.1, 1.5, True, math.nan, "0.5") if probability else (0, -1, True, 1.5, "3"):
            if (name, argument, wrong) in LEFT_OUT or (argument == "base" and wrong not in (0, -1)):
                continue
            with pytest.raises(CircuitError, match=r"\b(may be|may have|must be|share) "):
                make(**{**right, argument: wrong})


def test_a_refusal_names_the_class_and_says_what_may_be() -> None:
    cases: tuple[tuple[Callable[..., Any], dict[str, Any], str], ...] = (
        (models.MLP, {"x": 0}, "MLP: x is 0; it may be 1 or more"),
        (layers.FeedForward, {"m": 4, "f": 0}, "FeedForward: f is 0; it may be 1 or more"),
        (Patches, {"p": 0, "m": 3}, "Patches: p is 0; it may be 1 or more"),
        (models.MLP, {"k": 2.0}, "MLP: k is 2.0; it may be a whole number, 1 or more"),
        (layers.FeedForward, {"m": 4, "f": 4, "dropout": 1.5}, "FeedForward: dropout is 1.5; it may be 0 to 1"),
        (models.MultiHeadAttention, {"m": 4, "k": 2, "h": 4, "groups": True}, "groups may be 1, 2, 4"),
    )
    for make, arguments, message in cases:
        with pytest.raises(CircuitError, match=re.escape(message)):
            make(**arguments)


def test_numpy_integers_are_whole_numbers() -> None:
    stride: Any = np.int64(2)
    assert models.Convolution("c w -> k w'", c=2, k=3, kernel=2, stride=stride)(torch.rand(2, 6)).shape == (3, 3)


@pytest.mark.parametrize("kind", [models.Convolution, models.TransposedConvolution, models.SeparableConvolution])
def test_options_of_convolutions_are_whole_numbers(kind: Callable[..., Any]) -> None:
    right = {"c": 2, "k": 2, "kernel": 2}
    for argument in ("c", "k", "kernel", "stride", "dilation", "padding"):
        for wrong in (-1, True, 1.5, "3"):
            with pytest.raises(CircuitError):
                kind("c h w -> k h' w'", **{**right, argument: wrong})


def test_the_sizes_of_a_linear_map_are_not_negative() -> None:
    for wrong in (-2, 1.5, True, "3"):
        with pytest.raises(CircuitError, match=r'Linear\("c -> k"\): k is .*; it may be a whole number, not negative'):
            layers.Linear("c -> k", c=2, k=wrong)  # pyright: ignore[reportArgumentType]


def test_the_size_of_a_transposed_convolution_has_a_number_for_each_axis() -> None:
    widen = models.TransposedConvolution("c h w -> k h' w'", c=2, k=2, kernel=2, stride=2)
    for size in ((4,), (4, 4, 4)):
        with pytest.raises(CircuitError, match=rf"size has {len(size)} numbers, not one for each of h w"):
            widen(torch.rand(2, 2, 2), size=size)


def test_as_many_caches_as_layers() -> None:
    decoder = transformer.Decoder(**LAYER, depth=2)
    memory, target = torch.rand(1, 3, 4), torch.rand(1, 1, 4)
    with torch.no_grad(), pytest.raises(CircuitError, match="Decoder: got 1 caches for 2 layers; pass one for each"):
        decoder(target, memory, caches=decoder.cache(memory, 4)[:1])


def test_he_normal_counts_the_inputs_of_a_group() -> None:
    """A transposed convolution in groups: each output has the channels of its group as inputs."""
    convolution = nn.ConvTranspose2d(64, 512, 4, 4, groups=16)
    layers.he_normal(convolution)
    assert abs(convolution.weight.std().item() - (2 / 4) ** 0.5) < 0.02


# --- Their documentation ----------------------------------------------------------------------------------------------

PUBLIC = [
    kind
    for each in pkgutil.iter_modules(models.__path__, "models.")
    for name, kind in vars(importlib.import_module(each.name)).items()
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == f"circuits.{each.name}"
    if not name.startswith("_")
]


def documented(kind: type[nn.Module]) -> dict[str, str]:
    """The text of each argument in the `Args:` list of a docstring."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)+)", inspect.getdoc(kind) or "", re.MULTILINE)
    assert section, f"{kind.__name__} has no Args"
    entries = re.findall(r"^    (\S.*?): (.*(?:\n     .*)*)", section[1], re.MULTILINE)
    return {name.strip(" *"): text for names, text in entries for name in names.split(",")}


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_every_argument_is_documented_and_a_letter_has_its_name_elsewhere(kind: type[nn.Module]) -> None:
    """`m: Width of the vectors (`d_model`, ...)`; or the entry refers to the class that has it."""
    found, parameters = documented(kind), inspect.signature(kind).parameters
    assert {*found} == {*parameters}
    for name in parameters:
        if len(name) <= 2:
            assert re.search(r"`[a-z_]{4,}(\[\d\])?`|as in [A-Z]\w+", found[name], re.IGNORECASE), (
                f"{name}: {found[name]}"
            )


def test_all_public_classes_are_looked_at() -> None:
    assert {"MultiHeadAttention", "DecoderLayer", "Patches", "VisualAttention", "Block"} <= {k.__name__ for k in PUBLIC}
