"""Hear one run: every torch call, module call, circuit, verb and transform, as a flat list of events.

A `TorchFunctionMode` sees the torch calls. Three doors it does not watch (module calls, `vmap`, and
`autograd.Function.apply`) are replaced while anybody records, and let other threads pass as before. Tensors are known
by weak references, so recording keeps none alive. What the events mean is `building`'s business.
"""

import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
from torch._functorch import apis
from torch.overrides import TorchFunctionMode

from circuits import recording
from circuits.structure import describe, leaves

RECORD, SKIP, OPEN, ITERATE = range(4)

_VIEWS = frozenset({"T", "mT", "H", "mH", "real", "imag", "data"})
_QUESTIONS = frozenset(
    "size dim ndimension numel nelement stride storage_offset is_floating_point is_complex is_contiguous is_signed "
    "element_size data_ptr __len__ __repr__ __format__ __hash__ __bool__ __float__ __int__ __index__ __complex__ "
    "__array__ __dlpack__ __dlpack_device__ __reduce_ex__ __reduce__ __setstate__ __deepcopy__ tolist numpy get_device "
    "is_same_size is_nonzero requires_grad_ register_hook retain_grad backward is_tensor is_inference is_set_to __set__ "
    "__dir__ storage untyped_storage _typed_storage _set_grad_enabled set_grad_enabled is_storage has_names sym_float "
    "sym_int sym_max sym_min sym_not sym_ite is_shared share_memory_ is_pinned manual_seed _is_view __contains__ "
    "register_post_accumulate_grad_hook _lazy_init is_coalesced dense_dim sparse_dim result_type can_cast "
    "_assert _is_functional_tensor is_neg is_conj _has_compatible_shallow_copy_type __torch_dispatch__".split()
)
_OPENED: dict[Any, Callable[..., Any]] = {}


def _closed(*_: Any) -> bool:
    return False


def _open(function: types.FunctionType) -> Callable[..., Any]:
    """A Python function of torch that runs its body under a mode, instead of asking the mode first."""
    asks = {name: _closed for name in function.__globals__ if name.startswith("has_torch_function")}
    seen = {**function.__globals__, **asks}
    opened = types.FunctionType(function.__code__, seen, function.__name__, function.__defaults__, function.__closure__)
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


_OPENED[F.multi_head_attention_forward] = _open(F.multi_head_attention_forward)
_KINDS: dict[Any, int] = dict.fromkeys(_OPENED, OPEN)
_KINDS[Tensor.__iter__] = ITERATE


def _kind(function: Any) -> int:
    """What to do with a torch callable; remembered."""
    name = getattr(function, "__name__", "")
    if name == "__get__":
        kind = RECORD if getattr(function.__self__, "__name__", "") in _VIEWS else SKIP
    else:
        kind = SKIP if name in _QUESTIONS else RECORD
    return _KINDS.setdefault(function, kind)


class Event:
    """Something that happened. `Enter` and `Leave` bracket a box; the others stand alone."""

    __slots__ = ()


class Call(Event):
    """A torch call or verb, with wires for tensors."""

    __slots__ = ("args", "autocast", "error", "function", "gradient", "kwargs", "pattern", "result", "where")

    def __init__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], pattern: str, where: str) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.pattern = pattern
        self.where = where
        self.result: Any = None
        self.error = ""
        self.autocast = _autocast() if _any_autocast() else None
        self.gradient = torch.is_grad_enabled()


class Lift(Event):
    """A tensor is seen through a transform: `number` is `source` without its axis `dim` (None: with all)."""

    __slots__ = ("dim", "level", "number", "source")

    def __init__(self, number: int, source: int, dim: int | None, level: int) -> None:
        self.number, self.source, self.dim, self.level = number, source, dim, level


class Enter(Event):
    """A box opens: a module, a circuit or a transform."""

    __slots__ = ("args", "circuit", "error", "kind", "kwargs", "label", "level", "module", "path", "tensors", "where", "whole")

    def __init__(self, kind: str, label: str, path: str, module: Any, args: Any, kwargs: Any, level: int, where: str) -> None:
        self.kind, self.label, self.path, self.module = kind, label, path, module
        self.args, self.kwargs, self.level, self.where = args, kwargs, level, where
        self.circuit: Any = None
        self.tensors: dict[str, Any] = {}
        self.whole = False
        self.error = ""


class Leave(Event):
    """The box opened last closes with this result; `inside` and `dims` say how a transform's result was made."""

    __slots__ = ("dims", "inside", "result")

    def __init__(self, result: Any, inside: Any = None, dims: Any = None) -> None:
        self.result, self.inside, self.dims = result, inside, dims


def _any_autocast() -> bool:
    return torch._C._is_any_autocast_enabled()


def _autocast() -> tuple[str, torch.dtype] | None:
    for device in ("cpu", "cuda", "mps", "xpu"):
        if torch.is_autocast_enabled(device):
            return device, torch.get_autocast_dtype(device)
    return None


class Listener(TorchFunctionMode):
    """Records one run of `target` (a module, or a Circuit); of anything, if None.

    `definitions` chooses what a circuit with a kernel runs. `places` notes the line of every call. `told`, if given,
    is called with each event as it happens.
    """

    def __init__(self, target: Any = None, definitions: bool = False, places: bool = False) -> None:
        super().__init__()
        self.target = target
        self.definitions = definitions
        self.places = places
        self.told: Callable[[Event], None] | None = None
        self.finished: Callable[[Listener], None] | None = None
        self.replace: Callable[[nn.Module], nn.Module] | None = None
        self.written: Callable[[Any], str] = str
        self.originals: dict[int, Any] = {}
        self.paths: dict[int, list[str]] = {}
        self.begin()

    def begin(self) -> None:
        """Forget the last run."""
        self.events: list[Event] = []
        self.values: list[tuple[tuple[Any, ...], torch.dtype, str, str, tuple[int, ...]]] = []
        self.stack: list[Enter] = []
        self.state: dict[int, tuple[nn.Module, str]] = {}
        self.constants: dict[int, Tensor] = {}
        self.roots: list[tuple[str, nn.Module]] = []
        self._numbers: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._named: dict[int, tuple[nn.Module, str, str]] | None = None
        self.failed = False

    # Values

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor that is read."""
        known = self._numbers.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        return self._meet(tensor)

    def made(self, tensor: Tensor, role: str = "made", name: str = "") -> int:
        """A new number for a tensor that was just made, or changed in place."""
        number = len(self.values)
        levels = _levels(tensor) if functorch.maybe_current_level() is not None else ()
        self.values.append((tuple(tensor.shape), tensor.dtype, role, name, levels))
        self._numbers[id(tensor)] = (weakref.ref(tensor), number)
        return number

    def _meet(self, tensor: Tensor) -> int:
        """A number for a tensor nobody made under our eyes: seen through a transform, a parameter, or a constant."""
        if functorch.is_functorch_wrapped_tensor(tensor):
            source = self.number(functorch.get_unwrapped(tensor))
            number = self.made(tensor)
            dim = functorch.maybe_get_bdim(tensor) if functorch.is_batchedtensor(tensor) else None
            self._tell(Lift(number, source, dim, functorch.maybe_get_level(tensor)))
            return number
        owner = self._owner(tensor)
        if owner is not None:
            module, name, role = owner
            number = self.made(tensor, role, name)
            self.state[number] = (module, name)
            return number
        number = self.made(tensor, "constant")
        self.constants[number] = self.originals.get(id(tensor), tensor)
        return number

    def _owner(self, tensor: Tensor) -> tuple[nn.Module, str, str] | None:
        """Whose parameter or buffer a tensor is: (module, dotted name from it, role)."""
        for box in reversed(self.stack):
            module = box.module
            if module is None:
                continue
            for role, held in (("parameter", module._parameters), ("buffer", module._buffers)):
                for name, value in held.items():
                    if value is tensor:
                        root, path = self._from_root(box.path)
                        return root, f"{path}.{name}" if path else name, role
        if self._named is None:
            self._named = {}
            for _, root in self.roots:
                whose = self.originals.get(id(root), root)
                for role, named in (("parameter", root.named_parameters()), ("buffer", root.named_buffers())):
                    for name, value in named:
                        self._named.setdefault(id(value), (whose, name, role))
        found = self._named.get(id(tensor))
        return found

    def _from_root(self, path: str) -> tuple[nn.Module, str]:
        prefix, root = self.roots[-1]
        root = self.originals.get(id(root), root)
        return root, path.removeprefix(prefix).removeprefix(".") if prefix else path

    # Torch calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = _KINDS.get(func)
        if kind is None:
            kind = _kind(func)
        if kind == SKIP or not self.stack:
            return func(*args, **kwargs)
        if kind == OPEN:
            with self:
                return _OPENED[func](*args, **kwargs)
        if kind == ITERATE:
            with self:
                return iter(args[0].unbind(0))
        return self._call(func, args, kwargs, "", lambda: func(*args, **kwargs))

    def _call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], pattern: str, run: Callable[[], Any]) -> Any:
        number = self.number
        event = Call(
            function,
            tuple([describe(arg, number) for arg in args]),
            {name: describe(arg, number) for name, arg in kwargs.items()} if kwargs else kwargs,
            pattern,
            caller() if self.places else "",
        )
        try:
            answer = run()
        except Exception as error:
            if not self.failed:
                event.error = _brief(error)
                self.failed = True
                self._tell(event)
            raise
        event.result = describe(answer, self.made)
        if answer is None and mutates(function) and args and isinstance(args[0], Tensor):
            event.result = None
            self._overwrite(event, args[0])
        elif next(leaves(event.result), None) is None:
            return answer
        level = functorch.maybe_current_level()
        if level is not None:
            self._whole(level)
        self._tell(event)
        return answer

    def _overwrite(self, event: Call, tensor: Tensor) -> None:
        """`x[i] = y` gives nothing back, but x is another value afterwards: as if the call had returned it."""
        event.function = _returning(event.function)
        event.result = describe(tensor, self.made)

    def _whole(self, level: int) -> None:
        """A box in whose inside a transform ran is run as a whole."""
        for box in reversed(self.stack):
            if box.kind != "transform" and box.level < level:
                box.whole = True
                return

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        if self.told is not None:
            self.told(event)

    # Boxes

    def module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[..., Any]) -> Any:
        """A module is called."""
        plain = getattr(module, "_orig_mod", None)
        if isinstance(plain, nn.Module):
            self.originals.setdefault(id(plain), self.originals.get(id(module), plain))
            if module is self.target:
                self.target = plain
            return plain(*args, **kwargs)
        if not self.stack and self.target is not None and module is not self.target:
            return call(module, *args, **kwargs)
        prefix = None
        if id(module) not in self.paths:
            if self.replace is not None and id(module) not in self.originals:
                return self.replace(module)(*args, **kwargs)
            prefix = type(module).__name__ if self.stack or self.roots else ""
            self._register(prefix, module)
        elif not self.stack:
            self.roots.append((self.paths[id(module)][0], module))
        paths = self.paths[id(module)]
        return self._box("module", type(module).__name__, paths[0], module, args, kwargs, lambda: call(module, *args, **kwargs))

    def _register(self, prefix: str, root: nn.Module) -> None:
        self.roots.append((prefix, root))
        for path, module in root.named_modules(remove_duplicate=False):
            full = f"{prefix}.{path}" if prefix and path else prefix or path
            known = self.paths.setdefault(id(module), [])
            if full not in known:
                known.append(full)
            plain = getattr(module, "_orig_mod", None)
            if isinstance(plain, nn.Module):
                self.paths.setdefault(id(plain), []).append(full)

    def circuit(self, circuit: Any, owner: object | None, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[bool], Any]) -> Any:
        """A decorated circuit is called; the box of its own module, just opened, takes its signature."""
        if not self.stack and not (self.target is None or self.target is circuit):
            return run(self.definitions)
        names = dict(zip(circuit.parameters, args, strict=False)) | kwargs
        extra = args[len(circuit.parameters) :]
        held = [names[name] for name in circuit.inputs if name in names] + list(extra)
        top = self.stack[-1] if self.stack else None
        if top is not None and top.module is owner is not None and top.circuit is None and self.events[-1] is top:
            top.circuit = circuit
            top.tensors = self._tensors(circuit, held, names)
            self._retell(top)
            return run(self.definitions)
        module = owner if isinstance(owner, nn.Module) else None
        path = self.paths.get(id(owner), [""])[0] if module is not None else ""
        label = circuit.name

        def enter(box: Enter) -> None:
            box.circuit = circuit
            box.tensors = self._tensors(circuit, held, names)

        return self._box("circuit", label, path, module, args, kwargs, lambda: run(self.definitions), enter)

    def _tensors(self, circuit: Any, held: list[Any], names: dict[str, Any]) -> dict[str, Any]:
        found = {f"{place}": describe(value, self.number) for place, value in enumerate(held)}
        return found | {name: describe(names.get(name), self.number) for name in circuit.optional}

    def _retell(self, box: Enter) -> None:
        """The box just told of turned out to be a circuit."""
        if self.told is not None:
            self.told(box)

    def _box(
        self, kind: str, label: str, path: str, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any],
        run: Callable[[], Any], prepare: Callable[[Enter], None] | None = None,
    ) -> Any:  # fmt: skip
        if not self.stack:
            with self:
                return self._boxed(kind, label, path, module, args, kwargs, run, prepare)
        return self._boxed(kind, label, path, module, args, kwargs, run, prepare)

    def _boxed(
        self, kind: str, label: str, path: str, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any],
        run: Callable[[], Any], prepare: Callable[[Enter], None] | None,
    ) -> Any:  # fmt: skip
        outermost = not self.stack
        number = self.number if not outermost else self._argument
        level = functorch.maybe_current_level() or 0
        box = Enter(kind, label, path, module, describe(args, number), describe(kwargs, number), level, caller() if self.places else "")
        if prepare is not None:
            prepare(box)
        self.stack.append(box)
        self._tell(box)
        try:
            answer = run()
        except Exception as error:
            if not self.failed:
                box.error = _brief(error)
                self.failed = True
            self._tell(Leave(None))
            self.stack.pop()
            if outermost and self.finished is not None:
                self.finished(self)
            raise
        self._tell(Leave(describe(answer, self.number)))
        self.stack.pop()
        if outermost and self.finished is not None:
            self.finished(self)
        return answer

    def whole_function(self, label: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an undecorated function as the outermost box."""
        return self._box("function", label, "", None, args, kwargs, lambda: function(*args, **kwargs))

    def _argument(self, tensor: Tensor) -> int:
        """A tensor that comes in from outside the run."""
        known = self._numbers.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        if functorch.is_functorch_wrapped_tensor(tensor):
            return self._meet_lifted(tensor)
        return self.made(tensor, "input")

    def _meet_lifted(self, tensor: Tensor) -> int:
        source = self._argument(functorch.get_unwrapped(tensor))
        number = self.made(tensor, "input")
        dim = functorch.maybe_get_bdim(tensor) if functorch.is_batchedtensor(tensor) else None
        self._tell(Lift(number, source, dim, functorch.maybe_get_level(tensor)))
        return number

    def verb(self, function: Any, pattern: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """An einops verb is called: one box, whatever torch calls it makes."""
        if not self.stack:
            return run()

        def alone() -> Any:
            with torch._C.DisableTorchFunction():
                return run()

        return self._call(function, args, kwargs, pattern, alone)

    def function(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[[], Any]) -> Any:
        """An `autograd.Function` is applied: one box, its gradient stays its own."""
        if not self.stack:
            return call()

        def alone() -> Any:
            with torch._C.DisableTorchFunction(), recording.by(None):
                return call()

        return self._call(function.apply, args, kwargs, function.__name__, alone)

    def vmap(self, function: Any, in_dims: Any, out_dims: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[..., Any]) -> Any:
        """`torch.vmap` maps a function: a box, inside which the mapped axis is hidden from the code."""
        if not self.stack:
            return call(function)
        inside: list[Any] = []

        def watched(*inner_args: Any, **inner_kwargs: Any) -> Any:
            answer = function(*inner_args, **inner_kwargs)
            inside[:] = [describe(answer, self.number)]
            return answer

        level = functorch.maybe_current_level() or 0
        box = Enter("transform", f"vmap {_called(function)}", "", None, describe(args, self.number), describe(kwargs, self.number), level, "")
        self.stack.append(box)
        self._tell(box)
        try:
            answer = call(watched)
            self._whole(level + 1)
            self._tell(Leave(describe(answer, self.made), inside[0] if inside else None, out_dims))
        except Exception as error:
            if not self.failed:
                box.error, self.failed = _brief(error), True
            self._tell(Leave(None))
            raise
        finally:
            self.stack.pop()
        return answer

    def show(self, size: Any) -> str:
        """A size in a message."""
        return self.written(size)


def _called(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return "" if name == "<lambda>" else name


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _levels(tensor: Tensor) -> tuple[int, ...]:
    """The vmap levels a tensor is seen through, outermost first."""
    found = []
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            found.append(functorch.maybe_get_level(tensor))
        tensor = functorch.get_unwrapped(tensor)
    return tuple(reversed(found))


def mutates(function: Any) -> bool:
    """Whether a callable of torch writes to its first argument, going by its name."""
    name = getattr(function, "__name__", "")
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__iter__", "__invert__", "__index__", "__int__"))
    return name.endswith("_") and not name.startswith("_")


_RETURNING: dict[Any, Any] = {}


def _returning(function: Any) -> Any:
    """A function that does the same and returns its first argument."""

    def run(first: Any, *args: Any, **kwargs: Any) -> Any:
        function(first, *args, **kwargs)
        return first

    run.__name__ = getattr(function, "__name__", "run")
    return _RETURNING.setdefault(function, run)


_OURS = tuple([module.__file__.rsplit("/", 1)[0] for module in (torch, recording) if module.__file__])


def caller() -> str:
    """The line of the caller's own code that is running: `model.py:12`; empty if all is ours or torch's."""
    frame = user_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def user_frame() -> types.FrameType | None:
    """The innermost frame outside torch, einops and this package."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if is_users(name):
            return frame
        frame = frame.f_back
    return None


def is_users(name: str) -> bool:
    """Whether a file is the user's own: not torch's, einops', Python's or ours, nor made up at run time."""
    return not name.startswith((*_OURS, "<")) and "/einops/" not in name and not name.endswith("/contextlib.py")


# Doors ----------------------------------------------------------------------------------------------------------------

_lock = threading.Lock()
_listeners = 0
_before: tuple[Any, ...] = ()


def _module_call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    recorder: Any = recording.current()
    if recorder is None:
        return _before[0](module, *args, **kwargs)
    return recorder.module(module, args, kwargs, _before[0])


def _vmap(function: Any, in_dims: Any, out_dims: Any, randomness: Any, chunk_size: Any, *args: Any, **kwargs: Any) -> Any:
    def call(watched: Any) -> Any:
        return _before[1](watched, in_dims, out_dims, randomness, chunk_size, *args, **kwargs)

    recorder: Any = recording.current()
    return call(function) if recorder is None else recorder.vmap(function, in_dims, out_dims, args, kwargs, call)


def _apply(function: Any, *args: Any, **kwargs: Any) -> Any:
    def call() -> Any:
        return _before[2].__func__(function, *args, **kwargs)

    recorder: Any = recording.current()
    return call() if recorder is None else recorder.function(function, args, kwargs, call)


@contextmanager
def listening(recorder: Listener) -> Iterator[None]:
    """Let `recorder` hear this thread; the doors are put back when nobody listens any more."""
    global _listeners, _before
    with _lock:
        if _listeners == 0:
            _before = (nn.Module.__call__, apis.vmap_impl, torch.autograd.Function.__dict__["apply"])
            nn.Module.__call__ = _module_call
            apis.vmap_impl = _vmap
            torch.autograd.Function.apply = classmethod(_apply)  # type: ignore[assignment]
        _listeners += 1
    try:
        with recording.by(recorder):
            yield
    finally:
        with _lock:
            _listeners -= 1
            if _listeners == 0:
                nn.Module.__call__, apis.vmap_impl = _before[0], _before[1]
                torch.autograd.Function.apply = _before[2]
