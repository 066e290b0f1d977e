"""trace: the diagram of a circuit or module, from a run that computes nothing.

A copy of the model is made of fake tensors (shapes without numbers) and run on fake inputs; the model itself is never
touched. Axes whose size is not given stay symbols, and sizes come out as expressions in them: `y`, `h/2`.

Source: torch's FakeTensorMode and ShapeEnv, which torch.export uses in the same way.
"""

import contextlib
import copy
import inspect
import itertools
import linecache
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensor,
    FakeTensorMode,
)
from torch.fx.experimental.symbolic_shapes import DimDynamic, GuardOnDataDependentSymNode, ShapeEnv
from torch.utils import _pytree
from torch.utils._sympy.value_ranges import ValueRanges

from circuits.boxes import Fixed, Size, size_text
from circuits.building import Builder, assemble, signature_of
from circuits.checking import Circuit, find_circuit, fixed_sizes
from circuits.diagram import Diagram
from circuits.errors import CircuitError
from circuits.frames import asker, is_users
from circuits.listening import Listener, eager, listening, uncompiled
from circuits.signature import Axes, Rest, Signature, parse_axes

_HINTS = (48, 80, 112, 176, 208, 272, 304, 368, 464, 496)
"""Sizes that free axes have while nobody looks: all multiples of 16, all different, none likely in a model."""


class _Sizes(ShapeEnv):
    """A ShapeEnv that remembers who made a symbol a number, and which guards the user's own code asked for.

    What torch asks itself inside an operation it asks again when the operation is run again; only equalities are kept
    of that, since sizes were rewritten by them.
    """

    def __init__(self, inside: Callable[[], bool]) -> None:
        super().__init__()
        self.inside = inside
        self.asked: dict[sympy.Symbol, tuple[str, str]] = {}
        self.conditions: list[Any] = []

    def _set_replacement(self, a: sympy.Symbol, tgt: sympy.Expr, msg: str) -> None:
        self.asked.setdefault(a, asker())
        super()._set_replacement(a, tgt, msg)

    def evaluate_expr(self, *args: Any, **kwargs: Any) -> Any:
        before = len(self.guards)
        answer = super().evaluate_expr(*args, **kwargs)
        for guard in self.guards[before:]:
            if not self.inside() or isinstance(guard.expr, sympy.Eq):
                self.conditions.append(guard.expr)
        return answer


@dataclass
class _Symbols:
    """The free axes: their symbols in torch's hand, and in ours."""

    env: _Sizes
    sizes: dict[str, Any] = field(default_factory=dict)
    ours: dict[sympy.Symbol, sympy.Expr] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)

    def of(self, name: str, multiple: int = 1) -> Any:
        """The size of the axis of this name, a new symbol if there is none yet."""
        if name not in self.sizes:
            hints = _HINTS if 16 % multiple == 0 else ()
            later = range(max(512 if hints else 3 * multiple, multiple), 10**9, multiple)
            hint = next(size for size in itertools.chain(hints, later) if size not in self.taken)
            self.taken.add(hint)
            source = ConstantSource(name)
            symbol = self.env.create_symbol(hint // multiple, source=source, dynamic_dim=DimDynamic.DYNAMIC)
            if multiple > 1:
                self.env.var_to_range[symbol] = ValueRanges(1, self.env.var_to_range[symbol].upper)
            self.sizes[name] = multiple * self.env.create_symintnode(symbol, hint=hint // multiple, source=source)
            self.ours[symbol] = sympy.Symbol(name, integer=True, positive=True) / multiple
        return self.sizes[name]

    def raw(self, size: Any) -> Any:
        """A torch number or expression in torch's own symbols, those that were fixed replaced."""
        expression = size.node.expr if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)) else size
        if not isinstance(expression, sympy.Basic):
            return expression
        expression = self.env.replace(expression)
        return int(expression) if expression.is_Integer else expression

    def size(self, size: Any) -> Size:
        """The same in the user's names."""
        raw = self.raw(size)
        return raw if not isinstance(raw, sympy.Basic) else _tidy(raw.xreplace(self.ours))

    def text(self, size: Any) -> str:
        """A size for a message."""
        return size_text(self.size(size))

    def rename(self, text: str) -> str:
        """A message of torch's in the user's names."""
        for symbol, ours in self.ours.items():
            text = re.sub(rf"\b{symbol}\b", size_text(ours), text)
        return text

    def fixed(self) -> tuple[Fixed, ...]:
        """The axes that did not stay free."""
        found = []
        for symbol, ours in self.ours.items():
            target = self.env.replace(symbol)
            if target != symbol:
                by, where = self.env.asked.get(symbol, ("", ""))
                found.append(Fixed(str(_name(ours)), self.size(target * _multiple(ours)), by, where))
        return tuple(found)

    def guards(self) -> tuple[Any, ...]:
        """The conditions on free axes under which the run is the same, in the user's names.

        Torch takes a free size to be 2 or more, since code may do something else for 1.
        """
        found: list[Any] = []
        for symbol, ours in self.ours.items():
            if self.env.replace(symbol) == symbol:
                multiple = _multiple(ours)
                found += (
                    [sympy.Ge(_name(ours), 2)] if multiple == 1 else [sympy.Eq(sympy.Mod(_name(ours), multiple), 0)]
                )
        for guard in self.env.conditions:
            condition = self.env.replace(guard).xreplace(self.ours)
            if getattr(condition, "free_symbols", None) and condition not in found:
                found.append(condition)
        return tuple(found)


def _name(ours: sympy.Expr) -> sympy.Symbol:
    return next(iter(ours.free_symbols))  # type: ignore[return-value]


def _multiple(ours: sympy.Expr) -> Any:
    return sympy.sympify(_name(ours)) / ours


def _tidy(expression: sympy.Expr) -> Size:
    expanded = sympy.expand(expression)
    return int(expanded) if expanded.is_Integer else expanded


def trace(
    target: Any,
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

    >>> print(trace(torch.nn.Linear(4, 3), axes="b m"))
    Linear linear  b m -> b 3  b 4 -> b 3  15 params
    m = 4, fixed
    """
    target = uncompiled(target)
    listener = Listener(definitions=True, places=True)
    symbols = _Symbols(_Sizes(lambda: listener.inside))
    mode = FakeTensorMode(shape_env=symbols.env, allow_non_fake_inputs=True)
    circuit = find_circuit(target)
    listener.written = symbols.text
    copier = _Copier(mode, listener)
    run = copier.target(target)
    symbols.taken |= {size for parameter in _parameters(target) for size in parameter.shape}
    named = axes if axes is not None else None
    with torch.random.fork_rng(devices=[]), mode, enable_python_dispatcher():
        if _has_tensors((args, kwargs)):
            args, kwargs = copier.inputs(args), copier.inputs(kwargs)
            made: list[Any] = [parse_axes(part) for part in axes.split(",")] if axes else []
        else:
            made, args, kwargs = _make_inputs(target, circuit, named, symbols, sizes or {}, args, kwargs)
    bound = _bind(target, args, kwargs)
    with _translated(symbols), torch.random.fork_rng(devices=[]), eager(), mode, enable_python_dispatcher():
        with listening(listener):
            try:
                _run(listener, target, circuit, run, bound)
            except Exception as error:
                error.add_note(f"while tracing {' > '.join(listener.failed_in)}")
                raise
    builder = Builder(listener.record, symbols.size, bound[2], made).fed()
    free = {_name(ours): symbols.raw(raw) * _multiple(ours) for raw, ours in symbols.ours.items()}
    return assemble(builder, symbols.raw, free, symbols.guards(), symbols.fixed())


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
                with self.listener.muted(), FakeCopyMode(self.mode):
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
        return _pytree.tree_map_only(Tensor, self._fake, value)

    def _fake(self, tensor: Tensor) -> Tensor:
        return (
            tensor
            if isinstance(tensor, FakeTensor) and tensor.fake_mode is self.mode
            else self.mode.from_tensor(tensor, static_shapes=True)
        )


def _uncopied(module: nn.Module) -> str:
    """The innermost part of a module that cannot be copied."""
    for name, child in module.named_children():
        try:
            with FakeCopyMode(FakeTensorMode(allow_non_fake_inputs=True)):
                copy.deepcopy(child)
        except Exception:
            inner = _uncopied(child)
            return (
                f"{type(module).__name__}.{name} ({inner})"
                if inner != type(child).__name__
                else f"{type(module).__name__}.{name}"
            )
    return type(module).__name__


@contextlib.contextmanager
def _translated(symbols: _Symbols) -> Iterator[None]:
    """Errors in the words of the user: axes by name, the line that asked; and nothing of torch's in the log."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    try:
        log.addFilter(_no)
        yield
    except CircuitError:
        raise
    except (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException) as error:
        by, where = _asked_in(error)
        raise CircuitError(
            f"the run needs a number that only data can give: {by or 'a value'} at {where}\n"
            "a trace is one path through the code: track a real run instead, or compute without asking (torch.where)"
        ) from error
    except RuntimeError as error:
        text = symbols.rename(str(error))
        if text == str(error):
            raise
        renamed = type(error)(text)
        for note in getattr(error, "__notes__", []):
            renamed.add_note(note)
        raise renamed from error
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
        return "", "an unknown line"
    name, line = place.tb_frame.f_code.co_filename, place.tb_lineno
    return f"`{linecache.getline(name, line).strip()}`", f"{name}:{line}"


def _parameters(target: Any) -> list[Tensor]:
    owner = target if isinstance(target, nn.Module) else getattr(target, "__self__", None)
    return list(owner.parameters()) if isinstance(owner, nn.Module) else []


def _has_tensors(value: Any) -> bool:
    return any([isinstance(leaf, Tensor) for leaf in _pytree.tree_leaves(value)])


def _make_inputs(
    target: Any,
    circuit: Circuit | None,
    axes: str | None,
    symbols: _Symbols,
    given: Mapping[str, int],
    args: Any,
    kwargs: Any,
) -> tuple[list[Axes], Any, Any]:
    """Fake inputs with the axes of the signature, or of `axes`."""
    parameters = _parameters(target)
    floating = next((p for p in parameters if p.is_floating_point()), None)
    dtype = floating.dtype if floating is not None else torch.get_default_dtype()
    device = floating.device if floating is not None else torch.get_default_device()
    if axes is not None:
        shapes = list(Signature.parse(f"{axes} -> ").inputs)
        names: list[str | None] = [None] * len(shapes)
    elif circuit is not None:
        shapes, names = list(circuit.signature.inputs), list(circuit.inputs)
    else:
        raise CircuitError(
            f"{_called(target)} has no signature to make inputs from: give inputs, trace(model, x), or name the axes of "
            'its tensors, trace(model, axes="b c h w")'
        )
    owner = target if isinstance(target, nn.Module) else getattr(target, "__self__", None)
    known: dict[str, Any] = dict(given)
    if circuit is not None:
        known = {**fixed_sizes(circuit, owner), **known}
    multiples = dict(circuit.multiples) if circuit is not None else {}
    for name in _names(shapes, circuit):
        if name not in known:
            known[name] = symbols.of(name, multiples.get(name, 1))
    unknown = [name for name in given if name not in _names(shapes, circuit)]
    if unknown:
        raise CircuitError(
            f"sizes has {', '.join(unknown)}, but the axes are {' '.join(_names(shapes, circuit)) or 'none'}"
        )
    made = []
    for shape, name in zip(shapes, names, strict=False):
        kind = circuit.dtypes.get(name, dtype) if circuit is not None and name is not None else dtype
        size = [term.size(known) for term in shape if not isinstance(term, Rest)]
        made.append(torch.empty(size, dtype=kind, device=device))
    if axes is not None or not args:
        return shapes, (*made, *args), kwargs
    raise CircuitError("positional arguments without a tensor among them: pass the tensors too, or name the others")


def _names(shapes: list[Axes], circuit: Circuit | None) -> list[str]:
    names = [name for axes in shapes for term in axes for name in term.names]
    return list(dict.fromkeys(names))


def _called(target: Any) -> str:
    return type(target).__name__ if isinstance(target, nn.Module) else getattr(target, "__qualname__", repr(target))


Bound = tuple[tuple[Any, ...], dict[str, Any], inspect.Signature | None]


def _bind(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound:
    """The arguments as Python binds them, so that a diagram can be called in any of the ways its original can."""
    signature = signature_of(target)
    if signature is None:
        return args, kwargs, None
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args, bound.kwargs, signature


def _run(listener: Listener, target: Any, circuit: Circuit | None, run: Any, bound: Bound) -> None:
    args, kwargs, _ = bound
    if isinstance(target, nn.Module) or circuit is not None:
        run(*args, **kwargs)
    else:
        listener.whole_function(_called(target), run, args, kwargs)
