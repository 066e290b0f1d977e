"""Constructor arguments of a module as text: numbers, strings, sequences of them, classes of torch.nn, and modules.

The text is JSON. A class is written as {"torch.nn": "ReLU"}, with "args" and "kwargs" if functools.partial binds some;
a module as {"models": "RotaryPositions"} with its own constructor arguments, and its class without. Names are looked up
in fixed tables when
the text is read, so no text can refer to anything else. Start with `write` and `read`.
"""

import functools
import inspect
import json
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from circuits import CircuitError

ACTIVATIONS = (
    "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish PReLU RReLU ReLU ReLU6 SELU"
    " SiLU Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink"
)
NORMS = "BatchNorm1d BatchNorm2d BatchNorm3d GroupNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d LayerNorm RMSNorm"
TORCH_CLASSES = {name: getattr(nn, name) for name in (*ACTIVATIONS.split(), *NORMS.split(), "Identity", "Softmax")}
"""The classes of torch.nn that a text may name."""

CLASSES: dict[str, type[nn.Module]] = {}
"""The module classes that a text may name: those decorated with `savable`."""

NOT_WRITTEN = ("device", "dtype")
"""Arguments that are not written, since the saved tensors have a dtype and `load` has an argument for the device."""


def write(bound: inspect.BoundArguments) -> str:
    """Return the arguments of a call as text, defaults included; a description replaces a value that cannot be written.

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
        elif name not in NOT_WRITTEN:
            kwargs[name] = _written(value)
    return json.dumps({"args": args, "kwargs": kwargs})


def _written(value: Any) -> Any:
    """Return a value as JSON data; {"unwritable": ...} with a description if it cannot be written."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [_written(each) for each in value]
    if isinstance(value, functools.partial):
        bound = {"args": _written(value.args), "kwargs": {name: _written(it) for name, it in value.keywords.items()}}
        return {**_written(value.func), **bound}
    if isinstance(value, type) and TORCH_CLASSES.get(value.__name__) is value:
        return {"torch.nn": value.__name__}
    if isinstance(value, type) and CLASSES.get(value.__name__) is value:
        return {"models": value.__name__}
    if isinstance(value, nn.Module) and (text := made_with(value)) is not None:
        return {"models": type(value).__name__, **json.loads(text)}
    return {"unwritable": _described(value)}


def made_with(module: nn.Module) -> str | None:
    """Return the constructor arguments stored in an instance of a savable class, as text; None for other modules."""
    return module.__dict__.get("_made_with") if type(module).__name__ in CLASSES else None


def change_arguments(module: nn.Module, **changes: Any) -> None:
    """Replace constructor arguments, by name, in the text stored in an instance of a savable class."""
    text = made_with(module)
    if text is not None:
        data = json.loads(text)
        data["kwargs"].update(changes)
        module.__dict__["_made_with"] = json.dumps(data)


def _described(value: Any) -> str:
    """Return a description of a value for a message."""
    if isinstance(value, nn.Module):
        return f"a {type(value).__module__}.{type(value).__name__}"
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if name else f"{value!r}"[:60]


def refuse_unwritable(name: str, text: str) -> None:
    """Raise CircuitError, naming the class and the argument, if a text has a value that could not be written."""
    data = json.loads(text)
    for argument, value in (*enumerate(data["args"]), *data["kwargs"].items()):
        for description in _unwritable(value):
            raise CircuitError(
                f"models.save: a file cannot hold the argument {argument} of {name}, {description}; it can hold"
                f" numbers, strings, savable modules, sequences of these, and, plain or in functools.partial,"
                f" torch.nn's {', '.join(TORCH_CLASSES)}"
            )


def _unwritable(value: Any) -> list[str]:
    """Return the descriptions of all values in JSON data that could not be written."""
    if isinstance(value, dict):
        own = [value["unwritable"]] if "unwritable" in value else []
        return own + _unwritable([*value.get("args", []), *value.get("kwargs", {}).values()])
    return [text for each in value for text in _unwritable(each)] if isinstance(value, list) else []


def read(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments in a text; sequences become tuples.

    Modules among the arguments are made on torch's default device.

    Raises:
        CircuitError: if the text is not of the form that `write` returns.

    >>> read('{"args": [], "kwargs": {"m": 8, "activation": {"torch.nn": "ReLU"}}}')
    ((), {'m': 8, 'activation': <class 'torch.nn.modules.activation.ReLU'>})
    """
    try:
        return _call(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise CircuitError(f"not the arguments of a model: {error}") from error


def _call(data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call from JSON data; raise ValueError if it is not of the form that `write` returns."""
    match data:
        case {"args": list(args), "kwargs": dict(kwargs)}:
            return tuple(_value(each) for each in args), {name: _value(each) for name, each in kwargs.items()}
        case _:
            raise ValueError(f"{data!r:.60}")


def _value(data: Any) -> Any:
    """Return a value from JSON data; raise ValueError if it is not of a form that `_written` returns."""
    match data:
        case None | bool() | int() | float() | str():
            return data
        case list():
            return tuple(_value(each) for each in data)
        case {"torch.nn": str(name), **bound} if name in TORCH_CLASSES:
            args, kwargs = _call(bound) if bound else ((), {})
            return functools.partial(TORCH_CLASSES[name], *args, **kwargs) if bound else TORCH_CLASSES[name]
        case {"models": str(name), **call} if name in CLASSES:
            if not call:
                return CLASSES[name]
            args, kwargs = _call(call)
            return CLASSES[name](*args, **kwargs)
        case _:
            raise ValueError(f"{data!r:.60}")


class Bounded(TorchFunctionMode):
    """Inside the `with`, a constructor that makes many more tensors than a file has raises ValueError.

    Otherwise a small file could ask for any number of layers. The bound is on the number of calls of torch functions; a
    constructor of this library makes about 10 for each tensor.
    """

    left: int

    def __init__(self, tensors: int) -> None:
        super().__init__()
        self.tensors = tensors
        self.left = 1000 + 100 * tensors

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"its constructor makes many more tensors than the {self.tensors} of the file")
        return func(*args, **(kwargs or {}))
