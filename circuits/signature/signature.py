"""Read `"... y m, ... x m -> ... y m"` into data, and write it back.

A signature is the type of a circuit: the axes of each tensor in, then of each tensor out. An axis is a name (`y`,
`h'`), a number (`3`), a group (`(h k)`), arithmetic on axes known elsewhere (`h/2`, `2*c`, `h/s+1`), or `...`, which
leads and stands for any axes. A comma sets tensors apart; a side with nothing on it is one scalar. Any Python
identifier is a name, keywords too; space is free. Nothing on this floor knows torch.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, sections 2.3 and 2.4.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from circuits.errors import SignatureError, point
from circuits.signature.terms import Atom, Axes, Axis, Derived, Group, Number, Rest, Term, show_axes

__all__ = [
    "Axes",
    "Axis",
    "Derived",
    "Group",
    "Number",
    "Rest",
    "Signature",
    "Term",
    "parse_axes",
    "places",
    "show_axes",
]

LARGEST = 2**63 - 1
"""The largest size a tensor's axis can have."""


@dataclass(frozen=True, repr=False)
class Signature:
    """The axes of every tensor in and every tensor out.

    >>> attention = Signature.parse("y k, x k, x k -> y k")
    >>> attention.inputs[0]
    (Axis(name='y'), Axis(name='k'))
    >>> Signature.parse(str(attention)) == attention
    True
    """

    inputs: tuple[Axes, ...]
    outputs: tuple[Axes, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Text to data; raises SignatureError with a caret under the fault."""
        sides = _Reader(text).signature()
        return cls(*sides)

    @property
    def names(self) -> tuple[str, ...]:
        """Every axis name once, in the order written.

        >>> Signature.parse("y m, x m -> y x").names
        ('y', 'm', 'x')
        """
        return tuple(dict.fromkeys(name for axes in self.inputs + self.outputs for term in axes for name in term.names))

    def __str__(self) -> str:
        left, right = (", ".join(show_axes(axes) for axes in side) for side in (self.inputs, self.outputs))
        return f"{left} -> {right}".strip()

    def __repr__(self) -> str:
        return f"Signature.parse({str(self)!r})"


def parse_axes(text: str) -> Axes:
    """The axes of one tensor; raises SignatureError with a caret under the fault.

    >>> parse_axes("... c 3")
    (Rest(), Axis(name='c'), Number(value=3))
    """
    return _Reader(text).axes()


_TOKEN = re.compile(r"\s+|->|\.\.\.|[,()+*/\-.]|[^\s,()+*/\-.]+")
_MARKS = frozenset({"->", ",", "(", ")", "+", "-", "*", "/", "..."})


@dataclass(frozen=True)
class _Token:
    """A word or a mark of a signature's text, and where it stands."""

    text: str
    start: int
    stop: int

    @property
    def is_word(self) -> bool:
        return self.text not in _MARKS


class _Reader:
    """Walks through the tokens of one text, once, from left to right."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise SignatureError(f"a signature is text such as 'y m, x m -> y m', not {type(text).__name__}")
        self.text = text
        self.tokens: list[_Token] = []
        self.place = 0
        start = 0
        for word in _TOKEN.findall(text):
            if not word.isspace():
                self.tokens.append(_Token(word, start, start + len(word)))
            start += len(word)

    def signature(self) -> tuple[tuple[Axes, ...], tuple[Axes, ...]]:
        inputs = self.side()
        if not self.at("->"):
            raise self.fault("a signature has '->' between what goes in and what comes out", self.here())
        self.place += 1
        outputs = self.side()
        if self.at("->"):
            raise self.fault("a signature has only one '->'", self.here())
        return inputs, outputs

    def axes(self) -> Axes:
        found = self.tensor()
        if self.at("->") or self.at(","):
            raise self.fault(
                f"these are the axes of one tensor, so '{self.tokens[self.place].text}' has no place here", self.here()
            )
        return found

    def side(self) -> tuple[Axes, ...]:
        tensors = [self.tensor()]
        while self.at(","):
            self.place += 1
            tensors.append(self.tensor())
        return tuple(tensors)

    def tensor(self) -> Axes:
        """Axes up to a comma, an arrow or the end."""
        found: list[Term] = []
        while self.place < len(self.tokens) and not self.at(",") and not self.at("->"):
            if self.at("..."):
                if found:
                    again = isinstance(found[0], Rest)
                    raise self.fault(
                        "'...' stands once in a tensor" if again else "'...' comes first in a tensor", self.here()
                    )
                self.place += 1
                found.append(Rest())
            elif self.at("("):
                found.append(self.group())
            else:
                found.append(self.term())
        return tuple(found)

    def group(self) -> Group:
        opened = self.here()
        self.place += 1
        found: list[Atom | Derived] = []
        while not self.at(")"):
            if self.place == len(self.tokens) or self.at(",") or self.at("->"):
                raise self.fault("this '(' is never closed", opened)
            if self.at("("):
                raise self.fault("a group has no group inside", self.here())
            if self.at("..."):
                raise self.fault("'...' has no place in a group", self.here())
            found.append(self.term())
        if not found:
            raise self.fault(
                "a group has at least one axis; an axis of size 1 is written 1", (opened[0], self.here()[1])
            )
        self.place += 1
        return Group(tuple(found))

    def term(self) -> Atom | Derived:
        """A name, a number, or a chain of arithmetic."""
        start = self.here()[0]
        first = self.atom()
        steps: list[tuple[str, Atom]] = []
        while self.place < len(self.tokens) and self.tokens[self.place].text in ("+", "-", "*", "/"):
            sign = self.tokens[self.place].text
            self.place += 1
            where = self.here()
            steps.append((sign, self.atom()))
            if sign == "/" and steps[-1][1] == Number(0):
                raise self.fault("nothing divides by 0", where)
        if not steps:
            return first
        found = Derived(first, tuple(steps))
        if not found.names:
            raise self.fault(
                "arithmetic needs an axis; write the number it comes to", (start, self.tokens[self.place - 1].stop)
            )
        return found

    def atom(self) -> Atom:
        """A name or a number."""
        before = self.tokens[self.place - 1].text if self.place else ""
        if self.place == len(self.tokens) or not self.tokens[self.place].is_word:
            if before in ("+", "-", "*", "/"):
                raise self.fault(f"'{before}' needs a name or a number after it", self.here())
            token = self.tokens[self.place]
            if token.text == ")":
                raise self.fault("this ')' was never opened", self.here())
            raise self.fault(f"'{token.text}' needs a name or a number before it", self.here())
        token = self.tokens[self.place]
        self.place += 1
        if token.text.isascii() and token.text.isdigit():
            return Number(self.number(token))
        if not token.text.rstrip("'").isidentifier():
            raise self.fault(f"{_quote(token.text)} is not an axis: {_WHAT_AN_AXIS_IS}", (token.start, token.stop))
        return Axis(token.text)

    def number(self, token: _Token) -> int:
        digits = token.text.lstrip("0") or "0"
        if len(digits) > len(str(LARGEST)) or int(digits) > LARGEST:
            raise self.fault("no axis is that long: sizes end at 2**63 - 1", (token.start, token.stop))
        return int(digits)

    def at(self, mark: str) -> bool:
        return self.place < len(self.tokens) and self.tokens[self.place].text == mark

    def here(self) -> tuple[int, int]:
        """Where the next token stands; just past the last one at the end."""
        if self.place < len(self.tokens):
            return self.tokens[self.place].start, self.tokens[self.place].stop
        end = self.tokens[-1].stop if self.tokens else 0
        return end, end

    def fault(self, what: str, span: tuple[int, int]) -> SignatureError:
        return SignatureError(f"{what}\n{point(self.text, span)}")


_WHAT_AN_AXIS_IS = "an axis is a name (y, h'), a number, a group (h k), arithmetic (h/2), or a leading ..."


def _quote(word: str) -> str:
    return repr(word if len(word) <= 20 else word[:20] + "…")


def places(signature: Signature) -> Iterator[tuple[int, int, Term, tuple[int, int]]]:
    """Every term with its tensor (inputs first, counted through), its position, and its span in `str(signature)`.

    >>> [(str(term), span) for _, _, term, span in places(Signature.parse("y m -> y"))]
    [('y', (0, 1)), ('m', (2, 3)), ('y', (7, 8))]
    """
    text, at = str(signature), 0
    for tensor, axes in enumerate(signature.inputs + signature.outputs):
        for position, term in enumerate(axes):
            at = text.index(str(term), at)
            yield tensor, position, term, (at, at + len(str(term)))
            at += len(str(term))
