"""How axes are derived from other axes: unified, grouped, concatenated, split, scaled, shifted, and the inverses.

A function that returns an axis never gives it a label that states a wrong size. If the sizes do not agree with the
arithmetic, the result is a distinct axis (`h'`); if only an int was requested as its size, it has no name. A derivation
that undoes an earlier one returns the original axis.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from circuits.naming.axes import Affine, AxisNode, Concatenated, Grouped, Primed
from circuits.naming.sizes import ratio_of, same_size


def unify(a: AxisNode, b: AxisNode) -> None:
    """Record that two axes are the same, if their sizes agree and at least one of them is still nameable."""
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
    """Return whether `axis` is derived from `part`; merging the two would create a cycle."""
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
    """Return these axes concatenated into one axis of this size; all pieces of a split axis give that axis again."""
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

    They are the axes that it was concatenated from, if the sizes agree. Else a nameable axis becomes the concatenation
    of new axes, and a named one is divided by the number of pieces if they are equal (`h/2`); unequal pieces have no
    name.
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
    """Return consecutive sources concatenated so that they have these sizes; empty if the sizes do not add up so."""
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

    If `size` is not that multiple, or the ratio is not a constant, the result is a distinct axis, `h'`.
    """
    ratio = ratio_of(size, axis.root.size) if ratio is None else ratio
    return _derived(axis, size, lambda: None if ratio is None else _affine(axis, size, ratio, 0))


def shifted(axis: AxisNode, size: Any) -> AxisNode:
    """Return the axis of this size that is `axis` shortened or extended: `h-2`, `h+1`; `h'` if by no constant."""
    difference = size - axis.root.size
    whole = isinstance(difference, int) or bool(getattr(difference, "is_Integer", False))
    return _derived(axis, size, lambda: _affine(axis, size, Fraction(1), int(difference)) if whole else None)


def resized(axis: AxisNode, size: Any) -> AxisNode:
    """Return the axis of this size that replaces `axis`: itself or one that it was derived from, if the size agrees.

    Else an axis without a name if the size is an int, and the scaled axis if it is symbolic.
    """
    if isinstance(size, int):
        return _derived(axis, size, lambda: AxisNode(size))
    return scaled(axis, size)


def prime(axis: AxisNode) -> AxisNode:
    """Return a distinct axis of the same size, shown with a prime: `y'` beside `y`."""
    return AxisNode(axis.root.size, Primed(axis.root))


def _derived(axis: AxisNode, size: Any, compute: Callable[[], AxisNode | None]) -> AxisNode:
    """Return the axis itself or one that it was derived from, if it has this size; else the result of `compute`.

    If `compute` returns None the result is a distinct axis, and if the size is 1 an axis without a name.
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
    """Return the axis `ratio * axis + offset`, relative to the base of an affine axis; None if the sizes disagree."""
    root = axis.root
    if isinstance(root.origin, Affine):
        offset, ratio, root = int(offset + ratio * root.origin.offset), ratio * root.origin.ratio, root.origin.base.root
    fits = same_size(size * ratio.denominator, root.size * ratio.numerator + offset * ratio.denominator)
    return AxisNode(size, Affine(root, ratio, offset)) if fits else None
