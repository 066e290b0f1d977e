"""Make the declaration of a circuit from a function and a signature.

Every mistake in a declaration raises SignatureError here, before any call: a signature with more inputs than the
function has parameters, an option with an unknown name, arithmetic with an axis whose size no tensor determines.
"""

from collections.abc import Callable
from typing import Any

import torch

from circuits.checking.declaration import Body, Circuit, Options, Slot
from circuits.checking.parameters import POSITIONAL, input_parameters, parameters_of
from circuits.checking.validation import refuse_generators, refuse_unknown, validate
from circuits.errors import SignatureError
from circuits.signature import Axes, Signature, parse_axes, show_axes


def declare(
    function: Callable[..., Any], text: str, options: Options, name: str, where: str, *, is_method: bool = False
) -> Circuit:
    """Return the declaration of `function` with the signature `text`.

    The function is a method, whose first parameter takes the owner, if this parameter is called `self` or `cls`, or if
    it is defined in a class and `fixed` names an attribute, which then is the owner's.

    Args:
        function: The definition.
        text: The signature.
        options: The other arguments of `circuit`.
        name: The name of the circuit in messages; `Class.method` if it is defined in a class.
        where: The file and the line of the declaration, for messages.
        is_method: Whether it is known to be a method.

    Raises:
        SignatureError: If the function, the signature and the options do not fit together.
    """
    signature = Signature.parse(text)
    refuse_generators(function, name)
    parameters = list(parameters_of(function))
    reads_owner = "." in name and any(isinstance(by, str) for _, by in options.fixed)
    is_method = is_method or reads_owner or (len(parameters) > 0 and parameters[0].name in ("self", "cls"))
    owner = parameters.pop(0).name if parameters and is_method else ""
    optional = {each: _parse_optional(each, axes) for each, axes in options.optional}
    named = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    refuse_unknown("optional", optional, named, f"a parameter of {name}")
    inputs = input_parameters(name, signature, parameters, optional)
    dtypes = dict(options.dtypes)
    circuit = Circuit(
        name=name,
        title=f"{name}: {signature}",
        where=where,
        signature=signature,
        inputs=inputs,
        optional=optional,
        fixed=dict(options.fixed),
        dtypes=dtypes,
        multiples=dict(options.multiples),
        hints=dict(options.hints),
        parameters=tuple(each.name for each in parameters if each.kind in POSITIONAL),
        definition=function,
        owner=owner,
        star=next((each.partition("[")[0] for each in inputs if "[" in each), ""),
        body=Body(),
        slots=_slots(inputs, signature, optional, dtypes),
        results=_results(signature),
    )
    validate(circuit)
    return circuit


def _parse_optional(name: str, axes: str) -> Axes:
    """Return the axes of an optional tensor."""
    try:
        return parse_axes(axes)
    except SignatureError as error:
        raise SignatureError(f"optional: in the axes of {name!r}, {error}") from None


def _slots(
    inputs: tuple[str, ...], signature: Signature, optional: dict[str, Axes], dtypes: dict[str, torch.dtype]
) -> tuple[Slot, ...]:
    """Return the slots of the inputs, then those of the optional tensors."""
    slots = [
        Slot(each, axes, show_axes(axes), "input", dtypes.get(each))
        for each, axes in zip(inputs, signature.inputs, strict=False)
    ]
    slots += [Slot(each, axes, show_axes(axes), "optional", dtypes.get(each)) for each, axes in optional.items()]
    return tuple(slots)


def _results(signature: Signature) -> tuple[Slot, ...]:
    """Return the slots of the outputs."""
    several = len(signature.outputs) > 1
    return tuple(
        Slot(f"output {i + 1}" if several else "output", axes, show_axes(axes), "output")
        for i, axes in enumerate(signature.outputs)
    )
