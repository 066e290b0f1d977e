"""The arguments of a call by the names of its parameters, with or without defaults."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from circuits.diagram.structure import PLAIN_TYPES


def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any], binder: inspect.Signature | None) -> dict[str, Any]:
    """Return the arguments of a call by the names of its parameters, with defaults filled in.

    Args:
        args: The positional arguments, as values or descriptions.
        kwargs: The keyword arguments, as values or descriptions.
        binder: The Python signature of the callable. If it is None (`inspect` finds no signature), the positional
            arguments are named `0`, `1`, ...

    Raises:
        TypeError: If the arguments do not fit the parameters.

    >>> arguments((1, 2, 3), {"c": 4}, inspect.signature(lambda a, *rest, b=5, **others: None))
    {'a': 1, 'rest.0': 2, 'rest.1': 3, 'b': 5, 'c': 4}
    """
    if binder is None:
        return {f"{place}": part for place, part in enumerate(args)} | {**kwargs}
    bound = binder.bind(*args, **kwargs)
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = binder.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            named |= {f"{name}.{place}": part for place, part in enumerate(value)}
        else:
            named |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return named


def without_defaults(
    parameters: Iterable[inspect.Parameter], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call, as `(args, kwargs)`, without those that equal the default of their parameter.

    Arguments after the first positional argument that is left out become keyword arguments. If a positional argument
    belongs to `*args`, all positional arguments are kept.

    Args:
        parameters: The parameters of the callable.
        args: The positional arguments, as values or descriptions.
        kwargs: The keyword arguments, as values or descriptions.

    >>> without_defaults(inspect.signature(lambda a, b=2, c=3, *, d=4: None).parameters.values(), (1, 2, 5), {"d": 4})
    ((1,), {'c': 5})
    """
    named = {each.name: each for each in parameters}
    positional = [each for each in named.values() if each.kind is each.POSITIONAL_OR_KEYWORD][: len(args)]
    pairs = list(zip(positional, args, strict=False))
    kept = next((place for place, (each, arg) in enumerate(pairs) if _is_default(each.default, arg)), len(args))
    if len(args) > len(pairs):
        kept = len(args)
    later = {each.name: arg for each, arg in pairs[kept:]} | {**kwargs}
    by_name = {
        name: arg for name, arg in later.items() if name not in named or not _is_default(named[name].default, arg)
    }
    return args[:kept], by_name


def _is_default(default: Any, value: Any) -> bool:
    """Return whether a plain value equals the default of its parameter."""
    return type(default) is type(value) and type(value) in PLAIN_TYPES and default == value
