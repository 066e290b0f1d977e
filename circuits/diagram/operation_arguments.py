"""The arguments of an operation by name, as far as they are not tensors and not the default: `kernel=3, stride=2`.

Source: `torch.overrides.get_testing_overrides`, which has the parameters of torch's functions that are written in C.
"""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from torch.overrides import get_testing_overrides

from circuits.diagram.boxes import Box
from circuits.diagram.cells import only_operation
from circuits.diagram.formulas import size_text
from circuits.diagram.structure import Scalar, Struct, Wire

_MANY = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)

_LONGEST = 24
"""The longest text of a string, list or object."""


def named_arguments(box: Box) -> dict[str, Any]:
    """Return the arguments of an operation that are plain data and not the default of their parameter, by name.

    Args:
        box: The operation, or a module that consists of it. Any other box has no arguments here. Of a convolution
            `kernel` has the sizes of the windows, which the call does not state.
    """
    box = only_operation(box) or box
    if box.kind != "operation" or box.call is None or not callable(box.call.function):
        return {}
    args = tuple(getattr(box.call.args, "parts", box.call.args))
    kwargs = dict(zip(getattr(box.call.kwargs, "keys", ()), getattr(box.call.kwargs, "parts", ()), strict=True))
    parameters = _parameters(box.call.function)
    found = _kernel(box)
    for place, value in enumerate(args):
        name, default = parameters[place] if place < len(parameters) else (f"{place}", inspect.Parameter.empty)
        _put(found, name, value, default)
    defaults = dict(parameters)
    for name, value in kwargs.items():
        _put(found, name, value, defaults.get(name, inspect.Parameter.empty))
    return found


def arguments_text(box: Box) -> str:
    """Return these arguments as text: `kernel=7, stride=2, padding=3`."""
    return ", ".join([f"{name}={_text(value)}" for name, value in named_arguments(box).items()])


def plain_arguments(box: Box) -> dict[str, Any]:
    """Return these arguments as plain data for JSON: numbers, booleans, lists of them, else text."""
    return {name: _plain(value) for name, value in named_arguments(box).items()}


def _put(found: dict[str, Any], name: str, value: Any, default: Any) -> None:
    """Add an argument, unless it holds a tensor or is the default."""
    value = _single(_opened(value))
    name = "kernel" if name == "kernel_size" else name
    if value is not Wire and not (value is None or (type(value) is type(default) and value == default)):
        found[name] = value


def _opened(value: Any) -> Any:
    """Return a described argument as plain data; `Wire` if there is a tensor in it."""
    if isinstance(value, Wire):
        return Wire
    if isinstance(value, Scalar):
        return value.expression
    if isinstance(value, Struct) and value.kind in (tuple, list):
        parts = [_opened(part) for part in value.parts]
        return Wire if any(part is Wire for part in parts) else tuple(parts)
    if isinstance(value, (tuple, list)):
        return tuple([_opened(part) for part in value])
    return value


def _single(value: Any) -> Any:
    """Return the number of a tuple of equal numbers: 2 for (2, 2)."""
    parts = list(value) if isinstance(value, tuple) else []
    same = len(parts) > 1 and isinstance(parts[0], int) and all(part == parts[0] for part in parts)
    return parts[0] if same else value


def _kernel(box: Box) -> dict[str, Any]:
    """Return the sizes of the windows of a convolution."""
    weights = [value for value in box.inputs if value.role == "parameter" and len(value.sizes) > 2]
    return {"kernel": _single(tuple(weights[0].sizes[2:]))} if weights and box.label.startswith("conv") else {}


@functools.lru_cache(maxsize=512)
def _parameters(function: Any) -> list[tuple[str, Any]]:
    """Return the names and defaults of the parameters of a torch callable; empty if they are unknown."""
    known: Mapping[Any, Any] = get_testing_overrides()
    for each in (function, known.get(function)):
        try:
            parameters = inspect.signature(each).parameters.values() if callable(each) else ()
        except (ValueError, TypeError):
            continue
        named = [(each.name, each.default) for each in parameters if each.kind not in _MANY]
        if named:
            return named
    return []


def _text(value: Any) -> str:
    """Return an argument as short text."""
    if isinstance(value, tuple):
        text = f"({', '.join([_text(part) for part in value])})"
    else:
        text = size_text(value) if hasattr(value, "free_symbols") else f"{value}".removeprefix("torch.")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)):
        return value
    return [_plain(part) for part in value] if isinstance(value, tuple) else _text(value)


__all__ = ["arguments_text", "named_arguments", "plain_arguments"]
