"""What a backward circuit cannot contain, refused by name: hooks, autograd and random state inside the run."""

from collections.abc import Container, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from circuits.diagram import (
    ABOUT_GRADIENTS,
    SETS_RANDOM_STATE,
    Box,
    Call,
    Diagram,
    PropertyGuard,
    Value,
    attribute,
    has_backward_hooks,
    register_hook,
    wires,
)
from circuits.errors import CircuitError

_AUTOGRAD = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)


def refuse_hooks_and_autograd(diagram: Diagram, requested: Iterable[Value]) -> None:
    """Raise CircuitError for code that takes gradients itself, or that changes gradients by hooks.

    Autograd inside the run cannot be differentiated box by box. A hook is code that autograd calls with a gradient; it
    may do anything with it, so a diagram that left it out would return other gradients. A hook that is called after a
    gradient was added to `.grad` changes no gradient, as for `torch.autograd.grad`.

    Args:
        diagram: The diagram of the forward pass.
        requested: The values whose gradients are requested.
    """
    for box, call in _calls(diagram.box):
        if call.function in _AUTOGRAD:
            raise CircuitError(
                f"{_place(box)} takes a gradient inside the run, which cannot be differentiated again as a diagram; "
                "use torch.func.grad or torch.func.vjp, or differentiate by autograd"
            )
    for box in diagram.walk():
        if box.call is not None:
            _refuse_hooks(diagram, box, box.call)
    for value in requested:
        if value.number in diagram.state and getattr(attribute(*diagram.state[value.number]), "_backward_hooks", None):
            raise _hook_error(f"{value.name} has a hook on its gradient")


def _refuse_hooks(diagram: Diagram, box: Box, call: Call) -> None:
    """Raise CircuitError if a call, perhaps one inside a box that runs as a whole, changes gradients by hooks."""
    if call.function is register_hook:
        raise _hook_error(f"{_place(box)} registers a hook on a gradient")
    if isinstance(call.function, str):
        _refuse_hooked_modules(diagram.modules[call.function])
    if "saved_tensors_hooks" in dict(call.settings):
        raise _hook_error(f"{_place(box)} runs under torch.autograd.graph.saved_tensors_hooks")


def refuse_random_state(box: Box) -> None:
    """Raise CircuitError if the code of a box that is replaced by its operations sets the state of random numbers.

    A backward circuit has the operations on tensors of such a box, which do not include this.
    """
    for inner in box.walk():
        if inner.call is not None and inner.call.function in SETS_RANDOM_STATE:
            raise CircuitError(
                f"{_place(inner)} sets the state of the random numbers in {box.label}, which calls a function of "
                "torch.func (vmap, grad), where a backward circuit cannot set it: call that function in a module or "
                "circuit of its own"
            )


def refuse_guards_without_gradients(diagram: Diagram, active: set[int], known: Container[int]) -> None:
    """Raise CircuitError if the code read that there are no gradients, where they flow.

    Args:
        diagram: The diagram of the forward pass.
        active: The numbers of the values that gradients flow through.
        known: The numbers of the values of which that is known; others are inside a box that is run as a whole.
    """
    leaves = {value.number for value in diagram.inputs} | diagram.state.keys()
    for call in diagram.property_guards:
        if not isinstance(call.function, PropertyGuard):
            continue
        where = call.function.where or "an unknown line"
        recorded, *given = call.args.parts
        concerned = {number for number in wires(call.args) if number in active or number not in known}
        concerned -= leaves if _name(call) == "is_leaf" else set()
        if (_name(call), recorded) in _WITHOUT_GRADIENTS and (not given or concerned):
            raise CircuitError(
                f"the run read {_name(call)} at {where} as {recorded}, but it is another where gradients flow: "
                "record it with gradients enabled and with inputs that require them (x.requires_grad_())"
            )


_WITHOUT_GRADIENTS = (("requires_grad", False), ("grad_fn", None), ("is_leaf", True), ("is_grad_enabled", False))
"""Properties that depend on gradients, as they are where none flow."""


def other_guards(diagram: Diagram) -> tuple[Call, ...]:
    """Return the guards of a backward circuit: all but those that depend on whether gradients are computed.

    An input that a caller gives to it is a leaf or not, as one that is given to the original.
    """
    inputs = {value.number for value in diagram.inputs}

    def holds(call: Call) -> bool:
        name = _name(call)
        return name not in ABOUT_GRADIENTS or (name == "is_leaf" and inputs.issuperset(wires(call.args)))

    return tuple([call for call in diagram.property_guards if holds(call)])


def _name(call: Call) -> str:
    return call.function.name if isinstance(call.function, PropertyGuard) else ""


def _refuse_hooked_modules(target: Any) -> None:
    """Raise CircuitError if a module, or the module of a method, has backward hooks or contains one that has."""
    owner = target if isinstance(target, nn.Module) else getattr(target, "__self__", None)
    for name, module in owner.named_modules() if isinstance(owner, nn.Module) else ():
        if has_backward_hooks(module):
            path = f" ({name})" if name else ""
            raise _hook_error(f"{type(module).__name__}{path} has backward hooks")


def _calls(box: Box) -> Iterator[tuple[Box, Call]]:
    """Yield each box that is run by a call, with this call."""
    if box.call is not None:
        yield box, box.call
    else:
        for inner in box.boxes:
            yield from _calls(inner)


def _place(box: Box) -> str:
    return f"{box.label} at {box.where or 'an unknown line'}"


def _hook_error(what: str) -> CircuitError:
    return CircuitError(
        f"{what}, which autograd calls and a backward circuit does not: remove it, write the change of the gradient as "
        "a custom backward (@f.backward, torch.autograd.Function), or differentiate by autograd"
    )
