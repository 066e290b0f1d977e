"""Fake copies of the targets and arguments of `trace`: modules with fake parameters, and fake tensors.

A fake tensor has a shape, a dtype and a device but no data, so the copy can run without computing anything.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensor, FakeTensorMode
from torch.utils import _pytree

from circuits.diagram import Struct, tensors
from circuits.errors import CircuitError
from circuits.recording.events import Call, Enter
from circuits.recording.listener import Listener
from circuits.recording.thread_modes import in_function_mode


class FakeCopier:
    """Makes fake copies, and records the original of each copied module and tensor.

    Args:
        mode: The fake mode of all copied tensors.
        listener: The recorder of the trace. If the run calls a module that was not copied (one in a closure), the
            listener copies it and calls the copy.

    Attributes:
        memo: The memo of all deep copies, so that modules that share a tensor share its copy.
        copies: The copy of each module that was copied, by `id` of the original.
    """

    def __init__(self, mode: FakeTensorMode, listener: Listener) -> None:
        self.mode = mode
        self.listener = listener
        self.memo: dict[int, Any] = {}
        self.copies: dict[int, nn.Module] = {}
        listener.substitute_module = self.module

    def target(self, target: Any) -> Any:
        """Return the callable to run: the copy of a module, the method of a copied module, or the function itself."""
        if isinstance(target, nn.Module):
            return self.module(target)
        owner = getattr(target, "__self__", None)
        return getattr(self.module(owner), target.__name__) if isinstance(owner, nn.Module) else target

    def module(self, module: nn.Module) -> nn.Module:
        """Return the fake copy of a module; tied parameters are tied in the copy too.

        Raises:
            CircuitError: A part of the module cannot be copied; the message names the innermost such part.
        """
        if id(module) not in self.copies:
            try:
                copied = self._copy(module)
            except Exception as error:
                part = _uncopied_part(module)
                raise CircuitError(f"{part} cannot be copied, so it cannot be traced: {error}") from error
            self.copies[id(module)] = copied
            self._record_originals()
            originals = self.listener.record.originals
            originals[id(copied)] = module
            for (_, old), (_, new) in zip(module.named_modules(), copied.named_modules(), strict=False):
                originals[id(new)] = old
        return self.copies[id(module)]

    def _record_originals(self) -> None:
        """Record the original of each copied tensor and module."""
        originals = self.listener.record.originals
        for old in self.memo.get(id(self.memo), []):
            new = self.memo.get(id(old))
            if new is not None and isinstance(old, (Tensor, nn.Module)):
                originals[id(new)] = old

    def inputs(self, value: Any, name: str) -> Any:
        """Return a copy of an argument, in which each tensor is a fake tensor of the same sizes, which are ints.

        Objects of any class are copied, because the call may change them, and may read tensors from them. Random number
        generators are passed on: a call on fake tensors draws no numbers.

        Raises:
            CircuitError: The argument cannot be copied; the message calls it `name`.
        """
        self.memo |= {id(leaf): leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.Generator)}
        try:
            # Tensors in containers are copied here, since those of a torch.func transform need the current level.
            self.memo |= {id(tensor): self._fake(tensor) for tensor in tensors((value,))}
            copied = self._copy(value)
        except Exception as error:
            raise CircuitError(
                f"{name} of the call, of type {type(value).__name__}, cannot be copied, so the call cannot be traced "
                f"without changing it: {error}"
            ) from error
        self._record_originals()
        return copied

    def _fake(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor) and tensor.fake_mode is self.mode:
            return tensor
        return self.mode.from_tensor(tensor, static_shapes=True)

    def _copy(self, value: Any) -> Any:
        with self.listener.paused(), temporarily_clear_interpreter_stack():
            return in_function_mode(FakeCopyMode(self.mode), lambda: copy.deepcopy(value, self.memo))

    def restore_arguments(self) -> None:
        """Replace the copies of objects in the recorded arguments by the user's objects.

        A diagram compares its arguments with them, and reads their data.
        """
        copies = {id(self.memo[id(old)]): old for old in self.memo.get(id(self.memo), []) if id(old) in self.memo}
        for event in self.listener.record.events if copies else ():
            if isinstance(event, (Call, Enter)):
                event.args = _with_originals(event.args, copies)
                event.kwargs = _with_originals(event.kwargs, copies)


def _with_originals(description: Any, copies: dict[int, Any]) -> Any:
    """Return a description in which each object that is a copy is replaced by its original."""
    if isinstance(description, Struct):
        return description._replace(parts=tuple([_with_originals(part, copies) for part in description.parts]))
    if type(description) is tuple and id(description) not in copies:
        return tuple([_with_originals(part, copies) for part in description])
    if type(description) is dict and id(description) not in copies:
        return {key: _with_originals(part, copies) for key, part in description.items()}
    return copies.get(id(description), description)


def _uncopied_part(module: nn.Module) -> str:
    """Return the innermost part of a module that cannot be copied, for a message: `Sequential.1.0, a Bad,`."""
    found, path = module, type(module).__name__
    while True:
        inner = next(((name, child) for name, child in found.named_children() if not _can_be_copied(child)), None)
        if inner is None:
            return path if found is module else f"{path}, a {type(found).__name__},"
        path, found = f"{path}.{inner[0]}", inner[1]


def _can_be_copied(module: nn.Module) -> bool:
    try:
        with FakeCopyMode(FakeTensorMode(allow_non_fake_inputs=True)):
            copy.deepcopy(module)
    except Exception:
        return False
    return True
