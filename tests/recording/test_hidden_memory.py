"""Code that reads or writes tensors where nothing is recorded: by storages, addresses, and inside other tensors."""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from circuits import CircuitError, trace, track

X = torch.tensor([0.5, -1.0, 2.0])


def _filled(x: Tensor) -> Tensor:
    y = x.clone()
    storage: Any = y.untyped_storage()
    storage.fill_(0)
    return y + 1


def _copied(x: Tensor) -> Tensor:
    y = torch.empty(3)
    y.untyped_storage().copy_(x.untyped_storage())
    return y * 2


def _set(x: Tensor) -> Tensor:
    y = x.clone()
    y.untyped_storage()[0] = 1
    return y * 2


STORAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "fill": _filled,
    "copy": _copied,
    "set": _set,
    "read": lambda x: x * sum(x.untyped_storage().tolist()),
    "read an item": lambda x: x * x.untyped_storage()[3],
    "address": lambda x: x * (x.untyped_storage().data_ptr() % 3),
}


@pytest.mark.parametrize("name", STORAGES)
def test_a_run_that_uses_the_memory_of_a_storage_is_refused(name: str) -> None:
    code = STORAGES[name]

    class Runs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return code(x)

    model = Runs()
    with track(model, to=None) as seen:
        model(X)
    with pytest.raises(CircuitError, match=rf"the recorded run read untyped_storage at {__file__}:\d+"):
        seen.diagram(X)


def _by_pointer(x: Tensor) -> Tensor:
    return x * ctypes.cast(x.data_ptr(), ctypes.POINTER(ctypes.c_float))[0]


def _by_import(x: Tensor) -> Tensor:
    from ctypes import string_at

    return x * len(string_at(x.data_ptr(), 4))


_string_at = ctypes.string_at


@pytest.mark.every(3)
@pytest.mark.parametrize("code", [_by_pointer, _by_import, lambda x: x * len(_string_at(x.data_ptr(), 4))])
def test_code_that_reads_memory_at_an_address_is_refused_before_it_ends_the_process(code: Any) -> None:
    with pytest.raises(CircuitError, match=r"the run needs a value that depends on data: .*data_ptr\(\)"):
        trace(code, X)


class Wrapper(Tensor):
    """A tensor that wraps another, in an attribute."""

    held: Any

    @staticmethod
    def __new__(cls: Any, held: Tensor) -> "Wrapper":
        made: Any = Tensor._make_wrapper_subclass(cls, held.size(), dtype=held.dtype)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = _pytree.tree_map_only(Wrapper, lambda each: each.held, (args, kwargs or {}))
        return _pytree.tree_map_only(Tensor, Wrapper, func(*args, **kwargs))


READS: list[Callable[[Any], Tensor]] = [
    lambda x: x.held * 2,
    lambda x: torch.stack([x.held, x.held]),
    lambda x: (x * 2).held + 1,
]


@pytest.mark.parametrize("code", READS)
def test_a_tensor_inside_a_tensor_of_an_own_class_is_no_constant(code: Any) -> None:
    class Runs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return code(x)

    model = Runs()
    with track(model, to=None) as seen:
        model(Wrapper(X))
    with pytest.raises(CircuitError, match=r"reads the tensor in Wrapper.held|reads a tensor that code made"):
        seen.diagram(Wrapper(X + 1))
