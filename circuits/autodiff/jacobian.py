"""jacobian: the derivative of a circuit at a point as linear maps, whose axes have names.

A Jacobian is a map, from changes of what goes in to changes of what comes out: called, it is torch.func.jvp; its
transpose is vjp; maps composed are the chain rule.

Source: torch.func.jacrev and jacfwd; for linear maps, V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from circuits.algebra import LinearMap
from circuits.checking import definitions
from circuits.diagram import Diagram, Value, Wire, change, describe, wires
from circuits.errors import CircuitError
from circuits.printing import Call, another, letters
from circuits.recording import trace

Places = int | dict[str, int]
"""Where a tensor stands among those of a call, or each of several."""


def jacobian(
    f: Any, /, *inputs: Any, wrt: str | Sequence[str] | None = None, axes: str | None = None, **kwargs: Any
) -> Any:
    """The derivative of a circuit, a module, a function or a diagram at these inputs: a LinearMap, or several.

    `wrt` names what to differentiate by: an argument, a tensor within one (`weights.Wq`), a parameter or buffer by its
    dotted name; an argument goes before a parameter of its name. Left out, it is the first argument with floating
    tensors. One that is a tensor has one map; one that holds several, as a dict of weights does, a dict of maps by
    what stands below it; and where `wrt` is several names, so is the answer a dict by these. A circuit that gives
    several tensors has as many such answers, nested as they are.

    A map goes from the axes of what goes in to those of what comes out, named as by `trace` or by `axes`. A name that
    would stand on both sides has a prime on the outer one, `y k -> y' k'`; a group bears its names, `h_k`; an axis
    that nobody named, a letter. Maps from a single number have no input: called, they are their tensor. Derivatives
    are those of definitions, forth or back, whichever takes fewer runs.

    CircuitError where `wrt` names nothing that floats, or what comes out does not.

    >>> softmax = jacobian(lambda scores: scores.softmax(-1), torch.zeros(2), axes="k")
    >>> softmax, softmax(torch.tensor([1.0, 0.0]))
    (LinearMap("k -> k'", k=2, k'=2), tensor([ 0.2500, -0.2500]))
    """
    call = Call.of(f, inputs, kwargs)
    asked = _asked(call, wrt)
    each = [place for places in asked.values() for place in _every(places)]
    args, kwargs = call.arguments
    sized = trace(f, *args, axes=axes, **kwargs)
    diagram = f if isinstance(f, Diagram) else sized
    outputs = _outputs(diagram)
    numbers = sum([prod([int(size) for size in value.sizes]) for value in _outputs(sized)])
    form, found = _differentiate(call, list(dict.fromkeys(each)), numbers)
    known = {value.name: value for box in reversed(list(diagram.walk())) for value in box.inputs if value.name}

    def maps(number: int) -> Any:
        def one(place: int) -> LinearMap:
            return _map(found[number][place], call, place, known, outputs[number])

        answer = {name: _each(places, one) for name, places in asked.items()}
        return answer if wrt is not None and not isinstance(wrt, str) else answer.popitem()[1]

    return change(form, lambda wire: maps(wire.number), lambda scalar: scalar.expression)


# What to differentiate by -----------------------------------------------------------------------------------------


def _asked(call: Call, wrt: str | Sequence[str] | None) -> dict[str, Places]:
    """The tensors that are asked for, by the names that ask for them."""
    floating = [place for place, tensor in enumerate(call.tensors) if tensor.is_floating_point()]
    if wrt is None:
        first = next((call.names[place] for place in floating if place >= call.weights), None)
        if first is None:
            raise CircuitError("jacobian: no floating tensor goes in; wrt may name a parameter")
        wrt = first.partition(".")[0]
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    return {name: _found(call, name, floating) for name in names}


def _found(call: Call, name: str, floating: Sequence[int]) -> Places:
    """The tensor of this name, or those below it: of what goes in, else of what is held."""
    inputs = [place for place in floating if place >= call.weights]
    for places in (inputs, [place for place in floating if place < call.weights]):
        for place in places:
            if call.names[place] == name:
                return place
        below = {call.names[place].removeprefix(f"{name}."): place for place in places
                 if call.names[place].startswith(f"{name}.")}  # fmt: skip
        if below:
            return below
    there = ", ".join([call.names[place] for place in [*inputs, *floating[: len(floating) - len(inputs)]]])
    raise CircuitError(f"jacobian: wrt: there is no floating {name}; there are {there}")


def _every(places: Places) -> Iterable[int]:
    return [places] if isinstance(places, int) else places.values()


def _each(places: Places, one: Any) -> Any:
    return one(places) if isinstance(places, int) else {name: one(place) for name, place in places.items()}


# The derivatives --------------------------------------------------------------------------------------------------


def _outputs(diagram: Diagram) -> list[Value]:
    """What comes out, in order; CircuitError where something has no derivative."""
    values = {value.number: value for value in diagram.outputs}
    found = [values[number] for number in wires(diagram.result)]
    other = next((value for value in found if not value.dtype.is_floating_point), None)
    if other is not None or not found:
        came = "no tensor" if other is None else f"{other.dtype}".removeprefix("torch.")
        raise CircuitError(f"jacobian: {came} comes out of {diagram.name}; floating tensors have derivatives")
    return found


def _differentiate(call: Call, places: list[int], numbers: int) -> tuple[Any, list[dict[int, Tensor]]]:
    """How what comes out is nested, and of each tensor there its derivatives by the tensors at these places."""
    forms: list[Any] = []

    def run(*moved: Tensor) -> tuple[Tensor, ...]:
        given = [tensor.clone() for tensor in call.tensors]  # a module may write to its buffers
        for place, tensor in zip(places, moved, strict=True):
            given[place] = tensor
        found: list[Tensor] = []

        def wire(tensor: Tensor) -> Wire:
            found.append(tensor)
            return Wire(len(found) - 1)

        forms.append(describe(call(*given), wire))
        return tuple(found)

    point = [call.tensors[place] for place in places]
    with definitions():
        made = _either(run, point, numbers)
    return forms[-1], [dict(zip(places, each, strict=True)) for each in made]


def _either(run: Any, point: Sequence[Tensor], numbers: int) -> Any:
    """The derivatives, by one run for each number that goes in or for each that comes out, whichever are fewer."""
    every = tuple(range(len(point)))
    if sum([tensor.numel() for tensor in point]) < numbers:
        try:
            return torch.func.jacfwd(run, every, randomness="same")(*point)
        except (NotImplementedError, RuntimeError):  # not all of torch's operations can be run forth, or many at once
            return torch.func.jacrev(run, every)(*point)
    return torch.func.jacrev(run, every)(*point)


# Their names ------------------------------------------------------------------------------------------------------


def _map(derivative: Tensor, call: Call, place: int, known: Mapping[str, Value], output: Value) -> LinearMap:
    """The derivative of an output by one of the tensors, its axes named."""
    count = call.tensors[place].ndim
    value = known.get(call.names[place])
    inner = value.axes if value is not None and len(value.axes) == count else (None,) * count
    names = list(_names([*inner, *output.axes]))
    first = derivative.ndim - count
    turned = derivative.permute((*range(first, derivative.ndim), *range(first)))
    return LinearMap(turned, f"{' '.join(names[:count])} -> {' '.join(names[count:])}")


def _names(axes: Iterable[str | None]) -> Iterator[str]:
    """A name for each axis, none twice.

    >>> list(_names(["y", "(h k)", None, "y", "3"]))
    ['y', 'h_k', 'a', "y'", 'b']
    """
    axes = list(axes)
    words = [re.findall(r"[A-Za-z_]\w*'*", axis or "") for axis in axes]
    fresh = letters([word for each in words for word in each])
    taken: list[str] = []
    for each in words:
        name = each[0] if len(each) == 1 else "_".join([word.rstrip("'") for word in each])
        taken.append(another(name or next(fresh), taken))
        yield taken[-1]


__all__ = ["jacobian"]
