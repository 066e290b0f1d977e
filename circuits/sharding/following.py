"""Where an axis without a name is after an operation that moves elements, by the naming rules: they know axes apart.

So a split is followed through the views of a model that states no names, such as `view(b, s, -1, head_dim)`.
"""

from collections.abc import Sequence

import torch

from circuits.diagram import Value
from circuits.naming import AxisNode, Grouped, Names, Operation, name_outputs, parts


def followed(
    operation: Operation, inputs: Sequence[Value], outputs: Sequence[Value], number: int, dim: int
) -> list[int | None]:
    """Return where an axis of an input is in each output: itself, its slowest part, or the group that begins with it.

    Args:
        operation: The call.
        inputs, outputs: Its tensors.
        number: The number of the input.
        dim: The dimension of the input.
    """
    names = Names()
    names.shapes.update({value.number: value.sizes for value in (*inputs, *outputs)})
    names.booleans.update([value.number for value in inputs if value.dtype == torch.bool])
    axis = names.of(number)[dim]
    name_outputs(operation, names)
    found = []
    for value in outputs:
        places = [place for place, each in enumerate(names.of(value.number)) if _slowest(each) is _slowest(axis)]
        found.append(places[0] if len(places) == 1 else None)
    return found


def _slowest(axis: AxisNode) -> AxisNode:
    """Return the slowest of the axes that an axis is made of."""
    while pieces := parts(axis, Grouped):
        axis = pieces[0]
    return axis.root


__all__ = ["followed"]
