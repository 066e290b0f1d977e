"""The tape: the data that the forward pass records for the reverse pass."""

from dataclasses import dataclass, field

from circuits.autodiff.current_values import CurrentValues
from circuits.autodiff.lowering import Step
from circuits.diagram import CustomBackward


@dataclass
class Tape:
    """The operations of the forward pass to differentiate, and the values that they read.

    `steps` are the operations to differentiate and `custom` the custom backward circuits, both by the id of the box
    that they belong to. `current` has the current number of each value of the diagram. `copies` maps a value that is
    overwritten to the copy that the reverse pass reads instead.
    """

    steps: dict[int, list[Step]] = field(default_factory=dict)
    custom: dict[int, CustomBackward] = field(default_factory=dict)
    current: CurrentValues = field(default_factory=CurrentValues)
    copies: dict[int, int] = field(default_factory=dict)
