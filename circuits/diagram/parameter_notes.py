"""What the table says of parameters besides their number: those that nothing reads, are not trained, or are shared."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from torch import nn

from circuits.diagram.boxes import Box, Value
from circuits.diagram.structure import attribute


def parameter_notes(box: Box, state: Mapping[int, tuple[nn.Module, str]]) -> Iterator[str]:
    """Yield a line on the parameters that no box reads, and one on those that are frozen (`requires_grad` is False).

    Args:
        box: The outermost box. If the run failed in it, nothing is said of what no box reads.
        state: The module and dotted name of each parameter that the run reads, by value number.
    """
    inner = [each for each in box.walk() if not each.boxes]
    read = {value.number for each in inner for value in each.parameters}
    unread = [value for value in box.parameters if value.number not in read]
    if unread and not any(each.error for each in box.walk()):
        yield f"{element_count(unread):,} params that no box reads: {_shortened([value.name for value in unread])}"
    frozen = [value for value in box.parameters if not _is_trained(value, state)]
    if frozen:
        yield f"{element_count(frozen):,} of {box.parameter_count:,} params frozen (requires_grad is False)"


def element_count(values: Sequence[Value]) -> int:
    """Return the number of elements of parameters, each counted once."""
    sizes = {(value.number, value.name): value.sizes for value in values}
    return sum([prod([int(size) for size in each]) for each in sizes.values()])


def shared_text(parameters: Sequence[Value], earlier: Mapping[int, str]) -> str:
    """Return the number of elements of parameters as text, saying which of them rows above have counted.

    Args:
        parameters: The parameters of a box.
        earlier: The names of the parameters that rows above have counted, by value number.
    """
    again = [value for value in parameters if value.number in earlier]
    text = f"{element_count(parameters):,} params"
    if not again:
        return text
    names = f"({_shortened([earlier[value.number] for value in again])})"
    return f"shared {names}" if len(again) == len(parameters) else f"{text}, {element_count(again):,} shared {names}"


def _is_trained(value: Value, state: Mapping[int, tuple[nn.Module, str]]) -> bool:
    """Return whether a parameter requires gradients; True if its module is unknown."""
    if value.number in state:
        return bool(attribute(*state[value.number]).requires_grad)
    for root in {id(module): module for module, _ in state.values()}.values():
        for name, parameter in root.named_parameters():
            if name == value.name:
                return parameter.requires_grad
    return True


def _shortened(names: Sequence[str]) -> str:
    """Return names as text, the first ones of more than four."""
    return ", ".join(names if len(names) <= 4 else [*names[:3], f"… {len(names) - 3} more"])


__all__ = ["element_count", "parameter_notes", "shared_text"]
