"""`@circuit`: give a function, a method or one module instance a signature that is checked on every call.

The check is Python written for the one signature (`generating`); a call that does not fit is gone over again, slowly,
to say all that is wrong (`explaining`). A kernel, once registered, is what runs. Checks and kernels are switched for
the whole process, not for a thread: a thread-local on this path is what breaks other checkers under `torch.compile`.
"""

import functools
import inspect
import linecache
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, overload

import torch
from torch import Tensor, nn

from circuits.checking import runtime
from circuits.checking.binding import Binding, Row
from circuits.checking.declaration import Circuit, Options, Slot, declare, parameters_of
from circuits.checking.messages import any_wrong, fixed_size, table
from circuits.checking.runtime import modes
from circuits.checking.wrapper import prefix_of, source
from circuits.errors import ShapeError, SignatureError
from circuits.signature import parse_axes

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")
Module = TypeVar("Module", bound=nn.Module)
Function = TypeVar("Function", bound=Callable[..., Any])


class Checked(Protocol[P, R_co]):
    """A decorated function as type checkers see it: what it was, with its declaration and a place for its kernel."""

    __name__: str
    __qualname__: str

    @property
    def circuit(self) -> Circuit:
        """The declaration."""
        ...

    def kernel(self, function: Function) -> Function:
        """Let `function`, which has the same parameters, run in place of the definition."""
        ...

    def backward(self, function: Function) -> Function:
        """Let `function` be the backward circuit.

        It takes all that the definition takes, `self` first in a method, then the cotangents of what that gives. It
        gives those of the signature's tensors in order, None for one that has none; and last, if gradients may flow to
        more, a dict of theirs: optional tensors by their parameters' names, a module's parameters by their own.
        """
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def __get__(self, instance: None, owner: Any = None) -> Self: ...
    @overload
    def __get__(self: "Checked[Concatenate[Any, Q], R]", instance: object, owner: Any = None) -> "Checked[Q, R]": ...


class Decorator(Protocol):
    """What `circuit(...)` gives: it takes a function, a method or a module.

    A method of a module stays a plain callable for type checkers: they refuse to see `forward` overridden by more.
    """

    @overload
    def __call__(self, thing: Module, /) -> Module: ...
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, thing: Callable[Concatenate[Module, P], R], /
    ) -> Callable[Concatenate[Module, P], R]: ...
    @overload
    def __call__(self, thing: Callable[P, R], /) -> Checked[P, R]: ...


@contextmanager
def checks(on: bool) -> Iterator[None]:
    """Turn checking off or on inside the `with`, for every thread; `CIRCUITS_CHECKS=0` turns it off from the start."""
    before, modes.checks = modes.checks, on
    try:
        yield
    finally:
        modes.checks = before


@contextmanager
def definitions() -> Iterator[None]:
    """Run definitions, not kernels, inside the `with`, for every thread."""
    before, modes.definitions = modes.definitions, True
    try:
        yield
    finally:
        modes.definitions = before


def circuit(
    text: str,
    *,
    optional: Mapping[str, str] | None = None,
    fixed: str | Mapping[str, str | int] | None = None,
    dtypes: Mapping[str, torch.dtype] | None = None,
    multiples: Mapping[str, int] | None = None,
) -> Decorator:
    """Give the function, method or module that follows a signature, checked on every call.

    The first parameters (after `self`) carry the signature's tensors. `optional` states the axes of further tensors,
    which may be None and whose `...` need only broadcast. `fixed="m k"` says that these axes have the sizes `self.m`
    and `self.k`; `fixed={"m": "in_features", "c": 3}` names the attribute or the number. `dtypes` says which tensors
    are to have which dtype, `multiples` which axes are to be multiples of what.

    >>> @circuit("y k, x k -> y x")
    ... def scores(query: Tensor, key: Tensor) -> Tensor:
    ...     return query @ key.mT
    >>> scores(torch.ones(5, 8), torch.ones(7, 8)).shape
    torch.Size([5, 7])
    >>> scores.circuit.signature
    Signature.parse('y k, x k -> y x')
    """
    options = Options.of(optional, fixed, dtypes, multiples)
    frame = sys._getframe(1)
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"

    def decorate(thing: Any) -> Any:
        if isinstance(thing, nn.Module):
            return _sign(thing, text, options, where)
        if isinstance(thing, staticmethod | classmethod):
            return type(thing)(decorate(thing.__func__))
        if isinstance(thing, type) or not callable(thing):
            of_class = isinstance(thing, type)
            what = f"the class {thing.__name__}; decorate its forward" if of_class else type(thing).__name__
            raise SignatureError(f"a circuit is a function, a method or a module, not {what}")
        return checked(declare(thing, text, options, _name(thing), where))

    return decorate


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or type(function).__name__
    return name.split("<locals>.")[-1]


def checked(spec: Circuit) -> Any:
    """The function that checks, then runs; its text can be seen in a traceback."""
    parameters = parameters_of(spec.definition)
    prefix = prefix_of(parameters)
    names = {
        "circuit": spec,
        "body": spec.definition,
        "defaults": {each.name: each.default for each in parameters},
        "dtypes": {each.name: each.dtype for each in spec.slots},
    }
    if prefix != "_":
        names |= runtime.SHARED
    text = source(spec, names)
    filename = f"<circuit {spec.name} at {spec.where}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    scope: dict[str, Any] = {}
    exec(compile(text, filename, "exec"), runtime.__dict__, scope)
    found, run = scope["make"](**{f"{prefix}{name}": thing for name, thing in names.items()})
    functools.update_wrapper(found, spec.definition)
    found.circuit = spec
    found.kernel = functools.partial(_register, spec, run)
    found.backward = functools.partial(_reverse, spec)
    return found


def _register(spec: Circuit, run: Callable[..., None], kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Let `kernel` run in place of the definition; its parameters must have the same names."""
    mine, theirs = ([each.name for each in parameters_of(f)] for f in (spec.definition, kernel))
    if mine != theirs:
        raise SignatureError(f"a kernel of {spec.name} takes ({', '.join(mine)}); this one takes ({', '.join(theirs)})")
    spec.body.kernel = kernel
    run(kernel)
    return kernel


def _reverse(spec: Circuit, function: Callable[..., Any]) -> Callable[..., Any]:
    """Let `function` be the backward circuit: it takes what the circuit takes, then the cotangents of its answers."""
    parameters = parameters_of(spec.definition)
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    taken = [None] * max(len(places), len(spec.inputs) + bool(spec.owner))
    named = dict.fromkeys([each.name for each in parameters if each.kind is each.KEYWORD_ONLY])
    theirs = inspect.Signature(list(parameters_of(function)))
    if not any(_fits(theirs, [*taken, *[None] * more], named) for more in range(1, len(spec.results) + 1)):
        mine = ", ".join([each.name for each in parameters])
        its = ", ".join(theirs.parameters)
        raise SignatureError(
            f"a backward circuit of {spec.name} takes ({mine}) and the cotangents of what that gives; "
            f"this one takes ({its})"
        )
    spec.body.backward = function
    return function


def _fits(signature: inspect.Signature, args: list[None], kwargs: dict[str, None]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _sign(module: nn.Module, text: str, options: Options, where: str) -> nn.Module:
    """Give one module a signature: its class becomes a subclass whose forward checks; nothing in it changes."""
    if "forward" in module.__dict__:
        raise SignatureError(
            f"the forward of this {type(module).__name__} was replaced on the instance; decorate what replaced it"
        )
    base = getattr(type(module), "__unsigned__", type(module))
    module.__class__ = _signed(base, text, options, where)
    return module


@functools.cache
def _signed(base: type[nn.Module], text: str, options: Options, where: str) -> type[nn.Module]:
    """The subclass of `base` whose forward has this signature; what it pickles and copies to is signed again."""
    forward = checked(declare(base.forward, text, options, f"{base.__name__}.forward", where))

    def reduce(self: nn.Module, protocol: Any) -> Any:
        make, given, *state = super(signed, self).__reduce_ex__(protocol)
        given = tuple(base if each is signed else each for each in given)
        return _remake, (text, options, where, make, given), *state

    kept = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    members = {**kept, "forward": forward, "__reduce_ex__": reduce, "__unsigned__": base}
    signed = types.new_class(base.__name__, (base,), exec_body=lambda body: body.update(members))
    return signed


def _remake(
    text: str, options: Options, where: str, make: Callable[..., nn.Module], given: tuple[Any, ...]
) -> nn.Module:
    """A module as its class would unpickle it, with its signature."""
    return _sign(make(*given), text, options, where)


def kernel_of(spec: Circuit) -> Callable[..., Any] | None:
    """The kernel registered for a circuit, if any."""
    return spec.body.kernel


def find_circuit(thing: Any) -> Circuit | None:
    """The circuit of a decorated function, a bound method, or a module's forward."""
    if isinstance(thing, nn.Module):
        thing = getattr(thing, "_orig_mod", thing).forward
    found = getattr(thing, "circuit", None)
    return found if isinstance(found, Circuit) else None


def fixed_sizes(spec: Circuit, owner: Any) -> dict[str, int]:
    """The sizes that a circuit's `fixed` gives on this owner."""
    return {name: fixed_size(spec, owner, name, by) for name, by in spec.fixed.items()}


def check(tensor: Tensor, text: str, **sizes: int) -> dict[str, int]:
    """The sizes of a tensor's axes; raises ShapeError where it does not fit `text` and `sizes`.

    >>> check(torch.zeros(2, 3, 8, 8), "b c h w", c=3)
    {'c': 3, 'b': 2, 'h': 8, 'w': 8}
    """
    axes = parse_axes(text)
    binding = Binding({})
    for name, size in sizes.items():
        binding.give(name, size, "given")
    row = Row(Slot("tensor", axes, text), tensor)
    binding.read(row)
    binding.settle()
    if any_wrong([row]):
        raise ShapeError(f"check: {text}\n{table([row])}".rstrip())
    return binding.sizes
