"""Custom backward circuits (`@f.backward`): how they are called, and which tensors their cotangents belong to.

A custom backward takes the arguments of the definition (`self` first, for a method), then the cotangents of the
definition's outputs. It returns the cotangents of the signature's tensors in order and, optionally, a dict as its last
output, with the cotangents of other tensors that the definition reads: optional tensors by argument name, a module's
parameters and buffers by their names. None stands for a tensor without a cotangent. RuleError names each tensor that
gradients flow to and for which neither has an entry.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from circuits.autodiff.ports import flow, port_values
from circuits.autodiff.rules.registry import RuleError
from circuits.autodiff.workspace import Workspace
from circuits.diagram import Box, CustomBackward, Wire, wires

ArgumentCotangent = tuple[Any, Any]
"""An argument, as a description, and its cotangent."""


def values_read(box: Box) -> tuple[int, ...]:
    """Return the values that a circuit's definition reads; for a box that runs as a whole, all that it may read."""
    if box.call is None:
        return flow(box.boxes).read
    return tuple([value.number for value in (*box.inputs, *box.parameters)])


def custom_cotangents(
    workspace: Workspace,
    box: Box,
    custom: CustomBackward,
    fill: Callable[[Any], Any],
    cotangents: Iterable[Tensor | None],
) -> list[ArgumentCotangent]:
    """Run a custom backward circuit; return each cotangent with the argument that it belongs to.

    Args:
        workspace: The workspace in which the custom backward is recorded.
        box: The box of the circuit, for messages.
        custom: The custom backward, with current value numbers.
        fill: Returns the fake tensors of a description.
        cotangents: The cotangents of the circuit's outputs; None for an output without one.

    Raises:
        RuleError: The custom backward returns too many or too few cotangents, or one under an unknown name.
    """
    module = workspace.modules.at(custom.owner, custom.path) if isinstance(custom.owner, nn.Module) else None
    owner = () if custom.owner is None else (custom.owner if module is None else module,)
    given = [each for each in cotangents if each is not None]
    output = custom.function(*owner, *fill(custom.args), *given, **fill(custom.kwargs))
    found = list(output) if isinstance(output, (tuple, list)) else [output]
    named = found.pop() if found and isinstance(found[-1], Mapping) else {}
    if len(found) != custom.inputs:
        raise RuleError(
            f"the backward circuit of {box.label} must return one cotangent for each tensor of the signature: expected "
            f"{custom.inputs}, got {len(found)}"
        )
    by_name = _named_arguments(workspace, custom, module)
    unknown = [name for name in named if name not in by_name]
    if unknown:
        raise RuleError(
            f"the backward circuit of {box.label} returns a cotangent of {', '.join(unknown)}; tensors that may have "
            f"one by name: {', '.join(by_name) or 'none'}"
        )
    pairs = zip(custom.args.parts, found, strict=False)
    return [*pairs, *[(by_name[name], cotangent) for name, cotangent in named.items()]]


def _named_arguments(workspace: Workspace, custom: CustomBackward, module: nn.Module | None) -> dict[str, Any]:
    """Return the tensors whose cotangents may be returned by name; an argument shadows a parameter of its name."""
    found: dict[str, Any] = {}
    if module is not None:
        own = (*module.named_buffers(), *module.named_parameters(remove_duplicate=False))
        found |= {name: Wire(workspace.number_of(tensor)) for name, tensor in own}
    given = dict(zip(custom.names[custom.inputs :], custom.args.parts[custom.inputs :], strict=True))
    given |= dict(zip(custom.kwargs.keys, custom.kwargs.parts, strict=True))
    return found | given


def refuse_missing(box: Box, custom: CustomBackward, returned: Iterable[ArgumentCotangent], active: set[int]) -> None:
    """Raise RuleError if gradients flow to a tensor that a circuit reads and that has no cotangent in `returned`."""
    known = {number for argument, _ in returned for number in wires(argument)}
    read = (*wires(custom.args), *wires(custom.kwargs), *values_read(box))
    missing = [number for number in read if number in active - known]
    if missing:
        values = port_values(box.walk())
        names = [values[number].name if number in values else "" for number in dict.fromkeys(missing)]
        what = ", ".join([name or "a tensor that is none of its arguments" for name in names])
        raise RuleError(
            f"the backward circuit of {box.label} returns no cotangent of {what}, which the definition reads; after "
            "the cotangents of the signature's tensors it may return a dict of others by name, with None for a tensor "
            "without a cotangent"
        )
