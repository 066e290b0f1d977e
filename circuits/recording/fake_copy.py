"""Fake copies of the targets and arguments of `trace`: modules with fake parameters, and fake tensors.

A fake tensor has a shape, a dtype and a device but no data, so the copy can run without computing anything.
"""

import copy
from typing import Any

from torch import Tensor, nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensor, FakeTensorMode

from circuits.diagram import map_tensors
from circuits.errors import CircuitError
from circuits.recording.listener import Listener


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
                with self.listener.paused(), temporarily_clear_interpreter_stack(), FakeCopyMode(self.mode):
                    copied = copy.deepcopy(module, self.memo)
            except Exception as error:
                part = _uncopied_part(module)
                raise CircuitError(f"{part} cannot be copied, so it cannot be traced: {error}") from error
            self.copies[id(module)] = copied
            self._record_originals(module, copied)
        return self.copies[id(module)]

    def _record_originals(self, module: nn.Module, copied: nn.Module) -> None:
        """Record the original of each copied tensor and module."""
        originals = self.listener.record.originals
        for old in self.memo.get(id(self.memo), []):
            new = self.memo.get(id(old))
            if new is not None and isinstance(old, (Tensor, nn.Module)):
                originals[id(new)] = old
        originals[id(copied)] = module
        for (_, old), (_, new) in zip(module.named_modules(), copied.named_modules(), strict=False):
            originals[id(new)] = old

    def inputs(self, value: Any) -> Any:
        """Return arguments with each tensor replaced by a fake tensor of the same sizes, which are ints."""
        return map_tensors(value, self._fake)

    def _fake(self, tensor: Tensor) -> Tensor:
        return (
            tensor
            if isinstance(tensor, FakeTensor) and tensor.fake_mode is self.mode
            else self.mode.from_tensor(tensor, static_shapes=True)
        )


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
