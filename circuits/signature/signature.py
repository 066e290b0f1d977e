"""The signature of a circuit, `"... y m, ... x m -> ... y m"`, as data: parse it, print it.

A signature is the type of a circuit: the axes of each input tensor, then of each output tensor. An axis is a name (`y`,
`h'`), a number (`3`), a group (`(h k)`), arithmetic on axes known from elsewhere (`h/2`, `2*c`, `h/s+1`), or `...`,
which must come first and stands for any number of axes. Commas separate tensors; a side with nothing on it is one
scalar. Any Python identifier is a name, keywords included; whitespace is insignificant. No module in this folder
imports torch.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, sections 2.3 and 2.4.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from circuits.errors import entry_points
from circuits.signature.parser import Parser
from circuits.signature.terms import Axes, Term, show_axes


@entry_points("parse")
@dataclass(frozen=True, repr=False)
class Signature:
    """The axes of every input tensor and of every output tensor.

    Args:
        inputs: The axes of each input, in order.
        outputs: The axes of each output, in order.

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
        """Return the signature that a text describes, such as `"y k, x k, x k -> y k"`.

        Args:
            text: The axes of the inputs, `->`, and the axes of the outputs. The module docstring has the syntax.

        Raises:
            SignatureError: If the text cannot be parsed; the message has a caret under the fault.
        """
        return cls(*Parser(text).signature())

    @property
    def names(self) -> tuple[str, ...]:
        """Every axis name once, in the order of first occurrence.

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
    """Return the axes of one tensor; SignatureError, with a caret under the fault, if the text cannot be parsed.

    >>> parse_axes("... c 3")
    (Rest(), Axis(name='c'), Number(value=3))
    """
    return Parser(text).axes()


def places(signature: Signature) -> Iterator[tuple[int, int, Term, tuple[int, int]]]:
    """Yield every term as (tensor, position, term, span).

    The tensor is numbered over the inputs and then the outputs, the position is that in the tensor, and the span is
    (start, stop) in `str(signature)`.

    >>> [(str(term), span) for _, _, term, span in places(Signature.parse("y m -> y"))]
    [('y', (0, 1)), ('m', (2, 3)), ('y', (7, 8))]
    """
    text, at = str(signature), 0
    for tensor, axes in enumerate(signature.inputs + signature.outputs):
        for position, term in enumerate(axes):
            at = text.index(str(term), at)
            yield tensor, position, term, (at, at + len(str(term)))
            at += len(str(term))
