"""What torch's transformers are made of, as the arguments that make ours; what has no equal here is refused by name."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from circuits import CircuitError


def layer_settings(theirs: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) -> dict[str, Any]:
    """The arguments that make a layer like torch's; raises CircuitError where its parts have no equal here."""
    title = f"from_torch: nn.{type(theirs).__name__}"
    parts = list(theirs.children())
    attentions = [each for each in parts if isinstance(each, nn.MultiheadAttention)]
    boxes = [theirs.linear1, theirs.linear2, *(part for name, part in theirs.named_children() if "norm" in name)]
    strange = [type(each).__name__ for each in boxes if type(each) not in (nn.Linear, nn.LayerNorm)]
    if strange:
        raise CircuitError(f"{title} with a {strange[0]} has no equal here, where are nn.Linear and nn.LayerNorm")
    values: dict[str, set[Any]] = {
        "h": {each.num_heads for each in attentions},
        "dropout": {each.p if isinstance(each, nn.Dropout) else each.dropout for each in parts if _drops(each)},
        "eps": {each.eps for each in boxes if isinstance(each, nn.LayerNorm)},
        "bias": {each.bias is not None for each in boxes} | {each.in_proj_bias is not None for each in attentions},
    }
    for name, several in values.items():
        if len(several) > 1:
            said = " and ".join(f"{value}" for value in sorted(several))
            raise CircuitError(f"{title} with {name} of {said} has no equal here, where one layer has one")
    return {name: only.pop() for name, only in values.items()} | {
        "m": theirs.linear1.in_features,
        "k": attentions[0].head_dim,
        "f": theirs.linear1.out_features,
        "activation": _activation(title, theirs.activation),
        "norm_first": theirs.norm_first,
        "device": theirs.linear1.weight.device,
        "dtype": theirs.linear1.weight.dtype,
    }


def _drops(part: nn.Module) -> bool:
    """Whether dropout acts in a part of torch's layer."""
    return isinstance(part, nn.Dropout | nn.MultiheadAttention)


_ACTIVATIONS: dict[Any, Callable[[], nn.Module]] = {F.relu: nn.ReLU, torch.relu: nn.ReLU, F.gelu: nn.GELU}


def _activation(title: str, function: Any) -> Callable[[], nn.Module]:
    """What makes the module for torch's activation, which is a function or a module."""
    if isinstance(function, nn.ReLU):
        return nn.ReLU
    if isinstance(function, nn.GELU):
        return nn.GELU if function.approximate == "none" else partial(nn.GELU, approximate=function.approximate)
    if isinstance(function, nn.Module):
        return lambda: copy.deepcopy(function)
    if function not in _ACTIVATIONS:
        name = getattr(function, "__name__", f"{function}")
        raise CircuitError(f"{title} with activation {name} has no equal here; it may be relu, gelu, or an nn.Module")
    return _ACTIVATIONS[function]


def stack_settings(theirs: Any) -> dict[str, Any]:
    """The arguments that make a stack like torch's; raises CircuitError where its parts have no equal here."""
    title = f"from_torch: nn.{type(theirs).__name__}"
    kind = _LAYERS.get(type(theirs))
    strange = [type(each).__name__ for each in getattr(theirs, "layers", ()) if type(each) is not kind]
    if kind is None or strange or not len(theirs.layers):
        what = f" with a layer of class {strange[0]}" if strange else ""
        raise CircuitError(f"{title}{what} has no equal here; nn.TransformerEncoder and nn.TransformerDecoder have")
    settings, *others = (layer_settings(each) for each in theirs.layers)
    for other in others:
        refuse_unlike(f"{title} with layers", settings, other)
    norm = theirs.norm
    if norm is not None:
        if type(norm) is not nn.LayerNorm:
            raise CircuitError(
                f"{title} with a norm of class {type(norm).__name__} has no equal here; nn.LayerNorm has"
            )
        refuse_unlike(f"{title} with a norm and layers", {"eps": norm.eps, "bias": norm.bias is not None}, settings)
    return settings | {"depth": len(theirs.layers), "final_norm": norm is not None}


_LAYERS: dict[type, type] = {
    nn.TransformerEncoder: nn.TransformerEncoderLayer,
    nn.TransformerDecoder: nn.TransformerDecoderLayer,
}


def refuse_unlike(title: str, some: dict[str, Any], others: dict[str, Any]) -> None:
    """Raise CircuitError where settings of two parts differ that are one here."""
    for name, value in some.items():
        mine, other = (f"{each()}" if name == "activation" else each for each in (value, others[name]))
        if mine != other:
            raise CircuitError(f"{title} whose {name} is {mine} and {other} has no equal here, where it is one")
