"""Parse the text of a signature, or of the axes of one tensor, into terms.

`signature` has the syntax and the public functions.
"""

import re
import unicodedata
from dataclasses import dataclass

from circuits.errors import SignatureError, point
from circuits.signature.terms import Atom, Axes, Axis, Derived, Group, Number, Rest, Term

LARGEST = 2**63 - 1
"""The largest size that an axis of a tensor can have."""

_TOKEN = re.compile(r"\s+|->|\.\.\.|[,()+*/\-.]|[^\s,()+*/\-.]+")
_MARKS = frozenset({"->", ",", "(", ")", "+", "-", "*", "/", "..."})


@dataclass(frozen=True)
class _Token:
    """A word or a punctuation mark of a text, with its start and stop."""

    text: str
    start: int
    stop: int

    @property
    def is_word(self) -> bool:
        """Whether the token is a name or a number, not a mark."""
        return self.text not in _MARKS


class Parser:
    """A recursive-descent parser of one text; `position` is the index of the next token.

    All its methods raise SignatureError, with a caret under the fault, if the text cannot be parsed.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise SignatureError(f"a signature is text such as 'y m, x m -> y m', not {type(text).__name__}")
        self.text = text
        self.tokens: list[_Token] = []
        self.position = 0
        start = 0
        for word in _TOKEN.findall(text):
            if not word.isspace():
                self.tokens.append(_Token(word, start, start + len(word)))
            start += len(word)

    def signature(self) -> tuple[tuple[Axes, ...], tuple[Axes, ...]]:
        """Return the axes of the inputs and of the outputs."""
        inputs = self._side()
        if not self._next_is("->"):
            raise self._fault("a signature has '->' between its inputs and its outputs", self._next_span())
        self.position += 1
        outputs = self._side()
        if self._next_is("->"):
            raise self._fault("a signature has only one '->'", self._next_span())
        return inputs, outputs

    def axes(self) -> Axes:
        """Return the axes of a single tensor, which the whole text describes."""
        found = self._tensor()
        if self._next_is("->") or self._next_is(","):
            raise self._fault(
                f"these are the axes of one tensor, so '{self.tokens[self.position].text}' is not allowed here",
                self._next_span(),
            )
        return found

    def _side(self) -> tuple[Axes, ...]:
        """Return the axes of tensors that commas separate, up to an arrow or the end."""
        tensors = [self._tensor()]
        while self._next_is(","):
            self.position += 1
            tensors.append(self._tensor())
        return tuple(tensors)

    def _tensor(self) -> Axes:
        """Return the axes of one tensor, up to a comma, an arrow or the end."""
        found: list[Term] = []
        while self.position < len(self.tokens) and not self._next_is(",") and not self._next_is("->"):
            if self._next_is("..."):
                if found:
                    repeated = isinstance(found[0], Rest)
                    rule = "may occur only once" if repeated else "must come first"
                    raise self._fault(f"'...' {rule} in a tensor", self._next_span())
                self.position += 1
                found.append(Rest())
            elif self._next_is("("):
                found.append(self._group())
            else:
                found.append(self._term())
        return tuple(found)

    def _group(self) -> Group:
        """Return the group whose '(' is the next token."""
        opened = self._next_span()
        before = self.tokens[self.position - 1] if self.position else None
        if before is not None and before.text in _FUNCTIONS and before.stop == opened[0]:
            what = f"'{before.text}(' is not an axis: the arithmetic of axes has only + - * / on names and numbers"
            raise self._fault(what, (before.start, opened[1]))
        self.position += 1
        found: list[Atom | Derived] = []
        while not self._next_is(")"):
            if self.position == len(self.tokens) or self._next_is(",") or self._next_is("->"):
                raise self._fault("this '(' is never closed", opened)
            if self._next_is("("):
                raise self._fault("a group cannot contain a group", self._next_span())
            if self._next_is("..."):
                raise self._fault("'...' is not allowed in a group", self._next_span())
            found.append(self._term())
        if not found:
            raise self._fault(
                "a group has at least one axis; an axis of size 1 is written 1", (opened[0], self._next_span()[1])
            )
        self.position += 1
        return Group(tuple(found))

    def _term(self) -> Atom | Derived:
        """Return a name, a number, or arithmetic on them."""
        start = self._next_span()[0]
        first = self._atom()
        steps: list[tuple[str, Atom]] = []
        while self.position < len(self.tokens) and self.tokens[self.position].text in ("+", "-", "*", "/"):
            sign = self.tokens[self.position].text
            self.position += 1
            where = self._next_span()
            steps.append((sign, self._atom()))
            if sign == "/" and steps[-1][1] == Number(0):
                raise self._fault("division by 0", where)
        if not steps:
            return first
        found = Derived(first, tuple(steps))
        if not found.names:
            raise self._fault(
                "arithmetic needs an axis; write its value as a number", (start, self.tokens[self.position - 1].stop)
            )
        return found

    def _atom(self) -> Atom:
        """Return a name or a number."""
        before = self.tokens[self.position - 1].text if self.position else ""
        if self.position == len(self.tokens) or not self.tokens[self.position].is_word:
            if before in ("+", "-", "*", "/"):
                raise self._fault(f"'{before}' needs a name or a number after it", self._next_span())
            token = self.tokens[self.position]
            if token.text == ")":
                raise self._fault("this ')' was never opened", self._next_span())
            if token.text == "*":
                what = "'*' needs a name or a number before it; any number of axes (jaxtyping's *rest) are written ..."
                raise self._fault(what, self._next_span())
            raise self._fault(f"'{token.text}' needs a name or a number before it", self._next_span())
        token = self.tokens[self.position]
        self.position += 1
        if token.text.isascii() and token.text.isdigit():
            return Number(self._number(token))
        if not token.text.rstrip("'").isidentifier():
            raise self._fault(
                f"{_quote(token.text)} is not an axis: {_what_instead(token.text)}", (token.start, token.stop)
            )
        return Axis(normalized(token.text))

    def _number(self, token: _Token) -> int:
        """Return the value of a token of digits."""
        digits = token.text.lstrip("0") or "0"
        if len(digits) > len(str(LARGEST)) or int(digits) > LARGEST:
            raise self._fault("the size is too large: the largest is 2**63 - 1", (token.start, token.stop))
        return int(digits)

    def _next_is(self, mark: str) -> bool:
        """Return whether the next token is this mark."""
        return self.position < len(self.tokens) and self.tokens[self.position].text == mark

    def _next_span(self) -> tuple[int, int]:
        """Return (start, stop) of the next token; at the end, the empty span after the last one."""
        if self.position < len(self.tokens):
            return self.tokens[self.position].start, self.tokens[self.position].stop
        end = self.tokens[-1].stop if self.tokens else 0
        return end, end

    def _fault(self, message: str, span: tuple[int, int]) -> SignatureError:
        """Return the error with this message, and a caret under the span."""
        return SignatureError(f"{message}\n{point(self.text, span)}")


_FUNCTIONS = frozenset({"abs", "ceil", "floor", "gcd", "lcm", "log2", "max", "min", "prod", "round", "sqrt", "sum"})
"""Words that would be a function if `(` follows at once; any other word there is an axis beside a group."""

_AXIS_SYNTAX = "an axis is a name (y, h'), a number, a group (h k), arithmetic (h/2), or a leading ..."


def _what_instead(word: str) -> str:
    """Return what to write instead of a word that is no axis: for the marks of jaxtyping, the nearest that there is."""
    if word.startswith("#"):
        return "jaxtyping's # has no equal here, since an axis of size 1 is not broadcast; only the ... of a mask is"
    if "=" in word and word.partition("=")[2].isdigit():
        return f"write the size alone, {word.partition('=')[2]}, or give it to the circuit as fixed="
    return _AXIS_SYNTAX


def normalized(name: str) -> str:
    """Return a name as Python reads it: Python normalizes identifiers (NFKC), so that two forms of µ are one name.

    Names of axes that are given as text are normalized too, so that they equal those given as keyword arguments.

    >>> normalized("\u00b5") == "\u03bc"
    True
    """
    return name if name.isascii() else unicodedata.normalize("NFKC", name)


def _quote(word: str) -> str:
    """Return the word in quotes, shortened to 20 characters."""
    return repr(word if len(word) <= 20 else word[:20] + "…")
