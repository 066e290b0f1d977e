"""The constructor arguments that make a model equal to one of torch's attention and transformer modules.

A setting or submodule of torch's module that the models here do not support raises CircuitError, which names it. Start
with `stack_settings`; `theirs` is always torch's module. Weights are read by `torch_conversions`.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from circuits import CircuitError


def attention_settings(theirs: nn.MultiheadAttention) -> dict[str, Any]:
    """Return the arguments that make a MultiHeadAttention equal to torch's; raise CircuitError if there are none."""
    refused = {
        "kdim": theirs.kdim != theirs.embed_dim,
        "vdim": theirs.vdim != theirs.embed_dim,
        "add_bias_kv": theirs.bias_k is not None,
        "add_zero_attn": theirs.add_zero_attn,
    }
    if any(refused.values()):
        names = ", ".join(name for name, present in refused.items() if present)
        raise CircuitError(f"MultiHeadAttention.from_torch: nn.MultiheadAttention with {names} is not supported")
    return {
        "m": theirs.embed_dim,
        "k": theirs.head_dim,
        "h": theirs.num_heads,
        "bias": theirs.in_proj_bias is not None,
        "dropout": theirs.dropout,
    }


def layer_settings(theirs: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) -> dict[str, Any]:
    """Return the arguments that make a layer equal to torch's; raise CircuitError if there are none."""
    title = f"from_torch: nn.{type(theirs).__name__}"
    parts = list(theirs.children())
    attentions = [each for each in parts if isinstance(each, nn.MultiheadAttention)]
    for attention in attentions:
        attention_settings(attention)
    boxes = [theirs.linear1, theirs.linear2, *(part for name, part in theirs.named_children() if "norm" in name)]
    unsupported = [type(each).__name__ for each in boxes if type(each) not in (nn.Linear, nn.LayerNorm)]
    if unsupported:
        raise CircuitError(f"{title} with a {unsupported[0]} is not supported; nn.Linear and nn.LayerNorm are")
    values: dict[str, set[Any]] = {
        "h": {each.num_heads for each in attentions},
        "dropout": {each.p if isinstance(each, nn.Dropout) else each.dropout for each in parts if _has_dropout(each)},
        "eps": {each.eps for each in boxes if isinstance(each, nn.LayerNorm)},
        "bias": {each.bias is not None for each in boxes} | {each.in_proj_bias is not None for each in attentions},
    }
    for name, several in values.items():
        if len(several) > 1:
            shown = " and ".join(f"{value}" for value in sorted(several))
            raise CircuitError(f"{title} with {name} of {shown} is not supported; here a layer has one {name}")
    return {name: only.pop() for name, only in values.items()} | {
        "m": theirs.linear1.in_features,
        "k": attentions[0].head_dim,
        "f": theirs.linear1.out_features,
        "activation": _activation(title, theirs.activation),
        "norm_first": theirs.norm_first,
    }


def _has_dropout(part: nn.Module) -> bool:
    """Return whether a part of torch's layer applies dropout."""
    return isinstance(part, nn.Dropout | nn.MultiheadAttention)


_ACTIVATIONS: dict[Any, Callable[[], nn.Module]] = {F.relu: nn.ReLU, torch.relu: nn.ReLU, F.gelu: nn.GELU}


def _activation(title: str, function: Any) -> Callable[[], nn.Module]:
    """Return a callable that makes the module for torch's activation, which is a function or a module."""
    if isinstance(function, nn.ReLU):
        return nn.ReLU
    if isinstance(function, nn.GELU):
        return nn.GELU if function.approximate == "none" else partial(nn.GELU, approximate=function.approximate)
    if isinstance(function, nn.Module):
        return lambda: copy.deepcopy(function)
    if function not in _ACTIVATIONS:
        name = getattr(function, "__name__", f"{function}")
        raise CircuitError(f"{title} with activation {name} is not supported; it may be relu, gelu, or an nn.Module")
    return _ACTIVATIONS[function]


def stack_settings(theirs: Any) -> dict[str, Any]:
    """Return the arguments that make a stack of layers equal to torch's; raise CircuitError if there are none."""
    title = f"from_torch: nn.{type(theirs).__name__}"
    kind = _LAYERS.get(type(theirs))
    unsupported = [type(each).__name__ for each in getattr(theirs, "layers", ()) if type(each) is not kind]
    if kind is None or unsupported or not len(theirs.layers):
        with_layer = f" with a layer of class {unsupported[0]}" if unsupported else ""
        raise CircuitError(f"{title}{with_layer} is not supported; nn.TransformerEncoder and nn.TransformerDecoder are")
    settings, *others = (layer_settings(each) for each in theirs.layers)
    for other in others:
        refuse_unlike(f"{title} with layers", settings, other)
    norm = theirs.norm
    if norm is not None:
        if type(norm) is not nn.LayerNorm:
            raise CircuitError(f"{title} with a norm of class {type(norm).__name__} is not supported; nn.LayerNorm is")
        refuse_unlike(f"{title} with a norm and layers", {"eps": norm.eps, "bias": norm.bias is not None}, settings)
    return settings | {"depth": len(theirs.layers), "final_norm": norm is not None}


def transformer_settings(theirs: nn.Transformer) -> dict[str, Any]:
    """Return the arguments that make a Transformer equal to torch's; raise CircuitError if there are none."""
    settings, others = stack_settings(theirs.encoder), stack_settings(theirs.decoder)
    depths = {"encoder_depth": settings.pop("depth"), "decoder_depth": others.pop("depth")}
    refuse_unlike("from_torch: nn.Transformer with an encoder and a decoder", settings, others)
    return settings | depths


_LAYERS: dict[type, type] = {
    nn.TransformerEncoder: nn.TransformerEncoderLayer,
    nn.TransformerDecoder: nn.TransformerDecoderLayer,
}


def refuse_unlike(title: str, some: dict[str, Any], others: dict[str, Any]) -> None:
    """Raise CircuitError if two parts of torch's module differ in a setting that is the same for both here."""
    for name, value in some.items():
        first, second = (f"{each()}" if name == "activation" else each for each in (value, others[name]))
        if first != second:
            raise CircuitError(f"{title} whose {name} is {first} and {second} is not supported; here it is the same")
