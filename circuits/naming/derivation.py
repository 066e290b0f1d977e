"""How axes are derived from other axes: unified, grouped, concatenated, split, scaled, shifted, and the inverses.

The label of a returned axis never states a wrong size. If the sizes do not agree with the arithmetic, the result is a
distinct axis (`h'`). An axis that is resized to a given int has no name. A derivation that undoes an earlier one
returns the original axis.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from circuits.naming.axes import Affine, AxisNode, Concatenated, Grouped, Primed
from circuits.naming.sizes import ratio_of, same_size


def unify(a: AxisNode, b: AxisNode) -> None:
    """Record that two axes are the same, if their sizes agree and one of them can still be named.

    Nothing is recorded if an axis would then be derived from itself.
    """
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
    """Return whether `axis` is derived from the node `part`; to merge `part` into it would create a cycle."""
    origin = axis.root.origin
    return origin is not None and any(each.root is part or _contains(each, part) for each in origin.sources)


def group(axes: Sequence[AxisNode], size: Any) -> AxisNode:
    """Return these axes flattened into one axis of this size, the last varying fastest; a single axis unchanged."""
    if len(axes) == 1:
        return axes[0]
    return AxisNode(size, group_origin(axes))


def group_origin(axes: Sequence[AxisNode]) -> Grouped:
    """Return the origin of an axis that groups these axes; groups among them are replaced by their parts."""
    return Grouped(tuple([part for axis in axes for part in parts(axis, Grouped) or (axis.root,)]))


def parts(axis: AxisNode, kind: type[Grouped] | type[Concatenated]) -> tuple[AxisNode, ...]:
    """Return the axes that an axis groups or concatenates; empty if its origin is not of this kind."""
    origin = axis.root.origin
    return origin.sources if isinstance(origin, kind) else ()


def concatenated(axes: Sequence[AxisNode], size: Any) -> AxisNode:
    """Return the concatenation of these axes, of this size; if they are all pieces of a split axis, that axis."""
    if len(axes) == 1:
        return axes[0]
    origins = [axis.root.origin for axis in axes]
    pieces = [origin for origin in origins if isinstance(origin, Affine) and origin.ratio < 1 and not origin.offset]
    bases = {id(piece.base.root): piece.base for piece in pieces}
    if len(pieces) == len(axes) and len(bases) == 1 and same_size(pieces[0].base.root.size, size):
        return pieces[0].base
    summands = [part for axis in axes for part in parts(axis, Concatenated) or (axis.root,)]
    return AxisNode(size, Concatenated(tuple(summands)))


def divided(axis: AxisNode, sizes: Sequence[Any]) -> list[AxisNode]:
    """Return the axes of these sizes into which an axis is split.

    If the axis is a concatenation and the sizes agree, they are the axes that it was concatenated from. Else, if the
    axis is nameable, it becomes the concatenation of new axes. Else equal pieces are the axis divided by the number of
    pieces (`h/2`), and unequal pieces have no name.
    """
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
    """Return axes of these sizes, each the concatenation of consecutive sources; empty if the sizes do not add up."""
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
    """Return the axis of this size that is `ratio` times `axis`: `2*h`, `h/2`; by default the ratio of the sizes.

    If `size` is not `ratio` times the size of `axis`, or the ratio is not constant, the result is a distinct axis `h'`.
    """
    ratio = ratio_of(size, axis.root.size) if ratio is None else ratio
    return _derived(axis, size, lambda: None if ratio is None else _affine(axis, size, ratio, 0))


def shifted(axis: AxisNode, size: Any) -> AxisNode:
    """Return the axis of this size that is `axis` plus a constant, `h-2`, `h+1`; `h'` if they differ by no constant."""
    difference = size - axis.root.size
    whole = isinstance(difference, int) or bool(getattr(difference, "is_Integer", False))
    return _derived(axis, size, lambda: _affine(axis, size, Fraction(1), int(difference)) if whole else None)


def resized(axis: AxisNode, size: Any) -> AxisNode:
    """Return the axis of this size that replaces `axis`: `axis` itself, or one it was derived from, if the size agrees.

    Else the result has no name if the size is an int, and is the scaled axis if the size is symbolic.
    """
    if isinstance(size, int):
        return _derived(axis, size, lambda: AxisNode(size))
    return scaled(axis, size)


def prime(axis: AxisNode) -> AxisNode:
    """Return a distinct axis of the same size, shown with a prime: `y'` beside `y`."""
    return AxisNode(axis.root.size, Primed(axis.root))


def _derived(axis: AxisNode, size: Any, compute: Callable[[], AxisNode | None]) -> AxisNode:
    """Return the axis itself or one that it was derived from, if that has this size; else the result of `compute`.

    Else, if the size is 1, the result has no name; if `compute` returns None, it is a distinct axis.
    """
    source: AxisNode | None = axis
    while source is not None:
        if same_size(source.root.size, size):
            return source
        origin = source.root.origin
        source = origin.base if isinstance(origin, Affine | Primed) else None
    if same_size(size, 1):
        return AxisNode(size)
    return compute() or AxisNode(size, Primed(axis.root))


def _affine(axis: AxisNode, size: Any, ratio: Fraction, offset: int) -> AxisNode | None:
    """Return the axis `ratio * axis + offset`, or None if the sizes disagree; its base is never itself affine."""
    root = axis.root
    if isinstance(root.origin, Affine):
        offset, ratio, root = int(offset + ratio * root.origin.offset), ratio * root.origin.ratio, root.origin.base.root
    fits = same_size(size * ratio.denominator, root.size * ratio.numerator + offset * ratio.denominator)
    return AxisNode(size, Affine(root, ratio, offset)) if fits else None
