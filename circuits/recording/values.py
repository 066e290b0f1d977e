"""Which value each tensor of a run is: one that was made, an argument, a parameter, a constant.

Tensors are known by weak references, so that recording keeps none alive: an id alone is used again.
"""

import weakref
from collections.abc import Callable

from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]

from circuits.diagram import Wire
from circuits.recording.events import Enter, Event, Lift, Record

Known = tuple[weakref.ref[Tensor], Wire]
"""A tensor, and the value that it is."""


class Values:
    """The wires of the tensors of one run. `stack` holds the boxes that are open, `tell` takes events."""

    def __init__(self, record: Record, stack: list[Enter], tell: Callable[[Event], None]) -> None:
        self.record = record
        self.stack = stack
        self.tell = tell
        self._wires: dict[int, Known] = {}
        self._named: dict[int, tuple[nn.Module, str, str, str]] | None = None
        self._below: dict[str, tuple[nn.Module, str]] = {}

    def wire(self, tensor: Tensor) -> Wire:
        """The wire of a tensor that is read."""
        known = self._wires.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        return self._meet(tensor)

    def argument(self, tensor: Tensor) -> Wire:
        """The wire of a tensor that comes in from outside the run."""
        known = self._wires.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        if functorch.is_functorch_wrapped_tensor(tensor):
            return self._lifted(tensor, self.argument(functorch.get_unwrapped(tensor)), "input")
        return self.made(tensor, "input")

    def made(self, tensor: Tensor, role: str = "made", name: str = "") -> Wire:
        """A new wire for a tensor that was just made, or changed in place."""
        wire = Wire(self.record.add(tensor, role, name))
        before = self._wires.get(id(tensor))
        self._wires[id(tensor)] = weakref.ref(tensor), wire
        while functorch.is_gradtrackingtensor(tensor):
            tensor = self._leaves(functorch.get_unwrapped(tensor), wire, before)
        return wire

    def _leaves(self, tensor: Tensor, wire: Wire, before: Known | None) -> Tensor:
        """What leaves torch.func's grad is the tensor inside, which nobody makes: it is the value that it is in."""
        known = self._wires.get(id(tensor))
        if known is None or known[0]() is not tensor or (before is not None and known[1] == before[1]):
            self._wires[id(tensor)] = weakref.ref(tensor), wire
        return tensor

    def bind(self, tensor: Tensor, number: int) -> None:
        """Let a tensor be known as a value that is there already."""
        self._wires[id(tensor)] = weakref.ref(tensor), Wire(number)

    def _meet(self, tensor: Tensor) -> Wire:
        """A wire for a tensor nobody made under our eyes: seen through a transform, a parameter, or a constant."""
        if functorch.is_functorch_wrapped_tensor(tensor):
            return self._lifted(tensor, self.wire(functorch.get_unwrapped(tensor)), "made")
        owner = self._owner(tensor)
        if owner is not None:
            module, inner, name, role = owner
            wire = self.made(tensor, role, name)
            self.record.state[wire.number] = (module, inner)
            self.record.names[id(tensor)] = name
            return wire
        wire = self.made(tensor, "constant")
        self.record.constants[wire.number] = self.record.originals.get(id(tensor), tensor)
        return wire

    def _lifted(self, tensor: Tensor, source: Wire, role: str) -> Wire:
        """A tensor that is another one, seen from inside a transform: the same value, but for what vmap hides of it."""
        if functorch.is_gradtrackingtensor(tensor):
            self._wires[id(tensor)] = weakref.ref(tensor), source
            return source
        wire = self.made(tensor, role)
        dim = functorch.maybe_get_bdim(tensor) if functorch.is_batchedtensor(tensor) else None
        self.tell(Lift(wire.number, source.number, dim, functorch.maybe_get_level(tensor)))
        return wire

    def _owner(self, tensor: Tensor) -> tuple[nn.Module, str, str, str] | None:
        """Whose parameter or buffer a tensor is: (module, dotted name from it, name in the run, role)."""
        for box in reversed(self.stack):
            module = box.module
            if module is None:
                continue
            for role, held in (("parameter", module._parameters), ("buffer", module._buffers)):
                for name, value in held.items():
                    if value is tensor:
                        root, path = self._from_root(box.path)
                        return root, f"{path}{name}", f"{box.path}.{name}" if box.path else name, role
        if self._named is None:
            self._named = {}
            for prefix, root in self.record.roots:
                whose = self.record.originals.get(id(root), root)
                for role, named in (("parameter", root.named_parameters()), ("buffer", root.named_buffers())):
                    for name, value in named:
                        full = f"{prefix}.{name}" if prefix else name
                        self._named.setdefault(id(value), (whose, name, full, role))
        return self._named.get(id(tensor))

    def _from_root(self, path: str) -> tuple[nn.Module, str]:
        """The outermost module around a path, and what leads from there to its parameters: `blocks.0.`."""
        if path not in self._below:
            roots = reversed(self.record.roots)
            prefix, root = next((prefix, root) for prefix, root in roots if _lies_in(path, prefix))
            inner = path.removeprefix(prefix).removeprefix(".") if prefix else path
            self._below[path] = self.record.originals.get(id(root), root), f"{inner}." if inner else ""
        return self._below[path]


def _lies_in(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(f"{prefix}.")
