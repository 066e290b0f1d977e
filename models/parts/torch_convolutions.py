"""Convolution and TransposedConvolution with the weights of torch's modules, from a module, a state dict or a file.

A state dict tells the kernel, the bias and, with the groups, the channels; a module tells all. Start with `converted`.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, TypeVar

from torch import nn

from circuits import CircuitError

from ..weights import renaming, sources
from ..weights.torch_conversions import complete, known, module_settings, refuse_contradictions
from .space import Mode, Number, Padding, as_tuples, space

Model = TypeVar("Model", bound=nn.Module)


class ConvolutionSettings(TypedDict, total=False):
    """What the weights of torch's convolutions do not tell."""

    stride: Number
    padding: Padding | Literal["same"]
    dilation: Number
    groups: int
    mode: Mode


class TransposedSettings(ConvolutionSettings, total=False):
    """What the weights of torch's transposed convolutions do not tell."""

    output_padding: Number


CONVOLUTIONS: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_DEFAULTS = {"stride": "1", "padding": "0", "dilation": "1", "groups": "1", "mode": "'zeros'"}


def converted(model: type[Model], kinds: Any, weights: sources.Weights, prefix: str, given: Mapping[str, Any]) -> Model:
    """Return a model with torch's weights.

    Args:
        model: Convolution or TransposedConvolution.
        kinds: Torch's classes of the same kind, `CONVOLUTIONS` or `TRANSPOSED`.
        weights: The module, its state dict, or the path of a file.
        prefix: Text with which every name begins, and which is removed.
        given: The options that weights do not tell.

    Raises:
        WeightsError: if weights are missing or unexpected, or have other axes.
        CircuitError: if an option is missing, contradicts the weights or the module, or is not supported here.
    """
    name, transposed = f"{model.__name__}.from_torch", kinds is TRANSPOSED
    defaults = _DEFAULTS | ({"output_padding": "0"} if transposed else {})
    given = known(name, defaults, given)
    source = sources.read(name, weights, prefix=prefix)
    options = {} if source.module is None else module_settings(name, kinds, _options, source.module)
    n = min(max(getattr(source.state.get("weight"), "ndim", 0), 3), 5) - 2
    table = [("weight", f"k c {' '.join('pqr'[:n])}", "weight")]
    table += [("bias", "n" if transposed else "k", "bias")] if "bias" in source.state else []
    naming = renaming.Naming(table, model.__name__)
    state = renaming.read(name, naming, source.state, {}, alike=[renaming.Naming(_NAMES, "")]).tensors
    if source.module is None:
        options = complete(name, kinds[n - 1], defaults, given)
    else:
        refuse_contradictions(name, *({each: _spread(n, it) for each, it in some.items()} for some in (options, given)))
    if transposed:
        _refuse_large(name, *(_spread(n, options[each]) for each in ("output_padding", "stride")))
    first, second = state["weight"].shape[0], state["weight"].shape[1] * options["groups"]
    c, k = (first, second) if transposed else (second, first)
    axes, window_axes, _ = space(n)
    text, kernel = f"c {axes} -> k {window_axes}", tuple(state["weight"].shape[2:])
    made: Any = model
    made = made(text, kernel=kernel, bias="bias" in state, device="meta", c=c, k=k, **options)
    made.load_state_dict({each: tensor.detach().clone() for each, tensor in state.items()}, assign=True)
    return made.train(source.training)


_NAMES = ("weight", "", "weight"), ("bias", "", "bias")


def _options(module: Any) -> dict[str, Any]:
    """Return the options of one of torch's convolutions, transposed or not."""
    names = ("stride", "dilation", "groups", *(["output_padding"] if module.transposed else []))
    padding = 0 if module.padding == "valid" else module.padding
    return {"padding": padding, "mode": module.padding_mode, **{each: getattr(module, each) for each in names}}


def _spread(n: int, option: Any) -> Any:
    """Return an option with a number for each of n spatial axes, if it is one number."""
    return (option,) * n if isinstance(option, int) else as_tuples(option) if not isinstance(option, str) else option


def _refuse_large(name: str, output_padding: Any, strides: Any) -> None:
    """Raise CircuitError if an output padding is not less than the stride."""
    for added, stride in zip(output_padding, strides, strict=False):
        if added >= stride:
            raise CircuitError(
                f"{name}: output_padding {added} is not supported at stride {stride}; it must be less than the stride"
            )
