"""The attributes of modules that the code of a run reads."""

import functools
from typing import Any

from torch import nn

from circuits.recording.snapshot import HOOKS, ITERATOR, is_iterator
from circuits.recording.user_frames import user_line

UNREAD = (HOOKS - {"training"}) | {
    "_parameters", "_buffers", "_modules", "_call_impl", "_wrapped_call_impl", "_slow_forward", "__class__", "__dict__",
    "__call__", "_compiled_call_impl", "named_modules",
}  # fmt: skip
"""Attributes that every call of a module reads."""


class AttributeReads:
    """The attributes that the code of one run reads.

    Attributes:
        read: Each module of which it reads some, and the line that read each first, if lines are recorded, by `id`.
    """

    def __init__(self) -> None:
        self.read: dict[int, tuple[nn.Module, dict[str, str]]] = {}

    def note(self, module: nn.Module, name: str, lines: bool) -> None:
        """Add an attribute."""
        known = self.read.get(id(module))
        if known is None:
            known = self.read[id(module)] = module, {}
        if name not in known[1]:
            known[1][name] = ""
            if lines:
                known[1][name] = user_line()

    def refusal(self) -> str:
        """Return which attribute is an iterator; empty if none."""
        of_classes = functools.cache(_attribute_of_class)
        for module, read in self.read.values():
            kind, held = type(module), vars(module)
            for name in read:
                if is_iterator(held[name] if name in held else of_classes(kind, name)):
                    return ITERATOR.format(f"{kind.__name__}.{name}")
        return ""


def _attribute_of_class(kind: type, name: str) -> Any:
    """Return what a class or its bases hold under a name; None if nothing."""
    return next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), None)
