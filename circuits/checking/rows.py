"""One value of a call with its slot and its mismatches: a row of the table in an error message.

Like `binding`, this module is traced by torch.compile, so it uses only plain loops and f-strings.
"""

import reprlib
from typing import Any

import torch
from torch import Tensor

from circuits import switch
from circuits.checking.declaration import Slot


class Row:
    """A slot and the value passed for it: its sizes, its text in the table, its mismatches, and the sizes to mark."""

    def __init__(self, slot: Slot, value: Any) -> None:
        self.slot = slot
        self.value = value
        self.sizes: list[Any] = []
        self.mismatches: list[str] = []
        self.marked: list[int] = []
        self.wrong_dtype: bool = False
        self.text = ""
        if isinstance(value, Tensor):
            for size in value.shape:
                self.sizes.append(size)
            self.text = show_sizes(self.sizes)
        else:
            self.text = _show_value(value)

    def add(self, mismatch: str, *positions: int) -> None:
        """Add a mismatch, with carets under the sizes at these positions."""
        self.mismatches.append(mismatch)
        for position in positions:
            self.marked.append(position)


def show_sizes(sizes: list[Any]) -> str:
    """Return sizes as text, separated by spaces; `()` for an empty list."""
    text = ""
    for size in sizes:
        text += f"{' ' if text else ''}{switch.show(size)}"
    return text if text else "()"


def _show_value(value: Any) -> str:
    """Return a short text for a value that is not a tensor; under torch.compile, the name of its type."""
    if value is None:
        return "None"
    if torch.compiler.is_compiling():
        return f"{type(value).__name__}"
    if isinstance(value, list | tuple) and any(isinstance(part, Tensor) for part in value):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, list | tuple | str | int | float):
        return reprlib.repr(value)
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} {show_sizes(list(shape))}" if isinstance(shape, tuple) else type(value).__name__


def not_a_tensor(row: Row) -> str:
    """Return the mismatch for a value that is not a tensor; for a numpy array, including the call that converts it."""
    name, value = row.slot.name, row.value
    kind = f"{type(value).__name__}"
    if value is None:
        return "a tensor is expected"
    if len(row.slot.axes) == 0 and row.slot.role == "input":
        return f"a number or a tensor without axes is expected, not {_with_article(kind)}"
    if kind == "ndarray" and row.slot.role != "output":
        return f"a tensor is expected, not a numpy array: torch.from_numpy({name})"
    if isinstance(value, torch.nn.Module) and row.slot.role == "input":
        return f"a tensor is expected, not {_with_article(kind)}; the first parameter of a method is named self"
    if kind in ("list", "tuple"):
        return f"one tensor is expected, not a {kind}{_as_one_tensor(row)}"
    return f"a tensor is expected, not {_with_article(kind)}"


def _as_one_tensor(row: Row) -> str:
    """Return the call that makes one tensor of a list of numbers, for the end of a message; empty if none does."""
    first = row.value
    while isinstance(first, list | tuple) and len(first) > 0:
        first = first[0]
    is_of_numbers = isinstance(first, int | float) and row.slot.role != "output" and not torch.compiler.is_compiling()
    return f": torch.tensor({row.slot.name})" if is_of_numbers else ""


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
