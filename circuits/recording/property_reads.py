"""Record the properties of tensors, besides sizes and data, and the modes of torch that the code of a run reads."""

from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]

from circuits.diagram import Call, PropertyGuard, Struct, attribute_name, comparable_value, describe, describe_all
from circuits.recording.user_frames import user_line
from circuits.recording.values import Values

_TORCH = f"{torch.__file__}".rpartition("/")[0]
_INNER_FOLDERS = (f"{_TORCH}/nn/modules/", f"{_TORCH}/utils/", f"{_TORCH}/_", __file__.rpartition("/")[0])
"""The folders of torch's layers, utilities and private modules, and of the recorder."""


def is_inner_frame(frame: FrameType) -> bool:
    """Return whether the code of a frame is internal to torch or to the recorder."""
    return frame.f_code.co_filename.startswith(_INNER_FOLDERS)


class PropertyReads:
    """The properties that the code of one run reads, each once; a change in place makes a tensor another value.

    Not recorded are properties of tensors that belong to neither the run nor the model, which are always the same
    object; those read inside a `torch.func` transform, since a diagram calls the code around it again; and those that
    torch's layers and private modules read, only to choose between implementations or to raise.
    """

    def __init__(self, values: Values) -> None:
        self.values = values
        self.guards: dict[Any, Call] = values.record.property_guards

    def note(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], found: Any, frame: FrameType | None = None
    ) -> None:
        """Record that `function(*args, **kwargs)`, called in `frame`, returned `found`."""
        if (frame is not None and is_inner_frame(frame)) or functorch.maybe_current_level() is not None:
            return
        if any(isinstance(part, Tensor) and not self._is_of_run(part) for part in args):
            return
        is_getter = function.__name__ == "__get__"
        name = attribute_name(function) if is_getter else function.__name__
        described = describe_all(args[:1] if is_getter else args, self.values.wire)
        key = (name, described, *kwargs.items())
        if key not in self.guards:
            recorded = describe(comparable_value(name, found), self.values.wire)
            self.guards[key] = Call(
                PropertyGuard(name, not is_getter, user_line()),
                Struct(tuple, (), (recorded, *described)),
                Struct(dict, tuple(kwargs), tuple(kwargs.values())),
                None,
            )

    def _is_of_run(self, tensor: Tensor) -> bool:
        """Return whether a tensor is a value of the run, or a parameter or buffer of the model."""
        return self.values.known(tensor) is not None or self.values._owner(tensor) is not None
