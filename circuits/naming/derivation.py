"""How one axis comes of others: joined, group_of, laid end to end, cut, scaled, shifted; and back to what it was.

Each gives a axis whose name, if it has one, says its size truly. Where the sizes do not bear the arithmetic out, the
axis is another one beside (`h'`), and where just a number was asked for it has no name.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import sympy

from circuits.naming.axes import Affine, AxisNode, Concatenated, Grouped, Primed, same_size


def unify(a: AxisNode, b: AxisNode) -> None:
    """Say that two axes are one, if their sizes agree and not both are known already."""
    a, b = a.root, b.root
    if a is b or not same_size(a.size, b.size):
        return
    if b.origin is not None and a.origin is None:
        a, b = b, a
    if b.nameable and not _contains(a, b):
        b.merge_into(a)
    elif a.nameable and not _contains(b, a):
        a.merge_into(b)


def _contains(axis: AxisNode, part: AxisNode) -> bool:
    """Whether `axis` is made of `part`: joining the two would make a ring."""
    origin = axis.root.origin
    return origin is not None and any(each.root is part or _contains(each, part) for each in origin.sources)


def group(axes: Sequence[AxisNode], size: Any) -> AxisNode:
    """The axis that these axes make when they are read as one, the last running fastest."""
    if len(axes) == 1:
        return axes[0]
    return AxisNode(size, group_of(axes))


def group_of(axes: Sequence[AxisNode]) -> Grouped:
    """These axes as one group: of those that are groups themselves, the parts."""
    return Grouped(tuple([part for axis in axes for part in parts(axis, Grouped) or (axis.root,)]))


def parts(axis: AxisNode, kind: type[Grouped] | type[Concatenated]) -> tuple[AxisNode, ...]:
    """The axes that an axis groups, or is the sum of; none if it is no such axis."""
    origin = axis.root.origin
    return origin.sources if isinstance(origin, kind) else ()


def concatenated(axes: Sequence[AxisNode], size: Any) -> AxisNode:
    """The axis that these axes make laid end to end; what was cut and is put together again is what it was."""
    if len(axes) == 1:
        return axes[0]
    origins = [axis.root.origin for axis in axes]
    pieces = [origin for origin in origins if isinstance(origin, Affine) and origin.ratio < 1 and not origin.offset]
    bases = {id(piece.base.root): piece.base for piece in pieces}
    if len(pieces) == len(axes) and len(bases) == 1 and same_size(pieces[0].base.root.size, size):
        return pieces[0].base
    return AxisNode(
        size, Concatenated(tuple([part for axis in axes for part in parts(axis, Concatenated) or (axis.root,)]))
    )


def divided(axis: AxisNode, sizes: Sequence[Any]) -> list[AxisNode]:
    """The axes of these sizes into which an axis is cut: what it was put together from, if the sizes say so."""
    if len(sizes) == 1:
        return [axis]
    found = _partition(parts(axis, Concatenated), sizes)
    if found:
        return found
    equal = all(same_size(size, sizes[0]) for size in sizes[1:])
    if axis.nameable:
        pieces = [AxisNode(size) for size in sizes]
        axis.root.origin = Concatenated(tuple(pieces))
        return pieces
    return [scaled(axis, size, Fraction(1, len(sizes))) if equal else AxisNode(size) for size in sizes]


def _partition(sources: Sequence[AxisNode], sizes: Sequence[Any]) -> list[AxisNode]:
    """Neighbouring sources put together so that they have these sizes; none if they do not add up."""
    left, found = list(sources), []
    for size in sizes:
        taken: list[AxisNode] = []
        while left and not same_size(sum([axis.root.size for axis in taken]), size):
            taken.append(left.pop(0))
        if not taken or not same_size(sum([axis.root.size for axis in taken]), size):
            return []
        found.append(concatenated(taken, size))
    return found if not left else []


def scaled(axis: AxisNode, size: Any, ratio: Fraction | None = None) -> AxisNode:
    """The axis of this size that is `ratio` times `axis`, any ratio if none is given; `h'` if the sizes are not so."""
    ratio = _ratio(size, axis.root.size) if ratio is None else ratio
    return _derived(axis, size, lambda: None if ratio is None else _affine(axis, size, ratio, 0))


def shifted(axis: AxisNode, size: Any) -> AxisNode:
    """The axis of this size that is `axis` with a border cut off or added; `h'` if no number tells how much."""
    difference = size - axis.root.size
    whole = isinstance(difference, int) or bool(getattr(difference, "is_Integer", False))
    return _derived(axis, size, lambda: _affine(axis, size, Fraction(1), int(difference)) if whole else None)


def resized(axis: AxisNode, size: Any) -> AxisNode:
    """The axis of this size that takes the place of `axis`: one it comes from, or any if the size is just a number."""
    if isinstance(size, int):
        return _derived(axis, size, lambda: AxisNode(size))
    return scaled(axis, size)


def prime(axis: AxisNode) -> AxisNode:
    """Another axis of the same size: `y'` beside `y`."""
    return AxisNode(axis.root.size, Primed(axis.root))


def _derived(axis: AxisNode, size: Any, reckon: Callable[[], AxisNode | None]) -> AxisNode:
    """The axis itself or one it comes from, if it has this size; else what arithmetic says, else another axis."""
    back: AxisNode | None = axis
    while back is not None:
        if same_size(back.root.size, size):
            return back
        origin = back.root.origin
        back = origin.base if isinstance(origin, Affine | Primed) else None
    if same_size(size, 1):
        return AxisNode(size)
    return reckon() or AxisNode(size, Primed(axis.root))


def _affine(axis: AxisNode, size: Any, ratio: Fraction, offset: int) -> AxisNode | None:
    root = axis.root
    if isinstance(root.origin, Affine):
        offset, ratio, root = int(offset + ratio * root.origin.offset), ratio * root.origin.ratio, root.origin.base.root
    fits = same_size(size * ratio.denominator, root.size * ratio.numerator + offset * ratio.denominator)
    return AxisNode(size, Affine(root, ratio, offset)) if fits else None


def _ratio(a: Any, b: Any) -> Fraction | None:
    """Two sizes as a ratio of numbers, if it is one for every size of the axes in them."""
    if isinstance(a, int) and isinstance(b, int):
        return Fraction(a, b) if b else None
    found = sympy.simplify(sympy.sympify(a) / b)
    return Fraction(int(found.p), int(found.q)) if found.is_Rational else None
