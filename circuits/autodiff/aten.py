"""What an ATen operation says of itself: its arguments by name, its form that writes nothing, its dtypes."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from circuits.diagram import tensors

Autocast = tuple[str, torch.dtype] | None
"""The device type and dtype of the autocast that a call ran under."""


MISTAKEN = frozenset({"multilabel_margin_loss_forward"})
"""What torch takes apart into what gives other numbers (2.13): never taken apart."""


def name_of(func: Any) -> str:
    """What rules know an operation by: ATen's by its name, others (`prims.where`, a user's) with their library's."""
    return func._schema.name.removeprefix("aten::").replace("::", ".")


def packed(args: Any, kwargs: Any) -> dict[str, Any]:
    """The described arguments of a call as one step takes them whole."""
    return {"args": args, "kwargs": kwargs}


def named(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of an ATen operation by name, defaults filled in, its first tensor as `x`."""
    found: dict[str, Any] = {}
    for place, argument in enumerate(func._schema.arguments):
        word = "x" if argument.name in ("self", "input") else argument.name
        given = place < len(args) and not argument.kwarg_only
        found[word] = args[place] if given else kwargs.get(argument.name, argument.default_value)
    return found


def gives_tensors(func: Any) -> bool:
    """Whether any of its results is a tensor, or holds some."""
    return any("Tensor" in f"{each.type}" for each in func._schema.returns)


def in_new_tensors(func: Any) -> Any:
    """The operation that gives in a new tensor what this one (`transpose_`) makes of its first, if there is one."""
    packet = getattr(torch.ops.aten, name_of(func).removesuffix("_"), None)
    overloads = [getattr(packet, name) for name in packet.overloads()] if packet is not None else []
    return next((each for each in overloads if _taken(each) == _taken(func)), None)


def _taken(func: Any) -> list[tuple[str, str]]:
    return [(argument.name, f"{argument.type}") for argument in func._schema.arguments]


def recasts(func: Any, args: Any, kwargs: Any, autocast: Autocast) -> bool:
    """Whether autocast is at work inside an operation (torch.einsum), which is then to be seen in its pieces alone."""
    if autocast is None or not _has_kernel(func, "CompositeImplicitAutograd"):
        return False
    return _dtypes((args, kwargs)) != _dtypes(given_by(func, args, kwargs, autocast))


def given_by(func: Any, args: Any, kwargs: Any, autocast: Autocast) -> Any:
    """What an operation gives under an autocast, which may be at work inside it."""
    if autocast is None or not _has_kernel(func, "CompositeImplicitAutograd"):
        return func(*args, **kwargs)
    with casting(func, autocast):
        return func.decompose(*args, **kwargs)


@contextlib.contextmanager
def casting(func: Any, autocast: Autocast) -> Iterator[None]:
    """Under an autocast, which torch switches off for whoever sees an operation.

    What autocast has cast for already does its work without it.
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
