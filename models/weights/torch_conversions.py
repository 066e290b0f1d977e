"""Weights of torch's attention and transformer modules, from a module, a state dict or a file, for the models here.

The names of torch are in tables, one for each kind of module, and applied by `renaming`. What weights do not tell, such
as the number of heads, a module tells (`from_torch` reads it there); with a state dict it is asked for by name. Start
with `converted`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar

from torch import Tensor, nn

from circuits import CircuitError

from . import renaming, sources
from .from_torch import attention_settings, layer_settings, stack_settings, transformer_settings
from .renaming import Naming, Table

Model = TypeVar("Model", bound=nn.Module)


class AttentionSettings(TypedDict, total=False):
    """What the weights of nn.MultiheadAttention do not tell."""

    h: int
    dropout: float


class LayerSettings(TypedDict, total=False):
    """What the weights of torch's layers do not tell."""

    h: int
    activation: Callable[[], nn.Module]
    norm_first: bool
    eps: float
    dropout: float


@dataclass(frozen=True)
class Kind:
    """One of torch's modules: its class, the names of its weights, and the settings that they do not tell."""

    torch: type[nn.Module]
    table: Table
    settings: Callable[[Any], dict[str, Any]]
    """Returns the constructor arguments, here, of a module."""
    defaults: Mapping[str, str]
    """Those that weights do not tell, and torch's default of each as code; "" if torch has none."""
    stacks: Mapping[str, Table] = field(default_factory=dict)
    """The table of a layer, for the prefix of each stack of layers."""


def _linear(there: str, here: str, weight: str, bias: str) -> Table:
    """Return the rows of weight and bias, with these axes."""
    return (f"{there}.weight", weight, f"{here}.weight"), (f"{there}.bias", bias, f"{here}.bias")


def _within(there: str, here: str, table: Table) -> Table:
    """Return the rows of a submodule, with its name in torch's module and here."""
    return tuple((there + name, axes, " ".join(here + each for each in own.split())) for name, axes, own in table)


_ATTENTION: Table = (
    ("in_proj_weight", "3*m m", "Lq.weight Lk.weight Lv.weight"),
    ("in_proj_bias", "3*m", "Lq.bias Lk.bias Lv.bias"),
    *_linear("out_proj", "Lo", "m m", "m"),
)
_ENCODER_LAYER: Table = (
    *_within("self_attn.", "attention.", _ATTENTION),
    *_linear("norm1", "attention_norm", "m", "m"),
    *_linear("linear1", "feed_forward.L1", "f m", "f"),
    *_linear("linear2", "feed_forward.L2", "m f", "m"),
    *_linear("norm2", "feed_forward_norm", "m", "m"),
)
_DECODER_LAYER: Table = (
    *_ENCODER_LAYER[:-2],
    *_within("multihead_attn.", "memory_attention.", _ATTENTION),
    *_linear("norm2", "memory_attention_norm", "m", "m"),
    *_linear("norm3", "feed_forward_norm", "m", "m"),
)
_HAS = {
    r"[qkv]_proj_weight$": "keys or values of another width (kdim, vdim)",
    r"\.?bias_[kv]$": "learned keys and values (add_bias_kv)",
    r"^self_attn\.": "a whole layer, as EncoderLayer and DecoderLayer",
    r"^(layers\.\d+\.)?multihead_attn\.": "cross-attention, as DecoderLayer and Decoder",
    r"^(encoder|decoder)\.": "an encoder and a decoder, as Transformer",
    r"^layers\.": "several layers, as Encoder and Decoder",
    r"_packed_params|\.scale$|zero_point$": "quantized weights",
}
_LACKS = {
    r"multihead_attn\.out_proj\.weight$": "there is no cross-attention there, as in EncoderLayer and Encoder",
    r"(^|self_attn\.)in_proj_bias$|(linear[12]|norm1)\.bias$": "some linear maps or norms have no bias there; here all"
    " have one, or none",
    r"^(encoder|decoder)\.norm\.": "one of the stacks has no norm after its last layer; here both have one, or none",
}
_ACTIVATION = r"(^|\.)activation\."
"""The weights of an activation, whatever they are."""

_DEFAULTS = {"h": "", "activation": "nn.ReLU", "norm_first": "False", "eps": "1e-05", "dropout": "0.1"}
ATTENTION = Kind(nn.MultiheadAttention, _ATTENTION, attention_settings, {"h": "", "dropout": "0.0"})
ENCODER_LAYER = Kind(nn.TransformerEncoderLayer, _ENCODER_LAYER, layer_settings, _DEFAULTS)
DECODER_LAYER = Kind(nn.TransformerDecoderLayer, _DECODER_LAYER, layer_settings, _DEFAULTS)
ENCODER = Kind(nn.TransformerEncoder, (), stack_settings, _DEFAULTS, {"": _ENCODER_LAYER})
DECODER = Kind(nn.TransformerDecoder, (), stack_settings, _DEFAULTS, {"": _DECODER_LAYER})
_STACKS = {"encoder.": _ENCODER_LAYER, "decoder.": _DECODER_LAYER}
TRANSFORMER = Kind(nn.Transformer, (), transformer_settings, _DEFAULTS, _STACKS)


def converted(model: type[Model], kind: Kind, weights: sources.Weights, prefix: str, given: Mapping[str, Any]) -> Model:
    """Return a model with torch's weights.

    Args:
        model: The class of the model.
        kind: The kind of torch's module.
        weights: The module, its state dict, or the path of a file.
        prefix: Text with which every name begins, and which is removed.
        given: The settings that weights do not tell; those that are None are not given.

    Raises:
        WeightsError: if weights are missing or unexpected, or have other axes.
        CircuitError: if a setting is missing, contradicts the weights or the module, or is not supported here.
    """
    name = f"{model.__name__}.from_torch"
    given = known(name, kind.defaults, given)
    source = sources.read(name, weights, prefix=prefix)
    settings = {} if source.module is None else module_settings(name, kind.torch, kind.settings, source.module)
    read, told = _read(name, kind, model.__name__, source.state)
    if source.module is None:
        settings = told | complete(name, kind.torch, kind.defaults, given)
        settings["k"] = _width_of_heads(name, told["m"], settings["h"])
    else:
        refuse_contradictions(name, settings, given)
    state = {each: tensor.detach().clone() for each, tensor in read.items()}
    like = next(iter(state.values()))
    made = model(**settings, device=like.device if _has_tensors(settings) else "meta", dtype=like.dtype)
    made.load_state_dict(state, assign=True)
    return made.train(source.training)


def _read(name: str, kind: Kind, here: str, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors under their names here, and the constructor arguments that they tell."""
    table, norms = [*kind.table], [f"{stack}norm" for stack in kind.stacks]
    told: dict[str, Any] = {"bias": any(each.endswith("bias") for each in state)}
    for stack, layer in kind.stacks.items():
        place = f"{stack}layers.{{}}."
        depth = told[f"{stack}depth".replace(".", "_")] = renaming.layers_in(_within(place, place, layer), state)
        for number in range(depth):
            table += _within(place.format(number), place.format(number), layer)
        table += _linear(f"{stack}norm", f"{stack}norm", "m", "m")
    if norms:
        told["final_norm"] = any(f"{norm}.weight" in state for norm in norms)
    has = {pattern: what for pattern, what in _HAS.items() if not any(re.search(pattern, row[0]) for row in table)}
    whole = Naming(table, here, has, _LACKS, _ACTIVATION)
    absent = [each for each, _, _ in table if each.endswith("bias")] if not told["bias"] else []
    absent += (
        [] if told.get("final_norm", True) else [f"{norm}.{part}" for norm in norms for part in ("weight", "bias")]
    )
    expected = whole.without(*(own for there, _, own in table if there in absent))
    found = renaming.read(name, expected, state, {}, alike=[whole])
    told |= {size: found.sizes[size] for size in ("m", "f") if size in found.sizes}
    activations = {
        each.replace("activation.", "feed_forward.activation."): tensor
        for each, tensor in state.items()
        if re.search(_ACTIVATION, each)
    }
    return found.tensors | activations, told


def module_settings(
    name: str,
    kind: type[nn.Module] | tuple[type[nn.Module], ...],
    settings: Callable[[Any], dict[str, Any]],
    theirs: Any,
) -> dict[str, Any]:
    """Return the constructor arguments, here, of torch's module; raise CircuitError if it is of another class."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(theirs, kinds):
        inside = [each for each, part in theirs.named_modules() if isinstance(part, kinds)]
        hint = f'; prefix="{inside[0]}." takes the one inside' if inside else ""
        wanted = ", ".join(f"nn.{each.__name__}" for each in kinds)
        raise CircuitError(f"{name} takes {wanted}, or its state dict; the module is a {type(theirs).__name__}{hint}")
    return settings(theirs)


def known(name: str, defaults: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are given, those that are not None; raise CircuitError for one that is not known."""
    others = [each for each in given if each not in defaults]
    if others:
        raise CircuitError(f"{name} takes {', '.join(defaults)} and prefix, not {others[0]}")
    return {each: value for each, value in given.items() if value is not None}


def complete(name: str, kind: type[nn.Module], defaults: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given; raise CircuitError, which asks for them by name, if others are needed."""
    missing = [each for each in defaults if each not in given]
    if missing:
        usual = ", ".join(f"{each}={defaults[each]}" for each in missing if defaults[each])
        of_torch = f"; by default nn.{kind.__name__} has {usual}" if usual else ""
        raise CircuitError(
            f"{name}: a state dict does not tell {', '.join(missing)}; give what its module has{of_torch}"
        )
    return dict(given)


def refuse_contradictions(name: str, settings: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise CircuitError if a setting that was given is not that of the module."""
    for each, value in given.items():
        shown, own = (f"{it()}" if each == "activation" else it for it in (value, settings[each]))
        if shown != own:
            raise CircuitError(f"{name}: {each} is {own} in the module, and {shown} was given; it may be left out")


def _width_of_heads(name: str, m: int, h: int) -> int:
    """Return the width of h heads; raise CircuitError if they do not divide the vectors."""
    if not isinstance(h, int) or h < 1 or m % h:
        possible = ", ".join(f"{each}" for each in range(1, m + 1) if m % each == 0)
        raise CircuitError(f"{name}: {h!r} heads do not divide vectors {m} wide; h may be {possible}")
    return m // h


def _has_tensors(settings: Mapping[str, Any]) -> bool:
    """Return whether the activation has parameters or buffers, of which not all may be in a state dict."""
    activation = settings["activation"]() if "activation" in settings else nn.Identity()
    return bool([*activation.parameters(), *activation.buffers()])
