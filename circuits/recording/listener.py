"""Hear one run: every torch call, module call, circuit, verb and transform, as a flat list of events.

A `TorchFunctionMode` sees the torch calls; what it does not see comes through `doors`. Tensors are known by weak
references, so recording keeps none alive. What the events mean is `building`'s business.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.overrides import TorchFunctionMode

from circuits import switch
from circuits.diagram import (
    ACTIONS,
    ITERATE,
    SKIP,
    TRACE_INTO,
    TRACED_INTO,
    Struct,
    Wire,
    action_for,
    describe,
    describe_all,
    leaves,
    mutates,
    operation_name,
    returning_first,
)
from circuits.recording.events import Call, Enter, Event, Leave, Record
from circuits.recording.user_frames import caller
from circuits.recording.values import Values


class Listener(TorchFunctionMode):
    """Records the runs of `target` (a module, or a Circuit); of anything, if None.

    `definitions` chooses what a circuit with a kernel runs. `places` notes the line of every call. `told`, if given,
    is called with each event as it happens and what the call gave, `finished` at the end of each run.
    """

    def __init__(self, target: Any = None, definitions: bool = False, places: bool = False) -> None:
        super().__init__()
        self.target = target
        self.definitions = definitions
        self.places = places
        self.told: Callable[[Event, Any], None] | None = None
        self.finished: Callable[[], None] | None = None
        self.replace: Callable[[nn.Module], nn.Module] | None = None
        self.written: Callable[[Any], str] = str
        self.outer: Any = None
        self.begin()

    def begin(self) -> None:
        """Start a new record."""
        self.record = Record()
        self.mute = False
        self.inside: Any = None
        self.failing = False
        self.failed_in: list[str] = []
        self.stack: list[Enter] = []
        self.values = Values(self.record, self.stack, self._tell)

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Hear nothing meanwhile."""
        before, self.mute = self.mute, True
        try:
            yield
        finally:
            self.mute = before

    # Torch calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        action = ACTIONS.get(func)
        if action is None:
            action = action_for(func)
        if action == SKIP or not self.stack or self.mute or (func is _WATCH and _is_watched_by_func(args[0])):
            return func(*args, **kwargs)
        if action == TRACE_INTO:
            with self:
                return TRACED_INTO[func](*args, **kwargs)
        if action == ITERATE:
            with self:
                return iter(args[0].unbind(0))
        return self._call(func, args, kwargs, "", lambda: func(*args, **kwargs))

    def _call(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], pattern: str, run: Callable[[], Any]
    ) -> Any:
        wire = self.values.wire
        self.failing = False
        event = Call(
            function,
            describe_all(args, wire),
            {name: describe(arg, wire) for name, arg in kwargs.items()} if kwargs else kwargs,
            pattern,
            caller() if self.places else "",
        )
        before, self.inside = self.inside, function
        try:
            answer = run()
        except BaseException as error:
            if not self.failing:
                event.error = _brief(error)
                self._failed(operation_name(function))
                self._tell(event)
            raise
        finally:
            self.inside = before
        event.result = describe(answer, self.values.made)
        if answer is None and mutates(function) and args and isinstance(args[0], Tensor):
            event.result = None
            self._overwrite(event, args[0])
        elif type(event.result) is not Wire and next(leaves(event.result), None) is None:
            return answer
        level = functorch.maybe_current_level()
        if level is not None:
            self._whole(level)
        self._tell(event, answer)
        return answer

    def _overwrite(self, event: Call, tensor: Tensor) -> None:
        """`x[i] = y` gives nothing back, but x is another value afterwards: as if the call had returned it."""
        event.function = returning_first(event.function)
        event.result = describe(tensor, self.values.made)

    def _whole(self, level: int) -> None:
        """A box in whose inside a transform ran is run as a whole."""
        for box in reversed(self.stack):
            if box.kind != "transform" and box.level < level:
                box.whole = True
                return

    def _failed(self, operation: str = "") -> None:
        """Remember where the error that goes up began; another event means that the code has caught it."""
        self.failing = True
        boxes = [f"{box.path.rpartition('.')[2]} {box.label}".strip() for box in self.stack]
        self.failed_in = [*boxes, operation] if operation else boxes

    def _tell(self, event: Event, answer: Any = None) -> None:
        self.record.events.append(event)
        if self.told is not None:
            self.told(event, answer)

    # Boxes

    def module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], call: Callable[..., Any]) -> Any:
        """A module is called."""
        plain = module._modules.get("_orig_mod")
        if plain is not None:
            self.record.originals.setdefault(id(plain), self.record.originals.get(id(module), plain))
            if module is self.target:
                self.target = plain
            return plain(*args, **kwargs)
        opened = bool(self.stack) and self.stack[-1].module is module
        if opened and type(module).__call__ is not nn.Module.__call__:
            return call(module, *args, **kwargs)
        if not self.stack and self.target is not None and module is not self.target:
            return call(module, *args, **kwargs)
        if id(module) not in self.record.paths:
            if self.replace is not None and id(module) not in self.record.originals:
                return self.replace(module)(*args, **kwargs)
            self._register(module)
        elif not self.stack:
            self.record.roots.append((self.record.paths[id(module)][0], module))
        paths = self.record.paths[id(module)]
        return self._box(
            "module", type(module).__name__, paths[0], module, args, kwargs, lambda: call(module, *args, **kwargs)
        )

    def _register(self, root: nn.Module) -> None:
        """Learn the paths below a module met outside any other; all but the first begin with a name of their own."""
        prefix = self._free_name(type(root).__name__) if self.stack or self.record.roots else ""
        self.record.roots.append((prefix, root))
        for path, module in root.named_modules(remove_duplicate=False):
            full = f"{prefix}.{path}" if prefix and path else prefix or path
            known = self.record.paths.setdefault(id(module), [])
            if full not in known:
                known.append(full)
            plain = getattr(module, "_orig_mod", None)
            if isinstance(plain, nn.Module):
                self.record.paths.setdefault(id(plain), []).append(full)

    def _free_name(self, name: str) -> str:
        """`Linear`, or `Linear2` where that is taken."""
        taken = {path.partition(".")[0] for paths in self.record.paths.values() for path in paths}
        numbered = (f"{name}{count}" for count in itertools.count(2))
        return next(each for each in itertools.chain([name], numbered) if each not in taken)

    def circuit(
        self,
        circuit: Any,
        owner: object | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run: Callable[[bool], Any],
    ) -> Any:
        """A decorated circuit is called; the box of its own module, just opened, takes its signature."""
        if self.outer is not None:
            outer, inner = self.outer, run
            run = lambda _: outer.circuit(circuit, owner, args, kwargs, inner)  # noqa: E731
        if not self.stack and not (self.target is None or self.target is circuit):
            return run(self.definitions)
        names = dict(zip(circuit.parameters, args, strict=False)) | kwargs
        extra = args[len(circuit.parameters) :]
        held = [names[name] for name in circuit.inputs if name in names] + list(extra)
        top = self.stack[-1] if self.stack else None
        if (
            top is not None
            and top.module is owner is not None
            and top.circuit is None
            and self.record.events[-1] is top
        ):
            top.circuit, top.owner = circuit, owner
            top.tensors = self._tensors(circuit, held, names)
            self._retell(top)
            return run(self.definitions)
        module = owner if isinstance(owner, nn.Module) else None
        if module is not None and id(module) not in self.record.paths:
            self._register(module)
        path = self.record.paths[id(module)][0] if module is not None else ""
        label = circuit.name

        def enter(box: Enter) -> None:
            box.circuit, box.owner = circuit, owner
            box.tensors = self._tensors(circuit, held, names)

        return self._box("circuit", label, path, module, args, kwargs, lambda: run(self.definitions), enter)

    def _tensors(self, circuit: Any, held: list[Any], names: dict[str, Any]) -> dict[str, Any]:
        found = {f"{place}": describe(value, self.values.wire) for place, value in enumerate(held)}
        return found | {name: describe(names.get(name), self.values.wire) for name in circuit.optional}

    def _retell(self, box: Enter) -> None:
        """The box just told of turned out to be a circuit."""
        if self.told is not None:
            self.told(box, None)

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
        self.failing = False
        wire = self.values.argument if outermost else self.values.wire
        level = functorch.maybe_current_level() or 0
        box = Enter(
            kind,
            label,
            path,
            module,
            Struct(tuple, (), describe_all(args, wire)) if args else args,
            describe(kwargs, wire) if kwargs else kwargs,
            level,
            caller() if self.places else "",
        )
        if prepare is not None:
            prepare(box)
        self.stack.append(box)
        self._tell(box)
        try:
            answer = run()
        except BaseException as error:
            if not self.failing:
                box.error = _brief(error)
                self._failed()
            self._end(Leave(None, failed=True), None)
            raise
        self._end(Leave(describe(answer, self.values.wire)), answer)
        return answer

    def _end(self, event: Leave, answer: Any) -> None:
        self._tell(event, answer)
        self.stack.pop()
        if not self.stack and self.finished is not None:
            self.finished()

    def whole_function(
        self, label: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run an undecorated function as the outermost box."""

        def prepare(box: Enter) -> None:
            box.function = function

        return self._box("function", label, "", None, args, kwargs, lambda: function(*args, **kwargs), prepare)

    def verb(
        self, function: Any, pattern: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        """An einops verb is called: one box, whatever torch calls it makes."""
        if self.outer is not None:
            run = partial(self.outer.verb, function, pattern, args, kwargs, run)
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
        if function in TRACED_INTO:
            return TRACED_INTO[function](*args, **kwargs)

        def alone() -> Any:
            with torch._C.DisableTorchFunction(), switch.set_recorder(None):
                return call()

        return self._call(function.apply, args, kwargs, function.__name__, alone)

    def vmap(
        self,
        function: Any,
        in_dims: Any,
        out_dims: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        call: Callable[..., Any],
    ) -> Any:
        """`torch.vmap` maps a function: a box, inside which the mapped axis is hidden from the code."""
        if not self.stack:
            return call(function)
        inside: list[Any] = []

        def watched(*inner_args: Any, **inner_kwargs: Any) -> Any:
            self.mute = False
            answer = function(*inner_args, **inner_kwargs)
            self.mute = True
            inside[:] = [describe(answer, self.values.wire)]
            return answer

        level = functorch.maybe_current_level() or 0
        self.failing = False
        box = Enter(
            "transform",
            f"vmap {_called(function)}",
            "",
            None,
            describe(args, self.values.wire),
            describe(kwargs, self.values.wire),
            level,
            "",
        )
        self.stack.append(box)
        self._tell(box)
        self.mute = True
        try:
            answer = call(watched)
            self._whole(level + 1)
            self._tell(Leave(describe(answer, self.values.made), inside[0] if inside else None, out_dims), answer)
        except BaseException as error:
            if not self.failing:
                box.error = _brief(error)
                self._failed()
            self._tell(Leave(None, failed=True))
            raise
        finally:
            self.mute = False
            self.stack.pop()
        return answer

    def show(self, size: Any) -> str:
        """A size in a message."""
        return self.written(size)


_WATCH = Tensor.requires_grad_


def _is_watched_by_func(tensor: Any) -> bool:
    """Whether it is torch.func's grad that watches a tensor, which changes nothing for the code."""
    return functorch.is_gradtrackingtensor(tensor)


def _called(function: Any) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return "" if name == "<lambda>" else name


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def unheard() -> Iterator[None]:
    """Nobody who records this thread hears what follows."""
    with ExitStack() as stack:
        listener: Any = switch.current()
        while isinstance(listener, Listener):
            stack.enter_context(listener.muted())
            listener = listener.outer
        stack.enter_context(switch.set_recorder(None))
        yield


def uncompiled(target: Any) -> Any:
    """A compiled module or function as the code it wraps."""
    if isinstance(target, nn.Module):
        return getattr(target, "_orig_mod", target)
    return getattr(target, "_torchdynamo_orig_callable", target)
