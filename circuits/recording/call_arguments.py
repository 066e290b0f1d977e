"""Match arguments with parameters: the arguments of a call before it runs, and those of a recorded call."""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from circuits.checking import Circuit, parameters_of
from circuits.diagram import Scalar, Struct, Wire, arguments, without_defaults
from circuits.errors import ArgumentError, parameters_text
from circuits.recording.events import Enter


def python_signature(target: Any) -> inspect.Signature | None:
    """Return the Python signature of a function, or of a module's `forward`; None if `inspect` cannot determine it."""
    try:
        return inspect.signature(target.forward if isinstance(target, nn.Module) else target)
    except (TypeError, ValueError):
        return None


def target_name(target: Any) -> str:
    """Return the qualified name of a function, or the name of a module's class."""
    return type(target).__name__ if isinstance(target, nn.Module) else getattr(target, "__qualname__", repr(target))


class BoundCall(NamedTuple):
    """The arguments of a call as the user passes them, and the Python signature of the target; None if it has none."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    signature: inspect.Signature | None


def bind_call(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BoundCall:
    """Match arguments with the parameters of `target`, so that the diagram can be called in the same ways as `target`.

    The call is made as the user made it: arguments that are left out stay left out, because the code may distinguish
    an argument that is left out from its default, and keyword arguments stay keyword arguments.

    Raises:
        ArgumentError: The arguments do not fit the parameters; a TypeError too.
    """
    signature = python_signature(target)
    if signature is None:
        return BoundCall(args, kwargs, None)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        function = target.forward if isinstance(target, nn.Module) else target
        raise ArgumentError(f"{target_name(target)} takes {parameters_text(function)}: {error}") from None
    return BoundCall(args, kwargs, signature)


def unpacked(described: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return `args` and `kwargs` from a pair or a `Struct` of them, in which each of the two may be a `Struct` too."""
    args, kwargs = described.parts if isinstance(described, Struct) else described
    args = args.parts if isinstance(args, Struct) else args
    kwargs = dict(zip(kwargs.keys, kwargs.parts, strict=True)) if isinstance(kwargs, Struct) else kwargs
    return tuple(args), kwargs


def named_arguments(event: Enter, binder: inspect.Signature | None) -> Struct:
    """Return the arguments of a recorded call by parameter name, or by position if they do not fit `binder`."""
    named = _by_name(*unpacked((event.args, event.kwargs)), binder)
    return Struct(dict, tuple(named), tuple(named.values()))


def names_of_arguments(event: Enter, binder: inspect.Signature | None) -> dict[Any, str]:
    """Return the name of each argument of a recorded call, by its place among the arguments or its keyword."""
    args, kwargs = unpacked((event.args, event.kwargs))
    places = _by_name(
        tuple([Scalar(place) for place in range(len(args))]), {key: Scalar(key) for key in kwargs}, binder
    )
    return {place.expression: name for name, place in places.items() if isinstance(place, Scalar)}


def _by_name(args: tuple[Any, ...], kwargs: dict[str, Any], binder: inspect.Signature | None) -> dict[str, Any]:
    try:
        return arguments(args, kwargs, binder)
    except TypeError:
        return arguments(args, kwargs, None)


def argument_paths(description: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Yield the path and the number of each wire in described arguments; a path is `target` or `state.1`."""
    if isinstance(description, Wire):
        yield path, description.number
    elif isinstance(description, Struct):
        keys = description.keys or range(len(description.parts))
        for key, part in zip(keys, description.parts, strict=True):
            yield from argument_paths(part, f"{path}.{key}" if path else str(key))


def explicit_arguments(event: Enter) -> Struct:
    """Return `(args, kwargs)` of a recorded module or circuit call, without the arguments that equal their defaults."""
    function = event.circuit.definition if event.circuit is not None else getattr(event.module, "forward", None)
    parameters = parameters_of(function) if function is not None else ()
    is_method = event.circuit is not None and bool(event.circuit.owner)
    args, kwargs = without_defaults(parameters[is_method:], *unpacked((event.args, event.kwargs)))
    return Struct(tuple, (), (Struct(tuple, (), args), Struct(dict, tuple(kwargs), tuple(kwargs.values()))))


def bound_arguments(
    circuit: Circuit, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[str, ...], tuple[Any, ...], dict[str, Any]]:
    """Return the names of a circuit's positional arguments, their values, and the keyword arguments, with defaults.

    An argument of `*rest` is named by its index: `rest[0]`.
    """
    parameters = parameters_of(circuit.definition)[bool(circuit.owner) :]
    bound = inspect.Signature(parameters).bind(*args, **kwargs)
    bound.apply_defaults()
    names: list[str] = []
    for each in parameters:
        if each.kind is each.VAR_POSITIONAL:
            names += [f"{each.name}[{index}]" for index in range(len(bound.arguments[each.name]))]
        elif each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            names.append(each.name)
    return tuple(names), bound.args, bound.kwargs
