"""What an error of einops or torch says, in our words: the user's pattern, the sizes of its axes, and the mistake.

einops writes its own form of the pattern (without primes) and does not say which axis does not fit. Where the pattern
is not one that this library can parse (`...` in the middle), the last sentence of einops' message is kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from einops import EinopsError
from torch import Tensor

from circuits import switch
from circuits.errors import CircuitError, OperationError, ShapeError, SignatureError, perhaps, point
from circuits.signature import (
    AnySizeError,
    Axes,
    Axis,
    Group,
    Number,
    Rest,
    Signature,
    normalized,
    places,
    separated,
    show_axes,
    solve,
    unknown,
)


def explained(
    verb: str, pattern: str, tensor: Any, sizes: Mapping[str, Any], error: RuntimeError
) -> CircuitError | None:
    """Return the error to raise for one that einops raised, or None for one of torch.

    Args:
        verb: The name of the verb.
        pattern: The pattern as it was passed.
        tensor: The tensor, or the list of tensors that are stacked.
        sizes: The sizes that were passed by name.
        error: The error.
    """
    said = (f"{error}".strip().splitlines() or [""])[-1].strip()
    if said.startswith("Tensor type unknown to einops"):
        return ShapeError(f"{verb}: {pattern}\n  a tensor is expected, not {_with_article(type(tensor).__name__)}")
    if said.endswith("is not available for non-floating tensors"):
        needs = f"{said.partition(' ')[0].removeprefix('reduce_')} needs floating-point numbers"
        return OperationError(
            f"{verb}: {pattern}\n{_row(pattern.partition('->')[0], tensor)} {tensor.dtype}    {needs}"
        )
    if not isinstance(error, EinopsError):
        return None
    return _of_pattern(verb, pattern, tensor, sizes, said)


def _of_pattern(verb: str, pattern: str, tensor: Any, sizes: Mapping[str, Any], said: str) -> CircuitError:
    """Return the error of a pattern that is wrong, or that a tensor does not fit; `said` is einops' own reason."""
    given = {normalized(name): size for name, size in sizes.items()}
    try:
        signature = Signature.parse(pattern)
    except SignatureError as fault:
        if "->" not in pattern or pattern.count("->") > 1 or "..." not in pattern:
            return SignatureError(f"{verb}: {fault}")
        return ShapeError(f"{verb}: {pattern}\n{_row(pattern.partition('->')[0], tensor)}\n  {said}")
    text = _misused_names(verb, signature, given)
    if text:
        return SignatureError(f"{verb}: {text}")
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        return SignatureError(f"{verb} takes one tensor and returns one, without commas\n{point(str(signature))}")
    axes = signature.inputs[0]
    mismatch = _mismatch(axes, _shape(tensor), given)
    missing = [term.text for term in axes if isinstance(term, Group) and len(unknown(term, given)) > 1]
    if not mismatch and missing:
        names = unknown(next(term for term in axes if term.text == missing[0]), given)
        return SignatureError(
            f"{verb}: {missing[0]} does not determine {' and '.join(names)}: give {_either(names)}, "
            f"{verb}(..., {names[-1]}=...)\n{_point_at(signature, missing[0])}"
        )
    if not mismatch and "shape" not in said.lower():
        return SignatureError(f"{verb}: {pattern}\n  {said}")
    return ShapeError(f"{verb}: {pattern}\n{_row(show_axes(axes), tensor)}    {mismatch or said}")


def of_mixed_tensors(pattern: str, tensors: Sequence[Any]) -> CircuitError | None:
    """Return the error to raise where torch refused an einsum of tensors of several dtypes or devices; else None."""
    kinds = [kind for kind in ("dtype", "device") if len({getattr(each, kind, None) for each in tensors}) > 1]
    if not kinds:
        return None
    rows = [
        _row(axes, tensor).replace("tensor", f"tensor {number}", 1)
        for number, (axes, tensor) in enumerate(zip(pattern.split("->")[0].split(","), tensors, strict=False))
    ]
    width = max(len(row) for row in rows)
    found = [" ".join([f"{getattr(tensor, kind, '')}" for kind in kinds]) for tensor in tensors]
    rows = [f"{row.ljust(width)}    {each}" for row, each in zip(rows, found, strict=False)]
    what = " and ".join([f"{kind}s" for kind in kinds])
    return OperationError("\n".join([f"einsum: {pattern}", *rows, f"  the tensors have different {what}"]))


def _misused_names(verb: str, signature: Signature, given: Mapping[str, Any]) -> str:
    """Return what is wrong with the names of the axes, whatever the sizes are; "" if nothing is."""
    for name in given:
        if name not in signature.names:
            there = ", ".join(signature.names) or "none"
            return f"{name} is not an axis of the pattern; there are {there}{perhaps(name, signature.names)}"
    left, right = (
        list(dict.fromkeys(name for axes in side for term in axes for name in term.names))
        for side in (signature.inputs, signature.outputs)
    )
    new, gone = [name for name in right if name not in left], [name for name in left if name not in right]
    if verb == "repeat":
        new = [name for name in new if name not in given]
    apart = separated(signature)
    hint = f"\n  separate axes by spaces: {apart}" if apart else ""
    if new:
        what = {
            "rearrange": "is only in the result (repeat adds axes)",
            "reduce": "is only in the result (repeat adds axes)",
            "repeat": f"is a new axis, whose size is not given: repeat(..., {new[0]}=...)",
        }[verb]
        return f"{new[0]} {what}\n{_point_at(signature, new[0])}{hint}"
    if gone and verb != "reduce":
        return f"the result lacks {gone[0]} (reduce removes axes)\n{_point_at(signature, gone[0])}{hint}"
    return ""


def _mismatch(axes: Axes, shape: Sequence[Any], given: Mapping[str, Any]) -> str:
    """Return the first mismatch of the axes with the sizes of a tensor; "" if none is found."""
    rest = sum(isinstance(term, Rest) for term in axes)
    count = len(axes) - rest
    if len(shape) < count or (len(shape) > count and not rest):
        here = "1 axis" if len(shape) == 1 else f"{len(shape) or 'no'} axes"
        return f"{here} here, but the pattern has {'at least ' if rest else ''}{count or 'none'}"
    known = dict(given)
    named = axes[rest:]
    for term, size in zip(named, shape[len(shape) - count :], strict=True):
        at, missing = f"{term} is {switch.show(size)} here", unknown(term, known)
        parts = ", ".join(
            [f"{name} is {switch.show(known[name])}" for name in dict.fromkeys(term.names) if name in known]
        )
        try:
            if isinstance(term, Number) and size != term.value:
                return f"{switch.show(size)} here, but the pattern says {term}"
            if isinstance(term, Axis) and known.setdefault(term.name, size) != size:
                return f"{at}, but {switch.show(known[term.name])} is given"
            if isinstance(term, Group) and not missing and term.size(known) != size:
                return f"{at}, but {switch.show(term.size(known))}: {parts}"
            if isinstance(term, Group) and len(missing) == 1:
                known[missing[0]] = solve(term, size, known)
        except AnySizeError:
            continue
        except ValueError:
            return f"{at}, so {missing[0]} is not a whole number: {parts}"
    return ""


def _row(axes: str, tensor: Any) -> str:
    """Return the tensor with its axes and sizes."""
    kind = "tensor" if isinstance(tensor, Tensor) else f"list of {len(tensor)}"
    sizes = " ".join([switch.show(size) for size in _shape(tensor)]) or "()"
    return f"  {kind} [{axes.strip()}]  {sizes}"


def _shape(tensor: Any) -> list[Any]:
    """Return the sizes of a tensor, or of the stack of a list of tensors."""
    return (
        [*tensor.shape]
        if isinstance(tensor, Tensor)
        else [len(tensor), *getattr(next(iter(tensor), None), "shape", ())]
    )


def _point_at(signature: Signature, text: str) -> str:
    """Return the signature with carets under the terms that are, or have in them, a name or a term."""
    spans = [span for *_, term, span in places(signature) if f"{term}" == text or text in term.names]
    return point(str(signature), *spans)


def _either(names: Sequence[str]) -> str:
    return "one of them" if len(names) == 2 else f"all but one of the {len(names)}"


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
