"""Fake copies of the targets and arguments of `trace`: modules with fake parameters, and fake tensors.

A fake tensor has a shape, a dtype and a device but no data, so the copy can run without computing anything.
"""

import contextlib
import copy
import io
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensor, FakeTensorMode
from torch.utils import _pytree

from circuits.diagram import Change, Struct, tensors
from circuits.errors import CircuitError
from circuits.recording.events import Call, Enter
from circuits.recording.listener import Listener
from circuits.recording.snapshot import Snapshot
from circuits.recording.thread_modes import in_function_mode

_MOST_SHARED = 100
"""The number of objects that one copy may share; more are attempts at one that is made again in each attempt."""


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
        self._shared: dict[str, None] = {}
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
            CircuitError: A module in it cannot be copied; the message names the innermost such module.
        """
        if id(module) not in self.copies:
            for part in nn.Module.modules(module):
                self._share_generators(vars(part))
            try:
                copied = self._copy(module)
            except Exception as error:
                part = _uncopied_part(module)
                raise CircuitError(f"{part} cannot be copied, so it cannot be traced: {error}") from error
            self._copy_closures(copied)
            self.copies[id(module)] = copied
            self._record_originals()
            originals = self.listener.record.originals
            originals[id(copied)] = module
            for (_, old), (_, new) in zip(module.named_modules(), copied.named_modules(), strict=False):
                originals[id(new)] = old
        return self.copies[id(module)]

    def _share_generators(self, value: Any) -> None:
        """Let copies hold the user's random number generators, which cannot be copied without data."""
        leaves = _pytree.tree_leaves(value)
        self.memo |= {id(leaf): leaf for leaf in leaves if isinstance(leaf, torch.Generator)}

    def _copy_closures(self, root: nn.Module) -> None:
        """Replace the hooks of copied modules, and other functions in them, by functions that refer to the copies.

        A hook may refer to its module or to a dict by a variable of the function around it; `copy.deepcopy` copies no
        function.
        """
        for module in nn.Module.modules(root):
            for held in (vars(module), *[each for name, each in vars(module).items() if "hooks" in name and each]):
                for key, value in held.items():
                    if isinstance(value, types.FunctionType) and value.__closure__:
                        held[key] = self._with_copied_closure(value)

    def _with_copied_closure(self, function: types.FunctionType) -> types.FunctionType:
        """Return a function whose free variables have copies of the values; what cannot be copied is shared.

        Raises:
            CircuitError: A value is an iterator that cannot be copied.
        """
        if id(function) in self.memo:
            return self.memo[id(function)]
        cells = tuple([types.CellType() for _ in function.__closure__ or ()])
        copied = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
        )
        copied.__kwdefaults__, copied.__qualname__ = function.__kwdefaults__, function.__qualname__
        vars(copied).update(vars(function))
        self.memo[id(function)] = copied
        for old, new in zip(function.__closure__ or (), cells, strict=True):
            with contextlib.suppress(ValueError):  # The variable is not assigned yet.
                new.cell_contents = self._copy_or_share(old.cell_contents, function.__qualname__)
        return copied

    def _copy_or_share(self, value: Any, holder: str) -> Any:
        if isinstance(value, types.FunctionType):
            return self._with_copied_closure(value) if value.__closure__ else value
        try:
            return self._copy(value)
        except Exception as error:  # Whatever the method raises by which a class copies itself.
            if _is_iterator(_not_copied(error)):
                raise CircuitError(f"{holder} refers to an iterator, which the trace would use up: {error}") from error
            self._share(value)
            return value

    def _share(self, value: Any) -> None:
        """Note that the copies refer to this object of the user, so that the table says so."""
        self._shared[type(value).__name__] = None
        self.listener.record.shared = f"shares {', '.join(self._shared)}"

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
        self._share_generators(value)
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

    def end(self) -> list[nn.Module]:
        """Release all copies, and the record of the run, after the diagram was made; return the copied modules."""
        modules = [part for copied in self.copies.values() for part in nn.Module.modules(copied)]
        self.memo.clear()
        self.copies.clear()
        record = self.listener.record
        record.events.clear()
        record.roots.clear()
        record.snapshot = Snapshot()
        return modules

    def _fake(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor) and tensor.fake_mode is self.mode:
            return tensor
        return self.mode.from_tensor(tensor, static_shapes=True)

    def _copy(self, value: Any) -> Any:
        """Return a deep copy, in which objects that cannot be copied (locks, files, clients) are those of the user.

        Raises:
            Exception: A module, a tensor or an iterator cannot be copied; an iterator would be used up. Or too many
                objects cannot.
        """
        kept = self.memo.setdefault(id(self.memo), [])
        attempts = 0
        while True:
            attempts += 1
            before, count = dict(self.memo), len(kept)
            try:
                with self.listener.paused(), temporarily_clear_interpreter_stack():
                    return in_function_mode(FakeCopyMode(self.mode), lambda: copy.deepcopy(value, self.memo))
            except Exception as error:
                part = _not_copied(error)
                cannot_share = _is_iterator(part) or isinstance(part, (Tensor, nn.Module)) or id(part) in before
                if part is None or cannot_share or attempts > _MOST_SHARED:
                    raise
                self.memo.clear()
                self.memo |= before | {id(part): part}
                del kept[count:]
                self._share(part)

    def restore_originals(self) -> None:
        """Replace the copies of objects in the record by the user's objects, and undo the changes of all others.

        The user's objects are those that a diagram compares with its arguments, reads, and changes. Objects that are
        not copied, such as a dict in the closure of a function, were changed by the run; they get their contents back.
        """
        record = self.listener.record
        copies = {id(self.memo[id(old)]): old for old in self.memo.get(id(self.memo), []) if id(old) in self.memo}
        record.snapshot.put_back(lambda owner: id(owner) in copies)
        for event in record.events if copies else ():
            if isinstance(event, (Call, Enter)):
                event.args = _with_originals(event.args, copies)
                event.kwargs = _with_originals(event.kwargs, copies)
        record.changes = tuple([_with_original_owner(change, copies) for change in record.changes])
        record.held = {
            number: (place._replace(owner=copies.get(id(place.owner), place.owner)), key)
            for number, (place, key) in record.held.items()
        }


def _not_copied(error: BaseException) -> Any:
    """Return the object that `copy.deepcopy` was copying when it raised an exception; None if it raised none."""
    found, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code is copy.deepcopy.__code__:
            part = frame.tb_frame.f_locals.get("x")
            found = part if type(part) not in (dict, list, tuple, set) else found  # may be made for the copy only
        frame = frame.tb_next
    return found


def _is_iterator(value: Any) -> bool:
    """Return whether a value is an iterator, which a run uses up; a file is not one here, although it has `next`."""
    return hasattr(value, "__next__") and not isinstance(value, io.IOBase)


def _with_original_owner(change: Change, copies: dict[int, Any]) -> Change:
    """Return a change in which each object that is a copy is replaced by its original."""
    owner = copies.get(id(change.place.owner), change.place.owner)
    before, after = [_with_originals(each, copies) for each in (change.before, change.after)]
    return Change(change.place._replace(owner=owner), before, after)


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
    """Return whether a module can be copied; this only finds the place for a message, so any exception means no."""
    try:
        with FakeCopyMode(FakeTensorMode(allow_non_fake_inputs=True)):
            copy.deepcopy(module)
    except Exception:
        return False
    return True
