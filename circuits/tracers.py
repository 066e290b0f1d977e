"""torch.jit.trace, torch.fx and torch.compile, which record a program as graphs: what checks and verbs do meanwhile.

torch.jit.trace passes tensors whose sizes are tensors too. torch.fx passes Proxies, which have no sizes at all.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch.fx import Proxy

F = TypeVar("F", bound=Callable[..., Any])


def without_jit_trace(function: Callable[..., Any], *args: Any) -> Any:
    """Return `function(*args)`, of which torch.jit.trace records nothing.

    Sizes are then numbers. While torch.jit.trace records, they are tensors, and each comparison of two sizes would warn
    that the recorded program may not be right at other sizes.
    """
    state = torch._C._get_tracing_state()
    if state is None:
        return function(*args)
    set_state = torch._C._set_tracing_state  # pyright: ignore[reportAttributeAccessIssue]
    set_state(None)
    try:
        return function(*args)
    finally:
        set_state(state)


def without_warnings(function: Callable[..., Any], *args: Any) -> Any:
    """Return `function(*args)`, without the warnings of torch.jit.trace, which records the sizes that it computes."""
    if torch._C._get_tracing_state() is None:
        return function(*args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        return function(*args)


def has_proxy(things: Iterable[Any]) -> bool:
    """Return whether one of the things is a Proxy of torch.fx, or a list or tuple with one."""
    for each in things:  # noqa: SIM110 (torch.compile would have to trace a generator)
        if isinstance(each, Proxy) or (isinstance(each, list | tuple) and has_proxy(each)):
            return True
    return False


def fx_leaf(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the Proxy of a call, which torch.fx then records as one node, or None if no argument is a Proxy."""
    if has_proxy(args) or has_proxy(kwargs.values()):
        return Proxy.__torch_function__(function, (Proxy,), args, dict(kwargs))
    return None


def constant_when_compiled(function: F) -> F:
    """Return the function, marked: torch.compile calls it and takes the result for a constant.

    So does `torch.compiler.assume_constant_result`, which first loads all of torch.compile: that takes a second.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function
