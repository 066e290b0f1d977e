"""The axes a signature is made of, and what size each has.

A term is frozen data: a name, a number, a group, arithmetic on names, or `...`. Sizes may be ints, torch's symbols or
sympy's; nothing here knows where they came from. How terms are read from text is `signature`'s business.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn


def divide(size: Any, by: Any) -> Any:
    """`size / by` when that leaves nothing over; sizes may be ints, torch's symbols or sympy's.

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


Divide = Callable[[Any, Any], Any]
"""How to divide exactly: `divide`, or what writes down that it is to be done."""


@dataclass(frozen=True)
class Axis:
    """One axis, by its name.

    >>> Axis("h'").size({"h'": 7})
    7
    """

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """The axis names inside, in the order written."""
        return (self.name,)

    def size(self, sizes: Mapping[str, Any], divide: Divide = divide) -> Any:
        """The size, once the sizes of the names are given."""
        return sizes[self.name]

    @property
    def text(self) -> str:
        """The term as it is written, also where torch.compile cannot follow `str`."""
        return self.name

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Number:
    """One axis of a size that never changes.

    >>> Number(3).size({})
    3
    """

    value: int

    @property
    def names(self) -> tuple[str, ...]:
        """No names are inside a number."""
        return ()

    def size(self, sizes: Mapping[str, Any], divide: Divide = divide) -> Any:
        """The number itself."""
        return self.value

    @property
    def text(self) -> str:
        """The term as it is written."""
        return f"{self.value}"

    def __str__(self) -> str:
        return self.text


Atom = Axis | Number
Chain = tuple[tuple[str, Atom], ...]
"""Atoms with `*` or `/` before each, the first always `*`."""


def _chain_size(chain: Chain, sizes: Mapping[str, Any], divide: Divide) -> Any:
    value = chain[0][1].size(sizes)
    for step, atom in chain[1:]:
        value = value * atom.size(sizes) if step == "*" else divide(value, atom.size(sizes))
    return value


@dataclass(frozen=True)
class Derived:
    """Arithmetic on axes: a first atom, then one operation after another, `*` and `/` before `+` and `-`.

    Division is exact: a size it does not divide raises ValueError.

    >>> half = Derived(Axis("h"), (("/", Number(2)), ("+", Number(1))))
    >>> str(half), half.size({"h": 14})
    ('h/2+1', 8)
    """

    first: Atom
    steps: Chain

    @property
    def names(self) -> tuple[str, ...]:
        """The axis names inside, in the order written."""
        return self.first.names + tuple(name for _, atom in self.steps for name in atom.names)

    def size(self, sizes: Mapping[str, Any], divide: Divide = divide) -> Any:
        """The size, once the sizes of the names are given."""
        total: Any = None
        for sign, chain in self.products():
            value = _chain_size(chain, sizes, divide)
            if total is None:
                total = value
            else:
                total = total + value if sign == "+" else total - value
        return total

    def products(self) -> tuple[tuple[str, Chain], ...]:
        """The summands with their signs, each a chain of `*` and `/`.

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
    """Several axes laid out as one, the first the slowest: its size is their product.

    >>> Group((Axis("h"), Axis("k"))).size({"h": 4, "k": 16})
    64
    """

    terms: tuple[Atom | Derived, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The axis names inside, in the order written."""
        return tuple(name for term in self.terms for name in term.names)

    def size(self, sizes: Mapping[str, Any], divide: Divide = divide) -> Any:
        """The size, once the sizes of the names are given."""
        total: Any = 1
        for term in self.terms:
            total = total * term.size(sizes, divide)
        return total

    def is_product(self, known: Mapping[str, Any]) -> bool:
        """Whether everything unknown in it is a name by itself, so that what is open is a plain product."""
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
    """`...`: any leading axes, as many as there are."""

    @property
    def names(self) -> tuple[str, ...]:
        """No names are inside `...`."""
        return ()

    def size(self, sizes: Mapping[str, Any], divide: Divide = divide) -> NoReturn:
        """`...` is any number of axes, so it has no one size."""
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
    """The names inside a term that have no size yet, as often as they occur.

    >>> unknown(Group((Axis("h"), Axis("k"))), {"k": 16})
    ['h']
    """
    return [name for name in term.names if name not in known]


def solve(term: Term, size: Any, sizes: Mapping[str, Any], divide: Divide = divide) -> Any:
    """The size of the one unknown name inside `term`, when the whole has `size`; ValueError if none fits.

    >>> solve(Group((Axis("h"), Axis("k"))), 64, {"k": 16})
    4
    >>> solve(Derived(Axis("h"), (("/", Number(2)), ("+", Number(1)))), 8, {})
    14
    """
    if isinstance(term, Group):
        others: Any = 1
        inner: Term = term
        for part in term.terms:
            if unknown(part, sizes):
                inner = part
            else:
                others = others * part.size(sizes, divide)
        return solve(inner, divide(size, others), sizes, divide)
    if isinstance(term, Derived):
        sign, chain = "+", ()
        for each, product in term.products():
            if any(unknown(atom, sizes) for _, atom in product):
                sign, chain = each, product
            else:
                value = _chain_size(product, sizes, divide)
                size = size - value if each == "+" else size + value
        return _solve_chain(chain, size if sign == "+" else 0 - size, sizes, divide)
    return size


def _solve_chain(chain: Chain, size: Any, sizes: Mapping[str, Any], divide: Divide) -> Any:
    """The unknown atom of a product of the given size."""
    place = next(i for i, (_, atom) in enumerate(chain) if unknown(atom, sizes))
    for step, atom in reversed(chain[place + 1 :]):
        size = divide(size, atom.size(sizes)) if step == "*" else size * atom.size(sizes)
    if place == 0:
        return size
    before = _chain_size(chain[:place], sizes, divide)
    return divide(size, before) if chain[place][0] == "*" else divide(before, size)


def show_axes(axes: Axes) -> str:
    """The axes of one tensor as text.

    >>> show_axes((Axis("b"), Group((Axis("h"), Axis("k")))))
    'b (h k)'
    """
    return " ".join(str(term) for term in axes)
