"""The same numbers in the same order under another shape: axes are grouped and ungrouped."""

from collections.abc import Sequence
from typing import Any

from circuits.naming.axes import AxisNode, Grouped, quotient, same_size
from circuits.naming.derivation import group, parts
from circuits.naming.names import Names
from circuits.naming.rules.registry import Operation, rule


@rule("reshape view flatten unflatten view_as reshape_as ravel _unsafe_view")
def reshape(operation: Operation, names: Names) -> None:
    """Axes are grouped and ungrouped where the products of sizes agree."""
    output = operation.outputs[0]
    names.put(output, regroup(names.of(operation.inputs[0]), names.shapes[output]))


def regroup(axes: Sequence[AxisNode], shape: Sequence[Any]) -> list[AxisNode]:
    """The axes of the same numbers read with another shape, row by row."""
    sources, targets = list(axes), list(shape)
    found: list[AxisNode] = []
    while targets:
        found += _ones(sources, targets)
        if not targets or not sources:
            break
        block = _block(sources, targets)
        if not block:
            break
        found += block
    return found + [AxisNode(size) for size in targets]


def _ones(sources: list[AxisNode], targets: list[Any]) -> list[AxisNode]:
    """Take the axes of size 1 that come next off both: the same axes if there are as many, else new ones."""
    count = next((place for place, axis in enumerate(sources) if not same_size(axis.root.size, 1)), len(sources))
    asked = next((place for place, size in enumerate(targets) if not same_size(size, 1)), len(targets))
    ones = sources[:count]
    del sources[:count], targets[:asked]
    return ones if count == asked else [AxisNode(1) for _ in range(asked)]


def _block(sources: list[AxisNode], targets: list[Any]) -> list[AxisNode]:
    """Take the fewest axes off both that hold equally many numbers; none if there is no telling."""
    taken, asked = [sources.pop(0)], [targets.pop(0)]
    left, right = taken[0].root.size, asked[0]
    while not same_size(left, right):
        pieces = parts(taken[-1], Grouped)
        if sources and _divides(left, right):
            taken.append(sources.pop(0))
            left = left * taken[-1].root.size
        elif pieces and all(piece.root.size is not None for piece in pieces):
            taken.pop()
            sources[:0] = pieces[len(pieces) > 0 :]
            taken.append(pieces[0])
            left = _product([axis.root.size for axis in taken])
        elif targets and _divides(right, left):
            asked.append(targets.pop(0))
            right = right * asked[-1]
        else:
            targets[:0] = asked
            return []
    return _regrouped(taken, asked, left)


def _product(sizes: Sequence[Any]) -> Any:
    total: Any = 1
    for size in sizes:
        total = total * size
    return total


def _regrouped(taken: list[AxisNode], asked: list[Any], size: Any) -> list[AxisNode]:
    """Many axes as one, or one as many; many as many others have no names."""
    if len(asked) == 1:
        return [group(taken, size)]
    made = [AxisNode(each) for each in asked]
    if len(taken) == 1 and taken[0].nameable:
        taken[0].root.origin = Grouped(tuple(made))
    return made


def _divides(a: Any, b: Any) -> bool:
    """Whether `b` is more than `a`, and for symbols a multiple of it: the side that must take one more axis."""
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    ratio = quotient(b, a)
    numerator, denominator = getattr(ratio, "as_numer_denom", lambda: (ratio, 1))()
    return bool(denominator == 1 and numerator != 1)
