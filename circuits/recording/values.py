"""The value number of each tensor in a run: results, arguments, parameters, buffers and constants.

Tensors are held by weak references, so that recording keeps no tensor alive. A tensor is looked up by `id` and then
compared with the reference, because Python reuses the `id` of a freed object.
"""

import weakref
from collections.abc import Callable

from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]

from circuits.diagram import Wire
from circuits.recording.events import Enter, Event, Lift, Record
from circuits.recording.module_paths import find_root

Entry = tuple[weakref.ref[Tensor], Wire]
"""A tensor and its wire."""


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
        self._state_of_roots: dict[int, tuple[nn.Module, str, str, str]] | None = None
        self._roots_by_path: dict[str, tuple[nn.Module, str]] = {}

    def wire(self, tensor: Tensor) -> Wire:
        """Return the wire of a tensor; a new wire if no recorded call of the run returned the tensor."""
        known = self._wires.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        return self._first_read(tensor)

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
        wire = Wire(self.record.add(tensor, role, name))
        before = self._wires.get(id(tensor))
        self._wires[id(tensor)] = weakref.ref(tensor), wire
        while functorch.is_gradtrackingtensor(tensor):
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
            self.record.state[wire.number] = (module, inner)
            self.record.names[id(tensor)] = name
            return wire
        wire = self.define(tensor, "constant")
        self.record.constants[wire.number] = self.record.originals.get(id(tensor), tensor)
        return wire

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

        The modules of open boxes are searched first, so that a shared tensor gets its name in the innermost of them.
        """
        for box in reversed(self.stack):
            module = box.module
            if module is None:
                continue
            for role, named in (("parameter", module._parameters), ("buffer", module._buffers)):
                for name, value in named.items():
                    if value is tensor:
                        root, path = self._root(box.path)
                        return root, f"{path}{name}", f"{box.path}.{name}" if box.path else name, role
        if self._state_of_roots is None:
            self._state_of_roots = {}
            for prefix, root in self.record.roots:
                original = self.record.originals.get(id(root), root)
                for role, named in (("parameter", root.named_parameters()), ("buffer", root.named_buffers())):
                    for name, value in named:
                        full = f"{prefix}.{name}" if prefix else name
                        self._state_of_roots.setdefault(id(value), (original, name, full, role))
        return self._state_of_roots.get(id(tensor))

    def _root(self, path: str) -> tuple[nn.Module, str]:
        """Return the root module that contains a path, and the path relative to this root as a prefix: `blocks.0.`."""
        if path not in self._roots_by_path:
            root, inner = find_root(self.record, path)
            self._roots_by_path[path] = root, f"{inner}." if inner else ""
        return self._roots_by_path[path]
