"""trace: the diagram of a circuit or module, from a run that computes nothing.

A copy of the model is made of fake tensors (shapes without numbers) and run on fake inputs; the model itself is never
touched. Axes whose size is not given stay symbols, and sizes come out as expressions in them: `y`, `h/2`.

Source: torch's FakeTensorMode and ShapeEnv, which torch.export uses in the same way.
"""

import contextlib
import copy
import inspect
import linecache
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensor,
    FakeTensorMode,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from circuits.checking import Circuit, find_circuit, fixed_sizes
from circuits.diagram import Diagram, convert, operation_name, tensors, wires
from circuits.errors import CircuitError
from circuits.recording.builder import Builder, assemble, signature_of
from circuits.recording.events import Call, Event
from circuits.recording.interception import watched
from circuits.recording.listener import Listener, uncompiled, unheard
from circuits.recording.symbols import Sizes, Symbols, multiple_of, name_of
from circuits.recording.user_frames import is_users
from circuits.signature import Axes, Number, Rest, parse_axes, show_axes


def trace(
    target: Any,
    /,
    *args: Any,
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    **kwargs: Any,
) -> Diagram:
    """The diagram of a circuit, a module or any function of tensors, without computing anything.

    `args` and `kwargs` are those of the call; only the shapes and dtypes of tensors matter. Without tensors among
    them, inputs are made from the signature, or for what has none from `axes`, the axes of its tensors in order
    (`axes="b c h w"`): floating in the model's dtype, or of the circuit's `dtypes`. `sizes` gives some axes a size;
    the others stay symbols. An axis that must divide by a number says so there (`multiples=`, or `axes="b c 16*h"`).

    Circuits with a kernel are shown by their definition. CircuitError where the run asks for a number that only data
    can give (`if x.item()`), or a part of the model cannot be copied; an error of the model's own code goes through.

    >>> print(trace(torch.nn.Linear(4, 3), axes="b m", sizes={"m": 4}))
    Linear    b m -> b 3  b 4 -> b 3  15 params
      linear  b m -> b 3  b 4 -> b 3  weight, bias: 15 params
    """
    target = uncompiled(target)
    if not callable(target):
        raise CircuitError(f"trace takes a circuit, a module or a function, not {target!r}")
    listener = Listener(definitions=True, places=True)
    symbols = Symbols(Sizes(lambda: operation_name(listener.inside) if listener.inside is not None else ""))
    mode = FakeTensorMode(shape_env=symbols.env, allow_non_fake_inputs=True)
    listener.written = symbols.text
    listener.told = partial(_refuse_unknown, listener, symbols)
    copier = _Copier(mode, listener)
    with unheard():
        run = copier.target(target)
    symbols.taken |= {size for parameter in _parameters(target) for size in parameter.shape}
    with unheard(), torch.random.fork_rng(devices=[]), _translated(symbols), mode, enable_python_dispatcher():
        given = _inputs(target, axes, symbols, sizes or {}, args, kwargs, copier)
        bound = _bind(target, given.args, given.kwargs)
        _run(listener, target, run, bound)
    builder = Builder(listener.record, symbols.size, bound.signature, given.axes).fed()
    free = {name_of(ours): symbols.raw(raw) * multiple_of(ours) for raw, ours in symbols.ours.items()}
    return assemble(builder, symbols.raw, free, symbols.guards(), symbols.fixed())


def _refuse_unknown(listener: Listener, symbols: Symbols, event: Event, _: Any) -> None:
    """CircuitError where an operation makes a tensor whose sizes nobody knows without the data."""
    for number in wires(event.result) if isinstance(event, Call) else ():
        if any(symbols.unknown(size) for size in listener.record.values[number][0]):
            by = f"the sizes of what {operation_name(event.function)} gives"  # type: ignore[attr-defined]
            raise CircuitError(_WANTS_DATA.format(by=by, where=event.where))  # type: ignore[attr-defined]


def _run(listener: Listener, target: Any, run: Any, bound: "_Bound") -> None:
    """Run the copy, heard; a failure says how deep in it was."""
    with watched(listener, run):
        try:
            if isinstance(target, nn.Module) or find_circuit(target) is not None:
                run(*bound.args, **bound.kwargs)
            else:
                listener.whole_function(_called(target), run, bound.args, bound.kwargs)
        except Exception as error:
            error.add_note(f"while tracing {' > '.join(listener.failed_in)}")
            raise


class _Copier:
    """Makes the fake copy of what is traced, and remembers what each fake stands for."""

    def __init__(self, mode: FakeTensorMode, listener: Listener) -> None:
        self.mode = mode
        self.listener = listener
        self.memo: dict[int, Any] = {}
        self.copies: dict[int, nn.Module] = {}
        listener.replace = self.module

    def target(self, target: Any) -> Any:
        """The thing to run instead of the target."""
        if isinstance(target, nn.Module):
            return self.module(target)
        owner = getattr(target, "__self__", None)
        return getattr(self.module(owner), target.__name__) if isinstance(owner, nn.Module) else target

    def module(self, module: nn.Module) -> nn.Module:
        """A fake copy of a module; ties among its parameters stay."""
        if id(module) not in self.copies:
            try:
                with self.listener.muted(), temporarily_clear_interpreter_stack(), FakeCopyMode(self.mode):
                    copied = copy.deepcopy(module, self.memo)
            except Exception as error:
                raise CircuitError(f"{_uncopied(module)} cannot be copied, so it cannot be traced: {error}") from error
            self.copies[id(module)] = copied
            self._remember(module, copied)
        return self.copies[id(module)]

    def _remember(self, module: nn.Module, copied: nn.Module) -> None:
        originals = self.listener.record.originals
        for old in self.memo.get(id(self.memo), []):
            new = self.memo.get(id(old))
            if new is not None and isinstance(old, (Tensor, nn.Module)):
                originals[id(new)] = old
        originals[id(copied)] = module
        for (_, old), (_, new) in zip(module.named_modules(), copied.named_modules(), strict=False):
            originals[id(new)] = old

    def inputs(self, value: Any) -> Any:
        """Arguments with every tensor made fake; their sizes are numbers."""
        return convert(value, self._fake)

    def _fake(self, tensor: Tensor) -> Tensor:
        return (
            tensor
            if isinstance(tensor, FakeTensor) and tensor.fake_mode is self.mode
            else self.mode.from_tensor(tensor, static_shapes=True)
        )


def _uncopied(module: nn.Module) -> str:
    """The innermost part of a module that cannot be copied: `Sequential.1.0, a Bad,`."""
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


_WANTS_DATA = (
    "the run needs a number that only data can give: {by} at {where}\n"
    "a trace is one path through the code: track a real run instead, or compute without asking (torch.where)"
)
_ASKED = {
    "got FakeTensor": _WANTS_DATA,
    "not FakeTensor": _WANTS_DATA,
    ".numpy() is not supported for tensor subclasses": _WANTS_DATA,
    "unhashable type: non-nested SymInt": "the run looks something up by a size that is free: {by} at {where}\n"
    "give the axis a number, trace(..., sizes={{...}})",
}
"""What torch says where a fake tensor or a free size cannot do what is asked of it, and what to say instead."""


@contextlib.contextmanager
def _translated(symbols: Symbols) -> Iterator[None]:
    """Errors in the words of the user: axes by name, the line that asked; and nothing of torch's in the log."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    try:
        log.addFilter(_no)
        yield
    except CircuitError:
        raise
    except (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException) as error:
        by, where = _asked_in(error)
        raise CircuitError(_WANTS_DATA.format(by=by, where=where)) from error
    except Exception as error:
        for wanted, message in _ASKED.items():
            if wanted in str(error):
                by, where = _asked_in(error)
                raise CircuitError(message.format(by=by, where=where)) from error
        error.args = tuple([symbols.rename(part) if isinstance(part, str) else part for part in error.args])
        raise
    finally:
        log.removeFilter(_no)


def _no(_: logging.LogRecord) -> bool:
    return False


def _asked_in(error: BaseException) -> tuple[str, str]:
    """The user's line an error came through: its source, and its place."""
    place = None
    frame = error.__traceback__
    while frame is not None:
        if is_users(frame.tb_frame.f_code.co_filename):
            place = frame
        frame = frame.tb_next
    if place is None:
        return "a value", "an unknown line"
    name, line = place.tb_frame.f_code.co_filename, place.tb_lineno
    return f"`{linecache.getline(name, line).strip()}`", f"{name}:{line}"


def _parameters(target: Any) -> list[Tensor]:
    owner = target if isinstance(target, nn.Module) else getattr(target, "__self__", None)
    return list(owner.parameters()) if isinstance(owner, nn.Module) else []


class _Given(NamedTuple):
    """Fake arguments of a call, and the axes of its tensors as far as they are known from outside."""

    args: Any
    kwargs: Any
    axes: Sequence[Axes]


def _inputs(
    target: Any, axes: str | None, symbols: Symbols, sizes: Mapping[str, int], args: Any, kwargs: Any, copier: "_Copier"
) -> _Given:
    """The arguments made fake, or made from the axes of the signature, or of `axes`."""
    named = [parse_axes(part) for part in axes.split(",")] if axes is not None else None
    given = tensors((args, kwargs))
    if given:
        if sizes:
            raise CircuitError(
                f"sizes ({', '.join(sizes)}) are for inputs that trace makes; these inputs have their own"
            )
        _fit(axes, named or [], given)
        return _Given(copier.inputs(args), copier.inputs(kwargs), named or ())
    if args:
        raise CircuitError("arguments without a tensor among them: pass the tensors too, or these by name")
    circuit = find_circuit(target)
    if named is not None:
        made = _made(target, named, [None] * len(named), circuit, symbols, sizes)
        return _Given(made, kwargs, named)
    if circuit is None:
        raise CircuitError(
            f"{_called(target)} has no signature to make inputs from: give inputs, trace(model, x), or name the axes "
            'of its tensors, trace(model, axes="b c h w")'
        )
    return _Given(_made(target, circuit.signature.inputs, circuit.inputs, circuit, symbols, sizes), kwargs, ())


def _fit(text: str | None, named: Sequence[Axes], given: Sequence[Tensor]) -> None:
    """CircuitError unless the axes that the caller names are those of the tensors that came."""
    if len(named) > len(given):
        raise CircuitError(f"axes '{text}' names {len(named)} tensors, {len(given)} came")
    for axes, tensor in zip(named, given, strict=False):
        rest = any(isinstance(term, Rest) for term in axes)
        ends = list(zip(reversed(axes[rest:]), reversed(tensor.shape), strict=False))
        numbers = all(term.value == size for term, size in ends if isinstance(term, Number))
        if not numbers or tensor.ndim < len(axes) - rest or (tensor.ndim > len(axes) and not rest):
            sizes = " ".join([f"{size}" for size in tensor.shape])
            raise CircuitError(f"axes '{show_axes(axes)}' are not those of a tensor of {sizes or 'no axes'}")


def _made(
    target: Any,
    shapes: Sequence[Axes],
    parameters: Sequence[str | None],
    circuit: Circuit | None,
    symbols: Symbols,
    sizes: Mapping[str, int],
) -> tuple[Tensor, ...]:
    """Fake tensors with these axes: of the sizes given or fixed, else of free ones."""
    names = list(dict.fromkeys(name for axes in shapes for term in axes for name in term.names))
    unknown = [name for name in sizes if name not in names]
    if unknown:
        raise CircuitError(f"sizes has {', '.join(unknown)}, but the axes are {' '.join(names) or 'none'}")
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 0:
            raise CircuitError(f"sizes: {name} is {size!r}, which is no size")
    owner = target if isinstance(target, nn.Module) else getattr(target, "__self__", None)
    known = {**(fixed_sizes(circuit, owner) if circuit is not None else {}), **sizes}
    multiples = circuit.multiples if circuit is not None else {}
    for name in names:
        if name not in known:
            known[name] = symbols.of(name, multiples.get(name, 1))
    dtypes = circuit.dtypes if circuit is not None else {}
    floating = next((each for each in _parameters(target) if each.is_floating_point()), None)
    dtype = torch.get_default_dtype() if floating is None else floating.dtype
    device = torch.get_default_device() if floating is None else floating.device
    made = []
    for axes, name in zip(shapes, parameters, strict=True):
        size = [term.size(known) for term in axes if not isinstance(term, Rest)]
        made.append(torch.empty(size, dtype=dtypes.get(name, dtype) if name else dtype, device=device))
    return tuple(made)


def _called(target: Any) -> str:
    return type(target).__name__ if isinstance(target, nn.Module) else getattr(target, "__qualname__", repr(target))


class _Bound(NamedTuple):
    """Arguments as Python binds them, defaults filled in."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    signature: inspect.Signature | None


def _bind(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Bound:
    """The arguments as Python binds them, so that a diagram can be called in any of the ways its original can."""
    signature = signature_of(target)
    if signature is None:
        return _Bound(args, kwargs, None)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{_called(target)}{signature}: {error}") from None
    bound.apply_defaults()
    return _Bound(bound.args, bound.kwargs, signature)
