"""The terms of a signature, one for each axis, and their sizes.

A term is frozen data: a name, a number, a group, arithmetic on names, or `...`. Sizes may be ints, torch.SymInt or
sympy expressions. `parser` makes terms of text; `solver` finds the size of a name inside a term.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NoReturn


def divide(size: Any, by: Any) -> Any:
    """Return `size / by`; ValueError if the division of two ints, or two torch.SymInts, is not exact.

    A sympy expression is divided symbolically.

    >>> divide(14, 2)
    7
    """
    if not isinstance(size, int) and hasattr(size, "free_symbols"):
        return size / by
    if not isinstance(by, int) and hasattr(by, "free_symbols"):
        return size / by
    if by == 0 or size % by != 0:
        raise ValueError(f"{by} does not divide {size}")
    return size // by


def plain_size(size: Any) -> Any:
    """Return an integer of another class, such as numpy's, as an int; anything else, also a bool, as it is.

    Sizes that a user gives are converted first: numpy's integers overflow, and torch.compile does not take them for
    numbers.

    >>> import numpy
    >>> plain_size(numpy.int64(3)), plain_size(True), plain_size("k")
    (3, True, 'k')
    """
    return int(size) if isinstance(size, Integral) and not isinstance(size, int) else size


Divide = Callable[[Any, Any], Any]
"""A function that divides exactly: `divide`, or one that writes the division as code."""


@dataclass(frozen=True)
class Axis:
    """One axis, named.

    >>> Axis("h'").size({"h'": 7})
    7
    """

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of axes in the term, in the order written."""
        return (self.name,)

    def size(self, sizes: Mapping[str, Any], divide: Divide = divide) -> Any:
        """Return the size of the term, given the sizes of its names."""
        return sizes[self.name]

    @property
    def text(self) -> str:
        """The term as it is written; a property, because torch.compile cannot trace `str` of it."""
        return self.name

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Number:
    """One axis of a fixed size.

    >>> Number(3).size({})
    3
    """

    value: int

    @property
    def names(self) -> tuple[str, ...]:
        """The empty tuple: the term has no names."""
        return ()

    def size(self, sizes: Mapping[str, Any], divide: Divide = divide) -> Any:
        """Return the number itself."""
        return self.value

    @property
    def text(self) -> str:
        """The term as it is written."""
        return f"{self.value}"

    def __str__(self) -> str:
        return self.text


Atom = Axis | Number
Chain = tuple[tuple[str, Atom], ...]
"""A product: atoms, each with `*` or `/` before it, the first always with `*`."""


def chain_size(chain: Chain, sizes: Mapping[str, Any], divide: Divide) -> Any:
    """Return the value of a product."""
    value = chain[0][1].size(sizes)
    for step, atom in chain[1:]:
        value = value * atom.size(sizes) if step == "*" else divide(value, atom.size(sizes))
    return value


@dataclass(frozen=True)
class Derived:
    """Arithmetic on axes: a first atom, then operators with operands; `*` and `/` have precedence over `+` and `-`.

    Division is exact: if there is a remainder, `size` raises ValueError.

    >>> half = Derived(Axis("h"), (("/", Number(2)), ("+", Number(1))))
    >>> str(half), half.size({"h": 14})
    ('h/2+1', 8)
    """

    first: Atom
    steps: tuple[tuple[str, Atom], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of axes in the term, in the order written."""
        return self.first.names + tuple(name for _, atom in self.steps for name in atom.names)

    def size(self, sizes: Mapping[str, Any], divide: Divide = divide) -> Any:
        """Return the size of the term, given the sizes of its names."""
        total: Any = None
        for sign, chain in self.products():
            value = chain_size(chain, sizes, divide)
            if total is None:
                total = value
            else:
                total = total + value if sign == "+" else total - value
        return total

    def products(self) -> tuple[tuple[str, Chain], ...]:
        """Return the summands with their signs; each is a product.

        >>> [(sign, len(chain)) for sign, chain in Derived(Axis("h"), (("/", Number(2)), ("+", Number(1)))).products()]
        [('+', 2), ('+', 1)]
        """
        found: list[tuple[str, Chain]] = []
        sign, chain = "+", (("*", self.first),)
        for step, atom in self.steps:
            if step in "+-":
                found.append((sign, chain))
                sign, chain = step, (("*", atom),)
            else:
                chain = (*chain, (step, atom))
        return (*found, (sign, chain))

    @property
    def text(self) -> str:
        """The term as it is written."""
        text = self.first.text
        for sign, atom in self.steps:
            text += f"{sign}{atom.text}"
        return text

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Group:
    """Several axes flattened into one, the last fastest: its size is their product.

    >>> Group((Axis("h"), Axis("k"))).size({"h": 4, "k": 16})
    64
    """

    terms: tuple[Atom | Derived, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of axes in the term, in the order written."""
        return tuple(name for term in self.terms for name in term.names)

    def size(self, sizes: Mapping[str, Any], divide: Divide = divide) -> Any:
        """Return the size of the term, given the sizes of its names."""
        total: Any = 1
        for term in self.terms:
            total = total * term.size(sizes, divide)
        return total

    def is_product(self, known: Mapping[str, Any]) -> bool:
        """Return whether every term with an unknown size is a name: the group is a known size times these names."""
        return all(isinstance(term, Axis) or not unknown(term, known) for term in self.terms)

    @property
    def text(self) -> str:
        """The term as it is written."""
        text = ""
        for term in self.terms:
            text += f"{' ' if text else ''}{term.text}"
        return f"({text})"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Rest:
    """`...`: any number of leading axes."""

    @property
    def names(self) -> tuple[str, ...]:
        """The empty tuple: the term has no names."""
        return ()

    def size(self, sizes: Mapping[str, Any], divide: Divide = divide) -> NoReturn:
        """Raise ValueError: `...` is any number of axes, so it does not have one size."""
        raise ValueError("... has no size of its own")

    @property
    def text(self) -> str:
        """The term as it is written."""
        return "..."

    def __str__(self) -> str:
        return self.text


Term = Axis | Number | Group | Derived | Rest
Axes = tuple[Term, ...]


def unknown(term: Term, known: Mapping[str, Any]) -> list[str]:
    """Return the names in a term whose sizes are not known, each as often as it occurs.

    >>> unknown(Group((Axis("h"), Axis("k"))), {"k": 16})
    ['h']
    """
    return [name for name in term.names if name not in known]


def show_axes(axes: Axes) -> str:
    """Return the axes of one tensor as text.

    >>> show_axes((Axis("b"), Group((Axis("h"), Axis("k")))))
    'b (h k)'
    """
    return " ".join(str(term) for term in axes)
