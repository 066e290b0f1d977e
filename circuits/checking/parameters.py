"""The parameters of a function, and which of them take the tensors of a signature."""

import inspect
import keyword
from collections.abc import Callable, Collection
from typing import Any

from circuits.errors import SignatureError
from circuits.signature import Signature

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
"""The kinds of parameters that take one value and can be passed by position."""


def parameters_of(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    """Return the parameters of a function; `*inputs, **options` for a function in C that has no Python signature.

    Raises:
        SignatureError: If the name of a parameter is a Python keyword or no name at all; a `__signature__` can have
            such parameters.
    """
    try:
        found = tuple(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        anything = inspect.Parameter("inputs", inspect.Parameter.VAR_POSITIONAL)
        return anything, inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)
    for each in found:
        if keyword.iskeyword(each.name) or not each.name.isidentifier():
            what = "has the name of a Python keyword" if keyword.iskeyword(each.name) else "does not have a Python name"
            raise SignatureError(
                f"the parameter {each.name!r} of {function!r} {what}; "
                "wrap it in a function whose parameters have other names"
            )
    return found


def input_parameters(
    name: str, signature: Signature, parameters: list[inspect.Parameter], optional: Collection[str]
) -> tuple[str, ...]:
    """Return the names of the inputs: the first positional parameters that are not in `optional`.

    Inputs taken by `*tensors` are named `tensors[0]`, `tensors[1]`, ...

    Raises:
        SignatureError: If the function, called `name` in the message, has fewer such parameters than the signature has
            inputs.
    """
    positional = [each.name for each in parameters if each.kind in POSITIONAL and each.name not in optional]
    star = next((each.name for each in parameters if each.kind is inspect.Parameter.VAR_POSITIONAL), None)
    count = len(signature.inputs)
    if not parameters and signature.inputs == ((),):
        return ()
    if len(positional) >= count:
        return tuple(positional[:count])
    if star is None:
        tensors = "1 tensor" if count == 1 else f"{count} tensors"
        takes = f"only the parameters {', '.join(positional)}" if positional else "no parameter"
        raise SignatureError(f"{signature} takes {tensors}, but {takes} of {name} can receive one")
    return (*positional, *(f"{star}[{i}]" for i in range(count - len(positional))))
