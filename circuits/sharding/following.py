"""Where the axis that is split is after an operation that only moves elements, in a model that states no names.

Views regroup axes, as `view(b, s, -1, head_dim)` does: there the sizes tell. For the others the naming rules do, which
follow axes by identity.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Self

import sympy
import torch

from circuits.diagram import Value
from circuits.naming import Names, Operation, name_outputs, naming_rule
from circuits.sharding.mesh import factors


class Inside(int):
    """A dimension that is a group, `(3 h k)`, in which an axis that is not the first is split.

    Attributes:
        blocks: The number of blocks of the group, of each of which every rank has a part: 3.
    """

    blocks: int

    def __new__(cls, dim: int, blocks: Any) -> Self:
        """Return the dimension."""
        found = super().__new__(cls, dim)
        found.blocks = blocks
        return found

    def __repr__(self) -> str:
        return f"Inside({int(self)}, blocks={self.blocks})"


def blocks_of(dim: Any) -> Any:
    """Return the number of blocks of which each is split: 1 for a dimension that is split as a whole."""
    return dim.blocks if isinstance(dim, Inside) else 1


def inside(dim: int, blocks: Any) -> int:
    """Return a dimension that is split in blocks, or as a whole if there is one."""
    return int(dim) if blocks == 1 else Inside(dim, blocks)


class NoPlacementError(Exception):
    """The reason for which an operation cannot be given tensors that are split as they are."""


def moved(step: Any, value: Value) -> list[int]:
    """Return the axis of each output that begins with the axis along which an input of a `rules.Step` is split.

    Raises:
        NoPlacementError: An output has none, or several.
    """
    dim, outputs = step.dims[value.number], step.box.outputs
    named = [None if blocks_of(dim) > 1 else _named(value, dim, output) for output in outputs]
    if None in named:
        named = _followed(step.operation, step.inputs, value, dim, outputs, step.ranks)
    for place, output in zip(named, outputs, strict=True):
        if place is None:
            what = value.axes[dim] or f"axis {dim:d} of {value}"
            raise NoPlacementError(
                f"its output, {output}, has no axis that begins with {what}, or several, or {step.ranks} ranks do not "
                "divide it"
            )
    return [each for each in named if each is not None]


def _named(value: Value, dim: int, output: Value) -> int | None:
    """Return the axis of an output that begins with the axis of an input that is split, by its name; None without."""
    first = factors(value.axes[dim])[:1]
    found = [place for place, label in enumerate(output.axes) if first and factors(label)[:1] == first]
    same = [each for each in value.axes if factors(each)[:1] == first]
    if len(found) != 1 or len(same) != 1:
        return None
    if (
        len(factors(value.axes[dim])) == len(factors(output.axes[found[0]]))
        and value.sizes[dim] != output.sizes[found[0]]
    ):
        raise NoPlacementError(f"it takes a part of {first[0]}")
    return found[0]


def _followed(
    operation: Operation, inputs: Sequence[Value], value: Value, dim: int, outputs: Sequence[Value], ranks: int
) -> list[int | None]:
    """Return where the axis along which an input is split is in each output; None where it is not, or not once.

    Args:
        operation: The call.
        inputs: Its input tensors.
        value: The input that is split.
        dim: The dimension, perhaps `Inside` a group.
        outputs: Its output tensors.
        ranks: The number of parts.
    """
    if naming_rule(operation.function) == "reshape":
        return [_regrouped(value.sizes, dim, output.sizes, ranks) for output in outputs]
    names = Names()
    names.shapes.update({each.number: each.sizes for each in (*inputs, *outputs)})
    names.booleans.update([each.number for each in inputs if each.dtype == torch.bool])
    axis = names.of(value.number)[dim]
    name_outputs(operation, names)
    found: list[int | None] = []
    for output in outputs:
        places = [place for place, each in enumerate(names.of(output.number)) if each.root is axis.root]
        found.append(inside(places[0], blocks_of(dim)) if len(places) == 1 else None)
    return found


def _regrouped(sizes: Sequence[Any], dim: int, after: Sequence[Any], ranks: int) -> int | None:
    """Return the dimension after a view, in row-major order, that holds the axis that is split."""
    before: Any = prod(sizes[:dim]) * blocks_of(dim)
    for place, size in enumerate(after):
        blocks = _quotient(before, prod(after[:place]))
        part = None if blocks is None else _quotient(size, blocks)
        if part is not None and _is_divisible(part, ranks):
            return inside(place, blocks)
    return None


def _is_divisible(size: Any, ranks: int) -> bool:
    """Return whether a size other than 1 is a multiple of a number, as far as is known."""
    return size != 1 and (not isinstance(size, int) or size % ranks == 0)


def _quotient(size: Any, by: Any) -> Any:
    """Return the quotient of two sizes, None if it is no whole number."""
    if isinstance(size, int) and isinstance(by, int):
        return size // by if size % by == 0 else None
    found = sympy.cancel(sympy.sympify(size) / by)
    if found.as_numer_denom()[1] != 1:
        return None
    return int(found) if found.is_Integer else found


__all__ = ["Inside", "NoPlacementError", "blocks_of", "inside", "moved"]
