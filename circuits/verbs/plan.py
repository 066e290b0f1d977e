"""The pattern of an einsum as data: which sizes must be equal, and the message if they are not."""

import functools
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import Tensor

from circuits import switch
from circuits.errors import ShapeError, SignatureError, point
from circuits.signature import Axis, Group, Rest, Signature, normalized, places, separated, show_axes
from circuits.tracers import constant_when_compiled
from circuits.verbs.contraction import equation
from circuits.verbs.look_alikes import warn_of_look_alikes

MOST_CACHED = 1024
"""The number of patterns whose plans, and whose names for einops, are kept: those used last."""


@dataclass(frozen=True)
class Operand:
    """One tensor of an einsum pattern: its axes as text, the names of those after `...`, and whether `...` leads."""

    text: str
    names: tuple[str, ...]
    rest: bool


@dataclass(frozen=True)
class Plan:
    """The sizes that must be equal in an einsum: each of `pairs` is (tensor, dim, tensor, dim), two axes with one name.

    Dims count from the right and are negative, so that they do not depend on `...`. `equation` is the pattern in the
    notation of torch.einsum, empty if it has none.
    """

    operands: tuple[Operand, ...]
    pairs: tuple[tuple[int, int, int, int], ...]
    equation: str


@constant_when_compiled
def plan_for(pattern: str) -> Plan:
    """Return the plan of a pattern, which is cached; torch.compile sees it as a constant."""
    return _make_plan(pattern)


@functools.lru_cache(MOST_CACHED)
def _make_plan(pattern: str) -> Plan:
    """Return the plan of a pattern; SignatureError if it cannot be parsed, or an axis is not a name."""
    first: dict[str, tuple[int, int]] = {}
    pairs: list[tuple[int, int, int, int]] = []
    operands = []
    signature = Signature.parse(pattern)
    for tensor, axes in enumerate(signature.inputs):
        named = axes[1:] if axes and isinstance(axes[0], Rest) else axes
        for number, term in enumerate(reversed(named), start=1):
            if not isinstance(term, Axis):
                hint = "rearrange first" if isinstance(term, Group) else "it is not a name"
                raise SignatureError(f"the axes of an einsum are names, not '{term}' ({hint})\n{point(pattern)}")
            occurrence = first.setdefault(term.name, (tensor, -number))
            if occurrence != (tensor, -number):
                pairs.append((*occurrence, tensor, -number))
        operands.append(Operand(show_axes(axes), tuple([str(term) for term in named]), len(named) < len(axes)))
    _check_output(pattern, signature, first)
    warn_of_look_alikes(signature)
    return Plan(tuple(operands), tuple(pairs), equation(signature))


def _check_output(pattern: str, signature: Signature, names: Container[str]) -> None:
    """Raise SignatureError unless there is one output, whose axes are different names that the inputs have."""
    if len(signature.outputs) != 1:
        raise SignatureError(f"an einsum has one output, not {len(signature.outputs)}\n{point(pattern)}")
    output = [(term, span) for tensor, _, term, span in places(signature) if tensor == len(signature.inputs)]
    for number, (term, span) in enumerate(output):
        if isinstance(term, Rest):
            continue
        if not isinstance(term, Axis):
            hint = "rearrange the result" if isinstance(term, Group) else "it is not a name"
            fault = f"the axes of an einsum are names, not '{term}' ({hint})"
        elif term.name not in names:
            fault = f"no input has the axis {term.name} (repeat adds axes)"
            hint = separated(signature)
            if hint:
                raise SignatureError(f"{fault}\n{point(str(signature), span)}\n  separate axes by spaces: {hint}")
        elif any(term == other for other, _ in output[:number]):
            fault = f"the output of an einsum has each axis once, and {term.name} is in it twice"
        else:
            continue
        raise SignatureError(f"{fault}\n{point(str(signature), span)}")


@constant_when_compiled
def names_for_einops(*texts: str) -> tuple[str, ...]:
    """Return a pattern and names of axes without primes, which einops does not support: `h'` becomes `hPrime`.

    If one of the texts has the word `Prime`, a prime becomes a longer word that none of them has, so that different
    axes keep different names. Names are normalized, as Python normalizes keyword arguments.

    >>> names_for_einops("h h' -> h' h", "h'")
    ('h hPrime -> hPrime h', 'hPrime')
    >>> names_for_einops("h' hPrime -> hPrime h'")
    ('hPrimePrime hPrime -> hPrime hPrimePrime',)
    """
    return _make_names(texts)


@functools.lru_cache(MOST_CACHED)
def _make_names(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names for einops; see `names_for_einops`."""
    word = "Prime"
    while any(word in text for text in texts):
        word += "Prime"
    return tuple([re.sub(r"\w+", _normal_word, text).replace("'", word) for text in texts])


def _normal_word(word: re.Match[str]) -> str:
    """Return a word as Python normalizes it, if it is a name."""
    return normalized(word[0]) if word[0].isidentifier() else word[0]


def refuse(pattern: str, tensors: Sequence[Tensor]) -> NoReturn:
    """Raise ShapeError; a line for each tensor of the einsum names the axes that have another size than before.

    It uses only plain f-strings, because Dynamo traces it.
    """
    text = f"einsum: {pattern}"
    sizes: dict[str, Any] = {}
    first_tensor: dict[str, int] = {}
    lead: Any = None
    first = 0
    for number, (tensor, operand) in enumerate(zip(tensors, plan_for(pattern).operands)):  # noqa: B905
        shape = tensor.shape
        line = f"  tensor {number} [{operand.text}] "
        for size in shape:
            line = f"{line} {switch.show(size)}"
        extra = len(shape) - len(operand.names)
        if extra < 0 or (extra > 0 and not operand.rest):
            more = " or more" if operand.rest else ""
            axes = "axis" if len(shape) == 1 else "axes"
            text = f"{text}\n{line}    has {len(shape)} {axes}, expected {len(operand.names)}{more}"
            if len(operand.names) == 1 and len(operand.names[0]) == len(shape) > 1 and not operand.rest:
                text = f"{text}; separate axes by spaces, '{_joined(operand.names[0])}'"
            continue
        if operand.rest:
            if lead is None:
                lead, first = shape[:extra], number
            elif shape[:extra] != lead:
                here, there = _joined(shape[:extra]), _joined(lead)
                line = f"{line}    ... is {here} here, but {there} in tensor {first}{_stretch(shape[:extra], lead)}"
        for name, size in zip(operand.names, shape[extra:]):  # noqa: B905
            if name not in sizes:
                sizes[name], first_tensor[name] = size, number
            elif sizes[name] != size:
                other = switch.show(sizes[name])
                line = f"{line}    {name} is {switch.show(size)} here, but {other} in tensor {first_tensor[name]}"
                line = f"{line}{_stretch([size], [sizes[name]])}"
        text = f"{text}\n{line}"
    raise ShapeError(text)


def _joined(parts: Any) -> str:
    """Return sizes, or letters, separated by spaces; `()` if there are none."""
    text = ""
    for part in parts:
        text = f"{text}{' ' if text else ''}{switch.show(part)}"
    return text if text else "()"


def _stretch(sizes: Any, others: Any) -> str:
    """Return a hint if numpy's rules would broadcast one tensor: an axis of size 1, or fewer axes."""
    shorter = len(sizes) < len(others) or len(others) < len(sizes)
    fits = True
    one = False
    for size, other in zip(reversed([*sizes]), reversed([*others])):  # noqa: B905
        if size != other:
            one = one or size == 1 or other == 1
            fits = fits and (size == 1 or other == 1)
    if not fits or not (one or shorter):
        return ""
    return "; a size of 1 is not broadcast" if one else "; missing axes are not broadcast"
