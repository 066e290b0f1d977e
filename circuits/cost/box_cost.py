"""`BoxCost`: what one box of a diagram costs, with the boxes inside it, as frozen data.

All quantities are numbers, or formulas in the free axes.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from circuits.cost.quantities import brief, chosen_names, heading_of, text_of
from circuits.cost.sizes import simplified
from circuits.diagram import Cells, Size, Table


@dataclass(frozen=True)
class Held:
    """A parameter or buffer: its number in the diagram, dotted name, elements and bytes."""

    number: int
    name: str
    role: Literal["trained", "frozen", "buffer"]
    elements: int
    bytes: int

    @property
    def key(self) -> tuple[int, str]:
        """What tells it from others: parameters that no operation reads share the number -1."""
        return (self.number, self.name if self.number < 0 else "")


@dataclass(frozen=True)
class Work:
    """The work of one operation: the FLOPs in each dtype, live ones as in `live_flops`, and the bytes that it moves."""

    flops: tuple[tuple[torch.dtype, Size], ...]
    bytes: Size


@dataclass(frozen=True)
class BoxCost:
    """What one box costs, with the boxes inside it; or what several boxes cost together (`Cost.by`).

    Attributes:
        label: The name and label of the box, or what a group of boxes has in common.
        place: The number of the box among the boxes beside it, after those of the boxes around it; () is the outermost.
        kind: The kind of the box, as in `Box.kind`; "group" for several.
        name: What the box is called: the class of a module, the name of a circuit, function or operation.
        path: The dotted path of a module, else empty.
        calls: How many boxes these are.
        multiply_adds: One for each product that a contraction adds up: k for each element of its result.
        live_multiply_adds: Of these, the ones that remain if a fused attention leaves out what its causal mask hides.
        elementwise: The elements that pointwise operations write, and that reductions, norms and pools read.
        read: The bytes that operations read.
        written: The bytes that operations write.
        activations: The bytes of the tensors that the box makes, views left out.
        saved: The bytes of those that are saved for backward; None if no backward was counted.
        peak: The most bytes of tensors that are live at once while the box runs, inputs included, parameters not.
        held: The parameters and buffers that the box uses, each once.
        uncounted: How often each operation ran that has no formula, with its sizes; its FLOPs are in no sum.
        work: The work of each operation inside, with how many there are of this work.
        crossing: The bytes that cross the boundary of the box: what it reads of tensors from outside, each once, and
            its results. None for several boxes.
    """

    label: str
    place: tuple[int, ...] = ()
    kind: str = "group"
    name: str = ""
    path: str = ""
    calls: int = 1
    multiply_adds: Size = 0
    live_multiply_adds: Size = 0
    elementwise: Size = 0
    read: Size = 0
    written: Size = 0
    activations: Size = 0
    saved: Size | None = None
    peak: Size = 0
    held: tuple[Held, ...] = field(default=(), repr=False)
    uncounted: tuple[tuple[str, int], ...] = ()
    work: tuple[tuple[Work, int], ...] = field(default=(), repr=False)
    crossing: Size | None = None

    @property
    def flops(self) -> Size:
        """The floating-point operations of contractions: two for each multiply-add."""
        return simplified(2 * self.multiply_adds)

    @property
    def live_flops(self) -> Size:
        """Two for each live multiply-add."""
        return simplified(2 * self.live_multiply_adds)

    @property
    def bytes(self) -> Size:
        """The bytes that operations read and write."""
        return simplified(self.read + self.written)

    @property
    def intensity(self) -> Any:
        """FLOPs for each byte that is read or written: the arithmetic intensity."""
        return self.flops / self.bytes if self.bytes != 0 else 0

    @property
    def trained(self) -> int:
        """The number of elements of trained parameters."""
        return self._elements("trained")

    @property
    def frozen(self) -> int:
        """The number of elements of parameters that do not require gradients."""
        return self._elements("frozen")

    @property
    def parameters(self) -> int:
        """The number of elements of all parameters."""
        return self.trained + self.frozen

    @property
    def buffers(self) -> int:
        """The number of elements of buffers."""
        return self._elements("buffer")

    @property
    def state_bytes(self) -> int:
        """The bytes of parameters and buffers."""
        return sum([each.bytes for each in self.held])

    def _elements(self, role: str) -> int:
        return sum([each.elements for each in self.held if each.role == role])

    def __repr__(self) -> str:
        """Return the label and the main quantities: `BoxCost('mul': bytes moved 8*x*y)`."""
        return f"BoxCost({brief(self)})"

    def __str__(self) -> str:
        """Return the label, and below it the quantities that are not empty, one a line."""
        headings, texts = self._headings(), self._texts()
        width = max([0, *map(len, headings)])
        lines = [f"  {heading:<{width}}  {text}" for heading, text in zip(headings, texts, strict=True)]
        return "\n".join([self.label, *lines])

    def _repr_html_(self) -> str:
        """Return the same as HTML, which notebooks show."""
        cells = [Cells([self.label, *self._headings()]), Cells(["", *self._texts()], right=True)]
        return Table(cells, []).html()

    def _headings(self) -> list[str]:
        return [heading_of(name, [getattr(self, name)]) for name in chosen_names([self], "")]

    def _texts(self) -> list[str]:
        return [text_of(name, getattr(self, name)) for name in chosen_names([self], "")]


QUANTITIES = (
    "multiply_adds", "live_multiply_adds", "elementwise", "read", "written", "activations", "saved", "peak",
    "crossing",
)  # fmt: skip
"""The fields of a `BoxCost` that may be formulas."""

__all__ = ["QUANTITIES", "BoxCost", "Held", "Work"]
