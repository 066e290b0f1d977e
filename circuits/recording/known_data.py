"""The data of small tensors of a traced run that is known without any input: `torch.ones(3).any()`, a buffer.

A trace has no data. But where neither an input nor a random number has a say in a tensor, its data is known when the
trace is made, and code that asks for it gets it: a number (`item`, `if`, `tolist`), or a result whose sizes depend on
it (`nonzero`). Such tensors are computed beside the tensors without data, operation by operation.

Source: the constants of torch's FakeTensorMode, which are those of `torch.tensor(2)` and of one element.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import SymBool, SymFloat, SymInt, Tensor
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import Parameter
from torch.utils import _pytree
from torch.utils._mode_utils import no_dispatch

from circuits.diagram import OPERATORS, reading
from circuits.recording.events import Call
from circuits.recording.listener import Listener
from circuits.recording.user_frames import user_line

_LIMIT = 1 << 16
"""The largest number of elements of a tensor whose data is kept."""

_READ_NUMBER = torch.ops.aten._local_scalar_dense.default
_NEW = torch.ops.aten.lift_fresh.default
_UNKNOWN = ("empty", "resize", "set_")
"""Parts of the names of operations that return memory that nothing was written to, or memory of another tensor."""
_STATE = ("parameter", "buffer", "constant")


class Known(NamedTuple):
    """The data of a tensor.

    Attributes:
        data: A tensor on the CPU, which shares its memory with that of its views.
        from_state: Whether a parameter, a buffer or a tensor outside the run has a say in it.
    """

    data: Tensor
    from_state: bool


class KnownData:
    """The known data of the tensors of one traced run.

    A tensor is known if an ATen operation that draws no random numbers made it from known tensors and from numbers that
    are no free sizes. A write of anything unknown makes all tensors with that memory unknown, and so does every write
    to state.

    A number of state becomes a `Reading`, so the diagram reads it again at each run and refuses to continue with
    another. A result whose sizes depend on state is left to torch.

    Args:
        mode: The fake mode of the run.
        listener: The recorder.
        with_state: Whether the data of parameters, buffers and tensors outside the run is known. A diagram without
            readings is more general, so a run is recorded without this first.

    Attributes:
        met_state: Whether such data was needed to know a tensor of the run.
    """

    def __init__(self, mode: FakeTensorMode, listener: Listener, with_state: bool) -> None:
        self.mode: FakeTensorMode = mode
        self.listener: Listener = listener
        self.with_state: bool = with_state
        self.met_state = False
        self._made: dict[int, dict[int, tuple[weakref.ref[Tensor], Known]]] = {}
        self._written: set[int] = set()

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], compute: Callable[[], Any]) -> Any:
        """Return the result of an ATen operation, which `compute()` returns where it does not depend on data."""
        leaves = _pytree.tree_leaves((args, kwargs))
        given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        writes = isinstance(func, OpOverload) and (func._schema.is_mutable or "batch_norm" in func.__name__)
        known = self._inputs(func, leaves, given)
        from_state = known is not None and any(each.from_state for each in known.values())
        if known is None or (writes and from_state):
            if writes:
                self._forget(given)
            return compute()
        if not {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}.isdisjoint(func.tags):
            if from_state:
                is_number = func is _READ_NUMBER and functorch.maybe_current_level() is None
                return self._read(args[0], known[id(args[0])]) if is_number and self._has_wire(args[0]) else compute()
            result = _computed(func, args, kwargs, known)
            made = _pytree.tree_map_only(Tensor, lambda each: self.mode.from_tensor(each, static_shapes=True), result)
        else:
            made = compute()
            if not all(_is_small(each) for each in _pytree.tree_leaves(made) if isinstance(each, Tensor)):
                return made
            result = _computed(func, args, kwargs, known)
        for fake, data in zip(_pytree.tree_leaves(made), _pytree.tree_leaves(result), strict=True):
            if isinstance(fake, FakeTensor):
                self._made.setdefault(_memory(fake), {})[id(fake)] = weakref.ref(fake), Known(data, from_state)
        return made

    def _inputs(self, func: Any, leaves: Iterable[Any], given: Iterable[Tensor]) -> dict[int, Known] | None:
        """Return the data of each tensor that an operation is given, by `id`; None if its result is not known."""
        if not isinstance(func, OpOverload) or func.namespace != "aten":
            return None
        if torch.Tag.nondeterministic_seeded in func.tags or any(part in func.__name__ for part in _UNKNOWN):
            return None
        if type(self.listener.current_operation) in OPERATORS:  # The function may run again, on other data.
            return None
        found: dict[int, Known] = {}
        for tensor in given:
            known = Known(tensor, False) if func is _NEW and _is_real(tensor) else self._known(tensor)
            if known is None:
                return None
            found[id(tensor)] = known
        if any(isinstance(leaf, (SymInt, SymFloat, SymBool)) for leaf in leaves):
            return None
        return found

    def _known(self, tensor: Tensor) -> Known | None:
        """Return the data of a tensor, or None."""
        if isinstance(tensor, FakeTensor) and tensor.layout is torch.strided:
            memory = _memory(tensor)
            reference, known = self._made.get(memory, {}).get(id(tensor), (None, None))
            if reference is not None and reference() is tensor:
                return known
            original = self.listener.record.originals.get(id(tensor))
            if original is None or memory in self._written or self._role(tensor) not in _STATE:
                return None
        else:
            original = tensor
        if not _is_real(original):
            return None
        self.met_state: bool = True
        return Known(original.detach(), True) if self.with_state else None

    def _role(self, tensor: Tensor) -> str:
        return self.listener.record.values[self.listener.values.wire(tensor).number][2]

    def _has_wire(self, tensor: Tensor) -> bool:
        """Return whether a diagram can read a tensor: it is state, or the result of a recorded call."""
        return self.listener.values.known(tensor) is not None or not isinstance(tensor, FakeTensor)

    def _read(self, tensor: Tensor, known: Known) -> Any:
        """Record the reading of a number, and return the number."""
        listener, where = self.listener, user_line()
        with no_dispatch():
            found = known.data.item()
        listener.emit(Call(reading(Tensor.item, found, where), (listener.values.wire(tensor),), {}, "", where))
        return found

    def _forget(self, tensors: Iterable[Tensor]) -> None:
        """Make all tensors unknown that share memory with one of `tensors`."""
        for tensor in tensors:
            if isinstance(tensor, FakeTensor) and tensor.layout is torch.strided:
                self._made.pop(_memory(tensor), None)
                self._written.add(_memory(tensor))


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], known: dict[int, Known]) -> Any:
    """Return the result of an operation on data; a tensor that code made of Python numbers is copied."""
    args, kwargs = _pytree.tree_map_only(Tensor, lambda tensor: known[id(tensor)].data, (args, kwargs))
    with no_dispatch():
        return func(*args, **kwargs).clone() if func is _NEW else func(*args, **kwargs)


def _is_small(tensor: Tensor) -> bool:
    """Return whether the data of a tensor is kept: it is on the CPU and has few elements."""
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and tensor.numel() <= _LIMIT


def _is_real(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, Parameter) and _is_small(tensor)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


__all__ = ["KnownData"]
