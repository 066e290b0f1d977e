"""`@circuit`: give a function, a method or one module instance a signature that is checked on every call.

The check is Python source that is generated for each signature (`wrapper`). A call that it refuses is checked again by
slower code, which reports every mismatch (`messages`). A registered kernel runs instead of the definition. Checks and
kernels are turned on and off for the whole process, not for a thread: other shape checkers read a thread-local on every
call, which breaks them under `torch.compile`.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from circuits.checking.binding import Binding
from circuits.checking.checked_function import checked
from circuits.checking.declaration import Circuit, Options, Slot
from circuits.checking.declare import declare
from circuits.checking.instances import give_signature
from circuits.checking.messages import fixed_size, has_mismatch, table
from circuits.checking.protocols import Decorator
from circuits.checking.rows import Row
from circuits.checking.runtime import checks_switch, definitions_switch
from circuits.checking.validation import refuse_unknown
from circuits.errors import ShapeError, SignatureError, entry_point
from circuits.signature import normalized, parse_axes, plain_size
from circuits.tracers import fx_leaf, without_warnings


def checks(on: bool) -> AbstractContextManager[None]:
    """Turn the checks of all circuits on or off inside the `with`, for every thread.

    Checks are on by default; the environment variable `CIRCUITS_CHECKS=0`, read at import, turns them off.

    Args:
        on: Whether calls are checked. If several `with` are active, in any thread, the one entered last determines it;
            they may end in any order.

    >>> double = circuit("y m -> y m")(lambda x: x * 2)
    >>> with checks(False):
    ...     double(torch.ones(3)).shape
    torch.Size([3])
    """
    return checks_switch.set(on)


def definitions() -> AbstractContextManager[None]:
    """Run definitions instead of kernels inside the `with`, for every thread, until no such `with` is active any more.

    The definition of a circuit is the function that was decorated, its kernel the one that `f.kernel` registered. The
    checks do not change.

    >>> double = circuit("y -> y")(lambda x: x + x)
    >>> _ = double.kernel(lambda x: x * 3)  # wrong on purpose
    >>> double(torch.ones(2))
    tensor([3., 3.])
    >>> with definitions():
    ...     double(torch.ones(2))
    tensor([2., 2.])
    """
    return definitions_switch.set(True)


@entry_point
def circuit(
    text: str,
    *,
    optional: Mapping[str, str] | None = None,
    fixed: str | Mapping[str, str | int] | None = None,
    dtypes: Mapping[str, torch.dtype] | None = None,
    multiples: Mapping[str, int] | None = None,
    hints: Mapping[str, str] | None = None,
) -> Decorator:
    """Decorator: check the inputs and outputs of a function, method or module against a signature on every call.

    The first parameters (after `self`) take the signature's input tensors. The output tensors are found in order inside
    tuples, lists, mappings and dataclasses. An input without axes may also be a Python number. A size of 1 does not
    fit another size: only the `...` of optional tensors broadcasts.

    Args:
        text: The signature, such as `"... y m, ... x m -> ... y m"`.
        optional: The axes of further tensors, by the names of their parameters. They may be None, and their `...` need
            only broadcast to the `...` of the inputs.
        fixed: Axes whose sizes are given: `"m k"` for the attributes `self.m` and `self.k`, or a mapping from axes to
            names of attributes or numbers, `{"m": "in_features", "c": 3}`. An attribute may be a property, or an
            attribute of the class.
        dtypes: The dtype that a tensor must have, by the name of its parameter; other tensors may have any dtype.
        multiples: For an axis, the number that its size must be a multiple of. Of a group with several unknown axes,
            the product must be a multiple of the product of their numbers.
        hints: A line that the message adds where a tensor does not fit, by the name of its parameter.

    Returns:
        A decorator for a function, a method, or an instance of `nn.Module`. A decorated function has the same
        parameters and the attributes `circuit` (the declaration), `kernel` and `backward` (decorators that register a
        faster function and a backward circuit). A module gets a checked forward in place and is returned; its type,
        parameters and state dict do not change. Its copies and pickles have the signature too, slices and other new
        modules of its class have none, and `del module.forward` removes it.

    Raises:
        SignatureError: At the declaration, if the text is missing or cannot be parsed, or if the options or the
            parameters of the function do not fit it.
        ShapeError: At a call, if a tensor does not fit; the message lists every mismatch.
        CircuitError: At a call, if an attribute named by `fixed` is missing or is not an int.

    >>> @circuit("y k, x k -> y x")
    ... def scores(query: Tensor, key: Tensor) -> Tensor:
    ...     return query @ key.mT
    >>> scores(torch.ones(5, 8), torch.ones(7, 8)).shape
    torch.Size([5, 7])
    >>> scores.circuit.signature
    Signature.parse('y k, x k -> y x')
    """
    if not isinstance(text, str):
        what = getattr(text, "__qualname__", type(text).__name__).split("<locals>.")[-1]
        raise SignatureError(
            f"circuit takes a signature, not {what}: write @circuit('y m, x m -> y m') above a function"
        )
    options = Options.of(optional, fixed, dtypes, multiples, hints)
    frame = sys._getframe(2)  # the first is that of `entry_point`
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"

    @entry_point
    def decorate(thing: Any) -> Any:
        if isinstance(thing, nn.Module):
            return give_signature(thing, text, options, where)
        if isinstance(thing, staticmethod | classmethod):
            return type(thing)(decorate(thing.__func__))
        if isinstance(thing, type) or not callable(thing):
            of_class = isinstance(thing, type)
            what = f"the class {thing.__name__}; decorate its forward" if of_class else type(thing).__name__
            raise SignatureError(f"a circuit is a function, a method or a module, not {what}")
        return checked(declare(thing, text, options, _name(thing), where))

    return decorate


def _name(function: Callable[..., Any]) -> str:
    """Return the qualified name of a function without its enclosing functions, or the name of a callable's class."""
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or type(function).__name__
    return name.split("<locals>.")[-1]


def find_circuit(thing: Any) -> Circuit | None:
    """Return the declaration of a decorated function, of a bound method or of a module's forward.

    Args:
        thing: Any object. For a module returned by `torch.compile`, the forward of the original module is used.

    Returns:
        The declaration, or None if `thing` is not a circuit.
    """
    if isinstance(thing, nn.Module):
        is_compiled = "_orig_mod" in vars(thing).get("_modules", ())  # getattr alone is slow where there is none
        thing = (getattr(thing, "_orig_mod", thing) if is_compiled else thing).forward
    found = getattr(thing, "circuit", None)
    return found if isinstance(found, Circuit) else None


def fixed_sizes(spec: Circuit, owner: Any) -> dict[str, int]:
    """Return the size of each axis of `fixed`, read from the attributes of the owner.

    Raises:
        CircuitError: If an attribute is missing or is not an int.
    """
    return {name: fixed_size(spec, owner, name, by) for name, by in spec.fixed.items()}


@entry_point
def check(tensor: Tensor, text: str, **sizes: int) -> dict[str, int]:
    """Check a tensor's axes and return their sizes by name.

    Args:
        tensor: The tensor, of any dtype.
        text: The axes of the tensor, such as `"b c h w"` or `"... (h k)"`.
        **sizes: The sizes that some axes of `text` must have, by name.

    Returns:
        `sizes` and the size of every other named axis, also inside groups and arithmetic if it can be solved.

    Raises:
        ShapeError: If the tensor does not have these axes with these sizes.
        SignatureError: If `text` cannot be parsed, or if it does not have an axis of `sizes`.

    >>> check(torch.zeros(2, 3, 8, 8), "b c h w", c=3)
    {'c': 3, 'b': 2, 'h': 8, 'w': 8}
    """
    if isinstance(tensor, str):
        raise SignatureError(f"check takes a tensor, then its axes: check(x, {tensor!r})")
    leaf = fx_leaf(check, (tensor, text), sizes)
    return without_warnings(_check, tensor, text, sizes) if leaf is None else leaf


def _check(tensor: Tensor, text: str, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of a tensor's axes by name; see `check`."""
    axes = parse_axes(text)
    names: list[str] = []
    for term in axes:
        names.extend(term.names)
    binding = Binding({})
    for name, size in sizes.items():
        binding.set_size(normalized(name), plain_size(size), "given")
    refuse_unknown("check", binding.sizes, names, f"an axis of {text}")
    row = Row(Slot("tensor", axes, text), tensor)
    binding.bind(row)
    binding.solve_all()
    if has_mismatch([row]):
        raise ShapeError(f"check: {text}\n{table([row])}".rstrip())
    return binding.sizes
