"""Naming rules of reshaping: axes are grouped, and groups are split, where the products of sizes agree."""

from collections.abc import Sequence
from typing import Any

from circuits.naming.axes import AxisNode, Grouped
from circuits.naming.derivation import group, parts
from circuits.naming.names import Names
from circuits.naming.rules.registry import Operation, rule
from circuits.naming.sizes import quotient, same_size


@rule("reshape view flatten unflatten view_as reshape_as ravel _unsafe_view")
def reshape(operation: Operation, names: Names) -> None:
    """Axes are grouped, and groups are split, where the products of sizes agree; other axes have no name."""
    output = operation.outputs[0]
    names.put(output, regroup(names.of(operation.inputs[0]), names.shapes[output]))


def regroup(axes: Sequence[AxisNode], shape: Sequence[Any]) -> list[AxisNode]:
    """Return the axes of a tensor after it is reshaped, in row-major order, from these axes to this shape."""
    sources, targets = list(axes), list(shape)
    found: list[AxisNode] = []
    while targets:
        found += _take_ones(sources, targets)
        if not targets or not sources:
            break
        block = _take_block(sources, targets)
        if not block:
            break
        found += block
    return found + [AxisNode(size) for size in targets]


def _take_ones(sources: list[AxisNode], targets: list[Any]) -> list[AxisNode]:
    """Remove the leading axes of size 1 from both lists; return those of `sources` if as many, else new axes."""
    count = next((position for position, axis in enumerate(sources) if not same_size(axis.root.size, 1)), len(sources))
    target_count = next((position for position, size in enumerate(targets) if not same_size(size, 1)), len(targets))
    ones = sources[:count]
    del sources[:count], targets[:target_count]
    return ones if count == target_count else [AxisNode(1) for _ in range(target_count)]


def _take_block(sources: list[AxisNode], targets: list[Any]) -> list[AxisNode]:
    """Remove the fewest leading axes and sizes whose products are equal from the two lists.

    Returns:
        The axes with these sizes; empty, with `targets` unchanged, if symbolic sizes leave the products undecided.
    """
    taken, sizes = [sources.pop(0)], [targets.pop(0)]
    left, right = taken[0].root.size, sizes[0]
    while not same_size(left, right):
        pieces = parts(taken[-1], Grouped)
        if sources and _is_smaller(left, right):
            taken.append(sources.pop(0))
            left = left * taken[-1].root.size
        elif pieces and all(piece.root.size is not None for piece in pieces):
            taken.pop()
            sources[:0] = pieces[1:]
            taken.append(pieces[0])
            left = _product([axis.root.size for axis in taken])
        elif targets and _is_smaller(right, left):
            sizes.append(targets.pop(0))
            right = right * sizes[-1]
        else:
            targets[:0] = sizes
            return []
    return _regroup_block(taken, sizes, left)


def _product(sizes: Sequence[Any]) -> Any:
    """Return the product of sizes."""
    total: Any = 1
    for size in sizes:
        total = total * size
    return total


def _regroup_block(taken: list[AxisNode], sizes: list[Any], size: Any) -> list[AxisNode]:
    """Return the axes with these sizes, whose product `size` is that of the axes in `taken`.

    One size is the group of the axes. Several sizes are new axes without names; a single nameable axis becomes a group
    of them.
    """
    if len(sizes) == 1:
        return [group(taken, size)]
    made = [AxisNode(each) for each in sizes]
    if len(taken) == 1 and taken[0].nameable:
        taken[0].root.origin = Grouped(tuple(made))
    return made


def _is_smaller(a: Any, b: Any) -> bool:
    """Return whether `a < b` for ints; for symbolic sizes, whether `b` is `a` times a factor other than 1."""
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    ratio = quotient(b, a)
    numerator, denominator = getattr(ratio, "as_numer_denom", lambda: (ratio, 1))()
    return bool(denominator == 1 and numerator != 1)
