"""The KEY=VALUE arguments of a command: arguments of a class, sizes of axes, `axes=` and `input_size=`.

Values are Python literals, read by `ast.literal_eval`; a text that is none stays text. Nothing is evaluated.
"""

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from circuits.checking import find_circuit
from circuits.commands.reports import UsageError
from circuits.errors import CircuitError
from circuits.recording import axes_of_sizes
from circuits.signature import normalized, parse_axes


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Return `KEY=VALUE` words as names and Python values.

    Raises:
        UsageError: A word is not KEY=VALUE, or a key is given twice.

    >>> parse_settings(["y=20", "kernel=(3, 3)", "axes=b c h w"])
    {'y': 20, 'kernel': (3, 3), 'axes': 'b c h w'}
    """
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise UsageError(f"{word} is not KEY=VALUE")
        if name in settings:
            raise UsageError(f"{name} is given twice")
        try:
            settings[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            settings[name] = text
    return settings


class Parameters(NamedTuple):
    """The parameters of a class or function that can be given by name.

    Attributes:
        names: All of them, those that the bases of a class take by `**kwargs` too.
        positional: Those that can only be passed by position; the first ones.
        required: Those without a default.
        open: Whether any other name is taken too.
    """

    names: tuple[str, ...]
    positional: tuple[str, ...]
    required: tuple[str, ...]
    open: bool


def parameters_of(make: Callable[..., Any]) -> Parameters:
    """Return the parameters of a class, by its constructor, or of a function.

    >>> import torch
    >>> parameters_of(torch.nn.ReLU)
    Parameters(names=('inplace',), positional=(), required=(), open=False)
    """
    makers = [each.__init__ for each in inspect.getmro(make)[:-1]] if inspect.isclass(make) else [make]
    found: list[inspect.Parameter] = []
    is_open = False
    for number, maker in enumerate(makers):
        try:
            parameters = list(inspect.signature(maker).parameters.values())[inspect.isclass(make) :]
        except (TypeError, ValueError):  # code in C without a signature
            break
        known = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        found += known if number == 0 else [each.replace(default=None) for each in known]
        is_open = any(each.kind is each.VAR_KEYWORD for each in parameters)
        if not is_open:
            break
    return Parameters(
        tuple(dict.fromkeys(each.name for each in found)),
        tuple(each.name for each in found if each.kind is each.POSITIONAL_ONLY),
        tuple(each.name for each in found if each.default is each.empty),
        is_open,
    )


class TraceArguments(NamedTuple):
    """The keyword arguments of `trace`, and those of the call that it records."""

    axes: str | None
    sizes: dict[str, int]
    call: dict[str, Any]


def trace_arguments(title: str, function: Any, settings: Mapping[str, Any], taken: Sequence[str]) -> TraceArguments:
    """Divide the settings that are not arguments of the class.

    Args:
        title: The TARGET, for messages.
        function: The circuit, module or function that is traced.
        settings: The names and values.
        taken: The names of the arguments of the class, for messages.

    Raises:
        UsageError: A setting is none of these, or nothing says which tensors the function takes.
    """
    rest = dict(settings)
    axes, input_size = rest.pop("axes", None), rest.pop("input_size", None)
    if axes is not None and input_size is not None:
        raise UsageError("give axes= or input_size=, not both: the sizes of named axes are given by their names, b=8")
    axes = _axes_of(input_size) if axes is None and input_size is not None else axes
    axes = None if axes is None else f"{axes}"
    circuit = find_circuit(function)
    names = _names(axes) if axes is not None else () if circuit is None else circuit.signature.names
    call = parameters_of(getattr(function, "forward", function))
    tensors = () if circuit is None else [slot.name for slot in circuit.slots]
    keywords = [name for name in call.names if name not in (*call.positional, *tensors)]
    found = TraceArguments(axes, {}, {})
    for name, value in rest.items():
        if normalized(name) in names:
            found.sizes[name] = _size(name, value)
        elif name in keywords:
            found.call[name] = value
        else:
            raise UsageError(_unknown(title, name, taken, names, keywords))
    missing = [name for name in call.required if name not in found.call]
    if axes is None and circuit is None and missing:
        raise UsageError(
            f"{title} has no signature that says which tensors it takes ({', '.join(missing)}): give their axes, or "
            'sizes, as axes="b c h w", with a comma between tensors; or their sizes as input_size="(8, 3, 32, 32)"'
        )
    return found


def _axes_of(input_size: Any) -> str:
    """Return the sizes of one tensor, or of several, as the text of `axes`."""
    try:
        return axes_of_sizes(input_size)
    except CircuitError as error:
        raise UsageError(f"{error}") from None


def _names(axes: str) -> tuple[str, ...]:
    """Return the names in the text of `axes`."""
    return tuple(name for part in axes.split(",") for term in parse_axes(part) for name in term.names)


def _size(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise UsageError(f"{name} is {value!r}, but the size of an axis must be an int of at least 0")
    return value


def _unknown(title: str, name: str, taken: Sequence[str], axes: Sequence[str], keywords: Sequence[str]) -> str:
    """Return the message for a name that is nothing, with the names that could be meant."""
    known = {"arguments of the class": taken, "axes": axes, "arguments of the call": keywords}
    lines = [f"  {kind}: {', '.join(dict.fromkeys(names))}" for kind, names in known.items() if names]
    return "\n".join([f"{title} takes no {name}; it takes", *lines, "  and axes= or input_size="])


__all__ = ["Parameters", "TraceArguments", "parameters_of", "parse_settings", "trace_arguments"]
