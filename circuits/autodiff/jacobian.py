"""`jacobian`: the derivative of a circuit at a point as linear maps with named axes.

A Jacobian maps changes of an input to changes of an output: applied to a tangent, it equals torch.func.jvp; its
transpose, applied to a cotangent, equals torch.func.vjp; the composition of two is the chain rule.

Source: torch.func.jacrev and jacfwd; for linear maps, V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from circuits.algebra import LinearMap
from circuits.autodiff.tensors import append_as_wire
from circuits.checking import definitions
from circuits.diagram import Diagram, Value, describe, fill, wires
from circuits.errors import CircuitError, entry_point
from circuits.printing import FunctionalCall, letters, unique_name
from circuits.recording import refuse_target, trace

Places = int | dict[str, int]
"""The position of a tensor among all tensors of a call, or the positions of several by name."""


@entry_point
def jacobian(
    f: Any, /, *inputs: Any, wrt: str | Sequence[str] | None = None, axes: str | None = None, **kwargs: Any
) -> Any:
    """Return the derivative of a circuit, a module, a function or a diagram at these inputs: a LinearMap, or several.

    A map goes from the axes of an input to the axes of an output, which are named as by `trace`. A name that occurs on
    both sides is primed in the output, `y k -> y' k'`; a group is named by its axes, `h_k`; an unnamed axis gets a
    letter. A map from a tensor without axes takes no input: called, it returns its tensor. The definitions of circuits
    are differentiated, not their kernels, in forward or reverse mode, whichever takes fewer runs.

    Args:
        f: A circuit, a module, a function, or a diagram of one.
        inputs: The point at which to differentiate; for a module, its parameters and buffers are part of it.
        wrt: The tensors to differentiate by: an argument, a tensor within one (`weights.Wq`), or a parameter or buffer
            by its dotted name; an argument shadows a parameter of its name. None stands for the first argument with
            floating tensors.
        axes: The axes of the inputs of a function without a signature, as for `trace`.
        kwargs: Keyword arguments of `f`.

    Returns:
        One LinearMap if `wrt` is the name of a tensor; a dict of maps, by the names below it, if `wrt` is the name of
        several tensors, such as a dict of weights; a dict of these by name if `wrt` is a sequence of names. If `f`
        returns several tensors, one such result for each, nested as they are.

    Raises:
        CircuitError: `wrt` names no floating tensor, or an output is not floating.

    >>> softmax = jacobian(lambda scores: scores.softmax(-1), torch.zeros(2), axes="k")
    >>> softmax, softmax(torch.tensor([1.0, 0.0]))
    (LinearMap("k -> k'", k=2, k'=2), tensor([ 0.2500, -0.2500]))
    """
    refuse_target("jacobian", f)
    call = FunctionalCall.of(f, inputs, kwargs)
    requested = _requested(call, wrt)
    each = [place for places in requested.values() for place in _positions(places)]
    args, kwargs = call.arguments
    sized = trace(f, *args, axes=axes, **kwargs)
    diagram = f if isinstance(f, Diagram) else sized
    outputs = _outputs(diagram)
    output_numel = sum([prod([int(size) for size in value.sizes]) for value in _outputs(sized)])
    form, found = _differentiate(call, list(dict.fromkeys(each)), output_numel)
    known = {value.name: value for box in reversed(list(diagram.walk())) for value in box.inputs if value.name}

    def maps(number: int) -> Any:
        def one(place: int) -> LinearMap:
            return _map(found[number][place], call, place, known, outputs[number])

        found_maps = {name: _for_each(places, one) for name, places in requested.items()}
        return found_maps if wrt is not None and not isinstance(wrt, str) else found_maps.popitem()[1]

    return fill(form, lambda wire: maps(wire.number), lambda scalar: scalar.expression)


# The tensors that `wrt` names -----------------------------------------------------------------------------------------


def _requested(call: FunctionalCall, wrt: str | Sequence[str] | None) -> dict[str, Places]:
    """Return the positions of the tensors that `wrt` names, by these names."""
    floating = [place for place, tensor in enumerate(call.tensors) if tensor.is_floating_point()]
    if wrt is None:
        first = next((call.names[place] for place in floating if place >= call.weights), None)
        if first is None:
            raise CircuitError("jacobian: no input is a floating tensor; wrt may name a parameter")
        wrt = first.partition(".")[0]
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    return {name: _found(call, name, floating) for name in names}


def _found(call: FunctionalCall, name: str, floating: Sequence[int]) -> Places:
    """Return the position of the tensor of this name, or of those below it; an input shadows a parameter or buffer."""
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


def _positions(places: Places) -> Iterable[int]:
    """Return the positions in either form."""
    return [places] if isinstance(places, int) else places.values()


def _for_each(places: Places, one: Any) -> Any:
    """Return `one(position)`; for several positions, a dict of these by name."""
    return one(places) if isinstance(places, int) else {name: one(place) for name, place in places.items()}


# Derivatives ------------------------------------------------------------------------------------------------------


def _outputs(diagram: Diagram) -> list[Value]:
    """Return the outputs of a diagram in order; raise CircuitError if one is not floating."""
    values = {value.number: value for value in diagram.outputs}
    found = [values[number] for number in wires(diagram.result)]
    other = next((value for value in found if not value.dtype.is_floating_point), None)
    if other is not None or not found:
        returned = "no tensor" if other is None else f"{other.dtype}".removeprefix("torch.")
        raise CircuitError(f"jacobian: {diagram.name} returns {returned}; only floating tensors have derivatives")
    return found


def _differentiate(call: FunctionalCall, places: list[int], output_numel: int) -> tuple[Any, list[dict[int, Tensor]]]:
    """Return the nesting of the outputs, as a description, and for each its derivatives by the tensors at `places`."""
    forms: list[Any] = []

    def run(*moved: Tensor) -> tuple[Tensor, ...]:
        given = [tensor.clone() for tensor in call.tensors]  # since a module may write to its buffers
        for place, tensor in zip(places, moved, strict=True):
            given[place] = tensor
        found: list[Tensor] = []

        forms.append(describe(call(*given), lambda tensor: append_as_wire(found, tensor)))
        return tuple(found)

    point = [call.tensors[place] for place in places]
    with definitions():
        made = _jacobians(run, point, output_numel)
    return forms[-1], [dict(zip(places, each, strict=True)) for each in made]


def _jacobians(run: Any, point: Sequence[Tensor], output_numel: int) -> Any:
    """Return the derivatives, in forward mode if the inputs have fewer elements than the outputs, else in reverse mode.

    `output_numel` is the number of elements of the outputs.
    """
    every = tuple(range(len(point)))
    if sum([tensor.numel() for tensor in point]) < output_numel:
        try:
            return torch.func.jacfwd(run, every, randomness="same")(*point)
        except (NotImplementedError, RuntimeError):  # some operations have no forward mode, or no batching rule
            return torch.func.jacrev(run, every)(*point)
    return torch.func.jacrev(run, every)(*point)


# Axis names --------------------------------------------------------------------------------------------------------


def _map(derivative: Tensor, call: FunctionalCall, place: int, known: Mapping[str, Value], output: Value) -> LinearMap:
    """Return the derivative of an output by one of the tensors as a map with named axes."""
    count = call.tensors[place].ndim
    value = known.get(call.names[place])
    inner = value.axes if value is not None and len(value.axes) == count else (None,) * count
    names = list(_names([*inner, *output.axes]))
    first = derivative.ndim - count
    transposed = derivative.permute((*range(first, derivative.ndim), *range(first)))
    return LinearMap(transposed, f"{' '.join(names[:count])} -> {' '.join(names[count:])}")


def _names(axes: Iterable[str | None]) -> Iterator[str]:
    """Yield a name for each axis, none twice.

    >>> list(_names(["y", "(h k)", None, "y", "3"]))
    ['y', 'h_k', 'a', "y'", 'b']
    """
    axes = list(axes)
    words = [re.findall(r"[A-Za-z_]\w*'*", axis or "") for axis in axes]
    fresh = letters([word for each in words for word in each])
    taken: list[str] = []
    for each in words:
        name = each[0] if len(each) == 1 else "_".join([word.rstrip("'") for word in each])
        taken.append(unique_name(name or next(fresh), taken))
        yield taken[-1]
