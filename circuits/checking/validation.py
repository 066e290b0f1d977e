"""Raise SignatureError for a declaration that no call can satisfy or that has an unknown name."""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch

from circuits.checking.axes import arithmetic, has_rest, plain_names
from circuits.checking.declaration import Circuit
from circuits.errors import SignatureError, perhaps, point
from circuits.signature import Axes, Axis, Term, places, unknown


def validate(circuit: Circuit) -> None:
    """Raise SignatureError if an option has an unknown name or a wrong value, or if a size cannot be computed."""
    signature = circuit.signature
    tensors = (*circuit.inputs, *circuit.optional)
    optional_names = (name for axes in circuit.optional.values() for term in axes for name in term.names)
    axes = tuple(dict.fromkeys((*signature.names, *optional_names)))
    refuse_unknown("dtypes", circuit.dtypes, tensors, f"a tensor of {circuit.name}")
    refuse_unknown("hints", circuit.hints, tensors, f"a tensor of {circuit.name}")
    _refuse_attributes_without_owner(circuit)
    refuse_unknown("fixed", circuit.fixed, axes, f"an axis of {signature}")
    refuse_unknown("multiples", circuit.multiples, axes, f"an axis of {signature}")
    _refuse_values(
        "fixed", circuit.fixed, lambda by: isinstance(by, str) or _is_size(by), "an attribute's name or a size"
    )
    _refuse_values("dtypes", circuit.dtypes, lambda dtype: isinstance(dtype, torch.dtype), "a torch.dtype")
    _refuse_values("hints", circuit.hints, lambda text: isinstance(text, str), "a text")
    _refuse_values("multiples", circuit.multiples, lambda of: _is_size(of) and of > 0, "a positive int")
    _refuse_fixed_without_multiple(circuit)
    _refuse_unsolvable_arithmetic(circuit)
    _refuse_optional_rest(circuit)


def refuse_generators(function: Callable[..., Any], name: str) -> None:
    """Raise SignatureError for a function whose result is not there when the call returns: a generator, or async.

    Args:
        function: A function, a partial of one, a bound method, or an object with `__call__`.
        name: Its name in the message.
    """
    called = function if inspect.isroutine(function) or isinstance(function, partial) else type(function).__call__
    if inspect.isgeneratorfunction(called):
        what = "a generator: it has no tensors before it is iterated"
        instead = "return a list of the tensors, or decorate a function that computes one of them"
    elif inspect.isasyncgenfunction(called) or inspect.iscoroutinefunction(called):
        what = "async: it has no tensors before it is awaited or iterated"
        instead = "decorate a function without `async` that it calls"
    else:
        return
    raise SignatureError(f"a circuit returns tensors, and {name} is {what}; {instead}")


def refuse_unknown(option: str, given: Collection[str], known: Collection[str], kind: str) -> None:
    """Raise SignatureError if an option has a key that is not among the known names."""
    for each in given:
        if each not in known:
            there = f"{', '.join(known) or 'none'}{perhaps(each, known)}"
            raise SignatureError(f"{option}: {each!r} is not {kind}; there are {there}")


def _refuse_values(option: str, given: Mapping[str, Any], fits: Callable[[Any], bool], kind: str) -> None:
    """Raise SignatureError if a value of an option is of the wrong kind."""
    for each, value in given.items():
        if not fits(value):
            raise SignatureError(f"{option}={{{each!r}: {value!r}}}: {value!r} is not {kind}")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _refuse_attributes_without_owner(circuit: Circuit) -> None:
    """Raise SignatureError if `fixed` names an attribute but the function is not a method."""
    for axis, by in circuit.fixed.items():
        if isinstance(by, str) and not circuit.owner:
            what = f"fixed: the size of {axis} would be self.{by}, but {circuit.name} is not a method"
            raise SignatureError(f"{what}; give the size as a number")


def _refuse_fixed_without_multiple(circuit: Circuit) -> None:
    """Raise SignatureError if a size that `fixed` gives as a number is not a multiple as `multiples` requires."""
    for axis, of in circuit.multiples.items():
        size = circuit.fixed.get(axis)
        if isinstance(size, int) and size % of != 0:
            raise SignatureError(
                f"fixed: the size {size} of {axis} is not a multiple of {of}, which multiples requires"
            )


def _refuse_unsolvable_arithmetic(circuit: Circuit) -> None:
    """Raise SignatureError if arithmetic has an axis whose size no tensor of a call determines."""
    stated, known = _stated_names(circuit), _solvable_names(circuit)
    for _, _, term, span in places(circuit.signature):
        for derived in arithmetic(term):
            missing = [name for name in derived.names if name not in stated] or unknown(derived, known)
            if missing:
                needed = " and ".join(dict.fromkeys(missing))
                what = f"{derived} needs the size of {needed}, which the rest of the signature does not determine"
                raise SignatureError(f"{what}\n{point(str(circuit.signature), span)}")


def _stated_names(circuit: Circuit) -> dict[str, None]:
    """Return the axes that are fixed or that occur outside arithmetic in at least one tensor."""
    terms = (*_terms(circuit.optional.values()), *_terms(circuit.signature.inputs + circuit.signature.outputs))
    return dict.fromkeys((*circuit.fixed, *(name for term in terms for name in plain_names(term))))


def _solvable_names(circuit: Circuit) -> dict[str, None]:
    """Return the axes whose sizes are known after terms with a single unknown name are solved, repeatedly.

    All axes of optional tensors count as known.
    """
    terms = _terms(circuit.signature.inputs + circuit.signature.outputs)
    known = dict.fromkeys((*circuit.fixed, *(term.name for term in terms if isinstance(term, Axis))))
    known |= dict.fromkeys(name for term in _terms(circuit.optional.values()) for name in term.names)
    unsolved = [term for term in terms if unknown(term, known)]
    before = -1
    while before != len(unsolved):
        before = len(unsolved)
        for term in unsolved:
            if len(unknown(term, known)) == 1:
                known |= dict.fromkeys(unknown(term, known))
        unsolved = [term for term in unsolved if unknown(term, known)]
    return known


def _terms(tensors: Collection[Axes]) -> list[Term]:
    """Return the terms of several tensors in one list."""
    return [term for axes in tensors for term in axes]


def _refuse_optional_rest(circuit: Circuit) -> None:
    """Raise SignatureError if an optional tensor has `...` and no input has `...`."""
    if not any(has_rest(axes) for axes in circuit.signature.inputs):
        for name, axes in circuit.optional.items():
            if has_rest(axes):
                what = f"optional: {name!r} has '...', but no input has '...' to which it could broadcast"
                raise SignatureError(f"{what}\n{point(str(circuit.signature))}")
