"""The value number of each tensor in a run: results, arguments, parameters, buffers and constants.

Tensors are held by weak references, so that recording keeps no tensor alive. A tensor is looked up by `id` and then
compared with the reference, because Python reuses the `id` of a freed object.
"""

import sys
import weakref
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import Parameter

from circuits.diagram import Struct, Wire, alias, describe, describe_all, splitting_objects, tensors
from circuits.recording.events import Call, Enter, Event, Lift, Record
from circuits.recording.module_paths import find_root

Entry = tuple[weakref.ref[Tensor], Wire]
"""A tensor and its wire."""

_OWN_REFERENCES = 2
"""The references that Python counts where only the record holds a constant: its dict, and the argument of the count."""

_NO_MEMORY = (0,)
"""The shape of a tensor without memory; `copy.copy` makes one and gives it the memory of another, unseen (`set_`)."""


class Values:
    """The wires of the tensors of one run.

    Args:
        record: The record to which values are added.
        stack: The open boxes, the innermost last.
        emit: Called with a `Lift` event when a tensor is first used inside a transform that wraps it.
    """

    def __init__(self, record: Record, stack: list[Enter], emit: Callable[[Event], None]) -> None:
        self.record = record
        self.stack = stack
        self.emit = emit
        self._wires: dict[int, Entry] = {}
        self._without_memory: set[Wire] = set()
        self._memories = _Memories()
        self._state_of_roots: dict[int, tuple[weakref.ref[Tensor], tuple[nn.Module, str, str, str]]] = {}
        self._roots_read = 0
        self._roots_by_path: dict[str, tuple[nn.Module, str]] = {}

    def fakes(self) -> list[weakref.ref[Tensor]]:
        """Return weak references to the fake tensors that have a wire and are still alive."""
        return [reference for reference, _ in self._wires.values() if isinstance(reference(), FakeTensor)]

    def wire(self, tensor: Tensor) -> Wire:
        """Return the wire of a tensor; a new wire if no recorded call of the run returned the tensor."""
        known = self._wires.get(id(tensor))
        if known is not None and known[0]() is tensor and (known[1] not in self._without_memory or not tensor.numel()):
            return known[1]
        return self._first_read(tensor)

    def known(self, tensor: Tensor) -> Wire | None:
        """Return the wire of a tensor if it has one."""
        found = self._wires.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Return the descriptions of the arguments of a box.

        Those of the run, for which no box is open yet, are added to the snapshot of the record, and objects of any
        class are described by their attributes, so that the tensors in them are inputs.
        """
        if self.stack:
            described = Struct(tuple, (), describe_all(args, self.wire)) if args else args
            return described, describe(kwargs, self.wire) if kwargs else kwargs
        for key, value in (*enumerate(args), *kwargs.items()) if self.record.is_kept() else ():
            self.record.snapshot.add(value, f"argument {key}", key)
        split = splitting_objects()
        return Struct(tuple, (), describe_all(args, self.argument, split)), describe(kwargs, self.argument, split)

    def result(self, result: Any) -> Any:
        """Return the description of the result of the innermost box; at the end of the run, record its changes too."""
        if len(self.stack) > 1:
            return describe(result, self.wire)
        self.record.changes = tuple(self.record.snapshot.changes(self.wire))
        return describe(result, self.wire, splitting_objects())

    def argument(self, tensor: Tensor) -> Wire:
        """Return the wire of a tensor that is an argument of the run."""
        known = self._wires.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        if functorch.is_functorch_wrapped_tensor(tensor):
            return self._lift(tensor, self.argument(functorch.get_unwrapped(tensor)), "input")
        return self.define(tensor, "input")

    def define(self, tensor: Tensor, role: str = "made", name: str = "") -> Wire:
        """Return a new wire for a tensor that was just created or changed in place.

        A tensor that torch.func's grad wraps shares the wire of its wrapper, because the transform returns the inner
        tensor, which no recorded call returned.
        """
        wire = Wire(self.record.add(tensor, role, name, memory := _memory(tensor)))
        shape = self.record.values[wire.number][0]
        self._memories.add(memory if type(tensor) is not FakeTensor else 0, role)
        if len(shape) == 1 and type(shape[0]) is int and shape == _NO_MEMORY:
            self._without_memory.add(wire)
        before = self._wires.get(id(tensor))
        self._wires[id(tensor)] = weakref.ref(tensor), wire
        while not memory and functorch.is_gradtrackingtensor(tensor):  # what has memory wraps no tensor
            tensor = self._define_inner(functorch.get_unwrapped(tensor), wire, before)
        return wire

    def _define_inner(self, tensor: Tensor, wire: Wire, before: Entry | None) -> Tensor:
        """Set the wire of a wrapped tensor to the wire of its wrapper and return the tensor.

        A wire that the tensor already has is kept, unless it was the previous wire of the wrapper (`before`).
        """
        known = self._wires.get(id(tensor))
        if known is None or known[0]() is not tensor or (before is not None and known[1] == before[1]):
            self._wires[id(tensor)] = weakref.ref(tensor), wire
        return tensor

    def bind(self, tensor: Tensor, number: int) -> None:
        """Set the wire of a tensor to that of an existing value, given by number."""
        self._wires[id(tensor)] = weakref.ref(tensor), Wire(number)

    def _first_read(self, tensor: Tensor) -> Wire:
        """Return a wire for a tensor that no recorded call returned: a wrapper, a parameter, a buffer or a constant."""
        if functorch.is_functorch_wrapped_tensor(tensor):
            return self._lift(tensor, self.wire(functorch.get_unwrapped(tensor)), "made")
        owner = self._owner(tensor)
        if owner is not None:
            module, inner, name, role = owner
            wire = self.define(tensor, role, name)
            self.record.state[wire.number], self.record.names[id(tensor)] = (module, inner), name
            return wire
        source = _with_same_memory(tensor, self._wires.values(), self.record)
        if source is not None:
            return self._alias(tensor, source)
        self.record.refusal = _inner(tensor, self._wires.values()) or self.record.refusal
        is_of_run, wire = self._memories.is_of_run(tensor), self.define(tensor, "constant")
        place = self.record.snapshot.held(tensor)
        if place is not None:
            self.record.held[wire.number] = place
        original = self.record.originals.get(id(tensor), tensor)
        if isinstance(original, FakeTensor) or is_of_run:
            self.record.unrecorded.add(wire.number)
        else:
            self.record.constants[wire.number] = original
        return wire

    def _alias(self, tensor: Tensor, source: Tensor) -> Wire:
        """Emit the call that makes a tensor that shares the memory of `source`, and return the wire of the tensor."""
        call = Call(alias, (self.wire(source), tensor.shape, tensor.stride(), tensor.storage_offset()), {}, "", "")
        call.result = self.define(tensor)
        self.emit(call)
        return call.result

    def end(self, result: Any) -> None:
        """At the end of a run: remove the constants that the run itself made, by code that is not recorded.

        These are the constants to which nothing else refers, and those that the run changed in place and returns. They
        may have been computed from the inputs, in C++ or by another thread.
        """
        constants = self.record.constants
        returned = {id(tensor): tensor for tensor in tensors(result)} if constants else {}
        made = [
            number
            for number in constants
            if sys.getrefcount(constants[number]) <= _OWN_REFERENCES
            or (id(constants[number]) in returned and self.wire(constants[number]).number != number)
        ]
        for number in made:
            del constants[number]
        self.record.unrecorded |= {*made}

    def _lift(self, tensor: Tensor, source: Wire, role: str) -> Wire:
        """Return the wire of a tensor that wraps `source`: under grad `source` itself, else a new wire.

        Under vmap the value of the new wire lacks the mapped axis.
        """
        if functorch.is_gradtrackingtensor(tensor):
            self._wires[id(tensor)] = weakref.ref(tensor), source
            return source
        wire = self.define(tensor, role)
        dim = functorch.maybe_get_bdim(tensor) if functorch.is_batchedtensor(tensor) else None
        self.emit(Lift(wire.number, source.number, dim, functorch.maybe_get_level(tensor)))
        return wire

    def _owner(self, tensor: Tensor) -> tuple[nn.Module, str, str, str] | None:
        """Return (root module, dotted name in it, name in the run, role) of a parameter or buffer, else None.

        The name is the one that `named_parameters` of the root has, so a tied parameter has the first of its names. A
        tensor that a module got during the run is named by its place in the innermost open box.
        """
        for prefix, root in self.record.roots[self._roots_read :]:
            self._read_state(prefix, root)
        self._roots_read = len(self.record.roots)
        known = self._state_of_roots.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        for box in reversed(self.stack):
            module = box.module
            if module is None:
                continue
            for role, named in (("parameter", module._parameters), ("buffer", module._buffers)):
                for name, value in named.items():
                    if value is tensor:
                        root, path = self._root(box.path)
                        return root, f"{path}{name}", f"{box.path}.{name}" if box.path else name, role
        return None

    def _read_state(self, prefix: str, root: nn.Module) -> None:
        """Add the parameters and buffers of a root, each under the first of its names."""
        original = self.record.originals.get(id(root), root)
        for path, module in root.named_modules():
            inner, start = f"{path}." if path else "", f"{prefix}." if prefix else ""
            for role, named in (("parameter", module._parameters), ("buffer", module._buffers)):
                for name, value in named.items():
                    if value is not None:
                        place = original, f"{inner}{name}", f"{start}{inner}{name}", role
                        self._state_of_roots.setdefault(id(value), (weakref.ref(value), place))

    def _root(self, path: str) -> tuple[nn.Module, str]:
        """Return the root module that contains a path, and the path relative to this root as a prefix: `blocks.0.`."""
        if path not in self._roots_by_path:
            root, inner = find_root(self.record, path)
            self._roots_by_path[path] = root, f"{inner}." if inner else ""
        return self._roots_by_path[path]


class _Memories:
    """The memory of the values that a run makes, whether they still exist or not, as identifiers.

    A tensor with such memory was made in the run, too, although nothing recorded it: `nn.Parameter(y)` of a result `y`.
    """

    def __init__(self) -> None:
        self._of_run: set[int] = set()
        self._of_others: set[int] = {0}

    def add(self, memory: int, role: str) -> None:
        """Add the memory of a value; that of a parameter, buffer or constant is not the run's."""
        if role not in ("made", "input"):
            self._of_others.add(memory)
        elif memory not in self._of_others:
            self._of_run.add(memory)

    def is_of_run(self, tensor: Tensor) -> bool:
        """Return whether a tensor has the memory of a value of the run."""
        return type(tensor) in (Tensor, Parameter) and _memory(tensor) in self._of_run


def _with_same_memory(tensor: Tensor, entries: Collection[Entry], record: Record) -> Tensor | None:
    """Return the last argument or result of the run that shares the memory of a tensor, or None.

    Constructors (`Variable(x)`, `torch.Tensor(x)`), `copy.copy` and code in C++ make such tensors unseen.
    """
    memory = _memory(tensor) if type(tensor) in (Tensor, Parameter) else 0
    for reference, wire in reversed([*entries]) if memory else ():
        other = reference()
        if other is None or other is tensor or record.values[wire.number][2] not in ("input", "made"):
            continue
        if type(other) in (Tensor, Parameter) and other.dtype == tensor.dtype and _memory(other) == memory:
            return other
    return None


def _inner(tensor: Tensor, entries: Collection[Entry]) -> str:
    """Return the refusal of a run that reads an attribute of a tensor of an own class, if that holds `tensor`."""
    for reference, _ in entries:
        outer = reference()
        held = vars(outer) if outer is not None and type(outer) not in (Tensor, Parameter, FakeTensor) else {}
        name = next((name for name, value in held.items() if value is tensor), None)
        if name is not None:
            return (
                f"the run reads the tensor in {type(outer).__name__}.{name}, of which a diagram knows only the "
                "recorded one: pass it as an argument, or compute it by an operation of torch"
            )
    return ""


def _memory(tensor: Tensor) -> int:
    """Return an identifier of the memory of a tensor; 0 if its layout or class has none that others could share.

    Python uses an identifier again when the memory is free.
    """
    kind = type(tensor)
    if kind is FakeTensor:  # `is_meta` of a fake tensor would be one more call of the run
        with torch._C.DisableTorchFunction():
            return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0
    is_plain = (kind is Tensor or kind is Parameter) and tensor.layout is torch.strided and not tensor.is_meta
    if not is_plain or functorch.is_functorch_wrapped_tensor(tensor):
        return 0
    return tensor.untyped_storage()._cdata
