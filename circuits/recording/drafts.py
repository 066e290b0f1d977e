"""Drafts: the boxes of a run while it is recorded, whose axes may still get names."""

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuits.diagram import wires, wires_in
from circuits.naming import AxisNode, Matcher, Note
from circuits.recording.events import Call

Port = tuple[int, list[AxisNode] | None]
"""A value that enters or leaves a box: its number, and its axes in the scope of the box; None: none has a name."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Draft:
    """A box whose axes may still get names.

    Attributes:
        event: The `Call` or `Enter` from which the draft is made.
        inputs: The values that enter the box.
        outputs: The values that leave the box.
        boxes: The drafts inside.
        note: The text after the name of the operation in the label, or None.
        matcher: The matcher of the circuit's signature; None if the box is not a circuit.
        failed: Whether an exception left the box.
        is_named: Whether the axes of its inputs are named.
        result: The result of the box, with wires.
        inside: For a transform, the results of the transformed function.
        lifted: For a transform, the tensors that wrap tensors outside it (see `Box`).
        around: A reference to the draft that contains this one; None for the outermost. It is weak, so that the drafts
            of a run are freed at its end, without a pass of the garbage collector.
    """

    event: Any
    inputs: Sequence[Port] = ()
    outputs: Sequence[Port] = ()
    boxes: list["Draft"] = field(default_factory=list)
    note: Note = None
    matcher: Matcher | None = None
    failed: bool = False
    is_named: bool = False
    result: Any = None
    inside: Sequence[Port] = ()
    lifted: tuple[tuple[int, int, int | None], ...] = ()
    around: "weakref.ref[Draft] | None" = None

    @property
    def parent(self) -> "Draft | None":
        """The draft that contains this one; None for the outermost."""
        return self.around() if self.around is not None else None

    @property
    def reads(self) -> Iterable[int]:
        """The numbers of the values that enter the box, each once."""
        args, kwargs = self.event.args, self.event.kwargs
        if type(self.event) is Call:
            return dict.fromkeys(wires_in((*args, *kwargs.values()) if kwargs else args))
        return dict.fromkeys(wires_in((args, kwargs)))

    @property
    def makes(self) -> Iterable[int]:
        """The numbers of the values that leave the box, each once."""
        return dict.fromkeys(wires(self.event.result if type(self.event) is Call else self.result))
