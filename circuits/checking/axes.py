"""Helpers for the axes of one tensor and for the names inside one term."""

from circuits.signature import Axes, Axis, Derived, Group, Rest, Term


def has_rest(axes: Axes) -> bool:
    """Return whether the axes begin with `...`, so that the tensor may have further axes in front of the named ones."""
    return len(axes) > 0 and isinstance(axes[0], Rest)


def plain_names(term: Term) -> tuple[str, ...]:
    """Return the names of a term outside arithmetic: `h` and `k` in `(h k w/2)`, none in `w/2`."""
    if isinstance(term, Group):
        return tuple(part.name for part in term.terms if isinstance(part, Axis))
    return term.names if isinstance(term, Axis) else ()


def arithmetic(term: Term) -> tuple[Derived, ...]:
    """Return the arithmetic in a term: the term itself, or the parts of a group."""
    if isinstance(term, Group):
        return tuple(part for part in term.terms if isinstance(part, Derived))
    return (term,) if isinstance(term, Derived) else ()
