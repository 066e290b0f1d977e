"""Properties of ATen operations: argument names, out-of-place forms of in-place ones, dtypes under autocast."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from circuits.diagram import tensors

Autocast = tuple[str, torch.dtype] | None
"""The device type and dtype of the autocast that a call ran under; None if there was none."""


WRONG_DECOMPOSITIONS = frozenset({"multilabel_margin_loss_forward"})
"""Operations whose decomposition in torch 2.13 returns wrong results; they are not decomposed."""


def name_of(func: Any) -> str:
    """Return the name that rules use for an operation: `add` for `aten::add`, `prims.where` for `prims::where`."""
    return func._schema.name.removeprefix("aten::").replace("::", ".")


def whole_arguments(args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments, as descriptions, of a `Step` that is differentiated as a whole: `args` and `kwargs`."""
    return {"args": args, "kwargs": kwargs}


def named_arguments(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of an ATen operation by name, with defaults; `self` and `input` are renamed `x`."""
    found: dict[str, Any] = {}
    for place, argument in enumerate(func._schema.arguments):
        word = "x" if argument.name in ("self", "input") else argument.name
        given = place < len(args) and not argument.kwarg_only
        found[word] = args[place] if given else kwargs.get(argument.name, argument.default_value)
    return found


def written_arguments(func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Return the tensors that an ATen operation writes to: `self` of an in-place one, `out` of others."""
    found = [
        args[place] if place < len(args) and not argument.kwarg_only else kwargs.get(argument.name)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return tensors(found)


def returns_tensors(func: Any) -> bool:
    """Return whether any output of an operation is a tensor or a list of tensors."""
    return any("Tensor" in f"{each.type}" for each in func._schema.returns)


def functional_form(func: Any) -> Any:
    """Return the out-of-place form of an in-place operation (`transpose` for `transpose_`); None if there is none."""
    packet = getattr(torch.ops.aten, name_of(func).removesuffix("_"), None)
    overloads = [getattr(packet, name) for name in packet.overloads()] if packet is not None else []
    return next((each for each in overloads if _parameters(each) == _parameters(func)), None)


def _parameters(func: Any) -> list[tuple[str, str]]:
    return [(argument.name, f"{argument.type}") for argument in func._schema.arguments]


def recasts(func: Any, args: Any, kwargs: Any, autocast: Autocast) -> bool:
    """Return whether autocast gives a composite operation another dtype than its inputs have; it is then decomposed."""
    if autocast is None or not _has_kernel(func, "CompositeImplicitAutograd"):
        return False
    return _dtypes((args, kwargs)) != _dtypes(outputs_under(func, args, kwargs, autocast))


def outputs_under(func: Any, args: Any, kwargs: Any, autocast: Autocast) -> Any:
    """Return the output of an operation under an autocast, which applies to the parts of a composite operation."""
    if autocast is None or not _has_kernel(func, "CompositeImplicitAutograd"):
        return func(*args, **kwargs)
    with autocast_inside(func, autocast):
        return func.decompose(*args, **kwargs)


@contextlib.contextmanager
def autocast_inside(func: Any, autocast: Autocast) -> Iterator[None]:
    """Enable autocast inside the `with`, in which an operation is decomposed; torch disables it in a dispatch mode.

    It stays disabled for an operation with an autocast kernel, whose inputs have been cast before the dispatch mode.
    """
    if autocast is None or _has_kernel(func, f"Autocast{autocast[0].upper()}"):
        yield
        return
    with torch.autocast(autocast[0], dtype=autocast[1], cache_enabled=False):
        yield


def _has_kernel(func: Any, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)


def _dtypes(value: Any) -> set[torch.dtype]:
    return {tensor.dtype for tensor in tensors(value) if tensor.is_floating_point() or tensor.is_complex()}
