"""What a module was made with, as text: numbers, texts, sequences of them, some of torch.nn's classes, and modules.

The text is JSON. A class stands there as {"torch.nn": "ReLU"}, with "args" and "kwargs" where functools.partial gave it
some; a module as {"models": "RotaryPositions"}, with those that it was made with itself. Names come back by fixed
tables, so no text can name anything else.
"""

import functools
import inspect
import json
from typing import Any

from torch import nn

from circuits import CircuitError

ACTIVATIONS = (
    "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish PReLU RReLU ReLU ReLU6 SELU"
    " SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink"
)
NORMS = "BatchNorm1d BatchNorm2d BatchNorm3d GroupNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d LayerNorm RMSNorm"
KNOWN = {name: getattr(nn, name) for name in (*ACTIVATIONS.split(), *NORMS.split(), "Identity", "Softmax")}
"""The classes that a text may name."""

CLASSES: dict[str, type[nn.Module]] = {}
"""The classes of which a text may make modules: those that are marked savable."""

ELSEWHERE = ("device", "dtype")
"""Arguments that are not written: tensors have them."""


def write(bound: inspect.BoundArguments) -> str:
    """The text of a call's arguments, defaults included; what cannot be written stands in it as what it is.

    >>> write(inspect.signature(lambda m, activation=nn.ReLU: None).bind(8))
    '{"args": [], "kwargs": {"m": 8, "activation": {"torch.nn": "ReLU"}}}'
    """
    bound.apply_defaults()
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            kwargs.update({each: _written(it) for each, it in value.items()})
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            args += [_written(each) for each in value]
        elif kind is inspect.Parameter.POSITIONAL_ONLY:
            args.append(_written(value))
        elif name not in ELSEWHERE:
            kwargs[name] = _written(value)
    return json.dumps({"args": args, "kwargs": kwargs})


def _written(value: Any) -> Any:
    """A value as JSON has it."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [_written(each) for each in value]
    if isinstance(value, functools.partial):
        given = {"args": _written(value.args), "kwargs": {name: _written(it) for name, it in value.keywords.items()}}
        return {**_written(value.func), **given}
    if isinstance(value, type) and KNOWN.get(value.__name__) is value:
        return {"torch.nn": value.__name__}
    if isinstance(value, nn.Module) and (text := made_with(value)) is not None:
        return {"models": type(value).__name__, **json.loads(text)}
    return {"unwritable": _shown(value)}


def made_with(module: nn.Module) -> str | None:
    """The text that an instance of a savable class remembers; None for any other."""
    return module.__dict__.get("_made_with") if type(module).__name__ in CLASSES else None


def _shown(value: Any) -> str:
    """What a value is, for a message."""
    if isinstance(value, nn.Module):
        return f"a {type(value).__module__}.{type(value).__name__}"
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if name else f"{value!r}"[:60]


def refuse_unwritable(name: str, text: str) -> None:
    """Raise CircuitError, in the name of a class, if an argument could not be written."""
    found = json.loads(text)
    for argument, value in (*enumerate(found["args"]), *found["kwargs"].items()):
        for said in _unwritable(value):
            raise CircuitError(
                f"models.save: a file cannot hold the argument {argument} of {name}, {said}; it can hold numbers,"
                f" texts, modules it can hold, sequences of these, and, plain or in functools.partial, torch.nn's"
                f" {', '.join(KNOWN)}"
            )


def _unwritable(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["unwritable"]] if "unwritable" in value else []
        return own + _unwritable([*value.get("args", []), *value.get("kwargs", {}).values()])
    return [said for each in value for said in _unwritable(each)] if isinstance(value, list) else []


def read(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments in a text; sequences come back as tuples. Raises CircuitError for what `write` does not write.

    Modules among them are made where torch makes tensors by default.

    >>> read('{"args": [], "kwargs": {"m": 8, "activation": {"torch.nn": "ReLU"}}}')
    ((), {'m': 8, 'activation': <class 'torch.nn.modules.activation.ReLU'>})
    """
    try:
        return _call(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise CircuitError(f"no arguments of a model: {error}") from error


def _call(found: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments, out of JSON."""
    match found:
        case {"args": list(args), "kwargs": dict(kwargs)}:
            return tuple(_value(each) for each in args), {name: _value(each) for name, each in kwargs.items()}
        case _:
            raise ValueError(f"{found!r:.60}")


def _value(found: Any) -> Any:
    """A value, out of JSON."""
    match found:
        case None | bool() | int() | float() | str():
            return found
        case list():
            return tuple(_value(each) for each in found)
        case {"torch.nn": str(name), **given} if name in KNOWN:
            args, kwargs = _call(given) if given else ((), {})
            return functools.partial(KNOWN[name], *args, **kwargs) if given else KNOWN[name]
        case {"models": str(name), **given} if name in CLASSES:
            args, kwargs = _call(given)
            return CLASSES[name](*args, **kwargs)
        case _:
            raise ValueError(f"{found!r:.60}")
