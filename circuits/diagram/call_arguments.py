"""The arguments of a call by the names of its parameters, with or without defaults."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from circuits.diagram.structure import PLAIN_TYPES


def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any], binder: inspect.Signature | None) -> dict[str, Any]:
    """Return the arguments of a call by the names of its parameters, with defaults filled in.

    A keyword argument for `**others` that has the name of a positional-only parameter is named `others.name`.

    Args:
        args: The positional arguments, as values or descriptions.
        kwargs: The keyword arguments, as values or descriptions.
        binder: The Python signature of the callable. If it is None (`inspect` finds no signature), the positional
            arguments are named `0`, `1`, ...

    Raises:
        TypeError: If the arguments do not fit the parameters.

    >>> arguments((1, 2, 3), {"c": 4}, inspect.signature(lambda a, *rest, b=5, **others: None))
    {'a': 1, 'rest.0': 2, 'rest.1': 3, 'b': 5, 'c': 4}
    >>> arguments((1,), {"a": 2}, inspect.signature(lambda a, /, **others: None))
    {'a': 1, 'others.a': 2}
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
        elif kind is inspect.Parameter.VAR_KEYWORD:
            named |= {f"{name}.{key}" if key in named else key: part for key, part in value.items()}
        else:
            named[name] = value
    return named


def without_defaults(
    parameters: Iterable[inspect.Parameter], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call, as `(args, kwargs)`, without those that equal the default of their parameter.

    Arguments after the first positional argument that is left out become keyword arguments. Before an argument that can
    only be passed by position (of a positional-only parameter or of `*args`), all positional arguments are kept.

    Args:
        parameters: The parameters of the callable.
        args: The positional arguments, as values or descriptions.
        kwargs: The keyword arguments, as values or descriptions.

    >>> without_defaults(inspect.signature(lambda a, b=2, c=3, *, d=4: None).parameters.values(), (1, 2, 5), {"d": 4})
    ((1,), {'c': 5})
    >>> without_defaults(inspect.signature(lambda a=1, b=2, /, c=3: None).parameters.values(), (1, 5, 3), {})
    ((1, 5), {})
    """
    every = list(parameters)
    positional = [each for each in every if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    pairs = list(zip(positional, args, strict=False))
    given = [place for place, (each, arg) in enumerate(pairs) if not _is_default(each.default, arg)]
    only = [place for place in given if pairs[place][0].kind is pairs[place][0].POSITIONAL_ONLY]
    first = next((place for place in range(len(pairs)) if place not in given), len(args))
    kept = len(args) if len(args) > len(pairs) else max([first, *[place + 1 for place in only]])
    later = {pairs[place][0].name: pairs[place][1] for place in given if place >= kept}
    named = {each.name: each.default for each in every if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    later |= {name: arg for name, arg in kwargs.items() if name not in named or not _is_default(named[name], arg)}
    return args[:kept], later


def _is_default(default: Any, value: Any) -> bool:
    """Return whether a plain value equals the default of its parameter."""
    return type(default) is type(value) and type(value) in PLAIN_TYPES and default == value
