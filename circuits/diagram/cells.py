"""The text of single cells of a table: the name of a box, its axes, sizes, dtypes and devices, and quantities."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from circuits.diagram.boxes import Box, Value
from circuits.diagram.formulas import size_text

_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}
_OWN = ("parameter", "buffer", "constant")
"""The roles of tensors that come from inside a module."""

_MAX_TENSORS = 8
"""The largest number of inputs or outputs that a row shows."""


def is_bookkeeping(box: Box) -> bool:
    """Return whether an operation only counts runs, as BatchNorm's `num_batches_tracked += 1` does.

    It changes a buffer without axes in place, and reads nothing else.
    """
    counted = bool(box.mutates) and bool(box.inputs) and not box.error
    return counted and all(value.role == "buffer" and not value.sizes for value in box.inputs)


def only_operation(box: Box, left_out: Callable[[Box], bool] = is_bookkeeping) -> Box | None:
    """Return the operation of which a module consists, so that one row or one mark shows both; or None.

    It reads the same tensors, parameters and buffers excepted, and has the same outputs.

    Args:
        box: The module.
        left_out: Whether a box inside is not shown.
    """
    inner = [each for each in box.boxes if not left_out(each)] if box.kind == "module" else []
    if len(inner) != 1 or inner[0].kind != "operation" or inner[0].error:
        return None
    outputs = [[value.number for value in each.outputs] for each in (box, inner[0])]
    inputs = [{value.number for value in each.inputs if value.role not in _OWN} for each in (box, inner[0])]
    return inner[0] if outputs[0] == outputs[1] and inputs[0] == inputs[1] else None


def label(box: Box) -> str:
    """Return the name of a box and its class, operation or signature: `layers.0 Linear`, `softmax over x`.

    A module that consists of one operation has what its operation's label says besides the name: `Softmax over x`.
    """
    text = f"{box.name} {box.label.rpartition('<locals>.')[2]}".strip()
    if box.signature is not None:
        return f"{text}: {box.signature}"
    operation = only_operation(box)
    detail = operation.label.partition(" ")[2] if operation is not None else ""
    return f"{text} {detail}" if detail and detail not in text else text


def shown_inputs(box: Box) -> list[Value]:
    """Return the inputs for the columns of axes and sizes.

    Parameters are included only for an einsum or matmul, whose pattern includes them; parameters of other operations
    are shown in the column of parameters.
    """
    box = only_operation(box) or box
    with_parameters = box.label.startswith(("einsum", "matmul"))
    return [value for value in box.inputs if with_parameters or value.role not in ("parameter", "buffer")]


def axes_of(values: Iterable[Value]) -> str:
    """Return the axes of tensors as text: `y m, x m`."""
    return _listed([str(value) or "()" for value in values])


def sizes_of(values: Iterable[Value]) -> str:
    """Return the sizes of tensors as text: `20 128, 22 128`."""
    return _listed([value.shape or "()" for value in values])


def dtypes_of(values: Iterable[Value]) -> str:
    """Return the dtypes of tensors, each once and the common ones abbreviated: `fp32, int64`."""
    return ", ".join(dict.fromkeys([dtype_name(value) for value in values]))


def devices_of(values: Iterable[Value]) -> str:
    """Return the devices of tensors, each once: `cuda:0`."""
    return ", ".join(dict.fromkeys([f"{value.device}" for value in values if value.device is not None]))


def dtype_name(value: Value) -> str:
    """Return the dtype of a value, the common floating ones abbreviated."""
    return _dtype_text(value.dtype)


@functools.cache
def _dtype_text(dtype: torch.dtype) -> str:
    name = f"{dtype}".removeprefix("torch.")
    return _DTYPES.get(name, name)


def dtype_change(box: Box, inputs: Iterable[Value] | None = None) -> str:
    """Return the dtypes of inputs and outputs if they are not all float32: `bf16`, `int64 -> fp32`; else empty.

    `inputs` are those that are shown, if they are known.
    """
    inputs = shown_inputs(box) if inputs is None else inputs
    if {value.dtype for value in (*inputs, *box.outputs)} <= {torch.float32}:
        return ""
    before, after = dtypes_of(inputs), dtypes_of(box.outputs)
    return after or before if before == after or not before or not after else f"{before} -> {after}"


def is_mapped(box: Box) -> bool:
    """Return whether `torch.vmap` hides axes of tensors inside a transform."""
    return box.kind == "transform" and any(
        value.mapped for inner in box.walk() for value in (*inner.inputs, *inner.outputs)
    )


def failed_inside(box: Box) -> bool:
    """Return whether a box has no outputs because the run failed in it."""
    return not box.outputs and any(inner.error for inner in box.walk())


def bytes_text(number: Any) -> str:
    """Return a size in bytes as text; one that depends on free axes is a formula.

    >>> bytes_text(512), bytes_text(46_758_048)
    ('512 B', '44.6 MiB')
    """
    if getattr(number, "free_symbols", None):
        return f"{quantity(number)} B"
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


_LONGEST_FORMULA = 40


def quantity(number: Any) -> str:
    """Return a number with commas, or a formula in axes; of a long formula only the axes on which it depends.

    >>> quantity(11689512)
    '11,689,512'
    """
    symbols = getattr(number, "free_symbols", None)
    if not symbols:
        return f"{int(number):,}" if number == int(number) else f"{number:,}"
    text = size_text(number)
    return text if len(text) <= _LONGEST_FORMULA else f"f({', '.join(sorted([f'{each}' for each in symbols]))})"


def shortened(text: str, width: int, sign: str = "…") -> str:
    """Return text of at most `width` columns, with `sign` in its middle if it was longer; words stay whole if many fit.

    >>> shortened("MultiHeadAttention", 9), shortened("attend: ... y k, ... x k -> ... y k", 26)
    ('Mult…tion', 'attend: ... y k, … ... y k')
    """
    if len(text) <= width:
        return text
    whole = _without_middle(text.split(" "), width, sign)
    if whole:
        return whole
    rest = max(0, width - len(sign))
    return (text[: rest - rest // 2] + sign + text[len(text) - rest // 2 :])[:width] if rest else sign[:width]


def _without_middle(words: Sequence[str], width: int, sign: str) -> str:
    """Return words without those in the middle; empty if fewer than four fit."""
    first, last = 0, len(words)
    for turn in range(len(words)):
        wider = (first + 1, last) if turn % 2 == 0 else (first, last - 1)
        if len(" ".join([*words[: wider[0]], sign, *words[wider[1] :]])) > width:
            break
        first, last = wider
    return " ".join([*words[:first], sign, *words[last:]]) if first + len(words) - last >= 4 else ""


def few(names: Sequence[str], most: int = 3) -> str:
    """Return names as text, the first ones of many."""
    return ", ".join(names if len(names) <= most else [*names[: most - 1], f"… {len(names) - most + 1} more"])


def _listed(texts: Sequence[str]) -> str:
    """Return the texts, or the first of them and the number of the others if they are more than `_MAX_TENSORS`."""
    return few(texts, _MAX_TENSORS - 1) if len(texts) > _MAX_TENSORS else ", ".join(texts)


__all__ = [
    "axes_of", "bytes_text", "devices_of", "dtype_change", "dtype_name", "dtypes_of", "failed_inside", "few",
    "is_bookkeeping", "is_mapped", "label", "only_operation", "quantity", "shortened", "shown_inputs", "sizes_of",
]  # fmt: skip
